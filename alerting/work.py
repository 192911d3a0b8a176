"""The durable jobs: investigate an episode, write its messages, deliver each to ticket, chat, mail.

``Planner`` reads in the book which jobs are due, and starts each under an id made from the rows.
Starting a job twice is therefore the same as starting it once. dbos, a library for durable jobs,
carries out a job's steps. After a crash it goes on with the first step that had not ended. If
Airflow is configured, a job asks it for a run of the DAG ``runbook_alert``, which investigates and
delivers. If Airflow does not take the run, the job does the work itself.

A *look* is one investigation. An *addition* writes alerts that came after a look into its report.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

from dbos import DBOS, DBOSConfig, Serializer, SetWorkflowID, StepOptions, WorkflowHandle
from pydantic_core import from_json, to_json

from fulfillment.clients.http_systems import AlertmanagerClient
from runbook_lib.errors import ClientError, RunbookError
from runbook_lib.investigation import make_incident
from runbook_lib.model import Json, Verdict, format_time, parse_time
from runbook_lib.record.incident import Incident, open_incident
from runbook_lib.record.journal import Clock, utc_now
from runbook_lib.redact import Redactor
from runbook_lib.runbook import load_policy

from .airflow import AirflowClient
from .book import Book, Delivery, Episode, KnownAlert
from .look import Look, Looker
from .messages import Occasion, list_cases, make_subject, make_text
from .metrics import Metrics
from .payload import Alert, PayloadError, read_held_alerts
from .settings import ServeSettings
from .targets import (
    ENDS,
    MAY_BE_SENT,
    NAMES,
    AnswerLostError,
    Message,
    NotSentError,
    RefusedError,
    State,
    Target,
)

#: The version of the jobs' steps, not of the code. Raise it when a step is added, removed or moved.
#: After an upgrade, jobs of the same version go on where they were; others are begun anew.
_JOBS_VERSION = "4"
#: How often due deliveries are looked for when the bell does not ring.
_DELIVERY_TICK_S = 30.0
#: How often due looks are looked for: no bell rings when a cooldown has passed.
_COOLDOWN_TICK_S = 1.0
#: How often ``wait_until_done`` looks whether all is done.
_DONE_TICK_S = 0.5
#: A day, in seconds.
_ONCE_A_DAY_S = 86_400.0
#: The first wait between two attempts of a delivery or of a request to Alertmanager. Attempts of a
#: look, and of a hand-over to Airflow, wait for a multiple of it.
_FIRST_WAIT_S = 1.0
#: A message without an answer may still arrive: wait at least this long before repeating it.
_SETTLE_S = 2.0
_LOOK_ATTEMPTS = 3
_HAND_OVER_ATTEMPTS = 3
#: How often, and after which wait, dbos repeats a step that failed: for almost six days.
_STEP_ATTEMPTS = 100_000
_STEP_WAIT_S = 5.0
#: Names of jobs, as dbos keeps them.
_LOOK = "look"
_ADDITION = "addition"
_READ = "read-alertmanager"
#: Our only queue in dbos. Its jobs, the requests to Alertmanager, run one after another.
_READS = "reads"
#: How often dbos polls the queue. Each poll is a transaction, and the queue is used rarely: after a
#: refused or truncated body.
_READS_POLL_S = 3.0
#: The states of dbos for jobs in a queue, and for jobs that run.
_NOT_BEGUN = "ENQUEUED"
_UNFINISHED = ("ENQUEUED", "PENDING")

_log = logging.getLogger(__name__)


class _JsonSerializer(Serializer):
    """Keep arguments and results as JSON. Pickle would run code from the database."""

    def serialize(self, data: Any) -> str:
        return to_json(data).decode()

    def deserialize(self, serialized_data: str) -> Any:
        return from_json(serialized_data)

    def name(self) -> str:
        return "json"


class Work:
    """The jobs and their steps.

    Parameters
    ----------
    book : what was received, and what became of it
    looker : carries out investigations
    targets : the configured targets, by name
    bell : rung when rows changed, so that a job may be due
    airflow : the Airflow that looks and delivers; None: this process does both itself
    """

    def __init__(
        self,
        settings: ServeSettings,
        book: Book,
        *,
        looker: Looker,
        targets: Mapping[str, Target],
        metrics: Metrics,
        bell: Bell,
        airflow: AirflowClient | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._settings = settings
        self._book = book
        self._bell = bell
        self._looker = looker
        self._targets = targets
        self._airflow = airflow
        self._metrics = metrics
        self._clock = clock
        self._redactor = Redactor(settings.secrets)
        self._home = settings.runbook_home.resolve()
        self._register()

    def _register(self) -> None:
        """Make the jobs known to dbos. It finds unfinished jobs by these names after a restart."""

        @DBOS.workflow(name=_LOOK, max_recovery_attempts=None)
        def look_job(episode_id: int, look: int) -> None:
            self._carry_out_look(episode_id, look)

        @DBOS.workflow(name=_ADDITION, max_recovery_attempts=None)
        def addition_job(episode_id: int, look: int, addition: int) -> None:
            self._carry_out_addition(episode_id, look, addition)

        @DBOS.workflow(name="delivery", max_recovery_attempts=None)
        def delivery_job(delivery_id: str) -> None:
            self._deliver(delivery_id)

        @DBOS.workflow(name=_READ, max_recovery_attempts=None)
        def read_job() -> None:
            self._collect_held()

        self.look_job = look_job
        self.addition_job = addition_job
        self.delivery_job = delivery_job
        self.read_job = read_job

    # --- a look ---

    def _carry_out_look(self, episode_id: int, look: int) -> None:
        """Investigate an episode and write down its messages, or hand both over to Airflow.

        ``look`` is the look's number in the episode, from 1.
        """
        _step("begin", self._book.begin_look, episode_id)
        if self._try_hand_over(episode_id, f"look-{look}"):
            _step("end", self._end_handed_over, episode_id, look)
            return
        chosen = _step("open", self._choose_incidents, episode_id)
        attempt = 1
        result = _step("investigate", self._investigate, episode_id, chosen)
        while result["error"] and attempt < _LOOK_ATTEMPTS:
            attempt += 1
            DBOS.sleep(_FIRST_WAIT_S * attempt)
            result = _step("investigate", self._investigate, episode_id, chosen)
        _step("render", self._report_look, episode_id, look, result)
        _step("end", self._finish_look, episode_id, look, result)

    def _choose_incidents(self, episode_id: int) -> dict[str, str]:
        """Choose the incidents for a look; make a folder for a drill that has no open one.

        Returns
        -------
        ``incident``, which the look goes on with; empty: ``runbook investigate`` chooses it.
        ``after``, the open incident that this episode's incident takes over from; empty: none.
        """
        episode = self._book.read_episode(episode_id)
        after = ""
        if not episode.looks and not episode.is_drill:
            after = self._find_incident_to_end(episode)
        incident = self._find_incident(episode.incident)
        if incident is not None and incident.is_closed:
            incident = None
        if incident is None and episode.is_drill:
            incident = make_incident(self._settings, drill=True, scenario="alert")
        name = incident.id if incident is not None else ""
        return {"incident": name, "after": after}

    def _investigate(self, episode_id: int, chosen: Mapping[str, str]) -> dict[str, Json]:
        """Carry out the investigation; return the fields of ``Look``, and the alerts' keys.

        If somebody closed the chosen incident during an earlier attempt, another one is chosen.
        """
        incident = self._find_incident(chosen["incident"])
        if incident is not None and incident.is_closed:
            chosen = self._choose_incidents(episode_id)
        alerts = self._book.list_alerts(episode_id)
        cases = list_cases(alerts)
        look = self._looker.investigate(
            alerts,
            incident=chosen["incident"],
            after=chosen["after"],
            ticket=cases[0] if cases else "",
        )
        self._metrics.count_look(look.verdict if not look.error else "failed")
        return {**look._asdict(), "alerts": [_key_of(alert) for alert in alerts]}

    def _report_look(self, episode_id: int, look: int, result: Mapping[str, Json]) -> None:
        """Write down the messages of a look, and that its alerts are reported.

        After a failed look its alerts count as reported, too: the message says why there is no
        report.
        """
        alerts = self._book.list_alerts(episode_id)
        self._write_messages(episode_id, look, result, self._list_places(alerts))
        self._book.mark_reported(episode_id, result["alerts"])

    def _write_messages(
        self, episode_id: int, look: int, result: Mapping[str, Json], places: list[tuple[str, str]]
    ) -> None:
        """Write down a message for each place; ring the bell, so that deliveries begin at once.

        A place is a target and a case.
        """
        episode = self._book.read_episode(episode_id)
        look_result = Look(
            incident=result["incident"],
            verdict=result["verdict"],
            next=result["next"],
            error=result["error"],
        )
        incident = self._find_incident(look_result.incident)
        name = look_result.incident or f"episode-{episode_id}"
        message_name = f"{name}-{episode_id}.{look}"
        deliveries = self._book.list_deliveries(name)
        # Messages of this same look may exist: of an interrupted attempt, or if alerts join later.
        own_prefix = f"{message_name}-"
        earlier = [old for old in deliveries if not old.id.startswith(own_prefix)]
        occasion = Occasion(
            look=look_result,
            alerts=self._book.list_alerts(episode_id),
            is_drill=episode.is_drill,
            is_follow_up=bool(earlier),
            page_url=self._settings.page_url,
        )
        for target, case in places:
            suffix = f"{target}-{case}" if case else target
            same_place = [
                old.id for old in earlier if old.target == target and old.message["case"] == case
            ]
            message = {
                "name": message_name,
                "subject": make_subject(occasion, self._redactor),
                "text": make_text(occasion, incident, self._redactor),
                "thread": same_place[0] if same_place else "",  # the oldest begins the thread
                "case": case,
                "folder": str(incident.folder) if incident else "",
            }
            self._book.add_delivery(f"{message_name}-{suffix}", target, message)
        self._bell.ring()

    def _list_places(self, alerts: list[KnownAlert]) -> list[tuple[str, str]]:
        """Return target and case of each message to send.

        There is one for each case that alerts name, with target ``ticket``, and one for each other
        target, without a case.
        """
        places = []
        for target in self._targets:
            if target != "ticket":
                places.append((target, ""))
                continue
            places += [(target, case) for case in list_cases(alerts)]
        return places

    def _finish_look(self, episode_id: int, look: int, result: Mapping[str, Json]) -> None:
        """Write down that the look is over; then close folders that nobody else closes.

        ``_close_if_quiet`` decides it for the previous episode's folder, and for this
        episode's if all its alerts are resolved and the verdict is healthy.
        """
        self._book.end_look(episode_id, look=look, incident=result["incident"])
        episode = self._book.read_episode(episode_id)
        previous = self._book.find_previous(episode)
        if previous is not None:
            self._close_if_quiet(previous)
        alerts = self._book.list_alerts(episode_id)
        is_resolved = all(alert.ended_at is not None for alert in alerts)
        if is_resolved and result["verdict"] == Verdict.HEALTHY:
            self._close_if_quiet(episode)

    def _find_incident_to_end(self, episode: Episode) -> str:
        """Return the previous episode's open incident, if this episode ends it; empty: none.

        That incident goes on while one of its alerts fires, when this episode has an alert with the
        same fingerprint, or when somebody planned or changed something in the incident.
        """
        previous = self._book.find_previous(episode)
        incident = self._find_incident(previous.incident) if previous else None
        if previous is None or incident is None or not incident.is_open:
            return ""
        earlier = self._book.list_alerts(previous.id)
        own_fingerprints = {alert.fingerprint for alert in self._book.list_alerts(episode.id)}
        still_fires = any(alert.ended_at is None for alert in earlier)
        fires_again = any(alert.fingerprint in own_fingerprints for alert in earlier)
        if still_fires or fires_again or _is_worked_on(incident):
            return ""
        return incident.id

    def _close_if_quiet(self, episode: Episode) -> None:
        """Close the incident of a drill, or of an episode in which no trouble was seen.

        Then the episode is over. Without an incident, or with a closed one, nothing happens.
        """
        incident = self._find_incident(episode.incident)
        if incident is None or incident.is_closed:
            return
        if not episode.is_drill and incident.journal.view().since() is not None:
            return  # the runbook's own rules say when an incident is over
        error = self._looker.close(incident.id)
        if error:
            _log.warning("%s cannot be closed: %s", incident.id, error)
            return
        self._book.end_episode(episode.id)

    def _find_incident(self, name: str) -> Incident | None:
        """Return an incident by its id; None without an id, and if it cannot be read (logged)."""
        if not name:
            return None
        try:
            incident = open_incident(self._home, name, redactor=self._redactor)
            if incident is not None:
                incident.journal.view()  # raises if the journal is damaged
        except RunbookError as error:
            _log.warning("%s", error)
            return None
        return incident

    # --- what Airflow carries out ---

    def _try_hand_over(self, episode_id: int, name: str) -> bool:
        """Start a run of Airflow that looks and delivers; return whether Airflow took it.

        If so, the episode's alerts count as reported. ``name`` ends the run's id. If three attempts
        fail, the caller does the work in this process. If the run has started all the same, there
        are two reports. Two are better than none.
        """
        run = _step("prepare", self._prepare_run, episode_id, name)
        if not run:
            return False
        attempt = 1
        is_taken: bool = _step("hand over", self._hand_over, run)
        while not is_taken and attempt < _HAND_OVER_ATTEMPTS:
            attempt += 1
            DBOS.sleep(_FIRST_WAIT_S * attempt)
            is_taken = _step("hand over", self._hand_over, run)
        if is_taken:
            _step("report", self._book.mark_reported, episode_id, run["keys"])
        return is_taken

    def _prepare_run(self, episode_id: int, name: str) -> dict[str, Json]:
        """Return a run's id, and its alerts with their keys; an empty dict without Airflow.

        The id is made from the key of the episode's first alert. The step's result is kept, so
        each attempt sends the same id and alerts.
        """
        if self._airflow is None:
            return {}
        alerts = self._book.list_alerts(episode_id)
        fingerprint, started_at = _key_of(alerts[0])
        return {
            "id": f"alert-{fingerprint}-{started_at}-{name}",
            "keys": [_key_of(alert) for alert in alerts],
            "alerts": [_write_alert(alert) for alert in alerts],
        }

    def _hand_over(self, run: Mapping[str, Json]) -> bool:
        """Ask Airflow once to start the run; return whether Airflow has it."""
        if self._airflow is None:
            return False
        try:
            self._airflow.start_run(run["id"], run["alerts"])
        except ClientError as error:
            _log.warning("%s: Airflow does not take this run: %s", run["id"], error)
            return False
        return True

    def _end_handed_over(self, episode_id: int, look: int) -> None:
        """Write down that a look is over for us: Airflow carries it out."""
        self._metrics.count_look("handed_over")
        self._book.end_look(episode_id, look=look, incident="")

    # --- alerts that join ---

    def _carry_out_addition(self, episode_id: int, look: int, addition: int) -> None:
        """Write alerts that came after a look into its report, and write to their cases.

        Parameters
        ----------
        look : the number of the episode's newest look
        addition : the number of this addition in the episode, from 1

        Notes
        -----
        An addition that fails asks for a look, which takes all alerts. The failed addition is not
        written down as ended. So its number stays in use until that look, and the planner starts
        no second job under the same id.
        """
        is_done = self._try_hand_over(episode_id, f"addition-{look}.{addition}")
        if not is_done:
            is_done = _step("render", self._join_report, episode_id)
        if is_done:
            _step("end", self._end_addition, episode_id, addition)

    def _end_addition(self, episode_id: int, addition: int) -> None:
        """Write down that an addition ended.

        ``_step`` cannot call the book's method itself: it passes no keyword arguments.
        """
        self._book.end_addition(episode_id, addition=addition)

    def _join_report(self, episode_id: int) -> bool:
        """Write new alerts into the report, and messages for the cases that have none yet.

        Returns whether the alerts stand in the report. If not, the episode is marked for a look.
        """
        episode = self._book.read_episode(episode_id)
        alerts = self._book.list_alerts(episode_id)
        new_alerts = [alert for alert in alerts if not alert.is_reported]
        incident = self._find_incident(episode.incident)
        error = "there is no incident that can be read"
        if incident is not None:
            error = self._looker.add_alerts(incident.id, new_alerts)
        if incident is None or error:
            _log.warning("episode %s: alerts could not join its report: %s", episode_id, error)
            self._metrics.count_look("failed")
            self._book.ask_for_look(episode_id)
            return False
        self._book.mark_reported(episode_id, [_key_of(alert) for alert in new_alerts])
        deliveries = self._book.list_deliveries(episode.incident)
        written_cases = {delivery.message["case"] for delivery in deliveries}
        cases = [case for case in list_cases(alerts) if case not in written_cases]
        places = [("ticket", case) for case in cases if "ticket" in self._targets]
        if not places:
            return True
        verdict = load_policy().compute_verdict(incident.journal.view()) or Verdict.UNKNOWN
        look_result = Look(incident=incident.id, verdict=str(verdict), next="", error="")
        self._write_messages(episode_id, episode.looks, look_result._asdict(), places)
        return True

    # --- deliveries ---

    def _deliver(self, delivery_id: str) -> None:
        """Try until the delivery has ended, or for ``SERVE_GIVE_UP_MINUTES``.

        The wait between two attempts doubles, up to ``SERVE_RETRY_MAX_S``. After a lost answer it
        is ``SERVE_RETRY_MAX_S`` at once.
        """
        began_at = parse_time(_step("began", self._tell_time))
        give_up_at = began_at + timedelta(minutes=self._settings.serve_give_up_minutes)
        wait_s = _FIRST_WAIT_S
        while True:
            state = State(_step("attempt", self._attempt, delivery_id))
            if state in ENDS:
                return
            now = parse_time(_step("now", self._tell_time))
            if now > give_up_at:
                _step("give up", self._give_up, delivery_id)
                return
            if state is State.LOST:
                # If the repeat's answer is lost, too, most targets get nothing more. So first give
                # the target time to recover.
                DBOS.sleep(max(self._settings.serve_retry_max_s, _SETTLE_S))
            else:
                DBOS.sleep(wait_s)
            wait_s = min(2 * wait_s, self._settings.serve_retry_max_s)

    def _tell_time(self) -> str:
        """Return the time now, as a step of a job: after a crash the job gets the same time."""
        return format_time(self._clock())

    def _attempt(self, delivery_id: str) -> str:
        """Try to deliver once; return the state afterwards.

        If the state is ``SENDING`` or ``REPEATING`` already, a process died while it sent, and the
        message may have been taken. A target that does not show its messages gets one repeat.
        """
        delivery = self._book.read_delivery(delivery_id)
        state = State(delivery.state)
        target = self._targets.get(delivery.target)
        if state in ENDS:
            return str(state)
        if target is None:
            return self._fail(delivery, "the target is not configured any more")
        if target.shows_messages:  # its `send` looks first whether the message is there already
            return self._send(delivery, target, is_repeat=False)
        if state is State.REPEATING:
            return self._fail(delivery, "the answers were lost twice")
        return self._send(delivery, target, is_repeat=state in MAY_BE_SENT)

    def _send(self, delivery: Delivery, target: Target, *, is_repeat: bool) -> str:
        """Send a message, or its only repeat; return the state afterwards.

        A repeat is put off while the target does not answer ``check_alive``.
        """
        try:
            if is_repeat:
                target.check_alive()
            state_while_sending = State.REPEATING if is_repeat else State.SENDING
            self._book.set_delivery(delivery.id, state_while_sending, delivery.detail)
            target.send(_make_message(delivery), is_repeat=is_repeat)
        except RefusedError as error:
            return self._fail(delivery, str(error))
        except NotSentError as error:
            # This attempt did nothing, but an earlier one may have.
            state = State.LOST if delivery.state in MAY_BE_SENT else State.WAITING
            return self._put_off(delivery, state, str(error), "retried")
        except AnswerLostError as error:
            if is_repeat:
                return self._fail(delivery, str(error))
            return self._put_off(delivery, State.LOST, str(error), "lost")
        end = State.REPEATED if is_repeat else State.SENT
        return self._finish(delivery, end, "")

    def _put_off(self, delivery: Delivery, state: State, detail: str, result: str) -> str:
        """Write down a state that is no end. Count ``result``: ``retried`` or ``lost``."""
        self._book.set_delivery(delivery.id, state, self._redactor.text(detail))
        self._metrics.count_delivery(delivery.target, result)
        return str(state)

    def _finish(self, delivery: Delivery, state: State, detail: str) -> str:
        """Write down a delivery's end; ``detail`` says why, and is empty if all went well."""
        text = self._redactor.text(detail)
        self._book.set_delivery(delivery.id, state, text)
        self._metrics.count_delivery(delivery.target, state)
        if text:
            _log.warning("%s: %s: %s", delivery.id, state, text)
        return str(state)

    def _fail(self, delivery: Delivery, detail: str) -> str:
        """End a delivery: ``UNCONFIRMED`` if an earlier try may have arrived, else ``FAILED``."""
        state = State.UNCONFIRMED if delivery.state in MAY_BE_SENT else State.FAILED
        return self._finish(delivery, state, detail)

    def _give_up(self, delivery_id: str) -> str:
        """End a delivery for which there is no more time; return its end."""
        delivery = self._book.read_delivery(delivery_id)
        minutes = self._settings.serve_give_up_minutes
        return self._fail(delivery, f"given up after {minutes:g} min")

    # --- alerts that a body left out, or that we refused ---

    def _collect_held(self) -> None:
        """Write down Alertmanager's active alerts; try for ``SERVE_GIVE_UP_MINUTES`` at most."""
        began_at = parse_time(_step("began", self._tell_time))
        give_up_at = began_at + timedelta(minutes=self._settings.serve_give_up_minutes)
        wait_s = _FIRST_WAIT_S
        while not _step("read", self._receive_held):
            if parse_time(_step("now", self._tell_time)) > give_up_at:
                return
            DBOS.sleep(wait_s)
            wait_s = min(2 * wait_s, self._settings.serve_retry_max_s)

    def _receive_held(self) -> bool:
        """Ask Alertmanager once, and write down its active alerts; return whether it answered."""
        client = HeldAlertsClient.connect(self._settings)
        receivers = self._book.list_receivers()
        try:
            alerts = read_held_alerts(client.read_active(), receivers=receivers)
        except (ClientError, PayloadError) as error:
            _log.warning("Alertmanager's alerts cannot be read: %s", error)
            self._metrics.count_read("failed")
            return False
        self.receive(alerts)
        self._metrics.count_read("done")
        return True

    def receive_with_resolved(self, alerts: list[Alert]) -> None:
        """Write alerts down, also those that ended before we heard of them.

        ``receive`` leaves those out, so each alert is written down first as if it fired. Both are
        one step: a look that began in between would be followed by a second one.
        """
        as_firing = [alert.model_copy(update={"status": "firing"}) for alert in alerts]
        self.receive([*as_firing, *alerts])

    def receive(self, alerts: list[Alert], *, receiver: str = "") -> tuple[int, int]:
        """Write alerts down, and ring the bell; return the two counts of ``book.Received``.

        ``receiver`` is the name of Alertmanager's receiver that sent them; empty: unknown.
        """
        received = self._book.receive(alerts, closed=self._read_closed(), receiver=receiver)
        self._metrics.count_received(received.accepted, received.folded)
        self._bell.ring()
        return received.accepted, received.folded

    def _read_closed(self) -> dict[str, datetime]:
        """Return the closed ones of ``list_open_incidents``, and when each was closed."""
        closed = {}
        for name in self._book.list_open_incidents():
            incident = self._find_incident(name)
            if incident is None:
                continue
            with suppress(RunbookError):
                closed_at = incident.state.closed_at
                if closed_at is not None:
                    closed[name] = closed_at
        return closed


