"""The durable jobs: investigate what is due, and deliver the message to each target.

The library dbos carries them out. After a crash it resumes at the first step that had not ended.
A job's id comes from its alert or message, so starting it twice starts it once.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from dbos import DBOS, DBOSConfig, Serializer, SetWorkflowID, StepOptions
from pydantic_core import from_json, to_json

from runbook_lib.errors import RunbookError
from runbook_lib.investigation import make_incident
from runbook_lib.model import Verdict
from runbook_lib.record.incident import Incident, list_incidents, open_incident
from runbook_lib.redact import Redactor

from .alerts import AlertBook, KnownAlert
from .investigation import Investigation, Investigator
from .messages import Message, make_message
from .metrics import DELIVERY, Metrics
from .settings import ServeSettings
from .targets import NotSentError, Target

#: The label that holds the id of a customer's case.
CASE_LABEL = "support_case"
_CASE = re.compile(r"[A-Za-z0-9-]{1,64}")
#: What the incident of a drill's alerts exercises.
_EXERCISE = "alert"
_INVESTIGATION_ATTEMPTS = 3
#: The waits between two attempts double, up to five minutes, so the attempts take two hours.
_DELIVERY_ATTEMPTS = 31
_LONGEST_WAIT_S = 300.0
#: How often to look for due alerts when none comes in.
_TICK_S = 30.0
#: How often to repeat a step that raises, and after which wait: for almost six days.
_STEP_ATTEMPTS = 100_000
_STEP_WAIT_S = 5.0
_ONCE_A_DAY_S = 86_400.0

_log = logging.getLogger(__name__)


class _JsonSerializer(Serializer):
    """Keep arguments and results as JSON. Pickle would run code from the database."""

    def serialize(self, data: Any) -> str:
        return to_json(data).decode()

    def deserialize(self, serialized_data: str) -> Any:
        return from_json(serialized_data)

    def name(self) -> str:
        return "json"


class Jobs:
    """The two kinds of jobs, and the thread that starts investigations, one after the other."""

    def __init__(
        self,
        settings: ServeSettings,
        book: AlertBook,
        *,
        targets: Mapping[str, Target],
        metrics: Metrics,
        redactor: Redactor,
    ) -> None:
        self._settings = settings
        self._book = book
        self._investigator = Investigator(settings)
        self._targets = targets
        self._metrics = metrics
        self._redactor = redactor
        self._home = settings.runbook_home.resolve()
        self._bell = threading.Event()
        self._thread = threading.Thread(target=self._run_jobs, name="investigations", daemon=True)

        # Unfinished jobs in the database have this name.
        @DBOS.workflow(name="look", max_recovery_attempts=None)
        def investigation_job(is_drill: bool) -> None:
            self._carry_out_investigation(is_drill=is_drill)

        @DBOS.workflow(name=DELIVERY, max_recovery_attempts=None)
        def delivery_job(target: str, case: str, message: dict[str, str]) -> None:
            self._deliver(target, case, message)

        self._investigation_job = investigation_job
        self._delivery_job = delivery_job

    def start(self) -> None:
        """Resume unfinished jobs, and begin to look for due alerts."""
        DBOS.launch()
        self._thread.start()

    def ring(self) -> None:
        """Look for due alerts at once."""
        self._bell.set()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run_jobs(self) -> None:
        """Run an investigation's job for whatever is due, one at a time, without end."""
        failures = 0
        while True:
            self._bell.clear()
            try:
                due = self._book.list_due()
                if due:
                    oldest = due[0]
                    # A failed job keeps its result, so a retry needs a new id.
                    job_id = f"{oldest.fingerprint} {oldest.starts_at} {oldest.seen} {failures}"
                    with SetWorkflowID(job_id):
                        handle = DBOS.start_workflow(self._investigation_job, oldest.is_drill)
                    handle.get_result()
                failures = 0
            except Exception:  # noqa: BLE001 - the next attempt may succeed
                _log.exception("An investigation failed")
                failures += 1
                time.sleep(_STEP_WAIT_S)
                continue
            if not due:
                self._bell.wait(_TICK_S)

    def _carry_out_investigation(self, *, is_drill: bool) -> None:
        """Investigate once for all alerts that are due, and start the deliveries.

        After a crash this runs again, and ``_step`` returns the results that it has kept.
        """
        rows = _step("take", self._choose_alerts, is_drill)
        if not rows:
            return
        alerts = [KnownAlert(*row) for row in rows]
        investigation = Investigation(*_step("investigate", self._investigate, alerts))
        message = _step("write", self._compose, alerts, investigation)
        for target, case in message.pop("places"):
            with SetWorkflowID(f"{message['id']} {target} {case}"):
                DBOS.start_workflow(self._delivery_job, target, case, message)
        _step("end", self._end_investigation, alerts, investigation)

    def _choose_alerts(self, is_drill: bool) -> list[KnownAlert]:
        """Return the due alerts, of drills or real ones.

        None, if they are all ends of alerts whose incidents are closed: save these as seen instead.
        """
        alerts = [alert for alert in self._book.list_due() if alert.is_drill == is_drill]
        if all(alert.seen and self._is_closed(alert.incident) for alert in alerts):
            self._book.save_seen(alerts, "")
            return []
        return alerts

    def _investigate(self, alerts: list[KnownAlert]) -> Investigation:
        """Run an investigation for some alerts; if it fails, try it up to three times."""
        new = [alert for alert in alerts if not alert.seen]
        cases = _list_cases(alerts)
        ticket = cases[0] if cases else ""
        for attempt in range(_INVESTIGATION_ATTEMPTS):
            time.sleep(attempt)
            incident = self._choose_drill_incident() if alerts[0].is_drill else ""
            investigation = self._investigator.investigate(new, incident=incident, ticket=ticket)
            result = "failed" if investigation.error else investigation.verdict
            self._metrics.investigations.labels(result).inc()
            if not investigation.error:
                break
        return investigation

    def _choose_drill_incident(self) -> str:
        """Return the open incident of earlier drill alerts, or open a new one."""
        for folder in list_incidents(self._home):
            try:
                state = Incident(folder, redactor=self._redactor).state
            except RunbookError:
                continue
            if state.exercise == _EXERCISE and state.closed_at is None:
                return folder.name
        return make_incident(self._settings, exercise=_EXERCISE).id

    def _compose(self, alerts: list[KnownAlert], investigation: Investigation) -> dict[str, Any]:
        """Return a message's fields, and in ``places`` each target with a customer's case.

        The case is "", except for the target ``ticket``, which writes to each case.
        """
        message = make_message(
            investigation,
            alerts,
            home=self._home,
            page_url=self._settings.page_url,
            redactor=self._redactor,
        )
        places = [(name, "") for name in self._targets if name != "ticket"]
        if "ticket" in self._targets:
            places += [("ticket", case) for case in _list_cases(alerts)]
        return {**asdict(message), "places": places}

    def _end_investigation(self, alerts: list[KnownAlert], investigation: Investigation) -> None:
        """Save the alerts as seen; close the incident of a drill, or of an alert without trouble.

        It stays open while one of its alerts fires.
        """
        incident = investigation.incident
        self._book.save_seen(alerts, incident)
        is_quiet = investigation.verdict == Verdict.HEALTHY and not investigation.since
        if not incident or not (is_quiet or alerts[0].is_drill):
            return
        if self._book.count_firing(incident) or self._is_closed(incident):
            return
        error = self._investigator.close(incident)
        if error:
            _log.warning("%s cannot be closed: %s", incident, error)

    def _is_closed(self, name: str) -> bool:
        """Tell whether an incident is closed; False if it can't be read."""
        if not name:
            return False
        try:
            incident = open_incident(self._home, name, redactor=self._redactor)
            is_closed = incident is not None and incident.is_closed
        except RunbookError as error:
            _log.warning("%s", error)
            return False
        return is_closed

    def _deliver(self, target: str, case: str, message: dict[str, str]) -> None:
        """Try until the target has taken the message, or for two hours."""
        wait_s = 1.0
        for attempt in range(_DELIVERY_ATTEMPTS):
            if attempt:
                DBOS.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            if _step("attempt", self._attempt, target, case, message):
                return
        self._metrics.delivered.labels(target, "failed").inc()
        _log.warning("%s to %s is given up", message["id"], target)

    def _attempt(self, name: str, case: str, message: dict[str, str]) -> bool:
        """Try to deliver once; tell whether the target took the message."""
        try:
            self._targets[name].send(Message(**message), case)
        except (NotSentError, KeyError) as error:  # KeyError: it isn't configured any more
            text = self._redactor.text(str(error))
            _log.warning("%s to %s, to be sent again: %s", message["id"], name, text)
            self._metrics.delivered.labels(name, "retried").inc()
            return False
        self._metrics.delivered.labels(name, "sent").inc()
        return True


