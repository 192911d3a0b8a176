"""Actions 4.1, 4.2 and 6.3: create synthetic objects, and take them back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..change.service_actions import ServicePlan, load_service_plan
from ..change.synthetic import (
    check_playground,
    check_prefix,
    create_backlog,
    is_expired,
    list_synthetic,
    make_drill_id,
    revert_backlog,
)
from ..change.synthetic_plan import (
    SyntheticPlan,
    load_synthetic_plan,
    make_synthetic_plan,
    use_synthetic_plan,
)
from ..errors import ClientError
from ..investigation import Investigation
from ..model import ActionEntry, ActionPhase, Json, format_time
from ..section import ActionStep, make_entry
from .actions import get_plan_path, plan_nothing, verify_service

__all__ = ["make_create_step", "make_revert_step", "plan_revert"]

_SAMPLE = 20


def make_create_step(step: str) -> ActionStep:
    """Return the action that creates a synthetic backlog."""
    return ActionStep(
        step, "Create a synthetic backlog", _plan_create, _load(step), _create, _verify_create
    )


def make_revert_step(step: str, title: str) -> ActionStep:
    """Return the action that removes synthetic objects."""
    return ActionStep(
        step, title, lambda inv: plan_revert(inv, step), _load(step), _revert, _verify_revert
    )


def _load(step: str) -> Any:
    def load(inv: Investigation, plan_id: str) -> SyntheticPlan | ServicePlan | None:
        path = get_plan_path(inv, plan_id)
        plan = load_synthetic_plan(path) or load_service_plan(path)
        return plan if plan is not None and plan.step == step else None

    return load


def _plan_create(inv: Investigation) -> SyntheticPlan:
    p: Any = inv.parameters
    check_playground(inv.settings, inv.clients.store)
    prefix = check_prefix(inv.settings, p.prefix or inv.settings.chaos_prefix)
    facts: dict[str, Json] = {
        "prefix": prefix,
        "count": p.count,
        "hold_minutes": p.hold_minutes,
        "object_size_kb": p.object_size_kb,
        "age_minutes": p.age_minutes,
        "drill_id": p.drill_id or str(inv.incident.facts.get("drill_id") or make_drill_id()),
        "bytes": p.count * p.object_size_kb * 1024,
        "way_back": "4.2 removes them; they expire on their own, too",
    }
    target = f"{p.count} synthetic objects under {inv.clients.store.bucket}/{prefix}"
    return make_synthetic_plan(
        inv.incident.folder / "plans",
        step="4.1",
        action="create_synthetic",
        target=target,
        facts=facts,
        now=inv.now(),
    )


def _create(inv: Investigation, plan: SyntheticPlan, approved: str) -> ActionEntry:
    check_playground(inv.settings, inv.clients.store)
    use_synthetic_plan(plan, approved=approved, now=inv.now())
    names = ("prefix", "count", "hold_minutes", "object_size_kb", "age_minutes", "drill_id")
    made = create_backlog(
        inv.clients.store,
        settings=inv.settings,
        now=inv.now(),
        **{name: plan.facts[name] for name in names},
    )
    result = asdict(made) | {
        "hold_until": format_time(made.hold_until),
        "pending_since": format_time(made.pending_since),
        "sample": list(made.sample),
    }
    undo = "step 4.2, or make chaos-fulfillment-delay ARGS=--revert"
    return make_entry(plan, ActionPhase.APPLIED, undo=undo, result=result)


def _verify_create(inv: Investigation, plan: SyntheticPlan) -> ActionEntry:
    if not plan.applied_path.exists():
        return make_entry(plan, ActionPhase.PLANNED, reason="not applied: nothing to verify")
    drill = str(plan.facts["drill_id"])
    found = list(list_synthetic(inv.clients.store, [str(plan.facts["prefix"])], drill_id=drill))
    complete = len(found) == plan.facts["count"]
    return make_entry(
        plan,
        ActionPhase.VERIFIED if complete else ActionPhase.FAILED,
        reason=f"{len(found)} of {plan.facts['count']} objects are there, all proven synthetic",
        result={"objects": len(found)},
    )


def plan_revert(inv: Investigation, step: str) -> SyntheticPlan | ServicePlan:
    """Plan the removal of what metadata proves synthetic; empty when there is nothing.

    A store that cannot be listed does not keep the rest of section 6 from being planned: the
    plan is empty and says why.
    """
    try:
        return _plan_revert(inv, step)
    except ClientError as error:
        if step != "6.3":
            raise
        return plan_nothing(
            inv, step=step, target="synthetic objects", reason=f"cannot be planned: {error}"
        )


def _plan_revert(inv: Investigation, step: str) -> SyntheticPlan:
    p: Any = inv.parameters
    settings = inv.settings
    prefixes = list(dict.fromkeys([settings.chaos_prefix, settings.pending_prefix]))
    if chosen := getattr(p, "prefix", "") if step == "4.2" else "":
        prefixes = [check_prefix(settings, chosen)]
    drill = p.drill_id or None
    found = list(list_synthetic(inv.clients.store, prefixes, drill_id=drill))
    facts: dict[str, Json] = {
        "prefixes": prefixes,
        "drill_id": drill or "",
        "objects": len(found),
        "bytes": sum(info.size_bytes for info in found),
        "expired": sum(is_expired(info, inv.now()) for info in found),
        "sample": [info.key for info in found[:_SAMPLE]],
        "drills": sorted({(i.metadata or {}).get("drill-id", "DataFlow's script") for i in found}),
        "way_back": "there is none, and none is needed: only synthetic objects go",
    }
    bucket = inv.clients.store.bucket
    return make_synthetic_plan(
        inv.incident.folder / "plans",
        step=step,
        action="revert_synthetic",
        target=f"{len(found)} synthetic objects under {bucket}/{{{','.join(prefixes)}}}",
        facts=facts,
        is_empty=not found,
        now=inv.now(),
    )


def _revert(inv: Investigation, plan: SyntheticPlan, approved: str) -> ActionEntry:
    check_playground(inv.settings, inv.clients.store)
    use_synthetic_plan(plan, approved=approved, now=inv.now())
    drill = str(plan.facts["drill_id"]) or None
    removals = [
        revert_backlog(inv.clients.store, prefix=prefix, drill_id=drill)
        for prefix in plan.facts["prefixes"]
    ]
    failed = {key: why for r in removals for key, why in r.failed.items()}
    result = {
        "removed": sum(r.removed for r in removals),
        "candidates": sum(r.candidates for r in removals),
        "kept": sum(r.kept for r in removals),
        "bytes": sum(r.size_bytes for r in removals),
        "failed": failed,
    }
    return make_entry(plan, ActionPhase.APPLIED, undo="there is none", result=result)


def _verify_revert(inv: Investigation, plan: SyntheticPlan | ServicePlan) -> ActionEntry:
    if isinstance(plan, ServicePlan):
        return verify_service(inv, plan)
    if plan.is_empty:
        return make_entry(plan, ActionPhase.VERIFIED, reason="nothing to do: nothing is synthetic")
    if not plan.applied_path.exists():
        return make_entry(plan, ActionPhase.PLANNED, reason="not applied: nothing to verify")
    drill = str(plan.facts["drill_id"]) or None
    left = list(list_synthetic(inv.clients.store, plan.facts["prefixes"], drill_id=drill))
    return make_entry(
        plan,
        ActionPhase.FAILED if left else ActionPhase.VERIFIED,
        reason=f"{len(left)} synthetic objects are left",
        result={"objects_left": len(left), "sample": [info.key for info in left[:5]]},
    )
