"""The one decision table: what to do with a row, and what to report of it. Pure.

Apply, resume, undo, settle, parking and verify all ask ``decide``. Every cell is written out. A
test proves that each cell has exactly one rule, and that ``docs/decision-table.md`` shows the
rules. Two things are not columns. If others move objects although they are held, the run ends
before it asks the table. While a request about a row is in flight, the table is not asked about
that row before the fence has passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import product
from typing import NamedTuple


class Direction(StrEnum):
    """Who takes from the destination. That decides what may be copied a second time."""

    THERE = "there"
    """A release: consumers take from the destination at any time."""

    STILL = "still"
    """A release while, by a person's word, nobody takes from the destination."""

    BACK = "back"
    """Back to the worker, which is held: an undo, or the bringing back of a parked object."""

    PARK = "park"
    """Parking: nobody but us ever touches the destination."""


class State(StrEnum):
    """What ledger and bucket record know of a row."""

    #: The row's copy was never announced, or certainly had no effect.
    NONE = "none"
    #: The copy was announced, and no answer proves what became of it.
    DOUBTFUL = "doubtful"
    #: The copy is at the destination, by its answer or by a look.
    LANDED = "landed"
    #: After the copy landed, the delete of the source was announced.
    DELETING = "deleting"
    #: The copy landed, and the source is gone.
    MOVED = "moved"
    #: Others changed the object at one end while the row was half done: a person decides.
    CONFLICT = "conflict"
    #: Nobody can know whether a consumer took the object: a person decides.
    UNPROVEN = "unproven"
    #: Not moved: the object changed or went, its destination is not free, or another plan owns it.
    SKIPPED = "skipped"
    #: Not moved: this plan ended without the row, and a new plan may move the object.
    LEFT = "left"
    #: By a person's word, a consumer took the object.
    TAKEN = "settled: taken"
    #: By a person's word, no consumer took the object: a new plan may move it.
    FREED = "settled: not taken"
    #: An undo took the object back.
    UNDONE = "taken back"


class Place(StrEnum):
    """What a look found at one end of a row.

    At the source, ``same`` means the planned version; at the destination, the planned content. In
    three cases the planned content is enough at the source, too: the row was taken back, left or
    freed; our own copy is to be parked; or the bucket's memory was removed, and this is a proof.
    ``unknown`` means that the key could not be read.
    """

    SAME = "same"
    OTHER = "other"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Act(StrEnum):
    """What to do next with a row. A rule may name a ``State`` instead: the row ends in it."""

    LOOK = "look again"
    COPY = "copy"
    ADOPT = "note as landed, then delete the source"
    DELETE = "delete the source"
    NOTHING = "nothing"


class Proof(StrEnum):
    """What a proof says of the row."""

    IN_PLACE = "in_place"
    GONE_AFTER_LANDED = "gone_after_landed"
    UNPROVEN = "unproven"
    WAITING = "waiting"
    CHANGED_BY_OTHERS = "changed_by_others"
    #: The planned content is at both ends, or is at the source although the store deleted it there.
    DUPLICATED = "duplicated"
    SKIPPED = "skipped"
    TAKEN_BACK = "taken_back"
    SETTLED_BY_WORD = "settled_by_word"


class Rule(NamedTuple):
    """One decision, its reason, and the cells of the table for which it holds.

    The first four fields name the cells: ``any`` means every value, ``not-same`` every value but
    ``same``, and ``a+b`` the values ``a`` and ``b``.
    """

    direction: str
    state: str
    source: str
    destination: str
    act: Act | State
    proof: Proof
    reason: str

    def cells(self) -> Iterator[tuple[Direction, State, Place, Place]]:
        """Yield every cell that the rule decides."""
        directions = _read_directions(self.direction)
        states = [State[name.upper()] for name in self.state.split("+")]
        return product(
            directions, states, _read_places(self.source), _read_places(self.destination)
        )


def _read_directions(word: str) -> list[Direction]:
    """Return the directions that a rule names."""
    if word == "any":
        return list(Direction)
    return [Direction(name) for name in word.split("+")]


def _read_places(word: str) -> list[Place]:
    """Return the places that a rule names for one end."""
    if word == "any":
        return list(Place)
    if word.startswith("not-"):
        return [place for place in Place if place != word.removeprefix("not-")]
    return [Place(name) for name in word.split("+")]


