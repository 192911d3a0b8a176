"""Which objects earlier moves hold: open, in doubt, or said to be taken."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .bucket import S3Bucket, Version
from .looks import judge, look_surely
from .plan import Plan, PlanRow, fetch_plan
from .state import PLANS, BucketState, Way, read_stories
from .table import OPEN, Place, State

_HELD = (*OPEN, State.UNPROVEN, State.TAKEN)


def _list_held(bucket: S3Bucket, state: BucketState) -> Iterator[tuple[str, State, PlanRow]]:
    """Yield the rows that nobody else may move, each after its plan's id and its state."""
    for story in read_stories(bucket, state):
        release = story.release
        plan: Plan | None = None
        for number, row in story.list_rows(State.WAITING, *_HELD):
            if row.state is State.WAITING and row.way is not Way.PARK:
                continue
            if plan is None:
                path = Path(f"{release.plan}.jsonl")
                plan = fetch_plan(bucket, PLANS + release.sha256, release.sha256, path)
            yield release.plan, row.state, plan.rows[number]


class Owned:
    """What the moves of a bucket hold, by source key.

    Parameters
    ----------
    beside : the id of a plan whose own moves do not count
    """

    def __init__(self, bucket: S3Bucket, state: BucketState, *, beside: str = "") -> None:
        self._by_key: dict[str, tuple[State, Version]] = {}
        for plan, row_state, row in _list_held(bucket, state):
            if plan != beside:
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


def list_in_reach(bucket: S3Bucket, state: BucketState) -> dict[str, str]:
    """Return the source keys where something lies that the worker may ship a second time.

    Of a row that is open, a request may still take effect: it counts in any case.

    Returns
    -------
    For each key, the plan that has the row.
    """
    held = list(_list_held(bucket, state))
    looks = look_surely(bucket, sorted({row.key for _, _, row in held}))
    in_reach: dict[str, str] = {}
    for plan, row_state, row in held:
        place = Place.UNKNOWN
        if row_state not in OPEN:
            place = judge(bucket, row, looks, row.key)
        if place.may_be_here:
            in_reach[row.key] = plan
    return in_reach
