"""A drill: steady state, inject, detect, notify, diagnose, remediate, verify, revert, score.

It uses the code that an incident uses. It approves as ``drill:<id>``, and only the release of
orders that it injected itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from ..change.synthetic import check_playground, sweep_expired
from ..clients import Clients
from ..errors import DrillError, RunbookError, SteadyStateError
from ..exit_codes import ExitCode
from ..investigation import Investigation
from ..model import Json, Verdict
from ..record.incident import Incident, create_incident
from ..record.log import utc_now
from ..redact import Redactor
from ..sections import SECTIONS
from ..settings import Settings
from .documents import DrillDocument
from .drill_phases import act, clear, detect, is_healthy_now, notify
from .finish import close_incident, write_outputs
from .investigate import run_sections
from .notebooks import RunStatus
from .score import Scorecard, compute_objectives
from .waiting import wait_for

if TYPE_CHECKING:
    from .scenarios import Scenario

__all__ = ["Drill", "run_drill"]

Progress = Callable[[str], None]


@dataclass
class Drill:
    """One drill at work.

    Attributes
    ----------
    id : names the drill in metadata and approvals
    incident : where everything is recorded
    order_ids : orders that the drill injected itself
    """

    id: str
    incident: Incident
    settings: Settings
    clients: Clients
    scenario: Scenario
    progress: Progress
    order_ids: set[int] = field(default_factory=set)
    injected_at: datetime = field(default_factory=utc_now)
    started: float = 0.0
    timeline: dict[str, Json] = field(default_factory=dict)

    def record(self, event: str, **data: Json) -> None:
        """Write an event of the drill to the journal."""
        self.incident.journal.append(
            "drill", {"section": "", "drill": self.id, "event": event, **data}
        )

    def elapsed_s(self) -> float:
        """Seconds since the injection."""
        return round(time.monotonic() - self.started, 2)

    def open_section(self, name: str, **parameters: Json) -> Investigation:
        """Open a section on the drill's incident, without a notebook."""
        return Investigation.open(
            self.incident.id, section=SECTIONS[name], settings=self.settings, **parameters
        )


def run_drill(
    settings: Settings, scenario: Scenario, *, progress: Progress = lambda _: None
) -> DrillDocument:
    """Carry out one drill and score it.

    Raises
    ------
    EnvironmentForbidsError
        Outside a marked local or demo environment.
    DrillError
        When another drill runs, or the system is not in its steady state.
    """
    clients = Clients(settings)
    check_playground(settings, clients.store)
    home = settings.runbook_home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home / ".drill.lock", timeout=0):
            return _run(settings, clients, scenario, progress)
    except Timeout:
        raise DrillError("another drill is running here; wait for it to end") from None


def _run(
    settings: Settings, clients: Clients, scenario: Scenario, progress: Progress
) -> DrillDocument:
    incident = create_incident(
        settings.runbook_home.resolve(),
        redactor=Redactor(settings.secrets),
        environment=settings.runbook_environment,
        drill=True,
    )
    drill_id = "d" + incident.id.removeprefix("inc-").lower()
    incident.update(drill_id=drill_id, scenario=scenario.name, drill_orders=[])
    drill = Drill(drill_id, incident, settings, clients, scenario, progress)
    card = Scorecard()
    drill.record("started", scenario=scenario.name, swept=sweep_expired(clients.store, settings))
    _check_steady_state(drill)
    error: RunbookError | None = None
    try:
        _carry_out(drill, card)
    except RunbookError as failure:
        error = failure
        drill.record("failed", reason=str(failure))
    except KeyboardInterrupt:
        incident.journal.append("interrupted", {"section": ""})
        raise
    finally:
        _revert(drill, card)
        if error is None and card.verdict is not None:
            card.steady_after = _is_steady(drill)
        document = _conclude(drill, card, error)
    return document


