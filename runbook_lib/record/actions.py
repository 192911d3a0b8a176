"""The actions of a journal: the phases of each plan, put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from ..model import ActionEntry, ActionPhase, Json
from .entries import Change, Message
from .folds import PlanOutcome, list_plans

#: Actions that can be resumed.
_MOVES = ("release", "park", "undo", "settle")
#: Counts of a proof. If one is not 0, the move is not proven.
_UNPROVEN = ("unproven", "lost", "duplicated", "foreign_changed")
#: Counts of a proof that no person's word can explain.
_UNEXPLAINED = ("waiting", "changed_by_others", "lost", "duplicated", "foreign_changed", "skipped")


@dataclass(frozen=True, slots=True)
class ActionRecord(PlanOutcome):
    """What became of one plan, and its entries in the journal.

    ``phases`` are the entries, in sequence; each says that the action reached a phase.
    """

    phases: tuple[ActionEntry, ...]

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
    def is_settled(self) -> bool:
        """Whether a person's word explains all that its failed check could not prove."""
        proof = self.last.result
        if self.last.phase is not ActionPhase.FAILED or "settled_by_word" not in proof:
            return False
        # A check after the settling counts the same objects as settled by word, not as unproven.
        in_doubt: int = proof.get("unproven", 0) + proof.get("settled_by_word", 0)
        is_explained = not any(proof.get(name) for name in _UNEXPLAINED)
        return is_explained and 0 < in_doubt <= self.settled

    @property
    def is_verified(self) -> bool:
        """Whether its newest entry is of a check that found its effect."""
        return self.is_proven and self.last.phase is ActionPhase.VERIFIED

    @property
    def state(self) -> str:
        """What a later action changed about it, in words; else its newest phase."""
        if self.is_taken_back:
            return "taken back"
        return "settled by word" if self.is_settled else str(self.last.phase)

    @property
    def is_cut_off(self) -> bool:
        """Whether its newest entry is an approval or a failure, and no entry says ``applied``."""
        is_begun = self.last.phase in (ActionPhase.APPROVED, ActionPhase.FAILED)
        return is_begun and self.applied is None

    @property
    def was_tried(self) -> bool:
        """Whether the action came further than its plan."""
        return self.last.phase is not ActionPhase.PLANNED

    def get(self, phase: str) -> ActionEntry | None:
        """Return the newest entry of a phase; None without one."""
        return next((entry for entry in reversed(self.phases) if entry.phase == phase), None)

    def result(self, phase: str) -> dict[str, Json]:
        """Return the result that the newest entry of a phase holds; empty without one."""
        entry = self.get(phase)
        return entry.result if entry else {}


def group_actions(entries: Iterable[ActionEntry]) -> list[ActionRecord]:
    """Return an action for each plan that entries name, sorted by their first entries.

    Plans that had nothing to do, which the older version journalled, are left out.
    """
    phases: dict[str, list[ActionEntry]] = {}
    for entry in entries:
        phases.setdefault(name_plan(entry), []).append(entry)
    changes: list[Change] = []
    for own in phases.values():
        if not own[0].result.get("is_empty"):
            changes += map(to_change, own)
    records = []
    for outcome in list_plans(changes):
        record = ActionRecord(**asdict(outcome), phases=tuple(phases[outcome.plan]))
        records.append(record)
    return records


def name_plan(entry: ActionEntry) -> str:
    """Return the id of an entry's plan; where the entry names none, its source or its step."""
    return str(entry.result.get("plan") or entry.source or entry.step)


def to_change(action: ActionEntry) -> Change:
    """Return an entry as a phase of a plan."""
    plan = name_plan(action)
    counts = {}
    for name, count in action.result.items():
        if isinstance(count, list):
            counts[name] = len(count)
        elif isinstance(count, int):
            counts[name] = int(count)
    phase = action.phase
    if phase is ActionPhase.FAILED and "lost" not in counts and action.action in _MOVES:
        phase = ActionPhase.INTERRUPTED  # the failure is of the move itself, not of a proof
    elif phase is ActionPhase.FAILED and not any(counts.get(name) for name in _UNPROVEN):
        # A proof may fail although every object is accounted for: others took some first.
        phase = ActionPhase.VERIFIED if "lost" in counts else phase
    return Change(
        at=action.at,
        step=action.step,
        plan=plan,
        about=action.about,
        verb=action.action,
        target=action.target,
        phase=phase,
        by=action.operator,
        counts=counts,
        message=Message(id="quote", values={"text": action.reason}),
    )
