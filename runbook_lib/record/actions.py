"""The actions of a journal: the phases of each plan, put together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..model import ActionEntry, ActionPhase, Json

#: Counts of a proof that no person's word can explain. An action is settled only if all are 0.
_UNEXPLAINED = ("waiting", "changed_by_others", "lost", "duplicated", "foreign_changed", "skipped")


class ActionRecord(NamedTuple):
    """One action: its entries in the journal, and what later actions changed about it.

    Attributes
    ----------
    phases : the entries, in sequence; each says that the action reached a phase
    is_taken_back : whether an undo took it back
    is_settled : whether a person said what became of all that its check could not prove
    """

    phases: list[ActionEntry]
    is_taken_back: bool = False
    is_settled: bool = False

    @property
    def first(self) -> ActionEntry:
        """The oldest entry."""
        return self.phases[0]

    @property
    def last(self) -> ActionEntry:
        """The newest entry."""
        return self.phases[-1]

    @property
    def plan(self) -> str:
        """The id of its plan; empty when the journal does not say it."""
        return str(self.first.result.get("plan", ""))

    @property
    def applied(self) -> ActionEntry | None:
        """The newest entry that says that the action changed the world; None without one."""
        return self.get(ActionPhase.APPLIED)

    @property
    def decisive(self) -> ActionEntry:
        """The entry that stands for the action: the newest that says that it changed the world.

        Without one, the first failure after the newest approval. Without that, the newest entry.
        """
        if self.applied is not None:
            return self.applied
        approved = self.get(ActionPhase.APPROVED)
        for entry in self.phases:
            is_after_approval = approved is not None and entry.seq > approved.seq
            if is_after_approval and entry.phase is ActionPhase.FAILED:
                return entry
        return self.last

    @property
    def state(self) -> str:
        """What a later action changed about it, in words; else its newest phase.

        A settling with ``is_settled`` is "done".
        """
        if self.is_taken_back:
            return "taken back"
        if self.is_settled:
            return "done" if self.first.action == "settle" else "settled by word"
        return str(self.last.phase)

    @property
    def is_cut_off(self) -> bool:
        """Whether its newest entry is an approval or a failure, and no entry says ``applied``."""
        is_begun = self.last.phase in (ActionPhase.APPROVED, ActionPhase.FAILED)
        return is_begun and self.applied is None

    @property
    def was_tried(self) -> bool:
        """Whether the action was approved, refused, applied, or failed.

        A plan with nothing to do is verified at once, which is no try. An action that was killed
        may have only an approval: the journal does not say how far the action came.
        """
        untried = (ActionPhase.PLANNED, ActionPhase.VERIFIED)
        return any(entry.phase not in untried for entry in self.phases)

    @property
    def is_verified(self) -> bool:
        """Whether a check after the newest change found its effect, and no check failed since."""
        verified = self.get(ActionPhase.VERIFIED)
        if self.applied is None or verified is None:
            return False
        if self.last.phase is ActionPhase.FAILED:
            return False
        return verified.seq > self.applied.seq

    @property
    def is_empty(self) -> bool:
        """Whether its plan has nothing to do."""
        return any(entry.result.get("is_empty") is True for entry in self.phases)

    @property
    def settles(self) -> str:
        """The id of the plan that it settles by a person's word; empty: it settles none."""
        return self.first.about if self.first.action == "settle" else ""

    @property
    def way_back(self) -> str:
        """How to take it back, in words that follow ``Way back:``."""
        return self.first.undo or "there is none"

    @property
    def approver(self) -> str:
        """Who approved it first, else who did it; empty when the journal does not say it.

        Whoever goes on with it later approves nothing new.
        """
        by = [entry.operator for entry in self.phases if entry.operator]
        approvers = [e.operator for e in self.phases if e.phase is ActionPhase.APPROVED]
        return next(filter(None, (*approvers, *by)), "")

    def get(self, phase: str) -> ActionEntry | None:
        """Return the newest entry of a phase; None without one."""
        for entry in reversed(self.phases):
            if entry.phase == phase:
                return entry
        return None

    def result(self, phase: str) -> dict[str, Json]:
        """Return the result that the newest entry of a phase holds; empty without one."""
        entry = self.get(phase)
        if entry is None:
            return {}
        return entry.result


def say_cut_off(action: ActionRecord) -> str:
    """Say what became of an action that was cut off."""
    if action.is_taken_back:
        return "cut off, and taken back"
    return "begun, and not ended"


def group_actions(entries: Iterable[ActionEntry]) -> list[ActionRecord]:
    """Return an action for each step and plan that entries name, sorted by their first entries.

    For an entry that names no plan, its source stands for the plan. If a plan that was carried out
    is approved again, and refused, that changes nothing: those two entries are left out.
    """
    actions: dict[tuple[str, str], list[ActionEntry]] = {}
    for entry in entries:
        plan = entry.result.get("plan") or entry.source
        key = (entry.step, str(plan))
        phases = actions.setdefault(key, [])
        was_applied = any(earlier.phase is ActionPhase.APPLIED for earlier in phases)
        if was_applied and entry.phase is ActionPhase.REFUSED:
            if phases[-1].phase is ActionPhase.APPROVED:
                phases.pop()
            continue
        phases.append(entry)
    records = [ActionRecord(phases) for phases in actions.values()]
    undos = [record for record in records if record.first.action == "undo" and record.applied]
    taken_back = {undo.first.about for undo in undos}
    records = [record._replace(is_taken_back=record.plan in taken_back) for record in records]
    return [record._replace(is_settled=_is_settled(record, records)) for record in records]


def _is_settled(action: ActionRecord, actions: Iterable[ActionRecord]) -> bool:
    """Tell whether a person's word explains all that an action's failed check could not prove."""
    proof = action.last.result
    if action.last.phase is not ActionPhase.FAILED or "settled_by_word" not in proof:
        return False
    if any(proof.get(name) for name in _UNEXPLAINED):
        return False
    if action.first.action == "settle":
        # A settling holds the word itself, so no other action has to explain its proof.
        return bool(proof.get("settled_by_word")) and not proof.get("unproven")
    settled: int = 0
    for other in actions:
        if other.settles == action.plan and not other.is_taken_back:
            settled += other.result(ActionPhase.APPLIED).get("settled", 0)
    # A check after the settling counts the same objects as settled by word, no longer as unproven.
    in_doubt: int = proof.get("unproven", 0) + proof.get("settled_by_word", 0)
    # If nothing is in doubt, the check failed for another reason.
    return 0 < in_doubt <= settled
