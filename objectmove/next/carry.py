"""The loop over rows: look as far as needed, ask the table, announce, save, send, note the answers.

Every way and direction goes through ``Carrier._step``. Nothing is sent before a save of the state
names its row. A release needs no look where the store itself guards the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Protocol

from chainlog import ChainedLog, LogError

from .book import Book, Clock, Notice
from .bucket import REFUSED, Answer, Request, S3Bucket, format_time
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
#: For how long a look at the worker holds.
_HOLD_CHECK_S = 2.0
#: Past this size of the state, nothing more is announced.
_MAX_STATE_BYTES = 1_000_000
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


class Carrier:
    """Carries the rows of one move, or of one part, within one run.

    Parameters
    ----------
    book : the locked state object in which the rows stand
    still_since : since when nobody takes from where consumers take, as a person confirmed
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
        is_wanted: Callable[[int], bool] = lambda _number: True,
    ) -> None:
        self.bucket = bucket
        self.plan = plan
        self.operator = operator
        self.book = book
        self.move = move
        self.abilities = abilities
        self.still_since = still_since
        self.is_wanted = is_wanted
        self.looks = Looks(bucket)
        self.already = 0
        self.unsure: set[int] = set()
        self._planned: dict[int, PlanRow] = {}
        self._tried: dict[int, int] = {}
        self._width = STILL_WINDOW if still_since is not None else WINDOW
        self._most = self._width
        self._looked_at = float("-inf")
        self._held_at = float("-inf")
        #: Which kinds of requests need no look before them, because the store guards them.
        self._guards_copies = abilities.rename or abilities.conditional_copy
        self._guards_deletes = abilities.conditional_delete

    # --- what a run does with rows ---

    def finish(self) -> None:
        """Go through all open rows, and rows to be parked or brought back, to their end."""
        numbers = [
            number
            for number, row in self.move.rows.items()
            if row.state in OPEN or (row.state is State.WAITING and row.way is not self.move.way)
        ]
        self._resolve(sorted(numbers))

    def carry(self) -> None:
        """Move the rows that wait: the first one alone, then window after window.

        Raises
        ------
        StoppedError
            When the first row of this run does not move, no row of a window does, the state is
            full, or our lock was lost.
        MoversError
            When the worker is not paused any more.
        """
        queue = self._list_waiting()
        total = self.move.end - self.move.start
        landed: list[int] = []
        has_moved_one = False
        while True:
            batch = list(islice(queue, self._find_room(landed) if has_moved_one else 1))
            if not batch and not landed:
                return
            self._enter(batch)
            landed = [number for number in landed if self._get_state(number) is State.LANDED]
            wanted = self._ask(batch)
            if self.move.way is Way.BACK:
                self._resolve(wanted)
            else:
                self._step([*wanted, *landed], is_fresh=True)
                self._check_landed(wanted)
            landed = [number for number in wanted if self._get_state(number) is State.LANDED]
            if wanted and not has_moved_one:
                self._resolve_first(wanted[0])
                landed = []
                has_moved_one = self._get_state(wanted[0]) is State.MOVED
            self.operator.progress(self.move.next - self.move.start, total)

    def park(self, hold: Callable[[], None]) -> None:
        """Park what a person must decide on, or decided to be taken, if it is at its source.

        Parameters
        ----------
        hold : holds the worker; called before anything is parked
        """
        rows = self.move.rows
        numbers = self.move.find(State.UNPROVEN, State.TAKEN)
        self.looks.look([self.get_planned(number).key for number in numbers])
        at_source = []
        for number in numbers:
            planned = self.get_planned(number)
            place = self.looks.judge(planned, planned.key, is_source=True)
            if place.is_here or place is Place.UNKNOWN:
                at_source.append(number)
                if rows[number].lies != "parked":
                    rows[number] = replace(rows[number], lies="source")
            elif rows[number].lies == "source":
                rows[number] = replace(rows[number], lies="")
        if not self.abilities.parking or not at_source:
            return
        hold()
        self._note_evidence([number for number in at_source if not rows[number].evidence])
        for number in at_source:
            rows[number] = replace(rows[number], state=State.WAITING, way=Way.PARK)
        self._resolve(at_source)
        for number in at_source:
            row = rows[number]
            if row.state is State.WAITING:  # it cannot be parked
                final = State.TAKEN if row.answer == "taken" else State.UNPROVEN
                rows[number] = replace(row, state=final, way=self.move.way)

    def stop(self, why: str) -> None:
        """Announce nothing more: rows that wait are left."""
        self.move.stopped = why
        self.move.end = self.move.next
        for number in self.move.find(State.WAITING):
            row = self.move.rows[number]
            if row.way is self.move.way:
                self.move.rows[number] = replace(row, state=State.LEFT, why=why)

    def turn_round(self) -> None:
        """Judge what an undo left open as its release would, because nobody confirmed anything.

        A row whose copy is back, and whose object is where consumers take, stays released.
        """
        for number in self.move.find(State.DOUBTFUL, State.LANDED, State.DELETING):
            row = self.move.rows[number]
            if row.way is Way.BACK:
                self.move.rows[number] = replace(row, way=Way.THERE, state=State.DOUBTFUL)

    def believe_log(self) -> None:
        """Count copies as landed of which this machine's log holds the answer.

        An old copy of the log can miss an answer, but not make one up.
        """
        landed: set[int] = set()
        with suppress(LogError):
            for entry in self.operator.log(self.plan.id).scan():
                if entry.kind == "landed" and entry.data.get("move") == self.move.id:
                    landed.update(entry.data["rows"])
        for number in self.move.find(State.DOUBTFUL):
            row = self.move.rows[number]
            if number in landed and row.way is Way.THERE and not self.move.is_undo:
                self.move.rows[number] = row.change(State.LANDED)

    def wind_down(self) -> None:
        """After an interrupt, delete the sources of what has landed; send nothing else."""
        landed = [
            number
            for number in self.move.find(State.LANDED)
            if self.move.rows[number].way is Way.THERE
        ]
        self._step(landed, is_fresh=True)
        self.book.save()

    def get_planned(self, number: int) -> PlanRow:
        """Return a row of the plan; rows in use are parsed once."""
        planned = self._planned.get(number)
        if planned is None:
            planned = self._planned[number] = self.plan.rows[number]
        return planned

    # --- windows ---

    def _list_waiting(self) -> Iterator[int]:
        """Yield the rows that wait to go the move's own way."""
        for number in self.move.find(State.WAITING):
            is_tried = self._tried.get(number, 0) >= _TRIES
            if self.move.rows[number].way is self.move.way and not is_tried:
                yield number
        while self.move.next < self.move.end:
            number = self.move.next
            self.move.next += 1
            if not self.is_wanted(number):
                self.move.rows[number] = Row(State.LEFT, self.move.way)
            elif number not in self.move.rows:
                yield number

    def _enter(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.move.rows.setdefault(number, Row(State.WAITING, self.move.way))

    def _find_room(self, landed: Sequence[int]) -> int:
        """Return how many more rows may be in doubt.

        Raises
        ------
        StoppedError
            When there is no room, and open rows cannot be closed.
        """
        if self.book.size_bytes > _MAX_STATE_BYTES:
            text = "too many rows of this plan need an entry of their own: plan fewer, or --parts"
            raise StoppedError(text)
        room = self._width - len(self._list_open(landed))
        if room <= 0:
            self.finish()
            room = self._width - len(self._list_open(landed))
        if room <= 0:
            raise StoppedError(f"{self._width} rows are in doubt")
        return room

    def _list_open(self, landed: Sequence[int]) -> list[int]:
        return [number for number in self.move.find(*OPEN) if number not in landed]

    def _ask(self, numbers: Sequence[int]) -> list[int]:
        """Ask the caller about a release's rows; return those that may move now."""
        if self.move.is_undo or not numbers:
            return list(numbers)
        answers = self.operator.ask([self.get_planned(number) for number in numbers])
        wanted = []
        for number, answer in zip(numbers, answers, strict=True):
            row = self.move.rows[number]
            if answer == "":
                wanted.append(number)
            elif answer is None:
                why = "whether it is still wanted is not known"
                self.move.rows[number] = row.change(State.WAITING, why)
            else:
                self._close(number, State.SKIPPED, answer)
        return wanted

    def _resolve_first(self, number: int) -> None:
        """Bring the first row of this run to its end: nothing shows yet that moves work.

        Raises
        ------
        StoppedError
            When it is open or waits after that.
        """
        if self._get_state(number) is State.LANDED:
            self._step([number], is_fresh=True)
        self._resolve([number])
        row = self.move.rows.get(number)
        if row is not None and (row.state in OPEN or row.state in (State.WAITING, State.UNPROVEN)):
            key = self.get_planned(number).key
            raise StoppedError(f"the first object did not move: {key}: {row.why}")

    def _check_landed(self, numbers: Sequence[int]) -> None:
        """Stop when no row of a window got anywhere: more would only leave more rows in doubt."""
        states = {self._get_state(number) for number in numbers}
        if len(numbers) > 1 and states <= {State.DOUBTFUL, State.RENAMING, State.WAITING}:
            why = self.move.rows[numbers[0]].why
            raise StoppedError(f"no object of a window moved: {why}")

    def _resolve(self, numbers: Sequence[int]) -> None:
        """Go through rows until they have ended, or a round changes none."""
        for _ in range(_ROUNDS):
            left = [number for number in numbers if self._is_to_be_tried(number)]
            if not left:
                return
            self.book.wait(f"{len(left)} objects may still change")
            before = [self.move.rows[number] for number in left]
            for start in range(0, len(left), self._width):
                self._step(left[start : start + self._width])
            if before == [self.move.rows.get(number) for number in left]:
                return

    def _is_to_be_tried(self, number: int) -> bool:
        row = self.move.rows.get(number)
        if row is None or self._tried.get(number, 0) >= _TRIES:
            return False
        return row.state in OPEN or row.state is State.WAITING

    # --- one step ---

    def _step(self, numbers: Sequence[int], *, is_fresh: bool = False) -> None:
        """Look at rows, ask the table, and do what it says.

        Parameters
        ----------
        is_fresh : they wait and were looked at when this run began, or landed in this run: then a
            request that the store guards needs no look
        """
        if not numbers:
            return
        self._check_hold()
        self.book.renew()
        self._look(numbers, is_fresh=is_fresh)
        sends = []
        deletes = []
        for number in numbers:
            rule = self._decide(number, is_fresh=is_fresh)
            if rule.act is Act.SEND:
                sends.append(number)
            elif rule.act is Act.DELETE:
                deletes.append(number)
            elif isinstance(rule.act, State):
                self._close(number, rule.act, rule.reason)
            else:
                self.move.rows[number] = replace(self.move.rows[number], why=rule.reason)
        self._send(sends, deletes)

    def _check_hold(self) -> None:
        """Make sure every few seconds that the worker is paused."""
        now = self.operator.clock.monotonic()
        if now - self._held_at > _HOLD_CHECK_S:
            self.operator.hold.check()
            self._held_at = now

    def _look(self, numbers: Sequence[int], *, is_fresh: bool) -> None:
        """Look at the ends of rows, as far as the store does not guard what may be sent."""
        header = self.plan.header
        sources: list[str] = []
        destinations: list[str] = []
        both: list[str] = []
        for number in numbers:
            row = self.move.rows[number]
            planned = self.get_planned(number)
            if not is_fresh or number in self.unsure:
                both += get_ends(header, planned, row.way)
            elif row.state is State.WAITING:
                destinations.append(planned.to)
            else:
                sources.append(planned.key)
        self._looked_at = self.operator.clock.monotonic()
        self.looks.look(both)
        if not self._guards_copies:
            self.looks.look_in_order(header.to, destinations, believes_absence=True)
        if not self._guards_deletes:
            self.looks.look_in_order(header.source, sources, believes_absence=False)

    def _decide(self, number: int, *, is_fresh: bool) -> Rule:
        """Ask the table about a row."""
        row = self.move.rows[number]
        planned = self.get_planned(number)
        source_key, destination_key = get_ends(self.plan.header, planned, row.way)
        source = self.looks.judge(planned, source_key, is_source=True)
        destination = self.looks.judge(planned, destination_key, is_source=False)
        is_fresh = is_fresh and number not in self.unsure
        if is_fresh and row.state is State.WAITING:
            source = Place.SAME
            destination = Place.ABSENT if self._guards_copies else destination
        elif is_fresh and row.state is State.LANDED:
            source = Place.SAME if self._guards_deletes else source
            destination = Place.UNKNOWN
        state = row.state
        if row.way is Way.BACK and state is State.DELETING and not self._is_confirmed(row):
            state = State.LANDED  # someone may have taken the object before our delete
        return decide(
            direction=self._choose_direction(row),
            state=state,
            source=source,
            destination=destination,
        )

    def _choose_direction(self, row: Row) -> Direction:
        """Return a row's direction for the table: who may take from its destination."""
        match row.way:
            case Way.THERE:
                is_still = not self.move.is_undo and self._is_confirmed(row)
                return Direction.STILL if is_still else Direction.THERE
            case Way.BACK:
                return Direction.BACK
            case Way.PARK:
                return Direction.ASIDE
            case Way.FREE:
                return Direction.ASIDE if self.operator.hold.holds else Direction.THERE

    def _is_confirmed(self, row: Row) -> bool:
        """Tell whether nobody took from where consumers take since the row was announced."""
        if self.still_since is None:
            return False
        return row.at is None or row.at >= self.still_since

    def _close(self, number: int, state: State, why: str) -> None:
        """Note that a row came to an end on its way."""
        row = self.move.rows[number]
        planned = self.get_planned(number)
        match row.way:
            case self.move.way if state is State.MOVED:
                del self.move.rows[number]
            case self.move.way:
                place = self.looks.judge(planned, planned.key, is_source=True)
                lies: Lies = "source" if place.is_here else ""
                row = replace(row, state=state, why=why, at=None, lies=lies)
                self.move.rows[number] = row
            case Way.PARK:
                final = State.TAKEN if row.answer == "taken" else State.UNPROVEN
                parked = self.plan.header.get_parked_key(planned.key)
                place = self.looks.judge(planned, parked, is_source=False)
                is_parked = state is State.MOVED or place.is_here
                self._end_aside(number, final, "parked" if is_parked else "")
            case Way.FREE if state is State.MOVED:
                self._end_aside(number, State.FREED, "source")
            case Way.FREE:  # its source is occupied, or the parked object has gone
                self.move.rows[number] = replace(row, answer="", why=why)
                is_parked = state is State.SKIPPED
                self._end_aside(number, State.UNPROVEN, "parked" if is_parked else "")
            case _:  # a row of an undo that was turned round
                final = State.UNPROVEN if state is State.UNPROVEN else State.LEFT
                self.move.rows[number] = replace(row, why=why)
                self._end_aside(number, final, "source" if final is State.UNPROVEN else "")
        self._tried.pop(number, None)
        self._planned.pop(number, None)
        self.looks.forget(*get_ends(self.plan.header, planned, row.way))

    def _end_aside(self, number: int, state: State, lies: Lies) -> None:
        """End a row that went another way than the move's own."""
        row = self.move.rows[number]
        row = replace(row, state=state, way=self.move.way, at=None, lies=lies)
        self.move.rows[number] = row

    # --- requests ---

    def _send(self, sends: Sequence[int], deletes: Sequence[int]) -> None:
        """Announce, save, and send copies, renames and deletes; note what each answer proves."""
        rows = self.move.rows
        before = {number: rows[number] for number in (*sends, *deletes)}
        for number in sends:
            row = rows[number]
            is_rename = self.abilities.rename and row.state in (State.WAITING, State.RENAMING)
            state = State.RENAMING if is_rename else State.DOUBTFUL
            rows[number] = replace(row, state=state, at=self.book.stamp)
        is_release = True
        for number in deletes:
            row = rows[number]
            is_release = row.way is Way.THERE
            self.already += row.state is not State.LANDED and is_release
            rows[number] = row.change(State.LANDED if is_release else State.DELETING, row.why)
        if sends or not is_release:
            self.book.save()
        if sends:
            self._log("announced", sends)
        if not self._is_look_young(sends, deletes):
            rows.update(before)
            return
        requests: list[Request] = []
        takers: list[Callable[[Answer], None]] = []
        for number in sends:
            requests.append(self._make_send(number))
            takers.append(partial(self._note_sent, number))
        for request, numbers in self._make_deletes(deletes):
            requests.append(request)
            takers.append(partial(self._note_deleted, numbers))
        answers = self.book.send(requests, lambda index, answer: takers[index](answer))
        self._adapt_width(answers[: len(sends)])
        self._note_landed(sends, answers)

    def _is_look_young(self, sends: Sequence[int], deletes: Sequence[int]) -> bool:
        """Tell whether the last look still covers requests that the store does not guard."""
        is_unguarded = (sends and not self._guards_copies) or (deletes and not self._guards_deletes)
        age_s = self.operator.clock.monotonic() - self._looked_at
        return not is_unguarded or age_s <= _MAX_LOOK_AGE_S

    def _make_send(self, number: int) -> Request:
        """Return the request of a copy or a rename, bound to what the last look found."""
        row = self.move.rows[number]
        planned = self.get_planned(number)
        source, destination = get_ends(self.plan.header, planned, row.way)
        seen = self.looks.seen.get(source)
        etag = planned.etag
        if seen is not None:
            etag = seen.etag if seen.has_etag else ""
        if row.state is State.RENAMING:
            return Request("rename", destination, source=source, if_match=etag, if_absent=True)
        return Request(
            "copy",
            destination,
            source=source,
            if_match=etag,
            if_absent=self.abilities.conditional_copy,
            headers=self._make_headers(number),
        )

    def _make_headers(self, number: int) -> dict[str, str]:
        """Return the headers by which an undo keeps since when an object waits.

        Empty where the copy keeps the source's headers.
        """
        planned = self.get_planned(number)
        seen = self.looks.seen.get(planned.to)
        name = self.operator.age_key
        is_back = self.move.rows[number].way is Way.BACK
        if not is_back or not name or seen is None or name in (seen.metadata or {}):
            return {}
        metadata = {name: format_time(planned.age_start), **(seen.metadata or {})}
        headers = dict(seen.headers)
        headers.update({f"x-amz-meta-{name}": text for name, text in metadata.items()})
        return headers if all(text.isascii() for text in headers.values()) else {}

    def _make_deletes(self, numbers: Sequence[int]) -> Iterator[tuple[Request, list[int]]]:
        """Yield the requests that delete the sources of rows, each with its rows."""
        etags: dict[str, str] = {}
        for number in numbers:
            planned = self.get_planned(number)
            key, _ = get_ends(self.plan.header, planned, self.move.rows[number].way)
            seen = self.looks.seen.get(key)
            etags[key] = planned.etag
            if seen is not None:
                etags[key] = seen.etag if seen.has_etag else ""
        if self._guards_deletes and not self.abilities.conditional_bulk:
            for number, (key, etag) in zip(numbers, etags.items(), strict=True):
                yield Request("delete", key, if_match=etag), [number]
        elif numbers:
            if not self.abilities.conditional_bulk:
                etags = dict.fromkeys(etags, "")
            yield Request("delete_many", keys=etags), list(numbers)

    def _note_sent(self, number: int, answer: Answer) -> None:
        """Note what the answer to a copy or a rename proves."""
        row = self.move.rows[number]
        if answer.effect == "done":
            if row.state is State.RENAMING:
                self._close(number, State.MOVED, "")
            elif answer.etag == self.get_planned(number).etag:
                self.move.rows[number] = row.change(State.LANDED)
            return  # a copy with another ETag is compared by a look
        why = f"{answer.code} {answer.message}".strip()
        if answer.effect == "none":
            self._note_without_effect(number, answer)
            self.move.rows[number] = replace(row, state=State.WAITING, why=why, at=None)
        else:
            self.move.rows[number] = replace(row, why=why)

    def _note_deleted(self, numbers: Sequence[int], answer: Answer) -> None:
        """Note what the answer to a delete proves; without a proof, the rows stay as they are."""
        for number in numbers:
            key, _ = get_ends(
                self.plan.header, self.get_planned(number), self.move.rows[number].way
            )
            code = answer.failed.get(key, "")
            if answer.effect == "done" and not code:
                self._close(number, State.MOVED, "")
                continue
            code = code or answer.code
            why = f"its source was not deleted: {code} {answer.message}".strip()
            self.move.rows[number] = replace(self.move.rows[number], why=why)
            if answer.effect == "none" or answer.failed:
                self._note_without_effect(number, replace(answer, code=code))

    def _note_without_effect(self, number: int, answer: Answer) -> None:
        is_final = answer.code in REFUSED
        self._tried[number] = _TRIES if is_final else self._tried.get(number, 0) + 1

    def _note_landed(self, numbers: Sequence[int], answers: Sequence[Answer]) -> None:
        """Compare copies whose ETag is another one than planned; log what landed."""
        doubtful = []
        for number, answer in zip(numbers, answers, strict=False):
            if answer.effect == "done" and self._get_state(number) is State.DOUBTFUL:
                doubtful.append(number)
        if doubtful:
            keys = {}
            for number in doubtful:
                planned = self.get_planned(number)
                _, keys[number] = get_ends(self.plan.header, planned, self.move.rows[number].way)
            self.looks.look(keys.values())
            for number, key in keys.items():
                place = self.looks.judge(self.get_planned(number), key, is_source=False)
                if place is Place.SAME:
                    self.move.rows[number] = self.move.rows[number].change(State.LANDED)
        landed = [number for number in numbers if self._get_state(number) is State.LANDED]
        if landed and self.move.way is Way.THERE:
            self._log("landed", landed)

    def _note_evidence(self, numbers: Sequence[int]) -> None:
        """Note what is known of orders before the worker sees the objects vanish."""
        if not numbers:
            return
        texts = self.operator.evidence([self.get_planned(number) for number in numbers])
        for number, text in zip(numbers, texts, strict=True):
            self.move.rows[number] = replace(self.move.rows[number], evidence=text[:300])

    def _adapt_width(self, answers: Sequence[Answer]) -> None:
        """Move fewer rows at once while the store is overloaded, and more again later."""
        if any(answer.code in _OVERLOADED for answer in answers):
            self._width = max(1, self._width // 4)
        else:
            self._width = min(self._most, self._width * 2)

    def _log(self, kind: str, numbers: Sequence[int]) -> None:
        self.operator.note(self.plan.id, kind, move=self.move.id, rows=list(numbers))

    def _get_state(self, number: int) -> State:
        return self.move.get_state(number)
