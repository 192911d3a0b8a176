"""What section 6 plans: release, repair, clean-up, and the refresh of the ticket's timeline.

6.1 has two ways out: re-trigger the worker when it can run, else release by move. 6.1.1 takes a
release by move back; 6.1.2 writes down a person's word on what nobody can know.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from objectmove.errors import RefusedError, StoreError
from runbook_lib.approvals import Plan, load_plan
from runbook_lib.errors import ClientError, SafetyError, UsageError
from runbook_lib.model import ActionPhase, format_time
from runbook_lib.section import ActionStep, by_id, split_list

from ..analysis.advice import Advice
from ..change.release import MOVE, make_release_plan, plan_settling, plan_undo
from ..change.service_actions import SERVICE, plan_nothing, plan_service
from ..change.synthetic import SYNTHETIC, list_own_orders, plan_revert
from ..investigation import Investigation
from . import root_cause

_MAX_AGE_S = 90.0


def _refresh_advice(inv: Investigation) -> Advice:
    """Return what section 5 advises; readings that are too old are read anew."""
    for step in root_cause.STEPS:
        inv.read_step(step, max_age_s=_MAX_AGE_S)
    return root_cause.judge_causes(inv)[1]


def _plan_release(inv: Investigation) -> Plan:
    p: Any = inv.parameters
    prefix = p.prefix or inv.settings.pending_prefix
    strategy, reason, comes_back = p.way, f"chosen: way={p.way}", False
    if strategy == "auto":
        advice = _refresh_advice(inv)
        strategy, reason = advice.strategy, advice.why
        comes_back = advice.target == inv.settings.worker_service and advice.action != "none"
    if strategy == "none":
        return plan_nothing(inv, step="6.1", target=prefix, reason=reason)
    if strategy == "retrigger":
        target, what = inv.settings.worker_service, "a re-trigger (way=release moves by hand)"
        again = partial(plan_service, inv, step="6.1", action="retrigger", target=target)
        plan = partial(again, reason=reason, is_away=comes_back)
        return _plan_or_say(inv, "6.1", target, what, plan)
    release = partial(make_release_plan, inv, reason=reason, only_orders=_get_orders(inv))
    return _plan_or_say(inv, "6.1", prefix, "a release", release)


def _get_orders(inv: Investigation) -> frozenset[str] | None:
    """Return the orders that may move: in a drill only its own, whatever the parameter says."""
    named = frozenset(split_list(str(getattr(inv.parameters, "only_orders", ""))))
    if inv.incident.facts.get("drill_id"):
        return list_own_orders(inv) & named if named else list_own_orders(inv)
    return named or None


def _plan_about(
    inv: Investigation, step: str, named: str, verb: str, plan: Callable[[Plan], Plan]
) -> Plan:
    """Plan something about the release that a parameter names; nothing when it names none."""
    if not named:
        reason = f"no release was named to {verb}"
        return plan_nothing(inv, step=step, target=inv.settings.ready_prefix, reason=reason)
    release = load_plan(inv.incident.find_plan(named), _RELEASE)
    if release.kind is not MOVE or release.step != "6.1":
        raise UsageError(f"{step}: {named!r} is not the plan of a release by move")
    return plan(release)


def _plan_undo(inv: Investigation) -> Plan:
    p: Any = inv.parameters
    return _plan_about(inv, "6.1.1", p.undo, "take back", partial(plan_undo, inv))


def _plan_settling(inv: Investigation) -> Plan:
    p: Any = inv.parameters
    if p.settle and not p.settle_word:
        raise UsageError("settle_word says what became of them: taken, or not_taken")
    return _plan_about(inv, "6.1.2", p.settle, "settle", partial(plan_settling, inv))


def _plan_repair(inv: Investigation) -> Plan:
    p: Any = inv.parameters
    action, target = p.service_action, p.service
    reason = f"chosen: service_action={action}"
    if action == "auto":
        advice = _refresh_advice(inv)
        action, target, reason = advice.action, advice.target, advice.reason
    elif not target:
        settings = inv.settings
        target = settings.pipeline_dag_id if action == "unpause" else settings.worker_service
    return _plan_service(inv, "6.2", action, target, reason)


def _plan_refresh(inv: Investigation) -> Plan:
    ticket, last = inv.ticket_id, inv.journal.last_applied
    if not ticket:
        return plan_nothing(inv, step="6.4", target="ticket", reason="no ticket is named")
    at = None
    if last and last.step == "6.4":
        checked = inv.journal.list_actions(ActionPhase.VERIFIED, after=last.seq)
        at = next((action.at for action in checked if action.target == ticket), None)
    if at and inv.now() - at < timedelta(minutes=inv.settings.timeline_stale_minutes):
        reason = f"it was refreshed at {format_time(at)}, and nothing was changed since"
        return plan_nothing(inv, step="6.4", target=ticket, reason=reason)
    return _plan_service(inv, "6.4", "refresh", ticket, "so that support sees the release")


def _plan_clean_up(inv: Investigation) -> Plan:
    plan = partial(plan_revert, inv, "6.3")
    return _plan_or_say(inv, "6.3", "synthetic objects", "a clean-up", plan)


def _plan_service(inv: Investigation, step: str, action: str, target: str, reason: str) -> Plan:
    plan = partial(plan_service, inv, step=step, action=action, target=target, reason=reason)
    return _plan_or_say(inv, step, target, f"{action} of {target}", plan)


def _plan_or_say(
    inv: Investigation, step: str, target: str, what: str, plan: Callable[[], Plan]
) -> Plan:
    """Plan; where the world refuses, plan nothing and say why: the rest is planned still."""
    try:
        return plan()
    except (StoreError, ClientError, SafetyError, RefusedError) as error:
        reason = f"nothing, because {what} cannot be planned: {error}"
        return plan_nothing(inv, step=step, target=target, reason=reason)


def put_in_order(release: Plan, repair: Plan) -> tuple[Plan, Plan]:
    """Return the plans of 6.1 and 6.2 as the advice orders them: a re-trigger needs the worker."""
    return (repair, release) if release.action == "retrigger" else (release, repair)


_RELEASE = (MOVE, SERVICE)
ACTIONS = by_id(
    ActionStep("6.1", "Release what waits", _plan_release, _RELEASE),
    ActionStep("6.1.1", "Take the release back", _plan_undo, _RELEASE),
    ActionStep("6.1.2", "Settle what nobody can know", _plan_settling, _RELEASE),
    ActionStep("6.2", "Bring back the service", _plan_repair, (SERVICE,)),
    ActionStep("6.3", "Clean up chaos objects", _plan_clean_up, (SYNTHETIC, SERVICE)),
    ActionStep("6.4", "Refresh the ticket's timeline", _plan_refresh, (SERVICE,)),
)
