"""Incident folders with a realistic story, made of the library's own types."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fulfillment.sections import SECTIONS
from runbook_lib.model import (
    ActionEntry,
    ActionPhase,
    CauseStatus,
    Conclusion,
    Finding,
    Reading,
    Status,
    Verdict,
    format_time,
)
from runbook_lib.record.incident import Incident, create_incident
from runbook_lib.redact import Redactor

START = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
PLAN = "rel-20261124T032010Z-51c0"
SHA256 = "9d5ed678fe57bcca610140957afab571" * 2
STEPS = {i: step for section in SECTIONS.values() for i, step in section.STEPS.items()}
TICKET = "5f7f3f0e-6f0a-4c57-9f0f-2b8f6c1f7a11"


def damage_journal(folder: Path, line: int = 3) -> None:
    """Alter one line of an incident's journal, as a bad disk or an editor does."""
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b'"at":"2', b'"at":"3', 1)
    path.write_bytes(b"".join(lines))


@dataclass(eq=False)
class Clock:
    """A clock that moves only when told to."""

    at: datetime = START
    step_s: float = 3.0

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=self.step_s)
        return self.at


@dataclass
class Teller:
    """Writes entries as sections do."""

    incident: Incident
    clock: Clock
    section: str = "02_signals_detection"
    text: str = ""
    secrets: list[str] = field(default_factory=list)

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


def make_incident(
    home: Path, *, secrets: tuple[str, ...] = (), at: datetime = START, **facts: Any
) -> Teller:
    """Make an incident in which nothing was read, and whose clock stands at some time."""
    clock = Clock(at)
    incident = create_incident(
        home, redactor=Redactor(secrets), environment="local", clock=clock, **facts
    )
    clock.at = at + timedelta(seconds=clock.step_s)
    return Teller(incident, clock)


