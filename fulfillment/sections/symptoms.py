"""The verdict that a section shows, by the current readings. Reads only the journal."""

from __future__ import annotations

from collections.abc import Mapping

from runbook_lib.model import Conclusion, Verdict
from runbook_lib.section import Step

from ..investigation import Investigation


def judge_now(inv: Investigation, steps: Mapping[str, Step]) -> tuple[Verdict, str]:
    """Return the incident's verdict by the current readings, and why.

    If the section itself has some of ``steps``, only its own needed steps must have been read.
    """
    own_steps = inv.section.STEPS.keys() & steps.keys()
    judging = own_steps or steps.keys()
    judgement = inv.policy.judge(inv.journal, now=inv.now(), steps=judging)
    return judgement.verdict or Verdict.UNKNOWN, judgement.reason


def conclude_symptoms(
    inv: Investigation, steps: Mapping[str, Step], remark: str = ""
) -> Conclusion:
    """Draw a section's conclusion from the symptoms in the journal; ``remark`` is added to it."""
    verdict, summary = judge_now(inv, steps)
    if remark:
        summary += f"; {remark}"
    return Conclusion(verdict=verdict, summary=summary)


def conclude_without_symptoms(inv: Investigation, verdict: Verdict, summary: str) -> Conclusion:
    """Draw the conclusion of a section that judges no symptom.

    Once trouble was seen, the conclusion has the incident's verdict, not ``verdict``.
    """
    judgement = inv.policy.judge(inv.journal, now=inv.now())
    if judgement.verdict is None or inv.since is None:
        return Conclusion(verdict=verdict, summary=summary)
    return Conclusion(verdict=judgement.verdict, summary=f"{judgement.reason}; {summary}")
