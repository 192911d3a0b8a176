"""Section 6: release, repair, clean up, and prove that it helped. Every change is planned first."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from runbook_lib.model import CauseStatus, Conclusion, Finding, Status, Verdict, parse_time
from runbook_lib.section import ChangeParameters, by_id

from ..analysis.causes import CAUSES
from ..analysis.verdict import compute_verdict
from ..investigation import Investigation
from . import purpose, root_cause
from .actions import ACTIONS, put_in_order
from .detection import judge_symptoms, list_current, read_alert, read_backlog_objects
from .immediate import read_store_health
from .plan_effect import read_plan_effect
from .recovery import read_recovery
from .root_cause.steps import read_worker
from .root_cause.timeline import build_timeline

__all__ = ["ACTIONS", "NAME", "STEPS", "TITLE", "Parameters", "conclude", "put_in_order"]

NAME = "06_remediation"
TITLE = "Remediation"
_PlanId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,150}$")]


class Parameters(ChangeParameters):
    """Parameters of section 6."""

    way: Literal["auto", "release", "retrigger", "none"] = Field(
        "auto", description="6.1: auto re-triggers the worker when it can run, else moves"
    )
    prefix: str = Field("", description="6.1: release from; empty: PENDING_PREFIX")
    to: str = Field("", description="6.1: release to; empty: READY_PREFIX")
    match: str = Field("", description="6.1: shell pattern of names; empty: RELEASE_MATCH")
    older_than_minutes: float = Field(0, ge=0, description="6.1: leave out what waits less, min")
    limit: int = Field(0, ge=0, le=100_000, description="6.1: release at most so many; 0: all")
    only_orders: str = Field("", description="6.1: only these orders, comma-separated")
    undo: _PlanId = Field("", description="6.1.1: id of the release to take back; empty: none")
    settle: _PlanId = Field("", description="6.1.2: id of the release to settle; empty: none")
    settle_word: Literal["", "taken", "not_taken"] = Field(
        "", description="6.1.2: what became of them: taken, or not_taken"
    )
    settle_keys: str = Field("", description="6.1.2: only these keys, comma-separated; empty: all")
    service_action: Literal["auto", "none", "start", "stop", "restart", "resume", "unpause"] = (
        Field("auto", description="6.2: auto takes what section 5 found")
    )
    service: str = Field("", description="6.2: name of the service; empty: the worker's")
    drill_id: str = Field("", description="6.3: only this drill's objects; empty: every drill's")
    wait_s: float = Field(30, ge=0, le=900, description="6.5: wait for samples at most, in seconds")


STEPS = root_cause.STEPS | by_id(purpose.read_unfinished, read_plan_effect, read_recovery)


def conclude(inv: Investigation) -> Conclusion:
    """Say whether it is fixed: by readings that are newer than the last action."""
    action = inv.journal.last_applied
    readings = list_current(inv, STEPS)
    findings, advice = root_cause.judge_causes(inv)
    recovery = readings.get(read_recovery.id)
    clear = recovery.clear if recovery else None
    if action is None:
        verdict, said = judge_symptoms(inv, STEPS)
        supported = [f for f in findings if f.status is CauseStatus.SUPPORTED]
        summary = f"nothing was changed; {said}" + "".join(f"; {f.name}" for f in supported)
    else:
        observed = {step: reading.observations for step, reading in readings.items()}
        moved_at = observed.get(read_worker.id, {}).get("worker_last_move")
        found = compute_verdict(
            symptoms={
                s.id: status
                for s in (read_recovery, read_backlog_objects, read_store_health)
                for status in [readings[s.id].status if s.id in readings else Status.UNKNOWN]
                if status is not Status.LEFT_OUT
            },
            causes=_pick_causes(inv, findings),
            alert_state=observed.get(read_alert.id, {}).get("alert_state"),
            now=inv.now(),
            clear=clear,
            worker_moving=moved_at and parse_time(moved_at) > action.at,
        )
        verdict, summary = found.verdict, found.reason
    return Conclusion(
        verdict=verdict,
        summary=summary,
        findings=findings,
        timeline=build_timeline(inv, findings),
        clear=clear if verdict is Verdict.FIXED_ALERT_DECAYING else None,
        advice=advice.words if verdict in root_cause.IN_TROUBLE else (),
    )


def _pick_causes(inv: Investigation, findings: tuple[Finding, ...]) -> dict[str, CauseStatus]:
    """Return the causes to judge by: those that are supported now, or were before.

    A cause that nobody ever supported says nothing by being undecided, and one that stops
    no label counts only if it was the incident's. Without any, what was refuted says that no
    cause is left.
    """
    before = {finding.name for finding in inv.journal.causes()}
    now = {f.name: f.status for f in findings}
    picked = {
        c: s
        for c, s in now.items()
        if c in before or (s is CauseStatus.SUPPORTED and CAUSES[c].stops_labels)
    }
    gone = (CauseStatus.REFUTED, CauseStatus.PAST)
    return picked or {c: s for c, s in now.items() if s in gone}
