"""An incident for somebody who was not there: first screen, timeline, what is open.

Values from the model alone; the templates show them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple, TypeVar

from ..model import ActionPhase, CauseStatus, Event, Finding, Role, Verdict
from ..policy import Impact, say_causes
from ..record.actions import ActionRecord
from ..record.detection import Moment, find_detection, list_moments, list_triggers
from ..show.text import VERDICT_WORDS, count_of
from .model import ReportModel

T = TypeVar("T")

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
    """The first screen.

    Attributes
    ----------
    headline : the verdict and the cause; for a drill, whether it passed
    trigger : the first change that began the trouble; None: no system tells
    since, until : of the trouble
    detected : what detected the trouble, and when
    severity : of a firing alert, with the alert's name; empty: none fired
    related : ids of incidents that were open at the same time, or belong to the same fault
    """

    headline: str
    causes: list[Finding]
    trigger: Event | None
    since: datetime | None
    until: datetime | None
    detected: Moment | None
    severity: str
    affected: Impact
    tickets: list[str]
    done: list[Done]
    related: list[str]


class EventRow(NamedTuple):
    """One line of the timeline.

    Attributes
    ----------
    tone : a word that a status pill knows
    """

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
    triggers = list_triggers(model.journal)
    begun = [action for action in model.tried if action.applied or action.is_cut_off]
    related = [*model.neighbours, str(model.facts.get("fault_drill") or "")]
    return Summary(
        headline=write_headline(model),
        causes=model.causes,
        trigger=triggers[0] if triggers else None,
        since=model.since,
        until=model.until,
        detected=find_detection(list_moments(model.journal, model.ends)),
        severity=_find_severity(model),
        affected=model.impact,
        tickets=model.tickets,
        done=[_describe_done(model, action) for action in begun],
        related=list(dict.fromkeys(filter(None, related))),
    )


def write_headline(model: ReportModel) -> str:
    """Return the report's title: the verdict and the cause; for a drill, whether it passed."""
    if model.has_passed:
        return f"Drill passed: {say_causes(model.causes) or 'no cause was found'}"
    if model.objectives:
        missed = [objective for objective in model.objectives if objective.get("met") is not True]
        if not missed:
            return "Drill failed: it broke off"
        return f"Drill failed: {len(missed)} of {len(model.objectives)} objectives missed"
    if model.verdict is None:
        return "Nothing was concluded yet"
    causes = model.causes
    if not model.is_good:  # a cause may be gone while the trouble lasts
        still = [f.name for f in model.journal.findings() if f.status is CauseStatus.SUPPORTED]
        causes = [cause for cause in causes if cause.name in still]
    words = VERDICT_WORDS[model.verdict].partition(";")[0]
    headline = f"{words}: {model.policy.make_headline(model.verdict, causes)}"
    return f"{headline}, from a drill's fault" if model.facts.get("fault_drill") else headline


def _find_severity(model: ReportModel) -> str:
    """Return the severity and the name of the last alert that a look saw fire."""
    severity = ""
    for reading in model.journal.readings:
        firing = [row for row in reading.rows if row.get("state") == "firing"]
        for row in firing if reading.role is Role.ALERT else ():
            drill = " (drill)" if row.get("drill") else ""
            severity = f"{row.get('severity')}, by the alert {row.get('alert')}{drill}"
    return severity


def _describe_done(model: ReportModel, action: ActionRecord) -> Done:
    """Return what an action did, and how far it is proven; if it changed nothing, how it ended."""
    if action.is_cut_off:
        how_far = action.state if action.is_taken_back else "begun, and not ended"
        proof = action.last.reason or how_far
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
    rows = [row for row in _list_rows(model) if row.at >= model.begin]
    return sorted(rows, key=attrgetter("at"))


def _list_rows(model: ReportModel) -> Iterator[EventRow]:
    """Yield every row of the timeline, not yet sorted by time."""
    yield from _list_entries(model)
    for event in list_triggers(model.journal):
        yield EventRow(event.at, "trigger", capitalise(event.text), f"as {event.source} says")
    if model.since is not None:
        yield EventRow(model.since, "breach", "First sign of trouble")
        yield from _list_alerts(model)
    for cause in model.causes:
        yield from _list_cause(model, cause)
    for action in model.tried:
        text, proof, by = _describe_done(model, action)
        note = f"approved by {by}; {proof}" if by else proof
        yield EventRow(action.decisive.at, action.state, text, note)
    if model.until:
        yield EventRow(model.until, "ok", "The last symptom or alert had ended")
    before = None
    for look in model.journal.conclusions:
        if look.verdict in _OUTCOMES and look.verdict is not before:
            before = look.verdict
            words = VERDICT_WORDS[look.verdict]
            yield EventRow(look.at, str(look.verdict), words, look.summary)