class HeldAlertsClient(AlertmanagerClient):
    """Reads the alerts that Alertmanager holds. Only reads."""

    def read_active(self) -> Json:
        """Return the active alerts as Alertmanager writes them: no silenced or inhibited ones."""
        query = {"active": "true", "silenced": "false", "inhibited": "false"}
        return self._parse(self._ask("GET", "/api/v2/alerts", params=query))


class Bell:
    """Wakes the lanes when rows changed."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings = 0

    def ring(self) -> None:
        """Wake everybody who waits."""
        with self._condition:
            self._rings += 1
            self._condition.notify_all()

    def wait(self, last_heard: int, timeout_s: float) -> int:
        """Wait for a ring after ring number ``last_heard``, or for the time-out.

        Returns the newest ring's number, for the next call. So no ring between two calls is missed.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._rings != last_heard, timeout_s)
            return self._rings


class Job(NamedTuple):
    """A job that is due. ``id`` is made from rows; dbos runs no second job with the same id."""

    id: str
    work: Callable[..., None]
    arguments: tuple[int | str, ...]


class Lane:
    """A thread that starts the next due job, waits until it has ended, and so on.

    Parameters
    ----------
    find_next : takes the ids of jobs that this lane has started; returns the next due job, or None
    tick_s : how often the lane asks ``find_next`` when the bell does not ring
    """

    def __init__(
        self, name: str, find_next: Callable[[set[str]], Job | None], *, bell: Bell, tick_s: float
    ) -> None:
        self._find_next = find_next
        self._bell = bell
        self._tick_s = tick_s
        self._unfinished: list[str] = []
        self._started: set[str] = set()
        self._thread = threading.Thread(target=self._run, name=f"lane-{name}", daemon=True)

    def start(self, unfinished: list[str]) -> None:
        """Begin. The lane first waits for unfinished jobs of a process that died, given by id."""
        self._unfinished = unfinished
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the lane's thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        """Wait for the unfinished jobs, then start due jobs for ever."""
        for job_id in self._unfinished:
            self._wait_for(DBOS.retrieve_workflow(job_id))
        last_heard = 0
        while True:
            try:
                job = self._find_next(self._started)
                if job is not None:
                    self._carry_out(job)
                    continue
            except Exception:  # noqa: BLE001 - the next attempt may succeed
                _log.exception("The next job cannot be found or started")
            last_heard = self._bell.wait(last_heard, self._tick_s)

    def _carry_out(self, job: Job) -> None:
        """Start a job, and wait until it has ended."""
        with SetWorkflowID(job.id):
            handle = DBOS.start_workflow(job.work, *job.arguments)
        self._started.add(job.id)
        self._wait_for(handle)

    def _wait_for(self, handle: WorkflowHandle[None]) -> None:
        """Wait until a job has ended. A job that failed for good does not hold up the next."""
        try:
            handle.get_result()
        except Exception:  # noqa: BLE001 - whatever a job ended with
            _log.exception("%s ended with an error", handle.workflow_id)


