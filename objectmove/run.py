"""Carry out a plan, resume it, undo it, settle its doubts, and let the worker run again.

Each takes the lock, refuses what may not begin, pauses the worker, lets ``carry`` do all it can
with the rows, and resumes the worker if nothing it could pick up may ship twice. A run after a kill
does the same, from the stored states of the rows: there is no recovery code.
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
    BusyError,
    DriftError,
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
from .state import Hold, Move, Row, Way, get_part_key, read_state
from .table import UNENDED, Act, Direction, State, decide

#: For ``still_since``: since this run took the lock.
FROM_NOW_ON = datetime.max.replace(tzinfo=UTC)
#: A release skips changed objects, up to this many or a tenth of its rows. If more have changed, it
#: ends.
_FEW_CHANGED = 3
#: How long an undo first watches whether objects vanish from the destination.
_WATCH_S = 3.0
#: How often a run tries the rows that wait.
_PASSES = 2
_STOPPED = "it was stopped by --stop-here"
#: How old a check that the worker is paused may be.
_HOLD_CHECK_S = 2.0


@dataclass
class Run:
    """One run of one plan: call one of its methods, once.

    Parameters
    ----------
    still_since : a person confirmed that from this time until the run ends, nothing consumes from
        the destination; maybe ``FROM_NOW_ON``. None if nobody confirmed it
    is_strict : refuse when any planned object changed
    stop_here : announce nothing more, finish the open rows, and end the move
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
    already: int = 0  # as in ``MoveResult``
    stopped: str = ""  # why this run announces nothing more
    in_reach: Texts = field(default_factory=dict)  # of ``find_in_reach``
    held_at: float | None = None  # when we last saw the worker paused, by the monotonic clock
    #: A person's answers: each row with the state that it gets.
    answers: Sequence[tuple[Doubt, State]] = ()

    def carry_out(self, verb: Literal["apply", "resume", "undo"], approve: str = "") -> MoveResult:
        """Begin a release or an undo, or resume one.

        ``apply`` begins or resumes the release. ``undo`` begins or resumes the undo: it moves back
        what moved and was not taken. ``resume`` begins nothing: it resumes the undo if there is
        one, else the release. ``plan.get_approval(verb)`` is the approval.

        Raises NotNowError when the plan has expired, or the undo period is over. Changes
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
                self._carry_part(number, may_begin=may_begin)
            except BusyError as error:
                if self.part:
                    raise
                self.stopped = str(error)  # another machine works on it
        with self._open("long") as release, self._handling_errors(release):
            self._resume_if_safe()
            return self._report()

    def settle(self, taken: Sequence[str], not_taken: Sequence[str], approve: str) -> MoveResult:
        """Carry out a person's answers: the source keys of what consumers took, and did not take.

        Parks what was taken, and moves what was not back to its source. While an object is where it
        was, a later answer overrules. ``settling.digest_answers`` gives the approval. Raises
        NotApprovedError when other answers were approved, or a row has changed since it was shown.
        """
        with self._open() as release:
            with suppress(PlanError):  # an object has gone, so the approval won't fit
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
        """Resume the worker if it is paused for this plan.

        Raises NotApprovedError when objects may ship twice and ``approve`` is not the hash of their
        keys (``needed`` is), and NotNowError when the worker is paused for another plan.
        """
        with self._open() as release:
            held = self.main.state.held
            if held is None:
                return self._report()
            if held.plan != self.plan.id:
                raise NotNowError(f"the worker is held for {held.plan}", way_on="check")
            self._find_in_reach()
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
            with self._handling_errors(release):
                self._resume_worker(held)
            return self._report()

    def _finish(self, release: Move, undo: Move | None) -> MoveResult:
        """Carry out the release; or end it, then carry out its undo. Return the result."""
        with self._handling_errors(undo or release):
            self._carry_all(release, is_stop=self.stop_here or undo is not None)
            if undo is not None:
                if not release.is_ended:
                    raise StoppedError(f"{release.id} could not be finished: {self.stopped}")
                if release.undo is None:
                    self._begin_undo(release, undo)
                self._carry_all(undo, is_stop=self.stop_here)
            self._resume_if_safe()
            return self._report()

    @cached_property
    def _abilities(self) -> Abilities:
        header = self.plan.header
        return probe(self.bucket, timing=header.timing, source=header.source)

    @contextmanager
    def _open(self, patience: Patience = "short", *, may_begin: bool = False) -> Iterator[Move]:
        """Lock the bucket's state, and yield the plan's release; make it if it may begin."""
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
        """Return the plan's release from the bucket's state; make it if it may begin."""
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
        """Return why no more rows of this plan may be announced, or ""."""
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
        """Remove plans that nobody needs any more from the bucket."""
        state = self.main.state
        for plan, release in list(state.moves.items()):
            is_held = state.hold is not None and state.hold.plan == plan
            is_open = release.unended or release.list_all_rows(State.UNPROVEN, State.TAKEN)
            is_young = any(move.keep_until >= self.main.stamp for move in release.all_moves)
            if is_held or is_open or is_young:
                continue
            del state.moves[plan]
            keys = [PLANS + release.sha256]
            keys += [get_part_key(plan, number) for number in release.begun]
            self.main.send([Request("delete", key) for key in keys])

    def _make_undo(self, release: Move) -> Move:
        """Return a new undo of a release. Raises NotNowError when it can't be undone."""
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

    def _begin_undo(self, release: Move, undo: Move) -> None:
        """Store an undo that leaves alone each row that the release did not move."""
        release.undo = undo
        for number in range(undo.end):
            if release.get_row(number).state is not State.MOVED:
                undo.rows[number] = Row(State.LEFT, Way.BACK)

    def _carry_all(self, move: Move, *, is_stop: bool = False) -> None:
        """Carry out a move, or each of its parts that has begun; with ``is_stop``, end it."""
        for number in move.begun:
            with self._open_part(move, number) as (book, part):
                self._carry_move(book, part, is_stop=is_stop)
        if not move.parts:
            self._carry_move(self.main, move, is_stop=is_stop)
        elif is_stop and not move.is_ended:
            move.stopped = _STOPPED  # the parts that never began end, too

    def _carry_part(self, number: int, *, may_begin: bool) -> None:
        """Carry out one part under its own lock. Raises BusyError if another run works on it."""
        with ExitStack() as part_lock:
            # The lock of the whole bucket is only needed until the part has begun.
            with self._open("long", may_begin=may_begin) as release:
                has_begun = number in release.begun
                if release.is_ended and not has_begun:
                    return
                if may_begin and has_begun and release.part_moves[number].is_ended:
                    return
                with self._handling_errors(release):
                    self._hold_worker()
                    book, part = part_lock.enter_context(self._open_part(release, number))
                    release.begun.add(number)
                    self._note_begin(release)
                    self.main.save()
            with self._handling_errors(release):
                self._carry_move(book, part)

    @contextmanager
    def _open_part(self, release: Move, number: int) -> Iterator[tuple[Book, Move]]:
        """Lock a part's state object; yield it, and the part's move, created if there is none."""
        with self._make_book("none", number) as book:
            part = book.state.moves.get(release.plan)
            if part is None:
                part = self._make_move(release.keep_until, part=number)
                book.state.moves[release.plan] = part
                book.save()
            release.part_moves[number] = part
            yield book, part

    @contextmanager
    def _handling_errors(self, move: Move) -> Iterator[None]:
        """On an error, resume the worker if that is safe, and let the error name the next command.

        A move that announced nothing is dropped from the bucket's state.
        """
        try:
            yield
        except (MoveError, KeyboardInterrupt) as error:
            has_begun = move.announced_at is not None
            if not self.main.is_lost:
                with suppress(MoveError, KeyboardInterrupt):
                    self._resume_if_safe()
                    held = self.main.state.held
                    is_held = held is not None and held.plan == self.plan.id
                    if not (has_begun or is_held or isinstance(error, BusyError)):
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
            if has_begun and is_failure and not isinstance(error, BusyError):
                raise StoppedError(str(error), way_on=error.way_on) from error
            raise

    def _carry_move(self, book: Book, move: Move, *, is_stop: bool = False) -> None:
        """Do what can be done with the rows of a release, a part of it, or an undo.

        ``book`` is the state object that holds the rows. With ``is_stop``, announce nothing more.
        """
        carrier = Carrier(
            bucket=self.bucket,
            plan=self.plan,
            operator=self.operator,
            book=book,
            move=move,
            abilities=self._abilities,
            still_since=self.still_since,
            hold_worker=self._hold_worker,
        )
        try:
            if move.is_undo and self.still_since is None:
                carrier.judge_as_release()
            if is_stop and not move.is_ended:
                carrier.stop(_STOPPED)
            for doubt, answer in self.answers:
                if move.rows.get(doubt.number) == doubt.row:
                    move.rows[doubt.number] = answer_row(doubt, answer)
            carrier.finish()
            if not move.is_ended:
                self._hold_worker()
                self._check_rows(carrier)
            if not move.is_ended:
                self._note_begin(move)
                for _ in range(_PASSES):
                    if not carrier.stopped:
                        carrier.carry()
                        carrier.finish()
            carrier.park()
        except MoversError as error:
            whole = move if move.is_undo else self.main.state.moves[move.plan]
            if whole.announced_at is None:
                raise
            carrier.stopped = str(error)
        self.already += carrier.already
        self.stopped = carrier.stopped or self.stopped
        book.save()
        if move.is_ended:
            self.operator.note("ended", move=move.id)

    def _note_begin(self, move: Move) -> None:
        """Store the time before a move's first announcement: the undo period starts.

        From then on, only ``resume_worker`` resumes a worker that an undo paused.
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
        """Return the command that resumes a move, or the one that begins it if it isn't stored."""
        with suppress(MoveError):
            read = read_state(self.bucket)
            if read and move.plan not in self.main.state.moves:
                read.state.moves.pop(move.plan, None)  # the save that drops it may come late
            release = read and read.state.moves.get(move.plan)
            if release and (release.undo or not move.is_undo):
                return get_resume(release.unended or release)
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

    def _check_rows(self, carrier: Carrier) -> None:
        """Look at all rows that wait; skip what changed, or end the move if too much changed.

        Raises DriftError if too much changed before the first announcement; in an undo, if a
        consumer still takes objects.
        """
        move = carrier.move
        if move.is_undo:
            self._watch_consumer(carrier)
            return
        why = self._find_obstacle()
        changed = {} if why else self._find_changed(carrier)
        allowed = max(_FEW_CHANGED, (move.end - move.start) // 10)
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
            move.rows[number] = Row(State.SKIPPED, why=text)

    def _find_changed(self, carrier: Carrier) -> dict[int, str]:
        """Return the waiting rows that may not move as {number: reason}.

        Put the rows that are ready to move into ``carrier.fresh``.
        """
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
        # A HEAD gives whole seconds: wait until an object that is put again has a later one.
        wait_s = (youngest - book.stamp).total_seconds()
        if 0 < wait_s <= self.plan.header.timing.spread_s:
            self.operator.clock.sleep(wait_s)
        return changed

    def _watch_consumer(self, carrier: Carrier) -> None:
        """Raise DriftError if objects to move back vanish within seconds."""
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

    def _hold_worker(self) -> None:
        """Pause the worker; if this run has done so, check every 2 s that it is still paused."""
        hold = self.operator.hold
        now = self.operator.clock.monotonic()
        if self.held_at is None:
            if hold.can_pause:
                self._pause_worker()
        elif now - self.held_at < _HOLD_CHECK_S:
            return
        hold.check()
        self.held_at = now

    def _pause_worker(self) -> None:
        """Store the hold, then pause the worker.

        If a person has paused the worker before, no hold is stored: we won't resume it.
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
        """Tell whether an earlier run may have paused the worker after the hold had ended."""
        hold = self.main.state.hold
        return hold is not None and not hold.is_sure and hold.name == self.operator.hold.name

    def _check_name(self, held: Hold) -> None:
        """Raise RefusedError if the paused worker is not the one that we control."""
        if held.name != self.operator.hold.name:
            raise RefusedError(
                f"{held.name} is paused ({held.words}), but these settings control "
                f"{self.operator.hold.name}. {held.way_back}"
            )

    def _resume_if_safe(self) -> None:
        """Resume the worker that is paused for this plan, unless an object may then ship twice."""
        state = self.main.state
        held = state.held
        if held is None:
            if self._may_pause_late() and self.operator.hold.is_paused():
                self.operator.hold.resume()
            return
        move = state.moves.get(held.plan)
        has_open_parts = move and move.parts and move.announced_at and not move.is_ended
        if held.plan == self.plan.id and not has_open_parts:
            self._find_in_reach()
            if not (self.in_reach or held.is_kept):
                self._resume_worker(held)

    def _find_in_reach(self) -> None:
        self._looked_at = self.main.stamp
        self.in_reach = find_in_reach(self.bucket, self.main.state)

    def _resume_worker(self, held: Hold) -> None:
        """Resume the worker, and store that the hold has ended.

        Raises StoppedError if the worker may still be paused or the end couldn't be stored.
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
        """Return what this run and earlier ones did for the plan, or for the part of this run."""
        plan = self.plan
        state = self.main.state
        release = state.moves[plan.id]
        move = release.undo or release
        numbers = range(*plan.get_range(self.part))
        counts: Counter[State] = Counter()
        reasons: defaultdict[State, list[dict[str, str]]] = defaultdict(list)
        for number in numbers:
            row = move.get_row(number)
            counts[row.state] += 1
            if row.why:
                reasons[row.state].append({"key": plan.rows[number].key, "reason": row.why})
        conflicts = reasons[State.OCCUPIED]
        failed = []
        for name in UNENDED:
            failed += reasons[name]
        waiting = sum(counts[name] for name in UNENDED)
        unproven = [
            number for number, _ in release.list_all_rows(State.UNPROVEN) if number in numbers
        ]
        result = MoveResult(
            plan=move.id,
            moved=counts[State.MOVED],
            already=self.already,
            skipped=[*reasons[State.SKIPPED], *conflicts, *reasons[State.SHIPPED]],
            conflicts=conflicts,
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
