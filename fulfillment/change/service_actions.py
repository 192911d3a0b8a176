"""Change services, not objects: restart, start, stop, unpause, re-trigger, resume, refresh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple

from runbook_lib.approvals import Effect, Plan, PlanKind, mark_applied, write_plan
from runbook_lib.errors import NotFoundError, RecordError, SafetyError
from runbook_lib.model import Json, format_time, parse_json
from runbook_lib.section import attempt

from ..clients import Clients
from ..clients.services import read_service
from ..investigation import Investigation

#: How long ``verify`` waits for the effect.
_WAIT_S = 30.0
#: The time between two looks of ``verify``.
_APART_S = 0.5
#: The fields of a plan that a person is shown.
_SHOWN = ("action", "target", "reason", "state", "way_back", "check", "made_at")
#: What an action looks at before and after: the state of its target, by field.
State = dict[str, Json]


def _read_service(clients: Clients, name: str) -> State:
    """Read the state of a service."""
    service = read_service(clients.find_switch(name), name)
    return {
        "running": service.running,
        "state": service.state,
        "health": service.health,
        "since": _to_text(service.since),
    }


def _read_dag(clients: Clients, dag_id: str) -> State:
    """Read whether the DAG is paused; ``NotFoundError`` when it is not the DAG of the settings."""
    dag = clients.pipeline.read_dag()
    if dag.id != dag_id:
        text = f"the DAG of the settings is {dag.id!r}, not {dag_id!r}"
        raise NotFoundError(text, system="pipeline")
    return {"is_paused": dag.is_paused}


def _read_worker(clients: Clients, _: str) -> State:
    """Read what the worker says of itself. Times are text, as the worker's clock has them."""
    worker = clients.fulfillment.read_worker()
    return {
        "paused": worker.paused,
        "last_run_at": _to_text(worker.last_run_at),
        "last_move_at": _to_text(worker.last_move_at),
        "last_error": worker.last_error,
    }


def _read_timeline(clients: Clients, ticket_id: str) -> State:
    """Read how long and how new a ticket's timeline is, and how often support's sources failed."""
    case = clients.support.read_case(ticket_id)
    times = [format_time(entry.at) for entry in case.timeline if entry.at]
    failures = clients.support.read_collection_failures()
    return {
        "entries": len(case.timeline),
        "newest_at": max(times, default=None),
        "failures": sum(failures.values()),
    }


def _to_text(at: datetime | None) -> str | None:
    """Return a time in the text form of the journal, or None without a time."""
    return None if at is None else format_time(at)


def _explain_not_running(_: State, now: State) -> str:
    """Say why a service does not count as running; empty: it runs, and no check finds it unwell."""
    if not now["running"]:
        return f"it does not run: {now['state']}"
    if now["health"] not in ("", "healthy"):
        return f"its health is {now['health']}"
    return ""


def _explain_not_stopped(_: State, now: State) -> str:
    """Say that a service still runs; empty: it does not run."""
    if now["running"]:
        return f"it still runs: {now['state']}"
    return ""


def _explain_not_restarted(before: State, now: State) -> str:
    """Say why a service does not count as restarted; empty: it runs as a new process."""
    missing = _explain_not_running(before, now)
    # With WORKER_CONTROL=command, nothing shows since when the worker runs.
    if not missing and before["since"] and before["since"] == now["since"]:
        return "it is still the same process"
    return missing


def _explain_still_paused(_: State, now: State) -> str:
    """Say that the DAG is still paused; empty: it is not paused."""
    if now["is_paused"]:
        return "it is still paused"
    return ""


def _explain_no_run(before: State, now: State) -> str:
    """Say why the worker has not run well since the change; empty: it ran, without an error."""
    if now["paused"]:
        return "the worker is paused"
    # Both times are by the worker's clock, so a wrong clock does no harm. The texts sort by time.
    if (now["last_run_at"] or "") <= (before["last_run_at"] or ""):
        return "the worker has not run since the change"
    if now["last_error"]:
        return f"the worker's last error: {now['last_error']}"
    return ""


