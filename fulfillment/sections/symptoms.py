"""Whether there is an incident, by the current readings of symptoms in the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runbook_lib.model import Conclusion, Reading, Role
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
        is_after_action = action is None or reading.seq > action.seq
        if step_id in steps and is_after_action and reading.observed_at >= oldest_allowed:
            current[step_id] = reading
    return current


def judge_symptoms(inv: Investigation, steps: Mapping[str, Step]) -> VerdictResult:
    """Say whether there is an incident, by the current readings of some steps.

    The needed steps among them must have been read; where the section reads some of these steps
    itself, only its own must.
    """
    readings = list_current(inv, steps)
    own = inv.section.STEPS.keys() & steps.keys() or steps.keys()
    needed = [step_id for step_id, step in steps.items() if step.needed and step_id in own]
    clear = None
    action = inv.journal.last_applied
    if action is not None and _is_lag_low(inv, readings.values()):
        fix = inv.journal.conclusion(_REMEDY, after=action.seq)
        clear = fix.clear if fix else None
    return compute_symptom_verdict(readings, needed=needed, now=inv.now(), clear=clear)


def _is_lag_low(inv: Investigation, readings: Iterable[Reading]) -> bool:
    limit = inv.settings.lag_threshold_minutes
    lags = [reading.value for reading in readings if reading.role is Role.ALERT]
    return any(isinstance(lag, int | float) and lag <= limit for lag in lags)


def conclude_symptoms(
    inv: Investigation, steps: Mapping[str, Step], remark: str = ""
) -> Conclusion:
    """Draw a section's verdict from symptoms in the journal; ``remark`` is what else it found."""
    verdict, reason = judge_symptoms(inv, steps)
    return Conclusion(verdict=verdict, summary=f"{reason}; {remark}" if remark else reason)
