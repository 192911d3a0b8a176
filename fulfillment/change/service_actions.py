"""Change services: restart, start, stop, unpause, re-trigger, resume, refresh."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

from runbook_lib.approvals import Effect, Plan, PlanKind, make_empty_plan, read_before, write_plan
from runbook_lib.errors import SafetyError
from runbook_lib.language import gettext
from runbook_lib.model import Json, format_time
from runbook_lib.section import attempt

from ..clients import Clients
from ..clients.services import read_service
from ..investigation import Investigation

#: How long ``_verify`` waits for the effect, and between two readings.
_WAIT_S = 30.0
_APART_S = 0.5
#: The state of an action's target, by field, which is read before and after.
State = dict[str, Json]


def _read_service(clients: Clients, name: str) -> State:
    """Read a service. It is well if it runs and no health check says otherwise."""
    service = read_service(clients.find_switch(name), name)
    return {
        "well": service.running and service.health in ("", "healthy"),
        "state": service.state,
        "health": service.health,
        "since": _to_text(service.since),
    }


def _read_dag(clients: Clients, _: str) -> State:
    return {"is_paused": clients.pipeline.read_dag().is_paused}


def _read_worker(clients: Clients, _: str) -> State:
    """Read the worker's state, with times as text by the worker's clock."""
    worker = clients.fulfillment.read_worker()
    return {
        "paused": worker.paused,
        "last_run_at": _to_text(worker.last_run_at),
        "last_move_at": _to_text(worker.last_move_at) or None,
        "last_error": worker.last_error,
    }


def _read_timeline(clients: Clients, ticket_id: str) -> State:
    """Read how new the shipments in a ticket's timeline are, as 2.5 does."""
    case = clients.support.read_case(ticket_id)
    times = [
        format_time(entry.at) for entry in case.timeline if entry.type == "shipment" and entry.at
    ]
    return {"newest_at": max(times, default="")}


def _to_text(at: datetime | None) -> str:
    """Return a time as text, or ""; such texts sort by time."""
    return format_time(at) if at else ""


def _need_nothing(_before: State, _now: State) -> str:
    return ""


def _check_restarted(before: State, now: State) -> str:
    """Say why a service does not count as restarted, or return ""."""
    # With WORKER_CONTROL=command, we don't know since when the worker runs.
    if before["since"] and before["since"] == now["since"]:
        return "it is still the same process"
    return ""


def _check_ran(before: State, now: State) -> str:
    """Say why the worker has not run well since the change, or return ""."""
    # Both times are by the worker's clock, so it does no harm if that is wrong.
    if now["last_run_at"] <= before["last_run_at"]:
        return "the worker has not run since the change"
    if now["last_error"]:
        return f"the worker's last error: {now['last_error']}"
    return ""


def _check_refreshed(before: State, now: State) -> str:
    """Say why a timeline does not count as collected again, or return ""."""
    if not now["newest_at"] or now["newest_at"] < before["newest_at"]:
        return "the timeline has no shipment event, or its newest is older than before"
    return ""


class _Action(NamedTuple):
    """An action on a target, whose name replaces ``{target}`` in the texts."""

    done: str
    effect: str  # what we check
    way_back: str
    change: Callable[[Clients, str], object]
    read_state: Callable[[Clients, str], State] = _read_service  # may raise ClientError
    goal: Mapping[str, bool] = {}  # what the state must be afterwards
    is_repeated: bool = False  # act although the state has the goal already
    #: Given the state before and now, says what is missing beside the goal, or "".
    check: Callable[[State, State], str] = _need_nothing
    is_repair: bool = True  # you may ask 6.2 for it

    def has_goal(self, state: State) -> bool:
        return self.goal.items() <= state.items()

    def is_needless(self, state: State | None) -> bool:
        """Tell whether there is nothing to do; False if the state is not known."""
        return state is not None and not self.is_repeated and self.has_goal(state)