def _explain_no_refresh(before: State, now: State) -> str:
    """Say why a timeline does not count as collected anew; empty: it counts."""
    if now["failures"] > before["failures"]:
        return "a source of the timeline failed again: support_timeline_collection_failures_total"
    if not now["newest_at"]:
        return "the timeline is empty"
    if now["newest_at"] < (before["newest_at"] or ""):
        return "its newest entry is older than before"
    return ""


def _do_nothing(_: Clients, _target: str) -> None:
    """Do nothing, for the action ``none``."""


def _explain_nothing(_: State, _now: State) -> str:
    """Say that nothing is missing, for the action ``none``."""
    return ""


def _read_nothing(_: Clients, _target: str) -> State:
    """Read nothing, for the action ``none``."""
    return {}


class _ServiceAction(NamedTuple):
    """How one action is carried out, checked and taken back.

    Attributes
    ----------
    check, way_back : what ``verify`` looks for, and how to take the change back, in words;
        ``{target}`` is filled in
    apply : carries the change out
    find_missing : given the state before and now, says what the change has not brought about; empty
        when its whole effect is there
    read_state : reads the state of the target; raises ``ClientError``
    goal : values that the state has when there is nothing to do. An action with such values can be
        taken back. None: the action is carried out whatever the state is
    """

    check: str
    way_back: str
    apply: Callable[[Clients, str], object]
    find_missing: Callable[[State, State], str]
    read_state: Callable[[Clients, str], State] = _read_service
    goal: Mapping[str, bool] | None = None

    def is_done(self, state: State) -> bool:
        """Tell whether the state has every value of the goal. Without a goal it never has."""
        return self.goal is not None and self.goal.items() <= state.items()


