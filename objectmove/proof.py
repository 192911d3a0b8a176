"""Prove a move by a new look: find where each planned object is, and what else was touched."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from .bucket import Look, S3Bucket
from .errors import NotNowError
from .looks import DIRECTIONS, get_ends, judge, look_surely, scan
from .plan import Plan
from .state import Move, Story, Way, read_state, read_story
from .table import Place, Proof, State, decide

#: The most keys that a proof names for each outcome.
_NAMED = 100
#: Outcomes that are as planned.
_AS_PLANNED = {Proof.IN_PLACE, Proof.GONE_AFTER_LANDED}
_NOT_THERE = (Place.ABSENT, Place.OTHER)


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
        lacking = {outcome for outcome, count in self.counts.items() if count}
        return not self.taken_back_by and lacking <= _AS_PLANNED

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
    if read is None:
        raise NotNowError(f"{plan.id} was never begun: nothing was moved")
    story = read_story(bucket, read.state, plan.id)
    header = plan.header
    rows = plan.rows
    began_at = story.release.announced_at
    contents = {(row.etag, row.size_bytes) for row in rows}
    destinations = {row.to for row in rows}
    foreign = []
    for seen in bucket.list_objects(header.to):
        is_ours = (seen.etag, seen.size_bytes) in contents and seen.key not in destinations
        if is_ours and began_at is not None and seen.last_modified >= began_at:
            foreign.append(seen.key)
    aside = []
    for number, stored in story.list_rows(*State):
        if stored.lies == "parked" or stored.way in (Way.PARK, Way.FREE):
            aside.append(header.get_parked_key(rows[number].key))
    looks = {
        **scan(bucket, header.source, [row.key for row in rows]),
        **scan(bucket, header.to, destinations),
        **look_surely(bucket, aside),
    }
    outcomes: dict[str, list[str]] = {str(outcome): [] for outcome in Proof}
    outcomes["lost"] = []
    outcomes["foreign_changed"] = foreign
    parked: dict[str, str] = {}
    for number, row in enumerate(rows):
        move = _find_move(number, story)
        known = move.rows.get(number)
        if known is not None and known.lies == "parked" and len(parked) < _NAMED:
            parked[row.key] = header.get_parked_key(row.key)
        outcomes[_judge(bucket, plan, number, move, looks)].append(row.key)
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
        parked=parked,
        undo_until=began_at and began_at + timedelta(seconds=plan.header.undo_s),
    )


def _find_move(number: int, story: Story) -> Move:
    """Return the move that dealt with a row last."""
    undo = story.undo
    if undo is not None and undo.get_state(number) not in (State.LEFT, State.WAITING):
        return undo
    return story.find_piece(number)


def _judge(bucket: S3Bucket, plan: Plan, number: int, move: Move, looks: Look) -> str:
    """Say what the looks and the state prove of a row."""
    planned = plan.rows[number]
    row = move.rows.get(number)
    state = move.get_state(number)
    if row is not None and row.lies == "parked":
        ends = get_ends(plan.header, planned, Way.PARK)
        if all(judge(bucket, planned, looks, key) in _NOT_THERE for key in ends):
            return "lost"
    way = row.way if row is not None else move.way
    source, destination = get_ends(plan.header, planned, way)
    rule = decide(
        direction=DIRECTIONS[way],
        state=state,
        source=judge(bucket, planned, looks, source),
        destination=judge(bucket, planned, looks, destination),
    )
    if move.is_undo and state is State.MOVED and rule.proof is not Proof.DUPLICATED:
        return Proof.TAKEN_BACK
    return rule.proof
