"""An incident for somebody who was not there: first screen, timeline, what is open.

Values from the model alone; the templates show them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple, TypeVar

from ..model import ActionPhase, CauseStatus, Event, Finding, Role, Verdict
from ..policy import Impact, say_causes, say_main_causes
from ..record.actions import ActionRecord, say_cut_off
from ..record.detection import Moment, find_detection, list_moments, list_triggers
from ..show.text import VERDICT_WORDS, count_of
from .model import ReportModel

T = TypeVar("T")

#: The statuses of notebooks that did not break off; an interruption has an entry of its own.
_NOT_FAILED = ("done", "stopped_at_plan", "by_hand", "interrupted")
#: Fields of ``incident.json`` that name another incident.
_RELATED = ("same_as", "previous", "followed_by", "fault_drill", "opened_beside")
#: Verdicts about what an action achieved.
_OUTCOMES = (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING, Verdict.MITIGATED, Verdict.NOT_FIXED)
#: How many notes and failures the timeline shows.
_MOST_MINOR = 12
#: Tone and words of the entries that stand in the timeline, by their kind; of a drill's entries, by
#: their event.
_TOLD = {
    "opened": ("incident", "The incident was opened"),
    "left_to": ("note", "Another incident is open for this trouble"),
    "adopted": ("note", "An alert was taken up as this incident's"),
    "plan_of_closed": ("note", "Somebody asked for a plan of a closed incident"),
    "followed": ("note", "A plan of an earlier incident is carried out here"),
    "continued": ("note", "The trouble of an earlier incident goes on here"),
    "joined": ("note", "Somebody else joined"),
    "interrupted": ("failed", "The run was interrupted"),
    "journal_damaged": ("failed", "The journal before this one is damaged"),
    "closed": ("closed", "Closed"),
    "handed_over": ("note", "The incident before this one was closed"),
    "drill started": ("drill", "The drill begins"),
    "drill injected": ("drill", "The fault is in place"),
    "drill failed": ("failed", "The drill failed"),
    "drill reverted": ("drill", "What is left of the fault is taken back"),
    "drill revert_failed": ("failed", "The fault could not be taken back"),
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
    related : ids of other incidents with the same trouble
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
    related = [str(model.facts.get(name) or "") for name in _RELATED]
    return Summary(
        headline=write_headline(model),
        causes=model.causes,
        trigger=triggers[0] if triggers else None,
        since=model.since,
        until=model.until,
        detected=find_detection(list_moments(model.journal)),
        severity=_find_severity(model),
        affected=model.impact,
        tickets=model.tickets,
        done=[_describe_done(model, action) for action in begun],
        related=list(dict.fromkeys(filter(None, related))),
    )


def write_headline(model: ReportModel) -> str:
    """Return the report's title: the verdict and the cause; for a drill, whether it passed."""
    if model.has_passed:
        return f"Drill passed: {say_main_causes(model.causes) or 'no cause was found'}"
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
        proof = action.last.reason or say_cut_off(action)
    elif action.applied is None:
        proof = action.last.reason or action.state
    else:
        proof = model.policy.describe_proof(action)
    return Done(capitalise(model.policy.describe_action(action)), proof, action.approver)


def capitalise(text: str) -> str:
    """Return a text as a sentence begins."""
    return text[:1].upper() + text[1:]


def list_events(model: ReportModel) -> list[EventRow]:
    """Return the timeline, sorted by time. A drill's begins with the drill.

    Where there are many notes and failures, those in the middle are left out.
    """
    rows = [row for row in _list_rows(model) if row.at >= model.begin]
    minor = [row for row in rows if row.tone in ("note", "failed")]
    minor.sort(key=attrgetter("at"))
    shown = shorten(minor, _MOST_MINOR)
    hidden = [row for row in minor if row not in shown]
    rows = [row for row in rows if row not in hidden]
    if hidden:
        text = f"{count_of(len(hidden), 'more row')}: see everything below"
        rows.append(EventRow(hidden[0].at, "note", text))
    return sorted(rows, key=attrgetter("at"))


