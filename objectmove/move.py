"""Carry out a plan: copy, prove, delete, in small serial batches; go on after anything.

``apply_plan`` begins a plan, ``resume_plan`` goes on with one; both carry out releases, undos and
settlings alike. What may be done to a row, and when, is asked of ``table.decide`` alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from .bucket import Answer, Bucket, Request, Seen, find_all, format_time
from .errors import (
    DriftError,
    ExpiredError,
    MoveError,
    MoversError,
    NotApprovedError,
    NotReadyError,
    PlanError,
    StoppedError,
    StoreError,
)
from .ledger import Ledger, Log, Logs
from .plan import MovePlan, PlanRow
from .probe import probe
from .record import (
    Record,
    delete_record,
    find_keys_in_doubt,
    pack,
    read_record,
    unpack,
    write_record,
    write_recorded_plan,
)
from .session import Clock, Notice, Session, SystemClock
from .table import Act, Fence, Place, Seat, State, decide

__all__ = ["BATCH", "Hold", "MoveResult", "apply_plan", "place_of", "resume_plan"]

BATCH = 64
"""Rows whose copies are announced together: the most that a kill can leave in doubt."""

_BULK = 16
_LOOK_S = 2.0
_ROUNDS = 3
_LISTS = (Act.DELETE, Act.DONE, Act.CONFLICT, Act.UNPROVEN)
_OPEN = (State.NONE, State.DOUBTFUL, State.LANDED)


class Hold(Protocol):
    """Keeps everyone else from moving; handed in.

    ``words`` says how, and stands in the plan.
    """

    words: str

    def is_paused(self) -> bool:
        """Tell whether nobody moves now; ``MoversError`` when that cannot be known."""

    def pause(self) -> None:
        """Have the others stand still; ``MoversError`` when they do not."""

    def check(self) -> None:
        """Raise ``MoversError`` unless they stand still, and the pass under way has ended."""

    def resume(self) -> None:
        """Let them go on; any ``MoveError`` when that is not certain."""


@dataclass(frozen=True, slots=True)
class MoveResult:
    """What a run did.

    Attributes
    ----------
    moved : rows that are at their destination, or were taken there; ``already`` of them were found
        there by a look, after an answer was lost
    conflicts, failed : key and reason of rows that did not move; the failed may be tried again
    unproven : keys that a person must settle
    waiting : rows that were not dealt with
    lost_in_window : keys whose newer version went in the declared window
    stopped : why the run ended early
    """

    plan: str
    moved: int = 0
    already: int = 0
    conflicts: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    unproven: tuple[str, ...] = ()
    waiting: int = 0
    lost_in_window: tuple[str, ...] = ()
    settled: int = 0
    hold: str = ""
    stopped: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether every planned object was moved, and nothing was lost."""
        troubles = (self.conflicts, self.failed, self.unproven, self.lost_in_window)
        return not (any(troubles) or self.waiting or self.stopped)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "plan": self.plan,
            "moved": self.moved,
            "already": self.already,
            "conflicts": [{"key": key, "reason": why} for key, why in self.conflicts],
            "failed": [{"key": key, "reason": why} for key, why in self.failed],
            "unproven": list(self.unproven),
            "waiting": self.waiting,
            "lost_in_window": list(self.lost_in_window),
            "settled": self.settled,
            "hold": self.hold,
            "stopped": self.stopped,
        }


@dataclass(frozen=True, slots=True)
class _Run:
    """What a run needs beside its plan."""

    bucket: Bucket
    logs: Logs
    operator: str
    hold: Hold
    clock: Clock = field(default_factory=SystemClock)
    notice: Notice = lambda _: None
    progress: Callable[[int, int], None] = lambda _done, _total: None
    batch_size: int = BATCH
    age_key: str = ""


