"""Which objects earlier moves hold: open, in doubt, or said to be taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .bucket import S3Bucket, Version
from .looks import judge, look_surely
from .plan import Plan, PlanRow, fetch_plan
from .result import list_pieces
from .state import PLANS, BucketState, Move
from .table import OPEN, Place, State

_HELD = (*OPEN, State.UNPROVEN, State.TAKEN)


def _list_held(bucket: S3Bucket, move: Move) -> Iterator[tuple[State, PlanRow]]:
    """Yield the rows of a move that nobody else may move, with their states."""
    plan: Plan | None = None
    for piece in list_pieces(bucket, move):
        for number in piece.find(*_HELD):
            if plan is None:
                path = Path(f"{move.plan}.jsonl")
                plan = fetch_plan(bucket, PLANS + move.sha256, move.sha256, path)
            yield piece.rows[number].state, plan.rows[number]


class Owned:
    """What the moves of a bucket hold, by source key.

    Parameters
    ----------
    beside : the id of a plan whose own moves do not count
    """

    def __init__(self, bucket: S3Bucket, state: BucketState, *, beside: str = "") -> None:
        self._by_key: dict[str, tuple[State, Version]] = {}
        for move in state.moves.values():
            if move.plan != beside:
                for row_state, row in _list_held(bucket, move):
                    self._by_key[row.key] = (row_state, row)

    def explain(self, seen: Version) -> str:
        """Say in a word why an object is held; empty when it is not.

        Other content than an unproven or taken row had is another object.
        """
        held = self._by_key.get(seen.key)
        if held is None:
            return ""
        state, row = held
        if state in OPEN:
            return "in_doubt"
        if not seen.has_same_content(row):
            return ""
        return "in_doubt" if state is State.UNPROVEN else "taken"


def list_in_reach(bucket: S3Bucket, state: BucketState) -> list[str]:
    """Return the source keys where something lies that the worker may ship a second time.

    Of a row that is open, a request may still take effect: it counts in any case.
    """
    in_reach = []
    rows: dict[str, PlanRow] = {}
    for move in state.moves.values():
        for row_state, row in _list_held(bucket, move):
            if row_state in OPEN:
                in_reach.append(row.key)
            else:
                rows[row.key] = row
    keys = sorted(rows)
    looks = look_surely(bucket, keys)
    for key in keys:
        place = Place.UNKNOWN
        if key in looks:
            place = judge(bucket, rows[key], looks[key], is_source=True)
        if place in (Place.SAME, Place.AGAIN, Place.UNKNOWN):
            in_reach.append(key)
    return sorted(set(in_reach))
