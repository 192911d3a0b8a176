"""What a runbook decides about its incidents: verdict, next step, causes, impact and words.

The helper asks these questions and answers none of them for a particular runbook. ``Policy`` is a
neutral answer to each. A runbook subclasses it, overrides what it knows better, and hands an
instance over in its ``Runbook``. Every answer follows from the journal alone: no clock, no files.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from .model import (
    SYMPTOMS,
    ActionPhase,
    CauseStatus,
    Finding,
    Json,
    Status,
    Verdict,
    format_time,
)
from .record.actions import ActionRecord
from .record.view import FRESH, JournalView


class NextStep(NamedTuple):
    """Where to go from here.

    Attributes
    ----------
    section : name of the section; empty: nowhere in particular
    reason : why, in words
    """

    section: str
    reason: str


class Impact(NamedTuple):
    """How much an incident affected.

    Attributes
    ----------
    affected : number of objects; None where nobody counted
    details : what else is known, each in a few words
    """

    affected: int | None
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = "not counted" if self.affected is None else f"{self.affected:,} affected"
        return "; ".join([count, *self.details])


class Policy:
    """The neutral policy: its verdict follows from the needed readings.

    Parameters
    ----------
    needed : steps without which there is no verdict

    Attributes
    ----------
    impact_heading : stands above the impact in the report
    """

    impact_heading = "Impact"

    def __init__(self, needed: Collection[str] = ()) -> None:
        self._needed = needed

    def compute_verdict(
        self, journal: JournalView, *, after: int = 0, now: datetime | None = None
    ) -> Verdict | None:
        """Return the outcome by the newest readings of symptoms; None before any.

        Parameters
        ----------
        after : only what stands past this entry of the journal counts
        now : readings that are too old at this time count as missing; default: none is too old
        """
        closed = journal.closing_verdict()
        if closed and not after:
            return closed
        symptoms = [r for r in journal.latest().values() if r.role in SYMPTOMS and r.seq > after]
        if not symptoms:
            return None
        applied = journal.last_applied
        if applied is not None:
            # What was read before an action says nothing about what came of it.
            symptoms = [r for r in symptoms if r.seq > applied.seq]
        if now is not None:
            symptoms = [r for r in symptoms if now - r.at <= FRESH]
        statuses = {reading.step: reading.status for reading in symptoms}
        if Status.BREACH in statuses.values():
            return Verdict.NOT_FIXED if applied else Verdict.INCIDENT
        is_missing = any(step not in statuses for step in self._needed)
        if is_missing or not statuses or Status.UNKNOWN in statuses.values():
            return Verdict.UNKNOWN
        return Verdict.FIXED if applied else Verdict.HEALTHY

    def choose_next(self, journal: JournalView, *, now: datetime) -> NextStep:
        """Return where to go from here."""
        verdict = self.compute_verdict(journal, now=now)
        if verdict is None:
            return NextStep("", "Nothing was concluded yet.")
        return NextStep("", f"The verdict is: {verdict.replace('_', ' ')}.")

    def list_causes(self, journal: JournalView) -> list[Finding]:
        """Return why it happened: every cause that was supported, as it was last, highest first."""
        causes = {}
        for conclusion in journal.conclusions:
            for finding in conclusion.findings:
                if finding.status is CauseStatus.SUPPORTED:
                    causes[finding.name] = finding
        return sorted(causes.values(), key=lambda finding: -finding.score)

    def compute_impact(self, journal: JournalView) -> Impact:  # noqa: ARG002
        """Return how much the incident affected."""
        return Impact(None)

    def make_headline(self, verdict: Verdict, causes: Sequence[Finding]) -> str:
        """Return what stands beside the verdict in the report's title: the cause, or its lack."""
        if verdict is Verdict.HEALTHY:
            return "nothing is wrong"
        if causes:
            return say_causes(causes[:2])
        if verdict is Verdict.UNKNOWN:
            return "what a verdict needs could not be read"
        return "the cause is not proven"

    def describe_action(self, action: ActionRecord) -> str:
        """Return what was done, in the past tense; what was only tried, by its name."""
        return f"{action.first.action.replace('_', ' ')}: {clip_target(action.first.target)}"

    def describe_proof(self, action: ActionRecord) -> str:
        """Return what the check after an action found, in a word or two."""
        if action.applied is None:
            return str(action.last.phase)
        if action.last.phase is ActionPhase.FAILED:
            return "the check afterwards failed"
        return "verified" if action.is_verified else "not verified"

    def list_unfinished(
        self,
        action: ActionRecord,  # noqa: ARG002
        actions: Sequence[ActionRecord],  # noqa: ARG002
    ) -> list[str]:
        """Return what an action left to do, each with its command.

        Parameters
        ----------
        actions : every action of the incident: a later one may have done it
        """
        return []


def say_causes(findings: Sequence[Finding]) -> str:
    """Return causes in words."""
    return " and ".join(finding.words or finding.name for finding in findings)


def clip_target(target: str) -> str:
    """Return an action's target, cut off where it is long."""
    return target if len(target) <= 70 else f"{target[:70]}…"


def make_log_entry(policy: Policy, journal: JournalView, *, now: datetime) -> dict[str, Json]:
    """Return what an incident log holds about an incident."""
    since = journal.since()
    verdict = policy.compute_verdict(journal, now=now)
    applied = journal.list_actions(ActionPhase.APPLIED)
    operators = dict.fromkeys(action.operator for action in applied if action.operator)
    causes = policy.list_causes(journal)
    return {
        "since": format_time(since) if since else None,
        "causes": [{"cause": str(cause.name), "why": cause.reason} for cause in causes],
        "affected": str(policy.compute_impact(journal)),
        "by": list(operators),
        "verdict": str(verdict) if verdict else None,
    }
