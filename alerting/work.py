"""The durable jobs: investigate an episode, write its messages, deliver each to ticket, chat, mail.

``Planner`` reads in the book which jobs are due, and starts each under an id made from the rows.
Starting a job twice is therefore the same as starting it once. dbos, a library for durable jobs,
carries out a job's steps. After a crash it goes on with the first step that had not ended. A *look*
is one investigation.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from dbos import DBOS, DBOSConfig, Serializer, SetWorkflowID, StepOptions, WorkflowHandle
from pydantic_core import from_json, to_json

from runbook_lib.errors import RunbookError
from runbook_lib.investigation import make_incident
from runbook_lib.model import Json, Verdict, format_time, parse_time
from runbook_lib.record.incident import Incident, open_incident, was_made
from runbook_lib.record.journal import Clock, utc_now
from runbook_lib.redact import Redactor
from runbook_lib.runbook import load_policy

from .book import Book, Delivery, Episode, KnownAlert
from .look import Look, Looker
from .messages import Occasion, list_cases, make_subject, make_text
from .metrics import Metrics
from .payload import Alert
from .settings import ServeSettings
from .targets import (
    ENDS,
    NAMES,
    Message,
    NotSentError,
    RefusedError,
    State,
    Target,
)

#: The version of the jobs' steps, not of the code. Raise it when a step is added, removed or moved.
#: After an upgrade, jobs of the same version go on where they were; others are begun anew.
_JOBS_VERSION = "5"
#: How often due deliveries are looked for when the bell does not ring.
_DELIVERY_TICK_S = 30.0
#: How often due looks are looked for: no bell rings when a cooldown has passed.
_COOLDOWN_TICK_S = 1.0
#: A day, in seconds.
_ONCE_A_DAY_S = 86_400.0
#: The first wait between two attempts of a delivery. Attempts of a look wait for a multiple of it.
_FIRST_WAIT_S = 1.0
_LOOK_ATTEMPTS = 3
#: How often, and after which wait, dbos repeats a step that failed: for almost six days.
_STEP_ATTEMPTS = 100_000
_STEP_WAIT_S = 5.0
#: The job's name, as dbos keeps it.
_LOOK = "look"
#: The states of dbos for jobs that are not over.
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
        clock: Clock = utc_now,
    ) -> None:
        self._settings = settings
        self._book = book
        self._bell = bell
        self._looker = looker
        self._targets = targets
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

        @DBOS.workflow(name="delivery", max_recovery_attempts=None)
        def delivery_job(delivery_id: str) -> None:
            self._deliver(delivery_id)

        self.look_job = look_job
        self.delivery_job = delivery_job

    # --- a look ---

    def _carry_out_look(self, episode_id: int, look: int) -> None:
        """Investigate an episode and write down its messages.

        ``look`` is the look's number in the episode, from 1.
        """
        _step("begin", self._book.begin_look, episode_id)
        chosen = _step("open", self._choose_incident, episode_id)
        attempt = 1
        result = _step("investigate", self._investigate, episode_id, chosen)
        while result["error"] and attempt < _LOOK_ATTEMPTS:
            attempt += 1
            DBOS.sleep(_FIRST_WAIT_S * attempt)
            result = _step("investigate", self._investigate, episode_id, chosen)
        _step("render", self._report_look, episode_id, look, result)
        _step("end", self._finish_look, episode_id, look, result)

    def _choose_incident(self, episode_id: int) -> str:
        """Return the incident of a look; make a folder for a drill that has no open one.

        An empty id: ``runbook investigate`` chooses the incident.
        """
        episode = self._book.read_episode(episode_id)
        incident = self._find_incident(episode.incident)
        if incident is not None and incident.is_closed:
            incident = None
        if incident is None and episode.is_drill:
            incident = make_incident(self._settings, exercise="alert")
        return incident.id if incident is not None else ""

    def _investigate(self, episode_id: int, chosen: str) -> dict[str, Json]:
        """Carry out the investigation; return the fields of ``Look``, and the alerts' keys.

        If somebody closed the chosen incident during an earlier attempt, another one is chosen.
        """
        incident = self._find_incident(chosen)
        if incident is not None and incident.is_closed:
            chosen = self._choose_incident(episode_id)
        alerts = self._book.list_alerts(episode_id)
        cases = list_cases(alerts)
        ticket = cases[0] if cases else ""
        look = self._looker.investigate(alerts, incident=chosen, ticket=ticket)
        self._metrics.count_look(look.verdict if not look.error else "failed")
        return {**look._asdict(), "alerts": [_key_of(alert) for alert in alerts]}

    def _report_look(self, episode_id: int, look: int, result: Mapping[str, Json]) -> None:
        """Write down the messages of a look, and that its alerts are reported.

        After a failed look its alerts count as reported, too: the message says why there is no
        report.
        """
        self._write_messages(episode_id, look, result)
        self._book.mark_reported(episode_id, result["alerts"])

    def _write_messages(self, episode_id: int, look: int, result: Mapping[str, Json]) -> None:
        """Write down a message for each place; ring the bell, so that deliveries begin at once."""
        episode = self._book.read_episode(episode_id)
        alerts = self._book.list_alerts(episode_id)
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
        # Messages of this same look may exist, of an interrupted attempt.
        own_prefix = f"{message_name}-"
        earlier = [old for old in deliveries if not old.id.startswith(own_prefix)]
        occasion = Occasion(
            look=look_result,
            alerts=alerts,
            is_drill=was_made(incident) if incident else episode.is_drill,
            is_follow_up=bool(earlier),
            page_url=self._settings.page_url,
        )
        for target, case in self._list_places(alerts):
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
        """Write down that the look is over; then close a folder that nobody else closes.

        That is the folder of a drill, or of a look that saw no trouble, once all its alerts are
        resolved. The runbook's own rules say when any other incident is over.
        """
        self._book.end_look(episode_id, look=look, incident=result["incident"])
        episode = self._book.read_episode(episode_id)
        alerts = self._book.list_alerts(episode_id)
        is_resolved = all(alert.ended_at is not None for alert in alerts)
        is_quiet = episode.is_drill or result["verdict"] == Verdict.HEALTHY
        incident = self._find_incident(episode.incident)
        if incident is None or incident.is_closed or not (is_resolved and is_quiet):
            return
        ends = load_policy().find_ends(incident.journal.view())
        if ends.since and not episode.is_drill:
            return
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

    # --- deliveries ---

    def _deliver(self, delivery_id: str) -> None:
        """Try until the target has taken the message, or for ``SERVE_GIVE_UP_MINUTES``.

        The wait between two attempts doubles, up to ``SERVE_RETRY_MAX_S``. A message may arrive
        twice, if an answer is lost, or if this process dies while it sends.
        """
        began_at = parse_time(_step("began", self._tell_time))
        give_up_at = began_at + timedelta(minutes=self._settings.serve_give_up_minutes)
        wait_s = _FIRST_WAIT_S
        while _step("attempt", self._attempt, delivery_id) not in ENDS:
            if parse_time(_step("now", self._tell_time)) > give_up_at:
                _step("give up", self._give_up, delivery_id)
                return
            DBOS.sleep(wait_s)
            wait_s = min(2 * wait_s, self._settings.serve_retry_max_s)

    def _tell_time(self) -> str:
        """Return the time now, as a step of a job: after a crash the job gets the same time."""
        return format_time(self._clock())

    def _attempt(self, delivery_id: str) -> str:
        """Try to deliver once; return the delivery's state afterwards."""
        delivery = self._book.read_delivery(delivery_id)
        target = self._targets.get(delivery.target)
        if target is None:
            return self._finish(delivery, State.FAILED, "the target is not configured any more")
        try:
            target.send(_make_message(delivery))
        except RefusedError as error:
            return self._finish(delivery, State.FAILED, str(error))
        except NotSentError as error:
            detail = self._redactor.text(str(error))
            self._book.set_delivery(delivery_id, State.WAITING, detail)
            self._metrics.count_delivery(delivery.target, "retried")
            return str(State.WAITING)
        return self._finish(delivery, State.SENT, "")

    def _give_up(self, delivery_id: str) -> str:
        """End a delivery for which there is no more time; return its end."""
        delivery = self._book.read_delivery(delivery_id)
        return self._finish(delivery, State.FAILED, f"given up: {delivery.detail}")

    def _finish(self, delivery: Delivery, state: State, detail: str) -> str:
        """Write down a delivery's end; ``detail`` says why, and is empty if all went well."""
        text = self._redactor.text(detail)
        self._book.set_delivery(delivery.id, state, text)
        self._metrics.count_delivery(delivery.target, state)
        if text:
            _log.warning("%s: %s: %s", delivery.id, state, text)
        return str(state)

    # --- alerts ---

    def receive(self, alerts: list[Alert]) -> tuple[int, int]:
        """Write alerts down, and ring the bell; return the two counts of ``book.Received``."""
        received = self._book.receive(alerts, closed=self._read_closed())
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

    def start(self) -> None:
        """Start the lanes. Unfinished jobs of a process that died go on.

        But jobs of another version of the steps are cancelled, and begun anew from the rows.
        """
        unfinished_looks = []
        for status in DBOS.list_workflows(status=list(_UNFINISHED), load_output=False):
            if status.app_version == _JOBS_VERSION:
                if status.name == _LOOK:
                    unfinished_looks.append(status.workflow_id)
                continue
            if status.name == _LOOK and status.input is not None:
                episode_id = int(status.input["args"][0])
                self._book.ask_for_look(episode_id)
            DBOS.cancel_workflow(status.workflow_id)
        self._looks.start(unfinished_looks)
        for lane in self._deliveries:
            # This lane finds an unfinished delivery in the book, and waits for its job.
            lane.start([])

    @property
    def is_alive(self) -> bool:
        """Whether all lanes run."""
        return all(lane.is_alive for lane in (self._looks, *self._deliveries))

    def _find_look(self, started: set[str]) -> Job | None:
        """Return a due look that was not started; the oldest episode comes first.

        During the cooldown no look begins.
        """
        for episode in self._book.list_stale_episodes():
            look = episode.looks + 1
            job_id = f"{_JOBS_VERSION}-look-{episode.id}-{look}"
            if job_id not in started and self._has_cooled_down(episode):
                return Job(job_id, self._work.look_job, (episode.id, look))
        return None

    def _find_delivery(self, target: str, started: set[str]) -> Job | None:
        """Return the job of a target's oldest unfinished delivery that has not been started.

        Its lane waits until a job has ended, so no delivery overtakes another one.
        """
        for delivery_id in self._book.list_waiting_deliveries(target):
            job_id = f"{_JOBS_VERSION}-{delivery_id}"
            if job_id not in started:
                return Job(job_id, self._work.delivery_job, (delivery_id,))
        return None

    def _has_cooled_down(self, episode: Episode) -> bool:
        """Tell whether the cooldown allows a look: it has passed, or there was no look yet."""
        if episode.looked_at is None:
            return True
        return self._clock() >= episode.looked_at + self._cooldown


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


def _key_of(alert: KnownAlert) -> tuple[str, str]:
    """Return fingerprint and start, as ``payload.Alert.key`` does."""
    return alert.fingerprint, format_time(alert.started_at)
