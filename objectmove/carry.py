"""The loop over rows: look as far as needed, ask the table, announce, save, send, note the answers.

Release, undo, parking and bringing back all go through ``Carrier._step``. A row is announced when a
save of the state says what is about to be sent for it; nothing is sent before.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, Protocol

from chainlog import ChainedLog, LogError

from .book import OWN_CLOCK, Book, Clock, Notice
from .bucket import Answer, Request, S3Bucket
from .errors import StoreError
from .looks import get_ends, judge_ends, look_surely
from .plan import Abilities, Plan, PlanRow
from .settling import look_aside
from .state import Move, Row, Way
from .table import UNENDED, Act, Direction, Rule, State, decide

#: The most rows in doubt at once; the second, while a person confirms that nothing consumes.
MOST_IN_DOUBT = 32
MOST_IN_DOUBT_STILL = 256
#: The most rows at once whose content passes through our memory, because the store cannot copy.
_MOST_PUTS = 4
#: How often one call tries rows that have not ended.
_ROUNDS = 6
#: How old a look may be when we send a request without a condition that the store honours.
_MAX_LOOK_AGE_S = 2.0
#: Past this size of the state, nothing more is announced.
_MAX_STATE_BYTES = 1_000_000
#: The states of a row of which no copy was ever announced.
_NEVER_COPIED = (State.WAITING, State.RENAMING)
_OVERLOADED = ("SlowDown", "HTTP 503", "ServiceUnavailable")

Ask = Callable[[Sequence[PlanRow]], Sequence[str | None]]
"""Asked about rows right before they are announced. Returns for each row "" (move it), why to skip
it, or None (the caller can't find out: the row waits for the next run)."""

Evidence = Callable[[Sequence[PlanRow]], Sequence[str]]
"""Returns for each row, as a text, what other systems know of its order."""


class Holder(Protocol):
    """Pauses the worker, so that nobody else moves objects; the caller provides it."""

    name: str  # of the worker, the same on every machine
    words: str  # how the worker is paused; the plan repeats these words
    way_back: str  # how a person resumes the worker without this program
    can_pause: bool  # False: it can only watch the worker

    def is_paused(self) -> bool:
        """Tell whether the worker is paused; raise ``MoversError`` if that can't be read."""

    def pause(self) -> None:
        """Pause the worker; raise ``MoversError`` when it may still run."""

    def check(self) -> None:
        """Raise ``MoversError`` unless the worker is paused, and its last pass has ended."""

    def resume(self) -> None:
        """Resume the worker; raise a ``MoveError`` when it may still be paused."""


@dataclass(kw_only=True)
class WatchedWorker:
    """A worker that can only be watched: ``check`` raises a ``MoveError`` unless it is idle."""

    words: str
    way_back: str = ""
    check: Callable[[], None] = lambda: None
    name: str = "worker"
    can_pause: bool = False

    def is_paused(self) -> bool:
        return True

    def pause(self) -> None:
        self.check()

    def resume(self) -> None:
        """Do nothing: nobody was paused."""


class Operator(NamedTuple):
    """Who carries a plan out, and with what.

    ``log`` returns this machine's log of the plan. ``notice`` is called with what the run waits
    for, ``progress`` with the number of rows begun and of all rows.
    """

    name: str
    hold: Holder
    log: Callable[[], ChainedLog] | None = None
    ask: Ask = lambda rows: [""] * len(rows)
    evidence: Evidence = lambda rows: [""] * len(rows)
    clock: Clock = OWN_CLOCK
    notice: Notice = lambda _: None
    progress: Callable[[int, int], None] = lambda _done, _all: None

    def note(self, kind: str, **data: object) -> None:
        """Write into this machine's log, which only people read: a full disk stops no move."""
        if self.log is None:
            return
        try:
            self.log().append(kind, {**data, "by": self.name}, sync=False)
        except LogError as error:
            self.notice(f"the log of this plan cannot be written: {error}")


class _Item(NamedTuple):
    """A row to work on, and the keys from which and to which its object goes now."""

    number: int
    row: Row
    planned: PlanRow
    source: str
    to: str


#: A row is in doubt after a request whose effect is unknown, and stuck if a step didn't move it.
_IN_DOUBT = (State.DOUBTFUL, State.RENAMING, State.DELETING)
_STUCK = (State.WAITING, State.UNPROVEN, *_IN_DOUBT)


@dataclass(kw_only=True)
class Carrier:
    """Carries out a release or an undo, or one part of it, within one run."""

    bucket: S3Bucket
    plan: Plan
    operator: Operator
    book: Book  # the locked state object that holds the rows
    move: Move
    abilities: Abilities
    still_since: datetime | None  # as in ``Run``
    hold_worker: Callable[[], None]  # pauses the worker, or makes sure that it is paused

    def __post_init__(self) -> None:
        self.already = 0  # rows whose content was at the destination without a copy of this run
        self.stopped = ""  # why nothing more is announced in this run
        #: Rows that were ready to move when this run first looked. If the store guards a request
        #: by a condition, we don't look at them again before that request.
        self.fresh: set[int] = set()
        #: What ``_look`` found or assumed, by key.
        self._seen: dict[str, Any] = {}
        self._max_in_doubt = MOST_IN_DOUBT_STILL if self.still_since is not None else MOST_IN_DOUBT
        self._max_batch = self._max_in_doubt if self.abilities.copies else _MOST_PUTS
        self._batch_size = 1
        #: Which kinds of requests need no look before them, because the store guards them.
        self._guards_copies = self.abilities.rename or self.abilities.conditional_copy
        self._guards_deletes = self.abilities.conditional_delete

    def finish(self) -> None:
        """Work on rows that haven't ended, except those that wait to be moved."""
        unended = self.move.find_rows(*UNENDED)
        self._finish_rows(unended.keys() - self.move.list_waiting())

    def carry(self) -> None:
        """Move the rows that wait: the first one alone, then batch after batch.

        Stops, and says why in ``stopped``, when no row of a batch moves, too many rows stay in
        doubt, or the state is full.
        """
        queue = self._begin_waiting()
        while True:
            room = self._count_room()
            if self.stopped:
                return
            batch = list(islice(queue, room))
            landed = self.move.find_rows(State.LANDED)
            wanted = self._ask_caller(batch)
            # The deletes of the batch before go out with the copies of this one.
            self._step([*wanted, *landed])
            if not batch:
                return
            if room == 1:
                self._finish_rows(wanted)
            stuck = [number for number in wanted if self.move.get_row(number).state in _STUCK]
            if wanted and stuck == wanted:
                first = self._get_item(stuck[0])
                self.stopped = f"no object moved: {first.source}: {first.row.why}"
                return
            start = self.move.start
            self.operator.progress(self.move.next - start, self.move.end - start)

    def park(self) -> None:
        """Park the unproven and the taken objects that are at their sources."""
        rows = self.move.rows
        unsettled = self.move.find_rows(State.UNPROVEN, State.TAKEN)
        doubts = look_aside(self.bucket, self.plan, unsettled.items())
        at_source = [doubt for doubt in doubts if doubt.source.may_be_here]
        if not at_source:
            return
        self.hold_worker()
        # Ask other systems about the orders before the objects vanish from their sources.
        texts = self.operator.evidence([doubt.planned for doubt in at_source])
        for doubt, text in zip(at_source, texts, strict=True):
            evidence = doubt.row.evidence or text[:300]
            rows[doubt.number] = replace(
                doubt.row, state=State.WAITING, way=Way.PARK, evidence=evidence
            )
        self._finish_rows([doubt.number for doubt in at_source])
        for doubt in at_source:
            if rows[doubt.number].state is State.WAITING:  # it cannot be parked
                rows[doubt.number] = doubt.row

    def stop(self, why: str) -> None:
        """Announce no further row. Those that wait are left, and a new plan may move them."""
        self.move.stopped = why
        self.move.end = self.move.next
        waiting = self.move.find_rows(State.WAITING)
        self._update_all(waiting, self.move.way, state=State.LEFT, why=why)

    def judge_as_release(self) -> None:
        """Make an undo's open rows doubtful rows of the release.

        Without a person's confirmation, consumers may take from the destination meanwhile. A row
        whose object is at both ends stays released.
        """
        unended = self.move.find_rows(State.DOUBTFUL, State.LANDED, State.DELETING)
        self._update_all(unended, Way.BACK, way=Way.THERE, state=State.DOUBTFUL)

    def _update_all(self, rows: Mapping[int, Row], old_way: Way, **changes: Any) -> None:
        """Change stored fields of the rows that go one way."""
        for number, row in rows.items():
            if row.way is old_way:
                self.move.rows[number] = replace(row, **changes)

    def _begin_waiting(self) -> Iterator[int]:
        """Yield the numbers of the rows that wait, and store that the move has come to each."""
        move = self.move
        for number in move.list_waiting():
            move.next = max(move.next, number + 1)
            move.rows.setdefault(number, Row(State.WAITING, move.way))
            yield number
        move.next = move.end

    def _count_room(self) -> int:
        """Return how many rows may be announced next; if none may be, set ``stopped``."""
        if len(self.move.find_rows(*_IN_DOUBT)) >= self._max_in_doubt:
            self.finish()
        in_doubt = len(self.move.find_rows(*_IN_DOUBT))
        if in_doubt >= self._max_in_doubt:
            self.stopped = f"{in_doubt} objects are in doubt"
        if self.book.size_bytes > _MAX_STATE_BYTES:
            self.stopped = "the bucket's state is full: plan fewer objects, or use --parts"
        return min(self._batch_size, self._max_in_doubt - in_doubt)

    def _ask_caller(self, numbers: Sequence[int]) -> list[int]:
        """Ask the caller about rows; return those that may move now: all rows, in an undo."""
        if self.move.is_undo or not numbers:
            return list(numbers)
        items = [self._get_item(number) for number in numbers]
        answers = self.operator.ask([item.planned for item in items])
        wanted = []
        for item, answer in zip(items, answers, strict=True):
            if answer:
                self._close(item, State.SKIPPED, answer)
            elif answer is None:
                self._update(item, why="we couldn't find out whether it is still wanted")
            else:
                wanted.append(item.number)
        return wanted

    def _finish_rows(self, numbers: Collection[int]) -> None:
        """Step through rows until all have ended, a step changes none, or ``_ROUNDS`` are over."""
        rows = self.move.rows
        for _ in range(_ROUNDS):
            left = sorted(self.move.find_rows(*UNENDED).keys() & numbers)
            if not left:
                return
            before = [rows[number] for number in left]
            self.book.wait(f"{len(left)} objects may still change")
            for start in range(0, len(left), self._max_batch):
                self._step(left[start : start + self._max_batch])
            if [rows.get(number) for number in left] == before:
                return

    def _get_item(self, number: int) -> _Item:
        row = self.move.rows[number]
        planned = self.plan.rows[number]
        return _Item(number, row, planned, *get_ends(self.plan, planned, row.way))

    def _update(self, item: _Item, **changes: Any) -> _Item:
        """Change stored fields of a row; return the item with the new row."""
        row = replace(item.row, **changes)
        self.move.rows[item.number] = row
        return item._replace(row=row)

    def _step(self, numbers: Sequence[int]) -> None:
        """Look at rows, and do for each what the table says."""
        if not numbers:
            return
        self.hold_worker()
        self.book.renew()
        items = [self._get_item(number) for number in numbers]
        self._look(items)
        sends = []
        deletes = []
        for item in items:
            rule = self._decide(item)
            if rule.act is Act.SEND and self.move.stopped and item.row.way is self.move.way:
                self._close(item, State.LEFT, self.move.stopped)
            elif rule.act is Act.SEND:
                sends.append(item)
            elif rule.act is Act.DELETE:
                deletes.append(item)
            elif isinstance(rule.act, State):
                self._close(item, rule.act, rule.reason)
            else:
                self._update(item, why=rule.reason)
        self._send(sends, deletes)

    def _look(self, items: Sequence[_Item]) -> None:
        """Look at both ends of rows; of fresh rows, assume what the store will check itself."""
        self._looked_at = self.operator.clock.monotonic()
        keys: list[str] = []
        assumed: dict[str, Any] = {}
        for item in items:
            is_fresh = item.number in self.fresh and not item.row.why
            is_ready = is_fresh and item.row.state is State.WAITING
            is_landed = is_fresh and item.row.state is State.LANDED
            if is_ready or (is_landed and self._guards_deletes):
                assumed[item.source] = item.planned
            else:
                keys.append(item.source)
            if is_ready and self._guards_copies:
                assumed[item.to] = None
            elif not is_landed:
                keys.append(item.to)
        looks = look_surely(self.bucket, keys)
        for item in items:
            if looks.get(item.to):
                # Content that is there already leads to a delete: look at the source first.
                assumed.pop(item.source, None)
        self._seen = assumed | looks

    def _decide(self, item: _Item) -> Rule:
        """Return the table's rule for a row, by what ``_look`` found."""
        row = item.row
        is_confirmed = self.still_since is not None and (
            row.at is None or row.at >= self.still_since
        )
        direction = row.way.direction
        if row.way is Way.THERE and is_confirmed and not self.move.is_undo:
            direction = Direction.STILL
        elif row.way is Way.FREE and not self.operator.hold.can_pause:
            direction = Direction.THERE
        state = row.state
        if direction is Direction.BACK and state is State.DELETING and not is_confirmed:
            state = State.LANDED  # someone may have taken the object before our delete
        ends = judge_ends(self.bucket, self.plan, item.planned, row.way, self._seen)
        return decide(direction, state, *ends)

    def _close(self, item: _Item, state: State, why: str) -> None:
        """Store the state in which a row ended; a row to park gets ``rest`` instead."""
        row = item.row
        way = self.move.way
        is_moved = state is State.MOVED
        if row.way is Way.PARK:
            state = row.rest
            why = row.why
            way = Way.PARK if is_moved else way
        elif row.way is Way.FREE:
            # If it stayed, its source is occupied, or the parked object has gone.
            state = State.FREED if is_moved else State.UNPROVEN
            way = Way.PARK
        elif row.way is not way and state is not State.UNPROVEN:
            state = State.LEFT  # ``judge_as_release`` judged it
        if state is State.MOVED:
            del self.move.rows[item.number]
        else:
            self._update(item, state=state, way=way, why=why, at=None)

    def _send(self, sends: Sequence[_Item], deletes: Sequence[_Item]) -> None:
        """Announce copies and deletes, save, and send them; store what each answer proves."""
        if not (sends or deletes):
            return
        announced = []
        requests = []
        for item in sends:
            is_rename = self.abilities.rename and item.row.state in _NEVER_COPIED
            request = Request(
                "rename" if is_rename else "copy",
                item.to,
                source=item.source,
                if_match=self._seen[item.source].etag,
                if_absent=self._guards_copies,
            )
            if not (is_rename or self.abilities.copies):
                try:
                    request = self.bucket.read_put(request)
                except StoreError as error:  # nothing is sent: look again
                    self._update(item, why=f"{error}")
                    continue
            requests.append(request)
            state = State.RENAMING if is_rename else State.DOUBTFUL
            announced.append(self._update(item, state=state, at=self.book.stamp))
        already = [item for item in deletes if item.row.state not in (State.LANDED, State.DELETING)]
        deleting = [self._update(item, state=State.DELETING) for item in deletes]
        self.book.save()
        self.operator.note("begun", move=self.move.id, rows=len(announced))
        age_s = self.operator.clock.monotonic() - self._looked_at
        if age_s > _MAX_LOOK_AGE_S and not (self._guards_copies and self._guards_deletes):
            for item in (*sends, *deletes):  # nothing is sent: restore the rows, and look again
                self._update(item)
            return
        self.already += len(already)
        items_of_requests = [[item] for item in announced]
        is_bulk = self.abilities.conditional_bulk
        if self._guards_deletes and not is_bulk:
            for item in deleting:
                items_of_requests.append([item])
                requests.append(
                    Request("delete", item.source, if_match=self._seen[item.source].etag)
                )
        elif deleting:
            items_of_requests.append(deleting)
            etags = {
                item.source: self._seen[item.source].etag if is_bulk else "" for item in deleting
            }
            requests.append(Request("delete_many", keys=etags))
        answers = self.book.send(
            requests, lambda index, answer: self._note_answer(items_of_requests[index], answer)
        )
        is_busy = any(answer.code in _OVERLOADED for answer in answers)
        if is_busy:
            self._batch_size = max(1, self._batch_size // 4)
        else:
            self._batch_size = min(self._max_batch, self._batch_size * 4)

    def _note_answer(self, items: Sequence[_Item], answer: Answer) -> None:
        """Store what an answer proves about its rows; if it proves nothing, their states stay."""
        for item in items:
            code = answer.failed.get(item.source, "")
            is_done = answer.effect == "done" and not code
            state = item.row.state
            if is_done and state is not State.DOUBTFUL:  # renamed or deleted
                self._close(item, State.MOVED, "")
                continue
            if is_done and answer.etag == item.planned.etag:
                state = State.LANDED  # a copy with another ETag is compared by a look
            elif answer.effect == "none" and state is not State.DELETING:
                state = State.WAITING
            self._update(item, state=state, why=code or f"{answer.code} {answer.message}".strip())
