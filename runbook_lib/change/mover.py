"""Apply a plan, or go on with one that was begun. Undo is this over the inverted plan."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

from filelock import FileLock, Timeout

from ..clients.object_store import ObjectStore, WriteWatch
from ..errors import ClientError, LeaseHeldError
from ..model import Json
from ..record.log import utc_now
from ..redact import Redactor
from .batch import Checkpoint, Mover
from .batch_work import BatchWork
from .interrupt import run_interruptibly
from .lease import Lease
from .ledger import Batch, LedgerState, MoveLedger, Trouble, read_ledger
from .losses import find_lost
from .plan_file import PlanRow, ReleasePlan
from .preflight import check_approval, check_begun, check_drift, check_store

__all__ = ["BATCH", "MoveResult", "apply_plan", "resume_plan"]

BATCH = 2500
"""Objects of one batch. A fresh listing costs a gateway more than going on with one."""


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What a plan's ledger says after a run.

    Attributes
    ----------
    moved : copied, proven and deleted at the source, by this run or an earlier one
    already : found moved although no outcome was written: an earlier run was cut off
    conflicts : left alone, since someone else changed or took something
    failed : to be tried again by ``resume``
    left : not tried, since the run stopped
    stopped : why it stopped before the end, or empty
    lost_in_window : keys of which a newer version was deleted, inside the window that the plan
        declares: its store ignores conditional deletes
    """

    plan: str
    moved: int
    already: int
    conflicts: tuple[Trouble, ...]
    failed: tuple[Trouble, ...]
    left: int
    stopped: str = ""
    lost_in_window: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether every planned object moved."""
        troubles = self.conflicts or self.failed or self.lost_in_window
        return not (troubles or self.left or self.stopped)

    def to_json(self) -> dict[str, Json]:
        """Return it as ``--json`` shows it."""
        return {
            "plan": self.plan,
            "moved": self.moved,
            "already": self.already,
            "conflicts": [trouble.to_json() for trouble in self.conflicts],
            "failed": [trouble.to_json() for trouble in self.failed],
            "left": self.left,
            "stopped": self.stopped,
            "lost_in_window": list(self.lost_in_window),
        }


def apply_plan(
    store: ObjectStore,
    plan: ReleasePlan,
    *,
    ledger_path: Path,
    approve_sha256: str,
    approved_by: str,
    redactor: Redactor,
    now: Callable[[], datetime] = utc_now,
    progress: Callable[[int, int], None] | None = None,
    hold: AbstractContextManager[object] | None = None,
    checkpoint: Checkpoint = lambda _: None,
    batch_size: int = BATCH,
) -> MoveResult:
    """Move what an approved plan lists. On a ledger that has begun, go on with it.

    Parameters
    ----------
    approve_sha256 : the SHA-256 of the plan file that was approved
    approved_by : who; ``drill:<id>`` may only move the orders that the plan names as the drill's
    progress : called with the number of objects dealt with, and of all
    hold : entered before anything moves, left after; keeps others from moving meanwhile

    Raises
    ------
    NotApprovedError, PlanExpiredError, PlanAlteredError, LimitError, DriftError, LeaseHeldError,
    StoreNotReadyError, OthersMovingError
        Refused; nothing was changed.

    Notes
    -----
    Changes the planned objects and their destinations, the lease and the ledger; undone by
    ``undo_plan``. An interrupt leaves a ledger that ``resume_plan`` goes on with.
    """
    state, stop = read_ledger(ledger_path), threading.Event()
    check_approval(plan, state, approve_sha256=approve_sha256, approved_by=approved_by, now=now())

    def carry_out() -> MoveResult:
        with ExitStack() as held:
            lock = FileLock(f"{ledger_path}.apply.lock", timeout=0)
            ledger_path.parent.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(lock)
            except Timeout as error:
                raise LeaseHeldError(f"another process here is applying {plan.id}") from error
            check_store(store, plan)
            held.enter_context(hold or nullcontext())
            lease = Lease(
                store,
                plan_id=plan.id,
                by=approved_by,
                prefixes=(plan.header.source, plan.header.to),
                now=now,
            )
            held.enter_context(lease)
            ledger = MoveLedger(ledger_path, redactor=redactor, now=now)
            if state.approved_sha256:
                ledger.resume(by=approved_by)
            else:
                check_drift(store, plan)
                ledger.approve(plan, by=approved_by)
            checkpoint("approved")
            run = _Run(store, plan, ledger, state, lease, now, checkpoint, progress, stop)
            return run.finish(run.carry_out(batch_size))

    return run_interruptibly(carry_out, stop=stop)


def resume_plan(
    store: ObjectStore,
    plan: ReleasePlan,
    *,
    ledger_path: Path,
    resumed_by: str,
    redactor: Redactor,
    now: Callable[[], datetime] = utc_now,
    progress: Callable[[int, int], None] | None = None,
    hold: AbstractContextManager[object] | None = None,
    checkpoint: Checkpoint = lambda _: None,
    batch_size: int = BATCH,
) -> MoveResult:
    """Go on with a plan that was begun: its ledgered approval counts, not its lifetime.

    Raises
    ------
    NotApprovedError
        When the ledger holds no approval of this plan.
    """
    approved = check_begun(plan, read_ledger(ledger_path))
    return apply_plan(
        store,
        plan,
        ledger_path=ledger_path,
        approve_sha256=approved,
        approved_by=resumed_by,
        redactor=redactor,
        now=now,
        progress=progress,
        hold=hold,
        checkpoint=checkpoint,
        batch_size=batch_size,
    )


@dataclass
class _Run:
    store: ObjectStore
    plan: ReleasePlan
    ledger: MoveLedger
    state: LedgerState
    lease: Lease
    now: Callable[[], datetime]
    checkpoint: Checkpoint
    progress: Callable[[int, int], None] | None
    stop: threading.Event
    done: int = 0
    deleted: dict[str, datetime] = field(default_factory=dict)

    def carry_out(self, batch_size: int) -> str:
        """Go through the open rows; return why it stopped early, or an empty text."""
        if self.plan.header.abilities.conditional_delete:
            return self._go_through(batch_size, None)
        with self.store.watch_writes(self.plan.header.source) as watch:
            stopped = self._go_through(batch_size, watch)
            lost = find_lost(self.store, self.plan, watch, self.deleted)
            self.ledger.note_window(watched=watch.is_watching, lost=lost)
        return stopped

    def finish(self, stopped: str) -> MoveResult:
        """Return what the ledger says now; write that the plan is done, if it is."""
        result = _read_result(self.plan, read_ledger(self.ledger.path), stopped)
        if not (result.failed or result.left or stopped):
            totals: dict[str, Json] = {"moved": result.moved, "already": result.already}
            self.ledger.finish(totals)
            self.checkpoint("done")
        return result

    def _go_through(self, batch_size: int, watch: WriteWatch | None) -> str:
        """Move batch by batch. While one is proven and deleted, the next one is copied."""
        mover = Mover(
            self.store,
            header=self.plan.header,
            ledger=self.ledger,
            state=self.state,
            now=self.now,
            checkpoint=self.checkpoint,
            is_stopped=self.stop.is_set,
            tell_copied=self._tell_copied,
        )
        settled = len(self.state.settled)
        tail: Future[BatchWork] | None = None
        with ThreadPoolExecutor(1, thread_name_prefix="mover") as pool:
            try:
                for batch, rows in self._batches(batch_size):
                    self.lease.renew()
                    self._tell(settled)
                    work = mover.begin(batch, rows)
                    if tail is not None and (why := self._look_at(tail.result())):
                        mover.finish(work)
                        return why
                    if self.stop.is_set():
                        return "interrupted"
                    if watch is not None:
                        watch.wait_until_open()  # before the first delete
                    tail = pool.submit(mover.finish, work)
                    settled += len(rows)
                    self._tell(settled)
                return self._look_at(tail.result()) if tail is not None else ""
            except (ClientError, LeaseHeldError) as error:
                return str(error)
            except BaseException:
                self.stop.set()
                raise

    def _tell(self, done: int) -> None:
        self.done = done
        if self.progress is not None:
            self.progress(min(done, self.plan.trailer.objects), self.plan.trailer.objects)

    def _tell_copied(self) -> None:
        self._tell(self.done + 1)

    def _look_at(self, work: BatchWork) -> str:
        """Note what was deleted. Return why to stop: all failed, and the store is not well."""
        self.deleted |= {work.rows[p].key: work.rows[p].last_modified for p in work.moved}
        if len(work.failed) < len(work.rows):
            return ""
        live = self.store.check_live()
        return "" if live.is_live else f"the store is not well: {live.source}: {live.reason}"

    def _batches(self, size: int) -> Iterator[tuple[Batch, dict[int, PlanRow]]]:
        rows = (
            (place, row)
            for place, row in enumerate(self.plan.iter_rows())
            if place not in self.state.settled
        )
        number = self.state.batches
        while chunk := dict(islice(rows, size)):
            yield Batch(number, tuple(chunk)), chunk
            number += 1


def _read_result(plan: ReleasePlan, state: LedgerState, stopped: str) -> MoveResult:
    ended = len(state.settled) + len(state.failed)
    return MoveResult(
        plan=plan.id,
        moved=state.moved,
        already=state.already,
        conflicts=tuple(state.conflicts.values()),
        failed=tuple(state.failed.values()),
        left=plan.trailer.objects - ended,
        stopped=stopped,
        lost_in_window=tuple(state.lost_in_window),
    )
