"""An incident for somebody who was not there: first screen, timeline, what is open.

From the model alone: no HTML, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

from chainlog import Entry

from ..model import (
    ActionPhase,
    CauseStatus,
    Conclusion,
    Event,
    Finding,
    Note,
    Reading,
    Role,
    Status,
    Verdict,
    parse_time,
)
from ..policy import say_causes, say_main_causes
from ..record.actions import ActionRecord
from ..record.detection import find_detection, list_moments, list_triggers
from ..record.notes import list_follow_ups
from ..show.text import VERDICT_WORDS, count_of, format_duration, format_value, visible
from .model import ReportModel

T = TypeVar("T")

#: The statuses of notebooks that did not break off.
_RAN_WELL = ("done", "stopped_at_plan", "by_hand")
#: The same, and those that were interrupted: an entry of its own says so.
_NOT_FAILED = (*_RAN_WELL, "interrupted")
#: Verdicts about what an action achieved.
_OUTCOMES = (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING, Verdict.MITIGATED, Verdict.NOT_FIXED)
_NO_CAUSE = "the cause is not proven"
_MOST_ROWS = 20
_MOST_REMARKS = 3
#: What is open, and the ids of the steps that say so.
Open = tuple[str, tuple[str, ...]]


#: Headings of the first screen, each with the fact that names the other incident.
_NEIGHBOURS = {
    "Fault of the drill": "fault_drill",
    "Also opened for this fault": "opened_beside",
}


class _Words(NamedTuple):
    tone: str
    text: str


#: Marks and other entries that stand in the timeline, in words.
_BY_KIND = {
    "plan_of_closed": _Words("note", "Somebody asked for a plan of a closed incident"),
    "joined": _Words("note", "Somebody else joined"),
    "interrupted": _Words("failed", "The run was interrupted"),
    "closed": _Words("closed", "Closed"),
    "took_over": _Words("note", "The incident before this one was closed"),
}
#: Entries of a drill that stand in the timeline, by their event.
_BY_EVENT = {
    "started": _Words("drill", "The drill begins"),
    "injected": _Words("drill", "The fault is in place"),
    "failed": _Words("failed", "The drill failed"),
    "reverted": _Words("drill", "What is left of the fault is taken back"),
    "revert_failed": _Words("failed", "The fault could not be taken back"),
}


class TimelineRow(NamedTuple):
    """One line of the timeline.

    Attributes
    ----------
    tone : a word that a status pill knows
    seq : number of the journal's entry that says it; None: no single entry does
    """

    at: datetime
    tone: str
    text: str
    note: str = ""
    seq: int | None = None


class _Notice(NamedTuple):
    """A notice: when its first channel got it, its text, and the channels that got it."""

    at: datetime
    text: str
    channels: list[str]


class Fact(NamedTuple):
    """One answer of the first screen; ``note`` stands smaller beside it, and may be empty."""

    text: str
    note: str = ""

    def __str__(self) -> str:
        if not self.note:
            return self.text
        return f"{self.text}; {self.note}"


def write_headline(model: ReportModel) -> str:
    """Return the report's title: the verdict and the cause; for a drill, whether it passed."""
    if model.has_passed:
        causes = say_main_causes(model.causes)
        return f"Drill passed: {causes or _NO_CAUSE}"
    if model.objectives:
        missed = [objective for objective in model.objectives if objective.get("met") is not True]
        if not missed:
            return "Drill failed: it broke off"
        return f"Drill failed: {len(missed)} of {len(model.objectives)} objectives missed"
    if model.verdict is None:
        return "Nothing was concluded yet"
    words, _, _ = VERDICT_WORDS[model.verdict].partition(";")
    causes_now = model.causes
    if not model.is_good:
        statuses = {finding.name: finding.status for finding in model.journal.findings()}
        causes_now = [c for c in causes_now if statuses.get(c.name) is CauseStatus.SUPPORTED]
    headline = model.policy.make_headline(model.verdict, causes_now)
    if model.facts.get("fault_drill") and model.causes and model.verdict is not Verdict.HEALTHY:
        headline += ", from a drill's fault"
    return f"{words}: {headline}"


def list_facts(model: ReportModel) -> dict[str, Fact]:
    """Return the first screen. The keys are its headings; an unknown answer says so."""
    return {
        "What happened": _describe_event(model),
        "Cause": _describe_cause(model),
        "Trigger": _describe_trigger(model),
        "Since": _describe_start(model),
        "Until": _describe_end(model),
        "Detected": _describe_detection(model),
        "Severity": _describe_severity(model),
        model.policy.impact_heading: _describe_impact(model),
        **_list_neighbours(model),
        "Tickets": Fact(", ".join(model.tickets) or "none named"),
        "What was done": _describe_actions(model),
    }


