"""Action 6.1: two ways out. Re-trigger the worker when it can run, else release by move.

6.1.1 takes a release by move back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..change.plan import make_release_plan
from ..change.plan_file import ReleasePlan, load_plan
from ..change.service_actions import ServicePlan, load_service_plan
from ..change.undo import make_undo_plan
from ..errors import ClientError, UsageError
from ..investigation import Investigation
from ..model import ActionEntry, ActionPhase, Cause, CauseStatus, Json
from ..section import ActionStep, make_entry, split_list
from . import root_cause
from .actions import (
    apply_service,
    get_approver,
    get_plan_path,
    plan_nothing,
    plan_service,
    verify_service,
)

__all__ = ["RELEASE", "TAKE_BACK", "choose_way", "load_release", "refresh_diagnosis"]

_MAX_AGE_S = 90.0
#: Causes for which the worker cannot do its job: what is finished is moved for it.
_WORKER_CANNOT = (
    Cause.WORKER_STOPPED,
    Cause.WORKER_STUCK,
    Cause.PIPELINE_PAUSED,
    Cause.PIPELINE_FAILING,
    Cause.BAD_CREDENTIALS,
    Cause.NO_PERMISSION,
    Cause.BAD_PREFIX,
)
#: Causes for which nothing may be moved at all.
_DO_NOT = (Cause.STORE_DOWN, Cause.STORAGE_FULL)


def refresh_diagnosis(inv: Investigation, max_age_s: float = _MAX_AGE_S) -> set[Cause]:
    """Return the supported causes; readings that are too old are read anew."""
    for step in root_cause.STEPS:
        inv.take(step, max_age_s=max_age_s)
    findings = root_cause.find_causes(inv.latest())
    return {f.name for f in findings if f.status is CauseStatus.SUPPORTED}


def choose_way(causes: set[Cause], seen: dict[str, Json]) -> tuple[str, str]:
    """Return ``release``, ``retrigger`` or ``none``, and why.

    Parameters
    ----------
    causes : those that are supported
    seen : observations of step 2.3; a missing one is unknown
    """
    if stop := [c for c in _DO_NOT if c in causes]:
        return "none", f"do not release: {stop[0]}; see 6.2"
    if seen.get("waiting_real") == 0:
        return "none", "no real object waits"
    if block := [c for c in _WORKER_CANNOT if c in causes]:
        return "release", f"the worker cannot do it: {', '.join(block)}"
    if seen.get("overdue_real") == 0:
        return "none", "no real object waits over the threshold, and nothing stops the worker"
    return "retrigger", "no cause was found that stops the worker: it does its whole job"


def _plan(inv: Investigation) -> ReleasePlan | ServicePlan:
    p: Any = inv.parameters
    prefix = p.prefix or inv.settings.pending_prefix
    way, reason = p.way, f"chosen: way={p.way}"
    if way == "auto":
        causes = refresh_diagnosis(inv)
        reading = inv.latest().get("2.3")
        way, reason = choose_way(causes, reading.detail.get("observations", {}) if reading else {})
    if way == "none":
        return plan_nothing(inv, step="6.1", target=prefix, reason=reason)
    if way == "retrigger":
        target = inv.settings.worker_service
        return plan_service(inv, step="6.1", action="retrigger", target=target, reason=reason)
    bar = inv.progress("listed") if inv.progress else None
    return make_release_plan(
        inv.clients.store,
        folder=inv.incident.folder / "plans",
        prefix=prefix,
        to=p.to or inv.settings.ready_prefix,
        made_by=get_approver(inv),
        match=p.match,
        older_than_s=p.older_than_minutes * 60 or None,
        first=p.limit or None,
        only_orders=_get_orders(inv),
        others=_describe_others(inv, reason),
        now=inv.now,
        progress=(lambda listed: bar(listed, 0)) if bar else None,
    )


def _get_orders(inv: Investigation) -> frozenset[str] | None:
    """Return the orders that may move: in a drill only its own, whatever the parameter says."""
    named = frozenset(split_list(str(getattr(inv.parameters, "only_orders", ""))))
    if inv.incident.facts.get("drill_id"):
        own = frozenset(str(order) for order in inv.incident.facts.get("drill_orders") or ())
        return own & named if named else own
    return named or None


def _describe_others(inv: Investigation, reason: str) -> str:
    try:
        worker = inv.clients.fulfillment.read_worker()
    except ClientError as error:
        return f"{reason}; the worker does not answer ({error})"
    state = "paused" if worker.paused else ("moving now" if worker.moving else "not moving now")
    return f"{reason}; the worker is {state} and is paused while the release runs"


def load_release(inv: Investigation, plan_id: str) -> ReleasePlan | ServicePlan | None:
    """Return a plan of step 6.1; None when the id is of another step's plan."""
    return _load(inv, plan_id, "6.1")


