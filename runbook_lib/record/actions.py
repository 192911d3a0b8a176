"""The actions of a journal: what became of each plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..model import ActionEntry, ActionPhase

#: Actions that can be resumed.
MOVES = ("move", "release", "park", "undo", "settle")
#: Fields of an action's result that say how many objects it changed.
_COUNTS = {"moved", "created", "removed", "settled"}
#: Counts of a proof. If one is not 0, the move is not proven.
_UNPROVEN = ("unproven", "lost", "duplicated", "foreign_changed")


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """What became of one plan.

    Attributes
    ----------
    phases : its entries, in sequence; each says that the action reached a phase
    is_taken_back : whether a later plan undid it
    settled : how many of its objects a person settled
    """

    plan: str
    phases: tuple[ActionEntry, ...]
    is_taken_back: bool
    settled: int

    @property
    def first(self) -> ActionEntry:
        """The oldest entry."""
        return self.phases[0]

    @property
    def last(self) -> ActionEntry:
        """The newest entry; of an action that was carried out, a second try does not count."""
        again = (ActionPhase.APPROVED, ActionPhase.REFUSED) if self.applied else ()
        return next(entry for entry in reversed(self.phases) if entry.phase not in again)

    @property
    def applied(self) -> ActionEntry | None:
        """The newest entry that says that the action changed the world; None without one."""
        return self.get(ActionPhase.APPLIED)

    @property
    def decisive(self) -> ActionEntry:
        """The entry that stands for the action: ``applied``, else the newest."""
        return self.applied or self.last

    @property
    def approver(self) -> str:
        """Who approved it first, else who did it; empty: not known."""
        approvals = (entry for entry in self.phases if entry.phase is ActionPhase.APPROVED)
        return next(approvals, self.first).operator

    @property
    def changed(self) -> int | None:
        """How many objects it changed; None when no result says.

        Of several runs the highest count holds: a later run leaves out what was taken back
        meanwhile.
        """
        counts: list[int] = []
        for entry in self.phases:
            if entry.phase is ActionPhase.APPLIED:
                counts += map(entry.count, _COUNTS & entry.result.keys())
        return max(counts, default=None)

    @property
    def stayed(self) -> int:
        """How many objects of its plan it left where they were, for a reason of their own."""
        return self._count("skipped")

    @property
    def left(self) -> int:
        """How many objects it still has to move."""
        return self._count("waiting")

    @property
    def doubtful(self) -> int:
        """How many objects it left in doubt, of which no person has said what became of them."""
        return max(0, self._count("unproven") - self.settled)

    @property
    def is_unfinished(self) -> bool:
        """Whether somebody must resume it: it left objects, or was cut off."""
        is_begun = self.is_cut_off and _find_proof(self.phases[-1]) is None
        return not self.is_taken_back and (self.left > 0 or is_begun)

    @property
    def is_proven(self) -> bool:
        """Whether the newest check after the last change found the effect, and nothing in doubt."""
        is_proven = False
        for entry in self.phases:
            found = _find_proof(entry)
            if found is not None or entry.phase is ActionPhase.APPLIED:
                is_proven = bool(found)
        return is_proven and self.applied is not None and not self.doubtful

    @property
    def state(self) -> str:
        """What a later action changed about it, in words; else its newest phase.

        What stayed where it was does not make a proof fail.
        """
        if self.is_taken_back:
            return "taken back"
        if _find_proof(self.last):
            return "settled by word" if self.settled else "verified"
        return str(self.last.phase)

    @property
    def is_cut_off(self) -> bool:
        """Whether its newest entry is an approval or a failure, and no entry says ``applied``."""
        is_begun = self.last.phase in (ActionPhase.APPROVED, ActionPhase.FAILED)
        return is_begun and self.applied is None

    @property
    def was_tried(self) -> bool:
        """Whether the action came further than its plan."""
        return self.last.phase is not ActionPhase.PLANNED

    def _count(self, name: str) -> int:
        return self.applied.count(name) if self.applied else 0

    def get(self, phase: str) -> ActionEntry | None:
        """Return the newest entry of a phase; None without one."""
        return next((entry for entry in reversed(self.phases) if entry.phase == phase), None)


def _find_proof(entry: ActionEntry) -> bool | None:
    """Return whether an entry proves the action's effect; None: it is of no check."""
    if entry.phase is ActionPhase.VERIFIED:
        return True
    if entry.phase is not ActionPhase.FAILED:
        return None
    if "lost" in entry.result:
        # A proof may fail although every object is accounted for: others took some first.
        return not any(map(entry.count, _UNPROVEN))
    return None if entry.action in MOVES else False


def group_actions(entries: Iterable[ActionEntry]) -> list[ActionRecord]:
    """Return an action for each plan that entries name, sorted by their first entries.

    Plans that had nothing to do, which the older version journalled, are left out.
    """
    phases: dict[str, list[ActionEntry]] = {}
    for entry in entries:
        phases.setdefault(entry.plan, []).append(entry)
    undone: set[str] = set()
    settled: dict[str, int] = {}
    for own in phases.values():
        applied = [entry for entry in own if entry.phase is ActionPhase.APPLIED]
        about = own[0].about
        if applied and own[0].action == "undo":
            undone.add(about)
        elif applied and own[0].action == "settle":
            settled[about] = settled.get(about, 0) + applied[-1].count("settled")
    return [
        ActionRecord(plan, tuple(own), plan in undone, settled.get(plan, 0))
        for plan, own in phases.items()
        if not own[0].result.get("is_empty")
    ]
