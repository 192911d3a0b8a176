"""A drill: steady state, inject, detect, notify, diagnose, remediate, verify, revert, score.

It uses the code that an incident uses. It approves as ``drill:<id>``, and only the release of
orders that it injected itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from runbook_lib.errors import ClientError, DrillError, RunbookError, SteadyStateError
from runbook_lib.exit_codes import ExitCode
from runbook_lib.model import ActionPhase, Json, Progress, Verdict
from runbook_lib.record.history import list_history, write_gauges
from runbook_lib.record.incident import Incident, create_incident
from runbook_lib.record.log import utc_now
from runbook_lib.redact import Redactor
from runbook_lib.report import write_outputs
from runbook_lib.run.notebooks import RunStatus, run_notebook
from runbook_lib.run.sections import run_sections
from runbook_lib.section import attempt

from ..change.environment_guard import check_playground
from ..change.synthetic import sweep_expired
from ..clients import Clients, check_connected
from ..commands.documents import DrillDocument, NotifyTimes
from ..investigation import Investigation
from ..sections import SECTIONS
from ..settings import Settings
from .score import Scorecard, compute_objectives

if TYPE_CHECKING:
    from .scenarios import Scenario

_APART_S = 0.5
_CHANNELS = set(NotifyTimes.model_fields)
_EXERCISE = {"count": 5, "object_size_kb": 4}
#: What the document takes over from the scorecard.
_MEASURED = ("phases", "cause_found", "objects_lost", "foreign_touched", "reverted")


@dataclass
class Drill:
    """One drill at work.

    Attributes
    ----------
    id : names the drill in metadata and approvals
    incident : where everything is recorded
    order_ids : orders that the drill injected itself
    injected_at : when the fault was there
    card : what was measured
    """

    id: str
    incident: Incident
    settings: Settings
    clients: Clients
    scenario: Scenario
    progress: Progress
    order_ids: set[int] = field(default_factory=set)
    injected_at: datetime = field(default_factory=utc_now)
    card: Scorecard = field(default_factory=Scorecard)

    def record(self, event: str, **data: Json) -> None:
        """Write an event of the drill to the journal."""
        named = {"section": "", "drill": self.id, "event": event}
        self.incident.journal.append("drill", {**named, **data})

    def conclude(self, name: str) -> Verdict:
        """Read a section's every step now, without a notebook; return its verdict."""
        section = SECTIONS[name]
        inv = Investigation(
            self.incident,
            section=section,
            parameters=section.Parameters(incident_id=self.incident.id),
            settings=self.settings,
            clients=self.clients,
        )
        for step in section.STEPS:
            inv.read_step(step)
        return inv.conclude().verdict

    def is_healthy(self) -> bool:
        """Tell what section 2 says now."""
        return self.conclude("02_signals_detection") is Verdict.HEALTHY

    def is_steady(self) -> bool:
        """Wait until section 2 says healthy; False when it does not in time."""
        return wait_for(self.is_healthy, timeout_s=self.scenario.steady_timeout_s)

    def list_received(self, status: str) -> dict[str, datetime]:
        """Return when each channel's receiver first got the alert; nothing where none tells."""
        if not self.card.is_told:
            return {}
        found: dict[str, datetime] = {}
        for n in self.clients.notifications.list_notifications(since=self.injected_at):
            if n.status == status and self.scenario.alert in n.alertnames:
                found.setdefault(n.channel, n.received_at)
        return {channel: found[channel] for channel in _CHANNELS & found.keys()}

    def run_sections(self, *names: str) -> None:
        """Run notebooks; one that fails is noted."""
        runs = run_sections(self.incident, SECTIONS, names, progress=self.progress)
        self.card.failed_notebooks += [r.section for r in runs if r.status is RunStatus.FAILED]


