"""Carry out a plan: release, resume, undo, settle, and resume the worker.

Each takes the lock, refuses what may not begin, lets ``carry`` do all it can with the rows while
the worker is held, and resumes the worker if nothing it could pick up may ship twice. A later run
does the same from the states of the rows: there is no recovery code.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Literal

from .book import Book, Patience
from .bucket import UNMET, Request, S3Bucket, Texts, format_time
from .carry import Carrier, Operator
from .errors import (
    DriftError,
    HeldError,
    InterruptedMoveError,
    MoveError,
    MoversError,
    NotApprovedError,
    NotNowError,
    PlanError,
    RefusedError,
    StoppedError,
    StoreError,
)
from .looks import judge_ends, scan, scan_rows
from .plan import PLANS, Abilities, Plan
from .probe import probe
from .result import MoveResult, get_resume, list_ways_on
from .settling import (
    Doubt,
    answer_row,
    choose_answers,
    digest_answers,
    find_in_reach,
    list_answerable,
    make_explain,
)
from .state import (
    Hold,
    Move,
    Row,
    Way,
    get_part_key,
    read_state,
)
from .table import UNENDED, Act, Direction, State, decide

#: For ``still_since``: from now on.
FROM_NOW_ON = datetime.max.replace(tzinfo=UTC)
#: A release skips changed objects, up to this many or a tenth of them. Past that, it ends.
_FEW_CHANGED = 3
#: How long an undo watches the consumer first.
_WATCH_S = 3.0
#: How often a run tries the rows that wait.
_PASSES = 2
_STOPPED = "it was stopped by --stop-here"
#: How old a check that the worker is paused may be.
_HOLD_CHECK_S = 2.0


@dataclass
class Run:
    """One run about one plan: one of its methods is called, once.

    Parameters
    ----------
    still_since : since when nobody takes from where consumers take, until this run has ended, as a
        person confirmed; maybe ``FROM_NOW_ON``. None if they may take at any time
    is_strict : refuse when any planned object changed
    stop_here : announce nothing more, finish what is open, and end the move
    part : carry out only this part; 0 for every part that nobody works on

    Raises
    ------
    RefusedError
        When a safety rule refuses; nothing was changed.
    StoppedError
        When the run ended early; ``way_on`` is the next command.
    InterruptedMoveError
        When a person interrupted the run.
    """

    bucket: S3Bucket
    plan: Plan
    operator: Operator
    still_since: datetime | None = None
    is_strict: bool = False
    stop_here: bool = False
    part: int = 0
    main: Book = field(init=False)  # the bucket's state, while this run has its lock
    already: int = 0
    stopped: str = ""
    in_reach: Texts = field(default_factory=dict)
    held_at: float | None = None  # when we last saw the worker paused, while we hold it
    #: For each row that a person decided, the state that it gets.
    answers: Sequence[tuple[Doubt, State]] = ()

    # --- what a run is asked to do ---

    def carry_out(self, verb: Literal["apply", "resume", "undo"], approve: str = "") -> MoveResult:
        """Begin a release or an undo, or resume what is unfinished of a plan.

        ``apply`` begins or resumes the release. ``undo`` takes back, from any machine, what moved
        and was not taken. ``resume`` begins nothing: it resumes the undo if there
        is one, else the release.
        ``plan.get_approval(verb)`` approves.

        Raises NotNowError when the plan is too old, or the undo period is over. Changes the planned
        objects and ``.runbook/``; undone by ``undo``.
        """
        needed = self.plan.get_approval(verb)
        if approve != needed:
            raise NotApprovedError(f"to {verb} {self.plan.id}, approve {needed}", needed=needed)
        may_begin = verb == "apply"
        with self._open(may_begin=may_begin) as release:
            undo = release.undo
            if undo is None and verb == "undo":
                undo = self._make_undo(release)
            needs_still = undo is not None and not undo.is_ended and not self.stop_here
            if needs_still and self.still_since is None:
                raise NotNowError(
                    f"{self.plan.undo_id} is safe only while nothing consumes from "
                    f"{self.plan.header.to}: stop the consumer, and confirm it with "
                    "--consumer-stands-still",
                    way_on=self._find_next_command(undo or release),
                )
            if undo is not None or not release.parts or self.stop_here:
                return self._finish(release, undo)
        numbers = [self.part] if self.part else range(1, release.parts + 1)
        for number in numbers:
            try:
                with self._make_book("short", number):
                    pass  # wait for the lock of a run that was killed
                self._work_part(number, may_begin=may_begin)
            except HeldError as error:
                if self.part:
                    raise
                self.stopped = str(error)  # another machine works on it
        with self._open("long") as release, self._catching(release):
            self._resume_if_safe()
            return self._report()

    def settle(self, taken: Sequence[str], not_taken: Sequence[str], approve: str) -> MoveResult:
        """Carry out a person's answers: which source keys consumers took, and which not.

        ``settling.digest_answers`` gives the approval, of the answers and of what was shown. Raises
        NotApprovedError when it is of other answers, or something changed since.

        Parks what was taken, and returns what was not. A later answer overrules, while the object
        is where it was.
        """
        with self._open() as release:
            with suppress(PlanError):  # an object has gone since
                doubts = list_answerable(self.bucket, release)
                self.answers = choose_answers(doubts, taken, not_taken)
            needed = digest_answers(self.plan, self.answers)
            if approve != needed:
                text = "the approval is for other answers, or something changed since"
                unfinished = self.main.state.unfinished  # a save of an earlier answer came late
                way_on = get_resume(unfinished) if unfinished else f"settle {self.plan.id}"
                raise NotApprovedError(f"{text}: look again", needed=needed, way_on=way_on)
            self._refuse_unfinished()
            self.operator.note("answered")
            return self._finish(release, release.undo)

    def resume_worker(self, approve: str) -> MoveResult:
        """Resume the worker that a plan holds.

        Raises NotApprovedError when objects may ship twice and the approval doesn't name them
        (``needed`` does), and NotNowError when the worker is held for another plan.
        """
        with self._open() as release:
            held = self.main.state.held
            if held is None:
                return self._report()
            if held.plan != self.plan.id:
                raise NotNowError(f"the worker is held for {held.plan}", way_on="check")
            self._look_in_reach()
            keys = sorted(self.in_reach)
            needed = self.plan.digest("resume-worker", *keys)
            if keys and approve != needed:
                some = ", ".join(keys[:10])
                raise NotApprovedError(
                    f"if you resume the worker, these may ship twice: {some}",
                    needed=needed,
                    way_on=f"resume {self.plan.id} --resume-worker --approve {needed}",
                )
            self.operator.note("resumed")
            with self._catching(release):
                self._end_hold(held)
            return self._report()

    def _finish(self, release: Move, undo: Move | None) -> MoveResult:
        """Carry out the release, or end it before its undo."""
        with self._catching(undo or release):
            self._carry_all(release, is_stop=self.stop_here or undo is not None)
            if undo is not None:
                if not release.is_ended:
                    raise StoppedError(f"{release.id} could not be finished: {self.stopped}")
                if release.undo is None:
                    self._leave_unmoved(release, undo)
                self._carry_all(undo, is_stop=self.stop_here)
            self._resume_if_safe()
            return self._report()

    # --- beginning ---

    @cached_property
    def _abilities(self) -> Abilities:
        header = self.plan.header
        return probe(self.bucket, timing=header.timing, source=header.source)

    @contextmanager
    def _open(self, patience: Patience = "short", *, may_begin: bool = False) -> Iterator[Move]:
        """Take the main lock, and yield the release's move; make it if the release may begin."""
        with self._make_book(patience) as self.main:
            if self.main.state.id != self.plan.header.bucket_id:
                raise NotNowError(
                    f".runbook/ was removed since {self.plan.id} was made: plan again",
                    way_on="plan",
                )
            if self.still_since is not None:
                self.still_since = min(self.still_since, self.main.stamp)
            yield self._find_release(may_begin=may_begin)

    def _make_book(self, patience: Patience, part: int = 0) -> Book:
        return Book(
            self.bucket,
            self.plan.header.timing,
            self.operator.clock,
            self.operator.notice,
            plan=self.plan.id,
            by=self.operator.name,
            is_conditional=self._abilities.conditional_put,
            patience=patience,
            part=part,
        )

    def _find_release(self, *, may_begin: bool) -> Move:
        plan = self.plan
        header = plan.header
        moves = self.main.state.moves
        move = moves.get(plan.id)
        if move is not None:
            if move.sha256 != plan.sha256:
                raise NotApprovedError(f"another plan was begun under the id {plan.id}")
            if may_begin and move.undo is not None:
                raise NotNowError(f"the undo of {plan.id} has begun", way_on=f"resume {plan.id}")
            return move
        why = self._find_obstacle()
        if not may_begin:
            way_on = "plan" if why else f"apply {plan.id}"
            raise NotNowError(f"{plan.id} was never begun: nothing was moved", way_on=way_on)
        self._refuse_unfinished()
        if why:
            raise NotNowError(f"{why}: plan again", way_on="plan")
        self._forget()
        move = self._make_move(header.expires_at)
        move.parts = header.parts
        put = plan.make_put()
        if self.bucket.look([put.key]).get(put.key) is None:
            (answer,) = self.main.send([put])
            if answer.effect != "done" and answer.code not in UNMET:  # it is there already
                raise StoreError(f"the plan cannot be kept in the bucket: {answer.code}")
        moves[plan.id] = move
        return move

    def _make_move(self, keep_until: datetime, *, part: int = 0, is_undo: bool = False) -> Move:
        start, end = self.plan.get_range(part)
        return Move(
            plan=self.plan.id,
            sha256=self.plan.sha256,
            start=start,
            next=start,
            end=end,
            keep_until=keep_until,
            is_undo=is_undo,
            still_since=self.still_since,
        )

    def _find_obstacle(self) -> str:
        """Say why nothing more of this plan may be announced, or return ""."""
        header = self.plan.header
        if self.operator.clock.now() > header.expires_at:
            return f"{self.plan.id} expired at {format_time(header.expires_at)}"
        if self._abilities != header.abilities:
            return f"the store honours other requests than when {self.plan.id} was made"
        return ""

    def _refuse_unfinished(self) -> None:
        move = self.main.state.unfinished
        if move is not None:
            raise NotNowError(f"{move.id} is not finished", way_on=get_resume(move))

    def _forget(self) -> None:
        """Forget plans that are over for good, and what the bucket keeps for them."""
        state = self.main.state
        for plan, release in list(state.moves.items()):
            is_held = state.hold is not None and state.hold.plan == plan
            is_open = release.unended or release.list_rows(State.UNPROVEN, State.TAKEN)
            is_young = any(move.keep_until >= self.main.stamp for move in release.all)
            if is_held or is_open or is_young:
                continue
            del state.moves[plan]
            keys = [PLANS + release.sha256]
            keys += [get_part_key(plan, number) for number in release.begun]
            self.main.send([Request("delete", key) for key in keys])

    def _make_undo(self, release: Move) -> Move:
        plan = self.plan
        if release.is_ended:
            self._refuse_unfinished()
        if release.announced_at is None:
            raise NotNowError(f"nothing of {plan.id} was moved")
        until = release.announced_at + timedelta(seconds=plan.header.undo_s)
        if self.main.stamp > until:
            text = f"{plan.id} could be undone until {format_time(until)}"
            raise NotNowError(f"{text}: what it moved may be in use by now")
        return self._make_move(until, is_undo=True)

    def _leave_unmoved(self, release: Move, undo: Move) -> None:
        """Begin an undo, without what the release did not move."""
        release.undo = undo
        for number in range(undo.end):
            if release.get_row(number).state is not State.MOVED:
                undo.rows[number] = Row(State.LEFT, Way.BACK)

    # --- work ---

    def _carry_all(self, move: Move, *, is_stop: bool = False) -> None:
        """Do all that can be done with a move's rows; with ``is_stop``, end it."""
        for number in move.begun:
            with self._open_part(move, number) as (book, piece):
                self._carry(book, piece, is_stop=is_stop)
        if not move.parts:
            self._carry(self.main, move, is_stop=is_stop)
        elif is_stop and not move.is_ended:
            move.stopped = _STOPPED  # the parts that never began end, too

    def _work_part(self, number: int, *, may_begin: bool) -> None:
        """Carry out one part under its own lock. Raises HeldError if somebody else works on it."""
        with ExitStack() as stack:
            with self._open("long", may_begin=may_begin) as move:
                has_begun = number in move.begun
                if move.is_ended and not has_begun:
                    return
                if may_begin and has_begun and move.pieces[number].is_ended:
                    return
                with self._catching(move):
                    self._hold()
                    book, piece = stack.enter_context(self._open_part(move, number))
                    move.begun.add(number)
                    self._begin(move)
                    self.main.save()
            with self._catching(move):
                self._carry(book, piece)

    @contextmanager
    def _open_part(self, move: Move, number: int) -> Iterator[tuple[Book, Move]]:
        with self._make_book("none", number) as book:
            piece = book.state.moves.get(move.plan)
            if piece is None:
                piece = self._make_move(move.keep_until, part=number)
                book.state.moves[move.plan] = piece
                book.save()
            move.pieces[number] = piece
            yield book, piece

    @contextmanager
    def _catching(self, move: Move) -> Iterator[None]:
        """Let every error name the next command; drop a move that announced nothing."""
        try:
            yield
        except (MoveError, KeyboardInterrupt) as error:
            has_begun = move.announced_at is not None
            if not self.main.is_lost:
                with suppress(MoveError, KeyboardInterrupt):
                    self._resume_if_safe()
                    held = self.main.state.held
                    is_held = held is not None and held.plan == self.plan.id
                    if not (has_begun or is_held or isinstance(error, HeldError)):
                        if move.is_undo:
                            self.main.state.moves[move.plan].undo = None
                        else:
                            self.main.state.moves.pop(move.plan, None)
                    self.main.save()
            way_on = self._find_next_command(move)
            if isinstance(error, KeyboardInterrupt):
                moved = self._report().moved if has_begun else 0
                raise InterruptedMoveError(moved, way_on) from error
            error.way_on = error.way_on or way_on
            is_failure = isinstance(error, RefusedError | StoreError)
            if has_begun and is_failure and not isinstance(error, HeldError):
                raise StoppedError(str(error), way_on=error.way_on) from error
            raise

    def _carry(self, book: Book, piece: Move, *, is_stop: bool = False) -> None:
        carrier = Carrier(
            bucket=self.bucket,
            plan=self.plan,
            operator=self.operator,
            book=book,
            move=piece,
            abilities=self._abilities,
            still_since=self.still_since,
            hold=self._hold,
        )
        try:
            if piece.is_undo and self.still_since is None:
                carrier.judge_as_release()
            if is_stop and not piece.is_ended:
                carrier.stop(_STOPPED)
            for doubt, answer in self.answers:
                if piece.rows.get(doubt.number) == doubt.row:
                    piece.rows[doubt.number] = answer_row(doubt, answer)
            carrier.finish()
            if not piece.is_ended:
                self._hold()
                self._check_rows(carrier)
            if not piece.is_ended:
                self._begin(piece)
                for _ in range(_PASSES):
                    if not carrier.stopped:
                        carrier.carry()
                        carrier.finish()
            carrier.park()
        except MoversError as error:
            move = piece if piece.is_undo else self.main.state.moves[piece.plan]
            if move.announced_at is None:
                raise
            carrier.stopped = str(error)
        self.already += carrier.already
        self.stopped = carrier.stopped or self.stopped
        book.save()
        if piece.is_ended:
            self.operator.note("ended", move=piece.id)

    def _begin(self, move: Move) -> None:
        """Before a move's first announcement, note the time: the undo period starts.

        From then on, only ``resume_worker`` ends the hold of an undo.
        """
        state = self.main.state
        move.still_since = self.still_since
        if move.is_undo and state.held is not None:
            state.hold = replace(state.held, is_kept=True, plan=self.plan.id)
        if move.announced_at is None:
            move.announced_at = self.main.stamp
            until = self.main.stamp + timedelta(seconds=self.plan.header.undo_s)
            move.keep_until = max(move.keep_until, until)

    def _find_next_command(self, move: Move) -> str:
        """Return the command that resumes a move, or begins one that the bucket doesn't have."""
        with suppress(MoveError):
            read = read_state(self.bucket)
            if read and move.plan not in self.main.state.moves:
                read.state.moves.pop(move.plan, None)  # the save that drops it may come late
            known = read and read.state.moves.get(move.plan)
            if known and (known.undo or not move.is_undo):
                return get_resume(known.unended or known)
            other = read and read.state.unfinished
            if other:
                return get_resume(other)
        plan = self.plan
        if move.is_undo or move.undo is not None:
            return f"undo {plan.id} --consumer-stands-still --approve {plan.get_approval('undo')}"
        if self._find_obstacle():
            return "plan"
        still = " --consumer-stands-still" if self.still_since else ""
        return f"apply {plan.id}{still} --approve {plan.sha256}"

    # --- checks before the first announcement of a run ---

    def _check_rows(self, carrier: Carrier) -> None:
        """Look at all rows that wait; skip what changed, or end the move if too much did.

        Raises DriftError if nothing was announced yet; in an undo, if a consumer still takes.
        """
        piece = carrier.move
        if piece.is_undo:
            self._watch_consumer(carrier)
            return
        why = self._find_obstacle()
        changed = {} if why else self._find_changed(carrier)
        allowed = max(_FEW_CHANGED, (piece.end - piece.start) // 10)
        if self.is_strict or not self.operator.hold.can_pause:
            allowed = 0
        if len(changed) > allowed:
            some = [f"{self.plan.rows[n].key}: {text}" for n, text in sorted(changed.items())[:5]]
            why = (
                f"{len(changed)} of {len(self.plan.rows)} planned objects have changed: "
                f"{'; '.join(some)}"
            )
            if self.main.state.moves[self.plan.id].announced_at is None:
                raise DriftError(f"{why}. Nothing was changed; plan again", way_on="plan")
        if why:
            carrier.stop(why)
            carrier.stopped = why
            return
        for number, text in changed.items():
            piece.rows[number] = Row(State.SKIPPED, why=text)

    def _find_changed(self, carrier: Carrier) -> dict[int, str]:
        """Return why waiting rows may not move; note which others need no second look."""
        explain = make_explain(self.bucket, self.main.state, beside=self.plan.id)
        book = carrier.book
        changed = {}
        youngest = book.stamp
        numbers = carrier.move.list_waiting()
        for number, row, looks in scan_rows(self.bucket, self.plan, numbers, book.renew):
            youngest = max(youngest, row.last_modified + timedelta(seconds=1))
            ends = judge_ends(self.bucket, self.plan, row, Way.THERE, looks)
            rule = decide(Direction.THERE, State.WAITING, *ends)
            seen = looks.get(row.key)
            if rule.act is State.SKIPPED:
                changed[number] = rule.reason
            elif seen is not None and explain(seen):
                changed[number] = "an earlier plan holds it"
            elif rule.act is Act.SEND:
                carrier.fresh.add(number)
        # A HEAD gives whole seconds: wait, so that what is put again from now on has a later one.
        wait_s = (youngest - book.stamp).total_seconds()
        if 0 < wait_s <= self.plan.header.timing.spread_s:
            self.operator.clock.sleep(wait_s)
        return changed

    def _watch_consumer(self, carrier: Carrier) -> None:
        keys = [self.plan.rows[number].to for number in carrier.move.list_waiting()]
        look = partial(scan, self.bucket, self.plan.header.to, keys, carrier.book.renew)
        before = look()
        self.operator.clock.sleep(_WATCH_S)
        after = look()
        vanished = [key for key in keys if before.get(key) and not after.get(key)]
        if vanished:
            some = ", ".join(vanished[:5])
            raise DriftError(
                f"{some} vanished within {_WATCH_S:g} s: something still consumes them. Stop it, "
                "then try again"
            )

    # --- the worker ---

    def _hold(self) -> None:
        """Pause the worker; later, check every few seconds that it is still paused."""
        hold = self.operator.hold
        now = self.operator.clock.monotonic()
        if self.held_at is None:
            if hold.can_pause:
                self._pause()
        elif now - self.held_at < _HOLD_CHECK_S:
            return
        hold.check()
        self.held_at = now

    def _pause(self) -> None:
        """Note the hold, then pause the worker.

        A worker that a person paused before is not ours to resume, so no hold is noted.
        """
        hold = self.operator.hold
        state = self.main.state
        held = state.held
        is_sure = held is None or held.is_sure
        is_paused = hold.is_paused()
        if held is not None:
            self._check_name(held)
            state.hold = replace(held, is_sure=is_sure and is_paused)
        elif not is_paused or self._may_pause_late():
            state.hold = Hold(
                name=hold.name,
                words=hold.words,
                way_back=hold.way_back,
                by=self.operator.name,
                since=self.main.stamp,
                plan=self.plan.id,
            )
        self.main.save()
        if not is_paused:
            hold.pause()
            try:
                self.main.save()
            except StoppedError as error:
                raise StoppedError(
                    f"{error}; the worker may have been paused for {self.plan.id} since"
                ) from error
        if state.held is not None:
            state.hold = replace(state.held, is_sure=is_sure)

    def _may_pause_late(self) -> bool:
        """Tell whether a run may have paused the worker after the hold of its plan had ended."""
        hold = self.main.state.hold
        return hold is not None and not hold.is_sure and hold.name == self.operator.hold.name

    def _check_name(self, held: Hold) -> None:
        if held.name != self.operator.hold.name:
            raise RefusedError(
                f"{held.name} is paused ({held.words}), but these settings control "
                f"{self.operator.hold.name}. {held.way_back}"
            )

    def _resume_if_safe(self) -> None:
        """Resume the worker, unless something it could pick up may ship twice."""
        state = self.main.state
        held = state.held
        if held is None:
            if self._may_pause_late() and self.operator.hold.is_paused():
                self.operator.hold.resume()
            return
        move = state.moves.get(held.plan)
        is_working = move and move.parts and move.announced_at and not move.is_ended
        if held.plan == self.plan.id and not is_working:
            self._look_in_reach()
            if not (self.in_reach or held.is_kept):
                self._end_hold(held)

    def _look_in_reach(self) -> None:
        self._looked_at = self.main.stamp
        self.in_reach = find_in_reach(self.bucket, self.main.state)

    def _end_hold(self, held: Hold) -> None:
        """Resume the worker, and note that the hold has ended.

        Raises StoppedError if the worker may still be paused or the end couldn't be saved.
        """
        self._check_name(held)
        self.main.save()
        age_s = (self.main.stamp - self._looked_at).total_seconds()
        if age_s > self.plan.header.timing.lease_s:  # what the worker could pick up may be new
            raise StoppedError("this machine slept before it resumed the worker")
        self.held_at = None
        try:
            self.operator.hold.resume()
        except MoveError as error:
            raise StoppedError(f"the worker may still be paused ({error})") from error
        self.main.state.hold = replace(held, ended_at=self.main.stamp)
        self.main.save()

    def _report(self) -> MoveResult:
        """Return what this run and earlier ones did, about the plan or one part of it."""
        plan = self.plan
        state = self.main.state
        release = state.moves[plan.id]
        move = release.undo or release
        numbers = range(*plan.get_range(self.part))
        counts: Counter[State] = Counter()
        told: defaultdict[State, list[dict[str, str]]] = defaultdict(list)
        for number in numbers:
            row = move.get_row(number)
            counts[row.state] += 1
            if row.why:
                told[row.state].append({"key": plan.rows[number].key, "reason": row.why})
        failed = []
        for name in UNENDED:
            failed += told[name]
        waiting = sum(counts[name] for name in UNENDED)
        unproven = [number for number, _ in release.list_rows(State.UNPROVEN) if number in numbers]
        result = MoveResult(
            plan=move.id,
            moved=counts[State.MOVED],
            already=self.already,
            skipped=[*told[State.SKIPPED], *told[State.OCCUPIED], *told[State.SHIPPED]],
            conflicts=told[State.OCCUPIED],
            failed=failed,
            unproven=[plan.rows[number].key for number in unproven],
            waiting=waiting,
            left=0 if move.is_undo else counts[State.LEFT] + counts[State.FREED],
            is_held=state.held is not None,
            stopped=self.stopped or move.stopped,
            in_reach=sorted(self.in_reach),
            ways_on=[f"resume {other}" for other in sorted({*self.in_reach.values()} - {plan.id})],
        )
        if waiting or unproven or not self.part:
            result.ways_on.extend(list_ways_on(self.bucket, state, release))
        if not (result.ways_on or move.is_undo) and (result.left or result.skipped):
            result.ways_on.append("plan")
        return result
