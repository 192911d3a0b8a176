"""What the current readings say of the incident, as a section puts it. From the journal alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from runbook_lib.model import SYMPTOMS, Conclusion, Reading, Status, Verdict
from runbook_lib.section import Step

from ..investigation import Investigation

_GOOD = (Verdict.HEALTHY, Verdict.FIXED)


class Judged(NamedTuple):
    """The verdict, and in words what it rests on."""

    verdict: Verdict
    reason: str


def list_current(inv: Investigation, steps: Iterable[str]) -> dict[str, Reading]:
    """Return the newest readings of some steps that speak of now."""
    current = inv.journal.list_current(inv.now())
    return {step_id: reading for step_id, reading in current.items() if step_id in steps}


def judge_now(inv: Investigation, steps: Mapping[str, Step]) -> Judged:
    """Return the incident's verdict by the current readings, and the time of the oldest of them.

    The needed ones among some steps must have been read. If the section reads some of these steps
    itself, only those must have been.

    Parameters
    ----------
    steps : the words name their readings
    """
    own = (inv.section.STEPS.keys() & steps.keys()) or steps.keys()
    roles = {steps[step_id].role for step_id in own if steps[step_id].needed}
    judgement = inv.policy.judge(inv.journal, now=inv.now(), roles=roles)
    if judgement is None:
        return Judged(Verdict.UNKNOWN, "no symptom was read yet")
    readings = [r for r in list_current(inv, steps).values() if r.role in SYMPTOMS]
    shown = [r for r in readings if r.status is Status.BREACH]
    steps_shown = ""
    if not shown:
        shown = [r for r in readings if r.status is Status.OK]
        if judgement.verdict in _GOOD:
            steps_shown = "".join(f"{reading.step}, " for reading in shown)
    oldest = min((reading.observed_at for reading in shown), default=None)
    if oldest is None:
        return Judged(judgement.verdict, judgement.reason)
    as_of = f"({steps_shown}as of {oldest:%H:%M:%S} UTC)"
    return Judged(judgement.verdict, f"{judgement.reason} {as_of}")


def conclude_symptoms(
    inv: Investigation, steps: Mapping[str, Step], remark: str = ""
) -> Conclusion:
    """Draw a section's verdict from symptoms in the journal; ``remark`` is what else it saw."""
    verdict, summary = judge_now(inv, steps)
    if remark:
        summary += f"; {remark}"
    return Conclusion(verdict=verdict, summary=summary)


def conclude_beside(inv: Investigation, verdict: Verdict, summary: str) -> Conclusion:
    """Draw the conclusion of a section that judges no symptom.

    While an incident is open, its verdict is the incident's: nobody reads *healthy* beside trouble.
    """
    if not inv.incident.is_open:
        return Conclusion(verdict=verdict, summary=summary)
    judgement = inv.policy.judge(inv.journal, now=inv.now())
    if judgement is None:
        return Conclusion(verdict=Verdict.UNKNOWN, summary=f"no symptom was read yet; {summary}")
    return Conclusion(verdict=judgement.verdict, summary=f"{judgement.reason}; {summary}")
