"""The release of waiting labels.

``runbook_lib.moving`` carries plans of ``objectmove`` through the gate. This module adds which
labels move, how the worker is held, the state of an order, and the words.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import BeforeValidator, Field

from objectmove.bucket import S3Bucket
from objectmove.carry import Holder
from objectmove.errors import LimitError, MoveError, MoversError
from objectmove.plan import Plan as MovePlan
from objectmove.plan import PlanRow, Timing
from runbook_lib import errors
from runbook_lib.approvals import Plan
from runbook_lib.errors import ClientError, SafetyError, UsageError
from runbook_lib.http import read_minutes
from runbook_lib.moving import MoveGate, MoveParameters, WatchedWorker
from runbook_lib.section import attempt

from ..clients import Clients
from ..clients.http_systems import PrometheusClient
from ..clients.services import read_service
from ..investigation import Investigation
from ..settings import Settings, is_nested
from ..waiting import (
    NOT_WANTED,
    LabelJudge,
    explain_exclusions,
    read_shipment_evidence,
    recheck_orders,
)

_PROMISES_OF_UNDO = (
    "you confirm that nothing consumes from the destination meanwhile "
    "(--consumer-stands-still), and if nobody pauses the worker, that it moves nothing"
)
_SPLIT = (
    "Cut the plan into parts under one approval; the limit is then per part:\n"
    "  runbook plan --parts 4\n"
    "Or make smaller plans, and apply each before the next:\n  runbook plan --limit {limit}\n"
    "  runbook plan --older-than 30m --limit {limit}\n"
    "or raise RELEASE_LIMIT_OBJECTS (up to 100000)."
)

#: Marks the selection of a plan that parks.
_PARKS = "park unwanted"

#: The columns of the table of labels in doubt, for the person who settles them.
TO_SETTLE = ("key", "order", "evidence", "why", "taken_does", "not_taken_does")
#: The time between two readings of a worker that should become idle.
_APART_S = 0.2
_TRIES = 150  # together 30 s
#: With WORKER_CONTROL=metric, the worker counts as idle this long after its last move.
_QUIET_S = 60.0
_TWICE = "a pass of the worker between our check and our copy can ship a label twice"
# A stopped service, in the words of supervisor, compose and commands. EXITED is missing, because
# supervisor restarts such a service.
_STOPPED = frozenset({"STOPPED", "FATAL", "exited", "dead", "created", "stopped"})


class WorkerActivity(NamedTuple):
    """Whether the worker is paused and idle, as far as anything tells."""

    paused: bool | None  # or stopped; None while it starts or stops
    moving: bool = False  # in the middle of a pass
    last_move_at: datetime | None = None


@dataclass(slots=True, kw_only=True)
class WorkerHold:
    """Pauses and resumes the worker, and checks whether it is idle.

    ``ask``, ``do_pause`` and ``do_resume`` may raise ``ClientError``.
    """

    name: str  # the worker's, the same on every machine
    words: str  # how the worker is held, for the plan
    ask: Callable[[], WorkerActivity]
    sleep: Callable[[float], None]
    do_pause: Callable[[], object]
    do_resume: Callable[[], object]
    way_back: str  # how a person resumes the worker
    can_pause: bool = True
    #: What the last successful `check` read, since pause or resume.
    _idle: WorkerActivity | None = None

    def read(self) -> WorkerActivity:
        """Return whether the worker is paused and idle; raise ``MoversError`` if unknown."""
        try:
            return self.ask()
        except errors.ClientError as error:
            text = f"the worker's state is not known ({error})"
            raise MoversError(f"{text}. Are WORKER_CONTROL and WORKER_SERVICE right?") from error

    def is_paused(self) -> bool:
        """Tell whether the worker is paused or stopped; raises as ``read``."""
        return self.read().paused is True

    def pause(self) -> None:
        """Pause the worker, or raise ``MoversError``.

        After an error it reads the worker, because the pause may have worked anyway.
        """
        self._idle = None
        _, why = attempt(self.do_pause)
        if why and not self.is_paused():
            raise MoversError(f"the worker was not paused ({why})")

    def check(self) -> None:
        """Make sure that the worker is idle; the first time, wait until its pass has ended.

        The worker is idle between two objects of a pass, too, so two readings in a row must show
        the same last move. Later checks read the worker once, and compare with the previous check.

        Raises ``MoversError`` if the worker is not paused, moved since, or moves longer than 30 s.
        """
        before = self._idle
        self._idle = None
        tries = 1 if before else _TRIES
        for _ in range(tries):
            now = self.read()
            if not now.paused:
                raise MoversError(
                    "the worker is not paused: nobody paused it, or someone resumed it"
                )
            if now == before and not now.moving:
                self._idle = now
                return
            before = now
            self.sleep(_APART_S)
        raise MoversError("the worker still moves, although it is paused. Read its log.")

    def resume(self) -> None:
        """Resume the worker; raise ``MoveError`` unless it then runs, whatever the request said."""
        self._idle = None
        _, why = attempt(self.do_resume)
        now, why_unknown = attempt(self.ask)
        if now is None or now.paused is not False:
            why = why_unknown or why or "it does not run yet"
            raise MoveError(f"the worker may still be paused ({why}). {self.way_back}")


def make_hold(
    settings: Settings, clients: Clients, *, sleep: Callable[[float], None]
) -> WorkerHold | WatchedWorker:
    """Return the hold for ``WORKER_CONTROL``."""
    kind = settings.worker_control
    service = settings.worker_service
    if kind == "none":
        # The approved plan says that nobody holds it.
        return WatchedWorker(words=f"nobody pauses the worker: {_TWICE}", name=service)
    if kind == "metric":
        return WatchedWorker(
            words="nobody pauses the worker: Prometheus is asked at most 2 s before each batch "
            f"whether the worker's last move was at least {_QUIET_S:.0f} s ago. It does not see a "
            f"move since its last scrape, nor a pass that begins meanwhile: {_TWICE}",
            name=service,
            check=lambda: _check_metric(clients.prometheus, settings.worker_last_move_query),
        )
    hold = partial(WorkerHold, name=service, sleep=sleep)
    if kind == "api":
        worker = clients.fulfillment
        address = f"{worker.url}/fulfillment/worker"
        return hold(
            words=f"each run pauses the worker through {address}, and checks it at most 2 s before "
            "each batch",
            ask=lambda: _ask_api(clients, service),
            do_pause=worker.pause_worker,
            do_resume=worker.resume_worker,
            way_back=f"Resume it: POST {address}/resume",
        )
    return hold(
        words=f"each run stops {service} (WORKER_CONTROL={kind}), and checks it at most 2 s before "
        "each batch",
        ask=lambda: _ask_service(clients, service),
        do_pause=lambda: clients.find_switch(service).change(service, "stop"),
        do_resume=lambda: clients.find_switch(service).change(service, "start"),
        way_back=f"Start {service}.",
    )


def _check_metric(prometheus: PrometheusClient, query: str) -> None:
    """Raise ``MoversError`` unless Prometheus says that the last move was at least 60 s ago."""
    name = "WORKER_LAST_MOVE_QUERY"
    result, why = attempt(lambda: prometheus.query(f"time() - (\n{query}\n)"))
    ages_s = [series.samples[-1].value for series in result or () if series.samples]
    if not ages_s or not all(math.isfinite(age_s) for age_s in ages_s):
        raise MoversError(f"Prometheus returns no number for {name}. {why}".rstrip())
    age_s = min(ages_s)
    if age_s < _QUIET_S:
        text = f"the worker moved {age_s:.0f} s ago, as {name} says, and a metric cannot stop it"
        raise MoversError(f"{text}: stop the worker, and wait {_QUIET_S:.0f} s")


def _ask_api(clients: Clients, name: str) -> WorkerActivity:
    """Ask the worker's API. If it refuses the connection, a stopped service counts as paused."""
    try:
        worker = clients.fulfillment.read_worker()
    except errors.ConnectionRefusedClientError:
        now = _ask_service(clients, name)
        if now.paused:
            return now
        raise
    return WorkerActivity(worker.paused, moving=worker.moving, last_move_at=worker.last_move_at)


