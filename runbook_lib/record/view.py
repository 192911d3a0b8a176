"""A journal's entries as types, and the facts that follow from them.

No clock and no files. What a runbook makes of these facts is its ``Policy``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import datetime
from itertools import chain

from pydantic import BaseModel

from chainlog import Entry

from ..model import (
    ActionEntry,
    ActionPhase,
    Conclusion,
    Mark,
    Note,
    NotebookEntry,
    Reading,
    Verdict,
)
from .folds import FRESH

#: The list and the type for each kind of entry; other kinds are not parsed.
_SHAPES: dict[str, tuple[str, type[BaseModel]]] = {
    "reading": ("readings", Reading),
    "action": ("actions", ActionEntry),
    "conclusion": ("conclusions", Conclusion),
    "note": ("notes", Note),
    "notebook": ("runs", NotebookEntry),
    "mark": ("marks", Mark),
}


class JournalView:
    """A journal's entries: all in ``entries``, and as types by kind. ``runs`` are of notebooks."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries: list[Entry] = []
        self.readings: list[Reading] = []
        self.actions: list[ActionEntry] = []
        self.conclusions: list[Conclusion] = []
        self.notes: list[Note] = []
        self.runs: list[NotebookEntry] = []
        self.marks: list[Mark] = []
        self.add(entries)

    @property
    def last_seq(self) -> int:
        return self.entries[-1].seq if self.entries else 0

    def add(self, entries: Iterable[Entry]) -> None:
        """Append entries. Those without the fields of their kind are only in ``entries``."""
        for entry in entries:
            self.entries.append(entry)
            kind = entry.kind
            fields = entry.data
            if isinstance(fields.get(kind), dict):  # some writers nest them
                fields = fields[kind]
            if kind in _SHAPES:
                name, shape = _SHAPES[kind]
                with suppress(ValueError):
                    value = shape.model_validate({**fields, "seq": entry.seq, "at": entry.at})
                    getattr(self, name).append(value)

    def of_runs(self, runs: Collection[str]) -> JournalView:
        """Return a view of the entries that some runs appended; see ``mark_run``."""
        return JournalView(entry for entry in self.entries if entry.data.get("run") in runs)

    def latest(self) -> dict[str, Reading]:
        """Return the newest reading of each step, in the order of the runbook."""
        newest = {reading.step: reading for reading in self.readings}
        return {step: newest[step] for step in sorted(newest, key=order_of)}

    def list_current(self, now: datetime | None = None) -> dict[str, Reading]:
        """Return ``latest`` without readings from before the last action.

        With ``now``, leave out those over ten minutes old, too.
        """
        changed_seq = self.last_applied.seq if self.last_applied else 0
        return {
            step: found
            for step, found in self.latest().items()
            if found.seq > changed_seq and (now is None or found.observed_at >= now - FRESH)
        }

    @property
    def ways_on(self) -> tuple[str, ...]:
        """Commands that finish unfinished work, by the readings since the last change."""
        commands = chain.from_iterable(found.ways_on for found in self.list_current().values())
        return tuple(dict.fromkeys(commands))

    def conclusion(self, section: str) -> Conclusion | None:
        own = [conclusion for conclusion in self.conclusions if conclusion.section == section]
        return own[-1] if own else None

    def note(self, step: str) -> str:
        texts = [note.text.strip() for note in self.notes if note.checklist == step]
        return texts[-1] if texts else ""

    def list_actions(self, phase: ActionPhase) -> list[ActionEntry]:
        return [action for action in self.actions if action.phase is phase]

    @property
    def last_applied(self) -> ActionEntry | None:
        applied = self.list_actions(ActionPhase.APPLIED)
        return applied[-1] if applied else None

    @property
    def last_applied_at(self) -> datetime | None:
        return self.last_applied.at if self.last_applied else None

    @property
    def diagnosis(self) -> Conclusion:
        """The newest conclusion that has findings, or an empty one."""
        empty = Conclusion(verdict=Verdict.UNKNOWN, summary="")
        found = [conclusion for conclusion in self.conclusions if conclusion.findings]
        return found[-1] if found else empty

    def find_mark(self, what: str) -> Mark | None:
        found = [mark for mark in self.marks if mark.what == what]
        return found[-1] if found else None


def order_of(step: str) -> tuple[int, ...]:
    """Return a step's place in the runbook: the numbers of its id."""
    return tuple(int(part) if part.isdigit() else 0 for part in step.split("."))
