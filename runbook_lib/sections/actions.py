"""What the sections that change something share: entries, approver, plans of nothing."""

from __future__ import annotations

from pathlib import Path

from ..change.service_actions import (
    ServicePlan,
    apply_service_plan,
    make_service_plan,
    verify_service_plan,
)
from ..investigation import Investigation
from ..model import ActionEntry, ActionPhase
from ..section import make_entry

__all__ = [
    "apply_service",
    "get_plan_path",
    "plan_nothing",
    "plan_service",
    "verify_service",
]


def get_plan_path(inv: Investigation, plan_id: str) -> Path:
    """Return the path of a plan's file."""
    return inv.incident.path("plans", f"{plan_id}.jsonl")


def plan_service(
    inv: Investigation, *, step: str, action: str, target: str, reason: str
) -> ServicePlan:
    """Plan one change of a service."""
    return make_service_plan(
        inv.incident.folder / "plans",
        step=step,
        action=action,
        target=target,
        reason=reason,
        clients=inv.clients,
        now=inv.now(),
        made_by=inv.operator,
        redactor=inv.incident.redactor,
    )


def plan_nothing(inv: Investigation, *, step: str, target: str, reason: str) -> ServicePlan:
    """Plan nothing, and say why."""
    return plan_service(inv, step=step, action="none", target=target, reason=reason)


def apply_service(inv: Investigation, plan: ServicePlan, approved: str) -> ActionEntry:
    """Carry out a service plan."""
    result = apply_service_plan(plan, inv.clients, approved=approved, now=inv.now())
    return make_entry(plan, ActionPhase.APPLIED, undo=plan.way_back, result=result)


def verify_service(inv: Investigation, plan: ServicePlan) -> ActionEntry:
    """Look until a service plan's effect is there."""
    if plan.is_empty:
        return make_entry(plan, ActionPhase.VERIFIED, reason=f"nothing was done: {plan.reason}")
    if not plan.applied_path.exists():
        return make_entry(plan, ActionPhase.PLANNED, reason="not applied: nothing to verify")
    result = verify_service_plan(plan, inv.clients)
    phase = ActionPhase.VERIFIED if result["ok"] else ActionPhase.FAILED
    return make_entry(plan, phase, undo=plan.way_back, reason=str(result["reason"]), result=result)
