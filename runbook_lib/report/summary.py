"""An incident for somebody who was not there: first screen, timeline, what is open.

Values from the model alone; the templates show them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from ..model import ActionPhase, CauseStatus, Event, Finding, Role, Verdict
from ..policy import say_causes, say_main_causes
from ..record.actions import ActionRecord
from ..record.detection import Moment, find_detection, list_moments, list_triggers
from ..record.view import JournalView
from ..show.text import VERDICT_WORDS
from .model import ReportModel

#: The statuses of notebooks that did not break off; an interruption has an entry of its own.
_NOT_FAILED = ("done", "stopped_at_plan", "by_hand", "interrupted")
#: Verdicts about what an action achieved.
_OUTCOMES = (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING, Verdict.MITIGATED, Verdict.NOT_FIXED)
#: The tone of the entries that stand in the timeline: of marks by what they say, of a drill's
#: entries by kind and event, of others by kind.
_TOLD = {
    "plan_of_closed": "note",
    "joined": "note",
    "interrupted": "failed",
    "closed": "closed",
    "took_over": "note",
    "drill_started": "drill",
    "drill_injected": "drill",
    "drill_failed": "failed",
    "drill_reverted": "drill",
    "drill_revert_failed": "failed",
}


class Done(NamedTuple):
    """What was carried out or begun; ``proof`` says how far it is proven, ``by`` who approved."""

    text: str
    proof: str
    by: str


class Summary(NamedTuple):
    """What the first screen says beside the values of the model.

    Attributes
    ----------
    headline : the verdict and the cause; for a drill, whether it passed
    trigger : the first change that began the trouble; None: no system tells
    detected : what detected the trouble, and when
    severity : of the last alert that fired, with the alert's name; empty: none fired
    related : ids of incidents that were open at the same time, or belong to the same fault
    """

    headline: str
    trigger: Event | None
    detected: Moment | None
    severity: str
    done: list[Done]
    related: list[str]


class EventRow(NamedTuple):
    """One line of the timeline; ``tone`` is a word that a status pill knows."""

    at: datetime
    tone: str
    text: str
    note: str = ""


class Open(NamedTuple):
    """What is still open, and the ids of the steps that say so."""

    text: str
    steps: tuple[str, ...] = ()


def summarise(model: ReportModel) -> Summary:
    """Return the first screen as values."""
    begun = [action for action in model.tried if action.applied or action.is_cut_off]
    severity = ""
    for reading in model.journal.readings:
        for row in reading.rows if reading.role is Role.ALERT else ():
            if row.get("state") == "firing":
                drill = " (drill)" if row.get("drill") else ""
                severity = f"{row.get('severity')}, by the alert {row.get('alert')}{drill}"
    related = [*model.neighbours, str(model.facts.get("fault_drill") or "")]
    return Summary(
        headline=write_headline(model),
        trigger=next(iter(list_triggers(model.journal)), None),
        detected=find_detection(list_moments(model.journal)),
        severity=severity,
        done=[_describe_done(model, action) for action in begun],
        related=list(dict.fromkeys(filter(None, related))),
    )


def write_headline(model: ReportModel) -> str:
    """Return the report's title: the verdict and the cause; for a drill, whether it passed."""
    if model.has_passed is not None:
        words = say_main_causes(model.causes) or "no cause was found"
        return f"Drill {'passed' if model.has_passed else 'failed'}: {words}"
    if model.verdict is None:
        return "Nothing was concluded yet"
    causes = model.causes
    if not model.is_good:  # a cause may be gone while the trouble lasts
        still = [f.name for f in model.journal.findings() if f.status is CauseStatus.SUPPORTED]
        causes = [cause for cause in causes if cause.name in still]
    words = VERDICT_WORDS[model.verdict].partition(";")[0]
    return f"{words}: {model.policy.make_headline(model.verdict, causes)}"


def _describe_done(model: ReportModel, action: ActionRecord) -> Done:
    """Return what an action did, and how far it is proven; if it changed nothing, how it ended."""
    if action.is_cut_off and not action.is_taken_back:
        proof = action.last.reason or "begun, and not ended"
    elif action.applied is None:
        proof = action.last.reason or action.state
    else:
        proof = model.policy.describe_proof(action)
    return Done(capitalise(model.policy.describe_action(action)), proof, action.approver)


def capitalise(text: str) -> str:
    """Return a text as a sentence begins."""
    return text[:1].upper() + text[1:]


def list_events(model: ReportModel) -> list[EventRow]:
    """Return the timeline, sorted by time. A drill's begins with the drill."""
    rows = sorted(_list_rows(model), key=attrgetter("at"))
    return [row for row in rows if not model.drill or row.at >= model.drill[0].at]


