"""The entries of a journal as types, and the facts that follow from them.

No clock and no files. What a runbook makes of these facts is its ``Policy``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from chainlog import Entry

from ..model import (
    ActionEntry,
    ActionPhase,
    Conclusion,
    Finding,
    Json,
    Mark,
    Note,
    NotebookEntry,
    Reading,
    Start,
    Verdict,
)
from .folds import FRESH

#: The type of the entries of each kind; entries of other kinds are not parsed.
_SHAPES: dict[str, type[BaseModel]] = {
    "reading": Reading,
    "action": ActionEntry,
    "conclusion": Conclusion,
    "section_started": Start,
    "note": Note,
    "notebook": NotebookEntry,
    "mark": Mark,
}
#: In the older version these entries were what marks are now, each of a kind of its own.
_OLD_MARKS = (
    "opened",
    "closed",
    "joined",
    "adopted",
    "left_to",
    "followed",
    "continued",
    "handed_over",
    "plan_of_closed",
    "journal_damaged",
)


class JournalView:
    """Journal entries as types, and what follows from them.

    Attributes
    ----------
    entries : all of them, in sequence
    readings, actions, conclusions, starts, notes, marks : the entries of one kind, in sequence
    runs : the entries of the notebooks' runs, in sequence
    unreadable : numbers of the entries that do not have the shape of their kind
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries: list[Entry] = []
        self.readings: list[Reading] = []
        self.actions: list[ActionEntry] = []
        self.conclusions: list[Conclusion] = []
        self.starts: list[Start] = []
        self.notes: list[Note] = []
        self.runs: list[NotebookEntry] = []
        self.marks: list[Mark] = []
        self.unreadable: list[int] = []
        self._newest: dict[str, Reading] = {}
        self._lists: dict[type[BaseModel], list[Any]] = {
            Reading: self.readings,
            ActionEntry: self.actions,
            Conclusion: self.conclusions,
            Start: self.starts,
            Note: self.notes,
            NotebookEntry: self.runs,
            Mark: self.marks,
        }
        self.add(entries)

    @property
    def last_seq(self) -> int:
        """The number of the newest entry; 0 without one."""
        if not self.entries:
            return 0
        return self.entries[-1].seq

    def add(self, entries: Iterable[Entry]) -> None:
        """Append entries. If one lacks the shape of its kind, note its number in ``unreadable``."""
        for entry in entries:
            self.entries.append(entry)
            fields = dict(get_content(entry))
            shape = _SHAPES.get(entry.kind)
            if entry.kind in _OLD_MARKS:
                shape = Mark
                fields = {**fields, "what": entry.kind, "facts": fields}
            if shape is None:
                continue
            fields["seq"] = entry.seq
            fields["at"] = entry.at
            try:
                value = shape.model_validate(fields)
            except ValueError:
                self.unreadable.append(entry.seq)
                continue
            self._lists[shape].append(value)
            if isinstance(value, Reading):
                self._newest[value.step] = value

    def of_runs(self, runs: Collection[str]) -> JournalView:
        """Return a view of only the entries that some runs appended.

        Parameters
        ----------
        runs : marks as in ``mark_run``: names of the executed notebooks' files
        """
        return JournalView(entry for entry in self.entries if entry.data.get("run") in runs)

    def latest(self) -> dict[str, Reading]:
        """Return a mapping from each step's id to its newest reading, sorted as in the runbook."""
        steps = sorted(self._newest, key=order_of)
        return {step: self._newest[step] for step in steps}

    def list_current(self, now: datetime) -> dict[str, Reading]:
        """Return a mapping from each step's id to its newest reading, if that is still current.

        A reading is current for ten minutes. One from before the last action is not current,
        because it cannot show the action's effect. The readings are sorted as in the runbook.
        """
        oldest_allowed = now - FRESH
        last_applied = self.last_applied
        current = {}
        for step, reading in self.latest().items():
            is_after_action = last_applied is None or reading.seq > last_applied.seq
            if is_after_action and reading.observed_at >= oldest_allowed:
                current[step] = reading
        return current

    @property
    def ways_on(self) -> tuple[str, ...]:
        """The commands that finish what was begun, as the newest readings name them."""
        commands: dict[str, None] = {}  # each command once, in sequence; a set has no sequence
        for reading in self.latest().values():
            commands.update(dict.fromkeys(reading.ways_on))
        return tuple(commands)

    @property
    def last_look_at(self) -> datetime | None:
        """The time of the newest reading, or of the newest phase of an action; None without one."""
        entries = [*self.readings, *self.actions]
        return max((entry.at for entry in entries), default=None)

    def conclusion(self, section: str) -> Conclusion | None:
        """Return a section's newest conclusion; None without one."""
        for conclusion in reversed(self.conclusions):
            if conclusion.section == section:
                return conclusion
        return None

    def note(self, step: str) -> str:
        """Return the text of the newest note on a step of the checklist; empty without one."""
        for note in reversed(self.notes):
            if note.checklist == step:
                return note.text.strip()
        return ""

    def list_actions(self, phase: ActionPhase, *, after: int = 0) -> list[ActionEntry]:
        """Return every entry that says that an action reached a phase.

        Parameters
        ----------
        after : only entries with a higher number
        """
        return [a for a in self.actions if a.phase is phase and a.seq > after]

    @property
    def last_applied(self) -> ActionEntry | None:
        """The newest entry that says that an action changed the world; None without one."""
        applied = self.list_actions(ActionPhase.APPLIED)
        if not applied:
            return None
        return applied[-1]

    @property
    def last_applied_at(self) -> datetime | None:
        """The time at which the last action was carried out; None: there was none."""
        last = self.last_applied
        if last is None:
            return None
        return last.at

    def list_plans(self, *, after: int = 0) -> dict[str, ActionEntry]:
        """Return a mapping from a plan's id to the newest entry that says that it was planned.

        The plans are sorted by their first such entries.

        Parameters
        ----------
        after : only entries with a higher number
        """
        plans = {}
        for entry in self.list_actions(ActionPhase.PLANNED, after=after):
            is_left = entry.reason or entry.result.get("is_empty")  # as the older version wrote
            if "plan" in entry.result and not is_left:
                plan_id = str(entry.result["plan"])
                plans[plan_id] = entry
        return plans

    @property
    def last_diagnosis(self) -> Conclusion | None:
        """The newest conclusion that has findings; None without one."""
        for conclusion in reversed(self.conclusions):
            if conclusion.findings:
                return conclusion
        return None

    def findings(self) -> tuple[Finding, ...]:
        """Return the newest findings: what is known of every cause now."""
        diagnosis = self.last_diagnosis
        if diagnosis is None:
            return ()
        return diagnosis.findings

    def tickets(self) -> tuple[str, ...]:
        """Return every ticket that a section or a reading names, once each."""
        tickets: list[Json] = [start.parameters.get("ticket_id") for start in self.starts]
        tickets += [reading.ticket for reading in self.readings]
        names = [str(ticket) for ticket in tickets if ticket]
        return tuple(dict.fromkeys(names))

    def closing_verdict(self) -> Verdict | None:
        """Return the verdict of the close; None without one."""
        for mark in self.marks:
            if mark.what == "closed":
                return Verdict(mark.facts["verdict"])
        return None


def get_content(entry: Entry) -> dict[str, Json]:
    """Return the fields of an entry, which some writers put under the name of its kind."""
    content = entry.data.get(entry.kind)
    if isinstance(content, dict):
        return content
    return entry.data


def order_of(step: str) -> tuple[int, ...]:
    """Return a step's place in the runbook: the numbers of its id."""
    numbers = []
    for part in step.split("."):
        number = int(part) if part.isdigit() else 0
        numbers.append(number)
    return tuple(numbers)


def to_number(value: Json) -> float | None:
    """Return a number as it is, and None for anything else, such as a text or a boolean."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    return None


def get_number(reading: Reading) -> float:
    """Return a reading's value; 0 when it is not a number."""
    return to_number(reading.value) or 0
