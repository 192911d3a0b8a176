"""What each action on a service reads, does, and looks for afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..clients import Clients
from ..errors import NotFoundError
from ..model import Json, format_time

__all__ = ["EFFECTS", "ServiceAction"]

State = dict[str, Json]


@dataclass(frozen=True, slots=True)
class ServiceAction:
    """One kind of change.

    Attributes
    ----------
    read_state : returns what the change is about; raises ``ClientError``
    apply : does it
    find_missing : given the state before and now, says what of the effect is not there; empty: all
        is
    is_done : whether the state is already the wanted one, so that there is nothing to do
    check, way_back : in words; ``{target}`` is filled in
    """

    read_state: Callable[[Clients, str], State]
    apply: Callable[[Clients, str], object]
    find_missing: Callable[[State, State], str]
    check: str
    way_back: str
    is_done: Callable[[State], bool] = lambda _: False
    reversible: bool = False


def _read_service(clients: Clients, name: str) -> State:
    states = {state.name: state for state in clients.services.list_services()}
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
    same = (before["pid"], before["since"]) == (now["pid"], now["since"])
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


EFFECTS: Mapping[str, ServiceAction] = {
    "restart": ServiceAction(
        read_state=_read_service,
        apply=lambda clients, name: clients.services.restart(name),
        find_missing=_miss_restart,
        check="{target} runs as a new process",
        way_back="there is none: a restart cannot be taken back",
    ),
    "start": ServiceAction(
        read_state=_read_service,
        apply=lambda clients, name: clients.services.start(name),
        find_missing=_miss_running,
        is_done=lambda state: bool(state["running"]),
        check="{target} runs",
        way_back="stop {target}",
        reversible=True,
    ),
    "unpause": ServiceAction(
        read_state=_read_dag,
        apply=lambda clients, _: clients.pipeline.set_paused(False),
        find_missing=lambda _, now: "it is still paused" if now["is_paused"] else "",
        is_done=lambda state: not state["is_paused"],
        check="DAG {target} is not paused",
        way_back="pause DAG {target} again; labels that were released stay released",
        reversible=True,
    ),
    "retrigger": ServiceAction(
        read_state=_read_worker,
        apply=lambda clients, _: clients.fulfillment.trigger_worker(),
        find_missing=_miss_run,
        check="the worker ran after it, without an error",
        way_back="there is none: what the worker moves stays moved",
    ),
    "resume": ServiceAction(
        read_state=_read_worker,
        apply=lambda clients, _: clients.fulfillment.resume_worker(),
        find_missing=_miss_run,
        is_done=lambda state: not state["paused"],
        check="the worker is not paused and ran after it, without an error",
        way_back="pause the worker again; labels that it moved stay moved",
        reversible=True,
    ),
    "refresh": ServiceAction(
        read_state=_read_timeline,
        apply=lambda clients, ticket: clients.support.refresh_timeline(ticket),
        find_missing=_miss_refresh,
        check="the timeline of {target} was collected anew, and no source failed",
        way_back="there is none, and none is needed: a cache was dropped",
    ),
    "none": ServiceAction(
        read_state=lambda _clients, _target: {},
        apply=lambda _clients, _target: None,
        find_missing=lambda _before, _now: "",
        is_done=lambda _: True,
        check="nothing was to be done",
        way_back="nothing was done",
    ),
}