def apply_plan(
    bucket: Bucket,
    plan: MovePlan,
    *,
    approve: str,
    logs: Logs,
    operator: str,
    hold: Hold,
    **how: Any,
) -> MoveResult:
    """Carry out an approved plan that was never begun.

    Parameters
    ----------
    approve : the plan's SHA-256
    logs : gives the ledger of a plan
    operator : who approves; stands in ledger, claim and record
    hold : who else may move
    how : ``clock``; ``notice``, told what is waited for; ``progress``, called with rows dealt with
        and all; ``batch_size``; ``age_key``, the metadata in which an undo keeps an object's age

    Raises
    ------
    RefusedError
        When a safety rule refuses; nothing was changed.
    StoppedError
        When the session ended early; what it did stands in the ledger.
    LogError
        When the ledger cannot be read or written.

    Notes
    -----
    Changes the planned objects and ``.runbook/``; undone by ``make_undo_plan``.
    """
    if approve != plan.sha256:
        raise NotApprovedError(f"the approval is not of {plan.id}: its SHA-256 is {plan.sha256}")
    return _carry_out(plan, _Run(bucket, logs, operator, hold, **how), is_new=True)


def resume_plan(
    bucket: Bucket, plan: MovePlan, *, logs: Logs, operator: str, hold: Hold, **how: Any
) -> MoveResult:
    """Go on with a plan that was begun, from its ledger or the bucket's record.

    Parameters and errors are those of ``apply_plan``; the approval was given.
    """
    return _carry_out(plan, _Run(bucket, logs, operator, hold, **how), is_new=False)


def place_of(seen: Seen | None, planned: PlanRow, *, at_source: bool, etag: str = "") -> Place:
    """Say what a look means: at the source the version counts, at the destination the content.

    Parameters
    ----------
    etag : that our copy got, where it is another than the planned one
    """
    if seen is None:
        return Place.ABSENT
    if at_source:
        return Place.SAME if planned.version.is_same(seen) else Place.OTHER
    is_same = seen.etag in (planned.etag, etag) and seen.size_bytes == planned.size_bytes
    return Place.SAME if is_same else Place.OTHER


def _carry_out(plan: MovePlan, run: _Run, *, is_new: bool) -> MoveResult:
    header, timing = plan.header, plan.header.timing
    if (header.endpoint, header.bucket) != (run.bucket.endpoint, run.bucket.name):
        raise NotApprovedError(
            f"{plan.id} is of {header.bucket} at {header.endpoint}, not of {run.bucket.name} at "
            f"{run.bucket.endpoint}"
        )
    log = run.logs(plan.id)
    with ExitStack() as stack:
        stack.enter_context(log.locked())
        parent = run.logs(header.parent) if header.parent else None
        if parent is not None:
            stack.enter_context(parent.locked())
        if is_new:
            _check_new(Ledger(log, plan), run.clock.now())
        session = stack.enter_context(
            Session(
                run.bucket,
                what=plan.id,
                by=run.operator,
                timing=timing,
                clock=run.clock,
                notice=run.notice,
            )
        )
        record = read_record(run.bucket, plan.id)
        ledger = Ledger(log, plan, record)
        return _Mover(plan, run, session, (ledger, parent), record).run(is_new=is_new)


def _check_new(ledger: Ledger, now: datetime) -> None:
    plan = ledger.plan
    if ledger.approved_sha256:
        state = "was carried out" if ledger.is_done else f"was begun: runbook resume {plan.id}"
        raise NotApprovedError(f"{plan.id} {state}")
    if now > plan.header.expires_at:
        raise ExpiredError(
            f"{plan.id} expired at {format_time(plan.header.expires_at)}: make a new plan"
        )