def _ask_service(clients: Clients, name: str) -> WorkerActivity:
    """Read the service's state; stopped counts as paused."""
    service = read_service(clients.find_switch(name), name)
    if service.running:
        return WorkerActivity(paused=False)
    return WorkerActivity(paused=True if service.state in _STOPPED else None)


class ReleaseParameters(MoveParameters):
    """The parameters of 6.1: whether to release labels, and which ones."""

    way: Literal["auto", "release", "retrigger", "none"] = "auto"
    """6.1: auto does what section 5 advises"""
    prefix: str = ""
    """6.1: release from here instead of PENDING_PREFIX"""
    to: str = ""
    """6.1: release to here instead of READY_PREFIX"""
    match: str = ""
    """6.1: shell pattern of names, instead of RELEASE_MATCH"""
    older_than_minutes: Annotated[float, BeforeValidator(read_minutes)] = Field(0, ge=0)
    """6.1: leave out labels that have waited less than this: minutes, or 90s, 10m, 2h"""
    limit: int = Field(0, ge=0, le=100_000)
    """6.1: release at most this many labels; 0 for all"""
    only_orders: str = ""
    """6.1: only these orders, comma-separated"""
    park_unwanted: bool = False
    """6.1: park the labels that nobody wants, and release none"""


class ReleaseGate(MoveGate):
    """The gate for releases, which holds the worker, and asks for the state of orders."""

    noun = "file"
    action = "release"
    columns: ClassVar = {"order": "order_id"}

    def get_store(self, clients: Clients) -> S3Bucket:
        return clients.change_bucket

    def get_read_store(self, clients: Clients) -> S3Bucket:
        return clients.bucket

    def make_hold(self, inv: Investigation) -> Holder:
        return make_hold(inv.settings, inv.clients, sleep=inv.sleep)

    def check_ready(self, inv: Investigation, move: MovePlan, action: str) -> None:
        """Refuse unless the store is healthy, our key may move labels, and an apply has room."""
        check_store(inv.clients)
        if action == "apply":
            check_room(inv.clients, move)
            check_move_rights(inv.clients, move.header.source, move.header.to)
        elif action == "undo":
            check_move_rights(inv.clients, move.header.to, move.header.source)

    def admit(self, move: MovePlan, path: Path) -> Plan:
        """Return the plan, whose summary also counts labels by status, if known."""
        plan = super().admit(move, path)
        statuses = Counter(row.facts["status"] for row in move.rows if "status" in row.facts)
        plan.summary["by_status"] = dict(statuses)
        return replace(plan, action="park") if _PARKS in move.header.selection else plan

    def ask(self, inv: Investigation, rows: Sequence[PlanRow]) -> Sequence[str | None]:
        """Read the shipments again right before labels move, because orders get cancelled."""
        return recheck_orders(inv.settings, inv.clients.fulfillment, rows)

    def describe_undo(self, inv: Investigation) -> str:
        """Say how the worker is held, what it does afterwards, and what approvers promise."""
        hold = self.make_hold(inv)
        after = "nobody pauses the worker here, so it may release these labels again"
        if hold.can_pause:
            after = "these labels stay until you resume the worker, which releases them again"
        return f"{hold.words}; {after}; {_PROMISES_OF_UNDO}"

    def read_evidence(self, inv: Investigation, rows: Sequence[PlanRow]) -> list[str]:
        """Say what fulfillment-service knows about each row's order."""
        read = cache(partial(read_shipment_evidence, inv.clients.fulfillment))
        return [read(row.facts.get("order_id", "")) for row in rows]


