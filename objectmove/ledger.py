"""The ledger of one plan, in the incident's folder: what happened to each row.

Resume, undo and proof rest on the ledger, on the bucket's record and on the store. The kinds of
lines that matter most:

- ``hold``: who is held for the plan, or that the hold ended
- ``approved``: who approved the plan, and when it was begun
- for each window of rows, in this order: ``intent``, on the disk before the first copy is sent;
  ``landed``, ``refused`` or ``doubtful``, as answers come; ``deleting``, on the disk before the
  first delete is sent; and the states in which rows end
- ``ended``: nothing is left to do but what a person must decide
- ``taken``, ``not_taken``, ``reopened`` and ``taken_back``: what a later plan did to rows

A line with ``leg: park`` is about the parking of rows. Code and messages call a row *announced*
when it stands in an ``intent``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from chainlog import ChainedLog, Entry

from .bucket import format_time, parse_time
from .plan import MovePlan
from .record import HoldNote, Record
from .table import State

Logs = Callable[[str], ChainedLog]
"""Takes a plan's id; returns the plan's ledger on this machine."""

#: The states in which the decision table ends a row.
CLOSED = (State.MOVED, State.SKIPPED, State.CONFLICT, State.UNPROVEN)
#: The copy was announced, and the source may still be there.
HALF_DONE = (State.DOUBTFUL, State.LANDED, State.DELETING)
#: The state that rows have after a line of each kind.
_STATE_OF_KIND = {state.value: state for state in State}
_STATE_OF_KIND |= {
    "intent": State.DOUBTFUL,
    "refused": State.NONE,
    "delete_refused": State.LANDED,
    "taken": State.TAKEN,
    "not_taken": State.FREED,
    "undeleted": State.LANDED,
    "reopened": State.UNPROVEN,
    "taken_back": State.UNDONE,
}
#: The state that a row has after each effect of a later plan on the row.
_STATE_OF_WORD = {
    "taken": State.TAKEN,
    "not_taken": State.FREED,
    "undone": State.UNDONE,
    "reopened": State.UNPROVEN,
}


class Leg(StrEnum):
    """Which of the two ways of a row a line is about."""

    MOVE = "move"
    """From the plan's source to its destination."""

    PARK = "park"
    """Out of the worker's reach, until a person decides whether it may ship."""


class Landing(NamedTuple):
    """A copy that was at its destination, by the answer to the copy or by a look.

    ``at`` is the copy's LastModified by the answer; None when a look found the copy.
    """

    etag: str
    at: datetime | None


class RowStates(Mapping[int, State]):
    """The state of each row, found by row and by state.

    After each window of rows, a release asks which rows are in some state. If all rows were
    searched each time, the time of a release would grow with the square of their number. All rows
    are searched only for those in the state ``NONE``: a run does that a few times.

    Parameters
    ----------
    count : how many rows there are; all begin as ``NONE``

    Attributes
    ----------
    begun : the row after the highest one that was announced; 0 when none was
    waiting_again : rows below ``begun`` whose state is ``NONE``
    """

    def __init__(self, count: int) -> None:
        self.begun = 0
        self.waiting_again: set[int] = set()
        self._states = [State.NONE] * count
        self._rows: dict[State, set[int]] = {state: set() for state in State}

    def __getitem__(self, row: int) -> State:
        if not 0 <= row < len(self._states):
            raise KeyError(row)
        return self._states[row]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._states)))

    def __len__(self) -> int:
        return len(self._states)

    def put(self, state: State, rows: Iterable[int]) -> None:
        """Give some rows a state."""
        for row in rows:
            self._rows[self[row]].discard(row)
            self._states[row] = state
            if state is not State.NONE:
                self._rows[state].add(row)
            if state is State.NONE and row < self.begun:
                self.waiting_again.add(row)
            else:
                self.waiting_again.discard(row)

    def begin(self, end: int) -> None:
        """Note that every row below ``end`` was announced or passed over."""
        for row in range(self.begun, end):
            if self[row] is State.NONE:
                self.waiting_again.add(row)
        self.begun = max(self.begun, end)

    def find(self, *states: State) -> list[int]:
        """Return the rows in some states, in order."""
        if State.NONE in states:
            return [row for row, state in enumerate(self._states) if state in states]
        rows: set[int] = set()
        for state in states:
            rows |= self._rows[state]
        return sorted(rows)


