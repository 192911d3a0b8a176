"""Action 6.1: two ways out. Re-trigger the worker when it can run, else release by move.

6.1.1 takes a release by move back; 6.1.2 writes down a person's word on what nobody can know.
"""

from __future__ import annotations

from typing import Any

from objectmove.errors import StoreError
from objectmove.plan import load_plan

from ..analysis.causes import CAUSES
from ..change.release import (
    ReleasePlan,
    apply_release,
    make_release_plan,
    plan_settling,
    plan_undo,
    verify_release,
)
from ..change.service_actions import ServicePlan, load_service_plan
from ..errors import ClientError, UsageError
from ..investigation import Investigation
from ..model import ActionEntry, ActionPhase, Cause, CauseStatus, Json, format_time
from ..record.incident import write_json
from ..section import ActionStep, make_entry, split_list
from . import root_cause
from .actions import apply_service, get_plan_path, plan_nothing, plan_service, verify_service
from .detection import read_backlog_objects

__all__ = [
    "RELEASE",
    "SETTLE",
    "TAKE_BACK",
    "choose_way",
    "load_release",
    "refresh_diagnosis",
    "say_way_on",
]

_MAX_AGE_S = 90.0
_FINE = ("in_place", "gone_after_landed")


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
    wanted = {c: CAUSES[c].strategy for c in CAUSES if c in causes}
    if stop := [c for c, strategy in wanted.items() if strategy == "none"]:
        return "none", f"do not release: {stop[0]}; see 6.2"
    if seen.get("waiting_real") == 0:
        return "none", "no real object waits"
    if block := [c for c, strategy in wanted.items() if strategy == "release"]:
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
        reading = inv.latest().get(read_backlog_objects.id)
        way, reason = choose_way(causes, reading.observations if reading else {})
    if way == "none":
        return plan_nothing(inv, step="6.1", target=prefix, reason=reason)
    if way == "retrigger":
        target = inv.settings.worker_service
        return plan_service(inv, step="6.1", action="retrigger", target=target, reason=reason)
    try:
        return make_release_plan(
            inv,
            reason=_describe_others(inv, reason),
            prefix=prefix,
            to=p.to or inv.settings.ready_prefix,
            match=p.match,
            older_than_s=p.older_than_minutes * 60 or None,
            first=p.limit or None,
            only_orders=_get_orders(inv),
        )
    except (StoreError, ClientError) as error:
        if p.way != "auto":
            raise
        return plan_nothing(inv, step="6.1", target=prefix, reason=f"nothing, because {error}")


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
    return f"{reason}; the worker is {state}"


def load_release(inv: Investigation, plan_id: str) -> ReleasePlan | ServicePlan | None:
    """Return a plan of step 6.1; None when the id is of another step's plan."""
    return _load(inv, plan_id, "6.1")


def _load(inv: Investigation, plan_id: str, step: str) -> ReleasePlan | ServicePlan | None:
    path = get_plan_path(inv, plan_id)
    if not path.is_file():
        raise UsageError(f"there is no plan {path.stem} in {path.parent}")
    plan: ReleasePlan | ServicePlan | None = load_service_plan(path)
    if plan is None and plan_id.startswith("rel-"):
        plan = ReleasePlan(load_plan(path))
    return plan if plan is not None and plan.step == step else None


def _apply(inv: Investigation, plan: ReleasePlan | ServicePlan, approved: str) -> ActionEntry:
    if isinstance(plan, ServicePlan):
        return apply_service(inv, plan, approved)
    result = apply_release(inv, plan, approve=approved)
    reason = f"{result.moved} moved, {result.already} of them before"
    if not result.is_complete:
        parts = {
            "conflicts": len(result.conflicts),
            "failed": len(result.failed),
            "unproven": len(result.unproven),
            "waiting": result.waiting,
        }
        reason = "; ".join([reason, *(f"{n} {name}" for name, n in parts.items() if n)])
        reason += f"; {result.stopped or 'see runbook verify'} {say_way_on(plan, result.to_json())}"
    return make_entry(plan, ActionPhase.APPLIED, reason=reason, result=result.to_json())


def say_way_on(plan: ReleasePlan, result: dict[str, Json]) -> str:
    """Return the command that goes on from an incomplete result; empty when there is none."""
    if result["waiting"]:
        return f"runbook resume {plan.id}"
    if result["unproven"]:
        return f"runbook settle {plan.id} --taken|--not-taken [KEY…]"
    return ""


def _verify(inv: Investigation, plan: ReleasePlan | ServicePlan) -> ActionEntry:
    if isinstance(plan, ServicePlan):
        return verify_service(inv, plan)
    if plan.is_empty:
        return make_entry(plan, ActionPhase.VERIFIED, reason="nothing to do")
    if not inv.incident.path("ledger", f"{plan.id}.jsonl").exists():
        return make_entry(plan, ActionPhase.PLANNED, reason="not applied: nothing to verify")
    proof = verify_release(inv, plan)
    result = proof.to_json()
    write_json(
        inv.incident.path("evidence", f"proof-{plan.id}.json"),
        {
            "schema": "runbook/proof/2",
            "at": format_time(proof.at),
            "sha256": plan.sha256,
            "how": "a fresh listing of both prefixes, compared with plan, ledger and record",
            **result,
        },
    )
    bad = [f"{n} {name}" for name, n in proof.counts.items() if n and name not in _FINE]
    return make_entry(
        plan,
        ActionPhase.VERIFIED if proof.is_complete else ActionPhase.FAILED,
        reason=f"by independent listing: {', '.join(bad)}" if bad else "proven by listing",
        result=result,
    )


def _plan_about(inv: Investigation, step: str, parameter: str) -> ReleasePlan | None:
    """Return the release that a parameter names, None when it names none."""
    named = str(getattr(inv.parameters, parameter, ""))
    if not named:
        return None
    release = load_release(inv, named)
    if not isinstance(release, ReleasePlan):
        raise UsageError(f"{step}: {named!r} is not the plan of a release by move")
    return release


def _plan_undo(inv: Investigation) -> ReleasePlan | ServicePlan:
    release = _plan_about(inv, "6.1.1", "undo")
    if release is None:
        reason = "no release was named to take back"
        return plan_nothing(inv, step="6.1.1", target=inv.settings.ready_prefix, reason=reason)
    return plan_undo(inv, release)


def _plan_settling(inv: Investigation) -> ReleasePlan | ServicePlan:
    release = _plan_about(inv, "6.1.2", "settle")
    if release is None:
        reason = "no release was named to settle"
        return plan_nothing(inv, step="6.1.2", target=inv.settings.ready_prefix, reason=reason)
    p: Any = inv.parameters
    if not p.settle_word:
        raise UsageError("settle_word says what became of them: taken, or not_taken")
    keys = tuple(split_list(p.settle_keys))
    return plan_settling(inv, release, taken=p.settle_word == "taken", keys=keys)


def _make_step(step: str, title: str, plan: Any) -> ActionStep:
    return ActionStep(
        step, title, plan, lambda inv, plan_id: _load(inv, plan_id, step), _apply, _verify
    )


RELEASE = _make_step("6.1", "Release what waits", _plan)
TAKE_BACK = _make_step("6.1.1", "Take the release back", _plan_undo)
SETTLE = _make_step("6.1.2", "Settle what nobody can know", _plan_settling)