_ACTIONS: Mapping[str, _ServiceAction] = {
    "restart": _ServiceAction(
        check="{target} runs as a new process",
        way_back="there is none: a restart cannot be taken back",
        apply=lambda clients, name: clients.find_switch(name).restart(name),
        find_missing=_explain_not_restarted,
    ),
    "start": _ServiceAction(
        check="{target} runs",
        way_back="stop {target}",
        apply=lambda clients, name: clients.find_switch(name).start(name),
        find_missing=_explain_not_running,
        goal={"running": True},
    ),
    "stop": _ServiceAction(
        check="{target} does not run",
        way_back="start {target}",
        apply=lambda clients, name: clients.find_switch(name).stop(name),
        find_missing=_explain_not_stopped,
        goal={"running": False},
    ),
    "unpause": _ServiceAction(
        check="DAG {target} is not paused",
        way_back="pause DAG {target} again; labels that were released stay released",
        apply=lambda clients, _: clients.pipeline.set_paused(False),
        find_missing=_explain_still_paused,
        read_state=_read_dag,
        goal={"is_paused": False},
    ),
    "retrigger": _ServiceAction(
        check="the worker ran after the re-trigger, without an error",
        way_back="there is none: what the worker moves stays moved",
        apply=lambda clients, _: clients.fulfillment.trigger_worker(),
        find_missing=_explain_no_run,
        read_state=_read_worker,
    ),
    "resume": _ServiceAction(
        check="the worker is not paused, and ran after the resume, without an error",
        way_back="pause the worker again; labels that it moved stay moved",
        apply=lambda clients, _: clients.fulfillment.resume_worker(),
        find_missing=_explain_no_run,
        read_state=_read_worker,
        goal={"paused": False},
    ),
    "refresh": _ServiceAction(
        check="the timeline of {target} was collected anew, and no source failed",
        way_back="there is none, and none is needed: a cache was dropped",
        apply=lambda clients, ticket: clients.support.refresh_timeline(ticket),
        find_missing=_explain_no_refresh,
        read_state=_read_timeline,
    ),
    "none": _ServiceAction(
        check="nothing was to be done",
        way_back="nothing was done",
        apply=_do_nothing,
        find_missing=_explain_nothing,
        read_state=_read_nothing,
        goal={},
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
    """Look at a service and plan to change it.

    Parameters
    ----------
    action : ``restart start stop unpause retrigger resume refresh``, or ``none``: an empty plan
    target : name of the service, of the DAG or of the ticket
    reason : why, in words
    needs_repair : another plan must bring the target back first; the target's state is then read
        only when the plan is applied

    Raises
    ------
    ClientError
        When there is no such target, or its state is needed now and cannot be read.

    Notes
    -----
    Changes nothing but the incident folder.
    """
    service_action = _ACTIONS[action]
    state: State = {}
    if not needs_repair:
        state = service_action.read_state(inv.clients, target)
    hide = inv.incident.redactor.json
    return write_plan(
        inv.incident.folder / "plans",
        SERVICE,
        f"svc-{action}",
        now=inv.now(),
        step=step,
        action=action,
        target=target,
        is_empty=service_action.is_done(state),
        reversible=bool(service_action.goal),  # what has a goal is a switch: it can be set back
        reason=hide(reason),
        state=hide(state),
        made_by=hide(inv.operator),
        way_back=hide(service_action.way_back.format(target=target)),
        check=hide(service_action.check.format(target=target)),
    )


def plan_nothing(inv: Investigation, *, step: str, target: str, reason: str) -> Plan:
    """Plan nothing, and say why."""
    return plan_service(inv, step=step, action="none", target=target, reason=reason)


def _apply(inv: Investigation, plan: Plan) -> Effect:
    """Make the planned change, unless the state is as wanted already.

    If the client fails, ``_verify`` finds out whether the change was made.
    """
    service_action = _ACTIONS[plan.action]
    before = _read_before(inv, plan, service_action)
    result: dict[str, Json] = {
        "action": plan.action,
        "target": plan.target,
        "at": format_time(inv.now()),
        "before": before,
    }
    mark_applied(plan, result)
    if not service_action.is_done(before):
        service_action.apply(inv.clients, plan.target)
    return Effect("", result)


def _read_before(inv: Investigation, plan: Plan, service_action: _ServiceAction) -> State:
    """Read the state before the change.

    A plan that was made with ``needs_repair`` holds no state. It is refused until another plan has
    brought its target back. Such a plan is always a re-trigger, so the state is the worker's.
    """
    if plan.content["state"]:
        return service_action.read_state(inv.clients, plan.target)
    before, why = attempt(lambda: service_action.read_state(inv.clients, plan.target))
    if before is None or before["paused"]:
        away = "paused" if before else f"stopped ({why})"
        text = f"nothing was done, because {plan.target} is {away}"
        raise SafetyError(f"{text}: approve 6.2 first, which brings it back, then this plan")
    return before


def _read_noted(plan: Plan) -> State:
    """Return the state that ``_apply`` noted before the change; ``RecordError`` without it."""
    try:
        before: State = parse_json(plan.trace.read_bytes())["before"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RecordError(f"{plan.trace} is damaged: look again, plan again") from error
    return before


def _verify(inv: Investigation, plan: Plan) -> Effect:
    """Look again and again until the plan's effect is there, or time is up."""
    service_action = _ACTIONS[plan.action]
    before = _read_noted(plan)
    began_at = inv.now()
    while True:
        # A service that restarts cannot be read for a moment: then the error says what is missing.
        state, missing = attempt(lambda: service_action.read_state(inv.clients, plan.target))
        if state is not None:
            missing = service_action.find_missing(before, state)
        waited_s = (inv.now() - began_at).total_seconds()
        if not missing or waited_s >= _WAIT_S:
            break
        inv.sleep(_APART_S)
    reason = missing or plan.content["check"]
    result: dict[str, Json] = {
        "ok": not missing,
        "reason": reason,
        "state": state,
        "waited_s": round(waited_s, 1) or 0,  # no wait is 0, not 0.0
    }
    return Effect(reason, result, is_ok=not missing)


def _summarise(header: Mapping[str, Json]) -> State:
    """Return the fields of a plan that a person is shown."""
    return {name: header[name] for name in _SHOWN}


SERVICE = PlanKind("runbook/service-plan/1", _apply, _verify, summarise=_summarise)
