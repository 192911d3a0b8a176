"""Actions 6.2 and 6.4: bring back the service that failed, refresh the ticket's timeline."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from ..analysis.causes import CAUSES
from ..change.service_actions import ServicePlan, load_service_plan
from ..errors import ClientError
from ..investigation import Investigation
from ..model import ActionPhase, Cause, Json, format_time
from ..section import ActionStep
from . import root_cause
from .actions import apply_service, get_plan_path, plan_nothing, plan_service, verify_service
from .release import refresh_diagnosis

__all__ = ["REFRESH", "REPAIR", "choose_repair"]


def choose_repair(
    causes: Sequence[Cause], seen: dict[str, Json], *, worker: str, dag_id: str
) -> tuple[str, str, str]:
    """Return action, target and reason for the first cause that an action can help.

    Parameters
    ----------
    causes : supported ones, in the order in which they are to be dealt with
    seen : all observations
    worker, dag_id : names of the worker's service and of the DAG
    """
    seen = {**seen, "worker": worker, "dag": dag_id}
    repairs = {cause: CAUSES[cause].repair(seen) for cause in causes}
    said = {
        cause: f"{cause}: {mind}" if mind else str(cause) for cause, (*_, mind) in repairs.items()
    }
    for cause, (action, target, _) in repairs.items():
        if target:
            rest = [str(c) for c in causes if c is not cause]
            also = f"; also supported: {', '.join(rest)}" if rest else ""
            return action, target, f"{said[cause]}{also}"
    return "none", worker, "; ".join(said.values()) or "no cause is supported: nothing to restart"


def _plan_repair(inv: Investigation) -> ServicePlan:
    p: Any = inv.parameters
    settings = inv.settings
    if p.service_action != "auto":
        default = settings.pipeline_dag_id if p.service_action == "unpause" else ""
        return plan_service(
            inv,
            step="6.2",
            action=p.service_action,
            target=p.service or default or settings.worker_service,
            reason=f"chosen: service_action={p.service_action}",
        )
    supported = refresh_diagnosis(inv)
    observations = root_cause.collect_observations(inv.latest())
    action, target, reason = choose_repair(
        [cause for cause in CAUSES if cause in supported],
        {name: seen.value for name, seen in observations.items()},
        worker=settings.worker_service,
        dag_id=settings.pipeline_dag_id,
    )
    return _plan_or_say(inv, step="6.2", action=action, target=target, reason=reason)


def _plan_refresh(inv: Investigation) -> ServicePlan:
    ticket = inv.ticket_id
    if not ticket:
        return plan_nothing(inv, step="6.4", target="ticket", reason="no ticket is named")
    at, stale = _find_refresh(inv, ticket), timedelta(minutes=inv.settings.timeline_stale_minutes)
    if at is not None and inv.now() - at < stale:
        reason = f"it was refreshed at {format_time(at)}, and nothing was changed since"
        return plan_nothing(inv, step="6.4", target=ticket, reason=reason)
    return _plan_or_say(
        inv, step="6.4", action="refresh", target=ticket, reason="so that support sees the release"
    )


def _find_refresh(inv: Investigation, ticket: str) -> datetime | None:
    """Return when this ticket's timeline was refreshed and checked, if that was the last action."""
    last = inv.journal.last_applied
    if last is None or last[1].step != "6.4":
        return None
    checked = inv.journal.list_actions(ActionPhase.VERIFIED, after=last[0].seq)
    return next((entry.at for entry, action in checked if action.target == ticket), None)


def _plan_or_say(
    inv: Investigation, *, step: str, action: str, target: str, reason: str
) -> ServicePlan:
    """Plan a change; where its target cannot be read, plan nothing and say so."""
    try:
        return plan_service(inv, step=step, action=action, target=target, reason=reason)
    except ClientError as error:
        text = f"{action} of {target} cannot be planned: {error}"
        return plan_nothing(inv, step=step, target=target, reason=text)


def _load(step: str) -> Any:
    def load(inv: Investigation, plan_id: str) -> ServicePlan | None:
        plan = load_service_plan(get_plan_path(inv, plan_id))
        return plan if plan is not None and plan.step == step else None

    return load


REPAIR = ActionStep(
    "6.2", "Bring back the service", _plan_repair, _load("6.2"), apply_service, verify_service
)
REFRESH = ActionStep(
    "6.4",
    "Refresh the ticket's timeline",
    _plan_refresh,
    _load("6.4"),
    apply_service,
    verify_service,
)
