"""The release of waiting labels.

``runbook_lib.moving`` carries plans of ``objectmove`` through the gate. This module adds which
labels move, how the worker is held, the state of an order, and the words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from objectmove.bucket import S3Bucket, Seen
from objectmove.carry import Holder
from objectmove.errors import LimitError
from objectmove.plan import Plan as MovePlan
from objectmove.plan import PlanRow, Timing
from objectmove.planning import Judgement
from runbook_lib.approvals import Plan
from runbook_lib.errors import ClientError, SafetyError, UsageError
from runbook_lib.http import read_minutes
from runbook_lib.moving import MoveGate, MoveParameters

from ..clients import Clients
from ..investigation import Investigation
from ..settings import is_nested
from ..waiting import (
    NOT_WANTED,
    LabelJudge,
    explain_exclusions,
    read_shipment_evidence,
    recheck_orders,
)
from .other_movers import make_hold

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
    """6.1: leave out labels that have waited less: minutes, or 90s, 10m, 2h"""
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
        """Say how the worker is held, what it does next, and what the approver promises."""
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
    inv: Investigation, *, reason: str, only_orders: frozenset[str] | None
) -> Plan:
    """Plan the release of waiting labels, by the parameters of 6.1 and the settings.

    Raises
    ------
    UsageError
        If the source is READY_PREFIX, whose labels ship: only an undo moves those back.
    SafetyError
        If the store is unhealthy, the change key lacks a right, or LABEL_FINISHED=shipment and
        fulfillment-service does not answer.
    LimitError
        If more labels would move than RELEASE_LIMIT_OBJECTS; says how to split them.
    MoveError
        If the store cannot be read, or lacks what a move needs.

    Notes
    -----
    Changes scratch objects under ``.runbook/probe/``, and the incident folder.
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
    listed = 0
    judge_by_rules = LabelJudge(
        settings,
        inv.clients.fulfillment,
        now=inv.now(),
        only_orders=only_orders,
        older_than_s=parameters.older_than_minutes * 60,
        parks=parameters.park_unwanted,
    )

    def judge(objects: Sequence[Seen]) -> Sequence[Judgement]:
        """Judge by the rules, and show the listing's progress."""
        nonlocal listed
        listed += len(objects)
        inv.progress("listed", listed)
        return judge_by_rules(objects)

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
    missing = {name: why for name, (is_had, why) in rights.items() if is_had is False}
    lacking = [name for name in needed if name in missing]
    if lacking:
        raise SafetyError(
            f"the key for changes (MINIO_CHANGE_USER) lacks {', '.join(lacking)}: "
            f"{missing[lacking[-1]]} "
            "Nothing was moved. For the rights that a key needs, see docs/connect.md, heading 2."
        )
