"""What a verdict promises, written apart from the table that decides it.

Nothing here knows a rule of ``fulfillment.outcome``: only what goes into it and what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator

from fulfillment.outcome import (
    Actions,
    Backlog,
    Before,
    Causes,
    Clear,
    Decision,
    Needed,
    Next,
    Return,
    Situation,
    Uploads,
    Way,
    Worker,
)
from runbook_lib.model import AlertState, Verdict

_ENDED_WELL = (Verdict.HEALTHY, Verdict.FIXED)
_GOOD = (*_ENDED_WELL, Verdict.FIXED_ALERT_DECAYING)
_AFTER_AN_END = (Next.LEARN, Next.REFERENCES, Next.WAIT)


def list_broken(situation: Situation, decision: Decision) -> Iterator[str]:
    """Yield the promises that a decision breaks."""
    verdict = decision.verdict
    alerts = (situation.delay, situation.upload)
    fires = AlertState.FIRING in alerts
    uploads_stop = situation.uploads in (Uploads.FAILING, Uploads.NONE)
    if verdict in _GOOD and situation.needed is not Needed.OK:
        yield "a good verdict rests on needed readings that are ok and of now"
    if verdict is Verdict.HEALTHY and situation.before is not Before.CALM:
        yield "what had trouble is fixed or not, and never just healthy"
    if verdict is Verdict.HEALTHY and situation.causes is Causes.SUPPORTED:
        yield "nothing is healthy while a cause stands that stops labels"
    if verdict in (Verdict.HEALTHY, Verdict.FIXED, Verdict.MITIGATED):
        if set(alerts) != {AlertState.RESOLVED}:
            yield "healthy, fixed and mitigated need every alert resolved"
        if uploads_stop:
            yield "healthy, fixed and mitigated need labels that get into the store"
        if situation.backlog is Backlog.OVERDUE:
            yield "nothing is over while a label waits too long"
    if verdict in (Verdict.FIXED, Verdict.MITIGATED, Verdict.FIXED_ALERT_DECAYING):
        if situation.backlog is not Backlog.USUAL:
            yield "a fix is measured"
        if situation.needed is not Needed.OK:
            yield "a fix rests on readings of now"
    if verdict is Verdict.FIXED_ALERT_DECAYING:
        if situation.clear is not Clear.AHEAD or uploads_stop:
            yield "an alert may clear only until its latest time, while labels get in"
        if not fires:
            yield "what does not fire is not clearing"
    if verdict in (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING):
        if situation.causes is not Causes.GONE:
            yield "a fix took the cause away"
        if situation.actions in (Actions.UNFINISHED, Actions.UNPROVEN):
            yield "a fix is finished and proven"
        if decision.next not in _AFTER_AN_END:
            yield "no repair is offered after a fix"
    if decision.has_until and (
        fires or uploads_stop or verdict in (Verdict.INCIDENT, Verdict.UNKNOWN)
    ):
        yield "an end is not told while an alert fires or nothing gets in"
    if decision.may_close and verdict is not Verdict.FIXED:
        yield "section 7 closes only what is fixed"
    if situation.actions is Actions.UNFINISHED and decision.next is not Next.RESUME:
        yield "what was cut off comes first"
    if decision.next is Next.RESUME and situation.actions is not Actions.UNFINISHED:
        yield "only what was cut off is resumed"
    if decision.next is Next.REPAIR and situation.causes is Causes.UNREAD:
        yield "a repair needs a diagnosis of now"
    is_seen = situation.needed is Needed.BREACH or situation.uploads is Uploads.FAILING or fires
    if is_seen and verdict is Verdict.UNKNOWN and situation.backlog is not Backlog.USUAL:
        yield "trouble that is seen is told"
    if situation.needed is Needed.BREACH and verdict not in (Verdict.INCIDENT, Verdict.NOT_FIXED):
        yield "a breach is an incident, or not fixed"
    was_broken = situation.actions is not Actions.NONE or situation.before is not Before.CALM
    if verdict is Verdict.NOT_FIXED and not was_broken:
        yield "nothing is not fixed that was never broken"
    if not decision.reason:
        yield "every verdict has a reason"


def list_refused(wanted: Way, worker: Worker, returns: Return, way: Way) -> Iterator[str]:
    """Yield the promises that a way of moving labels breaks."""
    if way is Way.RETRIGGER:
        if worker is Worker.ABSENT:
            yield "a worker that is not there is not asked"
        if worker is Worker.PAUSED and returns is Return.STAYS:
            yield "a worker that stays paused is not asked"
    if wanted is Way.NONE and way is not Way.NONE:
        yield "what must not move is not moved"
    if wanted is not Way.NONE and way is Way.NONE:
        yield "what waits has a way out"