def _list_rows(model: ReportModel) -> Iterator[EventRow]:
    """Yield every row of the timeline, not yet sorted by time."""
    yield from _list_entries(model.journal)
    for event in list_triggers(model.journal):
        yield EventRow(event.at, "trigger", capitalise(event.text), f"as {event.source} says")
    if model.since is not None:
        yield EventRow(model.since, "breach", "First sign of trouble")
        yield from _list_alerts(model, model.since)
    for cause in model.causes:
        yield from _list_cause(model, cause)
    for action in model.tried:
        text, proof, by = _describe_done(model, action)
        note = f"approved by {by}; {proof}" if by else proof
        yield EventRow(action.decisive.at, action.state, text, note)
    if model.until:
        yield EventRow(model.until, "ok", "The last symptom or alert had ended")
    looks = [look for look in model.journal.conclusions if look.verdict in _OUTCOMES]
    for verdict, same in groupby(looks, attrgetter("verdict")):
        look = next(same)
        yield EventRow(look.at, str(verdict), VERDICT_WORDS[verdict], look.summary)


def _list_entries(journal: JournalView) -> Iterator[EventRow]:
    """Yield what marks, drills and people say, and which runs went wrong."""
    for entry in journal.entries:
        kind = str(entry.data.get("what", entry.kind))
        if kind == "drill":
            kind = f"drill_{entry.data.get('event')}"
        if kind in _TOLD:
            text = capitalise(kind.replace("_", " "))
            yield EventRow(entry.at, _TOLD[kind], text, str(entry.data.get("reason") or ""))
    for note in journal.notes:
        if note.is_remark:
            yield EventRow(note.at, "note", f"{note.operator}: {note.text}")
    for run in journal.runs:
        if run.status not in _NOT_FAILED:
            error = run.error.partition("\n")[0]
            yield EventRow(run.at, run.status, f"Notebook {run.notebook}", error)


def _list_alerts(model: ReportModel, since: datetime) -> Iterator[EventRow]:
    """Yield how alerts changed since the trouble began, and which channels were told of it.

    Each look tells of its whole window, so what is repeated is one event.
    """
    events = {}
    for look in model.journal.conclusions:
        for event in look.timeline:
            if event.at >= since and event.kind in ("alert", "notice"):
                events[f"{event.at:%c}", event.text] = event
    ordered = sorted(events.values(), key=attrgetter("kind", "subject", "at"))
    for _, group in groupby(ordered, attrgetter("kind", "subject", "state", "is_end")):
        same = list(group)
        first = same[0]
        text = first.text
        if first.kind == "notice":
            channels = dict.fromkeys(event.channel for event in same)
            text = f"{', '.join(channels)} received: {first.subject}: {first.state}"
        yield EventRow(first.at, first.kind, text)


def _list_cause(model: ReportModel, cause: Finding) -> Iterator[EventRow]:
    """Yield when a cause was first named; and when its first sign was, unless this is a drill."""
    words = say_causes([cause])
    for look in model.journal.conclusions:
        supported = [f for f in look.findings if f.status is CauseStatus.SUPPORTED]
        reasons = [finding.reason for finding in supported if finding.name == cause.name]
        if reasons:
            yield EventRow(look.at, "cause", f"Cause named: {words}", reasons[0])
            break
    if cause.first_seen and not model.drill:
        yield EventRow(cause.first_seen, "cause", f"First sign of the cause: {words}")


def list_open(model: ReportModel) -> Iterator[Open]:
    """Yield damage, what was begun and left something to do, what comes next, and open points.

    Points of the checklist that nobody looked at are open once the trouble is over.
    """
    if model.damage:
        yield Open(model.damage)
    for reading in model.journal.latest().values():
        applied = model.journal.list_actions(ActionPhase.APPLIED, after=reading.seq)
        finished = {str(action.result.get("plan")) for action in applied}
        for command in reading.ways_on:
            if finished.isdisjoint(command.split()):
                yield Open(f"begun, and not finished: {command}", (reading.step,))
    for action in model.tried:
        for text in model.policy.list_unfinished(action):
            yield Open(text, (action.first.step,))
    if model.facts.get("closed_at") and not model.is_good:
        yield Open("closed before all was well")
    elif model.judgement and not model.is_good:
        section, reason = model.judgement.next
        yield Open(f"next, in {section}: {reason}")
    points = model.of(Role.CHECKLIST, Role.CLEARED) if model.is_good else model.of(Role.CHECKLIST)
    for step in points:
        if step.latest and step.latest.status.is_open:
            yield Open(f"{step.title}: {step.latest.reason}", (step.id,))
    unread = [step.id for step in points if not step.latest]
    # ``healthy`` says that there never was a symptom: then no point needs a look.
    # Of a drill's fault, the drill's own incident has the checklist.
    has_no_points = model.verdict is Verdict.HEALTHY or bool(model.facts.get("fault_drill"))
    if unread and model.is_good and not has_no_points:
        yield Open("not run yet:", tuple(unread))
