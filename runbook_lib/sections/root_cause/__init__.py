"""Section 5: why labels wait, from evidence. Only reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ...analysis.causes import CAUSES
from ...analysis.evidence import Observation, diagnose
from ...investigation import Investigation
from ...model import Cause, CauseStatus, Conclusion, Finding, Reading, Status, Verdict
from ...section import ActionStep, SectionParameters, Step
from .. import detection, immediate, purpose
from ..symptoms import compute_symptom_verdict
from .checks import read_configuration, read_pipeline, read_room
from .events import build_timeline
from .worker import read_worker

__all__ = [
    "ACTIONS",
    "NAME",
    "SHARED",
    "STEPS",
    "TITLE",
    "Parameters",
    "build_timeline",
    "collect_observations",
    "conclude",
    "find_causes",
]

NAME = "05_root_cause"
TITLE = "Root cause exploration"
#: Steps of sections 1 to 3 that the diagnosis rests on; `take` reuses what is fresh.
SHARED = ("1.4", "2.1", "2.3", "2.5", "2.6", "3.3")


class Parameters(SectionParameters):
    """Parameters of section 5."""


_OWN = (
    Step(
        "5.1",
        "Worker does not move labels, or the carrier times out",
        read_worker,
        "worker API, services, carrier histogram, log",
        name="worker and carrier",
    ),
    Step(
        "5.2",
        "The store is full",
        read_room,
        "failed writes by reason, capacity of the store",
        name="room in the store",
    ),
    Step("5.3", "The pipeline is stopped", read_pipeline, "GET /api/v2/dags", name="pipeline"),
    Step(
        "5.4",
        "Wrong prefix or credentials",
        read_configuration,
        "worker API, effective settings, denied requests",
        name="prefix and credentials",
    ),
)
_ALL = {**purpose.STEPS, **detection.STEPS, **immediate.STEPS}
STEPS: dict[str, Step] = {
    **{step_id: _ALL[step_id] for step_id in SHARED},
    **{step.id: step for step in _OWN},
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
    first: dict[Cause, datetime] = {}
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
    symptom = compute_symptom_verdict(readings)
    grave = [f for f in supported if CAUSES[f.name].stops_labels]
    verdict = Verdict.INCIDENT if grave else symptom
    odd = [r for s, r in readings.items() if s.startswith("5.") and r.status is Status.BREACH]
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
    forecast = readings["5.3"].forecast if "5.3" in readings else None
    return Conclusion(
        section=NAME,
        verdict=verdict,
        summary=summary,
        findings=findings,
        unknown_steps=tuple(
            s for s in STEPS if s not in readings or readings[s].status is Status.UNKNOWN
        ),
        detail=(
            ({"physics": forecast.model_dump()} if forecast else {}) | build_timeline(inv, findings)
        ),
    )