def _list_neighbours(model: ReportModel) -> dict[str, Fact]:
    """Return the incidents beside this one; a page makes links of their ids."""
    neighbours = {}
    if model.neighbours:
        neighbours["At the same time"] = Fact(", ".join(model.neighbours))
    for heading, name in _NEIGHBOURS.items():
        other = str(model.facts.get(name) or "")
        if other:
            neighbours[heading] = Fact(other)
    return neighbours


def _describe_trigger(model: ReportModel) -> Fact:
    """Return the first change that began the trouble, if a system recorded one."""
    triggers = list_triggers(model.journal)
    if triggers:
        first = triggers[0]
        return Fact(_capitalise(first.text), f"{format_value(first.at)}, as {first.source} says")
    if model.verdict is Verdict.HEALTHY:
        return Fact("–")
    return Fact("not known", "no system tells who or what began it")


def _describe_detection(model: ReportModel) -> Fact:
    """Return what detected the trouble, and how long after the first sign."""
    moments = list_moments(model.journal)
    first = find_detection(moments)
    if first is None:
        return Fact("–")
    # A look may have come before the first sign.
    span = max(first.at - moments[0].at, timedelta(0))
    return Fact(f"{format_duration(span)} after the first sign of trouble: {first.name}")


def tabulate_detection(model: ReportModel) -> list[dict[str, str]]:
    """Return a row for each moment of the detection that is known."""
    rows = []
    for moment in list_moments(model.journal):
        after = "–" if moment.after is None else format_duration(moment.after)
        row = {
            "moment": moment.name,
            "when": format_value(moment.at),
            "time since the previous moment": after,
        }
        rows.append(row)
    return rows


def tabulate_follow_ups(model: ReportModel) -> list[dict[str, str]]:
    """Return a row for each follow-up that somebody wrote down, sorted by due day."""
    rows = []
    for note in list_follow_ups(model.journal):
        row = {
            "what": note.text,
            "owner": note.owner or "nobody yet",
            "due": note.due.isoformat() if note.due else "no day yet",
            "ticket": note.ticket or "–",
            "noted": f"{format_value(note.at)}{say_late(note)}",
        }
        rows.append(row)
    return rows


def say_late(note: Note) -> str:
    """Return the mark of a note that was written after the close; empty for any other."""
    return ", after the close" if note.late else ""


def summarise(model: ReportModel, link: str) -> str:
    """Return the incident in a few lines, for a chat or a ticket.

    Trigger, detection and follow-ups have a line each where they are known.
    """
    facts = list_facts(model)
    headline = write_headline(model)
    impact = facts[model.policy.impact_heading]
    since = facts["Since"].text
    until = facts["Until"].text
    lines = [
        _write_line("Verdict", f"{headline} ({model.incident_id})"),
        _write_line("Cause", str(facts["Cause"])),
        *_list_lines_if_known(model, facts),
        _write_line("Numbers", f"{impact}; since {since}; until {until}"),
        _write_line("Action", str(facts["What was done"])),
        _write_line("Report", link),
    ]
    return "".join(lines)


def _list_lines_if_known(model: ReportModel, facts: dict[str, Fact]) -> Iterator[str]:
    """Yield a line each for trigger, detection and follow-ups, where they are known."""
    if list_triggers(model.journal):
        yield _write_line("Trigger", str(facts["Trigger"]))
    if model.since is not None:
        yield _write_line("Detected", str(facts["Detected"]))
    follow_ups = list_follow_ups(model.journal)
    if follow_ups:
        first = follow_ups[0]
        owner = first.owner or "no owner yet"
        due = f", due {first.due}" if first.due else ""
        count = count_of(len(follow_ups), "follow-up")
        yield _write_line("To do", f"{count}; first: {first.text} ({owner}{due})")


def _write_line(name: str, text: str) -> str:
    words = visible(text).split()
    return f"{name}: {' '.join(words)}\n"


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def _describe_event(model: ReportModel) -> Fact:
    """Return what the first look that saw an incident concluded."""
    look = _find_first_sight(model)
    if look is not None:
        return Fact(look.summary)
    if model.journal.readings:
        return Fact("no look concluded that there is an incident")
    return Fact("nothing was read yet")


