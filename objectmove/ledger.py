"""The ledger of one plan, in the incident's folder: what happened to each row.

Resume, undo and proof rest on it, on the bucket's record and on the store. Lines, in order:
``approved``; ``hold`` when someone is held for the plan; for each batch ``intent`` (on the disk
before its first request), ``landed``, ``refused`` or ``doubtful`` as answers come, ``deleting`` (on
the disk before its first delete), the outcomes; ``ended`` when nothing is left but what a person
must decide. Lines with ``leg: park`` are about the parking of a row's source. ``taken``,
``not_taken``, ``reopened`` and ``taken_back`` come from other plans.
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
"""Plan id to its ledger."""

#: The states in which this plan is done with a row.
CLOSED = (State.MOVED, State.SKIPPED, State.CONFLICT, State.UNPROVEN)
#: A copy may be at the destination, and the source may still be there.
HALF_DONE = (State.DOUBTFUL, State.LANDED, State.DELETING)
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
_STATE_OF_WORD = {
    "taken": State.TAKEN,
    "not_taken": State.FREED,
    "undone": State.UNDONE,
    "reopened": State.UNPROVEN,
}


class Leg(StrEnum):
    """The way of a row that a line is about."""

    MOVE = "move"
    """From the plan's source to its destination."""

    PARK = "park"
    """Out of the worker's reach, when nobody can know whether it may ship."""


class Landing(NamedTuple):
    """A copy that was there: by its answer, or found by a look (``at`` is unknown then)."""

    etag: str
    at: datetime | None


