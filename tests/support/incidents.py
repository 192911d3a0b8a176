"""Incident folders, made entry by entry of the library's own types."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fulfillment.sections import SECTIONS
from runbook_lib.model import (
    ActionEntry,
    ActionPhase,
    Conclusion,
    Reading,
    Status,
    Verdict,
)
from runbook_lib.record.incident import Incident, create_incident
from runbook_lib.redact import Redactor

START = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
PLAN = "rel-20261124T032010Z-51c0"
SHA256 = "9d5ed678fe57bcca610140957afab571" * 2
STEPS = {i: step for section in SECTIONS.values() for i, step in section.STEPS.items()}


def damage_journal(folder: Path, line: int = 3) -> None:
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b'"at":"2', b'"at":"3', 1)
    path.write_bytes(b"".join(lines))


@dataclass(eq=False)
class Clock:
    at: datetime = START
    step_s: float = 3.0

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=self.step_s)
        return self.at


@dataclass
class Teller:
    incident: Incident
    clock: Clock
    section: str = "02_signals_detection"

    def start(self, section: str, **parameters: Any) -> None:
        self.section = section
        data = {"incident_id": "", "ticket_id": "", "window_minutes": 60, **parameters}
        self.record("section_started", {"parameters": data})

    def record(self, kind: str, data: dict[str, Any]) -> int:
        data = {"section": self.section, **data}
        return self.incident.journal.append(kind, data).seq

    def read(self, step: str, name: str, status: Status | str, **fields: Any) -> Reading:
        reading = Reading(
            step=step,
            name=name,
            role=STEPS[step].role if step in STEPS else None,
            status=Status(status),
            observed_at=self.clock(),
            source=fields.pop("source", "http://127.0.0.1:9090/api/v1/query"),
            **fields,
        )
        self.record("reading", {"reading": reading.model_dump(mode="json")})
        return reading

    def act(self, phase: ActionPhase, **fields: Any) -> None:
        defaults: dict[str, Any] = {
            "step": "6.1",
            "action": "release",
            "target": "74 objects from pending/ to ready/",
            "undo": f"runbook undo {PLAN}",
            "source": f"plans/{PLAN}.jsonl",
        }
        result = {"plan": PLAN, "sha256": SHA256, **fields.pop("result", {})}
        if phase is not ActionPhase.PLANNED:
            defaults["operator"] = "ops@box"
        entry = ActionEntry(phase=phase, **{**defaults, **fields}, result=result)
        self.record("action", {"action": entry.model_dump(mode="json")})

    def conclude(self, verdict: Verdict, summary: str, **fields: Any) -> None:
        done = Conclusion(section=self.section, verdict=verdict, summary=summary, **fields)
        self.record("conclusion", {"conclusion": done.model_dump(mode="json")})


def make_incident(home: Path, *, secrets: tuple[str, ...] = (), **facts: Any) -> Teller:
    clock = Clock()
    incident = create_incident(
        home, redactor=Redactor(secrets), environment="local", clock=clock, **facts
    )
    clock.at = START + timedelta(seconds=clock.step_s)
    return Teller(incident, clock)
