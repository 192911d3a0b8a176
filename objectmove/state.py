"""What the bucket stores: lock, moves and hold in one object, ``.runbook/state.json``.

Each part of a plan has a second object, in the same format. ``book`` writes these objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer, TypeAdapter, ValidationError

from .bucket import S3Bucket, Seen
from .errors import NotNowError, PlanError, StoreError
from .plan import Timestamp
from .table import UNENDED, Direction, State

STATE = ".runbook/state.json"
#: Where version 0.1 keeps its releases, and the object that makes it refuse to work here.
OLD_RELEASES = ".runbook/releases/"
NEWER = f"{OLD_RELEASES}made-by-a-newer-version/1.json"


class Way(StrEnum):
    """From where to where an object goes."""

    THERE = "there"
    """From the source to the destination: a release."""
    BACK = "back"
    """From the destination to the source: an undo."""
    PARK = "park"
    """From the source to the parking place."""
    FREE = "free"
    """From the parking place to the source."""

    @property
    def direction(self) -> Direction:
        """The direction that the table has for it, if nobody confirmed that consumers stopped."""
        return Direction.ASIDE if self in (Way.PARK, Way.FREE) else Direction(self)


@dataclass(frozen=True, slots=True)
class Row:
    """What is stored of a row that didn't simply move."""

    state: State
    #: Where it goes, or went last; PARK if its object is parked.
    way: Way = Way.THERE
    at: Timestamp | None = None  # when it was announced, by the store's clock
    why: str = ""
    evidence: str = ""  # what other systems knew of its order before we parked it
    rest: State = State.UNPROVEN  # its state once it is parked

    @property
    def is_reserved(self) -> bool:
        """Whether no other plan may move its object."""
        if self.state is State.WAITING:
            return self.way is Way.PARK
        return self.state in (*UNENDED, State.UNPROVEN, State.TAKEN)


_Packed = list[tuple[int, int, Row]]
_PACKED = TypeAdapter(_Packed)


def _pack(rows: dict[int, Row]) -> _Packed:
    """Return rows as ranges of equal neighbours: first number, last number, row."""
    packed: _Packed = []
    for number in sorted(rows):
        row = rows[number]
        first = number
        if packed and packed[-1][1:] == (number - 1, row):
            first = packed.pop()[0]
        packed.append((first, number, row))
    return packed


def _unpack(packed: object) -> dict[int, Row]:
    rows: dict[int, Row] = {}
    for first, last, row in _PACKED.validate_python(packed):
        rows.update(dict.fromkeys(range(first, last + 1), row))
    return rows


Rows = Annotated[
    dict[int, Row], BeforeValidator(_unpack), PlainSerializer(_pack, return_type=_Packed)
]


@dataclass
class Move:
    """What was done about a plan: its release, or its undo."""

    plan: str
    sha256: str  # of the plan's bytes
    start: int
    end: int  # rows from here on are left: this move doesn't announce them
    keep_until: Timestamp  # the bucket's state keeps the move until then
    is_undo: bool = False
    next: int = 0  # rows below it have begun; of these, those that are not in ``rows`` have moved
    stopped: str = ""  # why rows are left
    announced_at: Timestamp | None = None  # when the first row was announced, by the store's clock
    #: Since when nothing consumes from the destination, as a person confirmed.
    still_since: Timestamp | None = None
    parts: int = 0  # of the plan, or 0
    begun: set[int] = field(default_factory=set)
    #: The move in the state object of each part that has begun, by the part's number.
    part_moves: Annotated[dict[int, Move], Field(exclude=True)] = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)
    undo: Move | None = None

    @property
    def id(self) -> str:
        return f"{self.plan}-undo" if self.is_undo else self.plan

    @property
    def all_moves(self) -> list[Move]:
        """The moves with stored rows: the release, or each part that has begun; and the undo."""
        moves = [*self.part_moves.values()] or [self]
        return [*moves, self.undo] if self.undo is not None else moves

    @property
    def unended(self) -> Move | None:
        """The undo if there is one that has not ended, else the release if it has not ended."""
        moves = (self.undo, self)
        return next((move for move in moves if move is not None and not move.is_ended), None)

    @property
    def way(self) -> Way:
        return Way.BACK if self.is_undo else Way.THERE

    @property
    def is_ended(self) -> bool:
        """Whether no row waits or is open. A move with unproven rows may have ended."""
        if self.parts:
            none_will_begin = self.stopped or len(self.part_moves) == self.parts
            return bool(none_will_begin) and all(part.is_ended for part in self.part_moves.values())
        return self.next >= self.end and not self.find_rows(*UNENDED)

    def get_row(self, number: int) -> Row:
        """Return a row; if none is stored, its number tells whether it waits, moved or is left."""
        for part in self.part_moves.values():
            if part.start <= number < max(part.end, part.next):
                return part.get_row(number)
        state = State.WAITING
        if self.start <= number < self.next:
            state = State.MOVED
        elif number >= self.end or self.is_ended:
            state = State.LEFT
        return self.rows.get(number, Row(state, self.way))

    def find_rows(self, *states: State) -> dict[int, Row]:
        """Return the stored rows in these states as {number: row}, in order of number."""
        rows = self.rows
        return {number: rows[number] for number in sorted(rows) if rows[number].state in states}

    def get_last_row(self, number: int) -> Row:
        """Return what the undo did with a row; if it left the row alone, what the release did."""
        if self.undo is not None:
            row = self.undo.get_row(number)
            if row.state not in (State.LEFT, State.WAITING):
                return row
        return self.get_row(number)

    def list_all_rows(self, *states: State) -> list[tuple[int, Row]]:
        """Return the rows that ``all_moves`` store in these states as (number, row)."""
        rows: list[tuple[int, Row]] = []
        for move in self.all_moves:
            rows += move.find_rows(*states).items()
        return rows

    def list_waiting(self) -> list[int]:
        """Return the numbers of the rows that wait to be moved."""
        waiting = [n for n, row in self.find_rows(State.WAITING).items() if row.way is self.way]
        return waiting + [n for n in range(self.next, self.end) if n not in self.rows]