class RowStates(Mapping[int, State]):
    """The state of each row, found by row and by state.

    A release asks after each window of rows which of them are in some state. To go through all rows
    each time would take time that grows with the square of their number. Only ``NONE``, which a run
    asks for a few times, is searched in all rows.

    Parameters
    ----------
    count : how many rows there are; all begin as ``NONE``

    Attributes
    ----------
    begun : the first row that was never announced waiting_again : rows below ``begun`` that are
        ``NONE``
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
        """Note that every row below ``end`` was announced, or left out."""
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
    """The ledger of one plan: read once under its lock, then kept as lines are added.

    Parameters
    ----------
    record : what the bucket knows of the plan; a ledger that is behind it believes it
    later : what the bucket knows of undos and settlings of the plan, which other machines may have
        carried out

    Attributes
    ----------
    states : of each row, on its way to the destination
    park_states : of each row, on its way to the parking place
    landings : of rows whose copy was there
    reasons : why a row did not move, in words
    park_reasons : why a row's copy was not parked, in words
    refused : rows of which the store refused a copy or a delete in this run
    in_flight : rows of which a request may still take effect before ``fence_at``
    words : what persons said
    reported_rows : rows of an undo or a settling that its release knows of
    reopened_by : rows that are open again, and the plan that holds them
    taken_back_by, settled_by : the last undo and settling of the plan
    lost : keys whose newer version went in the declared window
    evidence : by row, what was known of its order before it was parked
    fence_at : the store's time after which no request of the past can take effect
    begun_at : the store's time when it was begun; None when it was not
    hold : who is held for the plan
    late_pause : the hold whose pause may have come after another session had ended it
    is_behind : whether the bucket knew more than this ledger
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
        knows_head = not recorded_head
        for entry in log.scan():
            self._take(entry)
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
        """Return the rows to move that were not announced, or were refused."""
        rows = self.rows(State.NONE)
        return [row for row in rows if self.plan.rows[row].to]

    def list_open(self) -> list[int]:
        """Return the rows that are not closed: nobody may plan them without looking first."""
        closed = (
            State.MOVED,
            State.SKIPPED,
            State.TAKEN,
            State.FREED,
            State.UNDONE,
        )
        return [row for row, state in self.states.items() if state not in closed]

    def get_states(self, leg: Leg) -> RowStates:
        """Return the states of one way of all rows."""
        return self.park_states if leg is Leg.PARK else self.states

    def get_reasons(self, leg: Leg) -> dict[int, str]:
        """Return why rows did not move, or were not parked."""
        return self.park_reasons if leg is Leg.PARK else self.reasons

    @property
    def begun(self) -> int:
        """The first row that was never announced."""
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
        """Write one line, and update the state by it.

        Raises
        ------
        LogError
            When it could not be written: send nothing more.
        """
        fields: dict[str, Any] = {}
        if rows:
            fields["rows"] = sorted(rows)
        fields.update(data)
        if leg is Leg.PARK:
            fields["leg"] = leg.value
        entry = self.log.append(kind, fields, sync=sync)
        self._take(entry)

    def land(
        self,
        row: int,
        etag: str,
        at: datetime | None,
        *,
        leg: Leg = Leg.MOVE,
    ) -> None:
        """Write that a copy is there.

        Parameters
        ----------
        at : since when, by the copy's answer; None where a look found it
        """
        landed_at = format_time(at) if at else ""
        self.note("landed", [row], leg=leg, etag=etag, at=landed_at)

    def close(
        self,
        state: State,
        rows: Iterable[int],
        *,
        leg: Leg = Leg.MOVE,
    ) -> None:
        """Write an outcome of some rows, with the reasons."""
        if not rows:
            return
        known = self.get_reasons(leg)
        reasons = {str(row): known[row] for row in rows if row in known}
        self.note(state.value, rows, leg=leg, reasons=reasons)

    def _take(self, entry: Entry) -> None:
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
            last = max(rows)
            self.states.begin(last + 1)
        if entry.kind in ("intent", "deleting"):
            self.in_flight.update(rows)
        elif entry.kind != "doubtful":
            self.in_flight.difference_update(rows)
        self._take_session(entry)
        self._take_rows(entry)
        reasons = data.get("reasons", {})
        known = self.get_reasons(leg)
        for row, why in reasons.items():
            known[int(row)] = why

    def _take_session(self, entry: Entry) -> None:
        """Update the state by a line about the whole plan."""
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
                self.late_pause = self.late_pause if self.hold else None
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

    def _take_rows(self, entry: Entry) -> None:
        """Update by what a line says of some rows, except their state."""
        data = entry.data
        rows = data.get("rows", ())
        match entry.kind:
            case "landed" if "leg" not in data:
                at = parse_time(data["at"]) if data["at"] else None
                for row in rows:
                    planned_etag = self.plan.rows[row].etag
                    is_planned = data["etag"] == planned_etag
                    # Both share one text: a long ledger takes less memory.
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
        """Take over what the bucket knew, if this ledger is an older copy."""
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
        """Take over the states of rows, and which of them may still change."""
        states = self.states
        begun = min(record.begun, len(states))
        states.begin(begun)
        if not record.memory_removed:
            # A row that the bucket does not know as announced was never sent.
            unsent = [row for row in self.rows(*HALF_DONE) if row >= record.begun]
            states.put(State.NONE, unsent)
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
        """Take over which rows are parked."""
        # A parking that is not on record never began, or has ended since.
        half_parked = self.rows(*HALF_DONE, leg=Leg.PARK)
        self.park_states.put(State.NONE, half_parked)
        self.park_states.put(State.DOUBTFUL, record.parking)
        self.park_states.put(State.MOVED, record.parked)

    def _get_release_row(self, row: int) -> int:
        facts = self.plan.rows[row].facts
        return int(facts.get("release_row", row))

    def _believe_words(self, words: Mapping[int, str]) -> None:
        for row, word in words.items():
            if row in self.states:
                state = _STATE_OF_WORD[word]
                self.states.put(state, [row])

    def _believe_later(self, record: Record) -> None:
        """Take over what an undo or a settling did, which another machine may have carried out.

        Its record names rows of the release, which have other numbers in the plans about it.
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
    """Tell whether a plan was begun from this machine and did not come to its end. Only reads."""
    ledger = Ledger(logs(plan.id), plan)
    return ledger.is_begun and not ledger.is_ended


def is_hold_noted(log: ChainedLog) -> bool:
    """Tell whether a ledger says that the others are held for its plan. Only reads."""
    is_noted = False
    for entry in log.scan():
        if entry.kind == "hold":
            is_noted = entry.data["note"] is not None
        elif entry.kind == "believed":  # the ledger was behind the record
            is_noted = entry.data["record"]["hold"] is not None
    return is_noted
