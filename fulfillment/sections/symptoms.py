"""Whether there is an incident, by the current readings of symptoms in the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runbook_lib.model import ClearTime, Conclusion, Reading, Role
from runbook_lib.section import Step

from ..analysis.verdict import MAX_AGE, VerdictResult, compute_symptom_verdict
from ..investigation import Investigation

_REMEDY = "06_remediation"


def list_current(inv: Investigation, steps: Iterable[str]) -> dict[str, Reading]:
    """Return the newest reading of some steps, unless it is over ten minutes old.

    Readings from before the last action are left out: they do not show its effect.
    """
    oldest_allowed = inv.now() - MAX_AGE
    action = inv.journal.last_applied
    current = {}
    for step_id, reading in inv.latest().items():
        if step_id not in steps:
            continue
        is_after_action = action is None or reading.seq > action.seq
        if is_after_action and reading.observed_at >= oldest_allowed:
            current[step_id] = reading
    return current


def judge_symptoms(inv: Investigation, steps: Mapping[str, Step]) -> VerdictResult:
    """Say whether there is an incident, by the current readings of some steps.

    The needed steps among them must have been read. Where the section reads some of these steps
    itself, only its own count.
    """
    readings = list_current(inv, steps)
    own = inv.section.STEPS.keys() & steps.keys()
    if not own:
        own = set(steps)
    needed = []
    for step_id, step in steps.items():
        if step.needed and step_id in own:
            needed.append(step_id)
    return compute_symptom_verdict(
        readings,
        needed=needed,
        now=inv.now(),
        clear=_find_clear_time(inv, readings.values()),
    )


def _find_clear_time(inv: Investigation, readings: Iterable[Reading]) -> ClearTime | None:
    """Return section 6's prediction of when the alert clears, if an action brought the lag down."""
    action = inv.journal.last_applied
    if action is None or not _is_lag_low(inv, readings):
        return None
    fix = inv.journal.conclusion(_REMEDY, after=action.seq)
    return fix.clear if fix else None


def _is_lag_low(inv: Investigation, readings: Iterable[Reading]) -> bool:
    limit = inv.settings.lag_threshold_minutes
    for reading in readings:
        if reading.role is Role.ALERT and isinstance(reading.value, int | float):
            return reading.value <= limit
    return False


def conclude_symptoms(
    inv: Investigation, steps: Mapping[str, Step], remark: str = ""
) -> Conclusion:
    """Draw a section's verdict from symptoms in the journal; ``remark`` is what else it found."""
    verdict, summary = judge_symptoms(inv, steps)
    if remark:
        summary += f"; {remark}"
    return Conclusion(verdict=verdict, summary=summary)