def wait_for(check: Callable[[], bool], *, timeout_s: float) -> bool:
    """Ask again until ``check`` is true or the time is up.

    A client that cannot be read counts as "not yet".

    Returns
    -------
    Whether it became true in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        is_late = time.monotonic() >= deadline
        try:
            if check():
                return True
        except ClientError:
            if is_late:
                raise
        if is_late:
            return False
        time.sleep(_APART_S)


def run_drill(settings: Settings, scenario: Scenario, *, progress: Progress) -> DrillDocument:
    """Carry out one drill and score it.

    Raises
    ------
    EnvironmentForbidsError
        Outside a marked local or demo environment.
    DrillError
        When another drill runs, or the system is not in its steady state.
    """
    clients = Clients(settings)
    if settings.is_playground:  # elsewhere it is refused, connected or not
        check_connected(settings, clients)
    if scenario.needs and settings.runbook_services != "supervisor":
        raise DrillError(
            f"{scenario.name} needs {scenario.needs}. Elsewhere: runbook drill --scenario synthetic"
        )
    check_playground(settings, clients.store)
    scenario = _fit_times(clients, scenario)
    home = settings.runbook_home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / ".drill.lock", timeout=0):
            return _run(settings, clients, scenario, progress)
    except Timeout:
        raise DrillError("another drill is running here; wait for it to end") from None


def _fit_times(clients: Clients, scenario: Scenario) -> Scenario:
    """Return the scenario with the waits of this environment's rules and routes added."""
    rules, _ = attempt(clients.prometheus.list_rules)
    timing, _ = attempt(clients.alertmanager.read_group_timing)
    mine = [rule for rule in rules or () if rule.name == scenario.alert]
    # a scrape, a refresh and an evaluation of its own come before and after the rule's wait
    lag_s = max((4 * rule.group_interval_s for rule in mine), default=0.0)
    for_s = max((rule.for_s for rule in mine), default=0.0)
    wait_s, interval_s, _ = timing or (0.0, 0.0, 0.0)
    return replace(
        scenario,
        detect_timeout_s=scenario.detect_timeout_s + for_s + lag_s,
        notify_timeout_s=scenario.notify_timeout_s + wait_s,
        clear_timeout_s=scenario.clear_timeout_s + interval_s + lag_s,
    )


def _run(
    settings: Settings, clients: Clients, scenario: Scenario, progress: Progress
) -> DrillDocument:
    incident = create_incident(
        settings.runbook_home.resolve(),
        redactor=Redactor(settings.secrets),
        environment=settings.runbook_environment,
        drill=True,
        opened_by="drill",
    )
    drill_id = "d" + incident.id.removeprefix("inc-").lower()
    incident.update(drill_id=drill_id, scenario=scenario.name, drill_orders=[])
    drill = Drill(drill_id, incident, settings, clients, scenario, progress)
    drill.card.is_told = bool(settings.notifications_url)
    swept = sweep_expired(clients.store, settings, now=utc_now())
    drill.record("started", scenario=scenario.name, swept=swept)
    _check_steady_state(drill)
    error: RunbookError | None = None
    try:
        _carry_out(drill)
    except RunbookError as failure:
        error = failure
        drill.record("failed", reason=str(failure))
    except KeyboardInterrupt:
        incident.journal.append("interrupted", {"section": ""})
        raise
    finally:
        _revert(drill)
        if error is None and drill.card.verdict is not None:
            drill.card.steady_after = drill.is_steady()
        document = _close(drill, error)
    return document


def _check_steady_state(drill: Drill) -> None:
    drill.progress("steady state")
    if not drill.is_steady():
        drill.incident.close(Verdict.UNKNOWN)
        write_outputs(drill.incident, SECTIONS)
        raise SteadyStateError(
            "the system is not healthy, so nothing was injected. `runbook investigate` says why; "
            f"what was seen is in {drill.incident.folder}"
        )
    drill.record("steady", before=True)


def _carry_out(drill: Drill) -> None:
    scenario, card = drill.scenario, drill.card
    _inject(drill)
    _detect(drill)
    _notify(drill)
    started = time.monotonic()
    drill.run_sections(
        "01_purpose", "02_signals_detection", "03_immediate_actions", "05_root_cause"
    )
    card.phases.diagnose_s = round(time.monotonic() - started, 2)
    card.cause_found = tuple(f.name for f in drill.incident.journal.view().causes())
    _act(drill, "04_chaos_verification", [(step,) for step in scenario.exercise_steps], **_EXERCISE)
    started, fixed_at = time.monotonic(), utc_now()
    if scenario.remedy_steps:
        _act(drill, "06_remediation", [scenario.remedy_steps])
        card.phases.remediate_s = round(time.monotonic() - started, 2)
        fixed_at = drill.incident.journal.view().last_applied_at or fixed_at
    else:
        _revert(drill)
        fixed_at = utc_now()
    _clear(drill, fixed_at)
    card.verdict = drill.conclude("06_remediation")
    drill.run_sections("08_references", "07_postmortem")


def _inject(drill: Drill) -> None:
    drill.progress("inject")
    drill.injected_at = utc_now()
    drill.record("inject", scenario=drill.scenario.name)
    drill.scenario.inject(drill)
    drill.incident.update(drill_orders=sorted(drill.order_ids))
    drill.record("injected", orders=sorted(drill.order_ids))


