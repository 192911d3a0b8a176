"""The release of waiting labels: what this runbook adds to a move of objects.

``runbook_lib.moves`` carries plans of ``objectmove`` through the gate. This module adds what only
this runbook knows: which labels move, how the worker is held, the state of an order, and the words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from pydantic import Field

from objectmove import mover
from objectmove.bucket import S3Bucket, Seen
from objectmove.errors import InterruptedMoveError, LimitError
from objectmove.mover import AnyPlan
from objectmove.plan import PlanRow, Timing
from objectmove.planning import Judgement
from objectmove.settling import OpenRow
from runbook_lib.approvals import Plan
from runbook_lib.errors import ClientError, SafetyError, StoreNotReadyError, UsageError
from runbook_lib.model import Json
from runbook_lib.moves import MoveGate, MoveParameters
from runbook_lib.section import get_parameters

from ..clients import Clients
from ..investigation import Investigation
from ..settings import Settings, is_nested
from ..waiting import explain_left, make_judge, read_shipment_evidence
from .other_movers import WorkerHold, describe_hold, make_hold, watch_writes

#: The metadata in which an undo keeps since when a label waits.
_AGE_KEY = "pending-since"
_PROMISES_OF_UNDO = (
    "the approval needs your word that no consumer takes from the destination meanwhile "
    "(--consumer-stands-still). If nobody holds the worker, you also promise that it moves nothing"
)
_SPLIT = (
    "Cut the plan into shards under one approval; the limit is then per shard:\n"
    "  runbook plan --shards 4\n"
    "Or make smaller plans, and apply each before the next:\n  runbook plan --limit {limit}\n"
    "  runbook plan --older-than 30m --limit {limit}\n"
    "or raise RELEASE_LIMIT_OBJECTS (up to 100000)."
)

#: The columns of the table of labels in doubt, which a person settles.
TO_SETTLE = ("key", "order", "evidence", "rewritten", "why", "taken_does", "not_taken_does")


class ReleaseParameters(MoveParameters):
    """The parameters of 6.1: whether to release labels, and which ones."""

    way: Literal["auto", "release", "retrigger", "none"] = Field(
        "auto", description="6.1: auto does what section 5 advises"
    )
    prefix: str = Field("", description="6.1: release from; empty: PENDING_PREFIX")
    to: str = Field("", description="6.1: release to; empty: READY_PREFIX")
    match: str = Field("", description="6.1: shell pattern of names; empty: RELEASE_MATCH")
    older_than_minutes: float = Field(
        0, ge=0, description="6.1: leave out labels that have waited less, in minutes"
    )
    limit: int = Field(
        0, ge=0, le=100_000, description="6.1: release at most this many labels; 0: all"
    )
    only_orders: str = Field("", description="6.1: only these orders, comma-separated")
    memory_removed: bool = Field(
        False, description="6.1: also plan labels whose fate the bucket forgot"
    )
    shards: int = Field(
        0,
        ge=0,
        le=256,
        description="6.1: cut the plan by key range into this many shards; 0: one plan",
    )
    worker_goes_on: bool = Field(
        False, description="resume: let the worker go on although labels may ship twice"
    )


class ReleaseGate(MoveGate[AnyPlan]):
    """The gate for releases: it holds the worker, and knows what became of an order."""

    noun = "label"
    shown_facts = ("order_id", "status", "tracking_number", "evidence")
    action = "release"
    held = "the worker is still paused for it"
    unheld = (
        "nobody holds the worker: the approval is also your word that the worker moves none of "
        "these labels until the release is done"
    )

    def get_store(self, clients: Clients) -> S3Bucket:
        """Return the bucket, with the keys that may change it."""
        return clients.change_bucket

    def get_store_to_look(self, clients: Clients) -> S3Bucket:
        """Return the bucket, with the keys for looking."""
        return clients.bucket

    def make_hold(self, inv: Investigation) -> WorkerHold:
        """Return the hold that ``WORKER_CONTROL`` names."""
        hold = make_hold(inv.settings, inv.clients, sleep=inv.sleep)
        hold.now = inv.now
        return hold

    def check_ready(self, inv: Investigation, move: AnyPlan) -> None:
        """Refuse unless the store says that it is healthy.

        For a move or an undo, refuse, too, when the keys for changes may not move the labels.
        """
        check_store(inv.clients)
        if move.action in ("move", "undo"):
            check_move_rights(inv.clients, move.header.source, move.header.to)

    def plan_undo(self, inv: Investigation, plan: Plan) -> Plan:
        """Plan to take a release or a settling back.

        For a release, refuse when the keys for changes may not move the labels back.
        """
        move: AnyPlan = plan.content
        if move.action == "move":
            check_move_rights(inv.clients, move.header.to, move.header.source)
        return super().plan_undo(inv, plan)

    def admit(self, move: AnyPlan) -> Plan:
        """Return a plan as the gate sees it. Its summary counts the labels by status, if known."""
        plan = super().admit(move)
        statuses = Counter(row.facts["status"] for row in move.rows if "status" in row.facts)
        if statuses:
            plan.summary["shipments"] = dict(statuses)
        return plan

    def get_options(self, inv: Investigation) -> dict[str, Any]:
        """Return the mover's options: section 6's parameters, and what only this runbook knows."""
        options = super().get_options(inv)
        options["goes_on"] = get_parameters(inv, ReleaseParameters).worker_goes_on
        options["age_key"] = _AGE_KEY
        options["watch"] = partial(watch_writes, inv.clients.bucket)
        options["evidence"] = partial(self._list_evidence, inv)
        return options

    def get_undo_window(self, inv: Investigation) -> timedelta:
        """Return how long a release may be taken back: RELEASE_UNDO_WINDOW_MINUTES."""
        return timedelta(minutes=inv.settings.release_undo_window_minutes)

    def describe_undo(self, inv: Investigation) -> str:
        """Say how the worker is held, and what a person promises who approves an undo."""
        return f"{self.make_hold(inv).words}; {_PROMISES_OF_UNDO}"

    def read_evidence(self, inv: Investigation, rows: Sequence[PlanRow]) -> dict[str, str]:
        """Return what fulfillment-service knows of each row's order, in words, by the row's key.

        Each order is asked for once.
        """
        by_key: dict[str, str] = {}
        by_order: dict[str, str] = {}
        for done, row in enumerate(rows):
            inv.progress("evidence", done, len(rows))
            order_id = row.facts.get("order_id", "")
            if order_id not in by_order:
                by_order[order_id] = read_shipment_evidence(inv.clients.fulfillment, order_id)
            by_key[row.key] = by_order[order_id]
        return by_key

    def _list_evidence(self, inv: Investigation, rows: Sequence[PlanRow]) -> list[str]:
        """Return the answers of ``read_evidence`` as a list, in the order of the rows."""
        by_key = self.read_evidence(inv, rows)
        return [by_key[row.key] for row in rows]

    def describe_open_row(self, open_row: OpenRow, evidence: str) -> dict[str, Json]:
        """Describe a label in doubt and its order, in the columns ``TO_SETTLE``."""
        if open_row.parked:
            # When we park a label, the worker may believe that it moved the label itself.
            evidence += " (read after parking: the status may come from our parking)"
        described = super().describe_open_row(open_row, evidence)
        described["order"] = open_row.row.facts.get("order_id", "")
        return {column: described[column] for column in TO_SETTLE}

    def describe_interruption(self, error: KeyboardInterrupt) -> str:
        """Say how many labels were moved, whether the worker is still paused, and how to go on."""
        if not isinstance(error, InterruptedMoveError):
            return str(error)
        held = ". The worker is still paused for this plan" if error.is_held else ""
        return (
            f"Interrupted after {error.moved:,} of {error.total:,} labels{held}. "
            f"Go on with: {error.way_on}"
        )


GATE = ReleaseGate(mover, step="6.1")
MOVE = GATE.kind


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
        When the store is unhealthy, or has no room for the copies.
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
    Changes scratch objects under ``.runbook/probe/`` and the parking prefix, and the incident
    folder. Writes ``.runbook/id`` if it is missing. Source: the runbook's section 6.1.
    """
    parameters = get_parameters(inv, ReleaseParameters)
    settings = inv.settings
    ready = settings.ready_prefix
    source = parameters.prefix or settings.pending_prefix
    if is_nested(source, ready):
        raise UsageError(f"labels are shipped from {source}: `runbook undo` takes labels back")
    check_store(inv.clients)
    check_move_rights(inv.clients, source, parameters.to or ready)
    hold = GATE.make_hold(inv)
    selection = {"match": parameters.match or settings.release_match}
    if parameters.older_than_minutes:
        selection["older than"] = f"{parameters.older_than_minutes:g} min"
    if only_orders is not None:
        selection["only orders"] = ", ".join(sorted(only_orders))
    if parameters.memory_removed:
        selection["memory removed"] = "rows may be planned although the bucket forgot their fate"
    # Unknown room counts as enough.
    free_bytes = inv.clients.store.read_free_bytes() or float("inf")
    observed: list[tuple[str, datetime]] = []  # keys, each with the time since which it waits
    judge_by_rules = make_judge(
        settings,
        inv.clients.fulfillment,
        now=inv.now(),
        only_orders=only_orders,
        older_than_s=parameters.older_than_minutes * 60 or None,
    )

    def judge(objects: Sequence[Seen]) -> Sequence[Judgement]:
        """Judge by the rules; refuse without room for the copies, and note what was observed."""
        judgements = judge_by_rules(objects)
        for seen, judgement in zip(objects, judgements, strict=True):
            # Room for twice the object's size is asked for, so that a margin is left.
            if not judgement.exclude and free_bytes < 2 * seen.size_bytes:
                raise StoreNotReadyError(f"{free_bytes} bytes are free: no room for the copies")
            # A plan that is cut into shards looks at too many objects to remember each.
            if judgement.exclude != "synthetic" and not parameters.shards:
                observed.append((seen.key, judgement.age_start))
        inv.progress("listed", len(observed))
        return judgements

    header = {
        "source": source,
        "to": parameters.to or ready,
        # A plan shows this as "who else moves"; the reason has no field of its own.
        "others": f"{reason}; {describe_hold(hold)}",
        "timing": _get_timing(settings),
        "limit_objects": settings.release_limit_objects,
        "selection": selection,
        "parked": settings.release_parked_prefix,
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
    plan_header = plan.content.header
    why_they_stay = explain_left(
        plan_header.excluded, plan_header.excluded_sample, settings, nothing_moves=plan.is_empty
    )
    summary = dict(plan.summary)
    if why_they_stay:
        summary["reason"] = why_they_stay
    return replace(plan, summary=summary, observed=tuple(observed))


def _get_timing(settings: Settings) -> Timing:
    """Return the times of a claim and of the store, as the settings say."""
    return Timing(
        lease_s=settings.release_lease_s,
        effect_s=settings.release_effect_s,
        spread_s=settings.release_clock_spread_s,
    )


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
    missing = []
    for right in (f"write {to}", f"delete {source}"):
        is_allowed, _ = rights.get(right, (None, ""))
        if is_allowed is False:
            missing.append(right)
    if missing:
        raise SafetyError(
            f"the key for changes (MINIO_CHANGE_USER) lacks {', '.join(missing)}. Grant it "
            "(docs/connect.md, part 2), and try again. Nothing was moved."
        )
