"""Take a release back: the mover over the inverted plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

from ..clients.object_store import ObjectStore, is_same_version
from ..errors import NotApprovedError, PlanExpiredError, UsageError
from ..model import ObjectInfo, format_time
from ..record.log import utc_now
from ..redact import Redactor
from .batch import Checkpoint
from .ledger import LedgerState, read_ledger
from .lookup import Walk
from .mover import BATCH, MoveResult, apply_plan
from .plan import PROBE_PREFIX, describe_window
from .plan_file import PlanHeader, PlanRow, PlanWriter, ReleasePlan, load_plan

__all__ = ["make_undo_plan", "undo_plan"]

_CHUNK = 1000


def make_undo_plan(
    store: ObjectStore,
    plan: ReleasePlan,
    *,
    ledger_path: Path,
    made_by: str,
    window_s: float = 900,
    now: Callable[[], datetime] = utc_now,
) -> ReleasePlan:
    """Write the inverted plan, ``<plan>-undo``, beside the plan that it takes back.

    Parameters
    ----------
    ledger_path : of the release
    window_s : how long after its last outcome a release may be taken back, in seconds: labels
        may be printed after that

    Raises
    ------
    NotApprovedError
        When the release was never begun.
    PlanExpiredError
        When the window is over.
    UsageError
        When the release was cut off: resume it first; or the plan is an undo itself.
    """
    state, made_at, head = read_ledger(ledger_path), now(), plan.header
    if head.action != "release":
        raise UsageError(f"{plan.id} is an undo itself: make a new plan instead")
    if not state.approved_sha256 or state.last_at is None:
        raise NotApprovedError(f"{plan.id} was never begun: there is nothing to take back")
    if state.begun - state.settled - state.failed.keys():
        raise UsageError(f"{plan.id} was cut off in the middle: resume it, then take it back")
    closes_at = state.last_at + timedelta(seconds=window_s)
    if made_at > closes_at:
        raise PlanExpiredError(
            f"{plan.id} could be taken back until {format_time(closes_at)}: labels may be "
            "printed by now"
        )
    abilities = store.probe_abilities(PROBE_PREFIX)
    header = PlanHeader(
        id=f"{plan.id}-undo",
        step=f"{head.step}.1",
        action="undo",
        endpoint=head.endpoint,
        bucket=head.bucket,
        source=head.to,
        to=head.source,
        match="*",
        made_at=made_at,
        made_by=made_by,
        expires_at=closes_at,
        limit_objects=head.limit_objects,
        limit_bytes=head.limit_bytes,
        abilities=abilities,
        window=describe_window(abilities),
        others=head.others,
        only_orders=head.only_orders,
        undo_of=plan.id,
    )
    excluded: Counter[str] = Counter()
    sample: dict[str, tuple[str, ...]] = {}
    writer = PlanWriter(plan.path.parent, header)
    try:
        for reason, row in _invert(store, plan, state):
            if not reason:
                writer.add(row)
                continue
            excluded[reason] += 1
            sample[reason] = (*sample.get(reason, ()), row.key)[:10]
        return writer.finish(excluded, sample)
    finally:
        writer.discard()


def undo_plan(
    store: ObjectStore,
    plan: ReleasePlan,
    *,
    ledger_path: Path,
    undone_by: str,
    redactor: Redactor,
    window_s: float = 900,
    now: Callable[[], datetime] = utc_now,
    progress: Callable[[int, int], None] | None = None,
    hold: AbstractContextManager[object] | None = None,
    checkpoint: Checkpoint = lambda _: None,
    batch_size: int = BATCH,
) -> MoveResult:
    """Take back what a release moved and is still where it put it; keep the ages.

    Notes
    -----
    Changes what ``apply_plan`` changes. Its own ledger is ``<plan>-undo.jsonl``; an undo that was
    cut off goes on when it is called again.
    """
    own_ledger = ledger_path.with_name(f"{plan.id}-undo.jsonl")
    if read_ledger(own_ledger).approved_sha256:
        inverted = load_plan(plan.path.with_name(f"{plan.id}-undo.jsonl"))
    else:
        inverted = make_undo_plan(
            store, plan, ledger_path=ledger_path, made_by=undone_by, window_s=window_s, now=now
        )
    return apply_plan(
        store,
        inverted,
        ledger_path=own_ledger,
        approve_sha256=inverted.sha256,
        approved_by=undone_by,
        redactor=redactor,
        now=now,
        progress=progress,
        hold=hold,
        checkpoint=checkpoint,
        batch_size=batch_size,
    )


def _invert(
    store: ObjectStore, plan: ReleasePlan, state: LedgerState
) -> Iterator[tuple[str, PlanRow]]:
    """Yield each moved row the other way round, with why it stays or an empty text."""
    moved = state.settled - state.conflicts.keys()
    rows = ((place, row) for place, row in enumerate(plan.iter_rows()) if place in moved)
    copies, sources = Walk(store, plan.header.to), Walk(store, plan.header.source)
    while chunk := list(islice(rows, _CHUNK)):
        here = copies.look_up([row.to for _, row in chunk])
        there = sources.look_up([row.key for _, row in chunk])
        for place, row in chunk:
            landed_at = state.landed.get(place, row.last_modified)
            ours = ObjectInfo(row.to, row.etag, row.size_bytes, landed_at)
            back = PlanRow(
                key=row.to,
                etag=row.etag,
                size_bytes=row.size_bytes,
                last_modified=landed_at,
                to=row.key,
                age_start=row.age_start,
                age_source="pending-since",  # the release wrote it where it was missing
                order_id=row.order_id,
            )
            found = here.get(row.to)
            if found is None:
                yield "gone_after_done", back
            elif row.is_there or place not in state.landed or not is_same_version(ours, found):
                yield "not_ours", back
            elif row.key in there:
                yield "destination_taken", back
            else:
                yield "", back