GATE = ReleaseGate(step="6.1")
MOVE = GATE.kind
#: What each action did, in words.
DONE = {
    "release": "released {objects}",
    "park": "parked {objects} that nobody wants",
    "undo": "moved {objects} back",
    "settle": "settled {objects} by hand",
}


def make_release_plan(
    inv: Investigation,
    *,
    reason: str,
    only_orders: frozenset[str] | None,
) -> Plan:
    """Plan the release of waiting labels, by the parameters of 6.1 and the settings.

    Changes scratch objects under ``.runbook/probe/``, and the incident folder.

    Raises ``UsageError`` if the source is READY_PREFIX, whose labels ship; ``SafetyError`` if the
    store is unhealthy, the change key lacks a right, or with LABEL_FINISHED=shipment if
    fulfillment-service does not answer; ``LimitError`` if more labels than RELEASE_LIMIT_OBJECTS
    would move; and ``MoveError`` if the store cannot be read, or lacks what a move needs.
    """
    parameters: ReleaseParameters = inv.parameters
    settings = inv.settings
    source = parameters.prefix or settings.pending_prefix
    to = parameters.to or settings.ready_prefix
    in_doubt = settings.release_parked_prefix
    if parameters.park_unwanted:
        if settings.label_finished != "shipment":
            raise UsageError("only shipments tell what nobody wants: set LABEL_FINISHED=shipment")
        to = f"{settings.release_parked_prefix}{NOT_WANTED}/"
        in_doubt = f"{settings.release_parked_prefix}in_doubt/"
    if is_nested(source, settings.ready_prefix):
        raise UsageError(f"labels are shipped from {source}: `runbook undo` moves labels back")
    check_store(inv.clients)
    check_move_rights(inv.clients, source, to)
    selection = {"match": parameters.match or settings.release_match}
    if parameters.older_than_minutes:
        selection["older than"] = f"{parameters.older_than_minutes:g} min"
    if only_orders is not None:
        selection["only orders"] = ", ".join(sorted(only_orders))
    if parameters.memory_removed:
        selection["memory removed"] = "rows may be planned whose state was removed from the bucket"
    if parameters.park_unwanted:
        selection[_PARKS] = "what no shipment wants; nothing is released"
    judge = LabelJudge(
        settings,
        inv.clients.fulfillment,
        now=inv.now(),
        only_orders=only_orders,
        older_than_s=parameters.older_than_minutes * 60,
        parks=parameters.park_unwanted,
        progress=inv.progress,
    )
    header = {
        "source": source,
        "to": to,
        # A plan has no field for the reason, so show it before "who else moves".
        "others": f"{reason}; {GATE.make_hold(inv).words}",
        "timing": Timing(
            lease_s=settings.release_lease_s,
            effect_s=settings.release_effect_s,
            spread_s=settings.release_clock_spread_s,
        ),
        "undo_s": settings.release_undo_window_minutes * 60,
        "limit_objects": settings.release_limit_objects,
        "selection": selection,
        "parked": in_doubt,
    }
    try:
        plan = GATE.plan_move(
            inv,
            header=header,
            judge=judge,
            match=selection["match"],
            first=parameters.limit or None,
        )
    except LimitError as error:
        split = _SPLIT.format(limit=settings.release_limit_objects)
        raise LimitError(f"{error}. {split}") from error
    why_they_stay = explain_exclusions(plan.content.header.excluded, settings)
    return replace(plan, summary={**plan.summary, "reason": why_they_stay})


