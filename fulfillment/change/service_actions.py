"""Change services, not objects: restart, start, stop, unpause, re-trigger, resume, refresh."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runbook_lib.approvals import Effect, Plan, PlanKind, mark_applied, write_plan
from runbook_lib.errors import ClientError, NotFoundError, UsageError
from runbook_lib.model import Json, format_time

from ..clients import Clients

if TYPE_CHECKING:
    from ..investigation import Investigation

_WAIT_S = 30.0
_SHOWN = ("action", "target", "reason", "state", "way_back", "check", "made_at")
State = dict[str, Json]


@dataclass(frozen=True, slots=True)
class _ServiceAction:
    """One kind of change.

    Attributes
    ----------
    read_state : returns what the change is about; raises ``ClientError``
    apply : does it
    find_missing : given the state before and now, says what of the effect is not there; empty: all
        is
    is_done : whether the state is already the wanted one, so that there is nothing to do
    check, way_back : in words; ``{target}`` is filled in
    reversible : whether the way back restores what was
    """

    read_state: Callable[[Clients, str], State]
    apply: Callable[[Clients, str], object]
    find_missing: Callable[[State, State], str]
    check: str
    way_back: str
    is_done: Callable[[State], bool] = lambda _: False
    reversible: bool = False


def _read_service(clients: Clients, name: str) -> State:
    states = {state.name: state for state in clients.find_switch(name).list_services()}
    if name not in states:
        raise NotFoundError(
            f"there is no service {name!r}; there are {', '.join(states)}", system="services"
        )
    state = states[name]
    return {
        "running": state.running,
        "state": state.state,
        "health": state.health,
        "pid": state.pid,
        "since": format_time(state.since) if state.since else None,
    }


def _read_dag(clients: Clients, dag_id: str) -> State:
    dag = clients.pipeline.read_dag()
    if dag.id != dag_id:
        raise NotFoundError(
            f"the DAG of the settings is {dag.id!r}, not {dag_id!r}", system="pipeline"
        )
    return {"is_paused": dag.is_paused}


def _read_worker(clients: Clients, _: str) -> State:
    worker = clients.fulfillment.read_worker()
    return {
        "paused": worker.paused,
        "last_run_at": format_time(worker.last_run_at) if worker.last_run_at else None,
        "last_move_at": format_time(worker.last_move_at) if worker.last_move_at else None,
        "last_error": worker.last_error,
    }


def _read_timeline(clients: Clients, ticket_id: str) -> State:
    case = clients.support.read_case(ticket_id)
    newest = max((entry.at for entry in case.timeline if entry.at), default=None)
    failures = clients.support.read_collection_failures()
    return {
        "entries": len(case.timeline),
        "newest_at": format_time(newest) if newest else None,
        "failures": sum(failures.values()),
    }


def _miss_running(_: Mapping[str, Json], now: Mapping[str, Json]) -> str:
    if not now["running"]:
        return f"it does not run: {now['state']}"
    return f"its health is {now['health']}" if now["health"] not in ("", "healthy") else ""


def _miss_restart(before: Mapping[str, Json], now: Mapping[str, Json]) -> str:
    told = ("pid", "since")  # neither, where commands stop and start it
    same = any(before[n] for n in told) and all(before[n] == now[n] for n in told)
    return _miss_running(before, now) or ("it is still the same process" if same else "")


def _miss_run(before: Mapping[str, Json], now: Mapping[str, Json]) -> str:
    if now["paused"]:
        return "the worker is paused"
    # Both times are the worker's own, so its clock does not matter; the format sorts as text.
    if (now["last_run_at"] or "") <= (before["last_run_at"] or ""):
        return "the worker has not run since"
    return f"the worker's last error: {now['last_error']}" if now["last_error"] else ""


def _miss_refresh(before: Mapping[str, Json], now: Mapping[str, Json]) -> str:
    if now["failures"] > before["failures"]:
        return "a source of the timeline failed again: support_timeline_collection_failures_total"
    if not now["newest_at"]:
        return "the timeline is empty"
    return "its newest entry is older than before" if _is_older(now, before) else ""


def _is_older(now: Mapping[str, Json], before: Mapping[str, Json]) -> bool:
    return bool(now["newest_at"] < (before["newest_at"] or ""))


_ACTIONS: Mapping[str, _ServiceAction] = {
    "restart": _ServiceAction(
        read_state=_read_service,
        apply=lambda clients, name: clients.find_switch(name).restart(name),
        find_missing=_miss_restart,
        check="{target} runs as a new process",
        way_back="there is none: a restart cannot be taken back",
    ),
    "start": _ServiceAction(
        read_state=_read_service,
        apply=lambda clients, name: clients.find_switch(name).start(name),
        find_missing=_miss_running,
        is_done=lambda state: bool(state["running"]),
        check="{target} runs",
        way_back="stop {target}",
        reversible=True,
    ),
    "stop": _ServiceAction(
        read_state=_read_service,
        apply=lambda clients, name: clients.find_switch(name).stop(name),
        find_missing=lambda _, now: f"it still runs: {now['state']}" if now["running"] else "",
        is_done=lambda state: not state["running"],
        check="{target} does not run",
        way_back="start {target}",
        reversible=True,
    ),
    "unpause": _ServiceAction(
        read_state=_read_dag,
        apply=lambda clients, _: clients.pipeline.set_paused(False),
        find_missing=lambda _, now: "it is still paused" if now["is_paused"] else "",
        is_done=lambda state: not state["is_paused"],
        check="DAG {target} is not paused",
        way_back="pause DAG {target} again; labels that were released stay released",
        reversible=True,
    ),
    "retrigger": _ServiceAction(
        read_state=_read_worker,
        apply=lambda clients, _: clients.fulfillment.trigger_worker(),
        find_missing=_miss_run,
        check="the worker ran after it, without an error",
        way_back="there is none: what the worker moves stays moved",
    ),
    "resume": _ServiceAction(
        read_state=_read_worker,
        apply=lambda clients, _: clients.fulfillment.resume_worker(),
        find_missing=_miss_run,
        is_done=lambda state: not state["paused"],
        check="the worker is not paused and ran after it, without an error",
        way_back="pause the worker again; labels that it moved stay moved",
        reversible=True,
    ),
    "refresh": _ServiceAction(
        read_state=_read_timeline,
        apply=lambda clients, ticket: clients.support.refresh_timeline(ticket),
        find_missing=_miss_refresh,
        check="the timeline of {target} was collected anew, and no source failed",
        way_back="there is none, and none is needed: a cache was dropped",
    ),
    "none": _ServiceAction(
        read_state=lambda _clients, _target: {},
        apply=lambda _clients, _target: None,
        find_missing=lambda _before, _now: "",
        is_done=lambda _: True,
        check="nothing was to be done",
        way_back="nothing was done",
    ),
}


def plan_service(
    inv: Investigation,
    *,
    step: str,
    action: str,
    target: str,
    reason: str,
    comes_back: bool = False,
) -> Plan:
    """Look at a service and plan to change it.

    Parameters
    ----------
    action : ``restart start stop unpause retrigger resume refresh``, or ``none``: an empty plan
    target : name of the service, of the DAG or of the ticket
    reason : why, in words
    comes_back : whether another plan brings the target back first: its state is read then

    Raises
    ------
    UsageError
        When there is no such action.
    ClientError
        When the target's state cannot be read now and need be, or there is no such target.

    Notes
    -----
    Changes nothing but the incident folder.
    """
    effect = _find_action(action)
    state = {} if comes_back else effect.read_state(inv.clients, target)
    facts = inv.incident.redactor.json(
        {
            "kind": "header",
            "reason": reason,
            "state": state,
            "made_by": inv.operator,
            "reversible": effect.reversible,
            "way_back": effect.way_back.format(target=target),
            "check": effect.check.format(target=target),
        }
    )
    return write_plan(
        inv.incident.folder / "plans",
        SERVICE,
        f"svc-{action}",
        step=step,
        action=action,
        target=target,
        is_empty=effect.is_done(state),
        now=inv.now(),
        **facts,
    )


def plan_nothing(inv: Investigation, *, step: str, target: str, reason: str) -> Plan:
    """Plan nothing, and say why."""
    return plan_service(inv, step=step, action="none", target=target, reason=reason)


def _apply(inv: Investigation, plan: Plan) -> Effect:
    """Carry it out. Whether it was done when the client fails is for ``_verify`` to say."""
    effect = _find_action(plan.action)
    before = effect.read_state(inv.clients, plan.target)
    result: dict[str, Json] = {
        "action": plan.action,
        "target": plan.target,
        "at": format_time(inv.now()),
        "before": before,
    }
    mark_applied(plan, result)
    if not effect.is_done(before):
        effect.apply(inv.clients, plan.target)
    return Effect("", result)


def _verify(inv: Investigation, plan: Plan) -> Effect:
    """Look until the plan's effect is there, or the time is over."""
    from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

    effect = _find_action(plan.action)
    before = json.loads(plan.trace.read_text("utf-8"))["before"]

    def look() -> tuple[str, State | None]:
        try:
            state = effect.read_state(inv.clients, plan.target)
        except ClientError as error:
            return str(error), None  # a service that restarts is away for a moment
        return effect.find_missing(before, state), state

    polling = Retrying(
        stop=stop_after_delay(_WAIT_S),
        wait=wait_exponential(multiplier=0.1, max=1.0),
        retry=retry_if_result(lambda seen: bool(seen[0])),
        retry_error_callback=lambda last: last.outcome.result() if last.outcome else ("", None),
    )
    missing, state = polling(look)
    reason = missing or plan.content["check"]
    waited_s = round(polling.statistics.get("delay_since_first_attempt", 0.0), 1)
    result = {"ok": not missing, "reason": reason, "state": state, "waited_s": waited_s}
    return Effect(reason, result, is_ok=not missing)


def _find_action(action: str) -> _ServiceAction:
    if action not in _ACTIONS:
        raise UsageError(f"there is no action {action!r}; there are {', '.join(_ACTIONS)}")
    return _ACTIONS[action]


SERVICE = PlanKind(
    "runbook/service-plan/1",
    _apply,
    _verify,
    summarise=lambda header: {name: header[name] for name in _SHOWN},
    trailer=({"kind": "trailer", "actions": 1},),
)
