"""What section 6 plans: release, repair, clean-up, and the refresh of the ticket's timeline.

6.1 has two ways out: re-trigger the worker when it can run, else release by move. 6.1.1 takes a
release by move back; 6.1.2 writes down a person's word on what nobody can know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from objectmove.errors import StoreError
from runbook_lib.approvals import Plan, load_plan
from runbook_lib.errors import ClientError, UsageError
from runbook_lib.model import ActionPhase, CauseStatus, Json, format_time
from runbook_lib.section import ActionStep, split_list

from ..analysis.causes import CAUSES
from ..analysis.evidence import Strategy
from ..change.release import MOVE, make_release_plan, plan_settling, plan_undo
from ..change.service_actions import SERVICE, plan_nothing, plan_service
from ..change.synthetic import SYNTHETIC, plan_revert
from ..investigation import Investigation
from . import root_cause
from .detection import read_backlog_objects

_MAX_AGE_S = 90.0


def refresh_diagnosis(inv: Investigation, max_age_s: float = _MAX_AGE_S) -> set[str]:
    """Return the supported causes; readings that are too old are read anew."""
    for step in root_cause.STEPS:
        inv.read_step(step, max_age_s=max_age_s)
    findings = root_cause.find_causes(inv.latest())
    return {f.name for f in findings if f.status is CauseStatus.SUPPORTED}


def choose_strategy(causes: set[str], seen: dict[str, Json]) -> tuple[Strategy, str]:
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


def _plan_release(inv: Investigation) -> Plan:
    p: Any = inv.parameters
    prefix = p.prefix or inv.settings.pending_prefix
    strategy, reason = p.way, f"chosen: way={p.way}"
    if strategy == "auto":
        causes = refresh_diagnosis(inv)
        reading = inv.latest().get(read_backlog_objects.id)
        strategy, reason = choose_strategy(causes, reading.observations if reading else {})
    if strategy == "none":
        return plan_nothing(inv, step="6.1", target=prefix, reason=reason)
    if strategy == "retrigger":
        target = inv.settings.worker_service
        return plan_service(inv, step="6.1", action="retrigger", target=target, reason=reason)
    release = partial(
        make_release_plan,
        inv,
        reason=_describe_others(inv, reason),
        prefix=prefix,
        to=p.to or inv.settings.ready_prefix,
        match=p.match,
        older_than_s=p.older_than_minutes * 60 or None,
        first=p.limit or None,
        only_orders=_get_orders(inv),
    )
    if p.way != "auto":
        return release()
    return _plan_or_say(inv, release, step="6.1", target=prefix, what="a release")


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


def _plan_about(
    inv: Investigation, step: str, named: str, plan: Callable[[Plan], Plan], *, verb: str
) -> Plan:
    """Plan something about the release that a parameter names; nothing when it names none."""
    if not named:
        reason = f"no release was named to {verb}"
        return plan_nothing(inv, step=step, target=inv.settings.ready_prefix, reason=reason)
    release = load_plan(inv.incident.path("plans", f"{named}.jsonl"), _RELEASE)
    if release.kind is not MOVE or release.step != "6.1":
        raise UsageError(f"{step}: {named!r} is not the plan of a release by move")
    return plan(release)


def _plan_undo(inv: Investigation) -> Plan:
    p: Any = inv.parameters
    return _plan_about(inv, "6.1.1", p.undo, partial(plan_undo, inv), verb="take back")


def _plan_settling(inv: Investigation) -> Plan:
    p: Any = inv.parameters
    if p.settle and not p.settle_word:
        raise UsageError("settle_word says what became of them: taken, or not_taken")
    keys = tuple(split_list(p.settle_keys))
    plan = partial(plan_settling, inv, taken=p.settle_word == "taken", keys=keys)
    return _plan_about(inv, "6.1.2", p.settle, plan, verb="settle")


def choose_repair(
    causes: Sequence[str], seen: dict[str, Json], *, worker: str, dag_id: str
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


def _plan_repair(inv: Investigation) -> Plan:
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
    return _plan_service_or_say(inv, step="6.2", action=action, target=target, reason=reason)


def _plan_refresh(inv: Investigation) -> Plan:
    ticket = inv.ticket_id
    if not ticket:
        return plan_nothing(inv, step="6.4", target="ticket", reason="no ticket is named")
    at, stale = _find_refresh(inv, ticket), timedelta(minutes=inv.settings.timeline_stale_minutes)
    if at is not None and inv.now() - at < stale:
        reason = f"it was refreshed at {format_time(at)}, and nothing was changed since"
        return plan_nothing(inv, step="6.4", target=ticket, reason=reason)
    why = "so that support sees the release"
    return _plan_service_or_say(inv, step="6.4", action="refresh", target=ticket, reason=why)


def _find_refresh(inv: Investigation, ticket: str) -> datetime | None:
    """Return when this ticket's timeline was refreshed and checked, if that was the last action."""
    last = inv.journal.last_applied
    if last is None or last[1].step != "6.4":
        return None
    checked = inv.journal.list_actions(ActionPhase.VERIFIED, after=last[0].seq)
    return next((entry.at for entry, action in checked if action.target == ticket), None)


def _plan_clean_up(inv: Investigation) -> Plan:
    return _plan_or_say(
        inv, lambda: plan_revert(inv, "6.3"), step="6.3", target="synthetic objects"
    )


def _plan_or_say(
    inv: Investigation, plan: Callable[[], Plan], *, step: str, target: str, what: str = ""
) -> Plan:
    """Plan; where the world cannot be read, plan nothing and say so: the rest is planned still."""
    try:
        return plan()
    except (StoreError, ClientError) as error:
        reason = f"{what} cannot be planned: {error}".strip()
        return plan_nothing(inv, step=step, target=target, reason=reason)


def _plan_service_or_say(
    inv: Investigation, *, step: str, action: str, target: str, reason: str
) -> Plan:
    plan = partial(plan_service, inv, step=step, action=action, target=target, reason=reason)
    return _plan_or_say(inv, plan, step=step, target=target, what=f"{action} of {target}")


_RELEASE = (MOVE, SERVICE)
ACTIONS = {
    action.id: action
    for action in (
        ActionStep("6.1", "Release what waits", _plan_release, _RELEASE),
        ActionStep("6.1.1", "Take the release back", _plan_undo, _RELEASE),
        ActionStep("6.1.2", "Settle what nobody can know", _plan_settling, _RELEASE),
        ActionStep("6.2", "Bring back the service", _plan_repair, (SERVICE,)),
        ActionStep("6.3", "Clean up chaos objects", _plan_clean_up, (SYNTHETIC, SERVICE)),
        ActionStep("6.4", "Refresh the ticket's timeline", _plan_refresh, (SERVICE,)),
    )
}