def tell_incident(home: Path, *, until: str = "end") -> Teller:
    """Tell a paused pipeline: detected, diagnosed, released, proven, closed.

    ``until="plan"`` stops where a run without approval stops.
    """
    tell = make_incident(home, ticket_id=TICKET)
    began = START - timedelta(minutes=31)
    tell.start("02_signals_detection", ticket_id=TICKET)
    tell.read(
        "2.1",
        "FulfillmentDelay",
        "breach",
        value=27.4,
        unit="minutes",
        threshold="lag over 10 min for 5 min, or the alert fires",
        source="fulfillment_lag_minutes{origin='real'}",
        rows=[{"alert": "FulfillmentDelay", "state": "firing", "severity": "high"}],
        reason="The alert fires since 03:09:11Z; the oldest label waits 27.4 minutes.",
        since=format_time(began),
        alerts={"FulfillmentDelay": "firing", "FulfillmentUploadFailing": "resolved"},
        observations={"lag_is_over": True, "lag_is_low": False, "uploads": "succeeding"},
        plot={
            "title": "Lag of the oldest waiting object",
            "unit": "minutes",
            "threshold": 10,
            "lines": [{"name": "lag", "points": make_ramp(began, 1.0)}],
        },
    )
    tell.read("2.2", "panel", "unknown", reason="Grafana does not answer: refused.")
    tell.read(
        "2.3",
        "backlog objects",
        "breach",
        value=74,
        order_ids=[str(number) for number in range(37)],
        longest_minutes=31.0,
        unit="objects",
        reason="74 objects wait in the listing, 74 in the metric; the oldest since 02:43Z.",
        since=format_time(began),
        plot={
            "title": "Objects waiting, by prefix",
            "unit": "objects",
            "lines": [{"name": "pending/", "points": make_ramp(began, 2.39)}],
            "marks": [[format_time(began + timedelta(minutes=1)), "pipeline paused"]],
        },
    )
    tell.read("2.4", "backlog bytes", "breach", value=4_812_800, unit="bytes")
    tell.read("2.5", "support timeline", "ok", value=4, unit="minutes")
    tell.read("2.6", "synthetic probe", "ok", value="ok", reason="Every step is ok.")
    tell.conclude(
        Verdict.INCIDENT,
        "74 labels wait in pending/, the oldest for 27 minutes; the alert fires.",
    )
    tell.start("03_immediate_actions", ticket_id=TICKET)
    channels = [{"channel": name, "status": "ok"} for name in ("slack", "email", "teams")]
    tell.read("3.1", "alert delivery", "ok", value="slack, email, teams", rows=channels)
    tell.read(
        "3.2",
        "backlog by prefix",
        "breach",
        value=31.2,
        unit="minutes",
        reason="pending/ holds 74 objects; the longest wait is 31 minutes.",
        rows=[{"prefix": "pending/", "objects": 74, "size_bytes": 4_812_800, "oldest": "02:43Z"}],
        plot={
            "kind": "ages",
            "threshold": 10,
            "ages": [(0, 5, 12), (5, 10, 12), (10, 15, 12), (15, 30, 36), (30, None, 2)],
        },
    )
    tell.read("3.3", "store health", "ok", value="live")
    waiting = [{"key": f"pending/{n}-0123456789ab.pdf", "size_bytes": n} for n in range(5)]
    tell.read("3.4", "sample of waiting objects", "ok", value=5, unit="objects", rows=waiting)
    logged = '{"level":"info","msg":"pipeline is paused; nothing is moved"}\n' * 4
    tell.read("3.5", "worker log", "ok", value=0, unit="errors", text=logged)
    tell.conclude(Verdict.INCIDENT, "The store is healthy; the alert reached all three channels.")
    tell.start("05_root_cause")
    tell.read("5.1", "carrier", "ok", value=0.12, unit="seconds")
    tell.read("5.2", "store room", "ok", value=912_000_000, unit="bytes", reason="Writes succeed.")
    tell.read(
        "5.3",
        "pipeline",
        "breach",
        value="paused",
        reason="The DAG is paused since 02:44Z.",
        observations={"dag_paused": True, "dag_failed_runs": 0},
    )
    tell.read("5.4", "prefix and credentials", "ok", value="as configured")
    tell.conclude(
        Verdict.INCIDENT,
        "The pipeline is paused; the worker releases nothing while it is.",
        findings=(
            Finding(
                name="pipeline_paused",
                words="a paused pipeline",
                status=CauseStatus.SUPPORTED,
                evidence=("5.3", "2.3", "#4"),
                reason="The DAG fulfillment_release is paused and the worker says so.",
                next_step="6.2: unpause the pipeline, then 6.1: re-trigger the worker",
            ),
            Finding(name="surge", status=CauseStatus.UNDECIDED, evidence=("2.3",)),
            Finding(name="storage_full", status=CauseStatus.REFUTED, evidence=("5.1",)),
        ),
        advice=("1. 6.2 unpause the pipeline", "2. 6.1 re-trigger the worker"),
    )
    tell.start("06_remediation", plan="", approve="")
    facts = {"objects": 74, "size_bytes": 4_812_800, "excluded": {"incomplete": 2, "synthetic": 0}}
    tell.act(ActionPhase.PLANNED, result=facts)
    tell.read(
        "6.1", "what the plan would change", "ok", value=30.4, unit="min of lag less",
        reason="74 objects wait now, 0 after it; empty: nothing waits",
        columns=["what", "now", "after the plan"],
        rows=[{"what": "objects waiting", "now": 74, "after the plan": 0},
                         {"what": "leave per minute", "now": "unknown",
                          "after the plan": "unknown"}],
    )  # fmt: skip
    if until == "plan":
        tell.record("notebook", {"notebook": "06_remediation.ipynb", "status": "stopped_at_plan",
                                 "duration_s": 2.1, "error": "stopped at the plan"})  # fmt: skip
        return tell
    tell.act(ActionPhase.APPROVED)
    tell.act(ActionPhase.APPLIED, result={"moved": 74, "already": 0, "conflicts": 0, "failed": 0})
    tell.act(
        ActionPhase.VERIFIED,
        reason="Every planned object is in place, byte for byte.",
        result={"in_place": 74, "gone_after_landed": 0, "lost": 0, "duplicated": 0,
                "foreign_changed": 0},
    )  # fmt: skip
    other: dict[str, Any] = {
        "step": "6.2", "action": "unpause", "target": "fulfillment_release", "undo": "",
        "source": "plans/svc-1.jsonl",
    }  # fmt: skip
    for phase in (
        ActionPhase.PLANNED,
        ActionPhase.APPROVED,
        ActionPhase.APPLIED,
        ActionPhase.VERIFIED,
    ):
        tell.act(phase, **other, result={"plan": "svc-1"})
    tell.clock.at += timedelta(minutes=1)
    tell.read(
        "2.1",
        "FulfillmentDelay",
        "ok",
        value=0.4,
        unit="minutes",
        reason="The alert is clear.",
        alerts={"FulfillmentDelay": "resolved", "FulfillmentUploadFailing": "resolved"},
        observations={"lag_is_over": False, "lag_is_low": True, "uploads": "succeeding"},
        well_since=format_time(tell.clock.at - timedelta(seconds=30)),
    )
    tell.read(
        "2.3",
        "backlog objects",
        "ok",
        value=2,
        unit="objects",
        observations={"waiting": "usual"},
    )
    tell.read("3.3", "store health", "ok", value="live")
    tell.read("2.4", "backlog bytes", "ok", value=130_000, unit="bytes")
    tell.read("3.2", "backlog by prefix", "ok", value=0.4, unit="minutes")
    tell.read(
        "5.3",
        "pipeline",
        "ok",
        value="running",
        observations={"dag_paused": False, "dag_failed_runs": 0},
    )
    tell.read("6.5", "lag after the action", "ok", value=0.4, unit="minutes",
              reason="Two samples under 5 minutes, both refreshed after the action.",
              observations={"lag_is_low": True, "waiting": "usual", "uploads": "succeeding"},
              well_since=format_time(tell.clock.at - timedelta(seconds=30)))  # fmt: skip
    tell.conclude(Verdict.FIXED, "Lag is under 5 minutes and the backlog is at its baseline.")
    tell.start("07_postmortem")
    tell.read("7.1", "alert cleared", "ok", reason="resolved at slack, email and teams.")
    tell.read("7.2", "incident log", "ok", reason="time, cause and measures are in the journal.")
    tell.read("7.3", "SOP or automation", "breach", reason="Nobody wrote down what changes.")
    tell.read("7.4", "test or probe", "unknown", reason="No probe watches the pipeline's state.")
    tell.read("7.5", "documents", "ok", reason="The procedure did not change.")
    tell.conclude(
        Verdict.FIXED,
        "Three of five are done.",
        follow_ups=["Alert when the DAG is paused for over 10 minutes.",
                               "Say who may pause the pipeline, and where it is written down."],
    )  # fmt: skip
    tell.record("note", {"text": "The pause came from the planned upgrade; it was not announced."})
    for name in ("02_signals_detection", "03_immediate_actions", "05_root_cause"):
        run = {"notebook": f"{name}.ipynb", "status": "done", "duration_s": 2.4, "error": ""}
        tell.record("notebook", {**run, "section": name})
    return tell


def make_ramp(start: datetime, per_minute: float) -> list[list[Any]]:
    """Return the points of a line that rises for half an hour."""
    return [[format_time(start + timedelta(minutes=n)), n * per_minute] for n in range(31)]
