"""The release of waiting labels: what this runbook adds to a move of objects.

``runbook_lib.moving`` carries plans of ``objectmove`` through the gate. This module adds what only
this runbook knows: which labels move, how the worker is held, the state of an order, and the words.
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
from objectmove.errors import LimitError
from objectmove.plan import Plan as MovePlan
from objectmove.plan import PlanRow, Timing
from objectmove.planning import Judgement
from runbook_lib.approvals import Plan
from runbook_lib.errors import ClientError, SafetyError, StoreNotReadyError, UsageError
from runbook_lib.http import read_minutes
from runbook_lib.moving import MoveGate, MoveParameters
from runbook_lib.section import get_parameters

from ..clients import Clients
from ..investigation import Investigation
from ..settings import is_nested
from ..waiting import NOT_WANTED, LabelJudge, ask_again, explain_left, read_shipment_evidence
from .other_movers import WorkerHold, make_hold

_PROMISES_OF_UNDO = (
    "you confirm that nothing consumes from the destination meanwhile "
    "(--consumer-stands-still), and if nobody holds the worker, that it moves nothing"
)
_SPLIT = (
    "Cut the plan into parts under one approval; the limit is then per part:\n"
    "  runbook plan --parts 4\n"
    "Or make smaller plans, and apply each before the next:\n  runbook plan --limit {limit}\n"
    "  runbook plan --older-than 30m --limit {limit}\n"
    "or raise RELEASE_LIMIT_OBJECTS (up to 100000)."
)

#: Stands in the selection of a plan that parks.
_PARKS = "park unwanted"

#: The columns of the table of labels in doubt, which a person settles.
TO_SETTLE = ("key", "order", "evidence", "why", "taken_does", "not_taken_does")


class ReleaseParameters(MoveParameters):
    """The parameters of 6.1: whether to release labels, and which ones."""

    way: Literal["auto", "release", "retrigger", "none"] = "auto"
    """6.1: auto does what section 5 advises"""
    prefix: str = ""
    """6.1: release from; empty: PENDING_PREFIX"""
    to: str = ""
    """6.1: release to; empty: READY_PREFIX"""
    match: str = ""
    """6.1: shell pattern of names; empty: RELEASE_MATCH"""
    older_than_minutes: Annotated[float, BeforeValidator(read_minutes)] = Field(0, ge=0)
    """6.1: leave out labels that have waited less: minutes, or 90s, 10m, 2h"""
    limit: int = Field(0, ge=0, le=100_000)
    """6.1: release at most this many labels; 0: all"""
    only_orders: str = ""
    """6.1: only these orders, comma-separated"""
    park_unwanted: bool = False
    """6.1: park the labels that nobody wants, and release none"""


class ReleaseGate(MoveGate):
    """The gate for releases: it holds the worker, and knows what became of an order."""

    noun = "file"
    action = "release"
    columns: ClassVar = {"order": "order_id"}

    def get_store(self, clients: Clients) -> S3Bucket:
        """Return the bucket, with the keys that may change it."""
        return clients.change_bucket

    def get_read_store(self, clients: Clients) -> S3Bucket:
        """Return the bucket, with the keys for looking."""
        return clients.bucket

    def make_hold(self, inv: Investigation) -> WorkerHold:
        """Return the hold that ``WORKER_CONTROL`` names."""
        return make_hold(inv.settings, inv.clients, sleep=inv.sleep)

    def check_ready(self, inv: Investigation, move: MovePlan, action: str) -> None:
        """Refuse unless the store is healthy, has room, and lets our keys move the labels."""
        check_store(inv.clients)
        if action == "apply":
            check_room(inv.clients, move)
            check_move_rights(inv.clients, move.header.source, move.header.to)
        elif action == "undo":
            check_move_rights(inv.clients, move.header.to, move.header.source)

    def admit(self, move: MovePlan, path: Path) -> Plan:
        """Return a plan as the gate sees it. Its summary counts the labels by status, if known."""
        plan = super().admit(move, path)
        statuses = Counter(row.facts["status"] for row in move.rows if "status" in row.facts)
        plan.summary["by_status"] = dict(statuses)
        return replace(plan, action="park") if _PARKS in move.header.selection else plan

    def ask(self, inv: Investigation, rows: Sequence[PlanRow]) -> Sequence[str | None]:
        """Ask the shipments once more, right before labels move: an order may be cancelled."""
        return ask_again(inv.settings, inv.clients.fulfillment, rows)

    def describe_undo(self, inv: Investigation) -> str:
        """Say how the worker is held, what it does next, and what whoever approves promises."""
        hold = self.make_hold(inv)
        after = "nobody pauses the worker here, so it may release what comes back at once"
        if hold.can_pause:
            after = "what comes back stays until you resume the worker, which releases it again"
        return f"{hold.words}; {after}; {_PROMISES_OF_UNDO}"

    def read_evidence(self, inv: Investigation, rows: Sequence[PlanRow]) -> list[str]:
        """Return what fulfillment-service knows of each row's order, in words.

        Each order is asked for once.
        """
        read = cache(partial(read_shipment_evidence, inv.clients.fulfillment))
        return [read(row.facts.get("order_id", "")) for row in rows]


GATE = ReleaseGate(step="6.1")
MOVE = GATE.kind
#: What each action did, in words.
DONE = {
    "release": "released {objects}",
    "park": "parked {objects} that nobody wants",
    "undo": "took {objects} back",
    "settle": "settled {objects} by a person's word",
}


def make_release_plan(
    inv: Investigation, *, reason: str, only_orders: frozenset[str] | None
) -> Plan:
    """Plan the release of waiting labels, by the parameters of 6.1 and the settings.

    Parameters
    ----------
    reason : why labels are to be released, in words
    only_orders : only labels of these orders; None: of all

    Raises
    ------
    UsageError
        When labels are shipped from the source (READY_PREFIX): moving those back is an undo.
    StoreNotReadyError
        When the store is unhealthy.
    SafetyError
        When the keys for changes lack a right that the move needs, or fulfillment-service cannot
        say which labels are wanted (LABEL_FINISHED=shipment).
    LimitError
        When more labels would move than RELEASE_LIMIT_OBJECTS allows; the message says how to
        split them.
    MoveError
        When the store cannot be read, or lacks what a move needs.

    Notes
    -----
    Changes scratch objects under ``.runbook/probe/``, and the incident
    folder. Source: the runbook's section 6.1.
    """
    parameters = get_parameters(inv, ReleaseParameters)
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
        raise UsageError(f"labels are shipped from {source}: `runbook undo` takes labels back")
    check_store(inv.clients)
    check_move_rights(inv.clients, source, to)
    selection = {"match": parameters.match or settings.release_match}
    if parameters.older_than_minutes:
        selection["older than"] = f"{parameters.older_than_minutes:g} min"
    if only_orders is not None:
        selection["only orders"] = ", ".join(sorted(only_orders))
    if parameters.memory_removed:
        selection["memory removed"] = "rows may be planned although the bucket forgot their fate"
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
        """Judge by the rules, and show how far the listing is."""
        nonlocal listed
        listed += len(objects)
        inv.progress("listed", listed)
        return judge_by_rules(objects)

    header = {
        "source": source,
        "to": to,
        # A plan shows this as "who else moves"; the reason has no field of its own.
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
    why_they_stay = explain_left(plan.content.header.excluded, settings)
    return replace(plan, summary={**plan.summary, "reason": why_they_stay})


def check_store(clients: Clients) -> None:
    """Refuse unless the store says that it is healthy.

    Raises
    ------
    StoreNotReadyError
        Says what the store answered.
    """
    try:
        clients.store.check_live()
    except ClientError as error:
        raise StoreNotReadyError(f"the store does not say that it is well ({error})") from error


def check_room(clients: Clients, move: MovePlan) -> None:
    """Refuse without room for two copies of the largest object. Unknown room counts as enough."""
    free_bytes = clients.store.read_free_bytes()
    largest_bytes = max((row.size_bytes for row in move.rows), default=0)
    if free_bytes is not None and free_bytes < 2 * largest_bytes:
        raise StoreNotReadyError(f"{free_bytes} bytes are free: no room for the copies")


def check_move_rights(clients: Clients, source: str, to: str) -> None:
    """Refuse when the keys for changes may not write at the destination, or delete at the source.

    Without the right to delete, a copied label would stay at the source, too, and ship twice.

    Raises
    ------
    SafetyError
        Names the missing rights. A right that cannot be tried, such as deleting in a bucket that
        keeps versions, does not count as missing.
    """
    rights = clients.store.read_rights(source, write_under=(source, to))
    needed = (f"write {to}", f"delete {source}")
    missing = {name: why for name, (is_had, why) in rights.items() if is_had is False}
    lacking = [name for name in needed if name in missing]
    if lacking:
        raise SafetyError(
            f"the key for changes (MINIO_CHANGE_USER) lacks {', '.join(lacking)}: "
            f"{missing[lacking[-1]]} "
            "Nothing was moved. For the rights that a key needs, see docs/connect.md, part 2."
        )
