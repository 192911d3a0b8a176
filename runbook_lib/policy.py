"""What a runbook decides about its incidents: verdict, next step, causes, impact and words.

This package asks these questions and answers none of them for a particular runbook. ``Policy`` is a
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
    Role,
    Status,
    Verdict,
    format_time,
)
from .record.actions import ActionRecord
from .record.detection import list_moments, list_triggers
from .record.view import JournalView


class NextStep(NamedTuple):
    """Where to go from here.

    Attributes
    ----------
    section : name of the section; empty: nowhere in particular
    reason : why, in words
    """

    section: str
    reason: str


class Judgement(NamedTuple):
    """What to say of an incident at one time.

    Attributes
    ----------
    reason : why, in words
    next : where to go from here
    since, until : when the trouble began, and the time of the first sample after which all stayed
        well; None: not known, or there is no such time
    """

    verdict: Verdict
    reason: str
    next: NextStep
    since: datetime | None = None
    until: datetime | None = None


class Impact(NamedTuple):
    """How much an incident affected.

    Attributes
    ----------
    affected : number of objects; None when no reading counted them
    details : what else is known, each in a few words
    """

    affected: int | None
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        count = "not counted" if self.affected is None else f"{self.affected:,} affected"
        return "; ".join([count, *self.details])


class Policy:
    """The neutral policy: its verdict follows from the readings of symptoms.

    Parameters
    ----------
    needed : ids of the steps that must be read before a verdict can say that all is well

    Attributes
    ----------
    impact_heading : stands above the impact in the report
    healthy_words : stands beside the verdict *healthy*
    first_step : where to go before anything was read
    """

    impact_heading = "Impact"
    healthy_words = "nothing is wrong"
    first_step = NextStep("", "Nothing was read yet.")

    def __init__(self, needed: Collection[str] = ()) -> None:
        self._needed = needed

    def judge(
        self,
        journal: JournalView,
        *,
        now: datetime | None = None,
        roles: Collection[Role] | None = None,  # noqa: ARG002 - other policies heed it
    ) -> Judgement | None:
        """Return what the newest readings of symptoms say; None before any symptom was read.

        A closed incident keeps the verdict that it was closed with.

        Parameters
        ----------
        now : the time at which a reading must be current; default: the time of the newest reading
            or action
        roles : only needed readings of these roles must be there; None: all that are needed. The
            neutral policy ignores this, and needs all
        """
        verdict = journal.closing_verdict()
        verdict = verdict or self._judge_symptoms(journal, now or journal.last_look_at)
        if verdict is None:
            return None
        words = verdict.replace("_", " ")
        steps = {reading.step for reading in journal.readings if reading.role in SYMPTOMS}
        return Judgement(
            verdict=verdict,
            reason=f"the newest readings say {words}",
            next=NextStep("", f"The verdict is: {words}."),
            since=journal.since(),
            until=journal.ok_since(steps) if verdict is Verdict.FIXED else None,
        )

    def _judge_symptoms(self, journal: JournalView, now: datetime | None) -> Verdict | None:
        """Return the verdict that current readings of symptoms give; None if none was ever read."""
        if now is None or not any(reading.role in SYMPTOMS for reading in journal.readings):
            return None
        current = journal.list_current(now)
        statuses = {step: r.status for step, r in current.items() if r.role in SYMPTOMS}
        is_changed = journal.last_applied is not None
        if Status.BREACH in statuses.values():
            return Verdict.NOT_FIXED if is_changed else Verdict.INCIDENT
        is_missing = any(step not in statuses for step in self._needed)
        if is_missing or not statuses or Status.UNKNOWN in statuses.values():
            return Verdict.UNKNOWN
        if is_changed or journal.breaches(SYMPTOMS):
            return Verdict.FIXED
        return Verdict.HEALTHY

    def compute_verdict(
        self, journal: JournalView, *, now: datetime | None = None
    ) -> Verdict | None:
        """Return only the verdict that ``judge`` gives."""
        judgement = self.judge(journal, now=now)
        return None if judgement is None else judgement.verdict

    def list_causes(self, journal: JournalView) -> list[Finding]:
        """Return why the incident happened: for each cause, the last finding that supports it."""
        causes = {}
        for conclusion in journal.conclusions:
            for finding in conclusion.findings:
                if finding.status is CauseStatus.SUPPORTED:
                    causes[finding.name] = finding
        return list(causes.values())

    def list_advice(self, journal: JournalView, *, now: datetime) -> tuple[str, ...]:
        """Return what helps, by the newest diagnosis; empty when that is too old."""
        return journal.advice(now)

    def compute_impact(self, journal: JournalView) -> Impact:
        """Return how much the incident affected: the highest number of objects that waited."""
        backlogs = [reading.value for reading in journal.readings if reading.role is Role.BACKLOG]
        counts = [int(value) for value in backlogs if isinstance(value, int | float)]
        return Impact(max(counts, default=None))

    def make_headline(self, verdict: Verdict, causes: Sequence[Finding]) -> str:
        """Return what stands beside the verdict in the report's title, such as the causes."""
        if verdict is Verdict.HEALTHY:
            return self.healthy_words
        if causes:
            return say_main_causes(causes)
        if verdict is Verdict.UNKNOWN:
            return "what a verdict needs is not known"
        return "no cause is proven now"

    def describe_action(self, action: ActionRecord) -> str:
        """Return what was done, in words: the action's name and its target.

        A runbook that overrides this says in the past tense what was done.
        """
        return f"{action.first.action.replace('_', ' ')}: {clip_target(action.first.target)}"

    def describe_proof(self, action: ActionRecord) -> str:
        """Return what the check after an action found, in a few words.

        For an action that was never applied, or that a later action changed, return its state.
        """
        if action.applied is None:
            return action.state
        if action.state not in tuple(ActionPhase):  # such as "taken back"
            return action.state
        if action.last.phase is ActionPhase.FAILED:
            return "the check afterwards failed"
        return "verified" if action.is_verified else "not verified"

    def list_unfinished(self, _action: ActionRecord) -> list[str]:
        """Return what an action left to do, each with its command; the neutral policy: nothing."""
        return []


