"""Change services, not objects: restart, start, stop, unpause, re-trigger, resume, refresh."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

from runbook_lib.approvals import Effect, Plan, PlanKind, mark_applied, write_plan
from runbook_lib.errors import NotFoundError, SafetyError
from runbook_lib.model import Json, format_time
from runbook_lib.section import attempt

from ..clients import Clients
from ..clients.services import read_service
from ..investigation import Investigation

_WAIT_S, _APART_S = 30.0, 0.5
_SHOWN = ("action", "target", "reason", "state", "way_back", "check", "made_at")
State = dict[str, Json]


def _read_service(clients: Clients, name: str) -> State:
    found = read_service(clients.find_switch(name), name)
    return _pick(found, "running", "state", "health", "since")


def _read_dag(clients: Clients, dag_id: str) -> State:
    dag = clients.pipeline.read_dag()
    if dag.id != dag_id:
        text = f"the DAG of the settings is {dag.id!r}, not {dag_id!r}"
        raise NotFoundError(text, system="pipeline")
    return _pick(dag, "is_paused")


def _read_worker(clients: Clients, _: str) -> State:
    worker = clients.fulfillment.read_worker()
    return _pick(worker, "paused", "last_run_at", "last_move_at", "last_error")


def _read_timeline(clients: Clients, ticket_id: str) -> State:
    case = clients.support.read_case(ticket_id)
    newest_at = max((format_time(entry.at) for entry in case.timeline if entry.at), default=None)
    failures = sum(clients.support.read_collection_failures().values())
    return {"entries": len(case.timeline), "newest_at": newest_at, "failures": failures}


def _pick(found: object, *names: str) -> State:
    """Return some attributes by name, times as text."""
    values = {name: getattr(found, name) for name in names}
    return {n: format_time(v) if isinstance(v, datetime) else v for n, v in values.items()}


def _miss_running(_: Mapping[str, Json], now: Mapping[str, Json]) -> str:
    if not now["running"]:
        return f"it does not run: {now['state']}"
    return f"its health is {now['health']}" if now["health"] not in ("", "healthy") else ""


def _miss_restart(before: Mapping[str, Json], now: Mapping[str, Json]) -> str:
    # where commands stop and start it, no time is told
    is_same = before["since"] and before["since"] == now["since"]
    return _miss_running(before, now) or ("it is still the same process" if is_same else "")


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
    is_older = now["newest_at"] < (before["newest_at"] or "")
    return "its newest entry is older than before" if is_older else ""


class _ServiceAction(NamedTuple):
    """One kind of change.

    Attributes
    ----------
    check, way_back : in words; ``{target}`` is filled in
    apply : does it
    find_missing : given the state before and now, says what of the effect is not there; empty: all
        is
    read_state : returns what the change is about; raises ``ClientError``
    goal : what the state holds when there is nothing to do, and the way back restores what was;
        None: it is done whatever the state is
    """

    check: str
    way_back: str
    apply: Callable[[Clients, str], object] = lambda *_: None
    find_missing: Callable[[State, State], str] = lambda *_: ""
    read_state: Callable[[Clients, str], State] = _read_service
    goal: Mapping[str, bool] | None = None

    def is_done(self, state: State) -> bool:
        """Whether the state is the wanted one already."""
        return self.goal is not None and self.goal.items() <= state.items()


_ACTIONS: Mapping[str, _ServiceAction] = {
    "restart": _ServiceAction(
        check="{target} runs as a new process",
        way_back="there is none: a restart cannot be taken back",
        apply=lambda clients, name: clients.find_switch(name).restart(name),
        find_missing=_miss_restart,
    ),
    "start": _ServiceAction(
        check="{target} runs",
        way_back="stop {target}",
        apply=lambda clients, name: clients.find_switch(name).start(name),
        find_missing=_miss_running,
        goal={"running": True},
    ),
    "stop": _ServiceAction(
        check="{target} does not run",
        way_back="start {target}",
        apply=lambda clients, name: clients.find_switch(name).stop(name),
        find_missing=lambda _, now: f"it still runs: {now['state']}" if now["running"] else "",
        goal={"running": False},
    ),
    "unpause": _ServiceAction(
        check="DAG {target} is not paused",
        way_back="pause DAG {target} again; labels that were released stay released",
        apply=lambda clients, _: clients.pipeline.set_paused(False),
        find_missing=lambda _, now: "it is still paused" if now["is_paused"] else "",
        read_state=_read_dag,
        goal={"is_paused": False},
    ),
    "retrigger": _ServiceAction(
        check="the worker ran after it, without an error",
        way_back="there is none: what the worker moves stays moved",
        apply=lambda clients, _: clients.fulfillment.trigger_worker(),
        find_missing=_miss_run,
        read_state=_read_worker,
    ),
    "resume": _ServiceAction(
        check="the worker is not paused and ran after it, without an error",
        way_back="pause the worker again; labels that it moved stay moved",
        apply=lambda clients, _: clients.fulfillment.resume_worker(),
        find_missing=_miss_run,
        read_state=_read_worker,
        goal={"paused": False},
    ),
    "refresh": _ServiceAction(
        check="the timeline of {target} was collected anew, and no source failed",
        way_back="there is none, and none is needed: a cache was dropped",
        apply=lambda clients, ticket: clients.support.refresh_timeline(ticket),
        find_missing=_miss_refresh,
        read_state=_read_timeline,
    ),
    "none": _ServiceAction(
        check="nothing was to be done",
        way_back="nothing was done",
        read_state=lambda *_: {},
        goal={},
    ),
}


def plan_service(
    inv: Investigation, *, step: str, action: str, target: str, reason: str, is_away: bool = False
) -> Plan:
    """Look at a service and plan to change it.

    Parameters
    ----------
    action : ``restart start stop unpause retrigger resume refresh``, or ``none``: an empty plan
    target : name of the service, of the DAG or of the ticket
    reason : why, in words
    is_away : until another plan brings the target back: its state is read then

    Raises
    ------
    ClientError
        When the target's state cannot be read now and need be, or there is no such target.

    Notes
    -----
    Changes nothing but the incident folder.
    """
    effect = _ACTIONS[action]
    state = {} if is_away else effect.read_state(inv.clients, target)
    facts: dict[str, Json] = {
        "reason": reason,
        "state": state,
        "made_by": inv.operator,
        "reversible": bool(effect.goal),
        "way_back": effect.way_back.format(target=target),
        "check": effect.check.format(target=target),
    }
    about = {"step": step, "action": action, "target": target, "is_empty": effect.is_done(state)}
    about |= inv.incident.redactor.json(facts)
    folder = inv.incident.folder / "plans"
    return write_plan(folder, SERVICE, f"svc-{action}", now=inv.now(), **about)


def plan_nothing(inv: Investigation, *, step: str, target: str, reason: str) -> Plan:
    """Plan nothing, and say why."""
    return plan_service(inv, step=step, action="none", target=target, reason=reason)


def _apply(inv: Investigation, plan: Plan) -> Effect:
    """Carry it out. Whether it was done when the client fails is for ``_verify`` to say."""
    effect = _ACTIONS[plan.action]
    before = _read_before(inv, plan, effect)
    about: dict[str, Json] = {"action": plan.action, "target": plan.target}
    result = {**about, "at": format_time(inv.now()), "before": before}
    mark_applied(plan, result)
    if not effect.is_done(before):
        effect.apply(inv.clients, plan.target)
    return Effect("", result)


def _read_before(inv: Investigation, plan: Plan, effect: _ServiceAction) -> State:
    """Read the state; what another plan was to bring back first is refused while it is away."""
    if plan.content["state"]:
        return effect.read_state(inv.clients, plan.target)
    before, why = attempt(lambda: effect.read_state(inv.clients, plan.target))
    if before is None or before["paused"]:
        away = "paused" if before else f"stopped ({why})"
        text = f"nothing was done, because {plan.target} is {away}"
        raise SafetyError(f"{text}: approve 6.2 first, which brings it back, then this plan")
    return before


def _verify(inv: Investigation, plan: Plan) -> Effect:
    """Look until the plan's effect is there, or the time is over."""
    effect = _ACTIONS[plan.action]
    before = json.loads(plan.trace.read_text("utf-8"))["before"]
    began = time.monotonic()
    while True:
        state, missing = attempt(lambda: effect.read_state(inv.clients, plan.target))
        if state is not None:  # a service that restarts is away for a moment
            missing = effect.find_missing(before, state)
        waited_s = round(time.monotonic() - began, 1)
        if not missing or waited_s >= _WAIT_S:
            break
        time.sleep(_APART_S)
    reason = missing or plan.content["check"]
    result = {"ok": not missing, "reason": reason, "state": state, "waited_s": waited_s or 0}
    return Effect(reason, result, is_ok=not missing)


def _summarise(header: Mapping[str, Json]) -> State:
    return {name: header[name] for name in _SHOWN}


SERVICE = PlanKind("runbook/service-plan/1", _apply, _verify, summarise=_summarise)
