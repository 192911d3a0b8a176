"""What a report says: steps, actions, sections, and what follows from them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..model import (
    ActionEntry,
    ActionPhase,
    Conclusion,
    Finding,
    Json,
    Reading,
    Status,
    Verdict,
    parse_time,
)
from ..record.log import Entry

__all__ = [
    "ActionStory",
    "NotebookRun",
    "SectionStory",
    "StepStory",
    "Story",
    "parse_at",
]


@dataclass(frozen=True, slots=True)
class NotebookRun:
    """How one run of a notebook ended."""

    notebook: str
    status: str
    duration_s: float | None
    error: str
    at: datetime

    @property
    def page(self) -> str:
        """The exported page, from the report's folder; empty when the name is not a file's."""
        name = re.fullmatch(r"([\w-]{1,100})\.ipynb", self.notebook, re.ASCII)
        return f"notebooks/{name[1]}.html" if name else ""


@dataclass(slots=True)
class ActionStory:
    """One action through its phases, each with the journal entry that says so."""

    first: ActionEntry
    phases: list[tuple[Entry, ActionEntry]] = field(default_factory=list)

    @property
    def last(self) -> ActionEntry:
        """The newest phase."""
        return self.phases[-1][1]

    @property
    def is_done(self) -> bool:
        """Whether it changed the world."""
        return any(a.phase is ActionPhase.APPLIED for _, a in self.phases)

    @property
    def is_waiting(self) -> bool:
        """Whether it is planned, and was neither approved nor empty."""
        return self.last.phase is ActionPhase.PLANNED and not self.last.reason and not self.is_empty

    @property
    def is_empty(self) -> bool:
        """Whether the plan has nothing to do."""
        return any(a.result.get("is_empty") is True for _, a in self.phases)

    @property
    def way_back(self) -> str:
        """How to take it back, or that there is no way."""
        told = [self.result(p).get("way_back") for p in ("planned", "applied", "verified")]
        undo = self.first.undo or next((str(text) for text in told if text), "")
        return undo or ("undo" if self.first.reversible else "there is none")

    def result(self, phase: ActionPhase | str) -> dict[str, Json]:
        """What the newest entry of a phase says came of it."""
        found = [a.result for _, a in self.phases if a.phase == phase]
        return found[-1] if found else {}


@dataclass(slots=True)
class StepStory:
    """One statement of the runbook, and everything the journal has of it."""

    id: str
    title: str
    readings: list[tuple[Entry, Reading]] = field(default_factory=list)
    actions: list[ActionStory] = field(default_factory=list)

    @property
    def latest(self) -> Reading | None:
        """The newest reading."""
        return self.readings[-1][1] if self.readings else None

    @property
    def worst(self) -> Reading | None:
        """The breach with the highest value, else the newest unknown, else the newest reading."""
        readings = [r for _, r in self.readings]
        for status in (Status.BREACH, Status.UNKNOWN):
            if found := [r for r in readings if r.status is status]:
                return max(found, key=_amount) if status is Status.BREACH else found[-1]
        return self.latest

    @property
    def status(self) -> str:
        """``ok``, ``breach``, ``unknown``, an action's phase, or ``not run``."""
        if self.actions:  # a reading beside an action only prepares it
            return str(self.actions[-1].last.phase)
        return str(self.readings[-1][1].status) if self.readings else "not run"


@dataclass(slots=True)
class SectionStory:
    """One section of the runbook: its steps, its conclusions, its notebook."""

    name: str
    title: str
    steps: list[StepStory]
    conclusions: list[tuple[Entry, Conclusion]] = field(default_factory=list)
    parameters: list[dict[str, Json]] = field(default_factory=list)
    runs: list[NotebookRun] = field(default_factory=list)


@dataclass(slots=True)
class Story:
    """Everything that a report lays out."""

    incident_id: str
    facts: Mapping[str, Json]
    entries: Sequence[Entry]
    sections: list[SectionStory]
    actions: list[ActionStory]
    notes: list[tuple[Entry, str]]
    drills: list[tuple[Entry, dict[str, Json]]]
    damage: str = ""
    unreadable: list[int] = field(default_factory=list)

    @property
    def steps(self) -> dict[str, StepStory]:
        """Every step by id, in the runbook's order."""
        return {step.id: step for section in self.sections for step in section.steps}

    @property
    def readings(self) -> list[tuple[Entry, Reading]]:
        """Every reading, in the journal's order."""
        found = [pair for step in self.steps.values() for pair in step.readings]
        return sorted(found, key=lambda pair: pair[0].seq)

    @property
    def conclusions(self) -> list[tuple[Entry, Conclusion]]:
        """Every conclusion, in the journal's order."""
        found = [pair for section in self.sections for pair in section.conclusions]
        return sorted(found, key=lambda pair: pair[0].seq)

    @property
    def verdict(self) -> Verdict | None:
        """The folder's own verdict, else that of the newest conclusion about the incident."""
        told = self.facts.get("verdict")
        if told in set(Verdict):
            return Verdict(str(told))
        about = [c for _, c in self.conclusions if c.section[:2] in ("02", "03", "05", "06")]
        return about[-1].verdict if about else None

    @property
    def causes(self) -> list[Finding]:
        """The causes supported by the newest conclusion that supports any."""
        for _, conclusion in reversed(self.conclusions):
            found = [f for f in conclusion.findings if f.status == "supported"]
            if found:
                return sorted(found, key=lambda f: -f.score)
        return []

    @property
    def since(self) -> datetime | None:
        """When it began: the earliest that a breach knows of, else the first breach."""
        times = []
        for entry, reading in self.readings:
            if reading.status is Status.BREACH and reading.step[:2] in ("2.", "3."):
                times.append(reading.since or entry.at)
        return min(times, default=None)

    @property
    def recovered_at(self) -> datetime | None:
        """When 6.5 was ok and stayed so."""
        step = self.steps.get("6.5")
        at = None
        for entry, reading in step.readings if step else []:
            at = (at or entry.at) if reading.status is Status.OK else None
        return at

    @property
    def tickets(self) -> list[str]:
        """Every ticket that the incident or a section's parameters name."""
        named = [self.facts.get("ticket_id")]
        named += [p.get("ticket_id") for s in self.sections for p in s.parameters]
        return list(dict.fromkeys(str(t) for t in named if t))


def _amount(reading: Reading) -> float:
    value = reading.value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else 0.0  # type: ignore[arg-type]


def parse_at(text: Any) -> datetime | None:
    """Parse a time of a journal entry; None when it is none."""
    try:
        return parse_time(text) if isinstance(text, str) else None
    except ValueError:
        return None
