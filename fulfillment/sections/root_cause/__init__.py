"""Section 5: why labels wait, from evidence. Only reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from runbook_lib.model import CauseStatus, Conclusion, Finding, Reading, Role, Status, Verdict
from runbook_lib.section import ActionStep, SectionParameters, find_unknown

from ...analysis.causes import CAUSES
from ...analysis.evidence import Observation, diagnose
from ...investigation import Investigation
from .. import detection, immediate, purpose
from .steps import read_configuration, read_pipeline, read_room, read_worker
from .timeline import build_timeline

NAME = "05_root_cause"
TITLE = "Root cause exploration"
Parameters = SectionParameters
#: The first six are steps of other sections that the diagnosis rests on.
STEPS = {
    s.id: s
    for s in (
        purpose.read_clocks,
        detection.read_alert,
        detection.read_backlog_objects,
        detection.read_ticket,
        detection.read_probe,
        immediate.read_store_health,
        read_worker,
        read_room,
        read_pipeline,
        read_configuration,
    )
}
ACTIONS: dict[str, ActionStep] = {}


def collect_observations(readings: Mapping[str, Reading]) -> dict[str, Observation]:
    """Return the named observations of the readings, each with its journal entry.

    A known value is never replaced by an unknown one of a later step.
    """
    found: dict[str, Observation] = {}
    for step in STEPS:
        if step not in readings:
            continue
        evidence = f"#{readings[step].seq}" if readings[step].seq else step
        for name, value in readings[step].observations.items():
            if value is not None or name not in found:
                found[name] = Observation(value, evidence)
    return found


def find_causes(readings: Mapping[str, Reading]) -> tuple[Finding, ...]:
    """Judge every cause on the newest readings."""
    first: dict[str, datetime] = {}
    for step in STEPS:
        if step in readings:
            for cause, at in readings[step].first_seen.items():
                first.setdefault(cause, at)  # a process's own state before counters
    return diagnose(CAUSES, collect_observations(readings), first_seen=first)


def conclude(inv: Investigation) -> Conclusion:
    """Name the causes that the journal's readings support.

    A supported cause that stops labels is an incident even before one of them waits too long.
    """
    readings = {s: r for s, r in inv.latest().items() if s in STEPS}
    findings = find_causes(readings)
    supported = [f for f in findings if f.status is CauseStatus.SUPPORTED]
    symptom = detection.compute_symptom_verdict(STEPS, readings)
    grave = [f for f in supported if CAUSES[f.name].stops_labels]
    verdict = Verdict.INCIDENT if grave else symptom
    odd = [
        r for s, r in readings.items() if STEPS[s].role is Role.CAUSE and r.status is Status.BREACH
    ]
    if supported:
        summary = "; ".join(f"{f.name}: {f.reason}" for f in supported)
        if symptom is Verdict.HEALTHY and grave:
            summary += " (no label waits too long yet)"
    elif symptom is Verdict.HEALTHY and not odd:
        summary = "healthy: no cause is supported and no label waits too long"
    elif odd:
        summary = "none of these; odd is: " + "; ".join(f"{r.step} {r.reason}" for r in odd)
    else:
        summary = "no cause is supported; " + (
            "there is an incident, and why is not known"
            if symptom is Verdict.INCIDENT
            else "not all is known"
        )
    hints = [f for f in findings if f.status is CauseStatus.UNDECIDED and f.score > 0]
    if hints and not supported and symptom is not Verdict.HEALTHY:
        summary += "; hints: " + ", ".join(f"{f.name} ({f.reason})" for f in hints)
    forecasts = [r.forecast for r in readings.values() if r.forecast]
    timeline, missing = build_timeline(inv, findings)
    return Conclusion(
        section=NAME,
        verdict=verdict,
        summary=summary,
        findings=findings,
        unknown_steps=find_unknown(STEPS, readings),
        timeline=timeline,
        timeline_without=missing,
        forecast=forecasts[-1] if forecasts else None,
    )