class Planner:
    """Starts the jobs that are due by the book.

    At most one look runs at a time, and one delivery for each target.
    """

    def __init__(
        self,
        work: Work,
        book: Book,
        *,
        bell: Bell,
        cooldown: timedelta,
        clock: Clock = utc_now,
    ) -> None:
        self._work = work
        self._book = book
        self._cooldown = cooldown
        self._clock = clock
        self._looks = Lane("looks", self._find_look, bell=bell, tick_s=_COOLDOWN_TICK_S)
        self._deliveries = []
        for target in NAMES:
            find = partial(self._find_delivery, target)
            self._deliveries.append(Lane(target, find, bell=bell, tick_s=_DELIVERY_TICK_S))
        self._read_guard = threading.Lock()
        self._newest_read_id = ""

    def start(self) -> None:
        """Start the lanes. Unfinished jobs of a process that died go on.

        But jobs of another version of the steps are cancelled, and begun anew from the rows.
        """
        unfinished_looks = []
        for status in DBOS.list_workflows(status=list(_UNFINISHED), load_output=False):
            is_look = status.name in (_LOOK, _ADDITION)
            if status.app_version == _JOBS_VERSION:
                if is_look:
                    unfinished_looks.append(status.workflow_id)
                continue
            if is_look and status.input is not None:
                episode_id = int(status.input["args"][0])
                self._book.ask_for_look(episode_id)
            if status.name == _READ:
                self.ask_for_read()
            DBOS.cancel_workflow(status.workflow_id)
        self._looks.start(unfinished_looks)
        for lane in self._deliveries:
            # This lane finds an unfinished delivery in the book, and waits for its job.
            lane.start([])

    @property
    def is_alive(self) -> bool:
        """Whether all lanes run."""
        return all(lane.is_alive for lane in (self._looks, *self._deliveries))

    def wait_until_done(self, *, patience_s: float) -> None:
        """Wait until no look is due and all messages are delivered.

        After the last look, deliveries have ``patience_s``; after that, the wait ends in any case.
        """
        looked_at = self._clock()
        while self._is_looking() or self._is_delivering():
            if self._is_looking():
                looked_at = self._clock()
            elif self._clock() > looked_at + timedelta(seconds=patience_s):
                return
            time.sleep(_DONE_TICK_S)

    def _is_looking(self) -> bool:
        """Tell whether a look or an addition runs or is due."""
        if self._book.list_due_episodes():
            return True
        jobs = DBOS.list_workflows(status=list(_UNFINISHED), load_output=False)
        return any(job.name in (_LOOK, _ADDITION) for job in jobs)

    def _is_delivering(self) -> bool:
        return any(self._book.list_open_deliveries(target, ENDS) for target in NAMES)

    def ask_for_read(self) -> None:
        """Enqueue a request for Alertmanager's alerts, unless one is enqueued and not begun."""
        with self._read_guard:
            if self._newest_read_id:
                status = DBOS.get_workflow_status(self._newest_read_id)
                if status is not None and status.status == _NOT_BEGUN:
                    return
            job_id = f"read-{uuid4()}"
            with SetWorkflowID(job_id):
                DBOS.enqueue_workflow(_READS, self._work.read_job)
            self._newest_read_id = job_id

    def _find_look(self, started: set[str]) -> Job | None:
        """Return a due look or addition that was not started; the oldest episode comes first."""
        for episode in self._book.list_due_episodes():
            job = self._make_look_job(episode)
            if job is not None and job.id not in started:
                return job
        return None

    def _make_look_job(self, episode: Episode) -> Job | None:
        """Return the look or addition that an episode needs now; None: neither.

        During the cooldown no look begins. Alerts that came after a look join its report by an
        addition.
        """
        if episode.is_stale and self._has_cooled_down(episode):
            look = episode.looks + 1
            job_id = f"{_JOBS_VERSION}-look-{episode.id}-{look}"
            return Job(job_id, self._work.look_job, (episode.id, look))
        if episode.looks and self._has_unreported(episode):
            addition = episode.additions + 1
            # An addition that failed does not raise the count, so the same job id comes out here
            # again. A job is started once: the next look reports these alerts.
            job_id = f"{_JOBS_VERSION}-addition-{episode.id}-{episode.looks}.{addition}"
            return Job(job_id, self._work.addition_job, (episode.id, episode.looks, addition))
        return None

    def _find_delivery(self, target: str, started: set[str]) -> Job | None:
        """Return the job of a target's oldest unfinished delivery that has not been started.

        Its lane waits until a job has ended, so no delivery overtakes another one.
        """
        for delivery_id in self._book.list_open_deliveries(target, ENDS):
            job_id = f"{_JOBS_VERSION}-{delivery_id}"
            if job_id not in started:
                return Job(job_id, self._work.delivery_job, (delivery_id,))
        return None

    def _has_cooled_down(self, episode: Episode) -> bool:
        """Tell whether the cooldown allows a look: it has passed, or there was no look yet."""
        if episode.looked_at is None:
            return True
        return self._clock() >= episode.looked_at + self._cooldown

    def _has_unreported(self, episode: Episode) -> bool:
        return any(not alert.is_reported for alert in self._book.list_alerts(episode.id))


