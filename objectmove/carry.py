"""The loop over rows: look as far as needed, ask the table, announce, save, send, note the answers.

Every way and direction goes through ``Carrier._step``. Nothing is sent before a save of the state
names its row. A release needs no look where the store itself guards the request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

from chainlog import ChainedLog, LogError

from .book import Book, Clock, Notice
from .bucket import REFUSED, Answer, Request, S3Bucket, Seen, format_time
from .errors import StoppedError
from .looks import Looks, get_ends
from .plan import Abilities, Plan, PlanRow
from .state import Lies, Move, Row, Way
from .table import OPEN, Act, Direction, Place, Rule, State, decide

#: The most rows in doubt at once; more while a person confirms that nobody takes them.
WINDOW = 32
STILL_WINDOW = 256
#: How often a row is tried in one run without effect, and how often open rows are gone through.
_TRIES = 2
_ROUNDS = 6
#: How old a look may be when a request is sent that the store guards by no condition.
_MAX_LOOK_AGE_S = 2.0
#: Past this size of the state, nothing more is announced.
_MAX_STATE_BYTES = 1_000_000
#: A copy of such a row was never announced.
_NEVER_COPIED = (State.WAITING, State.RENAMING)
_OVERLOADED = ("SlowDown", "HTTP 503", "ServiceUnavailable")

Ask = Callable[[Sequence[PlanRow]], Sequence[str | None]]
"""Takes rows right before they are announced. Returns for each row an empty text (move it), why it
must stay (it is skipped), or None (nobody knows: it waits for the next run)."""

Evidence = Callable[[Sequence[PlanRow]], Sequence[str]]
"""Takes rows; returns for each row, in words, what other systems know of its order."""


class Holder(Protocol):
    """Holds the worker: keeps everyone else from moving objects; the caller provides it.

    Attributes
    ----------
    name : what is held, the same on every machine
    words : how it is held; the plan repeats these words
    way_back : how a person ends the hold without us
    holds : whether it can keep the worker from moving; False where it can watch at most
    """

    name: str
    words: str
    way_back: str
    holds: bool

    def is_paused(self) -> bool:
        """Tell whether the worker is paused; raise ``MoversError`` if nobody knows."""

    def pause(self) -> None:
        """Pause the worker; raise ``MoversError`` when it is not certain that it is paused."""

    def check(self) -> None:
        """Raise ``MoversError`` unless the worker is paused, and its last pass has ended."""

    def resume(self) -> None:
        """Resume the worker; raise a ``MoveError`` when it is not certain that it runs."""


def _want_all(rows: Sequence[PlanRow]) -> list[str | None]:
    return [""] * len(rows)


def _know_nothing(rows: Sequence[PlanRow]) -> list[str]:
    return [""] * len(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Who carries a plan out, and with what.

    Attributes
    ----------
    name : stands in lock, state and log
    log : returns this machine's log of a plan, by the plan's id
    notice, progress : called with what is waited for; with the number of rows dealt with, and of
        all rows
    age_key : name of the metadata in which an undo keeps since when an object waits; empty: none
    """

    name: str
    hold: Holder
    log: Callable[[str], ChainedLog]
    clock: Clock = field(default_factory=Clock)
    notice: Notice = lambda _: None
    progress: Callable[[int, int], None] = lambda _done, _total: None
    ask: Ask = _want_all
    evidence: Evidence = _know_nothing
    age_key: str = ""

    def note(self, plan: str, kind: str, **data: object) -> None:
        """Write into this machine's log, which is for people; a full disk stops no move."""
        try:
            self.log(plan).append(kind, data, sync=False)
        except LogError as error:
            self.notice(f"the log of {plan} cannot be written: {error}")


class _Item(NamedTuple):
    """A row in a step: what is stored of it, what was planned, and the keys of its two ends."""

    number: int
    row: Row
    planned: PlanRow
    source: str
    to: str


#: Where an object of an unproven row may lie, by the ends of ``Way.PARK``.
_ENDS: tuple[Lies, Lies] = ("source", "parked")
#: The states of a row that got nowhere.
_STUCK = (State.WAITING, State.UNPROVEN, *OPEN)