class _Mover:
    """One run over one plan, inside its session."""

    def __init__(
        self,
        plan: MovePlan,
        run: _Run,
        session: Session,
        ledgers: tuple[Ledger, Log | None],
        record: Record | None,
    ) -> None:
        self._plan, self._run, self._session = plan, run, session
        self._ledger, self._parent = ledgers
        self._record = record
        self._bucket, self._clock = run.bucket, run.clock
        self._rows = plan.rows
        self._fences: dict[int, datetime] = {}  # of requests of this session without an answer
        self._seen: dict[str, Seen | None] = {}
        self._stopped = ""

    def check(self, *, is_new: bool) -> bool:
        """Tell whether there is work to do; refuse what must not begin, or not go on."""
        plan, ledger, record = self._plan, self._ledger, self._record
        if record is not None and record.sha256 != plan.sha256:
            raise PlanError(f"the bucket knows another plan by the name {plan.id}")
        if is_new and record is not None:
            raise NotApprovedError(f"{plan.id} was begun elsewhere: runbook resume {plan.id}")
        if is_new:
            return True
        why = ""
        if ledger.is_done:
            if not ledger.taken_back_by:
                return False
            why = f"{plan.id} was carried out, and taken back by {ledger.taken_back_by}"
        elif record is None and not ledger.approved_sha256:
            why = f"{plan.id} was never begun: apply it"
        elif record is None and ledger.begun:
            why = f"{plan.id} was finished elsewhere: this ledger is an older copy"
        elif ledger.approved_sha256 not in ("", plan.sha256):
            why = f"{plan.id} is not the plan that was approved"
        elif ledger.taken_back_by:
            why = f"{plan.id} was taken back: runbook resume {ledger.taken_back_by}"
        if why and not ledger.is_holding:
            raise NotApprovedError(f"{why}. Nothing was done.")
        self._stopped = why and f"{why}. Only the pause of the worker was taken back."
        return not why

    def run(self, *, is_new: bool) -> MoveResult:
        """Do all that can be done, and leave the bucket's record right."""
        ledger = self._ledger
        if not self.check(is_new=is_new):
            if ledger.is_holding:
                with self._held():
                    pass
                self._forget_hold()
            return self._sum_up()
        with self._held():
            self._begin(is_new=is_new)
            try:
                self._move_all()
            except (StoppedError, MoversError, StoreError) as error:
                self._stopped = str(error)
                if self._session.is_lost or isinstance(error, StoreError):
                    raise StoppedError(
                        f"{error}. What was done stands in the ledger: runbook resume "
                        f"{self._plan.id}"
                    ) from error
        self._finish()
        return self._sum_up()

    # --- before and after ---

    def _forget_hold(self) -> None:
        """Take a pause that is over out of the bucket's record."""
        record = self._record
        if record is not None and record.finished and not record.open_rows:
            delete_record(self._session, self._plan.id)
        elif record is not None:
            head = record.ledger if self._ledger.is_behind else self._ledger.head
            held = {"is_holding": False, "ledger": head}
            write_record(self._session, record.model_copy(update=held))

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep the others still; what we paused, we let go on, also after a crash and a resume."""
        hold, ledger = self._run.hold, self._ledger
        is_ours = not hold.is_paused()
        if is_ours:
            ledger.note("hold", {"taken": True, "words": hold.words}, sync=True)
        try:
            if is_ours:
                hold.pause()
            hold.check()
            yield
        finally:
            if ledger.is_holding:
                try:
                    hold.resume()
                except MoveError as error:
                    raise StoppedError(
                        f"the worker may still be paused ({error}): runbook resume {self._plan.id}"
                    ) from error
                ledger.note("hold", {"taken": False}, sync=True)

    def _begin(self, *, is_new: bool) -> None:
        plan, ledger, session = self._plan, self._ledger, self._session
        found = probe(self._bucket, expires_s=plan.header.timing.expires_s)
        if found != plan.header.abilities:
            raise NotReadyError(f"the store behaves differently than when {plan.id} was made")
        self._look_everywhere()
        doubts = find_keys_in_doubt(self._bucket, but={plan.id, plan.header.parent})
        if is_new:
            self._check_drift(doubts)
        session.renew()
        if not ledger.approved_sha256:
            by = self._record.by if self._record else self._run.operator
            data = {"plan": plan.id, "sha256": plan.sha256, "by": by, "objects": len(plan.rows)}
            where = {"bucket": plan.header.bucket, "endpoint": plan.header.endpoint}
            ledger.note("approved", {**data, **where}, sync=True)
        if not is_new:
            ledger.note("resumed", {"by": self._run.operator}, sync=True)
            ledger.keep_belief()
            self._skip(doubts)
        if self._parent is not None and plan.header.action == "undo":
            self._mark_parent(self._parent)
        if self._record is None:
            write_recorded_plan(session, plan)
        self._write_record()

    def _look_everywhere(self) -> None:
        """Look at every source and destination, by listings."""
        header, rows = self._plan.header, [row for row in self._rows if row.to]
        sources = find_all(self._bucket, header.source, [row.key for row in rows])
        again = [key for key, seen in sources.items() if seen is None]
        sources |= self._bucket.look(again) if len(again) < 100 else {}
        self._seen = sources | find_all(self._bucket, header.to, [row.to for row in rows])

    def _skip(self, doubts: Mapping[str, str]) -> None:
        """Leave out what another release touched meanwhile, and nobody can know."""
        skipped = [r for r in self._ledger.rows(State.NONE) if self._rows[r].key in doubts]
        for row in skipped:
            self._ledger.reasons[row] = f"{doubts[self._rows[row].key]} touched it"
        self._ledger.settle_rows(skipped=skipped)

    def _check_drift(self, doubts: Mapping[str, str]) -> None:
        changed = []
        for row in self._rows:
            if row.key in doubts or row.to in doubts:
                changed.append(f"{row.key}: {doubts.get(row.key) or doubts[row.to]} touched it")
            elif row.to and self._place(row, at_source=True) is not Place.SAME:
                changed.append(f"{row.key}: it changed, or is gone")
        if changed:
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise DriftError(
                f"{len(changed)} planned objects are not what they were ({'; '.join(changed[:5])}"
                f"{more}). Nothing was changed; make a new plan."
            )

    def _mark_parent(self, log: Log) -> None:
        """Say where the release stands that it is being taken back, before its copies go."""
        parent = self._plan.header.parent
        log.append("taken_back", {"by": self._plan.id})
        if record := read_record(self._bucket, parent):
            write_record(self._session, record.model_copy(update={"taken_back_by": self._plan.id}))

    def _write_record(self, *, finished: bool = False) -> None:
        ledger = self._ledger
        write_record(
            self._session,
            Record(
                plan=self._plan.id,
                sha256=self._plan.sha256,
                by=ledger.approved_by or self._run.operator,
                host=self._session.host,
                rows=len(self._rows),
                begun=ledger.begun,
                ledger=ledger.head,
                fence_at=self._session.fence_at,
                finished=finished,
                unproven=tuple(pack(ledger.rows(State.UNPROVEN))),
                conflicts=tuple(pack(ledger.rows(State.CONFLICT))),
                is_holding=ledger.is_holding,
                taken_back_by=ledger.taken_back_by,
            ),
        )

    def _finish(self) -> None:
        """Close ledger and record when nothing is left to do but what a person must decide."""
        ledger, header = self._ledger, self._plan.header
        if header.action == "settle":
            open_ = [row for row in ledger.rows(*_OPEN) if self._rows[row].to]
        else:
            open_ = ledger.rows(*_OPEN)
        self._session.renew()
        if open_:
            self._write_record()
            return
        if not ledger.is_done:
            if self._parent is not None:
                self._finish_parent(self._parent)
            ledger.note("done", self._sum_up().to_json(), sync=True)
        if ledger.rows(State.UNPROVEN, State.CONFLICT):
            self._write_record(finished=True)
        else:
            delete_record(self._session, self._plan.id)
        ledger.close()

    def _finish_parent(self, log: Log) -> None:
        """Write a person's word, or the undo, into the release that it is about."""
        header = self._plan.header
        record = read_record(self._bucket, header.parent)
        open_ = record.open_rows if record else set()
        if header.action == "settle":
            fine = (State.MOVED,)
            settled = {
                int(row.facts["row"])
                for place, row in enumerate(self._rows)
                if not row.to or self._ledger.states[place] in fine
            }
            data = {"rows": pack(settled), "word": header.word, "by": self._run.operator}
            known = {entry.hash for entry in log.read()}
            entry = log.append("settled", {**data, "plan": self._plan.id})
            open_ -= settled
        if record is None:
            return
        # another machine's ledger of the release stays behind what the bucket knows
        head = record.ledger
        if header.action == "settle" and head in known:
            head = entry.hash
        if open_ or record.is_holding or not (record.finished or header.action == "undo"):
            left = {
                "unproven": tuple(pack(unpack(record.unproven) & open_)),
                "conflicts": tuple(pack(unpack(record.conflicts) & open_)),
                "finished": record.finished or header.action == "undo",
                "ledger": head,
            }
            write_record(self._session, record.model_copy(update=left))
        else:
            delete_record(self._session, header.parent)

    # --- the work ---

    def _move_all(self) -> None:
        """Settle what is in doubt, move what waits, settle what came of it."""
        self._resolve()
        waiting = [row for row in self._ledger.rows(State.NONE) if self._rows[row].to]
        self._move_in_batches(waiting)
        self._resolve()
        refused = [r for r in waiting if r in self._ledger.reasons]
        if again := [row for row in refused if self._ledger.states[row] is State.NONE]:
            self._move_in_batches(again)
            self._resolve()

    def _move_in_batches(self, rows: Sequence[int]) -> None:
        """Move one object to its end, and then the others, a batch at a time."""
        start = 0
        while start < len(rows):
            batch = rows[start : start + (self._run.batch_size if start else 1)]
            self._move(batch)
            if not start and self._ledger.states[batch[0]] not in (State.MOVED, State.SKIPPED):
                self._resolve()
                if self._ledger.states[batch[0]] not in (State.MOVED, State.SKIPPED):
                    why = self._ledger.reasons.get(batch[0], "nobody knows what became of it")
                    raise StoppedError(f"the first object did not move: {why}")
            start += len(batch)
            self._run.progress(start, len(rows))

    def _move(self, batch: Sequence[int]) -> None:
        """Copy a batch, then delete the sources of what landed."""
        ledger, session = self._ledger, self._session
        self._run.hold.check()
        if not self._plan.header.abilities.conditional_copy:
            self._seen |= self._look_at(self._rows[row].to for row in batch)
        if self._plan.header.action == "undo":
            self._seen |= self._look_at(self._rows[row].key for row in batch)  # for its metadata
        session.renew()  # the last time before the copies: their fence is written down now
        copies = self._sort(batch)
        if copies:
            requests = [self._make_copy(self._rows[row]) for row in copies]
            ledger.announce(copies, session.fence_at)
            self._write_record()
            answers = session.send(
                requests, lambda index, answer: self._take_copy(copies[index], answer)
            )
            for row, answer in zip(copies, answers, strict=True):
                if answer.effect == "done" and ledger.states[row] is State.DOUBTFUL:
                    self._compare_content(row, answer)
                if ledger.states[row] is State.DOUBTFUL:
                    self._fences[row] = session.fence_at
            is_silent = all(a.effect == "none" or a.code == "NoAnswer" for a in answers)
            if is_silent and len(copies) > 1:
                raise StoppedError(f"no copy was answered: {ledger.reasons.get(copies[0], '')}")
        self._delete([row for row in batch if ledger.states[row] is State.LANDED])

    def _sort(self, batch: Sequence[int]) -> list[int]:
        """Return the rows to copy; note those that must not be, or need not."""
        copies, skipped = [], []
        for row in batch:
            rule = self._decide(row, Seat.HELD)
            if rule.act is Act.COPY:
                copies.append(row)
            elif rule.act is Act.ADOPT:
                self._adopt(row)
            elif rule.act is Act.SKIP:
                skipped.append(row)
                self._ledger.reasons[row] = rule.reason
        self._ledger.settle_rows(skipped=skipped)
        return copies

    def _make_copy(self, row: PlanRow) -> Request:
        """Return the guarded copy of a row; an undo writes the age down where it can."""
        headers: dict[str, str] = {}
        key, seen = self._run.age_key, self._seen.get(row.key)
        if self._plan.header.action == "undo" and key and seen is not None:
            metadata = {key: format_time(row.age_start), **(seen.metadata or {})}
            kept = {**seen.headers, **{f"x-amz-meta-{n}": text for n, text in metadata.items()}}
            if key not in (seen.metadata or {}) and "".join(kept.values()).isascii():
                headers = kept
        return Request(
            "copy",
            row.to,
            source=row.key,
            if_match=row.etag,
            if_absent=self._plan.header.abilities.conditional_copy,
            headers=headers,
        )

    def _take_copy(self, row: int, answer: Answer) -> None:
        """Write what an answer proves, as it comes; anything else stays doubtful."""
        planned, ledger = self._rows[row], self._ledger
        rows = pack([row])
        if answer.effect == "done" and answer.etag == planned.etag:
            at = format_time(answer.last_modified) if answer.last_modified else ""
            ledger.note("landed", {"rows": rows, "etag": answer.etag, "at": at})
        elif answer.effect == "none":
            why = f"{answer.code} {answer.message}".strip()
            ledger.note("refused", {"rows": rows, "reasons": {str(row): why}})
        elif answer.effect == "unknown":
            why = f"the copy was answered by {answer.code} {answer.message}".strip()
            ledger.note("doubtful", {"reasons": {str(row): why}})

    def _compare_content(self, row: int, answer: Answer) -> None:
        """Judge a copy that got another ETag: by its bytes where the plan has their hash."""
        planned, ledger = self._rows[row], self._ledger
        if not planned.sha256:
            ledger.reasons[row] = f"the copy has another ETag ({answer.etag}): look at both keys"
            ledger.settle_rows(conflicts=[row])
            return
        try:
            found = self._bucket.read_sha256(planned.to)
        except StoreError as error:
            ledger.reasons[row] = f"the copy could not be compared: {error}"
            return
        if found == planned.sha256:
            at = format_time(answer.last_modified) if answer.last_modified else ""
            ledger.note("landed", {"rows": pack([row]), "etag": answer.etag, "at": at})
        else:
            ledger.reasons[row] = "the copy has other content: look at both keys"
            ledger.settle_rows(conflicts=[row])

    def _adopt(self, row: int) -> None:
        seen = self._seen[self._rows[row].to]
        etag = seen.etag if seen else ""
        self._ledger.note("landed", {"rows": pack([row]), "etag": etag, "at": ""})

    def _delete(self, rows: Sequence[int]) -> None:
        """Delete the sources of rows that landed, each only if it is still the planned version."""
        ledger, session = self._ledger, self._session
        is_guarded = self._plan.header.abilities.conditional_delete
        session.renew()
        looked_at = self._clock.monotonic()
        if not is_guarded and rows:
            rows = self._look_before_delete(rows)
        if not rows:
            return
        ledger.note(
            "deleting", {"rows": pack(rows), "fence_at": format_time(session.fence_at)}, sync=True
        )
        if is_guarded:
            parts = [[row] for row in rows]
            requests = [
                Request("delete", self._rows[row].key, if_match=self._rows[row].etag)
                for row in rows
            ]
        else:
            parts = [list(rows[i : i + _BULK]) for i in range(0, len(rows), _BULK)]
            requests = [
                Request("delete_many", keys=tuple(self._rows[row].key for row in part))
                for part in parts
            ]
            if self._clock.monotonic() - looked_at > _LOOK_S:
                return  # the look is too old: the next round looks again
        moved = []
        for part, answer in zip(parts, session.send(requests), strict=True):
            for row in part:
                code = answer.failed.get(self._rows[row].key, answer.code)
                if answer.effect == "done" and not code:
                    moved.append(row)
                elif answer.effect != "none" and code != "AccessDenied":
                    self._fences[row] = session.fence_at
                if code:
                    ledger.reasons[row] = f"the delete was answered by {code}"
        ledger.settle_rows(moved=moved)

    def _look_before_delete(self, rows: Sequence[int]) -> list[int]:
        """Return the rows whose source is still the planned version."""
        self._seen |= self._look_at(self._rows[row].key for row in rows)
        kept, moved, conflicts = [], [], []
        for row in rows:
            source = self._place(self._rows[row], at_source=True)
            rule = decide(
                fence=Fence.PASSED,
                seat=Seat.HELD,
                state=State.LANDED,
                source=source,
                destination=Place.UNKNOWN,
            )
            if rule.act is Act.DELETE:
                kept.append(row)
            elif rule.act is Act.DONE:
                moved.append(row)
            elif rule.act is Act.CONFLICT:
                conflicts.append(row)
                self._ledger.reasons[row] = rule.reason
        self._ledger.settle_rows(moved=moved, conflicts=conflicts)
        return kept

    def _resolve(self) -> None:
        """Wait until nothing can be in flight for the rows in doubt, look, and do what is right."""
        ledger = self._ledger
        for _ in range(_ROUNDS):
            rows = ledger.rows(State.DOUBTFUL, State.LANDED)
            if not rows:
                return
            past = self._session.stamp if ledger.fence_at is None else ledger.fence_at
            until = max(self._fences.get(row, past) for row in rows)
            self._session.wait_until(until, f"{len(rows)} objects may still change")
            self._run.hold.check()
            keys = (key for row in rows for key in (self._rows[row].key, self._rows[row].to))
            self._seen |= self._look_at(keys)
            deletes, moved, conflicts, unproven = list[int](), list[int](), list[int](), list[int]()
            for row in rows:
                self._fences.pop(row, None)
                rule = self._decide(row, Seat.HELD)
                if rule.act is Act.ADOPT:
                    self._adopt(row)
                    deletes.append(row)
                elif rule.act in _LISTS:
                    lists = {
                        Act.DELETE: deletes,
                        Act.DONE: moved,
                        Act.CONFLICT: conflicts,
                        Act.UNPROVEN: unproven,
                    }
                    lists[rule.act].append(row)
                    if rule.act in (Act.CONFLICT, Act.UNPROVEN):
                        ledger.reasons[row] = rule.reason
            ledger.settle_rows(moved=moved, conflicts=conflicts, unproven=unproven)
            for start in range(0, len(deletes), self._run.batch_size):
                self._delete(deletes[start : start + self._run.batch_size])

    def _decide(self, row: int, seat: Seat) -> Any:
        planned, ledger = self._rows[row], self._ledger
        fence = Fence.OPEN if row in self._fences else Fence.PASSED
        return decide(
            fence=fence,
            seat=seat,
            state=ledger.states[row],
            source=self._place(planned, at_source=True),
            destination=self._place(planned, at_source=False, row=row),
        )

    def _place(self, planned: PlanRow, *, at_source: bool, row: int | None = None) -> Place:
        key = planned.key if at_source else planned.to
        if key not in self._seen:
            return Place.UNKNOWN
        landing = self._ledger.landings.get(row) if row is not None else None
        etag = landing.etag if landing else ""
        seen = self._seen[key]
        if planned.sha256 and not at_source and seen is not None and seen.etag != etag:
            # neither ETag is a hash: the bytes decide
            try:
                return (
                    Place.SAME if self._bucket.read_sha256(key) == planned.sha256 else Place.OTHER
                )
            except StoreError:
                return Place.UNKNOWN
        return place_of(seen, planned, at_source=at_source, etag=etag)

    def _look_at(self, keys: Any) -> dict[str, Seen | None]:
        """Look anew; what could not be read is not known any more."""
        wanted = list(keys)
        for key in wanted:
            self._seen.pop(key, None)
        return self._bucket.look(wanted)

    def _sum_up(self) -> MoveResult:
        ledger, rows = self._ledger, self._rows
        count = Counter(ledger.states)
        movable = [row for row in ledger.rows(*_OPEN) if rows[row].to]

        def explain(*states: State) -> tuple[tuple[str, str], ...]:
            return tuple((rows[r].key, ledger.reasons.get(r, "")) for r in ledger.rows(*states))

        failed = tuple((rows[r].key, ledger.reasons[r]) for r in movable if r in ledger.reasons)
        return MoveResult(
            plan=self._plan.id,
            moved=count[State.MOVED],
            already=len(ledger.already & set(ledger.rows(State.MOVED))),
            conflicts=explain(State.CONFLICT, State.SKIPPED),
            failed=failed,
            unproven=tuple(rows[r].key for r in ledger.rows(State.UNPROVEN)),
            waiting=len(movable) + count[State.FREED],
            lost_in_window=tuple(ledger.lost),
            settled=count[State.TAKEN] + count[State.FREED],
            hold=self._run.hold.words,
            stopped=self._stopped,
        )
