"""The durable work: open, investigate, render, then ticket, chat and mail, each once.

``Planner`` finds in the book what is to be done and starts it under an id that follows from the
rows, so that doing it twice is the same as once. dbos carries it out, and goes on where a process
that died stopped. If Airflow is configured, one of its runs does all of that, from ``open`` on.
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
from requests import Request

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
    NAMES,
    AnswerLostError,
    Message,
    NotSentError,
    RefusedError,
    State,
    Target,
)

#: The version of the jobs' steps, not of the code: after an upgrade that keeps it, jobs go on where
#: they were. It changes when a step is added, removed or moved. Jobs of another version are begun
#: anew.
_JOBS_VERSION = "4"
#: If a ring is missed, a job waits no longer than this.
_TICK_S = 30.0
_COOLDOWN_TICK_S = 1.0
_DONE_TICK_S = 0.5
_NEVER_S = 86_400.0
_FIRST_WAIT_S = 1.0
#: A request that nobody answered may still take effect: wait before looking for it.
_SETTLE_S = 2.0
_LOOK_ATTEMPTS = 3
_HAND_OVER_ATTEMPTS = 3
_STEP_ATTEMPTS = 100_000
_STEP_WAIT_S = 5.0
#: Names of jobs, as dbos keeps them.
_LOOK = "look"
_ADDITION = "addition"
_READ = "read-alertmanager"
#: The only queue: a reading that was asked for waits until the one before it ended.
_READS = "reads"
#: Each poll is a transaction, and a reading is rare: it follows a body that was refused.
_READS_POLL_S = 3.0
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
    targets : where reports go, by name
    airflow : carries out looks and deliveries instead; None: this process does
    bell : rung when there is something to do
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
        """Make jobs known to dbos by names that stay."""

        @DBOS.workflow(name=_LOOK, max_recovery_attempts=None)
        def look_job(episode_id: int, look: int) -> None:
            self._look(episode_id, look)

        @DBOS.workflow(name=_ADDITION, max_recovery_attempts=None)
        def addition_job(episode_id: int, look: int, addition: int) -> None:
            self._add(episode_id, look, addition)

        @DBOS.workflow(name="delivery", max_recovery_attempts=None)
        def delivery_job(delivery_id: str) -> None:
            self._deliver(delivery_id)

        @DBOS.workflow(name=_READ, max_recovery_attempts=None)
        def read_job() -> None:
            self._read_held()

        self.look_job = look_job
        self.addition_job = addition_job
        self.delivery_job = delivery_job
        self.read_job = read_job

    # --- a look ---

    def _look(self, episode_id: int, look: int) -> None:
        """Investigate an episode and enqueue its deliveries, unless Airflow does."""
        _step("begin", self._book.begin_look, episode_id)
        if self._is_handed_over(episode_id, f"look-{look}"):
            _step("end", self._end_handed_over, episode_id, look)
            return
        opened = _step("open", self._open, episode_id)
        attempt = 1
        result = _step("investigate", self._investigate, episode_id, opened)
        while result["error"] and attempt < _LOOK_ATTEMPTS:
            attempt += 1
            DBOS.sleep(_FIRST_WAIT_S * attempt)
            result = _step("investigate", self._investigate, episode_id, opened)
        _step("render", self._render, episode_id, look, result)
        _step("end", self._end, episode_id, look, result)

    def _open(self, episode_id: int) -> dict[str, str]:
        """Return the folder that the look goes on in, and the incident that this episode ended.

        Empty: the runbook chooses the folder; no incident was ended.
        """
        episode = self._book.read_episode(episode_id)
        after = ""
        if not episode.looks and not episode.is_drill:
            after = self._find_ended(episode)
        incident = self._find_incident(episode.incident)
        if incident is not None and incident.is_closed:
            incident = None
        if incident is None and episode.is_drill:
            incident = make_incident(
                self._settings, drill=True, scenario="alert", opened_by="", kept=False
            )
        has_begun = incident is not None and (episode.is_drill or incident.is_open)
        name = incident.id if incident is not None and has_begun else ""
        return {"incident": name, "after": after}

    def _investigate(self, episode_id: int, opened: Mapping[str, str]) -> dict[str, Json]:
        """Carry out the investigation and return what it says."""
        alerts = self._book.list_alerts(episode_id)
        cases = list_cases(alerts)
        look = self._looker.investigate(
            alerts,
            incident=opened["incident"],
            after=opened["after"],
            ticket=cases[0] if cases else "",
        )
        self._metrics.count_look(look.verdict if not look.error else "failed")
        return {**look._asdict(), "alerts": [_key_of(alert) for alert in alerts]}

    def _render(self, episode_id: int, look: int, result: Mapping[str, Json]) -> None:
        """Write down the messages.

        Alerts wait no longer then: they stand in the report, or the message says why there is none.
        """
        alerts = self._book.list_alerts(episode_id)
        self._write_messages(episode_id, look, result, self._list_targets(alerts))
        self._book.mark_reported(episode_id, result["alerts"])

    def _write_messages(
        self, episode_id: int, look: int, result: Mapping[str, Json], named: list[tuple[str, str]]
    ) -> None:
        """Write down a message for each target and case; its delivery begins at once."""
        episode = self._book.read_episode(episode_id)
        ended = Look(
            incident=result["incident"],
            verdict=result["verdict"],
            next=result["next"],
            error=result["error"],
        )
        incident = self._find_incident(ended.incident)
        name = ended.incident or f"episode-{episode_id}"
        turn = f"{name}-{episode_id}.{look}"
        deliveries = self._book.list_deliveries(name)
        earlier = [each for each in deliveries if not each.id.startswith(f"{turn}-")]
        occasion = Occasion(
            look=ended,
            alerts=self._book.list_alerts(episode_id),
            is_drill=episode.is_drill,
            is_follow_up=bool(earlier),
            page_url=self._settings.page_url,
        )
        for target, case in named:
            suffix = f"{target}-{case}" if case else target
            thread = ""
            for delivery in earlier:
                if delivery.target == target and delivery.message["case"] == case:
                    thread = thread or delivery.id
            message = {
                "name": turn,
                "subject": make_subject(occasion, self._redactor),
                "text": make_text(occasion, incident, self._redactor),
                "thread": thread,
                "case": case,
                "folder": str(incident.folder) if incident else "",
            }
            self._book.add_delivery(f"{turn}-{suffix}", target, message)
        self._bell.ring()

    def _list_targets(self, alerts: list[KnownAlert]) -> list[tuple[str, str]]:
        """Return every target, the ticket once for each case that alerts name."""
        named = []
        for target in self._targets:
            if target != "ticket":
                named.append((target, ""))
                continue
            named += [(target, case) for case in list_cases(alerts)]
        return named

    def _end(self, episode_id: int, look: int, result: Mapping[str, Json]) -> None:
        """Write down that the look is over; end an episode in which nothing is wrong any more."""
        self._book.end_look(episode_id, look=look, incident=result["incident"])
        episode = self._book.read_episode(episode_id)
        before = self._book.find_before(episode)
        if before is not None:
            self._close_quiet(before)
        alerts = self._book.list_alerts(episode_id)
        is_resolved = all(alert.ended_at is not None for alert in alerts)
        if is_resolved and result["verdict"] == Verdict.HEALTHY:
            self._close_quiet(episode)

    def _find_ended(self, episode: Episode) -> str:
        """Return the open incident of the episode before, which the next one ends; else nothing.

        It goes on when one of its alerts fires, when one of them fires again now, or when somebody
        works in it.
        """
        before = self._book.find_before(episode)
        incident = self._find_incident(before.incident) if before else None
        if before is None or incident is None or not incident.is_open:
            return ""
        earlier = self._book.list_alerts(before.id)
        own = {alert.fingerprint for alert in self._book.list_alerts(episode.id)}
        goes_on = any(alert.ended_at is None for alert in earlier)
        is_same = any(alert.fingerprint in own for alert in earlier)
        if goes_on or is_same or _is_worked_on(incident):
            return ""
        return incident.id

    def _close_quiet(self, episode: Episode) -> None:
        """Close the folder of an episode that never was an incident; a drill's in any case."""
        incident = self._find_incident(episode.incident)
        if incident is None or incident.is_closed:
            return
        if incident.is_open and not episode.is_drill:
            return  # the runbook's own rules say when an incident is over
        error = self._looker.close(incident.id)
        if error:
            _log.warning("%s cannot be closed: %s", incident.id, error)
            return
        self._book.end_episode(episode.id)

    def _find_incident(self, name: str) -> Incident | None:
        if not name:
            return None
        try:
            incident = open_incident(self._home, name, redactor=self._redactor)
            if incident is not None:
                _ = incident.state
        except RunbookError as error:
            _log.warning("%s", error)
            return None
        return incident

    # --- what Airflow carries out ---

    def _is_handed_over(self, episode_id: int, name: str) -> bool:
        """Let Airflow look and deliver; return whether it does.

        When it does not answer, or answers that it does not, this process looks. Should a run have
        started all the same, there are two reports. That is better than none.
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
        """Return a run's id and its alerts; nothing without Airflow.

        The id follows from the key of the episode's first alert. Each attempt sends the same.
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
        """Ask Airflow once; return whether it has the run."""
        if self._airflow is None:
            return False
        try:
            self._airflow.start_run(run["id"], run["alerts"])
        except ClientError as error:
            _log.warning("%s: Airflow does not take it: %s", run["id"], error)
            return False
        return True

    def _end_handed_over(self, episode_id: int, look: int) -> None:
        """Write down that a look is Airflow's."""
        self._metrics.count_look("handed_over")
        self._book.end_look(episode_id, look=look, incident="")

    # --- alerts that join ---

    def _add(self, episode_id: int, look: int, addition: int) -> None:
        """Let alerts that came after a look join its report, and tell the tickets of their cases.

        An addition that fails does not end: no other one begins before the next look, which takes
        all alerts of the episode.
        """
        is_done = self._is_handed_over(episode_id, f"addition-{look}.{addition}")
        if not is_done:
            is_done = _step("render", self._render_again, episode_id)
        if is_done:
            _step("end", self._end_addition, episode_id, addition)

    def _end_addition(self, episode_id: int, addition: int) -> None:
        self._book.end_addition(episode_id, addition=addition)

    def _render_again(self, episode_id: int) -> bool:
        """Write alerts into the report, and messages to the cases that no look told.

        Returns whether the alerts stand in the report. If not, they go on waiting, for a look.
        """
        episode = self._book.read_episode(episode_id)
        alerts = self._book.list_alerts(episode_id)
        new = [alert for alert in alerts if not alert.is_reported]
        incident = self._find_incident(episode.incident)
        error = "there is no incident that can be read"
        if incident is not None:
            error = self._looker.add_alerts(incident.id, new)
        if incident is None or error:
            _log.warning("episode %s: alerts could not join its report: %s", episode_id, error)
            self._metrics.count_look("failed")
            self._book.ask_for_look(episode_id)
            return False
        self._book.mark_reported(episode_id, [_key_of(alert) for alert in new])
        deliveries = self._book.list_deliveries(episode.incident)
        old_cases = {"", *(delivery.message["case"] for delivery in deliveries)}
        named = [pair for pair in self._list_targets(alerts) if pair[1] not in old_cases]
        if not named:
            return True
        verdict = load_policy().compute_verdict(incident.journal.view()) or Verdict.UNKNOWN
        ended = Look(incident=incident.id, verdict=str(verdict), next="", error="")
        self._write_messages(episode_id, episode.looks, ended._asdict(), named)
        return True

    # --- deliveries ---

    def _deliver(self, delivery_id: str) -> None:
        """Try until the message is taken, or it is too late."""
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
                # There is one repeat, so it is not wasted on a target that is still unwell.
                DBOS.sleep(max(self._settings.serve_retry_max_s, _SETTLE_S))
            else:
                DBOS.sleep(wait_s)
            wait_s = min(2 * wait_s, self._settings.serve_retry_max_s)

    def _tell_time(self) -> str:
        return format_time(self._clock())

    def _attempt(self, delivery_id: str) -> str:
        """Try to deliver once; return the state.

        What is written before sending tells, after a crash, that something may have been sent.
        """
        delivery = self._book.read_delivery(delivery_id)
        state = State(delivery.state)
        target = self._targets.get(delivery.target)
        if state in ENDS:
            return str(state)
        if target is None:
            return self._finish(delivery, State.FAILED, "the target is not configured any more")
        if target.shows_messages:
            return self._send(delivery, target, is_repeat=False)
        if state is State.REPEATING:
            return self._finish(delivery, State.UNCONFIRMED, "the answers were lost twice")
        was_sent = state in (State.SENDING, State.LOST)
        return self._send(delivery, target, is_repeat=was_sent)

    def _send(self, delivery: Delivery, target: Target, *, is_repeat: bool) -> str:
        """Send a message once; return the state. A repeat waits until the target answers again."""
        try:
            if is_repeat:
                target.check_alive()
            before = State.REPEATING if is_repeat else State.SENDING
            self._book.set_delivery(delivery.id, before, delivery.detail)
            target.send(_make_message(delivery), is_repeat=is_repeat)
        except RefusedError as error:
            return self._finish(delivery, State.FAILED, str(error))
        except NotSentError as error:
            state = State.LOST if is_repeat else State.WAITING
            return self._put_off(delivery, state, str(error), "retried")
        except AnswerLostError as error:
            if is_repeat:
                return self._finish(delivery, State.UNCONFIRMED, str(error))
            return self._put_off(delivery, State.LOST, str(error), "lost")
        end = State.REPEATED if is_repeat else State.SENT
        return self._finish(delivery, end, "")

    def _put_off(self, delivery: Delivery, state: State, detail: str, result: str) -> str:
        self._book.set_delivery(delivery.id, state, self._redactor.text(detail))
        self._metrics.count_delivery(delivery.target, result)
        return str(state)

    def _finish(self, delivery: Delivery, state: State, detail: str) -> str:
        text = self._redactor.text(detail)
        self._book.set_delivery(delivery.id, state, text)
        self._metrics.count_delivery(delivery.target, state)
        if text:
            _log.warning("%s: %s: %s", delivery.id, state, text)
        return str(state)

    def _give_up(self, delivery_id: str) -> str:
        delivery = self._book.read_delivery(delivery_id)
        is_lost = delivery.state in (State.LOST, State.REPEATING)
        state = State.UNCONFIRMED if is_lost else State.FAILED
        minutes = self._settings.serve_give_up_minutes
        return self._finish(delivery, state, f"given up after {minutes:g} min")

    # --- what a message left out ---

    def _read_held(self) -> None:
        """Read the active alerts from Alertmanager, until it answers or it is too late."""
        began_at = parse_time(_step("began", self._tell_time))
        give_up_at = began_at + timedelta(minutes=self._settings.serve_give_up_minutes)
        wait_s = _FIRST_WAIT_S
        while not _step("read", self._take_held):
            if parse_time(_step("now", self._tell_time)) > give_up_at:
                return
            DBOS.sleep(wait_s)
            wait_s = min(2 * wait_s, self._settings.serve_retry_max_s)

    def _take_held(self) -> bool:
        """Take in the alerts that Alertmanager holds; return whether it answered."""
        client = HeldAlertsClient.connect(self._settings)
        receivers = self._book.list_receivers()
        try:
            alerts = read_held_alerts(client.read_active(), receivers=receivers)
        except (ClientError, PayloadError) as error:
            _log.warning("Alertmanager's alerts cannot be read: %s", error)
            self._metrics.count_read("failed")
            return False
        self.take(alerts)
        self._metrics.count_read("done")
        return True

    def take_all(self, alerts: list[Alert]) -> None:
        """Write alerts down that another book knows, including those already resolved."""
        began = [alert.model_copy(update={"status": "firing"}) for alert in alerts]
        self.take(began)
        self.take(alerts)

    def take(self, alerts: list[Alert], *, receiver: str = "") -> tuple[int, int]:
        """Write alerts down; return how many are new, and how many were known."""
        received = self._book.receive(alerts, closed=self._read_closed(), receiver=receiver)
        self._metrics.count_received(received.accepted, received.folded)
        self._bell.ring()
        return received.accepted, received.folded

    def _read_closed(self) -> dict[str, datetime]:
        """Return when incidents were closed whose episodes are not known to be over."""
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
        """Return the active alerts as Alertmanager writes them."""
        query = {"active": "true", "silenced": "false", "inhibited": "false"}
        return self._ask_json(Request("GET", f"{self.url}/api/v2/alerts", params=query))