def configure(settings: ServeSettings) -> None:
    """Tell dbos where its tables are, and all else that it would read from the environment."""
    config: DBOSConfig = {
        "name": "runbook-serve",
        "system_database_url": f"sqlite:///{settings.serve_home / 'jobs.sqlite3'}",
        # dbos carries out only jobs of the same version. A job whose steps change needs a new name.
        "application_version": "1",
        "executor_id": "serve",
        "serializer": _JsonSerializer(),
        "enable_otlp": False,
        # dbos polls for messages between jobs. Our jobs send none, so it polls seldom.
        "notification_listener_polling_interval_sec": _ONCE_A_DAY_S,
        "log_level": "WARNING",
    }
    DBOS(config=config)


def _step(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """Carry out a step of a job, and keep its result; after a crash, return the kept one.

    A step that was interrupted, or that raises, is carried out again.
    """
    options: StepOptions = {
        "name": name,
        "retries_allowed": True,
        "interval_seconds": _STEP_WAIT_S,
        "backoff_rate": 1.0,
        "max_attempts": _STEP_ATTEMPTS,
    }
    return DBOS.run_step(options, work, *arguments)


def _list_cases(alerts: list[KnownAlert]) -> list[str]:
    """Return the ids of customers' cases that alerts name, each once, without malformed ones."""
    cases = dict.fromkeys(alert.labels.get(CASE_LABEL, "") for alert in alerts)
    return [case for case in cases if _CASE.fullmatch(case)]
