"""The one decision table: what to do with a row, and what to say of it. Pure.

Apply, resume, undo, settle and verify ask ``decide`` and nothing else. Every cell is written out;
a test proves that each has exactly one rule, and that ``docs/decision-table.md`` shows them.
Two things are no columns. Unless everyone else stands still, nothing is asked here, the run ends.
And of a row that was announced nothing is asked before the fence: as long as a request for it may
still take effect, everyone waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from itertools import product
from typing import NamedTuple


class State(StrEnum):
    """What ledger and bucket record know of a row.

    A copy that was announced and has no answer that proves something is ``doubtful``, whether it
    was refused oddly, timed out, or its process died.
    """

    NONE = "none"
    DOUBTFUL = "doubtful"
    LANDED = "landed"
    MOVED = "moved"
    CONFLICT = "conflict"
    UNPROVEN = "unproven"
    SKIPPED = "skipped"
    TAKEN = "settled: taken"
    FREED = "settled: not taken"


class Place(StrEnum):
    """What a look found: at the source ``same`` is the planned version, at the destination its
    content."""

    SAME = "same"
    OTHER = "other"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Act(StrEnum):
    """What to do with a row that is not dealt with; else a ``State`` says what it becomes."""

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
    DUPLICATED = "duplicated"


class Rule(NamedTuple):
    """Cells with one decision, and the reason, in the table's words (``any``, ``not-same``)."""

    state: State
    source: str
    destination: str
    act: Act | State
    proof: Proof
    reason: str

    def cells(self) -> Iterator[tuple[State, Place, Place]]:
        """Yield every cell that the rule decides."""
        return product([self.state], _read(self.source), _read(self.destination))


def _read(word: str) -> list[Place]:
    """Return what a word of the table stands for."""
    if word.startswith("not-"):
        return [place for place in Place if place != word.removeprefix("not-")]
    return list(Place) if word == "any" else [Place(word)]


_TABLE = """
NONE     same        absent  COPY     WAITING           it waits, and nothing is in its way
NONE     same        same    ADOPT    WAITING           the content is there already: one copy is enough
NONE     same        other   SKIPPED  CHANGED_BY_OTHERS the destination is taken
NONE     same        unknown LOOK     WAITING           the destination could not be read
NONE     other       any     SKIPPED  CHANGED_BY_OTHERS its writer replaced it
NONE     absent      any     SKIPPED  CHANGED_BY_OTHERS someone else took it away
NONE     unknown     any     LOOK     WAITING           the source could not be read
DOUBTFUL same        same    ADOPT    DUPLICATED        the content is there: it landed
DOUBTFUL other       same    CONFLICT CHANGED_BY_OTHERS the planned content is there, and a newer version waits
DOUBTFUL absent      same    MOVED    IN_PLACE          the content is there, and someone else removed the source
DOUBTFUL not-unknown absent  UNPROVEN UNPROVEN          it never landed, or a consumer took it: nobody can know
DOUBTFUL not-unknown other   UNPROVEN UNPROVEN          something else is there, before ours or after it: nobody can know
DOUBTFUL not-unknown unknown LOOK     UNPROVEN          the destination could not be read
DOUBTFUL unknown     any     LOOK     UNPROVEN          the source could not be read
LANDED   same        same    DELETE   DUPLICATED        the copy is there: finish the move
LANDED   same        absent  DELETE   WAITING           a consumer took the copy: what is left would ship twice
LANDED   same        unknown DELETE   UNPROVEN          the copy was there: finish the move
LANDED   same        other   CONFLICT CHANGED_BY_OTHERS someone replaced the copy: the source may be the last one
LANDED   other       any     CONFLICT CHANGED_BY_OTHERS the planned version was put in place, and a newer one waits
LANDED   absent      same    MOVED    IN_PLACE          it is at its destination
LANDED   absent      absent  MOVED    GONE_AFTER_LANDED a consumer took it after our copy was confirmed
LANDED   absent      other   MOVED    CHANGED_BY_OTHERS someone replaced it after our copy was confirmed
LANDED   absent      unknown MOVED    UNPROVEN          it is moved; the destination could not be read
LANDED   unknown     any     LOOK     UNPROVEN          the source could not be read
MOVED    not-same    same    NOTHING  IN_PLACE          it is at its destination
MOVED    not-same    absent  NOTHING  GONE_AFTER_LANDED a consumer took it after our copy was confirmed
MOVED    not-same    other   NOTHING  CHANGED_BY_OTHERS someone replaced it after our copy was confirmed
MOVED    not-same    unknown NOTHING  UNPROVEN          the destination could not be read
MOVED    same        any     CONFLICT DUPLICATED        the store said that the planned version is deleted, and it is there
CONFLICT any         any     NOTHING  CHANGED_BY_OTHERS two versions: a person decides
UNPROVEN any         any     NOTHING  UNPROVEN          a person settles it
SKIPPED  any         any     NOTHING  CHANGED_BY_OTHERS others changed it before any copy of ours
TAKEN    any         any     NOTHING  GONE_AFTER_LANDED a person said that it was taken
FREED    same        any     NOTHING  WAITING           a person said that it was not taken: a new plan may move it
FREED    not-same    any     NOTHING  CHANGED_BY_OTHERS a person said that it was not taken, and it went since
"""  # noqa: E501


def _parse(line: str) -> Rule:
    state, source, destination, act, proof, reason = line.split(maxsplit=5)
    acts: dict[str, Act | State] = {**Act.__members__, **State.__members__}
    return Rule(State[state], source, destination, acts[act], Proof[proof], reason)


RULES: tuple[Rule, ...] = tuple(_parse(line) for line in _TABLE.strip().splitlines())

_BY_CELL = {cell: rule for rule in RULES for cell in rule.cells()}


def decide(*, state: State, source: Place, destination: Place) -> Rule:
    """Return the rule of one cell."""
    return _BY_CELL[state, source, destination]