def _list_entries(model: ReportModel) -> Iterator[EventRow]:
    """Yield a row for each entry in ``_TOLD``, each remark, and each run that went wrong."""
    for entry in model.journal.entries:
        kind = str(entry.data.get("what", entry.kind))
        if kind == "drill":
            kind = f"drill_{entry.data.get('event')}"
        if kind in _TOLD:
            text = capitalise(kind.replace("_", " "))
            yield EventRow(entry.at, _TOLD[kind], text, str(entry.data.get("reason") or ""))
    for note in model.journal.notes:
        if note.is_remark:
            yield EventRow(note.at, "note", f"{note.operator}: {note.text}")
    for run in model.journal.runs:
        if run.status not in _NOT_FAILED:
            error = run.error.partition("\n")[0]
            yield EventRow(run.at, run.status, f"Notebook {run.notebook}", error)


def _list_alerts(model: ReportModel) -> Iterator[EventRow]:
    """Yield what alerts did since the trouble began, and which channels were told of it.

    What an alert did before that belongs to other incidents. Each look tells of its whole window: a
    state that is repeated is no change, but a channel that is told again is.
    """
    events: dict[tuple[str, str, str], Event] = {}
    for look in model.journal.conclusions:
        for event in look.timeline:
            if model.since and event.at >= model.since and event.kind in ("alert", "notice"):
                events[f"{event.at:%c}", event.text, event.channel] = event
    newest: dict[tuple[str, str], list[Event]] = {}
    groups: list[list[Event]] = []
    for event in sorted(events.values(), key=attrgetter("at")):
        group = newest.get((event.kind, event.subject), [])
        is_same = bool(group) and group[0].state == event.state and group[0].is_end == event.is_end
        if is_same and event.kind == "alert":
            continue
        if not is_same or event.channel in [other.channel for other in group]:
            group = []
            groups.append(group)
            newest[event.kind, event.subject] = group
        group.append(event)
    for group in groups:
        first = group[0]
        text = first.text
        if first.kind == "notice":
            names = ", ".join(event.channel for event in group)
            text = f"{names} received: {first.subject}: {first.state}"
        yield EventRow(first.at, first.kind, text)


def _list_cause(model: ReportModel, cause: Finding) -> Iterator[EventRow]:
    """Yield when a cause was first named; and when its first sign was, unless this is a drill."""
    words = say_causes([cause])
    for look in model.journal.conclusions:
        reasons = [
            finding.reason
            for finding in look.findings
            if finding.name == cause.name and finding.status is CauseStatus.SUPPORTED
        ]
        if reasons:
            yield EventRow(look.at, "cause", f"Cause named: {words}", reasons[0])
            break
    if cause.first_seen and not model.drill:
        yield EventRow(cause.first_seen, "cause", f"First sign of the cause: {words}")


def list_open(model: ReportModel) -> list[Open]:
    """Return what is still open."""
    return [*_list_unfinished(model), *_list_open_points(model)]


def _list_unfinished(model: ReportModel) -> Iterator[Open]:
    """Yield what is wrong with the journal itself, and what was begun and left something to do."""
    if model.damage:
        yield Open(model.damage)
    if model.journal.unreadable:
        lines = count_of(len(model.journal.unreadable), "line")
        yield Open(f"{lines} of the journal can't be read")
    for reading in model.journal.latest().values():
        applied = model.journal.list_actions(ActionPhase.APPLIED, after=reading.seq)
        finished = {str(action.result.get("plan")) for action in applied}
        for command in reading.ways_on:
            if finished.isdisjoint(command.split()):
                yield Open(f"begun, and not finished: {command}", (reading.step,))
    for action in model.tried:
        for text in model.policy.list_unfinished(action):
            yield Open(text, (action.first.step,))


def _list_open_points(model: ReportModel) -> Iterator[Open]:
    """Yield what comes next, and the points of the checklist that are not ticked.

    Points that nobody looked at are open once the trouble is over.
    """
    roles = {Role.CHECKLIST}
    if model.is_good:
        roles.add(Role.CLEARED)
    elif model.facts.get("closed_at"):
        yield Open("closed before all was well")
    elif model.judgement is not None:
        section, reason = model.judgement.next
        yield Open(f"next, in {section}: {reason}")
    points = model.of(*roles)
    for step in points:
        if step.latest and step.latest.status.is_open:
            yield Open(f"{step.title}: {step.latest.reason}", (step.id,))
    unread = [step.id for step in points if step.status == "not run"]
    # ``healthy`` says that there never was a symptom: then no point needs a look.
    # Of a drill's fault, the drill's own incident has the checklist.
    has_own_points = model.verdict is not Verdict.HEALTHY and not model.facts.get("fault_drill")
    if unread and model.is_good and has_own_points:
        yield Open("not run yet:", tuple(unread))


def shorten(items: Sequence[T], limit: int) -> list[T]:
    """Return the items; where they are more than ``limit``, only the first and the last ones."""
    if len(items) <= limit:
        return list(items)
    last = limit // 2
    return [*items[: limit - last], *items[len(items) - last :]]
