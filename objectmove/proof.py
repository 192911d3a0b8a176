"""Prove a move by a new look: find where each planned object is, and what else was touched."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from .bucket import S3Bucket, Seen
from .errors import NotNowError
from .looks import judge, look_surely, scan
from .plan import Plan
from .state import Move, Story, Way, read_state, read_story
from .table import Direction, Place, Proof, State, decide

#: The most keys that a proof names for each outcome.
_NAMED = 100
#: Outcomes that are as planned.
_AS_PLANNED = (Proof.IN_PLACE, Proof.GONE_AFTER_LANDED)
_NOT_THERE = (Place.ABSENT, Place.OTHER)
_DIRECTIONS = {
    Way.THERE: Direction.THERE,
    Way.BACK: Direction.BACK,
    Way.PARK: Direction.ASIDE,
    Way.FREE: Direction.ASIDE,
}


class MoveProof(NamedTuple):
    """What an independent look found.

    Attributes
    ----------
    plan : id of the move: the plan's, or ``<plan>-undo``
    at : the store's time of the look
    counts : how many objects have each outcome: those of ``table.Proof``, and two more. ``lost``:
        we parked it, and it is not there any more. ``foreign_changed``: content of a row was
        written under the destination, at a key that no row names, since the move began
    keys : for each outcome but ``in_place``, at most 100 keys
    approved_by : who approved the plan
    taken_back_by : the undo that took rows back; empty when no undo did
    parked : for each source key, the key where the object is parked; at most 100
    undo_until : until when the release may be taken back; None when nothing was announced
    """

    plan: str
    at: datetime
    counts: dict[str, int]
    keys: dict[str, tuple[str, ...]]
    approved_by: str
    taken_back_by: str
    parked: dict[str, str]
    undo_until: datetime | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every planned object is in place, or was taken after our copy was confirmed.

        After an undo, or if another key was written, no proof is complete.
        """
        lacking = [n for outcome, n in self.counts.items() if outcome not in _AS_PLANNED]
        return not self.taken_back_by and sum(lacking) == 0

    def to_json(self) -> dict[str, Any]:
        """Return the proof as JSON."""
        return {
            "plan": self.plan,
            **self.counts,
            "keys": {outcome: list(keys) for outcome, keys in self.keys.items()},
            "approved_by": self.approved_by,
            "taken_back_by": self.taken_back_by,
            "parked": self.parked,
        }


def verify_plan(bucket: S3Bucket, plan: Plan) -> MoveProof:
    """List source and destination anew, and ask the table about each row. Only reads.

    Raises
    ------
    NotNowError
        When the bucket does not know the plan: nothing of it was moved, or it was forgotten.
    StoreError, PlanError
        When the bucket cannot be read or understood: nothing is proven then.
    """
    read = read_state(bucket)
    story = read_story(bucket, read.state, plan.id) if read is not None else None
    if read is None or story is None:
        raise NotNowError(f"{plan.id} was never begun, or its time is over and it was forgotten")
    foreign: list[str] = []
    sources = _find_places(bucket, plan, is_source=True, foreign=foreign, began_at=None)
    began_at = story.release.announced_at
    destinations = _find_places(bucket, plan, is_source=False, foreign=foreign, began_at=began_at)
    parked = _look_at_parked(bucket, plan, story)
    outcomes: dict[str, list[str]] = {str(outcome): [] for outcome in Proof}
    outcomes["lost"] = []
    outcomes["foreign_changed"] = foreign
    named_parked: dict[str, str] = {}
    for number, row in enumerate(plan.rows):
        move = _find_move(number, story)
        stored = move.rows.get(number)
        if stored is not None and stored.lies == "parked" and len(named_parked) < _NAMED:
            named_parked[row.key] = plan.header.get_parked_key(row.key)
        places = _Places(sources[number], destinations[number], parked.get(number, Place.UNKNOWN))
        outcomes[_judge(move, number, places)].append(row.key)
    undo = story.undo
    return MoveProof(
        plan=plan.id,
        at=read.now,
        counts={outcome: len(keys) for outcome, keys in outcomes.items()},
        keys={
            outcome: tuple(keys[:_NAMED])
            for outcome, keys in outcomes.items()
            if keys and outcome != Proof.IN_PLACE
        },
        approved_by=story.release.by,
        taken_back_by=undo.id if undo is not None and undo.announced_at is not None else "",
        parked=named_parked,
        undo_until=began_at and began_at + timedelta(seconds=plan.header.undo_s),
    )


class _Places(NamedTuple):
    """What a look found at the three keys of a row."""

    source: Place
    destination: Place
    parked: Place


def _find_places(
    bucket: S3Bucket,
    plan: Plan,
    *,
    is_source: bool,
    foreign: list[str],
    began_at: datetime | None,
) -> list[Place]:
    """Return what is at one end of every row.

    Parameters
    ----------
    foreign : is filled with the keys of content of a row that no row names, written since the
        release began
    began_at : None: no such keys are looked for
    """
    rows = plan.rows
    numbers = {row.key if is_source else row.to: number for number, row in enumerate(rows)}
    contents = {(row.etag, row.size_bytes) for row in rows} if began_at else set()

    def note_foreign(seen: Seen) -> None:
        """Note content of ours that nobody planned there."""
        is_ours = (seen.etag, seen.size_bytes) in contents
        if is_ours and began_at is not None and seen.last_modified >= began_at:
            foreign.append(seen.key)

    places = [Place.UNKNOWN] * len(rows)
    prefix = plan.header.source if is_source else plan.header.to
    for number, seen in scan(bucket, prefix, numbers, on_other=note_foreign):
        places[number] = judge(bucket, rows[number], seen, is_source=is_source)
    return places


def _look_at_parked(bucket: S3Bucket, plan: Plan, story: Story) -> dict[int, Place]:
    """Return what is at the parking places of rows that were, or are being, parked."""
    numbers = set[int]()
    for number, row in story.list_rows(*State):
        if row.lies == "parked" or row.way in (Way.PARK, Way.FREE):
            numbers.add(number)
    keys = {plan.header.get_parked_key(plan.rows[number].key): number for number in numbers}
    looks = look_surely(bucket, list(keys))
    return {
        keys[key]: judge(bucket, plan.rows[keys[key]], seen, is_source=False)
        for key, seen in looks.items()
    }


def _find_move(number: int, story: Story) -> Move:
    """Return the move that dealt with a row last."""
    undo = story.undo
    if undo is not None and undo.get_state(number) not in (State.LEFT, State.WAITING):
        return undo
    return story.find_piece(number)


def _judge(move: Move, number: int, places: _Places) -> str:
    """Say what the looks and the state prove of a row."""
    row = move.rows.get(number)
    state = move.get_state(number)
    way = row.way if row is not None else move.way
    if row is not None and row.lies == "parked":
        is_gone = places.parked in (Place.ABSENT, Place.OTHER) and places.source in _NOT_THERE
        if is_gone:
            return "lost"
    ends = {
        Way.THERE: (places.source, places.destination),
        Way.BACK: (places.destination, places.source),
        Way.PARK: (places.source, places.parked),
        Way.FREE: (places.parked, places.source),
    }
    source, destination = ends[way]
    rule = decide(direction=_DIRECTIONS[way], state=state, source=source, destination=destination)
    if move.is_undo and state is State.MOVED and rule.proof is not Proof.DUPLICATED:
        return Proof.TAKEN_BACK
    return rule.proof