def _find_first_sight(model: ReportModel) -> Conclusion | None:
    """Return the first conclusion that saw an incident; if it can, of the section with the alert.

    A conclusion with findings is a diagnosis: it says why, not what happened.
    """
    looks = model.journal.conclusions
    signals = model.section_with(Role.ALERT)
    if signals is not None and signals.conclusions:
        looks = signals.conclusions
    for look in looks:
        if look.verdict is Verdict.INCIDENT and not look.findings:
            return look
    return None


def _describe_cause(model: ReportModel) -> Fact:
    """Return the causes and their reasons; without a cause, say why none is named."""
    if model.causes:
        causes = say_causes(model.causes)
        return Fact(_capitalise(causes), _explain_causes(model))
    if model.verdict is Verdict.HEALTHY:
        return Fact("there was no trouble")
    if model.journal.findings():
        return Fact(_NO_CAUSE)
    return Fact("not looked for yet")


def _explain_causes(model: ReportModel) -> str:
    """Return the reason of the only cause; of several causes, each one with its reason."""
    reasons = [_say_reason(model, cause) for cause in model.causes]
    if len(reasons) == 1:
        return reasons[0]
    parts = []
    for cause, reason in zip(model.causes, reasons, strict=True):
        parts.append(f"{_capitalise(say_causes([cause]))}, {reason}")
    return ". ".join(parts)


def _say_reason(model: ReportModel, cause: Finding) -> str:
    """Return a cause's reason, and when a conclusion first gave it."""
    for conclusion in model.journal.conclusions:
        if cause in conclusion.findings:
            return f"found at {conclusion.at:%H:%M:%SZ}: {cause.reason}"
    return cause.reason


def _describe_start(model: ReportModel) -> Fact:
    if model.since is None:
        return Fact("no symptom was seen")
    return Fact(format_value(model.since), _format_local(model.since))


def _format_local(at: datetime) -> str:
    """Write a time of day as this machine's clock shows it, with its zone."""
    local = at.astimezone()
    zone = f"{local:%z}"
    return f"{local:%H:%M:%S} local time (UTC{zone[:3]}:{zone[3:]})"


def _describe_end(model: ReportModel) -> Fact:
    """Return when the last symptom or alert had ended; else that this is not known, or not yet."""
    since = model.since
    end = model.until
    if since is None:
        return Fact("–")
    if end is not None and end > since:
        # In whole seconds, as both times are shown.
        duration = format_duration(end.replace(microsecond=0) - since.replace(microsecond=0))
        note = f"{_format_local(end)}; {duration} until the last symptom or alert had ended"
        return Fact(format_value(end), note)
    if model.verdict is Verdict.FIXED:
        return Fact("not known", "no metric tells since when all is well")
    return Fact("not yet")


def _describe_severity(model: ReportModel) -> Fact:
    """Return the severity of the first firing alert that the alert's step shows.

    A breach's alert comes first, a drill's last.
    """
    readings = [reading for reading in model.journal.readings if reading.role is Role.ALERT]
    readings.sort(key=lambda reading: reading.status is not Status.BREACH)
    rows = [row for reading in readings for row in reading.rows]
    firing = [row for row in rows if row.get("state") == "firing" and row.get("severity")]
    firing.sort(key=lambda row: bool(row.get("drill")))
    if firing:
        alert = firing[0].get("alert")
        owner = " (drill)" if firing[0].get("drill") else ""
        return Fact(str(firing[0]["severity"]), f"by the alert {alert}{owner}")
    return Fact("not known", "no look saw an alert fire")


def _describe_impact(model: ReportModel) -> Fact:
    count, _, details = str(model.impact).partition("; ")
    return Fact(count, details)


def _describe_actions(model: ReportModel) -> Fact:
    """Return what was changed, and people's notes of what they saw or did."""
    fact = _describe_changes(model)
    remarks = [note for note in model.journal.notes if note.is_remark and not note.late]
    noted = [f"{note.operator} noted: {note.text}" for note in shorten(remarks, _MOST_REMARKS)]
    return Fact(fact.text, "; ".join(part for part in (fact.note, *noted) if part))


def _describe_changes(model: ReportModel) -> Fact:
    """Return what was carried out or begun; without any, how many plans wait for approval."""
    begun = [action for action in model.tried if action.applied or action.is_cut_off]
    # Actions that are no remedy, such as an exercise, are named only if no remedy was begun.
    main = [action for action in begun if action in model.remedies]
    if begun:
        return _describe_begun(model, main or begun)
    if model.waiting:
        count = count_of(len(model.waiting), "plan")
        return Fact("nothing yet", f"{count} waiting for approval")
    return Fact("nothing was changed in this incident")


