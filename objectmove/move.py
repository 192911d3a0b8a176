"""Carry out a plan: copy, prove, delete, in small serial batches; go on after anything.

``apply_plan`` begins a plan, ``resume_plan`` goes on with one; both carry out releases, undos and
settlings alike. What may be done to a row, and when, is asked of ``table.decide`` alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Protocol

from chainlog import ChainedLog

from . import errors
from . import ledger as ledgers
from .bucket import Answer, Request, S3Bucket, Seen, find_all, format_time
from .errors import MoveError, NotApprovedError, StoppedError, StoreError
from .ledger import CLOSED, OPEN, Ledger, Logs, Record
from .plan import MovePlan, PlanRow
from .probe import probe
from .session import Clock, Notice, Session
from .table import Act, Place, State, decide

BATCH = 64
"""Rows whose copies are announced together: the most that a kill can leave in doubt."""

_BULK = 16
_LOOK_S = 2.0
_ROUNDS = 3
_HALF = (State.DOUBTFUL, State.LANDED)


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
    conflicts, failed : ``key`` and ``reason`` of rows that did not move; the failed may be tried
        again
    unproven : keys that a person must settle
    waiting : rows that were not dealt with
    lost_in_window : keys whose newer version went in the declared window
    stopped : why the run ended early
    """

    plan: str
    moved: int
    already: int
    conflicts: list[dict[str, str]]
    failed: list[dict[str, str]]
    unproven: list[str]
    waiting: int
    lost_in_window: list[str]
    settled: int
    stopped: str

    @property
    def is_complete(self) -> bool:
        """Whether every planned object was moved, and nothing was lost."""
        left = (self.conflicts, self.failed, self.unproven, self.waiting)
        return not any((*left, self.lost_in_window, self.stopped))


FindNewer = Callable[[Mapping[str, datetime]], set[str]]
"""Key to LastModified: which of them were written later."""

Watch = Callable[[str], AbstractContextManager[FindNewer]]
"""Hears of writes under a prefix inside its ``with`` block."""


def _watch_nothing(_prefix: str) -> AbstractContextManager[FindNewer]:
    return nullcontext(lambda _than: set())