def _load(inv: Investigation, plan_id: str, step: str) -> ReleasePlan | ServicePlan | None:
    path = get_plan_path(inv, plan_id)
    plan: ReleasePlan | ServicePlan | None = load_service_plan(path)
    if plan is None and _is_release(path):
        plan = load_plan(path)
    return plan if plan is not None and plan.step == step else None


def _is_release(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            header = json.loads(file.readline(1_000_000))
    except FileNotFoundError as error:
        raise UsageError(f"there is no plan {path.stem} in {path.parent}") from error
    except ValueError:
        return True  # load_plan says what is wrong with it
    return isinstance(header, dict) and header.get("action") in ("release", "undo")


def _ledger(inv: Investigation, plan: ReleasePlan) -> Path:
    return inv.incident.path("ledger", f"{plan.id}.jsonl")


def _apply(inv: Investigation, plan: ReleasePlan | ServicePlan, approved: str) -> ActionEntry:
    if isinstance(plan, ServicePlan):
        return apply_service(inv, plan, approved)
    from ..change.mover import apply_plan
    from ..change.quiesce import hold_worker

    result = apply_plan(
        inv.clients.store,
        plan,
        ledger_path=_ledger(inv, plan),
        approve_sha256=approved,
        approved_by=get_approver(inv),
        redactor=inv.incident.redactor,
        now=inv.now,
        progress=inv.progress("dealt with") if inv.progress else None,
        hold=hold_worker(
            inv.clients,
            service=inv.settings.worker_service,
            note=inv.incident.folder / "ledger" / "worker-paused.json",
        ),
    )
    reason = f"{result.moved} moved, {result.already} moved before"
    if not result.is_clean:
        reason += (
            f"; {len(result.conflicts)} conflicts, {len(result.failed)} failed, {result.left} left"
            f" {result.stopped}: runbook resume {plan.id}"
        )
    return make_entry(plan, ActionPhase.APPLIED, reason=reason, result=result.to_json())


def _verify(inv: Investigation, plan: ReleasePlan | ServicePlan) -> ActionEntry:
    if isinstance(plan, ServicePlan):
        return verify_service(inv, plan)
    from ..change.proof import verify_release

    if plan.is_empty:
        return make_entry(plan, ActionPhase.VERIFIED, reason="nothing to do")
    if not _ledger(inv, plan).exists():
        return make_entry(plan, ActionPhase.PLANNED, reason="not applied: nothing to verify")
    proof = verify_release(
        inv.clients.store,
        plan,
        ledger_path=_ledger(inv, plan),
        evidence=inv.incident.path("evidence", f"proof-{plan.id}.json"),
    )
    result = proof.to_json()
    bad = [name for name in ("lost", "duplicated", "foreign_changed", "not_moved") if result[name]]
    return make_entry(
        plan,
        ActionPhase.VERIFIED if proof.is_complete else ActionPhase.FAILED,
        reason=f"by independent listing: {', '.join(bad)}" if bad else "proven by listing",
        result=result,
    )


def _plan_undo(inv: Investigation) -> ReleasePlan | ServicePlan:
    named = str(getattr(inv.parameters, "undo", ""))
    if not named:
        reason = "no release was named to take back"
        return plan_nothing(inv, step="6.1.1", target=inv.settings.ready_prefix, reason=reason)
    release = load_release(inv, named)
    if not isinstance(release, ReleasePlan):
        raise UsageError(f"{named!r} is not the plan of a release by move")
    return make_undo_plan(
        inv.clients.store,
        release,
        ledger_path=_ledger(inv, release),
        made_by=get_approver(inv),
        now=inv.now,
    )


RELEASE = ActionStep("6.1", "Release what waits", _plan, load_release, _apply, _verify)
TAKE_BACK = ActionStep(
    "6.1.1",
    "Take the release back",
    _plan_undo,
    lambda inv, plan_id: _load(inv, plan_id, "6.1.1"),
    _apply,
    _verify,
)
