"""The one decision table: what to do with a row, and what to say of it. Pure.

Apply, resume, undo, settle and verify ask ``decide`` and nothing else. Every cell is written out;
a test proves that each has exactly one rule. ``docs/decision-table.md`` is printed from here.
Movers are no column: unless everyone else stands still, nothing is asked here, the run ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from enum import StrEnum
from itertools import product
from typing import TypeVar

_Kind = TypeVar("_Kind", bound=StrEnum)


class Fence(StrEnum):
    """Whether a request for this row may still take effect: unanswered, and not expired + G + S."""

    OPEN = "open"
    PASSED = "passed"


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

    WAIT = "wait for the fence"
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


@dataclass(frozen=True, slots=True)
class Rule:
    """Cells with one decision, and the reason, in the table's words (``any``, ``not-same``)."""

    state: State
    fence: str
    source: str
    destination: str
    act: Act | State
    proof: Proof
    reason: str

    def cells(self) -> Iterator[tuple[Fence, State, Place, Place]]:
        """Yield every cell that the rule decides."""
        places = (_read(Place, self.source), _read(Place, self.destination))
        return product(_read(Fence, self.fence), [self.state], *places)


def _read(kind: type[_Kind], word: str) -> list[_Kind]:
    """Return what a word of the table stands for."""
    if word.startswith("not-"):
        return [one for one in kind if one != word.removeprefix("not-")]
    return list(kind) if word == "any" else [kind(word)]


_TABLE = """
NONE     any    same        absent  COPY     WAITING           it waits, and nothing is in its way
NONE     any    same        same    ADOPT    WAITING           the content is there already: one copy is enough
NONE     any    same        other   SKIPPED  CHANGED_BY_OTHERS the destination is taken
NONE     any    same        unknown LOOK     WAITING           the destination could not be read
NONE     any    other       any     SKIPPED  CHANGED_BY_OTHERS its writer replaced it
NONE     any    absent      any     SKIPPED  CHANGED_BY_OTHERS someone else took it away
NONE     any    unknown     any     LOOK     WAITING           the source could not be read
DOUBTFUL open   any         any     WAIT     UNPROVEN          the copy may still take effect
DOUBTFUL passed same        same    ADOPT    DUPLICATED        the content is there: it landed
DOUBTFUL passed other       same    CONFLICT CHANGED_BY_OTHERS the planned content is there, and a newer version waits
DOUBTFUL passed absent      same    MOVED    IN_PLACE          the content is there, and someone else removed the source
DOUBTFUL passed not-unknown absent  UNPROVEN UNPROVEN          it never landed, or a consumer took it: nobody can know
DOUBTFUL passed not-unknown other   UNPROVEN UNPROVEN          something else is there, before ours or after it: nobody can know
DOUBTFUL passed not-unknown unknown LOOK     UNPROVEN          the destination could not be read
DOUBTFUL passed unknown     any     LOOK     UNPROVEN          the source could not be read
LANDED   open   any         any     WAIT     UNPROVEN          the delete may still take effect
LANDED   passed same        same    DELETE   DUPLICATED        the copy is there: finish the move
LANDED   passed same        absent  DELETE   WAITING           a consumer took the copy: what is left would ship twice
LANDED   passed same        unknown DELETE   UNPROVEN          the copy was there: finish the move
LANDED   passed same        other   CONFLICT CHANGED_BY_OTHERS someone replaced the copy: the source may be the last one
LANDED   passed other       any     CONFLICT CHANGED_BY_OTHERS the planned version was put in place, and a newer one waits
LANDED   passed absent      same    MOVED    IN_PLACE          it is at its destination
LANDED   passed absent      absent  MOVED    GONE_AFTER_LANDED a consumer took it after our copy was confirmed
LANDED   passed absent      other   MOVED    CHANGED_BY_OTHERS someone replaced it after our copy was confirmed
LANDED   passed absent      unknown MOVED    UNPROVEN          it is moved; the destination could not be read
LANDED   passed unknown     any     LOOK     UNPROVEN          the source could not be read
MOVED    any    not-same    same    NOTHING  IN_PLACE          it is at its destination
MOVED    any    not-same    absent  NOTHING  GONE_AFTER_LANDED a consumer took it after our copy was confirmed
MOVED    any    not-same    other   NOTHING  CHANGED_BY_OTHERS someone replaced it after our copy was confirmed
MOVED    any    not-same    unknown NOTHING  UNPROVEN          the destination could not be read
MOVED    any    same        any     CONFLICT DUPLICATED        the store said that the planned version is deleted, and it is there
CONFLICT any    any         any     NOTHING  CHANGED_BY_OTHERS two versions: a person decides
UNPROVEN any    any         any     NOTHING  UNPROVEN          a person settles it
SKIPPED  any    any         any     NOTHING  CHANGED_BY_OTHERS others changed it before any copy of ours
TAKEN    any    any         any     NOTHING  GONE_AFTER_LANDED a person said that it was taken
FREED    any    same        any     NOTHING  WAITING           a person said that it was not taken: a new plan may move it
FREED    any    not-same    any     NOTHING  CHANGED_BY_OTHERS a person said that it was not taken, and it went since
"""  # noqa: E501


def _parse(line: str) -> Rule:
    state, fence, source, destination, act, proof, reason = line.split(maxsplit=6)
    acts: dict[str, Act | State] = {**Act.__members__, **State.__members__}
    return Rule(State[state], fence, source, destination, acts[act], Proof[proof], reason)


RULES: tuple[Rule, ...] = tuple(_parse(line) for line in _TABLE.strip().splitlines())

_BY_CELL = {cell: rule for rule in RULES for cell in rule.cells()}


def decide(*, fence: Fence, state: State, source: Place, destination: Place) -> Rule:
    """Return the rule of one cell."""
    return _BY_CELL[fence, state, source, destination]


def render() -> str:
    """Return the table as Markdown, for the docs."""
    names = ("ledger", "fence", "source", "destination", "act", "proof", "why")
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(astuple(rule))} |" for rule in RULES]
    return "\n".join(lines) + "\n"
