"""Change services, not objects: restart, start, stop, unpause, re-trigger, resume, refresh.

Each action has four functions: ``read_state``, ``plan_service``, ``change`` and ``check``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

from runbook_lib.approvals import Effect, Plan, PlanKind, make_empty_plan, read_mark, write_plan
from runbook_lib.errors import SafetyError
from runbook_lib.language import gettext
from runbook_lib.model import Json, format_time
from runbook_lib.section import attempt

from ..clients import Clients
from ..clients.services import read_service
from ..investigation import Investigation

#: How long ``_verify`` waits for the effect, and the time between two looks.
_WAIT_S = 30.0
_APART_S = 0.5
#: What an action looks at before and after: the state of its target, by field.
State = dict[str, Json]


def _read_service(clients: Clients, name: str) -> State:
    """Read the state of a service. It is well if it runs and no health check says otherwise."""
    service = read_service(clients.find_switch(name), name)
    return {
        "running": service.running,
        "well": service.running and service.health in ("", "healthy"),
        "state": service.state,
        "health": service.health,
        "since": _to_text(service.since),
    }


def _read_dag(clients: Clients, _: str) -> State:
    """Read whether the DAG is paused."""
    return {"is_paused": clients.pipeline.read_dag().is_paused}


def _read_worker(clients: Clients, _: str) -> State:
    """Read what the worker says of itself. Times are text, as the worker's clock has them."""
    worker = clients.fulfillment.read_worker()
    return {
        "paused": worker.paused,
        "last_run_at": _to_text(worker.last_run_at),
        "last_move_at": _to_text(worker.last_move_at) or None,
        "last_error": worker.last_error,
    }


def _read_timeline(clients: Clients, ticket_id: str) -> State:
    """Read how new a ticket's timeline is: by shipments, as 2.5 judges it."""
    case = clients.support.read_case(ticket_id)
    times = [
        format_time(entry.at) for entry in case.timeline if entry.type == "shipment" and entry.at
    ]
    return {"newest_at": max(times, default="")}


def _to_text(at: datetime | None) -> str:
    """Return a time in the text form of the journal; such texts sort by time. Empty: no time."""
    return format_time(at) if at else ""


def _find_nothing(_before: State, _now: State) -> str:
    return ""


def _check_restarted(before: State, now: State) -> str:
    """Say why a service does not count as restarted; empty: it runs as a new process."""
    # With WORKER_CONTROL=command, nothing shows since when the worker runs.
    if before["since"] and before["since"] == now["since"]:
        return "it is still the same process"
    return ""


def _check_ran(before: State, now: State) -> str:
    """Say why the worker has not run well since the change; empty: it ran, without an error."""
    # Both times are by the worker's clock, so a wrong clock does no harm.
    if now["last_run_at"] <= before["last_run_at"]:
        return "the worker has not run since the change"
    if now["last_error"]:
        return f"the worker's last error: {now['last_error']}"
    return ""


def _check_refreshed(before: State, now: State) -> str:
    """Say why a timeline does not count as collected again; empty: it counts."""
    if not now["newest_at"] or now["newest_at"] < before["newest_at"]:
        return "the timeline has no shipment event, or its newest is older than before"
    return ""


class _Action(NamedTuple):
    """One action on a target.

    Attributes
    ----------
    done, effect, way_back : what was done, what the check looks for, and how to take the change
        back, in words; ``{target}`` is filled in
    change : carries the change out
    read_state : reads the state of the target; raises ``ClientError``
    goal : what the state must be afterwards, by field
    is_repeated : whether the action is carried out although the state has the goal already
    check : given the state before and now, says what is missing beside the goal; empty: nothing
    is_repair : whether 6.2 may be asked for it
    """

    done: str
    effect: str
    way_back: str
    change: Callable[[Clients, str], object]
    read_state: Callable[[Clients, str], State] = _read_service
    goal: Mapping[str, bool] = {}
    is_repeated: bool = False
    check: Callable[[State, State], str] = _find_nothing
    is_repair: bool = True

    def has_goal(self, state: State) -> bool:
        """Tell whether the state has the goal."""
        return self.goal.items() <= state.items()

    def is_needless(self, state: State) -> bool:
        """Tell whether there is nothing to do, as the state is."""
        return bool(state) and not self.is_repeated and self.has_goal(state)


SERVICE_ACTIONS: Mapping[str, _Action] = {
    "restart": _Action(
        done="restarted {target}",
        effect="{target} runs as a new process",
        way_back="there is none: a restart cannot be taken back",
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
    "stop": _Action(
        done="stopped {target}",
        effect="{target} does not run",
        way_back="start {target}",
        change=lambda clients, name: clients.find_switch(name).change(name, "stop"),
        goal={"running": False},
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
    needs_repair: bool = False,
) -> Plan:
    """Look at a service and plan to change it. Changes nothing but the incident folder.

    Parameters
    ----------
    action : one of ``SERVICE_ACTIONS``
    target : name of the service, of the DAG or of the ticket
    reason : why, in words
    needs_repair : another plan must bring the target back first; the target's state is then read
        only when the plan is applied

    Raises
    ------
    ClientError
        When there is no such target, or its state is needed now and cannot be read.
    """
    chosen = SERVICE_ACTIONS[action]
    state: State = {}
    if not needs_repair:
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
    """Read the state of a plan's target; refuse a re-trigger of a worker that is away."""
    read = SERVICE_ACTIONS[plan.action].read_state
    if plan.action != "retrigger":
        return read(inv.clients, plan.target)
    state, why = attempt(lambda: read(inv.clients, plan.target))
    if state is None or state["paused"]:
        text = f"{plan.target} is {f'stopped ({why})' if why else 'paused'}; nothing was done"
        raise SafetyError(f"{text}: approve 6.2 first, which brings it back, then this plan")
    return state


def _apply(inv: Investigation, plan: Plan) -> Effect:
    """Make the planned change, unless the state is as wanted already.

    If the client fails, ``_verify`` finds out whether the change was made.
    """
    action = SERVICE_ACTIONS[plan.action]
    before = read_mark(plan)
    if not action.is_needless(before):
        action.change(inv.clients, plan.target)
    return Effect("", {"before": before})


def _verify(inv: Investigation, plan: Plan) -> Effect:
    """Look again and again until the plan's effect is there, or time is up."""
    action = SERVICE_ACTIONS[plan.action]
    before = read_mark(plan)
    began_at = inv.now()
    while True:
        # A service that restarts cannot be read for a moment: then the error says what is missing.
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