SERVICE_ACTIONS: Mapping[str, _Action] = {
    "restart": _Action(
        done="restarted {target}",
        effect="{target} runs as a new process",
        way_back="there is none: a restart cannot be undone",
        change=lambda clients, name: clients.find_switch(name).change(name, "restart"),
        goal={"well": True},
        is_repeated=True,
        check=_check_restarted,
    ),
    "start": _Action(
        done="started {target}",
        effect="{target} runs",
        way_back="stop {target}",
        change=lambda clients, name: clients.find_switch(name).change(name, "start"),
        goal={"well": True},
    ),
    "unpause": _Action(
        done="unpaused the DAG {target}",
        effect="DAG {target} is not paused",
        way_back="pause DAG {target} again; labels that were released stay released",
        change=lambda clients, _: clients.pipeline.set_paused(False),
        read_state=_read_dag,
        goal={"is_paused": False},
    ),
    "retrigger": _Action(
        done="re-triggered the worker {target}",
        effect="the worker ran after the re-trigger, without an error",
        way_back="there is none: what the worker moves stays moved",
        change=lambda clients, _: clients.fulfillment.trigger_worker(),
        read_state=_read_worker,
        goal={"paused": False},
        is_repeated=True,
        check=_check_ran,
        is_repair=False,
    ),
    "resume": _Action(
        done="resumed the worker {target}",
        effect="the worker is not paused, and ran after the resume, without an error",
        way_back="pause the worker again; labels that it moved stay moved",
        change=lambda clients, _: clients.fulfillment.resume_worker(),
        read_state=_read_worker,
        goal={"paused": False},
        check=_check_ran,
    ),
    "refresh": _Action(
        done="refreshed the ticket's timeline",
        effect="the timeline of {target} was collected again",
        way_back="there is none, and none is needed: a cache was dropped",
        change=lambda clients, ticket: clients.support.refresh_timeline(ticket),
        read_state=_read_timeline,
        is_repeated=True,
        check=_check_refreshed,
        is_repair=False,
    ),
}


def plan_service(
    inv: Investigation,
    *,
    step: str,
    action: str,
    target: str,
    reason: str,
) -> Plan:
    """Read a service and plan to change it. Changes only the incident folder.

    ``action`` is one of ``SERVICE_ACTIONS``, or ``none`` for an empty plan; ``target`` is the name
    of a service or DAG, or a ticket's id. Raises a ``ClientError`` if the target can't be read.
    """
    if action == "none":
        return make_empty_plan(step=step, target=target, reason=reason)
    chosen = SERVICE_ACTIONS[action]
    state: State | None = None
    if action == "retrigger":
        # Another plan may first have to bring the worker back.
        state, _ = attempt(lambda: chosen.read_state(inv.clients, target))
    else:
        state = chosen.read_state(inv.clients, target)
    effect = gettext(chosen.effect).format(target=target)
    if chosen.is_needless(state):
        return make_empty_plan(step=step, target=target, reason=effect)
    hide = inv.incident.redactor.json
    return write_plan(
        inv.incident.folder / "plans",
        SERVICE,
        f"svc-{action}",
        now=inv.now(),
        step=step,
        action=action,
        target=target,
        way_back=hide(gettext(chosen.way_back).format(target=target)),
        summary=hide({"reason": reason, "state": state, "check": effect}),
    )


def _read_state(inv: Investigation, plan: Plan) -> State:
    """Read the target's state; refuse a needless plan, or a re-trigger of a paused worker."""
    action = SERVICE_ACTIONS[plan.action]
    read = action.read_state
    if plan.action != "retrigger":
        current = read(inv.clients, plan.target)
        if action.is_needless(current):
            raise SafetyError(f"{plan.summary['check']} already: nothing was done. Plan again.")
        return current
    state, why = attempt(lambda: read(inv.clients, plan.target))
    if state is None or state["paused"]:
        text = f"{plan.target} is {f'stopped ({why})' if why else 'paused'}; nothing was done"
        raise SafetyError(f"{text}: approve 6.2 first, which brings it back, then this plan")
    return state


def _apply(inv: Investigation, plan: Plan) -> Effect:
    """Make the planned change. If it fails, ``_verify`` reads its effect."""
    SERVICE_ACTIONS[plan.action].change(inv.clients, plan.target)
    return Effect("", {"before": read_before(plan)})


def _verify(inv: Investigation, plan: Plan) -> Effect:
    """Read the target until the plan's effect is there, or time is up."""
    action = SERVICE_ACTIONS[plan.action]
    before = read_before(plan)
    began_at = inv.now()
    while True:
        # A service that restarts cannot be read for a moment; then the error is what is missing.
        state, missing = attempt(lambda: action.read_state(inv.clients, plan.target))
        if state is not None:
            shown = [f"{name} {value}" for name, value in state.items() if value != ""]
            missing = f"not yet as wanted: {', '.join(shown)}"
            if action.has_goal(state):
                missing = action.check(before, state)
        waited_s = (inv.now() - began_at).total_seconds()
        if not missing or waited_s >= _WAIT_S:
            break
        inv.sleep(_APART_S)
    result: dict[str, Json] = {"ok": not missing, "state": state, "waited_s": round(waited_s)}
    return Effect(missing or str(plan.summary["check"]), result, is_ok=not missing)


SERVICE = PlanKind("runbook/service-plan/1", _apply, _verify, _read_state)