class Ledger:
    """The ledger of one plan: read once, then updated by each line that this object writes.

    Parameters
    ----------
    record : the plan's record; None when the bucket has none. A ledger that lacks the line which
        the record names is an older copy: then this object believes the record
    later : what the bucket knows of undos and settlings of the plan, which other machines may have
        carried out

    Attributes
    ----------
    states : of each row, on its way to the destination
    park_states : of each row, on its way to the parking place
    landings : for each row whose copy was at its destination, that copy
    reasons : why a row did not move, in words
    park_reasons : why a row was not parked, in words
    refused : rows that this run tries no more: the store refused a delete, or refused a copy for
        good
    in_flight : rows of which a request may still take effect before ``fence_at``
    words : what persons said, one sentence each
    reported_rows : rows of an undo, a settling or a reopening whose effect is written where the
        earlier plans find it
    reopened_by : for each row on which a person must decide again, the reopening that holds the row
    taken_back_by, settled_by : ids of the last undo and the last settling of the plan; empty when
        there is none
    lost : keys of which a newer version was deleted in the window that the plan declares
    evidence : for each row, what was known of its order before the object was parked
    fence_at : the store's time after which no request that was sent so far can take effect
    approved_by, approved_sha256 : who approved the plan, and its hash; empty without an approval
    begun_at : the store's time when the plan was begun; None when it was not begun
    store_id : the id of the store on which the plan was made or begun; empty when not known
    versions : as in ``Record``
    hold : who is held for the plan; None when nobody is held
    late_pause : the hold whose pause may have come after another session had ended this hold; None
        when no pause came late
    head : hash of the last line; empty when there is none
    is_ended : whether nothing is left to do but what a person must decide
    is_behind : whether the bucket knew more than this ledger
    was_going : whether others were found moving although the plan held them
    memory_removed : whether the plan went on although the bucket's memory of it had been removed
    """

    def __init__(
        self,
        log: ChainedLog,
        plan: MovePlan,
        record: Record | None = None,
        later: Sequence[Record] = (),
    ) -> None:
        self.log = log
        self.plan = plan
        self.states = RowStates(len(plan.rows))
        self.park_states = RowStates(len(plan.rows))
        self.landings: dict[int, Landing] = {}
        self.reasons: dict[int, str] = {}
        self.park_reasons: dict[int, str] = {}
        self.refused: set[int] = set()
        self.in_flight: set[int] = set()
        self.lost: list[str] = []
        self.evidence: dict[int, str] = {}
        self.words: list[str] = []
        self.reported_rows: set[int] = set()
        self.reopened_by: dict[int, str] = {}
        self.taken_back_by = ""
        self.settled_by = ""
        self.fence_at = datetime.min.replace(tzinfo=UTC)
        self.approved_by = ""
        self.approved_sha256 = ""
        self.begun_at: datetime | None = None
        self.store_id = plan.header.store_id
        self.versions: dict[int, tuple[str, ...]] | None = None
        self.hold: HoldNote | None = None
        self.late_pause: HoldNote | None = None
        self.head = ""
        self.is_ended = False
        self.is_behind = False
        self.was_going = False
        self.memory_removed = False
        recorded_head = record.ledger if record is not None else ""
        knows_head = not recorded_head  # without a recorded line, none can be missing here
        for entry in log.scan():
            self._update(entry)
            knows_head = knows_head or entry.hash == recorded_head
        if record is not None and not knows_head:
            self.is_behind = True
            self._believe(record)
        for other in sorted(later, key=lambda other: other.begun_at):
            self._believe_later(other)

    def rows(self, *states: State, leg: Leg = Leg.MOVE) -> list[int]:
        """Return the rows in some states, in order."""
        return self.get_states(leg).find(*states)

    def list_waiting(self) -> list[int]:
        """Return the rows that are to move and were not announced, or were refused."""
        rows = self.rows(State.NONE)
        return [row for row in rows if self.plan.rows[row].to]

    def list_open(self) -> list[int]:
        """Return the rows that still need a move, a look, a new plan or a person's decision."""
        finished = (State.MOVED, State.SKIPPED, State.TAKEN, State.FREED, State.UNDONE)
        return [row for row, state in self.states.items() if state not in finished]

    def get_states(self, leg: Leg) -> RowStates:
        """Return the states of all rows on one of their ways."""
        return self.park_states if leg is Leg.PARK else self.states

    def get_reasons(self, leg: Leg) -> dict[int, str]:
        """Return why rows did not move, or were not parked."""
        return self.park_reasons if leg is Leg.PARK else self.reasons

    @property
    def begun(self) -> int:
        """The row after the highest one that was announced; 0 when none was."""
        return self.states.begun

    @property
    def is_begun(self) -> bool:
        """Whether the plan was approved and begun, as far as this ledger knows."""
        return bool(self.approved_sha256)

    def note(
        self,
        kind: str,
        rows: Iterable[int] = (),
        *,
        sync: bool = False,
        leg: Leg = Leg.MOVE,
        **data: Any,
    ) -> None:
        """Write one line, and update this object by the line.

        Parameters
        ----------
        sync : wait until the line is on the disk
        data : the line's other fields

        Raises
        ------
        LogError
            When the line could not be written: send nothing more.
        """
        fields: dict[str, Any] = {}
        if rows:
            fields["rows"] = sorted(rows)
        fields.update(data)
        if leg is Leg.PARK:
            fields["leg"] = leg.value
        entry = self.log.append(kind, fields, sync=sync)
        self._update(entry)

    def land(self, row: int, etag: str, at: datetime | None, *, leg: Leg = Leg.MOVE) -> None:
        """Write that a row's copy is at its destination.

        Parameters
        ----------
        at : the copy's LastModified by the answer to the copy; None when a look found the copy
        """
        landed_at = format_time(at) if at else ""
        self.note("landed", [row], leg=leg, etag=etag, at=landed_at)

    def close(self, state: State, rows: Iterable[int], *, leg: Leg = Leg.MOVE) -> None:
        """Write in which state some rows end, with the reasons that are known."""
        if not rows:
            return
        reason_of_row = self.get_reasons(leg)
        reasons = {str(row): reason_of_row[row] for row in rows if row in reason_of_row}
        self.note(state.value, rows, leg=leg, reasons=reasons)

    def _update(self, entry: Entry) -> None:
        """Update this object by one line."""
        data = entry.data
        rows = data.get("rows", ())
        leg = Leg(data.get("leg", Leg.MOVE))
        self.head = entry.hash
        if "fence_at" in data:
            fence_at = parse_time(data["fence_at"])
            self.fence_at = max(self.fence_at, fence_at)
        if entry.kind in _STATE_OF_KIND:
            state = _STATE_OF_KIND[entry.kind]
            self.get_states(leg).put(state, rows)
        if entry.kind == "intent" and leg is Leg.MOVE:
            last = max(rows)  # every row up to this one was announced or passed over
            self.states.begin(last + 1)
        # Requests are sent after a line of one of these two kinds. A line of any other kind but
        # ``doubtful`` says what became of the requests about its rows.
        if entry.kind in ("intent", "deleting"):
            self.in_flight.update(rows)
        elif entry.kind != "doubtful":
            self.in_flight.difference_update(rows)
        self._update_plan(entry)
        self._update_rows(entry)
        reasons = data.get("reasons", {})
        reason_of_row = self.get_reasons(leg)
        for row, why in reasons.items():
            reason_of_row[int(row)] = why

    def _update_plan(self, entry: Entry) -> None:
        """Update this object by what a line says of the whole plan."""
        data = entry.data
        match entry.kind:
            case "approved":
                self.approved_sha256 = data["sha256"]
                self.approved_by = data["by"]
                self.store_id = data["store_id"]
                self.begun_at = parse_time(data["begun_at"])
            case "resumed":
                self.refused.clear()
            case "word":
                self.words.append(data["text"])
            case "hold":
                self.hold = HoldNote.model_validate(data["note"]) if data["note"] else None
                if self.hold is None:
                    self.late_pause = None  # the pause ended with the hold
            case "late_pause":
                self.late_pause = HoldNote.model_validate(data["note"])
            case "going":
                self.was_going = True
            case "believed":
                self._believe(Record.model_validate(data["record"]))
            case "memory_removed":
                self.memory_removed = True
            case "ended":
                self.is_ended = True

    def _update_rows(self, entry: Entry) -> None:
        """Update this object by what a line says of some rows, except their states."""
        data = entry.data
        rows = data.get("rows", ())
        match entry.kind:
            case "landed" if "leg" not in data:  # of a parked copy, no landing is kept
                at = parse_time(data["at"]) if data["at"] else None
                for row in rows:
                    planned_etag = self.plan.rows[row].etag
                    is_planned = data["etag"] == planned_etag
                    # Ledger and plan share one text, so that a long ledger needs less RAM.
                    etag = planned_etag if is_planned else data["etag"]
                    self.landings[row] = Landing(etag, at)
            case "delete_refused":
                self.refused.update(rows)
            case "refused" if data.get("final"):
                self.refused.update(rows)
            case "window":
                self.lost += data["lost"]
            case "versions":
                self.versions = {int(row): tuple(ids) for row, ids in data["known"].items()}
            case "evidence":
                for row, text in data["found"].items():
                    self.evidence[int(row)] = text
            case "told":
                self.reported_rows.update(rows)
            case "reopened":
                self.reopened_by.update(dict.fromkeys(rows, data["plan"]))
            case "taken_back":
                self.taken_back_by = data["plan"]
            case "taken" | "not_taken":
                self.settled_by = data["plan"]

    def _believe(self, record: Record) -> None:
        """Replace what this older copy of the ledger says by what the record says."""
        self.fence_at = max(self.fence_at, record.fence_at)
        self.approved_sha256 = self.approved_sha256 or record.sha256
        self.approved_by = self.approved_by or record.by
        self.begun_at = record.begun_at
        self.hold = record.hold
        self.is_ended = self.is_ended or record.ended
        self.versions = record.versions
        self.was_going = self.was_going or record.was_going
        self.memory_removed = self.memory_removed or record.memory_removed
        self._believe_rows(record)
        self._believe_parking(record)

    def _believe_rows(self, record: Record) -> None:
        """Replace the states of rows, and add the rows of which a request may still take effect."""
        states = self.states
        begun = min(record.begun, len(states))
        states.begin(begun)
        if not record.memory_removed:
            # A copy is sent, and a person's word is taken back, only after the record names the
            # row. If the memory was removed, the record may have been written anew, without such
            # rows.
            unrecorded = self.rows(*HALF_DONE, State.UNPROVEN)
            states.put(State.NONE, [row for row in unrecorded if row >= record.begun])
        # A row below ``begun`` that is in no set of the record was moved.
        settled = (State.TAKEN, State.FREED, State.UNDONE)
        moved = [row for row in range(begun) if states[row] not in settled]
        states.put(State.MOVED, moved)
        by_state = {
            State.DOUBTFUL: record.announced - record.deleting,
            State.DELETING: record.deleting,
            State.NONE: record.waiting,
            State.LEFT: record.left,
            State.SKIPPED: record.skipped,
            State.UNPROVEN: record.unproven,
            State.CONFLICT: record.conflicts,
        }
        for state, rows in by_state.items():
            states.put(state, rows & states.keys())
        self._believe_words(record.settled)
        self.in_flight |= record.announced

    def _believe_parking(self, record: Record) -> None:
        """Replace which rows are parked, and which parkings are under way."""
        # A parking that the record does not name was never sent, or has ended since.
        half_parked = self.rows(*HALF_DONE, leg=Leg.PARK)
        self.park_states.put(State.NONE, half_parked)
        self.park_states.put(State.DOUBTFUL, record.parking)
        self.park_states.put(State.MOVED, record.parked)

    def _get_release_row(self, row: int) -> int:
        """Return the number that a row of this plan has in the release."""
        facts = self.plan.rows[row].facts
        return int(facts.get("release_row", row))

    def _believe_words(self, words: Mapping[int, str]) -> None:
        """Put rows into the states that follow from later plans' effects.

        Parameters
        ----------
        words : for each row, the effect
        """
        for row, word in words.items():
            if row in self.states:
                state = _STATE_OF_WORD[word]
                self.states.put(state, [row])

    def _believe_later(self, record: Record) -> None:
        """Add what a later plan did: another machine may have carried that plan out.

        The later plan's record names rows by their numbers in the release. If this plan is itself
        about the release, the same rows have other numbers in this plan.

        Parameters
        ----------
        record : of an undo, a settling or a reopening
        """
        rows = {self._get_release_row(row): row for row in self.states}
        words = {}
        for release_row, word in record.about.items():
            if release_row in rows:
                row = rows[release_row]
                words[row] = word
        self._believe_words(words)
        if record.action == "reopen":
            for row in words:
                self.reopened_by[row] = record.plan
        elif record.action == "undo" and record.about:
            self.taken_back_by = record.plan
        elif record.action == "settle" and record.about:
            self.settled_by = record.plan


def was_cut_off(plan: MovePlan, *, logs: Logs) -> bool:
    """Tell whether a plan was begun on this machine and did not come to its end. Only reads."""
    ledger = Ledger(logs(plan.id), plan)
    return ledger.is_begun and not ledger.is_ended


def is_hold_noted(log: ChainedLog) -> bool:
    """Tell whether a ledger's last line about a hold says that someone is held. Only reads."""
    is_noted = False
    for entry in log.scan():
        if entry.kind == "hold":
            is_noted = entry.data["note"] is not None
        elif entry.kind == "believed":  # since this line, the ledger says what the record said
            is_noted = entry.data["record"]["hold"] is not None
    return is_noted