class Carrier:
    """Carries the rows of one move, or of one part, within one run.

    Parameters
    ----------
    book : the locked state object in which the rows stand
    still_since : since when nobody takes from where consumers take, as a person confirmed
    hold : holds the worker, or makes sure that it is held
    is_wanted : tells for a row's number whether the move is about it

    Attributes
    ----------
    already : how many rows a look of this run found at their destination
    unsure : rows whose ends must be looked at although they wait
    """

    def __init__(
        self,
        bucket: S3Bucket,
        plan: Plan,
        operator: Operator,
        book: Book,
        move: Move,
        *,
        abilities: Abilities,
        still_since: datetime | None,
        hold: Callable[[], None],
        is_wanted: Callable[[int], bool],
    ) -> None:
        self.move = move
        self.already = 0
        self.unsure: set[int] = set()
        self._plan = plan
        self._operator = operator
        self._book = book
        self._abilities = abilities
        self._still_since = still_since
        self._hold = hold
        self._is_wanted = is_wanted
        self._looks = Looks(bucket)
        self._planned: dict[int, PlanRow] = {}
        self._tried: Counter[int] = Counter()
        self._most = STILL_WINDOW if still_since is not None else WINDOW
        self._width = 1
        self._has_begun = False
        self._looked_at = float("-inf")
        #: Which kinds of requests need no look before them, because the store guards them.
        self._guards_copies = abilities.rename or abilities.conditional_copy
        self._guards_deletes = abilities.conditional_delete

    # --- what a run does with rows ---

    def finish(self) -> None:
        """Go through all open rows, and rows to be parked or brought back, to their end."""
        rows = self.move.rows
        waiting = self.move.find(State.WAITING)
        aside = [number for number in waiting if rows[number].way is not self.move.way]
        self._resolve([*self.move.find(*OPEN), *aside])

    def carry(self) -> None:
        """Move the rows that wait: the first one alone, then window after window.

        Raises
        ------
        StoppedError
            When the first row of this run does not move, no row of a window does, too many stay in
            doubt, the state is full, or our lock was lost.
        MoversError
            When the worker is not paused any more.
        """
        queue = self._list_waiting()
        landed: list[int] = []
        has_moved_one = False
        while True:
            batch = list(islice(queue, self._find_room(landed)))
            landed = [number for number in landed if number in self.move.rows]
            if not batch and not landed:
                return
            wanted = self._ask(batch)
            if self.move.way is Way.THERE:
                self._step([*wanted, *landed], is_fresh=True)
            if self.move.way is Way.BACK or not has_moved_one:
                self._resolve(wanted)
            landed = [number for number in wanted if self._get_state(number) is State.LANDED]
            stuck = [number for number in wanted if self._get_state(number) in _STUCK]
            if has_moved_one:
                stuck = [number for number in stuck if number not in landed]
            if stuck and stuck == wanted:
                first = self._get(stuck[0])
                raise StoppedError(f"no object moved: {first.source}: {first.row.why}")
            has_moved_one = has_moved_one or bool(wanted)
            done = self.move.next - self.move.start
            self._operator.progress(done, self.move.end - self.move.start)

    def park(self) -> None:
        """Park what a person must decide on, or decided to be taken, if it is at its source."""
        rows = self.move.rows
        at_source = self._find_lying()
        if not at_source:
            return
        self._hold()
        self._note_evidence([number for number in at_source if not rows[number].evidence])
        for number in at_source:
            rows[number] = replace(rows[number], state=State.WAITING, way=Way.PARK)
        self._resolve(at_source)
        for number in at_source:
            row = rows[number]
            if row.state is State.WAITING:  # it cannot be parked
                rows[number] = replace(row, state=row.answered, way=self.move.way)
        self._find_lying()

    def _find_lying(self) -> list[int]:
        """Note where the objects of unproven and taken rows lie; return those at their source.

        What could not be read may be there.
        """
        items = [self._get(number) for number in self.move.find(State.UNPROVEN, State.TAKEN)]
        ends = [get_ends(self._plan.header, item.planned, Way.PARK) for item in items]
        self._looks.look(sum(ends, ()))
        at_source = []
        for (number, row, planned, *_), keys in zip(items, ends, strict=True):
            lies: Lies = ""
            for key, word in zip(keys, _ENDS, strict=True):
                place = self._looks.judge(planned, key, is_source=word == "source")
                if not lies and (place.is_here or place is Place.UNKNOWN):
                    lies = word
            self.move.rows[number] = replace(row, lies=lies)
            if lies == "source":
                at_source.append(number)
        return at_source

    def stop(self, why: str) -> None:
        """Announce nothing more: rows that wait are left."""
        self.move.stopped = why
        self.move.end = self.move.next
        self._change(State.WAITING, self.move.way, state=State.LEFT, why=why)

    def turn_round(self) -> None:
        """Judge what an undo left open as its release would, because nobody confirmed anything.

        A row whose copy is back, and whose object is where consumers take, stays released.
        """
        for state in (State.DOUBTFUL, State.LANDED, State.DELETING):
            self._change(state, Way.BACK, way=Way.THERE, state=State.DOUBTFUL)

    def _change(self, old: State, going: Way, **changes: Any) -> None:
        """Change all rows in a state that go a way."""
        for number in self.move.find(old):
            row = self.move.rows[number]
            if row.way is going:
                self.move.rows[number] = replace(row, **changes)

    def believe_log(self) -> None:
        """Count copies as landed of which this machine's log holds the answer.

        An old copy of the log can miss an answer, but not make one up.
        """
        landed: set[int] = set()
        with suppress(LogError):
            for entry in self._operator.log(self._plan.id).scan():
                if entry.kind == "landed" and entry.data["move"] == self.move.id:
                    landed.update(entry.data["rows"])
        for number in landed.intersection(self.move.find(State.DOUBTFUL)):
            row = self.move.rows[number]
            if row.way is self.move.way:
                self.move.rows[number] = replace(row, state=State.LANDED)

    def wind_down(self) -> None:
        """After an interrupt, delete the sources of what has landed; send nothing else."""
        rows = self.move.rows
        landed = self.move.find(State.LANDED)
        self._step([n for n in landed if rows[n].way is Way.THERE], is_fresh=True)
        self._book.save()

    # --- windows ---

    def _list_waiting(self) -> Iterator[int]:
        """Yield the rows that wait to go the move's own way."""
        move = self.move
        for number in move.find(State.WAITING):
            if move.rows[number].way is move.way and self._tried[number] < _TRIES:
                yield number
        while move.next < move.end:
            number = move.next
            move.next += 1
            if not self._is_wanted(number):
                move.rows[number] = Row(State.LEFT, move.way)
            elif number not in move.rows:
                move.rows[number] = Row(State.WAITING, move.way)
                yield number

    def _find_room(self, landed: Sequence[int]) -> int:
        """Return how many more rows may be in doubt.

        Raises
        ------
        StoppedError
            When there is no room, and open rows cannot be closed.
        """
        if self._book.size_bytes > _MAX_STATE_BYTES:
            text = "too many rows of this plan need an entry of their own: plan fewer, or --parts"
            raise StoppedError(text)
        in_doubt = set(self.move.find(*OPEN)).difference(landed)
        if len(in_doubt) >= self._most:
            self.finish()
            in_doubt = set(self.move.find(*OPEN))
        if len(in_doubt) >= self._most:
            raise StoppedError(f"{len(in_doubt)} objects are in doubt")
        return min(self._width, self._most - len(in_doubt))

    def _ask(self, numbers: Sequence[int]) -> list[int]:
        """Ask the caller about a release's rows; return those that may move now."""
        items = [self._get(number) for number in numbers]
        if self.move.is_undo or not items:
            return list(numbers)
        answers = self._operator.ask([item.planned for item in items])
        wanted = []
        for item, answer in zip(items, answers, strict=True):
            if answer:
                self._close(item, State.SKIPPED, answer)
            elif answer is None:
                self._set(item, why="whether it is still wanted is not known")
            else:
                wanted.append(item.number)
        return wanted

    def _resolve(self, numbers: Sequence[int]) -> None:
        """Go through rows until they have ended, or a round changes none."""
        rows = self.move.rows
        for _ in range(_ROUNDS):
            left = {number: rows[number] for number in numbers if number in rows}
            left = {
                number: row
                for number, row in left.items()
                if row.state in (State.WAITING, *OPEN) and self._tried[number] < _TRIES
            }
            if not left:
                return
            self._book.wait(f"{len(left)} objects may still change")
            for start in range(0, len(left), self._most):
                self._step(list(left)[start : start + self._most])
            if all(rows.get(number) == row for number, row in left.items()):
                return

    # --- one step ---

    def _get(self, number: int) -> _Item:
        """Return a row with what was planned; rows in use are parsed once."""
        row = self.move.rows[number]
        planned = self._planned.get(number) or self._plan.rows[number]
        self._planned[number] = planned
        return _Item(number, row, planned, *get_ends(self._plan.header, planned, row.way))

    def _set(self, item: _Item, **changes: Any) -> None:
        self.move.rows[item.number] = replace(item.row, **changes)

    def _get_state(self, number: int) -> State:
        return self.move.get_state(number)

    def _step(self, numbers: Sequence[int], *, is_fresh: bool = False) -> None:
        """Look at rows, ask the table, and do what it says.

        Parameters
        ----------
        is_fresh : they wait and were looked at when this run began, or landed in this run: then a
            request that the store guards needs no look
        """
        if not numbers:
            return
        self._hold()
        self._book.renew()
        items = [self._get(number) for number in numbers]
        self._look(items, is_fresh=is_fresh)
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
                self._set(item, why=rule.reason)
        self._send(sends, deletes)

    def _look(self, items: Sequence[_Item], *, is_fresh: bool) -> None:
        """Look at the ends of rows; where the store guards what may be sent, assume them."""
        sources: list[str] = []
        destinations: list[str] = []
        both: list[str] = []
        seen = self._looks.seen
        for item in items:
            planned = item.planned
            if not is_fresh or item.number in self.unsure:
                both += (item.source, item.to)
                continue
            seen[item.source] = Seen(
                planned.key, planned.etag, planned.size_bytes, planned.last_modified
            )
            if item.row.state is State.WAITING:
                seen[item.to] = None
                destinations.append(item.to)
            else:
                self._looks.forget(item.to)
                sources.append(item.source)
        self._looked_at = self._operator.clock.monotonic()
        self._looks.look(both)
        header = self._plan.header
        if not self._guards_copies:
            self._looks.look_in_order(header.to, destinations, believes_absence=True)
        if not self._guards_deletes:
            self._looks.look_in_order(header.source, sources, believes_absence=False)

    def _decide(self, item: _Item) -> Rule:
        """Ask the table about a row, by the last look."""
        row = item.row
        is_confirmed = self._still_since is not None and (
            row.at is None or row.at >= self._still_since
        )
        direction = Direction.ASIDE
        if row.way is Way.BACK:
            direction = Direction.BACK
        elif row.way is Way.THERE and is_confirmed and not self.move.is_undo:
            direction = Direction.STILL
        elif row.way is Way.THERE or (row.way is Way.FREE and not self._operator.hold.holds):
            direction = Direction.THERE
        state = row.state
        if direction is Direction.BACK and state is State.DELETING and not is_confirmed:
            state = State.LANDED  # someone may have taken the object before our delete
        return decide(
            direction=direction,
            state=state,
            source=self._looks.judge(item.planned, item.source, is_source=True),
            destination=self._looks.judge(item.planned, item.to, is_source=False),
        )

    def _close(self, item: _Item, state: State, why: str) -> None:
        """Note that a row came to an end on its way."""
        row = item.row
        lies: Lies = ""
        if state is not State.MOVED:
            at_source = self._looks.judge(item.planned, item.planned.key, is_source=True)
            lies = "source" if at_source.is_here else ""
        if row.way is Way.PARK:
            state, why = row.answered, row.why
        elif row.way is Way.FREE and state is State.MOVED:
            state, why, lies = State.FREED, row.why, "source"
        elif row.way is Way.FREE:  # its source is occupied, or the parked object has gone
            row = replace(row, answer="")
            state = State.UNPROVEN
        elif row.way is not self.move.way:  # a row of an undo that was turned round
            state = State.UNPROVEN if state is State.UNPROVEN else State.LEFT
        if state is State.MOVED:
            del self.move.rows[item.number]
        else:
            way = self.move.way
            closed = replace(row, state=state, way=way, why=why, at=None, lies=lies)
            self.move.rows[item.number] = closed
        self._tried.pop(item.number, None)
        self._planned.pop(item.number, None)
        self._looks.forget(item.source, item.to)

    # --- requests ---

    def _send(self, sends: Sequence[_Item], deletes: Sequence[_Item]) -> None:
        """Announce, save, and send copies, renames and deletes; note what each answer proves."""
        if not self._has_begun:
            self._has_begun = True
            by = self._operator.name
            self._operator.note(self._plan.id, "begun", move=self.move.id, by=by)
        for item in sends:
            is_rename = self._abilities.rename and item.row.state in _NEVER_COPIED
            state = State.RENAMING if is_rename else State.DOUBTFUL
            self._set(item, state=state, at=self._book.stamp)
        is_release = True
        for item in deletes:
            is_release = item.row.way is Way.THERE
            self.already += is_release and item.row.state is not State.LANDED
            self._set(item, state=State.LANDED if is_release else State.DELETING)
        if sends or not is_release:
            self._book.save()
            self._log("announced", [item.number for item in sends])
        is_unguarded = (sends and not self._guards_copies) or (deletes and not self._guards_deletes)
        age_s = self._operator.clock.monotonic() - self._looked_at
        if is_unguarded and age_s > _MAX_LOOK_AGE_S:
            for item in (*sends, *deletes):  # nothing was sent: look again
                self._set(item)
            return
        requests: list[tuple[Request, Callable[[Answer], None]]] = []
        for number in [item.number for item in sends]:
            item = self._get(number)
            requests.append((self._make_send(item), partial(self._note_sent, item)))
        if self._guards_deletes and not self._abilities.conditional_bulk:
            for item in deletes:
                delete = Request("delete", item.source, if_match=self._find_etag(item))
                requests.append((delete, partial(self._note_deleted, [item])))
        elif deletes:
            is_bound = self._abilities.conditional_bulk
            etags = {item.source: self._find_etag(item) if is_bound else "" for item in deletes}
            delete = Request("delete_many", keys=etags)
            requests.append((delete, partial(self._note_deleted, deletes)))
        answers = self._book.send(
            [request for request, _ in requests],
            lambda index, answer: requests[index][1](answer),
        )
        is_busy = any(answer.code in _OVERLOADED for answer in answers)
        self._width = max(1, self._width // 4) if is_busy else min(self._most, self._width * 4)
        landed = [item.number for item in sends if self._get_state(item.number) is State.LANDED]
        self._log("landed", landed)

    def _find_etag(self, item: _Item) -> str:
        """Return the ETag that the source of a row must have."""
        seen = self._looks.seen.get(item.source)
        return seen.etag if seen is not None else item.planned.etag

    def _make_send(self, item: _Item) -> Request:
        """Return the request of a copy or a rename, bound to what the last look found."""
        is_copy = item.row.state is State.DOUBTFUL
        return Request(
            "copy" if is_copy else "rename",
            item.to,
            source=item.source,
            if_match=self._find_etag(item),
            if_absent=self._guards_copies,
            headers=self._make_headers(item) if is_copy else {},
        )

    def _make_headers(self, item: _Item) -> dict[str, str]:
        """Return the headers by which an undo keeps since when an object waits.

        Empty where the copy keeps the source's headers.
        """
        seen = self._looks.seen.get(item.source)
        name = self._operator.age_key
        if item.row.way is not Way.BACK or not name or seen is None:
            return {}
        metadata = dict(seen.metadata or {})
        metadata.setdefault(name, format_time(item.planned.age_start))
        headers = {f"x-amz-meta-{name}": text for name, text in metadata.items()}
        headers.update(seen.headers)
        return headers if all(text.isascii() for text in headers.values()) else {}

    def _note_sent(self, item: _Item, answer: Answer) -> None:
        """Note what the answer to a copy or a rename proves."""
        is_rename = item.row.state is State.RENAMING
        if answer.effect == "done" and is_rename:
            self._close(item, State.MOVED, "")
        elif answer.effect == "done":
            # A copy with another ETag than planned is compared by a look.
            is_same = answer.etag == item.planned.etag
            self._set(item, state=State.LANDED if is_same else State.DOUBTFUL)
        elif answer.effect == "none":
            self._note_refusal(item.number, answer.code)
            self._set(item, state=State.WAITING, why=_explain(answer), at=None)
        else:
            self._set(item, why=_explain(answer))

    def _note_deleted(self, items: Sequence[_Item], answer: Answer) -> None:
        """Note what the answer to a delete proves; without a proof, the rows stay as they are."""
        for item in (self._get(item.number) for item in items):
            code = answer.failed.get(item.source, "")
            if answer.effect == "done" and not code:
                self._close(item, State.MOVED, "")
                continue
            self._set(item, why=f"its source was not deleted: {code or _explain(answer)}")
            if answer.effect == "none" or code:
                self._note_refusal(item.number, code or answer.code)

    def _note_refusal(self, number: int, code: str) -> None:
        self._tried[number] += _TRIES if code in REFUSED else 1

    def _note_evidence(self, numbers: Sequence[int]) -> None:
        """Note what is known of orders before the worker sees the objects vanish."""
        items = [self._get(number) for number in numbers]
        texts = self._operator.evidence([item.planned for item in items]) if items else ()
        for item, text in zip(items, texts, strict=True):
            self._set(item, evidence=text[:300])

    def _log(self, kind: str, numbers: Sequence[int]) -> None:
        if numbers and self.move.way is Way.THERE:
            self._operator.note(self._plan.id, kind, move=self.move.id, rows=list(numbers))


def _explain(answer: Answer) -> str:
    return f"{answer.code} {answer.message}".strip()
