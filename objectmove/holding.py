"""Keep everyone else from moving objects during a plan, and let the others go on after it.

They go on only when nothing that they could move may ship twice, or when a person approved the keys
that may ship twice. An object that may ship twice if the others move it is called *in reach*.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from . import record as records
from .bookkeeping import Bookkeeping
from .carry import Carrier, Hold
from .errors import (
    MoveError,
    NeedsApprovalError,
    NotApprovedError,
    RefusedError,
    StoppedError,
)
from .jobs import Jobs
from .ledger import HALF_DONE, Ledger, Logs, is_hold_noted
from .manifest import MAX_SHARDS, pause
from .plan import MovePlan
from .session import Session, read_store_id
from .table import Place, State


def digest_approval(plan: MovePlan, facts: Sequence[str]) -> str:
    """Return the hash that approves a plan together with facts that do not stand in the plan."""
    return hashlib.sha256("\n".join([plan.sha256, *facts]).encode()).hexdigest()


class Holding:
    """Keeps the others still for one plan.

    Parameters
    ----------
    hold : keeps everyone else from moving objects
    books : writes into the bucket who is held
    logs : returns a plan's ledger on this machine
    operator : who runs the plan

    Attributes
    ----------
    why_held : why the settings of this run cannot let the others go on; empty when they can
    has_let_go : whether this run let the others go on; False while another plan holds them, too
    """

    def __init__(
        self,
        hold: Hold,
        session: Session,
        ledger: Ledger,
        books: Bookkeeping,
        *,
        logs: Logs,
        operator: str,
    ) -> None:
        self.why_held = ""
        self.has_let_go = False
        self._logs = logs
        self._hold = hold
        self._session = session
        self._ledger = ledger
        self._plan = ledger.plan
        self._books = books
        self._operator = operator
        self._carrier: Carrier | None = None
        self._jobs: Jobs | None = None

    def use_looks(self, carrier: Carrier, jobs: Jobs) -> None:
        """From now on, use a carrier's looks to find out what is in reach.

        Without looks, every object in doubt counts as in reach.
        """
        self._carrier = carrier
        self._jobs = jobs

    @contextmanager
    def held(self, *, is_new: bool, wind_down: Callable[[], None]) -> Iterator[None]:
        """Keep the others still inside a ``with`` block; then call ``give_back``.

        The hold stands in ledger and record: if this run dies, the next run lets the others go on.

        Parameters
        ----------
        is_new : whether this run begins the plan: if such a plan is refused or interrupted before
            it was begun, its record is removed
        wind_down : called after an interrupt: finishes what has landed
        """
        ledger = self._ledger
        with self._claim_hold():
            self._session.renew()  # the wait for the hold's claim may have been long
            # If the plan moves nothing, nobody needs to stand still: ask and pause nobody.
            is_paused = self._hold.is_paused() if self._plan.moves_objects else True
            self._note_hold(is_paused=is_paused)
            self._books.write_record()
        try:
            if not is_paused and ledger.hold is not None:
                pause(self._session, self._hold, ledger.hold, ledger.log)
            if self._plan.moves_objects:
                self._hold.check()
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                wind_down()
            self.give_back(error)
            is_refused_or_interrupted = isinstance(error, RefusedError | KeyboardInterrupt)
            if is_new and is_refused_or_interrupted and not ledger.is_begun and ledger.hold is None:
                with suppress(MoveError):  # if the record stays, it says that nothing was announced
                    records.remove_record(self._session, self._plan.id)
            raise
        self.why_held = self.give_back(None)

    def give_back(self, error: BaseException | None) -> str:
        """Let the others go on, unless something in their reach would ship twice.

        Parameters
        ----------
        error : the error that ends the run; None when it ends without one

        Returns
        -------
        Why these settings cannot let them go on; else empty, also when something is in reach.
        """
        note = self._ledger.hold
        if note is None:
            return ""
        if note.words != self._hold.words:
            return f"{note.words}, but these settings hold others in another way. {note.way_back}"
        if not self.list_in_reach():
            self._let_go(error)
        return ""

    def let_go_by_approval(self, approval: str, *, carrier: Carrier, jobs: Jobs) -> None:
        """Let the others go on although objects may ship twice, once a person approved which.

        Raises
        ------
        NotApprovedError
            When nobody is held for the plan. When objects may ship twice, and the approval is
            missing or is for other keys.
        """
        plan = self._plan
        ledger = self._ledger
        if ledger.hold is None:
            raise NotApprovedError(f"nobody is held for {plan.id}: there is nothing to end")
        self.use_looks(carrier, jobs)
        carrier.look_at(plan.list_ends())
        keys = self.list_in_reach()
        needed = digest_approval(plan, keys)
        if keys and approval != needed:
            raise NeedsApprovalError(
                f"If the worker goes on, {len(keys)} objects may ship twice: {', '.join(keys)}.",
                command=f"runbook resume {plan.id} --worker-goes-on --approve {needed}",
            )
        ledger.note("goes_on", keys=keys, by=self._operator, sync=True)
        self._let_go(None)

    def list_in_reach(self) -> list[str]:
        """Return the keys that may ship twice if the others go on."""
        ledger = self._ledger
        keys = []
        for row, state in ledger.states.items():
            planned = self._plan.rows[row]
            if not planned.to or ledger.park_states[row] is State.MOVED:
                continue
            if self._plan.header.copies_into_reach:
                if self._is_copy_in_reach(row, state):
                    keys.append(planned.to)
            elif self._is_source_in_reach(row, state):
                keys.append(planned.key)
        return keys

    def _note_hold(self, *, is_paused: bool) -> None:
        """Write down that the others are held, before they are paused.

        If they stand still already, no hold is noted, unless another plan holds them. If this plan
        held them before, and they move nevertheless, also write down that they move.

        Parameters
        ----------
        is_paused : whether the others stand still already
        """
        ledger = self._ledger
        if ledger.hold is not None and not is_paused:
            ledger.note("going", sync=True)
        # If others stand still for another plan, this plan holds them, too: the last of both plans
        # lets them go on.
        if not is_paused or (ledger.hold is None and self._is_held_elsewhere()):
            hold = self._hold
            note = records.make_hold_note(self._session, words=hold.words, way_back=hold.way_back)
            ledger.note("hold", note=note.model_dump(mode="json"), sync=True)
        if not ledger.head:  # so that a resume finds a line, also when nobody is held
            ledger.note("begins", by=self._operator, sync=True)

    def _is_held_elsewhere(self) -> bool:
        """Tell whether another plan holds the others, too: the last such plan ends the hold."""
        open_records = records.list_records(self._session.bucket)
        if any(record.hold is not None and record.plan != self._plan.id for record in open_records):
            return True
        return self._is_held_for_forgotten()

    def _is_held_for_forgotten(self) -> bool:
        """Tell whether a ledger here names a hold for another shard that the bucket forgot.

        If the bucket's memory was not removed since the plan was made, the bucket knows every shard
        that is not over: then no ledger is read. The store's id in the plan tells whether it was
        removed; the plan's ledger may have begun after the removal. If the memory was removed, and
        a shard ended on another machine since then, the bucket has that shard's tombstone: then an
        old hold in its ledger here is over.
        """
        bucket = self._session.bucket
        manifest = self._plan.header.manifest
        if not manifest or read_store_id(bucket) == self._plan.header.store_id:
            return False
        recorded = records.list_recorded_plans(bucket, f"{manifest}#")
        for number in range(1, MAX_SHARDS + 1):
            shard = f"{manifest}#{number}"
            is_forgotten = shard != self._plan.id and shard not in recorded
            if is_forgotten and is_hold_noted(self._logs(shard)):
                return True
        return False

    @contextmanager
    def _claim_hold(self) -> Iterator[None]:
        """Let no other shard of the manifest change the hold, inside a ``with`` block.

        A plan without a manifest needs no second claim: its session keeps everyone else out. The
        second claim outlives the block while a change of this session may still take effect.
        """
        header = self._plan.header
        session = self._session
        if not header.manifest:
            yield
            return

        def renew_and_tell(why: str) -> None:
            """Keep the session's own claim alive while it waits for the hold's claim."""
            session.renew()
            session.notice(why)

        with Session(
            session.bucket,
            header,
            self._operator,
            session.clock,
            renew_and_tell,
            hold_of=header.manifest,
        ) as hold_session:
            try:
                yield
            finally:
                hold_session.share_doubt(session)

    def _let_go(self, error: BaseException | None) -> None:
        """Let the others go on, unless another plan holds them, too; write that the hold ended.

        Parameters
        ----------
        error : the error that ends the run; None when it ends without one

        Raises
        ------
        StoppedError
            When the others may still be paused. After an interrupt, nothing is raised.
        """
        try:
            with self._claim_hold():
                self._session.confirm()
                if not self._is_held_elsewhere():
                    self._hold.resume()
                    self.has_let_go = True
                self._books.write_record(is_held=False)
        except MoveError as failure:
            # The hold stays in the ledger: the error of an interrupt says that others are held.
            if isinstance(error, KeyboardInterrupt):
                return
            why = f"{error}; and " if error else ""
            raise StoppedError(f"{why}the worker may still be paused ({failure})") from failure
        self._ledger.note("hold", note=None, sync=True)

    def _is_copy_in_reach(self, row: int, state: State) -> bool:
        """Tell whether a row's copy may be where the worker takes objects."""
        if state is State.CONFLICT:
            return self._may_lie(row, at_source=False)
        return state in HALF_DONE

    def _is_source_in_reach(self, row: int, state: State) -> bool:
        """Tell whether a row's copy may have shipped, and its source may still be there."""
        is_in_doubt = state in (*HALF_DONE, State.UNPROVEN, State.CONFLICT)
        return is_in_doubt and self._may_lie(row, at_source=True)

    def _may_lie(self, row: int, *, at_source: bool) -> bool:
        """Tell whether a row's planned object may be at its source, or at its destination.

        at_source says which end is meant. Without a look, every object may be there.
        """
        if self._carrier is None or self._jobs is None:
            return True
        job = self._jobs.make(row)
        if at_source:
            place = self._carrier.judge_source(job)
        else:
            place = self._carrier.judge_destination(job)
        return place in (Place.SAME, Place.UNKNOWN)