def _carry_out(drill: Drill, card: Scorecard) -> None:
    drill.progress("inject")
    drill.started, drill.injected_at = time.monotonic(), utc_now()
    drill.record("inject", scenario=drill.scenario.name)
    drill.scenario.inject(drill)
    drill.incident.update(drill_orders=sorted(drill.order_ids))
    drill.record("injected", orders=sorted(drill.order_ids))
    detect(drill, card)
    notify(drill, card)
    started = time.monotonic()
    runs = run_sections(
        drill.incident,
        ("01_purpose", "02_signals_detection", "03_immediate_actions", "05_root_cause"),
        progress=drill.progress,
    )
    card.diagnose_s = round(time.monotonic() - started, 2)
    card.failed_notebooks = [run.name for run in runs if run.status is RunStatus.FAILED]
    card.causes = [str(finding.name) for finding in drill.incident.journal.view().causes()]
    scenario = drill.scenario
    act(drill, card, "04_chaos_verification", tuple((step,) for step in scenario.exercise_steps))
    started, fixed_at = time.monotonic(), utc_now()
    if scenario.remedy_steps:
        act(drill, card, "06_remediation", (scenario.remedy_steps,))
        card.remediate_s = round(time.monotonic() - started, 2)
        fixed_at = drill.incident.journal.view().last_applied_at or fixed_at
    else:
        _revert(drill, card)
        fixed_at = utc_now()
    clear(drill, card, fixed_at)
    inv = drill.open_section("06_remediation")
    for step in inv.section.STEPS:
        inv.take(step)
    card.verdict = inv.conclude().verdict
    runs = run_sections(drill.incident, ("08_references", "07_postmortem"), progress=drill.progress)
    card.failed_notebooks += [run.name for run in runs if run.status is RunStatus.FAILED]


def _is_steady(drill: Drill) -> bool:
    """Whether section 2 and the store's health say healthy, waited for until a deadline."""

    return wait_for(
        lambda: is_healthy_now(drill), timeout_s=drill.scenario.steady_timeout_s, every_s=1
    )


def _check_steady_state(drill: Drill) -> None:
    drill.progress("steady state")
    if not _is_steady(drill):
        write_outputs(drill.incident)
        close_incident(drill.incident, Verdict.UNKNOWN)
        raise SteadyStateError(
            "the system is not healthy, so nothing was injected. `runbook investigate` says why; "
            f"what was seen is in {drill.incident.folder}"
        )
    drill.record("steady", before=True)


def _revert(drill: Drill, card: Scorecard) -> None:
    if card.reverted:
        return
    drill.progress("revert")
    try:
        drill.scenario.revert(drill)
        card.reverted = True
        drill.record("reverted")
    except (RunbookError, OSError) as error:
        drill.record("revert_failed", reason=str(error))


def _conclude(drill: Drill, card: Scorecard, error: RunbookError | None) -> DrillDocument:
    verdict = card.verdict or Verdict.UNKNOWN
    objectives = compute_objectives(card, drill.scenario)
    drill.record(
        "scored",
        scenario=drill.scenario.name,
        cause_expected=str(drill.scenario.cause_expected),
        cause_found=card.causes,
        phases=card.phases().model_dump(mode="json"),
        objectives=[o.model_dump(mode="json") for o in objectives],
        verdict=str(verdict),
    )
    close_incident(drill.incident, verdict)
    report = write_outputs(drill.incident)
    if error is not None:
        code = ExitCode.RUN_FAILED
    else:
        code = ExitCode.OK if all(o.met for o in objectives) else ExitCode.NOT_OK
    return DrillDocument(
        schema_name="runbook/drill/1",
        at=utc_now(),
        incident=drill.incident.id,
        verdict=verdict,
        exit_code=code,
        scenario=drill.scenario.name,
        drill=drill.id,
        phases=card.phases(),
        cause_expected=str(drill.scenario.cause_expected),
        cause_found=tuple(card.causes),
        objects_lost=card.objects_lost,
        foreign_touched=card.foreign_touched,
        objectives=tuple(objectives),
        reverted=card.reverted,
        report=str(report),
        error=str(error or ""),
    )
