"""What was planned, approved, done and proven: each plan's phases in the journal, as one action."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..model import ActionEntry, ActionPhase, Json

_ACTIONS = {
    "release": "released {n} by move",
    "undo": "took {n} back",
    "retrigger": "re-triggered the worker {target}",
    "restart": "restarted {target}",
    "start": "started {target}",
    "resume": "resumed the worker {target}",
    "unpause": "unpaused the DAG {target}",
    "refresh": "refreshed the ticket's timeline",
    "create_synthetic": "made {n} for an exercise",
    "revert_synthetic": "removed {n} of an exercise",
}


@dataclass(slots=True)
class ActionRecord:
    """One action through its phases."""

    phases: list[ActionEntry] = field(default_factory=list)

    @property
    def first(self) -> ActionEntry:
        """The oldest phase."""
        return self.phases[0]

    @property
    def last(self) -> ActionEntry:
        """The newest phase."""
        return self.phases[-1]

    @property
    def plan(self) -> str:
        """The id of its plan; empty when the journal does not say it."""
        return str(self.first.result.get("plan", ""))

    @property
    def applied(self) -> ActionEntry | None:
        """That it changed the world; None when it did not."""
        return self.get(ActionPhase.APPLIED)

    @property
    def is_told(self) -> bool:
        """Whether it was carried out or tried: more than a plan."""
        told = (ActionPhase.APPLIED, ActionPhase.REFUSED, ActionPhase.FAILED)
        return any(map(self.get, told))

    @property
    def is_empty(self) -> bool:
        """Whether the plan has nothing to do."""
        return any(a.result.get("is_empty") is True for a in self.phases)

    @property
    def way_back(self) -> str:
        """How to take it back, or that there is no way."""
        return self.first.undo or "there is none"

    @property
    def approver(self) -> str:
        """Who approved or did it; empty when the journal does not say it."""
        return next((a.operator for a in reversed(self.phases) if a.operator), "")

    @property
    def proof(self) -> str:
        """What the look afterwards said, in a word."""
        if self.applied is None:
            return str(self.last.phase)
        if self.last.phase is ActionPhase.FAILED:
            return "the check afterwards failed"
        proven = "proven" if self.first.action in ("release", "undo") else "verified"
        verified = self.get(ActionPhase.VERIFIED)
        return proven if verified and verified.seq > self.applied.seq else "not verified"

    @property
    def words(self) -> str:
        """What was done, in the past tense; what was only tried, by its name."""
        first, result = self.first, self.result(ActionPhase.APPLIED)
        counts = (number_of(result.get(name)) for name in ("moved", "created", "removed"))
        number = next((count for count in counts if count is not None), None)
        plain = f"{first.action.replace('_', ' ')}: {{target}}"
        noun = "synthetic object" if "synthetic" in first.action else "label"
        objects = f"{'' if number is None else f'{number:,} '}{noun}{'' if number == 1 else 's'}"
        words = _ACTIONS.get(first.action, plain) if self.applied else plain
        target = first.target if len(first.target) <= 70 else f"{first.target[:70]}…"
        # a target may hold braces: it is put in by replacement, never by format
        return words.replace("{n}", objects).replace("{target}", target)

    def get(self, phase: str) -> ActionEntry | None:
        """Return the newest entry of a phase."""
        return next((a for a in reversed(self.phases) if a.phase == phase), None)

    def result(self, phase: str) -> dict[str, Json]:
        """What the newest entry of a phase says came of it."""
        found = self.get(phase)
        return found.result if found else {}


def group_actions(phases: Iterable[ActionEntry]) -> list[ActionRecord]:
    """Put the phases of each plan together, in the order in which the plans were made."""
    actions: dict[tuple[str, str], ActionRecord] = {}
    for action in phases:
        key = (action.step, str(action.result.get("plan") or action.source))
        actions.setdefault(key, ActionRecord()).phases.append(action)
    return list(actions.values())


def number_of(value: Json) -> float | None:
    """Return a number as it is, and None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None