class Bell:
    """Rings when rows changed, so that nobody polls them."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings = 0

    def ring(self) -> None:
        """Wake everybody who waits."""
        with self._condition:
            self._rings += 1
            self._condition.notify_all()

    def wait(self, heard: int, timeout_s: float) -> int:
        """Wait for a ring after the last one heard, or for the time-out; return its number."""
        with self._condition:
            self._condition.wait_for(lambda: self._rings != heard, timeout_s)
            return self._rings


class Job(NamedTuple):
    """What is to be done next. ``id`` follows from rows, so that starting it twice is once."""

    id: str
    work: Callable[..., None]
    arguments: tuple[int | str, ...]


class Lane:
    """Starts one job at a time: the next one that the rows ask for.

    Parameters
    ----------
    find_next : returns the first job to start whose id is not among those given
    tick_s : how long it sleeps at most when no bell rings
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
        """Begin, once the jobs that a dead process had begun are done."""
        self._unfinished = unfinished
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    def _run(self) -> None:
        for job_id in self._unfinished:
            self._wait_for(DBOS.retrieve_workflow(job_id))
        heard = 0
        while True:
            try:
                job = self._find_next(self._started)
                if job is not None:
                    self._carry_out(job)
                    continue
            except Exception:  # noqa: BLE001 - the next time may go better
                _log.exception("What is to be done cannot be started")
            heard = self._bell.wait(heard, self._tick_s)

    def _carry_out(self, job: Job) -> None:
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
    """Lets the jobs be carried out that the book asks for: one look, and one message a target."""

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
        self._out = []
        for target in NAMES:
            find = partial(self._find_delivery, target)
            self._out.append(Lane(target, find, bell=bell, tick_s=_TICK_S))
        self._asking = threading.Lock()
        self._asked = ""

    def start(self) -> None:
        """Begin; what a process that died left undone goes on.

        Jobs of another version of the steps are begun anew, from the rows.
        """
        looks = []
        for status in DBOS.list_workflows(status=list(_UNFINISHED), load_output=False):
            is_look = status.name in (_LOOK, _ADDITION)
            if status.app_version == _JOBS_VERSION:
                looks += [status.workflow_id] if is_look else []
                continue
            if is_look and status.input is not None:
                self._book.ask_for_look(int(status.input["args"][0]))
            if status.name == _READ:
                self.ask_for_read()
            DBOS.cancel_workflow(status.workflow_id)
        self._looks.start(looks)
        for lane in self._out:
            lane.start([])

    @property
    def is_alive(self) -> bool:
        """Whether it works."""
        return all(lane.is_alive for lane in (self._looks, *self._out))

    def wait_until_done(self, *, patience_s: float) -> None:
        """Wait until nothing is left to do; if only messages are left, these seconds at most."""
        looked_at = self._clock()
        while self._is_looking() or self._is_delivering():
            if self._is_looking():
                looked_at = self._clock()
            elif self._clock() > looked_at + timedelta(seconds=patience_s):
                return
            time.sleep(_DONE_TICK_S)

    def _is_looking(self) -> bool:
        """Tell whether a look or an addition is under way, or due."""
        if self._book.list_episodes():
            return True
        jobs = DBOS.list_workflows(status=list(_UNFINISHED), load_output=False)
        return any(job.name in (_LOOK, _ADDITION) for job in jobs)

    def _is_delivering(self) -> bool:
        return any(self._book.list_open_deliveries(target, ENDS) for target in NAMES)

    def ask_for_read(self) -> None:
        """Enqueue a reading of Alertmanager's alerts, unless one waits that has not begun."""
        with self._asking:
            if self._asked:
                status = DBOS.get_workflow_status(self._asked)
                if status is not None and status.status == _NOT_BEGUN:
                    return
            job_id = f"read-{uuid4()}"
            with SetWorkflowID(job_id):
                DBOS.enqueue_workflow(_READS, self._work.read_job)
            self._asked = job_id

    def _find_look(self, started: set[str]) -> Job | None:
        """Return the look or the addition that is due; of several the oldest episode's."""
        for episode in self._book.list_episodes():
            job = self._plan(episode)
            if job is not None and job.id not in started:
                return job
        return None

    def _plan(self, episode: Episode) -> Job | None:
        if episode.is_stale and self._is_due(episode):
            look = episode.looks + 1
            job_id = f"{_JOBS_VERSION}-look-{episode.id}-{look}"
            return Job(job_id, self._work.look_job, (episode.id, look))
        if episode.looks and self._has_unreported(episode):
            addition = episode.additions + 1
            # One that failed keeps its number until the next look, and is not started twice.
            job_id = f"{_JOBS_VERSION}-addition-{episode.id}-{episode.looks}.{addition}"
            return Job(job_id, self._work.addition_job, (episode.id, episode.looks, addition))
        return None

    def _find_delivery(self, target: str, started: set[str]) -> Job | None:
        """Return the oldest message to a target that is not delivered."""
        for delivery_id in self._book.list_open_deliveries(target, ENDS):
            job_id = f"{_JOBS_VERSION}-{delivery_id}"
            if job_id not in started:
                return Job(job_id, self._work.delivery_job, (delivery_id,))
        return None

    def _is_due(self, episode: Episode) -> bool:
        if episode.looked_at is None:
            return True
        return self._clock() >= episode.looked_at + self._cooldown

    def _has_unreported(self, episode: Episode) -> bool:
        return any(not alert.is_reported for alert in self._book.list_alerts(episode.id))


