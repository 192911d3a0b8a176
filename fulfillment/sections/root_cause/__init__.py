"""Section 5: why labels wait, from evidence. Only reads."""

from __future__ import annotations

from collections.abc import Mapping

from runbook_lib.model import CauseStatus, Conclusion, Finding, Reading, Role, Status, Verdict
from runbook_lib.section import ActionStep, SectionParameters, by_id

from ...analysis.advice import Advice, advise
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
STEPS = by_id(
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
ACTIONS: dict[str, ActionStep] = {}
#: Then there is something to do, whether a cause is known or not.
IN_TROUBLE = (Verdict.INCIDENT, Verdict.NOT_FIXED, Verdict.MITIGATED)


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


def judge_causes(inv: Investigation) -> tuple[tuple[Finding, ...], Advice]:
    """Judge every cause on what was read lately, and since the last action; say what helps.

    One that was a cause of this incident and is refuted now is past, unless another took its place
    before anything was changed: then it was an error.
    """
    readings = detection.list_current(inv, STEPS)
    signs = [sign for reading in readings.values() for sign in reading.first_seen.items()]
    first = dict(reversed(signs))  # a process's own state before counters
    seen = collect_observations(readings)
    found = diagnose(CAUSES, seen, first_seen=first)
    supported = {f.name for f in found if f.status is CauseStatus.SUPPORTED}
    advice = advise(
        [cause for cause in CAUSES if cause in supported],
        {name: observation.value for name, observation in seen.items()},
        worker=inv.settings.worker_service,
        dag_id=inv.settings.pipeline_dag_id,
    )
    before = {f.name for f in inv.journal.causes()}
    if supported and inv.journal.last_applied is None:
        before.clear()
    findings = []
    for f in found:
        changes: dict[str, object] = {"next_step": advice.about(f.name)}
        if f.name in before and f.status is CauseStatus.REFUTED:
            changes |= {"status": CauseStatus.PAST, "reason": f"it was, and is not now: {f.reason}"}
        findings.append(f.model_copy(update=changes))
    return tuple(findings), advice


def conclude(inv: Investigation) -> Conclusion:
    """Name the causes that the journal's readings support.

    A supported cause that stops labels is an incident even before one of them waits too long; after
    an action that took the symptom away it is only mitigated.
    """
    readings = detection.list_current(inv, STEPS)
    findings, advice = judge_causes(inv)
    supported = [f for f in findings if f.status is CauseStatus.SUPPORTED]
    symptom, said = detection.judge_symptoms(inv, STEPS)
    verdict = symptom
    odd = [
        r for s, r in readings.items() if STEPS[s].role is Role.CAUSE and r.status is Status.BREACH
    ]
    if any(CAUSES[f.name].stops_labels for f in supported):
        is_gone = symptom in (Verdict.HEALTHY, Verdict.FIXED_ALERT_DECAYING)
        is_better = is_gone and inv.journal.last_applied
        verdict = Verdict.MITIGATED if is_better else Verdict.INCIDENT
    if supported:
        summary = "; ".join(f"{f.name}: {f.reason}" for f in supported)
        if symptom is Verdict.HEALTHY and verdict is Verdict.INCIDENT:
            summary += " (no label waits too long yet)"
    elif odd:
        summary = "none of these; odd is: " + "; ".join(f"{r.step} {r.reason}" for r in odd)
    elif symptom is Verdict.INCIDENT:
        summary = "there is an incident, and why is not known"
    else:
        summary = f"no cause is supported; {said}"
    hints = [f for f in findings if f.status is CauseStatus.UNDECIDED and f.score > 0]
    if hints and not supported and symptom is not Verdict.HEALTHY:
        summary += "; hints: " + ", ".join(f"{f.name} ({f.reason})" for f in hints)
    forecasts = [r.forecast for r in readings.values() if r.forecast]
    return Conclusion(
        verdict=verdict,
        summary=summary,
        findings=findings,
        timeline=build_timeline(inv, findings),
        forecast=forecasts[-1] if forecasts else None,
        advice=advice.words if supported or verdict in IN_TROUBLE else (),
    )
