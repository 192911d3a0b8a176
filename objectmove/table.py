"""Decide what to do with one row of a plan, and what a proof says of it. Pure.

Release, undo, parking, bringing back and ``verify`` all use ``decide``. Don't call it while a
request for the row may still take effect. Exactly one rule decides each combination of direction,
state and places, as a test shows. ``python -m objectmove.table`` prints the rules.
"""

import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import product
from typing import Any, NamedTuple


class Direction(StrEnum):
    """Who takes from the destination, which decides what may be sent a second time."""

    THERE = "there"
    """A release: consumers take from the destination at any time."""

    STILL = "still"
    """A release while a person confirms that nobody takes from the destination."""

    BACK = "back"
    """An undo: consumers are confirmed stopped, and nobody ships from where the row goes."""

    ASIDE = "aside"
    """Parking, and bringing back: neither worker nor consumer uses the parking place."""


class State(StrEnum):
    """How far a row has come, or how it ended."""

    #: Never sent, or certainly without effect.
    WAITING = "waiting"
    #: A copy was announced; no answer shows what became of it.
    DOUBTFUL = "doubtful"
    #: A rename was announced; no answer shows what became of it.
    RENAMING = "renaming"
    #: The copy reached the destination, as its answer or a look showed.
    LANDED = "landed"
    #: The copy was proven, then the delete of the source was announced.
    DELETING = "deleting"
    #: At the destination, and gone from the source. No row is stored for it.
    MOVED = "moved"
    #: It cannot be known whether a consumer took the object.
    UNPROVEN = "unproven"
    #: Not moved: others changed it, its destination is taken, or the caller does not want it.
    SKIPPED = "skipped"
    #: Not moved: other content is where it would go.
    OCCUPIED = "occupied"
    #: The move ended without it: a new plan may move it. An undo leaves what was not released.
    LEFT = "left"
    #: A person answered that a consumer took the object.
    TAKEN = "taken"
    #: A person answered that no consumer took the object: a new plan may move it.
    FREED = "freed"
    #: An undo found that the object had been taken.
    SHIPPED = "shipped"


#: Rows for which a request was announced: a later run must look at them.
OPEN = (State.DOUBTFUL, State.RENAMING, State.LANDED, State.DELETING)
#: A move has not ended while it has such rows.
UNENDED = (State.WAITING, *OPEN)


class Place(StrEnum):
    """What a look found at one end of a row, compared with the planned content.

    ``again`` (only at a source): the planned content, but not the planned LastModified.
    ``unknown``: the key could not be read.
    """

    SAME = "same"
    AGAIN = "again"
    OTHER = "other"
    ABSENT = "absent"
    UNKNOWN = "unknown"

    @property
    def is_here(self) -> bool:
        return self in (Place.SAME, Place.AGAIN)

    @property
    def may_be_here(self) -> bool:
        return self.is_here or self is Place.UNKNOWN


class Act(StrEnum):
    """What to do next with a row. A rule may name a ``State`` instead, in which the row ends."""

    LOOK = "look again"
    SEND = "send"
    DELETE = "delete the source"
    NOTHING = "nothing"


class Proof(StrEnum):
    """What ``verify`` says of a row."""

    IN_PLACE = "in_place"
    GONE_AFTER_LANDED = "gone_after_landed"
    UNPROVEN = "unproven"
    WAITING = "waiting"
    CHANGED_BY_OTHERS = "changed_by_others"
    #: The planned content is at both ends.
    DUPLICATED = "duplicated"
    SKIPPED = "skipped"
    #: An undo took the row back.
    TAKEN_BACK = "taken_back"
    SETTLED_BY_WORD = "settled_by_word"
    #: It was parked, and is not there any more.
    LOST = "lost"


