"""Which objects earlier moves hold: open, in doubt, or said to be taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .bucket import S3Bucket, Version
from .looks import judge, look_surely
from .plan import PlanRow, fetch_plan
from .state import BucketState, Way, read_stories
from .table import OPEN, State

_HELD = (*OPEN, State.UNPROVEN, State.TAKEN)


def _list_held(bucket: S3Bucket, state: BucketState) -> Iterator[tuple[str, State, PlanRow]]:
    """Yield the rows that nobody else may move, each after its plan's id and its state."""
    for story in read_stories(bucket, state):
        release = story.release
        rows = story.list_rows(*_HELD)
        rows += [each for each in story.list_rows(State.WAITING) if each[1].way is Way.PARK]
        if rows:
            plan = fetch_plan(bucket, release.plan, release.sha256)
        for number, row in rows:
            yield release.plan, row.state, plan.rows[number]


def make_explain(
    bucket: S3Bucket, state: BucketState, *, beside: str = ""
) -> Callable[[Version], str]:
    """Return a function that says in a word why moves hold an object; empty when none does.

    Other content than an unproven or taken row had is another object.

    Parameters
    ----------
    beside : the id of a plan whose own moves do not count
    """
    held: dict[tuple[object, ...], str] = {}
    for plan, row_state, row in _list_held(bucket, state):
        if plan != beside:
            content = () if row_state in OPEN else (row.etag, row.size_bytes)
            held[(row.key, *content)] = "taken" if row_state is State.TAKEN else "in_doubt"

    def explain(seen: Version) -> str:
        content = (seen.key, seen.etag, seen.size_bytes)
        return held.get((seen.key,)) or held.get(content, "")

    return explain


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
        place = judge(bucket, row, looks, row.key)
        if row_state in OPEN or place.may_be_here:
            in_reach[row.key] = plan
    return in_reach