def check_store(clients: Clients) -> None:
    """Raise SafetyError unless the store says that it is healthy."""
    try:
        clients.store.check_live()
    except ClientError as error:
        raise SafetyError(f"the store does not say that it is healthy ({error})") from error


def check_room(clients: Clients, move: MovePlan) -> None:
    """Refuse without room for two copies of the largest object, if the free room is known."""
    free_bytes = clients.store.read_free_bytes()
    largest_bytes = max((row.size_bytes for row in move.rows), default=0)
    if free_bytes is not None and free_bytes < 2 * largest_bytes:
        raise SafetyError(f"{free_bytes} bytes are free: no room for the copies")


def check_move_rights(clients: Clients, source: str, to: str) -> None:
    """Raise SafetyError if the change key may not write under ``to``, or delete under ``source``.

    Without the right to delete, a copied label would also stay at the source, and ship twice. A
    right that can't be tested, such as deleting in a bucket with versions, counts as given.
    """
    rights = clients.store.read_rights(source, write_under=(source, to))
    needed = (f"write {to}", f"delete {source}")
    missing = {name: why for name, (is_given, why) in rights.items() if is_given is False}
    lacking = [name for name in needed if name in missing]
    if lacking:
        raise SafetyError(
            f"the key for changes (MINIO_CHANGE_USER) lacks {', '.join(lacking)}: "
            f"{missing[lacking[-1]]} "
            "Nothing was moved. For the rights that a key needs, see docs/connect.md, heading 2."
        )