def _describe_begun(model: ReportModel, actions: Sequence[ActionRecord]) -> Fact:
    """Return what each action did, how far it is proven or came, and who approved it."""
    sentences = []
    approvers = []
    for action in actions:
        change = model.policy.describe_action(action)
        sentences.append(f"{change} ({_say_proof(model, action)})")
        if action.approver:
            approvers.append(action.approver)
    text = _capitalise("; ".join(sentences))
    if not approvers:
        return Fact(text)
    names = ", ".join(dict.fromkeys(approvers))
    return Fact(text, f"approved by {names}")


def tell_timeline(model: ReportModel) -> list[TimelineRow]:
    """Return the story as a person would tell it, sorted by time: twenty rows at most.

    A drill's timeline begins with the drill. If there are more than twenty rows, notes are left
    out first. Half of the room is for causes and remedies, the other half for the rest; what one
    half does not need, the other gets. Of each half the rows in the middle are left out. One more
    row, at the time of the first that is left out, counts them all.
    """
    rows = [row for row in _list_rows(model) if row.at >= model.begin]
    rows.sort(key=_get_at)
    kept = rows
    if len(rows) > _MOST_ROWS:
        remedy_seqs = {_find_shown_seq(action) for action in model.remedies}
        main = [row for row in rows if row.seq in remedy_seqs or row.tone == "cause"]
        others = [row for row in rows if row not in main and row.tone != "note"]
        room = _MOST_ROWS - 1
        others = shorten(others, max(room // 2, room - len(main)))
        main = shorten(main, room - len(others))
        kept = [*main, *others]
        kept.sort(key=_get_at)
    hidden = [row for row in rows if row not in kept]
    if hidden:
        text = f"{count_of(len(hidden), 'more row')}: see everything below"
        kept.append(TimelineRow(hidden[0].at, "note", text))
        kept.sort(key=_get_at)
    return kept


def _get_at(row: TimelineRow) -> datetime:
    return row.at


def _list_rows(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield every row of the timeline, not yet sorted by time."""
    yield from _list_entries(model)
    for event in list_triggers(model.journal):
        yield TimelineRow(event.at, "trigger", _capitalise(event.text), f"as {event.source} says")
    if model.since is not None:
        yield TimelineRow(model.since, "breach", "First sign of trouble")
    yield from _list_alerts(model)
    yield from _list_notices(model)
    yield from _list_incident_seen(model)
    for cause in model.causes:
        yield from _list_cause(model, cause)
    for action in model.remedies:
        yield _describe_action_row(model, action)
    if model.until:
        yield TimelineRow(model.until, "ok", "The last symptom or alert had ended")
    yield from _list_outcomes(model)


def _list_entries(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield a row for each entry in ``_BY_KIND`` or ``_BY_EVENT``, and each run that went wrong."""
    for entry in model.journal.entries:
        words = _find_words(entry)
        if words is not None:
            reason = str(entry.data.get("reason") or "")
            yield TimelineRow(entry.at, words.tone, words.text, reason, entry.seq)
    for run in model.journal.runs:
        if run.is_typo:
            first, _, _ = run.error.partition("\n")
            text = "Something was mistyped; nothing was changed"
            yield TimelineRow(run.at, "note", text, first, run.seq)
        elif run.status not in _NOT_FAILED:
            text = f"Notebook {run.notebook}: {run.status}"
            yield TimelineRow(run.at, "failed", text, run.error, run.seq)


def _find_words(entry: Entry) -> _Words | None:
    """Return what the timeline says of an entry; None for the kinds that it leaves out."""
    if entry.kind == "drill":
        event = str(entry.data.get("event"))
        return _BY_EVENT.get(event)
    return _BY_KIND.get(str(entry.data.get("what", entry.kind)))


def _list_alerts(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield when an alert fired, and when it no longer did."""
    ended: dict[str, bool] = {}
    for event in _list_recent(model):
        if event.kind != "alert" or event.state != "firing":
            continue
        # A repeated state is no change: the samples of another look begin there.
        if ended.get(event.subject) is not event.is_end:
            ended[event.subject] = event.is_end
            yield TimelineRow(event.at, "alert", event.text)


def _list_notices(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield each notice with its channels; a notice that a channel got again has a new row."""
    newest: dict[str, _Notice] = {}
    notices = []
    for event in _list_recent(model):
        if event.kind != "notice":
            continue
        text = f"{event.subject}: {event.state}"
        notice = newest.get(text)
        if notice is None or event.channel in notice.channels:
            notice = _Notice(event.at, text, [])
            newest[text] = notice
            notices.append(notice)
        notice.channels.append(event.channel)
    for notice in notices:
        names = ", ".join(notice.channels)
        yield TimelineRow(notice.at, "notice", f"{names} received: {notice.text}")


def _list_recent(model: ReportModel) -> list[Event]:
    """Return the events that systems recorded since the trouble began; without trouble, none.

    What an alert did before that belongs to other incidents.
    """
    since = model.since
    if since is None:
        return []
    return [event for event in list_observed(model) if event.at >= since]


def _list_incident_seen(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield the first conclusion that saw an incident."""
    look = _find_first_sight(model)
    if look is not None:
        yield TimelineRow(look.at, "incident", "Incident seen", look.summary, look.seq)


def _list_cause(model: ReportModel, cause: Finding) -> Iterator[TimelineRow]:
    """Yield when a cause was first named; and when its first sign was, unless this is a drill."""
    words = say_causes([cause])
    for conclusion in model.journal.conclusions:
        finding = _find_support(conclusion, cause.name)
        if finding is not None:
            yield TimelineRow(
                at=conclusion.at,
                tone="cause",
                text=f"Cause named: {words}",
                note=finding.reason,
                seq=conclusion.seq,
            )
            break
    if cause.first_seen and not model.drill:
        yield TimelineRow(cause.first_seen, "cause", f"First sign of the cause: {words}")


def _find_support(conclusion: Conclusion, name: str) -> Finding | None:
    """Return the finding by which a conclusion supports a cause; None without one."""
    for finding in conclusion.findings:
        if finding.name == name and finding.status is CauseStatus.SUPPORTED:
            return finding
    return None


def _describe_action_row(model: ReportModel, action: ActionRecord) -> TimelineRow:
    """Return an action's row of the timeline: what it did, who approved it, how it ended."""
    note = _say_proof(model, action)
    if action.approver:
        note = f"approved by {action.approver}; {note}"
    text = _capitalise(model.policy.describe_action(action))
    return TimelineRow(action.decisive.at, action.state, text, note, _find_shown_seq(action))


def _say_proof(model: ReportModel, action: ActionRecord) -> str:
    """Return how far an action is proven; if it changed nothing, how it ended."""
    if action.is_cut_off:
        how_far = action.state if action.is_taken_back else "begun, and not ended"
        return action.last.reason or how_far
    if action.applied is None:
        return action.last.reason or action.state
    return model.policy.describe_proof(action)


def _find_shown_seq(action: ActionRecord) -> int:
    """Return the number of the entry that an action's row of the timeline leads to: its proof."""
    entry = action.last if action.is_verified else action.decisive
    return entry.seq


def _list_outcomes(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield each change of the verdict on what was done."""
    verdict_before = None
    for outcome in model.journal.conclusions:
        verdict = outcome.verdict
        if verdict in _OUTCOMES and verdict is not verdict_before:
            text = VERDICT_WORDS[verdict]
            yield TimelineRow(outcome.at, str(verdict), text, outcome.summary, outcome.seq)
            verdict_before = verdict


def list_observed(model: ReportModel) -> list[Event]:
    """Return the events that systems recorded since a drill began, sorted by time, each once.

    Without a drill these are all that systems recorded. Of an event that several looks counted, the
    newest count stands.
    """
    events: dict[tuple[str | bool, ...], Event] = {}
    for conclusion in model.journal.conclusions:
        for event in conclusion.timeline:
            if event.kind in ("action", "drill") or event.at < model.begin:
                continue
            # To the second. A later look may have counted more of the same.
            said = event.subject or event.text
            second = f"{event.at:%c}"
            events[second, event.kind, said, event.state, event.is_end, event.channel] = event
    return sorted(events.values(), key=lambda event: event.at)


def list_open(model: ReportModel) -> list[Open]:
    """Return what is still open, each with the ids of the steps that say so."""
    points = [*_list_open_record(model), *_list_open_actions(model), *_list_open_points(model)]
    if not model.facts.get("closed_at"):
        return points
    # An earlier message may name a command on this incident: closed, it would be refused.
    own = f" --incident {model.incident_id}"
    return [(text.replace(own, ""), steps) for text, steps in points]


def _list_open_record(model: ReportModel) -> Iterator[Open]:
    """Yield what is wrong with the journal itself, and which runs were interrupted or failed."""
    if model.damage:
        yield model.damage, ()
    if model.journal.unreadable:
        count = count_of(len(model.journal.unreadable), "line")
        yield f"{count} of the journal cannot be understood", ()
    for entry in model.journal.entries:
        if entry.kind == "interrupted" and not _is_overtaken(model, entry):
            text = f"the run was interrupted at {entry.at:%H:%M:%SZ}"
            reason = entry.data.get("reason")
            if reason:
                text += f": {reason}"
            yield text, ()
    for section in model.sections.values():
        if not section.runs:
            continue
        run = section.runs[-1].entry
        if run.status not in _NOT_FAILED and not run.is_typo:
            yield f"notebook {run.notebook} ended as {run.status}: {run.error}", ()


def _is_overtaken(model: ReportModel, interruption: Entry) -> bool:
    """Tell whether a run came to its end, or something was carried out, after an interruption."""
    ended = [run for run in model.journal.runs if run.status in _RAN_WELL]
    applied = model.journal.list_actions(ActionPhase.APPLIED)
    return any(entry.seq > interruption.seq for entry in (*ended, *applied))


def _list_begun_before(model: ReportModel) -> Iterator[Open]:
    """Yield what the newest readings found begun and not finished, each with its command.

    A plan that was applied after the reading is left out.
    """
    for reading in model.journal.latest().values():
        applied = model.journal.list_actions(ActionPhase.APPLIED, after=reading.seq)
        finished_plans = {str(action.result.get("plan")) for action in applied}
        for command in reading.ways_on:
            if finished_plans.isdisjoint(command.split()):
                yield f"begun, and not finished: {command}", (reading.step,)


def _list_open_actions(model: ReportModel) -> Iterator[Open]:
    """Yield plans that wait, and actions that failed or left something to do."""
    begun = list(_list_begun_before(model))
    yield from begun
    words_said = {word for text, _ in begun for word in text.split()}
    for action in model.waiting:
        yield _say_waiting(action), (action.first.step,)
    newest = {action.first.step: action for action in model.tried}
    for action in model.tried:
        last = action.last
        steps = (action.first.step,)
        # An older action of the step is over. A plan that `begun` names is not said twice.
        is_to_say = newest[last.step] is action and action.plan not in words_said
        # A refused action changed nothing: once all is well, nobody has to come back to it.
        if last.phase is ActionPhase.REFUSED and is_to_say and not model.is_good:
            yield f"{last.action} was refused: {last.reason}", steps
        if action.state == ActionPhase.FAILED and is_to_say:
            yield f"{last.action} failed: {last.reason}", steps
        for text in model.policy.list_unfinished(action):
            yield text, steps


def _say_waiting(action: ActionRecord) -> str:
    """Say until when a plan waits for approval."""
    text = f"{action.first.action} on {action.first.target} is planned and waits for approval"
    expires_at = action.result(ActionPhase.PLANNED).get("expires_at")
    if expires_at:
        text += f" until {parse_time(str(expires_at)):%H:%M:%SZ}"
    return text


def _list_open_points(model: ReportModel) -> Iterator[Open]:
    """Yield what comes next, and the points of the checklist that are not ticked.

    Points that nobody looked at are open once the trouble is over.
    """
    roles = {Role.CHECKLIST}
    if model.is_good:
        roles.add(Role.CLEARED)
    elif model.facts.get("closed_at"):
        yield "closed before all was well", ()
    elif model.judgement is not None:
        section, reason = model.judgement.next
        yield f"next, in {section}: {reason}", ()
    points = model.of(*roles)
    for step in points:
        if step.latest and step.latest.status.is_open:
            yield f"{step.title}: {step.latest.reason}", (step.id,)
    unread = [step.id for step in points if step.status == "not run"]
    # ``healthy`` says that there never was a symptom: then no point needs a look.
    # Of a drill's fault, the drill's own incident has the checklist.
    has_own_points = model.verdict is not Verdict.HEALTHY and not model.facts.get("fault_drill")
    if unread and model.is_good and has_own_points:
        yield "not run yet:", tuple(unread)


def say_reading(reading: Reading) -> str:
    """Write a reading's value for people."""
    return format_value(reading.value, reading.unit)


def shorten(items: Sequence[T], limit: int) -> list[T]:
    """Return the items; where they are more than ``limit``, only the first and the last ones."""
    if len(items) <= limit:
        return list(items)
    last = limit // 2
    first = limit - last
    return [*items[:first], *items[len(items) - last :]]