@dataclass(frozen=True)
class Hold:
    """Which worker we paused, and for which plan."""

    name: str
    words: str
    way_back: str  # how a person resumes the worker without this program
    by: str
    since: Timestamp
    plan: str
    is_kept: bool = False  # only ``resume PLAN --resume-worker`` ends it, because an undo needs it
    #: Whether a run saw the worker paused. If not, a run that stored the hold may pause it later.
    is_sure: bool = False
    ended_at: Timestamp | None = None


@dataclass(frozen=True)
class Lock:
    """Which run may change the bucket, until ``lease_s`` after its last save."""

    token: str
    plan: str
    by: str
    host: str
    lease_s: float


@dataclass
class BucketState:
    """The content of a state object; ``count`` grows with each save."""

    id: str
    format: Literal["objectmove/state/1"]
    count: int = 0
    lock: Lock | None = None
    hold: Hold | None = None
    moves: dict[str, Move] = field(default_factory=dict)
    """The release of each plan."""

    @property
    def held(self) -> Hold | None:
        """The hold that has not ended."""
        return self.hold if self.hold is not None and self.hold.ended_at is None else None

    @property
    def unfinished(self) -> Move | None:
        """The one move that has not ended."""
        return next(filter(None, [move.unended for move in self.moves.values()]), None)

    def encode(self) -> bytes:
        content: bytes = _STATE.dump_json(self, exclude_defaults=True)
        return content


_STATE = TypeAdapter(BucketState)


class Read(NamedTuple):
    state: BucketState
    seen: Seen  # the state object's version
    now: datetime  # the store's time


def read_state(bucket: S3Bucket, key: str = STATE) -> Read | None:
    """Return a state object's content, with its parts' moves, or None if absent. Only reads.

    Raises PlanError when it can't be understood, and StoreError when it can't be read or a part's
    state was removed.
    """
    read = bucket.read_object(key)
    if read is None:
        return None
    content, seen, now = read
    try:
        state = _STATE.validate_json(content)
    except ValidationError as error:
        text = f"{key} cannot be understood: another version wrote it ({error.errors()[0]['msg']})"
        raise PlanError(text) from error
    for move in state.moves.values():
        for number in move.begun:
            part = read_state(bucket, get_part_key(move.plan, number))
            if part is None:
                text = f"part {number} of {move.plan} has begun, and its state was removed"
                raise StoreError(text)
            move.part_moves[number] = part.state.moves[move.plan]
    return Read(state, seen, now)


def read_release(bucket: S3Bucket, plan: str) -> tuple[Move, datetime]:
    """Return a plan's release, and the store's time. Only reads.

    Raises NotNowError when the bucket doesn't know the plan, and what ``read_state`` raises.
    """
    read = read_state(bucket)
    if read is None or plan not in read.state.moves:
        raise NotNowError(
            f"{plan} is not known to the bucket: it was never begun, or ended too long ago"
        )
    return read.state.moves[plan], read.now


def find_lock(read: Read | None, spread_s: float) -> Lock | None:
    """Return the lock in a state, or None if it was given back or has lapsed."""
    if read is None or read.state.lock is None:
        return None
    lease = timedelta(seconds=read.state.lock.lease_s + spread_s)
    return read.state.lock if read.seen.last_modified + lease > read.now else None


def check_old_releases(bucket: S3Bucket) -> None:
    """Raise NotNowError if version 0.1 left a release unfinished."""
    begun = set()
    ended = set()
    for seen in bucket.list_objects(OLD_RELEASES):
        plan, _, name = seen.key.removeprefix(OLD_RELEASES).partition("/")
        if name == "ended.json":
            ended.add(plan)
        elif name != "plan.jsonl" and seen.key != NEWER:  # a plan alone was never begun
            begun.add(plan)
    for plan in begun - ended:
        raise NotNowError(
            f"{plan} was begun by version 0.1 and is not finished: finish it with version 0.1"
        )


def get_part_key(plan: str, number: int) -> str:
    return f".runbook/parts/{plan}-{number}.json"