def launch() -> None:
    """Start dbos; unfinished jobs of a process that died go on. Register all jobs before this."""
    DBOS.listen_queues([_READS])
    DBOS.launch()
    DBOS.register_queue(
        _READS,
        global_concurrency=1,
        polling_interval_sec=_READS_POLL_S,
        on_conflict="always_update",
    )


def configure(settings: ServeSettings) -> None:
    """Tell dbos where its tables are, and all else that it would read from the environment."""
    config: DBOSConfig = {
        "name": "runbook-serve",
        "system_database_url": settings.database_url,
        "application_version": _JOBS_VERSION,
        "executor_id": "serve",
        "serializer": _JsonSerializer(),
        "enable_otlp": False,
        # dbos polls for messages between jobs. Our jobs send none, so it polls seldom.
        "notification_listener_polling_interval_sec": _ONCE_A_DAY_S,
        "log_level": "WARNING",
    }
    DBOS(config=config)


def _step(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """Carry out a step of a job, and keep its result; after a crash the kept result is returned.

    A step that was interrupted is carried out again. So is one that raises, for example because
    the disk is full: no job is lost to an error that passes.
    """
    options: StepOptions = {
        "name": name,
        "retries_allowed": True,
        "interval_seconds": _STEP_WAIT_S,
        "backoff_rate": 1.0,
        "max_attempts": _STEP_ATTEMPTS,
    }
    return DBOS.run_step(options, work, *arguments)


def _is_worked_on(incident: Incident) -> bool:
    """Tell whether somebody planned or changed something in an incident.

    True if the journal cannot be read: a damaged incident is not ended without a person.
    """
    try:
        return bool(incident.journal.view().actions)
    except RunbookError:
        return True


def _make_message(delivery: Delivery) -> Message:
    """Return the message that a row of the book holds."""
    content = delivery.message
    return Message(
        id=delivery.id,
        name=content["name"],
        subject=content["subject"],
        text=content["text"],
        thread=content["thread"],
        case=content["case"],
        folder=content["folder"],
    )


def _write_alert(alert: KnownAlert) -> dict[str, Json]:
    """Return an alert as Alertmanager writes it."""
    written = {
        "status": "firing",
        "labels": alert.labels,
        "startsAt": format_time(alert.started_at),
        "fingerprint": alert.fingerprint,
    }
    if alert.ended_at is not None:
        written["status"] = "resolved"
        written["endsAt"] = format_time(alert.ended_at)
    return written


def _key_of(alert: KnownAlert) -> tuple[str, str]:
    """Return fingerprint and start, as ``payload.Alert.key`` does."""
    return alert.fingerprint, format_time(alert.started_at)