def _list_rows(model: ReportModel) -> Iterator[EventRow]:
    """Yield every row of the timeline, not yet sorted by time."""
    yield from _list_entries(model)
    for event in list_triggers(model.journal):
        yield EventRow(event.at, "trigger", capitalise(event.text), f"as {event.source} says")
    if model.since is not None:
        yield EventRow(model.since, "breach", "First sign of trouble")
        yield from _list_alerts(_list_recent(model))
        yield from _list_notices(_list_recent(model))
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
        kind = f"drill {entry.data.get('event')}" if entry.kind == "drill" else entry.kind
        if kind in _TOLD:
            tone, text = _TOLD[kind]
            yield EventRow(entry.at, tone, text, str(entry.data.get("reason") or ""))
    for note in model.journal.notes:
        if note.is_remark:
            yield EventRow(note.at, "note", f"{note.operator}: {note.text}")
    for run in model.journal.runs:
        error = run.error.partition("\n")[0]
        if run.is_typo:
            text = "Something was mistyped; nothing was changed"
            yield EventRow(run.at, "note", text, error)
        elif run.status not in _NOT_FAILED:
            yield EventRow(run.at, "failed", f"Notebook {run.notebook}: {run.status}", error)


def _list_alerts(events: Sequence[Event]) -> Iterator[EventRow]:
    """Yield when an alert fired, and when it no longer did."""
    ended: dict[str, bool] = {}
    for event in events:
        is_state = event.kind == "alert" and event.state == "firing"
        # A repeated state is no change: the samples of another look begin there.
        if is_state and ended.get(event.subject) is not event.is_end:
            ended[event.subject] = event.is_end
            yield EventRow(event.at, "alert", event.text)


def _list_notices(events: Sequence[Event]) -> Iterator[EventRow]:
    """Yield each notice with its channels; a notice that a channel got again has a new row."""
    newest: dict[str, list[Event]] = {}
    groups = []
    for event in events:
        if event.kind != "notice":
            continue
        notice = f"{event.subject}: {event.state}"
        group = newest.get(notice)
        if group is None or event.channel in [other.channel for other in group]:
            group = []
            newest[notice] = group
            groups.append((notice, group))
        group.append(event)
    for notice, group in groups:
        names = ", ".join(event.channel for event in group)
        yield EventRow(group[0].at, "notice", f"{names} received: {notice}")


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


def _list_recent(model: ReportModel) -> list[Event]:
    """Return the events of alerts and channels since the trouble began, by time, each once.

    What an alert did before that belongs to other incidents.
    """
    events: dict[tuple[str | bool, ...], Event] = {}
    for look in model.journal.conclusions:
        for event in look.timeline:
            # To the second: each look tells of its whole window.
            key = (f"{event.at:%c}", event.kind, event.subject, event.state, event.is_end)
            if model.since and event.at >= model.since:
                events[*key, event.channel] = event
    return sorted(events.values(), key=attrgetter("at"))


def list_open(model: ReportModel) -> list[Open]:
    """Return what is still open."""
    points = [*_list_open_runs(model), *_list_open_actions(model), *_list_open_points(model)]
    if not model.facts.get("closed_at"):
        return points
    # An earlier message may name a command on this incident: closed, it would be refused.
    own = f" --incident {model.incident_id}"
    return [point._replace(text=point.text.replace(own, "")) for point in points]


def _list_open_runs(model: ReportModel) -> Iterator[Open]:
    """Yield what is wrong with the journal itself, and which runs failed."""
    if model.damage:
        yield Open(model.damage)
    if model.journal.unreadable:
        yield Open(
            f"{count_of(len(model.journal.unreadable), 'line')} of the journal can't be read"
        )
    for section in model.sections.values():
        run = section.runs[-1].entry if section.runs else None
        if run and run.status not in _NOT_FAILED and not run.is_typo:
            yield Open(f"notebook {run.notebook} ended as {run.status}: {run.error}")


def _list_open_actions(model: ReportModel) -> Iterator[Open]:
    """Yield plans that wait, and actions that failed, were refused or left something to do."""
    commands = ""
    for reading in model.journal.latest().values():
        applied = model.journal.list_actions(ActionPhase.APPLIED, after=reading.seq)
        finished = {str(action.result.get("plan")) for action in applied}
        for command in reading.ways_on:
            if finished.isdisjoint(command.split()):
                commands += f" {command} "
                yield Open(f"begun, and not finished: {command}", (reading.step,))
    for action in model.waiting:
        entry = action.first
        text = f"{entry.action} on {entry.target} is planned and waits for approval"
        yield Open(text, (entry.step,))
    newest = {action.first.step: action for action in model.tried}
    for action in model.tried:
        last = action.last
        is_newest = newest[last.step] is action and f" {action.plan} " not in commands
        is_refused = last.phase is ActionPhase.REFUSED and not model.is_good
        if is_newest and (is_refused or action.state == ActionPhase.FAILED):
            yield Open(f"{last.action} {last.phase}: {last.reason}", (last.step,))
        for text in model.policy.list_unfinished(action, model.tried):
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
