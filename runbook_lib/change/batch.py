"""Move one batch of planned objects: copy, prove, look again, delete, write down.

Every way an object can be found is answered here, so that it is never lost, never doubled without
being said, and never stops the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime

from ..clients.object_store import ObjectStore, is_same_version
from ..errors import ClientError, NotFoundError, PreconditionFailedError
from ..model import ObjectInfo, format_time
from .batch_work import BatchWork
from .ledger import LOST, Batch, LedgerState, MoveLedger
from .lookup import look_up
from .plan_file import PlanHeader, PlanRow

__all__ = ["Checkpoint", "Mover"]

Checkpoint = Callable[[str], None]
"""Called at each named boundary; for tests that end the process there."""

_THREADS = 16


class Mover:
    """Carry out batches of one plan.

    Parameters
    ----------
    state : what the ledger said before this run
    is_stopped : asked before each copy and before deletes; true ends the batch there, resumable
    tell_copied : called after each copy, well or not
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        header: PlanHeader,
        ledger: MoveLedger,
        state: LedgerState,
        now: Callable[[], datetime],
        checkpoint: Checkpoint,
        is_stopped: Callable[[], bool],
        tell_copied: Callable[[], None],
    ) -> None:
        self._store = store
        self._header = header
        self._ledger = ledger
        self._state = state
        self._now = now
        self._checkpoint = checkpoint
        self._is_stopped = is_stopped
        self._tell_copied = tell_copied

    def begin(self, batch: Batch, rows: dict[int, PlanRow]) -> BatchWork:
        """Announce a batch and copy it."""
        work = BatchWork(batch, rows)
        self._ledger.announce(batch)
        self._checkpoint("intent")
        try:
            self._copy(work, self._sort_before_copy(work))
        except ClientError as error:
            self._fail_open(work, error)
        self._checkpoint("copied")
        return work

    def finish(self, work: BatchWork) -> BatchWork:
        """Prove the copies, look at the sources again, delete them, write the outcomes."""
        looked_at = self._now()
        try:
            self._prove_copies(work)
            landed = {place: info.last_modified for place, info in work.landed.items()}
            self._ledger.land(work.batch, landed)
            self._checkpoint("landed")
            looked_at = self._now()
            ready = self._look_again(work)
            self._checkpoint("looked")
            if not self._is_stopped():
                self._delete(work, ready)
                self._checkpoint("deleted")
        except ClientError as error:
            self._fail_open(work, error)
        if self._is_stopped() and work.open_rows():
            return work
        self._ledger.settle(
            work.batch,
            moved=len(work.moved),
            already=len(work.already),
            conflicts=work.conflicts.values(),
            failed=work.failed.values(),
            looked_at=looked_at,
            deleted_at=self._now(),
        )
        self._checkpoint("outcomes")
        return work

    def _sort_before_copy(self, work: BatchWork) -> list[int]:
        """Return the places to copy; what is taken, or moved already, is put down."""
        before = self._look_up_destinations(work, list(work.rows))
        begun = [place for place in work.rows if place in self._state.begun]
        sources = self._look_up_sources(work, begun)
        wanted = []
        for place, row in work.rows.items():
            there, is_ours = before.get(row.to), place in self._state.begun or row.is_there
            if there is not None and is_ours and _has_same_content(row, there):
                work.landed[place] = there
            elif there is not None:
                work.refuse(place, f"destination_taken: {row.to} holds another object")
            elif place in self._state.begun and row.key not in sources:
                if place in self._state.landed:
                    work.already.add(place)  # a consumer took it from the destination since
                else:
                    work.refuse(place, f"{LOST}: at neither place, and its copy was never proven")
            else:
                wanted.append(place)
        return wanted

    def _copy(self, work: BatchWork, places: list[int]) -> None:
        # What has no pending-since would lose its age: the copy is younger than the original.
        plain = [p for p in places if work.rows[p].age_source == "pending-since"]
        pairs = [(work.rows[p].info, work.rows[p].to) for p in plain]
        for index, error in self._store.copy_objects(pairs, is_stopped=self._is_stopped):
            work.note_copy(plain[index], error)
            self._tell_copied()
        dated = [p for p in places if work.rows[p].age_source != "pending-since"]

        def copy(place: int) -> None:
            if not self._is_stopped():
                work.note_copy(place, self._copy_slowly(work.rows[place]))
                self._tell_copied()

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="copy") as pool:
            list(pool.map(copy, dated))

    def _copy_slowly(self, row: PlanRow) -> ClientError | None:
        """Copy one object guarded by its ETag, with its age in the metadata."""
        try:
            found = self._store.read_info(row.key)
            if not is_same_version(row.info, found):
                return PreconditionFailedError(f"{row.key} changed")
            source, metadata = replace(row.info, content_type=found.content_type), None
            if row.age_source != "pending-since":
                age = format_time(row.age_start)
                metadata = {**(found.metadata or {}), "pending-since": age}
            self._store.copy_object(source, row.to, metadata=metadata)
        except ClientError as error:
            return error
        return None

    def _prove_copies(self, work: BatchWork) -> None:
        """Find each copy in a listing; what failed is tried once more, the slow way."""
        places = [place for place in work.open_rows() if place not in work.landed]
        after, strays = self._look_up_destinations(work, places), []
        for place in places:
            row, there = work.rows[place], after.get(work.rows[place].to)
            if there is None:
                there = self._find_copy(work, place)
            if there is not None and _has_same_content(row, there):
                work.landed[place] = there
            elif there is not None:
                work.refuse(place, f"destination_taken: {row.to} holds another object now")
                if place in work.copied:
                    work.landed[place] = there
                    strays.append(place)
        # Rewritten within the second of its LastModified: the copy is of the newer version.
        sources = self._look_up_sources(work, strays)
        stale = [
            p for p in strays if _has_same_content(sources.get(work.rows[p].key), work.landed[p])
        ]
        for place in stale:
            work.refuse(place, "changed: it was rewritten since the plan")
        self._withdraw(work, stale)

    def _find_copy(self, work: BatchWork, place: int) -> ObjectInfo | None:
        """Return the copy that the listing did not show, or put down why there is none."""
        row, error = work.rows[place], work.errors.get(place)
        if error is not None and not _is_final(error):
            error = self._copy_slowly(row)
            work.note_copy(place, error)
        try:
            if error is None:
                return self._store.read_info(row.to)
        except NotFoundError:
            # Copying again might ship it twice, deleting might lose it: a person must look.
            work.refuse(place, f"unproven: the copy {row.to} was taken away at once")
        if isinstance(error, NotFoundError):
            work.refuse(place, "vanished: it was removed since the plan")
        elif isinstance(error, PreconditionFailedError):
            work.refuse(place, "changed: it was rewritten since the plan")
        elif error is not None:
            work.fail(place, f"copy failed: {error}")
        return None

    def _look_again(self, work: BatchWork) -> list[int]:
        """Return the places whose sources are still the planned versions."""
        places = [place for place in work.open_rows() if place in work.landed]
        sources, ready, stale = self._look_up_sources(work, places), [], []
        for place in places:
            row = work.rows[place]
            found = sources.get(row.key)
            if found is not None and is_same_version(row.info, found):
                ready.append(place)
            elif found is not None:
                work.refuse(place, "changed: it was rewritten during the move")
                stale.append(place)
            elif place in self._state.begun:
                work.already.add(place)
            else:
                # Perhaps the worker moved it itself: taking our copy away could lose it.
                work.refuse(place, f"vanished: someone else removed it; {row.to} holds our copy")
        self._withdraw(work, stale)
        return ready

    def _delete(self, work: BatchWork, places: list[int]) -> None:
        guarded = self._header.abilities.conditional_delete
        by_key = {work.rows[place].key: place for place in places}
        try:
            infos = [work.rows[place].info for place in places]
            failures = dict(self._store.delete_objects(infos, guarded=guarded))
        except ClientError as error:
            # Some may be gone, some not: the store itself says which.
            left = self._look_up_sources(work, places)
            failures = dict.fromkeys(left, error)
        if "" in failures:  # a store that does not say which
            left, why = self._look_up_sources(work, places), failures.pop("")
            failures |= dict.fromkeys(left, why)
        stale = []
        for key, place in by_key.items():
            failure = failures.get(key)
            if failure is None:
                work.moved.add(place)
            elif isinstance(failure, PreconditionFailedError):
                work.refuse(place, "changed: it was rewritten during the move")
                stale.append(place)
            else:
                work.fail(place, f"delete failed: {failure}")
        self._withdraw(work, stale)

    def _withdraw(self, work: BatchWork, places: Iterable[int]) -> None:
        """Take back copies of versions that are no longer the newest, if they are ours."""
        ours = [place for place in places if place in work.copied or place in self._state.begun]
        ours = [place for place in ours if not work.rows[place].is_there]
        if not ours:
            return
        copies = [work.landed[place] for place in ours]
        guarded = self._header.abilities.conditional_delete
        for key, error in self._store.delete_objects(copies, guarded=guarded):
            for place in ours:
                if work.rows[place].to == key:
                    work.refuse(place, f"changed; our copy {key} could not be taken back: {error}")

    def _fail_open(self, work: BatchWork, error: ClientError) -> None:
        for place in work.open_rows():
            work.fail(place, str(error))

    def _look_up_destinations(self, work: BatchWork, places: list[int]) -> dict[str, ObjectInfo]:
        return look_up(self._store, self._header.to, [work.rows[p].to for p in places])

    def _look_up_sources(self, work: BatchWork, places: list[int]) -> dict[str, ObjectInfo]:
        return look_up(self._store, self._header.source, [work.rows[p].key for p in places])


def _has_same_content(one: PlanRow | ObjectInfo | None, found: ObjectInfo) -> bool:
    return one is not None and (one.etag, one.size_bytes) == (found.etag, found.size_bytes)


def _is_final(error: ClientError | None) -> bool:
    return isinstance(error, NotFoundError | PreconditionFailedError)