# Columns: direction, state, source, destination, act or state, proof, reason.
_TABLE = """
there+still+back none same absent COPY WAITING it waits, and nothing is in its way
there+still+back none same same ADOPT WAITING the content is there already: one copy is enough
there+still+back none same other SKIPPED CHANGED_BY_OTHERS the destination is taken
there+still+back none same unknown LOOK WAITING the destination could not be read
there+still+back none other any SKIPPED CHANGED_BY_OTHERS its writer replaced it
there+still+back none absent any SKIPPED CHANGED_BY_OTHERS someone else took it away
any none unknown any LOOK WAITING the source could not be read

there+still doubtful same same ADOPT DUPLICATED the content is there: it landed
there+still doubtful other same CONFLICT CHANGED_BY_OTHERS the planned content is there, and a newer version waits
there+still doubtful absent same MOVED IN_PLACE the content is there, and someone else removed the source
there doubtful not-unknown absent UNPROVEN UNPROVEN it never landed, or a consumer took it: nobody can know
still doubtful same absent COPY WAITING nobody took it, so it never landed: copy it again
still doubtful other absent SKIPPED CHANGED_BY_OTHERS nobody took it, so it never landed, and its writer replaced it
still doubtful absent absent SKIPPED CHANGED_BY_OTHERS nobody took it, so it never landed, and someone removed the source
there+still doubtful not-unknown other UNPROVEN UNPROVEN something else is there: whether our copy was there before it, nobody can know
there+still doubtful not-unknown unknown LOOK UNPROVEN the destination could not be read
any doubtful unknown any LOOK UNPROVEN the source could not be read

there+still landed+deleting same same DELETE DUPLICATED the copy is there: finish the move
there+still landed+deleting same absent DELETE WAITING a consumer took the copy: what is left would ship twice
there+still landed+deleting same unknown DELETE UNPROVEN the copy was there: finish the move
there+still landed+deleting same other CONFLICT CHANGED_BY_OTHERS someone replaced the copy: the source may be the only one left
there+still landed+deleting other any CONFLICT CHANGED_BY_OTHERS the planned version was put in place, and a newer one waits
there+still landed+deleting absent same MOVED IN_PLACE it is at its destination
there+still landed+deleting absent absent MOVED GONE_AFTER_LANDED a consumer took it after our copy was confirmed
there+still landed+deleting absent other MOVED CHANGED_BY_OTHERS someone replaced it after our copy was confirmed
there+still landed+deleting absent unknown MOVED UNPROVEN it is moved; the destination could not be read
any landed+deleting unknown any LOOK UNPROVEN the source could not be read

back doubtful+landed+deleting same absent COPY WAITING nobody ships from there, so a second copy is safe
back doubtful same same ADOPT DUPLICATED the copy is there
back doubtful same other CONFLICT CHANGED_BY_OTHERS another version is where the copy belongs
back doubtful+landed+deleting same unknown LOOK UNPROVEN no source is deleted before our copy is seen
back doubtful+landed absent same CONFLICT CHANGED_BY_OTHERS someone took the source: our copy must not ship
back doubtful+landed absent absent CONFLICT CHANGED_BY_OTHERS someone took the source, and no copy of ours is left
back doubtful+landed absent other CONFLICT CHANGED_BY_OTHERS someone took the source, and another version is where the copy belongs
back doubtful+landed absent unknown LOOK UNPROVEN whether a copy of ours is left could not be read
back doubtful+landed+deleting other not-unknown CONFLICT CHANGED_BY_OTHERS another version is at the source
back doubtful+landed+deleting other unknown LOOK UNPROVEN whether a copy of ours is left could not be read
back landed+deleting same same DELETE DUPLICATED the copy is there: remove the other one
back landed+deleting same other CONFLICT CHANGED_BY_OTHERS someone replaced the copy: the source may be the only one left
back deleting absent same MOVED IN_PLACE it is back
back deleting absent absent MOVED GONE_AFTER_LANDED it was back, and someone took it from there
back deleting absent other MOVED CHANGED_BY_OTHERS it was back, and someone replaced it
back deleting absent unknown MOVED UNPROVEN it was back; the destination could not be read

park none+doubtful+landed+deleting same absent COPY WAITING it is not parked yet
park none+doubtful same same ADOPT DUPLICATED the parked copy is there
park none+doubtful+landed+deleting same other CONFLICT CHANGED_BY_OTHERS something else is where it would be parked
park none+doubtful+landed+deleting same unknown LOOK UNPROVEN no source is deleted before the parked copy is seen
park landed+deleting same same DELETE DUPLICATED the parked copy is there: remove the other one
park none+doubtful+landed+deleting absent+other same MOVED IN_PLACE the parked copy is there
park none+doubtful+landed+deleting absent+other absent+other SKIPPED CHANGED_BY_OTHERS the planned version is not there any more: nothing is to be parked
park none+doubtful+landed+deleting absent+other unknown LOOK UNPROVEN the parking place could not be read

any moved not-same same NOTHING IN_PLACE it is at its destination
any moved not-same absent NOTHING GONE_AFTER_LANDED it was taken after our copy was confirmed
any moved not-same other NOTHING CHANGED_BY_OTHERS someone replaced it after our copy was confirmed
any moved not-same unknown NOTHING UNPROVEN the destination could not be read
any moved same any CONFLICT DUPLICATED the store said that the planned version is deleted, and it is there
any conflict any any NOTHING CHANGED_BY_OTHERS others changed it at one end: a person decides
any unproven any any NOTHING UNPROVEN a person settles it
any skipped any any NOTHING SKIPPED not moved: others changed it, its destination was taken, or another plan owns it
any left same any NOTHING WAITING this plan ended without it: a new plan may move it
any left not-same any NOTHING SKIPPED this plan ended without it, and it has gone since
any taken any any NOTHING SETTLED_BY_WORD a person said that it was taken
any freed same any NOTHING WAITING a person said that it was not taken: a new plan may move it
any freed not-same any NOTHING SETTLED_BY_WORD a person said that it was not taken, and it has gone since
any undone same any NOTHING WAITING it was taken back, and waits
any undone not-same any NOTHING TAKEN_BACK it was taken back, and has gone since
"""  # noqa: E501


def _parse(line: str) -> Rule:
    """Return the rule of one line of the table."""
    direction, state, source, destination, act, proof, reason = line.split(maxsplit=6)
    acts: dict[str, Act | State] = {**Act.__members__, **State.__members__}
    return Rule(direction, state, source, destination, acts[act], Proof[proof], reason)


RULES: tuple[Rule, ...] = tuple(_parse(line) for line in _TABLE.split("\n") if line)

_BY_CELL = {cell: rule for rule in RULES for cell in rule.cells()}


def decide(*, direction: Direction, state: State, source: Place, destination: Place) -> Rule:
    """Return the one rule for a row in this state, by what was found at its two ends."""
    return _BY_CELL[direction, state, source, destination]
