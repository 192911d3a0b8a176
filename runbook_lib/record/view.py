"""A journal's entries as types, and the facts that follow from them, without clock and files."""

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
_TYPES: dict[str, tuple[str, type[BaseModel]]] = {
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
        """Append a log's entries, each as a type to the list of its kind, such as ``readings``.

        Those of other kinds, or without the type's fields, are only in ``entries``.
        """
        for entry in entries:
            self.entries.append(entry)
            kind = entry.kind
            fields = entry.data
            if isinstance(fields.get(kind), dict):  # some writers nest them
                fields = fields[kind]
            if kind in _TYPES:
                name, type_of_kind = _TYPES[kind]
                with suppress(ValueError):
                    numbered = {**fields, "seq": entry.seq, "at": entry.at}
                    getattr(self, name).append(type_of_kind.model_validate(numbered))

    def of_runs(self, runs: Collection[str]) -> "JournalView":
        """Return a view of the entries that some runs appended; see ``set_run``."""
        return JournalView(entry for entry in self.entries if entry.data.get("run") in runs)

    def latest(self) -> dict[str, Reading]:
        """Return the newest reading of each step, in the order of the runbook."""
        newest = {reading.step: reading for reading in self.readings}
        return {step: newest[step] for step in sorted(newest, key=order_of)}

    def list_current(self, now: datetime | None = None) -> dict[str, Reading]:
        """Return the newest reading of each step, without those from before the last change.

        With ``now``, leave out those over ten minutes old, too.
        """
        changed_seq = self.last_applied.seq if self.last_applied else 0
        return {
            step: reading
            for step, reading in self.latest().items()
            if reading.seq > changed_seq and (now is None or reading.observed_at >= now - FRESH)
        }

    @property
    def finish_commands(self) -> tuple[str, ...]:
        """Commands that finish unfinished work, by the readings since the last change."""
        readings = self.list_current().values()
        commands = chain.from_iterable(reading.finish_commands for reading in readings)
        return tuple(dict.fromkeys(commands))

    def find_conclusion(self, section: str) -> Conclusion | None:
        own = [conclusion for conclusion in self.conclusions if conclusion.section == section]
        return own[-1] if own else None

    def find_note(self, step: str) -> str:
        """Return the newest text that a person wrote to a step of the checklist, or ""."""
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
        diagnoses = [conclusion for conclusion in self.conclusions if conclusion.findings]
        return diagnoses[-1] if diagnoses else empty

    def find_mark(self, what: str) -> Mark | None:
        same = [mark for mark in self.marks if mark.what == what]
        return same[-1] if same else None


def order_of(step: str) -> tuple[int, ...]:
    """Return a step's place in the runbook: the numbers of its id."""
    return tuple(int(part) if part.isdigit() else 0 for part in step.split("."))