def launch() -> None:
    """Start dbos: jobs that a process left undone go on. Call it when all jobs are registered."""
    DBOS.listen_queues([_READS])
    DBOS.launch()
    DBOS.register_queue(
        _READS,
        global_concurrency=1,
        polling_interval_sec=_READS_POLL_S,
        on_conflict="always_update",
    )


def configure(settings: ServeSettings) -> None:
    """Tell dbos where its tables are. Everything that it would read elsewhere is given."""
    config: DBOSConfig = {
        "name": "runbook-serve",
        "system_database_url": settings.database_url,
        "application_version": _JOBS_VERSION,
        "executor_id": "serve",
        "serializer": _JsonSerializer(),
        "enable_otlp": False,
        # It would look for messages between jobs, and ours send none.
        "notification_listener_polling_interval_sec": _NEVER_S,
        "log_level": "WARNING",
    }
    DBOS(config=config)


def _step(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """Carry out a step of a job, once: after a crash its result is read, not made again.

    An error that nobody expects, such as a full disk, is tried again, so that no job is lost to it.
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
    """Tell whether somebody planned or changed something in an incident; a damaged one counts."""
    try:
        return bool(incident.journal.view().actions)
    except RunbookError:
        return True


def _make_message(delivery: Delivery) -> Message:
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
    return alert.fingerprint, format_time(alert.started_at)
