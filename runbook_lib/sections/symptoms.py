"""The verdict on the symptoms, shared by the sections that read them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from ..investigation import Investigation
from ..model import Conclusion, Reading, Status, Verdict

__all__ = ["NEEDED", "SYMPTOMS", "compute_symptom_verdict", "conclude_symptoms", "describe"]

SYMPTOMS = ("2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "3.3")
NEEDED = ("2.1", "2.3", "3.3")


def compute_symptom_verdict(
    readings: Mapping[str, Reading], *, needed: Collection[str] = NEEDED
) -> Verdict:
    """Compute the verdict: one breach is an incident, whatever else is unknown.

    A needed step without a reading is unknown.
    """
    if any(_has(readings, s, Status.BREACH) for s in SYMPTOMS):
        return Verdict.INCIDENT
    if any(_is_unknown(readings, s) for s in needed):
        return Verdict.UNKNOWN
    return Verdict.HEALTHY


def conclude_symptoms(inv: Investigation, *, shared_max_age_s: float = 0) -> Conclusion:
    """Draw a section's verdict from the symptoms in the journal.

    Parameters
    ----------
    shared_max_age_s : how old another section's reading may be to be counted too, in seconds
    """
    since = inv.now() - timedelta(seconds=shared_max_age_s)
    own = inv.section.STEPS
    readings = {s: r for s, r in inv.latest().items() if s in own or r.observed_at >= since}
    needed = [s for s in own if own[s].needed]
    verdict = compute_symptom_verdict(readings, needed=needed)
    if verdict is Verdict.INCIDENT:
        breaches = {s: readings[s] for s in SYMPTOMS if _has(readings, s, Status.BREACH)}
        if "2.3" in breaches:
            breaches.pop("2.4", None)  # the same objects, in bytes
        summary = "; ".join(map(describe, breaches.values()))
    elif verdict is Verdict.UNKNOWN:
        missing = ", ".join(s for s in needed if _is_unknown(readings, s))
        summary = f"cannot tell: {missing} could not be read"
    else:
        seen = ", ".join(s for s in own if not _is_unknown(readings, s))
        summary = f"no sign of stuck labels in {seen}"
    return Conclusion(
        section=inv.section.NAME,
        verdict=verdict,
        summary=summary,
        unknown_steps=tuple(s for s in own if _is_unknown(readings, s)),
    )


def describe(reading: Reading) -> str:
    """Say a reading in one line."""
    return reading.reason or f"{reading.name}: {reading.value}"


def _has(readings: Mapping[str, Reading], step: str, status: Status) -> bool:
    return step in readings and readings[step].status is status


def _is_unknown(readings: Mapping[str, Reading], step: str) -> bool:
    return step not in readings or readings[step].status is Status.UNKNOWN