def say_causes(findings: Sequence[Finding]) -> str:
    """Return causes in words."""
    return " and ".join(finding.words or finding.name for finding in findings)


def say_main_causes(findings: Sequence[Finding]) -> str:
    """Return the first two causes in words, and how many others there are."""
    words = say_causes(findings[:2])
    others = len(findings) - 2
    if others < 1:
        return words
    noun = "cause" if others == 1 else "causes"
    return f"{words}, and {others} other {noun}"


def clip_target(target: str) -> str:
    """Return an action's target, cut to 70 characters."""
    return target if len(target) <= 70 else f"{target[:70]}…"


def make_log_entry(policy: Policy, journal: JournalView, *, now: datetime) -> dict[str, Json]:
    """Return an incident's entry for the incident log: times as text, causes with their reasons."""
    since = journal.since()
    judgement = policy.judge(journal, now=now)
    verdict = judgement.verdict if judgement else None
    until = judgement.until if judgement else None
    applied = journal.list_actions(ActionPhase.APPLIED)
    operators = dict.fromkeys(action.operator for action in applied if action.operator)
    causes = policy.list_causes(journal)
    return {
        "since": format_time(since) if since else None,
        "until": format_time(until) if until else None,
        "causes": [{"cause": str(cause.name), "why": cause.reason} for cause in causes],
        "affected": str(policy.compute_impact(journal)),
        "trigger": [f"{format_time(event.at)} {event.text}" for event in list_triggers(journal)],
        "detected": {moment.name: format_time(moment.at) for moment in list_moments(journal)},
        "by": list(operators),
        "verdict": str(verdict) if verdict else None,
    }