def apply_plan(bucket: S3Bucket, plan: MovePlan, *, approve: str, **how: Any) -> MoveResult:
    """Carry out an approved plan that was never begun.

    Parameters
    ----------
    approve : the plan's SHA-256
    how : ``logs``, which gives the ledger of a plan; ``operator``, who approves: stands in ledger,
        claim and record; ``hold``, of who else may move. If wanted: ``clock``; ``notice``, told
        what is waited for; ``progress``, called with rows dealt with and all; ``age_key``, the
        metadata in which an undo keeps an object's age; ``watch``, which hears of writes, so that
        a loss in the declared window is told

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
    return _Mover(bucket, plan, **how).run(is_new=True)


def resume_plan(bucket: S3Bucket, plan: MovePlan, **how: Any) -> MoveResult:
    """Go on with a plan that was begun, from its ledger or the bucket's record.

    Parameters and errors are those of ``apply_plan``; the approval was given.
    """
    return _Mover(bucket, plan, **how).run(is_new=False)


def place_of(
    found: Mapping[str, Seen | None], planned: PlanRow, *, at_source: bool, etag: str = ""
) -> Place:
    """Say what a look means: at the source the version counts, at the destination the content.

    Parameters
    ----------
    found : what was looked at
    etag : that our copy got, where it is another than the planned one
    """
    key = planned.key if at_source else planned.to
    if key not in found:
        return Place.UNKNOWN
    if (seen := found[key]) is None:
        return Place.ABSENT
    is_same = seen.etag in (planned.etag, etag) and seen.size_bytes == planned.size_bytes
    return Place.SAME if (planned.is_same(seen) if at_source else is_same) else Place.OTHER


def _cut(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


@dataclass
class _Mover:
    """One run over one plan.

    Attributes
    ----------
    parent : ledger of the release that an undo or a settling is about
    record : what the bucket knew when the session began
    seen, looked_at : the last looks, by key, and when the last one began
    """

    bucket: S3Bucket
    plan: MovePlan
    logs: Logs
    operator: str
    hold: Hold
    clock: Clock = field(default_factory=Clock)
    notice: Notice = lambda _: None
    progress: Callable[[int, int], None] = lambda _done, _total: None
    age_key: str = ""
    watch: Watch = _watch_nothing
    session: Session = field(init=False)
    ledger: Ledger = field(init=False)
    parent: ChainedLog | None = None
    record: Record | None = None
    seen: dict[str, Seen | None] = field(default_factory=dict)
    looked_at: float = 0.0
    stopped: str = ""

    def run(self, *, is_new: bool) -> MoveResult:
        """Lock the ledger, claim the bucket, and do all that can be done."""
        plan, header, bucket = self.plan, self.plan.header, self.bucket
        if (header.endpoint, header.bucket) != (bucket.endpoint, bucket.name):
            of = f"{header.bucket} at {header.endpoint}"
            raise NotApprovedError(f"{plan.id} is of {of}: these settings name another bucket")
        log, self.parent = self.logs(plan.id), self.logs(header.parent) if header.parent else None
        with ExitStack() as stack:
            for some in filter(None, (log, self.parent)):
                stack.enter_context(some.locked())
            session = Session(bucket, plan, self.operator, self.clock, self.notice)
            self.session = stack.enter_context(session)
            self.record = ledgers.read_record(bucket, plan.id)
            self.ledger = Ledger(log, plan, self.record)
            return self._carry_out(is_new=is_new)

    def _carry_out(self, *, is_new: bool) -> MoveResult:
        """Do the work, and leave the bucket's record right."""
        why, ledger, plan = self._explain_refusal(is_new=is_new), self.ledger, self.plan
        if ledger.is_behind and self.record is not None:
            ledger.note("believed", sync=True, record=self.record.model_dump(mode="json"))
        if why or ledger.is_done:
            with self._held() if ledger.is_holding else nullcontext():
                pass
            self._close_record()
            if why:
                raise NotApprovedError(f"{why}. Nothing was moved.")
            return self._sum_up()
        watch = _watch_nothing if plan.header.abilities.conditional_delete else self.watch
        with self._held(), watch(plan.header.source) as find_newer:
            self._begin(is_new=is_new)
            before = set(ledger.rows(State.MOVED))
            try:
                self._move_all()
                self._note_losses(before, find_newer)
            except (StoppedError, errors.MoversError, StoreError) as error:
                self.stopped = str(error)
                if self.session.is_lost or isinstance(error, StoreError):
                    raise StoppedError(f"{error}. To go on: runbook resume {plan.id}") from error
        self._finish()
        return self._sum_up()

    # --- before and after ---

    def _note_losses(self, before: set[int], find_newer: FindNewer) -> None:
        """Write down which newer versions went in the declared window, where the store tells."""
        rows = [self.plan.rows[n] for n in self.ledger.rows(State.MOVED) if n not in before]
        newer = find_newer({row.key: row.last_modified for row in rows})
        there = self.bucket.look(sorted(newer))
        if lost := [key for key, seen in there.items() if seen is None]:
            self.ledger.note("window", lost=lost, sync=True)

    def _explain_refusal(self, *, is_new: bool) -> str:
        """Say why a plan cannot be gone on with; raise when it must not begin."""
        plan, ledger, record = self.plan, self.ledger, self.record
        if {ledger.approved_sha256, record.sha256 if record else ""} - {"", plan.sha256}:
            raise NotApprovedError(f"{plan.id} is not the plan that was approved by that name")
        is_begun = ledger.begun > 0 or ledger.is_done or record is not None
        until = plan.header.expires_at
        if is_new:
            if is_begun:
                what = "carried out" if ledger.is_done else f"begun: runbook resume {plan.id}"
                raise NotApprovedError(f"{plan.id} was {what}")
            if self.clock.now() > until and not ledger.approved_sha256:
                raise errors.ExpiredError(f"{plan.id} expired at {format_time(until)}: plan again")
        elif ledger.is_taken_back or ledgers.read_record(self.bucket, f"{plan.id}-undo"):
            return f"{plan.id} was taken back: runbook resume {plan.id}-undo"
        elif not is_begun:
            return f"{plan.id} was never begun: apply it"
        elif not ledger.is_done and (record is None or record.finished):
            return f"{plan.id} was finished elsewhere: this ledger is an older copy"
        return ""

    def _close_record(self) -> None:
        """Have the bucket's record say that nothing to do is left, or no pause of ours."""
        record, ledger = self.record, self.ledger
        if record is not None and ledger.is_done and not record.finished:
            ledger.note("closed", sync=True)  # after a failed fsync the end may not be on the disk
            self._write_record(finished=True)
        elif record is not None:
            changes = {"is_holding": False, "ledger": ledger.head}
            ledgers.put_record(self.session, record.model_copy(update=changes))

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep the others still; what we paused, we let go on, also after a crash and a resume."""
        hold, ledger = self.hold, self.ledger
        if is_ours := not hold.is_paused():
            ledger.note("hold", taken=True, words=hold.words, sync=True)
        with ExitStack() as stack:
            stack.push(lambda _kind, error, _trace: self._give_back(error))
            if is_ours:
                hold.pause()
            hold.check()
            yield

    def _give_back(self, error: BaseException | None) -> None:
        """Let the others go on, if the claim is still ours: else another session relies on it."""
        ledger, session, rows = self.ledger, self.session, self.ledger.rows(*_HALF)
        is_cut = isinstance(error, KeyboardInterrupt)
        # else it would wait for a time-out, or the worker would move what is half moved: resume
        if not ledger.is_holding or (is_cut and (session.is_silent or rows)):
            return
        try:
            if rows:
                session.wait_until(ledger.fence_at, "requests may still take effect")
            session.confirm()
            self.hold.resume()
        except MoveError as failure:
            if not is_cut:
                why = f"{error}; and " if error else ""
                text = f"{why}the worker may still be paused ({failure})"
                raise StoppedError(f"{text}: runbook resume {self.plan.id}") from failure
        else:
            ledger.note("hold", taken=False, sync=True)

    def _begin(self, *, is_new: bool) -> None:
        plan, ledger, header = self.plan, self.ledger, self.plan.header
        if probe(self.bucket, expires_s=header.timing.expires_s) != header.abilities:
            raise errors.NotReadyError(f"the store is not as it was when {plan.id} was made")
        rows = [row for row in plan.rows if row.to]
        self.seen = find_all(self.bucket, header.source, [row.key for row in rows])
        self.seen |= find_all(self.bucket, header.to, [row.to for row in rows])
        doubts = ledgers.find_keys_in_doubt(self.bucket, but={plan.id, header.parent})
        if is_new:
            self._check_drift(doubts)
        self.session.renew()
        if not ledger.approved_sha256:
            by = self.record.by if self.record else self.operator
            ledger.note("approved", sync=True, plan=plan.id, sha256=plan.sha256, by=by)
        if not is_new:
            ledger.note("resumed", by=self.operator, sync=True)
            touched = [r for r in ledger.rows(State.NONE) if plan.rows[r].key in doubts]
            ledger.reasons |= {r: f"{doubts[plan.rows[r].key]} touched it" for r in touched}
            ledger.close(State.SKIPPED, touched)
        if self.record is None:
            ledgers.put_recorded_plan(self.session, plan)
        self._write_record()
        if self.parent is not None and header.action == "undo":
            self.parent.append("taken_back", {})  # once anyone can go on with this

    def _check_drift(self, doubts: Mapping[str, str]) -> None:
        changed = []
        for number, row in enumerate(self.plan.rows):
            if touched_by := doubts.get(row.key) or doubts.get(row.to):
                changed.append(f"{row.key}: {touched_by} touched it")
            elif row.to and self._place(number, at_source=True) is not Place.SAME:
                changed.append(f"{row.key}: it changed, or is gone")
        if changed:
            some = "; ".join(changed[:5])
            what = f"{len(changed)} planned objects are not what they were: {some}"
            raise errors.DriftError(f"{what}. Nothing was changed; make a new plan.")

    def _write_record(self, *, finished: bool = False) -> None:
        """Have the bucket know what the ledger says."""
        ledger, plan, session = self.ledger, self.plan, self.session
        what = {"plan": plan.id, "sha256": plan.sha256, "finished": finished}
        who = {"by": ledger.approved_by or self.operator, "host": session.claim.host}
        known = {"begun": ledger.begun, "ledger": ledger.head, "is_holding": ledger.is_holding}
        known |= {"open_rows": ledger.rows(*OPEN), "fence_at": session.fence_at}
        ledgers.put_record(session, Record.model_validate({**what, **who, **known}))

    def _list_open(self, *states: State) -> list[int]:
        """Return the rows in some states that are to be moved; default: that are not dealt with."""
        rows = self.ledger.rows(*(states or (State.NONE, *_HALF)))
        return [row for row in rows if self.plan.rows[row].to]

    def _finish(self) -> None:
        """Close ledger and record when nothing is left to do but what a person must decide."""
        ledger, is_over = self.ledger, not self._list_open()
        self.session.renew()
        if is_over and not ledger.is_done:
            if self.parent is not None:
                self._finish_parent(self.parent)
            ledger.note("done", **asdict(self._sum_up()), sync=True)
        self._write_record(finished=is_over)
        if is_over:
            ledger.log.release_reserve()

    def _list_settled(self) -> list[int]:
        """Return the rows of the release on which a person's word was carried out here."""
        is_word, states = self.plan.header.action == "settle", self.ledger.states
        done = [n for n, row in enumerate(self.plan.rows) if not row.to or states[n] is State.MOVED]
        return [int(self.plan.rows[n].facts["row"]) for n in done if is_word]

    def _finish_parent(self, log: ChainedLog) -> None:
        """Write a person's word, or the undo, into the release that it is about."""
        header, settled, changes = self.plan.header, self._list_settled(), dict[str, Any]()
        record = ledgers.read_record(self.bucket, header.parent)
        if header.action == "settle":
            known = {entry.hash for entry in log.read()}
            by = {"by": self.operator, "plan": self.plan.id}
            entry = log.append(header.word, {"rows": settled, **by})
            if record is not None and record.ledger in known:
                # another machine's ledger of the release stays behind what the bucket knows
                changes["ledger"] = entry.hash
        else:
            changes["finished"] = True
        if record is not None:
            changes["open_rows"] = record.open_rows.difference(settled)
            ledgers.put_record(self.session, record.model_copy(update=changes))

    # --- the work ---

    def _move_all(self) -> None:
        """Settle what is in doubt, move what waits, settle what came of it."""
        self._resolve()
        for _ in range(2):  # what was refused is tried once more
            self._move_in_batches(self._list_open(State.NONE))
            self._resolve()

    def _move_in_batches(self, rows: Sequence[int]) -> None:
        """Move one object to its end, and then the others, a batch at a time."""
        done, ledger = 0, self.ledger
        for batch in (rows[:1], *_cut(rows[1:], BATCH)) if rows else ():
            self._move(batch)
            if not done and ledger.states[rows[0]] is not State.MOVED:
                self._resolve()
                if ledger.states[rows[0]] not in (State.MOVED, State.SKIPPED):
                    why = ledger.reasons.get(rows[0], "nobody knows what became of it")
                    raise StoppedError(f"the first object did not move: {why}")
            done += len(batch)
            self.progress(done, len(rows))

    def _move(self, batch: Sequence[int]) -> None:
        """Copy a batch, then delete the sources of what landed."""
        ledger, session = self.ledger, self.session
        self.hold.check()
        if self.plan.header.action == "undo":
            self._look_at(self.plan.rows[row].key for row in batch)  # for its metadata
        if not (is_guarded := self.plan.header.abilities.conditional_copy):
            self._look_at(self.plan.rows[row].to for row in batch)
        session.renew()  # the last time before the copies: their fence is written down now
        if copies := self._sort(batch)[Act.COPY]:
            requests = [self._make_copy(self.plan.rows[row]) for row in copies]
            ledger.log.reserve()  # what comes of it can be written on a full disk
            ledger.note("intent", copies, sync=True, fence_at=format_time(session.fence_at))
            self._write_record()
            if not is_guarded and self._is_look_old():
                why = "its destination was looked at too long ago: nothing was sent"
                ledger.note("refused", copies, reasons=dict.fromkeys(map(str, copies), why))
                return
            answers = session.send(requests, lambda i, answer: self._take_copy(copies[i], answer))
            for row, answer in zip(copies, answers, strict=True):
                if answer.effect == "done" and ledger.states[row] is State.DOUBTFUL:
                    self._compare_content(row, answer)
            is_silent = all(a.effect == "none" or a.code == "NoAnswer" for a in answers)
            if is_silent and len(copies) > 1:
                raise StoppedError(f"no copy was answered: {ledger.reasons.get(copies[0], '')}")
        self._delete([row for row in batch if ledger.states[row] is State.LANDED])

    def _make_copy(self, row: PlanRow) -> Request:
        """Return the guarded copy of a row; an undo writes the age down where it can."""
        headers, if_absent = dict[str, str](), self.plan.header.abilities.conditional_copy
        key, seen = self.age_key, self.seen.get(row.key)
        if self.plan.header.action == "undo" and key and seen is not None:
            metadata = {key: format_time(row.age_start), **(seen.metadata or {})}
            kept = {**seen.headers, **{f"x-amz-meta-{n}": text for n, text in metadata.items()}}
            if key not in (seen.metadata or {}) and "".join(kept.values()).isascii():
                headers = kept
        return Request("copy", row.to, row.key, row.etag, if_absent, headers=headers)

    def _take_copy(self, row: int, answer: Answer) -> None:
        """Write what an answer proves, as it comes; anything else stays doubtful."""
        if answer.effect != "done":
            why = f"the copy was answered by {answer.code} {answer.message}".strip()
            kind = "refused" if answer.effect == "none" else "doubtful"
            self.ledger.note(kind, [row], reasons={str(row): why})
        elif answer.etag == self.plan.rows[row].etag:
            self.ledger.land(row, answer.etag, answer.last_modified)

    def _compare_content(self, row: int, answer: Answer) -> None:
        """Judge a copy that got another ETag: by its bytes where the plan has their hash."""
        self._look_at([self.plan.rows[row].to])
        place = self._place(row, at_source=False)
        if place is Place.SAME:
            self.ledger.land(row, answer.etag, answer.last_modified)
        elif place is Place.OTHER:
            self.ledger.reasons[row] = f"the copy has the ETag {answer.etag}: look at both keys"
            self.ledger.close(State.CONFLICT, [row])

    def _delete(self, rows: Sequence[int]) -> None:
        """Delete the sources of rows that landed, each only if it is still the planned version."""
        ledger, session, planned = self.ledger, self.session, self.plan.rows
        is_guarded = self.plan.header.abilities.conditional_delete
        session.renew()
        if not is_guarded and rows:
            self._look_at(planned[row].key for row in rows)
            rows = self._sort(rows, destination=Place.UNKNOWN)[Act.DELETE]
        if not rows:
            return
        ledger.note("deleting", rows, sync=True, fence_at=format_time(session.fence_at))
        if not is_guarded and self._is_look_old():
            return  # the next round looks again
        parts = list(_cut(rows, 1 if is_guarded else _BULK))
        if is_guarded:
            requests = [Request("delete", planned[r].key, if_match=planned[r].etag) for r in rows]
        else:
            requests = [Request("delete_many", keys=[planned[r].key for r in p]) for p in parts]
        moved = []
        for part, answer in zip(parts, session.send(requests), strict=True):
            for row in part:
                if code := answer.failed.get(planned[row].key, answer.code):
                    ledger.reasons[row] = f"the delete was answered by {code}"
                elif answer.effect == "done":
                    moved.append(row)
        ledger.close(State.MOVED, moved)

    def _resolve(self) -> None:
        """Wait until nothing can be in flight for the rows in doubt, look, and do what is right."""
        ledger = self.ledger
        for _ in range(_ROUNDS):
            if not (rows := ledger.rows(*_HALF)):
                return
            self.session.wait_until(ledger.fence_at, f"{len(rows)} objects may still change")
            self.hold.check()
            planned = [self.plan.rows[row] for row in rows]
            self._look_at(key for row in planned for key in (row.key, row.to))
            found = self._sort(rows)
            for part in _cut(sorted(found[Act.ADOPT] + found[Act.DELETE]), BATCH):
                self._delete(part)

    def _sort(
        self, rows: Iterable[int], destination: Place | None = None
    ) -> dict[Act | State, list[int]]:
        """Ask the table what to do with each row; write down what is decided for good.

        Parameters
        ----------
        destination : what to take for seen there; default: what the last look found
        """
        ledger, found = self.ledger, defaultdict[Act | State, list[int]](list)
        for row in rows:
            rule = decide(
                state=ledger.states[row],
                source=self._place(row, at_source=True),
                destination=destination or self._place(row, at_source=False),
            )
            found[rule.act].append(row)
            if rule.act in CLOSED[1:]:
                ledger.reasons[row] = rule.reason
            elif rule.act is Act.ADOPT:
                seen = self.seen[self.plan.rows[row].to]
                ledger.land(row, seen.etag if seen else "", None)
        for state in CLOSED:
            ledger.close(state, found[state])
        return found

    def _place(self, row: int, *, at_source: bool) -> Place:
        planned, landing = self.plan.rows[row], self.ledger.landings.get(row)
        etag, seen = landing.etag if landing else "", self.seen.get(planned.to)
        if planned.sha256 and not at_source and seen is not None and seen.etag != etag:
            # neither ETag is a hash: the bytes decide
            try:
                is_same = self.bucket.read_sha256(planned.to) == planned.sha256
            except StoreError:
                return Place.UNKNOWN
            return Place.SAME if is_same else Place.OTHER
        return place_of(self.seen, planned, at_source=at_source, etag=etag)

    def _look_at(self, keys: Iterable[str]) -> None:
        """Look anew; what could not be read is not known any more."""
        wanted, self.looked_at = list(keys), self.clock.monotonic()
        for key in wanted:
            self.seen.pop(key, None)
        self.seen |= self.bucket.look(wanted)

    def _is_look_old(self) -> bool:
        return self.clock.monotonic() - self.looked_at > _LOOK_S

    def _sum_up(self) -> MoveResult:
        ledger, rows = self.ledger, self.plan.rows
        count, waiting, found = Counter(ledger.states.values()), self._list_open(), ledger.landings

        def explain(places: Iterable[int]) -> list[dict[str, str]]:
            return [{"key": rows[n].key, "reason": ledger.reasons.get(n, "")} for n in places]

        return MoveResult(
            plan=self.plan.id,
            moved=count[State.MOVED],
            already=sum(n in found and not found[n].at for n in ledger.rows(State.MOVED)),
            conflicts=explain(ledger.rows(State.CONFLICT, State.SKIPPED)),
            failed=explain(row for row in waiting if row in ledger.reasons),
            unproven=[rows[row].key for row in ledger.rows(State.UNPROVEN)],
            waiting=len(waiting) + count[State.FREED],
            lost_in_window=ledger.lost,
            settled=len(self._list_settled()) if ledger.is_done else 0,
            stopped=self.stopped,
        )
