"""Prove a move by a new look: where each planned object is, and what else was touched."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from .bucket import S3Bucket
from .looks import DIRECTIONS, get_ends, judge_ends, look_surely, scan_rows
from .plan import Plan
from .state import Way, read_release
from .table import UNENDED, Direction, Proof, State, decide

#: The most keys that a proof names for each outcome.
_NAMED = 100


class MoveProof(NamedTuple):
    """What an independent look found.

    ``counts`` has each outcome of ``table.Proof``, and ``foreign_changed``: a row's content was
    written under the destination since the move began, at a key that no row names.
    """

    at: datetime  # the store's time of the look
    counts: dict[str, int]
    keys: dict[str, list[str]]  # for each outcome but ``in_place``, at most 100
    taken_back_by: str  # the undo that took rows back, or ""
    undo_until: datetime | None  # the release can be undone until then


def verify_plan(bucket: S3Bucket, plan: Plan) -> MoveProof:
    """List source and destination, and ask the table about each row. Only reads.

    Raises NotNowError when the bucket doesn't know the plan (never begun, or forgotten), and
    StoreError or PlanError when it can't be read or understood, so that nothing is proven.
    """
    release, now = read_release(bucket, plan.id)
    header = plan.header
    rows = plan.rows
    undo = release.undo
    began_at = release.announced_at
    contents = {(row.etag, row.size_bytes) for row in rows}
    destinations = {row.to for row in rows}
    foreign = []
    for seen in bucket.list_objects(header.to):
        is_ours = (seen.etag, seen.size_bytes) in contents and seen.key not in destinations
        if is_ours and began_at is not None and seen.last_modified >= began_at:
            foreign.append(seen.key)
    outcomes: dict[str, list[str]] = {outcome: [] for outcome in Proof}
    outcomes["foreign_changed"] = foreign
    for number, row, looks in scan_rows(bucket, plan, range(len(rows))):
        stored = release.get_last_row(number)
        state = stored.state
        direction = DIRECTIONS[stored.way]
        if direction is Direction.ASIDE:
            looks.update(look_surely(bucket, [*get_ends(plan, row, stored.way)]))
            if state in UNENDED:  # on its way to the parking place, or back
                state = stored.rest
                direction = Direction.THERE
        ends = judge_ends(bucket, plan, row, stored.way, looks)
        outcome: str = decide(direction, state, *ends).proof
        if state is State.MOVED and stored.way is Way.BACK and outcome != Proof.DUPLICATED:
            outcome = Proof.TAKEN_BACK
        outcomes[outcome].append(row.key)
    return MoveProof(
        at=now,
        counts={outcome: len(keys) for outcome, keys in outcomes.items()},
        keys={
            outcome: keys[:_NAMED]
            for outcome, keys in outcomes.items()
            if keys and outcome != Proof.IN_PLACE
        },
        taken_back_by=undo.id if undo is not None and undo.announced_at is not None else "",
        undo_until=began_at and began_at + timedelta(seconds=header.undo_s),
    )