def _detect(drill: Drill) -> None:
    """Wait until the alert fires; without one, until section 2 sees something."""
    alert, timeout_s = drill.scenario.alert, drill.scenario.detect_timeout_s
    drill.progress(f"wait for {alert}")

    def fires() -> bool:
        alerts = drill.clients.prometheus.list_alerts()
        return any(a.name == alert and a.state == "firing" for a in alerts)

    if not alert:
        wait_for(lambda: not drill.is_healthy(), timeout_s=timeout_s)
    elif wait_for(fires, timeout_s=timeout_s):
        drill.card.phases.detect_s = _seconds(drill.injected_at, utc_now())
    drill.record("detect", seconds=drill.card.phases.detect_s)


def _notify(drill: Drill) -> None:
    """Wait until every channel's receiver got the alert."""
    drill.progress("wait for the channels")
    if drill.card.phases.detect_s is not None and drill.card.is_told:
        timeout_s = drill.scenario.notify_timeout_s
        wait_for(lambda: drill.list_received("firing").keys() >= _CHANNELS, timeout_s=timeout_s)
        received = drill.list_received("firing")
        after_s = {c: _seconds(drill.injected_at, at) for c, at in received.items()}
        drill.card.phases.notify_s = NotifyTimes(**after_s)
    drill.record("notify", seconds=drill.card.phases.notify_s.model_dump(exclude_none=True))


def _act(drill: Drill, name: str, groups: Sequence[tuple[str, ...]], **parameters: object) -> None:
    """Run a section up to its plans; then, for each group of steps, approve those and run again."""
    drill.progress(f"{name}: plan")
    journal = drill.incident.journal
    before = journal.view().last_seq
    if groups:
        run_notebook(SECTIONS, name, drill.incident, parameters)
    for steps in groups:
        planned = journal.view().list_plans(after=before)
        newest = {action.step: (plan, action.result) for plan, action in planned.items()}
        plans = {step: newest[step] for step in steps if step in newest}
        approver, ids = f"drill:{drill.id}", [plan for plan, _ in plans.values()]
        drill.record("approve", by=approver, steps=list(plans), plans=ids)
        drill.progress(f"{name}: apply {', '.join(plans)}, approved as {approver}")
        hashes = ",".join(str(result["sha256"]) for _, result in plans.values())
        given = {**parameters, "plan": ",".join(ids), "approve": hashes}
        run = run_notebook(SECTIONS, name, drill.incident, given)
        if run.status not in (RunStatus.DONE, RunStatus.STOPPED_AT_PLAN):
            drill.card.failed_notebooks.append(run.section)
    for action in journal.view().list_actions(ActionPhase.VERIFIED, after=before):
        drill.card.add_proof(action.result)


def _clear(drill: Drill, fixed_at: datetime) -> None:
    """Wait until the alert is gone and every channel said so; measured by the receivers' clock."""
    alert = drill.scenario.alert
    if not alert:
        return
    drill.progress("wait for the alert to clear")

    def is_clear() -> bool:
        if any(a.name == alert for a in drill.clients.prometheus.list_alerts()):
            return False
        return not drill.card.is_told or drill.list_received("resolved").keys() >= _CHANNELS

    if wait_for(is_clear, timeout_s=drill.scenario.clear_timeout_s):
        last = max(drill.list_received("resolved").values(), default=utc_now())
        drill.card.phases.clear_s = max(0.0, _seconds(fixed_at, last))
    drill.record("clear", seconds=drill.card.phases.clear_s)


def _revert(drill: Drill) -> None:
    if drill.card.reverted:
        return
    drill.progress("revert")
    try:
        drill.scenario.revert(drill)
        drill.card.reverted = True
        drill.record("reverted")
    except (RunbookError, OSError) as error:
        drill.record("revert_failed", reason=str(error))


def _close(drill: Drill, error: RunbookError | None) -> DrillDocument:
    card, home = drill.card, drill.settings.runbook_home
    objectives = compute_objectives(card, drill.scenario)
    code = ExitCode.OK if all(o.met for o in objectives) else ExitCode.NOT_OK
    document = DrillDocument(
        schema_name="runbook/drill/1",
        incident=drill.incident.id,
        verdict=card.verdict or Verdict.UNKNOWN,
        exit_code=ExitCode.RUN_FAILED if error is not None else code,
        scenario=drill.scenario.name,
        drill=drill.id,
        cause_expected=str(drill.scenario.cause_expected),
        objectives=tuple(objectives),
        error=str(error or ""),
        **{name: getattr(card, name) for name in _MEASURED},
    )
    drill.record("scored", **document.model_dump(mode="json", exclude={"schema_name"}))
    drill.incident.close(card.verdict or Verdict.UNKNOWN)
    report = write_outputs(drill.incident, SECTIONS)
    write_gauges(home, list_history(home))
    return document.model_copy(update={"report": str(report)})


def _seconds(start: datetime, end: datetime) -> float:
    return round((end - start).total_seconds(), 2)