class Rule(NamedTuple):
    """What to do with rows in some directions, states and places, and what ``verify`` says of them.

    In the first four fields, ``any`` is every value, ``here`` is ``same`` or ``again``, ``gone`` is
    ``other`` or ``absent``, and ``a+b`` is ``a`` or ``b``.
    """

    direction: str
    state: str
    source: str
    destination: str
    act: Act | State
    proof: Proof
    reason: str

    def list_cells(self) -> Iterator[tuple[str, ...]]:
        """Yield each combination of the first four fields that this rule decides."""
        kinds = (Direction, State, Place, Place)
        return product(*map(_read_names, self, kinds))


_PLACES = {"here": [Place.SAME, Place.AGAIN], "gone": [Place.OTHER, Place.ABSENT]}


def _read_names(column: Any, kind: Iterable[str]) -> list[str]:
    names: list[str] = []
    for name in column.split("+"):
        names += kind if name == "any" else _PLACES.get(name, [name])
    return names


# Columns: the fields of a rule.
# At a destination, ``again`` never occurs; ``here`` includes it so that no cell is empty.
_TABLE = """
any waiting here absent SEND WAITING it waits, and nothing is in its way
any waiting here here DELETE WAITING the content is there already: one copy is enough
any waiting here other OCCUPIED CHANGED_BY_OTHERS its destination is taken
any waiting here unknown LOOK WAITING the destination could not be read
any waiting other any SKIPPED CHANGED_BY_OTHERS its writer replaced it
there+still+aside waiting absent any SKIPPED CHANGED_BY_OTHERS someone else took it away
back waiting absent any SHIPPED GONE_AFTER_LANDED it was taken before the undo came to it
any waiting unknown any LOOK WAITING the source could not be read

there+still doubtful here here DELETE DUPLICATED the content is there: it landed
there+still doubtful gone here MOVED IN_PLACE the content is there, and the source is gone
there doubtful here+gone absent UNPROVEN UNPROVEN it never landed, or a consumer took it: nobody can know
still doubtful here absent SEND WAITING nobody took it, so it never landed: send it again
still doubtful gone absent SKIPPED CHANGED_BY_OTHERS nobody took it, so it never landed; someone changed the source
there+still doubtful here+gone other UNPROVEN UNPROVEN other content is there: nobody can know what was there before
there+still doubtful here+gone unknown LOOK UNPROVEN the destination could not be read

any renaming same absent SEND WAITING the source was not touched, so nothing happened
any renaming same here DELETE WAITING the source was not touched; the content is there already
any renaming same other OCCUPIED CHANGED_BY_OTHERS the source was not touched, and its destination is taken
any renaming again here DELETE DUPLICATED it moved, and the same content was put again
there renaming again+other absent UNPROVEN UNPROVEN someone wrote the source since: whether it moved before, nobody can know
still+back+aside renaming again absent SEND WAITING nobody took it, so it never moved
still+back+aside renaming other absent SKIPPED CHANGED_BY_OTHERS nobody took it, so it never moved; its writer replaced it
any renaming gone here MOVED IN_PLACE it moved
any renaming absent absent UNPROVEN UNPROVEN it is at neither end: nobody can know who took it
any renaming again+gone other UNPROVEN UNPROVEN other content is there: nobody can know what was there before
any renaming here+gone unknown LOOK UNPROVEN the destination could not be read

there+still landed+deleting here here DELETE DUPLICATED the copy is there: delete the source
there+still landed+deleting here absent DELETE WAITING a consumer took the copy: the source would ship twice
there+still landed+deleting here unknown DELETE UNPROVEN the copy was there: delete the source
there+still landed+deleting here other UNPROVEN CHANGED_BY_OTHERS someone replaced the copy: the source may be the only one left
there+still landed+deleting gone here MOVED IN_PLACE it is at its destination
there+still landed+deleting gone absent MOVED GONE_AFTER_LANDED a consumer took it after our copy was confirmed
there+still landed+deleting gone other MOVED CHANGED_BY_OTHERS someone replaced it after our copy was confirmed
there+still landed+deleting gone unknown MOVED UNPROVEN it moved; the destination could not be read

back+aside doubtful+landed+deleting here absent SEND WAITING nobody ships from there, so it may be sent again
back+aside doubtful+landed+deleting here here DELETE DUPLICATED the copy is there: delete the source
back+aside doubtful+landed+deleting here other OCCUPIED CHANGED_BY_OTHERS other content is where it would go, so it stays
back+aside doubtful+landed+deleting here unknown LOOK UNPROVEN no source is deleted before a look found the copy
back doubtful+landed gone here UNPROVEN CHANGED_BY_OTHERS someone took the source: our copy must not ship
back doubtful gone gone SHIPPED GONE_AFTER_LANDED someone took it, and no copy of ours is left
back landed gone gone UNPROVEN UNPROVEN it is at neither end: someone took it, or we deleted it and our copy is gone
aside doubtful+landed gone here MOVED IN_PLACE the copy is there, and the source is gone
aside doubtful+landed gone gone SKIPPED CHANGED_BY_OTHERS someone took it, and no copy of ours is left
back+aside doubtful+landed gone unknown LOOK UNPROVEN whether a copy of ours is left could not be read
back+aside deleting gone here MOVED IN_PLACE it is there
back+aside deleting gone absent MOVED GONE_AFTER_LANDED it was there, and someone took it
back+aside deleting gone other MOVED CHANGED_BY_OTHERS it was there, and someone replaced it
back+aside deleting gone unknown MOVED UNPROVEN it moved; the destination could not be read
any doubtful+renaming+landed+deleting unknown any LOOK UNPROVEN the source could not be read

any moved gone+unknown here NOTHING IN_PLACE it is at its destination
any moved gone+unknown absent NOTHING GONE_AFTER_LANDED it was taken after our copy was confirmed
any moved gone+unknown other NOTHING CHANGED_BY_OTHERS someone replaced it after our copy was confirmed
any moved gone+unknown unknown NOTHING UNPROVEN the destination could not be read
any moved here any NOTHING DUPLICATED it moved, and the planned content is at its source again
aside unproven+taken gone gone NOTHING LOST it was parked, and is not there any more
aside unproven here+unknown any NOTHING UNPROVEN a person settles it
aside unproven gone here+unknown NOTHING UNPROVEN a person settles it
there+still+back unproven any any NOTHING UNPROVEN a person settles it
any skipped+occupied any any NOTHING SKIPPED this plan does not move it
any left here any NOTHING WAITING this plan ended without it: a new plan may move it
any left gone+unknown any NOTHING SKIPPED this plan ended without it, and it has gone since
aside taken here+unknown any NOTHING SETTLED_BY_WORD a person answered that it was taken
aside taken gone here+unknown NOTHING SETTLED_BY_WORD a person answered that it was taken
there+still+back taken any any NOTHING SETTLED_BY_WORD a person answered that it was taken
any freed here any NOTHING WAITING a person answered that it was not taken: a new plan may move it
any freed gone+unknown any NOTHING SETTLED_BY_WORD a person answered that it was not taken, and it has gone since
any shipped any any NOTHING GONE_AFTER_LANDED it was taken before the undo came to it
"""  # noqa: E501


def _parse(line: str) -> Rule:
    direction, state, source, destination, act, proof, reason = line.split(maxsplit=6)
    acts: dict[str, Act | State] = {**Act.__members__, **State.__members__}
    return Rule(direction, state, source, destination, acts[act], Proof[proof], reason)


RULES: tuple[Rule, ...] = tuple(_parse(line) for line in _TABLE.split("\n") if line)

_BY_CELL: dict[tuple[str, ...], Rule] = {}
for _rule in RULES:
    _BY_CELL.update(dict.fromkeys(_rule.list_cells(), _rule))


def decide(direction: Direction, state: State, source: Place, destination: Place) -> Rule:
    """Return the one rule for a row, by what is at its source and destination."""
    return _BY_CELL[direction, state, source, destination]


if __name__ == "__main__":
    sys.stdout.write(" ".join(Rule._fields) + _TABLE)
