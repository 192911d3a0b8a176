"""What this runbook says of its incidents: the words of each verdict, and its causes. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from runbook_lib.model import CauseStatus, Role, Status
from runbook_lib.policy import KnownCauses, NextStep, Policy, Score
from runbook_lib.record import folds
from runbook_lib.record.folds import Entry
from runbook_lib.record.view import JournalView

from .analysis.causes import CAUSES, collect_observations, diagnose
from .change import release, service_actions, synthetic
from .quantities import MEANINGS, Quantity
from .sections import SECTIONS

_fix = partial(NextStep, "06_remediation", typed="fix")
_DIAGNOSE = NextStep("05_root_cause", "Find out why.")
_HELP = _fix("Plan what helps.")
#: For each rule of ``folds.judge``, the reason for the verdict, and what to do next.
_RULES = {
    "symptom": ("", _HELP),
    "undiagnosed": ("", _DIAGNOSE),
    "cause": ("a cause stops labels", _HELP),
    "mitigated": ("the symptom is gone, and the cause is still there", _HELP),
    "alert": ("an alert fires", _DIAGNOSE),
    "alert_late": ("the alert should have cleared by now", _DIAGNOSE),
    "stale": (
        "the verdict needs a reading that is missing or too old",
        NextStep("02_signals_detection", "Readings are missing or too old. Read them again."),
    ),
    "missing": ("the verdict needs a reading that is unknown", _DIAGNOSE),
    "unreadable": (
        "the verdict needs a reading that is unknown",
        _fix(
            "Plan what brings the system back, or repair it yourself and read again. If you can't, "
            "`runbook close` ends the incident with this verdict."
        ),
    ),
    "unfinished": (
        "an action was cut off",
        _fix("An action was cut off. Finish it first."),
    ),
    "recovery": (
        "recovery is not proven yet",
        _fix("Recovery takes a minute or two: measure again."),
    ),
    "cause_unknown": (
        "the symptom is gone, but the cause may remain",
        _DIAGNOSE,
    ),
    "unproven": (
        "all is well, but an action is not proven yet",
        NextStep("06_remediation", "An action is not proven yet. Verify it."),
    ),
    "alert_clears": (
        "symptom and cause are gone, and the alert is clearing",
        NextStep("07_postmortem", "It is fixed; the alert is still clearing."),
    ),
    "fixed": (
        "symptom, cause and alert are gone",
        NextStep("07_postmortem", "It is fixed. Write down what was learned."),
    ),
    "calm": (
        "no label waits too long",
        NextStep("08_references", "Nothing waits too long. Check the references if you have time."),
    ),
}
#: What was done, in the past tense, by the action's name.
_DONE = {
    **release.DONE,
    **synthetic.DONE,
    **{name: action.done for name, action in service_actions.SERVICE_ACTIONS.items()},
}


def _judge_causes(journal: JournalView, entries: Sequence[Entry], now: datetime) -> KnownCauses:
    """Judge the causes that stop labels by what was read since the last change.

    A cause that was last read before the last symptom ended may be gone, so it's undecided.
    """
    current = journal.list_current(now).values()
    observations = collect_observations(current)
    known = {finding.name for finding in POLICY.list_causes(journal)}
    causes = {
        finding.name: finding.status
        for finding in diagnose(observations)
        if CAUSES[finding.name].stops_labels
        and (finding.status is CauseStatus.SUPPORTED or finding.name in known)
    }
    read_at = [reading.observed_at for reading in current if reading.role is Role.CAUSE]
    symptom_ends = [
        span.end
        for span in folds.list_spans(entries)
        if span.quantity in (Quantity.LAG, Quantity.UPLOADS)
        and span.status is Status.BREACH
        and span.end is not None
    ]
    is_diagnosed = bool(read_at)
    if CauseStatus.SUPPORTED in causes.values() and symptom_ends:
        is_diagnosed = min(read_at, default=now) >= max(symptom_ends)
    if not is_diagnosed:
        causes = dict.fromkeys(causes, CauseStatus.UNDECIDED)
    return KnownCauses(causes, is_diagnosed)


def _read_score(journal: JournalView) -> Score | None:
    """Return the score that a drill wrote at its end."""
    scored = journal.find_mark("drill_scored")
    if scored is None:
        return None
    facts = scored.facts
    return Score(facts["is_good"], facts["phases"], facts["objectives"])


#: The marks of a drill that the timeline shows.
_MARKS = (
    "drill_started",
    "drill_injected",
    "drill_failed",
    "drill_reverted",
    "drill_revert_failed",
)
_SHOWN = SECTIONS.list_quantities()
POLICY = Policy(
    quantities=replace(
        _SHOWN,
        meanings={**_SHOWN.meanings, **MEANINGS},
        remedies=frozenset({"6.1", "6.1.1", "6.1.2", "6.2"}),
    ),
    rules=_RULES,
    judge_causes=_judge_causes,
    actions=_DONE,
    noun="file",
    request="order",
    read_score=_read_score,
    exercise_word="Drill",
    marks=_MARKS,
    first_step=NextStep("02_signals_detection", "Is there an incident? Read the signals."),
)
