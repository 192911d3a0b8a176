"""What was planned, approved, done and proven: each plan's phases in the journal, as one action."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from chainlog import Entry

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
    """One action through its phases, each with the journal entry that says so."""

    phases: list[tuple[Entry, ActionEntry]] = field(default_factory=list)

    @property
    def first(self) -> ActionEntry:
        """The oldest phase."""
        return self.phases[0][1]

    @property
    def last(self) -> ActionEntry:
        """The newest phase."""
        return self.phases[-1][1]

    @property
    def plan(self) -> str:
        """The id of its plan; empty when the journal does not say it."""
        return str(self.first.result.get("plan", ""))

    @property
    def is_done(self) -> bool:
        """Whether it changed the world."""
        return self.entry(ActionPhase.APPLIED) is not None

    @property
    def is_told(self) -> bool:
        """Whether it was carried out or tried: more than a plan."""
        return self.is_done or any(map(self.entry, (ActionPhase.REFUSED, ActionPhase.FAILED)))

    @property
    def is_empty(self) -> bool:
        """Whether the plan has nothing to do."""
        return any(a.result.get("is_empty") is True for _, a in self.phases)

    @property
    def way_back(self) -> str:
        """How to take it back, or that there is no way."""
        return self.first.undo or "there is none"

    @property
    def approver(self) -> str:
        """Who approved or did it; empty when the journal does not say it."""
        return next((a.operator for _, a in reversed(self.phases) if a.operator), "")

    @property
    def proof(self) -> str:
        """What the look afterwards said, in a word."""
        applied = self.entry(ActionPhase.APPLIED)
        if applied is None:
            return str(self.last.phase)
        if self.last.phase is ActionPhase.FAILED:
            return "the check afterwards failed"
        proven = "proven" if self.first.action in ("release", "undo") else "verified"
        verified = self.entry(ActionPhase.VERIFIED)
        return proven if verified and verified.seq > applied.seq else "not verified"

    @property
    def words(self) -> str:
        """What was done, in the past tense; what was only tried, by its name."""
        first, result = self.first, self.result(ActionPhase.APPLIED)
        counts = (number_of(result.get(name)) for name in ("moved", "created", "removed"))
        number = next((count for count in counts if count is not None), None)
        plain = f"{first.action.replace('_', ' ')}: {{target}}"
        noun = "synthetic object" if "synthetic" in first.action else "label"
        objects = f"{'' if number is None else f'{number:,} '}{noun}{'' if number == 1 else 's'}"
        words = _ACTIONS.get(first.action, plain) if self.is_done else plain
        target = first.target if len(first.target) <= 70 else f"{first.target[:70]}…"
        # a target may hold braces: it is put in by replacement, never by format
        return words.replace("{n}", objects).replace("{target}", target)

    def entry(self, phase: ActionPhase) -> Entry | None:
        """Return the newest entry of a phase."""
        return next((e for e, a in reversed(self.phases) if a.phase == phase), None)

    def result(self, phase: ActionPhase | str) -> dict[str, Json]:
        """What the newest entry of a phase says came of it."""
        return next((a.result for _, a in reversed(self.phases) if a.phase == phase), {})


def group_actions(phases: Iterable[tuple[Entry, ActionEntry]]) -> list[ActionRecord]:
    """Put the phases of each plan together, in the order in which the plans were made."""
    actions: dict[tuple[str, str], ActionRecord] = {}
    for entry, action in phases:
        key = (action.step, str(action.result.get("plan") or action.source))
        actions.setdefault(key, ActionRecord()).phases.append((entry, action))
    return list(actions.values())


def number_of(value: Json) -> float | None:
    """Return a number as it is, and None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None
