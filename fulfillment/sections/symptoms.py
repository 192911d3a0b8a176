"""The verdict that a section shows, by the current readings. Reads only the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from runbook_lib.model import SYMPTOMS, Conclusion, Reading, Role, Status, Verdict
from runbook_lib.record.view import say_as_of
from runbook_lib.section import Step

from ..investigation import Investigation

_GOOD_VERDICTS = (Verdict.HEALTHY, Verdict.FIXED)


class Judged(NamedTuple):
    """The verdict of an incident, and in words what it rests on."""

    verdict: Verdict
    reason: str


def list_current(inv: Investigation, steps: Iterable[str]) -> dict[str, Reading]:
    """Return the newest readings of some steps, without those that are too old to count now."""
    current = inv.journal.list_current(inv.now())
    return {step_id: reading for step_id, reading in current.items() if step_id in steps}


def judge_now(inv: Investigation, steps: Mapping[str, Step]) -> Judged:
    """Return the incident's verdict by the current readings; its reason names the evidence's time.

    Without trouble and without a supported cause, the verdict is ``unknown`` if a needed step among
    ``steps`` was not read. If the section itself has some of ``steps``, only its own needed steps
    must have been read.

    Parameters
    ----------
    steps : the reason says when their breaches were observed; without a breach, when their good
        readings were observed, after a fix also those of causes. If the verdict is good in spite of
        a breach, the reason says when the recovery was observed, provided that the recovery's step
        is among ``steps``
    """
    own_steps = inv.section.STEPS.keys() & steps.keys()
    judging = own_steps or steps.keys()
    roles = {steps[step_id].role for step_id in judging if steps[step_id].needed}
    judgement = inv.policy.judge(inv.journal, now=inv.now(), roles=roles)
    if judgement is None:
        return Judged(Verdict.UNKNOWN, "no symptom was read yet")
    current = list_current(inv, steps).values()
    readings = [r for r in current if r.role in SYMPTOMS]
    evidence = [r for r in readings if r.status is Status.BREACH]
    if evidence and judgement.verdict in (*_GOOD_VERDICTS, Verdict.FIXED_ALERT_DECAYING):
        # A breach from before the recovery is no evidence of it.
        evidence = [r for r in current if r.role is Role.RECOVERY] or evidence
    if not evidence:
        evidence = [r for r in readings if r.status is Status.OK]
        if evidence and judgement.verdict in _GOOD_VERDICTS:
            if judgement.verdict is Verdict.FIXED:
                evidence += [r for r in current if r.role is Role.CAUSE and r.status is Status.OK]
            return Judged(judgement.verdict, f"{judgement.reason} ({_say_good_steps(evidence)})")
    if not evidence:
        return Judged(judgement.verdict, judgement.reason)
    return Judged(judgement.verdict, f"{judgement.reason}{say_as_of(evidence)}")


def _say_good_steps(evidence: Iterable[Reading]) -> str:
    """Say which steps were good, and when: those of the same second together."""
    steps_by_time: dict[str, list[str]] = {}
    for reading in evidence:
        steps = steps_by_time.setdefault(f"{reading.observed_at:%H:%M:%S}", [])
        steps.append(reading.step)
    parts = [f"{', '.join(steps)} as of {time} UTC" for time, steps in steps_by_time.items()]
    return "; ".join(parts)


def conclude_symptoms(
    inv: Investigation, steps: Mapping[str, Step], remark: str = ""
) -> Conclusion:
    """Draw a section's conclusion from the symptoms in the journal.

    Parameters
    ----------
    remark : added to the summary; empty: nothing
    """
    verdict, summary = judge_now(inv, steps)
    if remark:
        summary += f"; {remark}"
    return Conclusion(verdict=verdict, summary=summary)


def conclude_without_symptoms(inv: Investigation, verdict: Verdict, summary: str) -> Conclusion:
    """Draw the conclusion of a section that judges no symptom.

    Once trouble was seen, the conclusion has the incident's verdict, not ``verdict``. Otherwise
    section 8 would say *healthy* in the middle of an incident, because its references are right.
    """
    if inv.journal.since() is None:
        return Conclusion(verdict=verdict, summary=summary)
    judgement = inv.policy.judge(inv.journal, now=inv.now())
    if judgement is None:
        return Conclusion(verdict=Verdict.UNKNOWN, summary=f"no symptom was read yet; {summary}")
    return Conclusion(verdict=judgement.verdict, summary=f"{judgement.reason}; {summary}")
