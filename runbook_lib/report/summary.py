"""An incident told to somebody who was not there: first screen, timeline, what is open.

From the model alone: no HTML, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from chainlog import Entry

from ..model import (
    SIGNS,
    ActionPhase,
    CauseStatus,
    Conclusion,
    Event,
    Finding,
    Reading,
    Role,
    Status,
    Verdict,
)
from ..policy import say_causes
from ..record.actions import ActionRecord
from ..record.view import to_number
from ..show.text import VERDICT_WORDS, format_duration, format_value, visible
from .model import ReportModel

T = TypeVar("T")

_ENDED_WELL = ("done", "stopped_at_plan", "by_hand")
_OUTCOMES = (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING, Verdict.MITIGATED, Verdict.NOT_FIXED)
_READ = SIGNS | {Role.CAUSE, Role.EFFECT, Role.RECOVERY}
_NO_CAUSE = "the cause is not proven"
_MAIN_ROWS = 15
#: What is open, and the ids of the steps that say so.
Open = tuple[str, tuple[str, ...]]


class _Words(NamedTuple):
    tone: str
    text: str


#: Entries that stand in the timeline by their kind.
_BY_KIND = {
    "interrupted": _Words("failed", "The run was interrupted"),
    "journal_damaged": _Words("failed", "The journal before this one is damaged"),
    "closed": _Words("closed", "The incident was closed"),
}
#: Entries of a drill that stand in the timeline, by their event.
_BY_EVENT = {
    "started": _Words("drill", "The drill begins"),
    "injected": _Words("drill", "The fault is injected"),
    "failed": _Words("failed", "The drill failed"),
    "reverted": _Words("drill", "The fault is taken back"),
    "revert_failed": _Words("failed", "The fault could not be taken back"),
}


class TimelineRow(NamedTuple):
    """One line of the timeline. ``tone`` is a word that a status pill knows."""

    at: datetime
    tone: str
    text: str
    note: str = ""
    seq: int | None = None


class Fact(NamedTuple):
    """One answer of the first screen, with a remark."""

    text: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.note}" if self.note else self.text


def write_headline(model: ReportModel) -> str:
    """Return the report's title: the verdict and the cause; of a drill, whether it passed."""
    if model.has_passed:
        return f"Drill passed: {say_causes(model.causes[:2]) or _NO_CAUSE}"
    if model.objectives:
        missed = [objective for objective in model.objectives if objective.get("met") is not True]
        if not missed:
            return "Drill failed: it broke off"
        return f"Drill failed: {len(missed)} of {len(model.objectives)} objectives missed"
    if model.verdict is None:
        return f"Nothing was {'concluded' if model.journal.entries else 'recorded'} yet"
    words = VERDICT_WORDS[model.verdict].partition(";")[0]
    return f"{words}: {model.policy.make_headline(model.verdict, model.causes)}"


def list_facts(model: ReportModel) -> dict[str, Fact]:
    """Return the answers of the first screen by name. One that is not known says so."""
    return {
        "What happened": _describe_event(model),
        "Cause": _describe_cause(model),
        "Since": _describe_start(model),
        "Until": _describe_end(model),
        "Severity": _describe_severity(model),
        model.policy.impact_heading: _describe_impact(model),
        "Tickets": Fact(", ".join(model.tickets) or "none named"),
        "What was done": _describe_actions(model),
    }


def summarise(model: ReportModel, link: str) -> str:
    """Return the incident in five lines, for a chat or a ticket."""
    facts = list_facts(model)
    impact = facts[model.policy.impact_heading]
    lines = {
        "Verdict": f"{write_headline(model)} ({model.incident_id})",
        "Cause": str(facts["Cause"]),
        "Numbers": f"{impact}; since {facts['Since'].text}; until {facts['Until'].text}",
        "Action": str(facts["What was done"]),
        "Report": link,
    }
    return "".join(f"{name}: {_put_on_one_line(text)}\n" for name, text in lines.items())


def _put_on_one_line(text: str) -> str:
    return " ".join(visible(text).split())


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def _describe_event(model: ReportModel) -> Fact:
    """Return what was said when most objects waited."""
    looks = [c for c in model.journal.conclusions if not c.findings]
    incidents = [c for c in looks if c.verdict is Verdict.INCIDENT]
    breaches = [r for r in model.journal.readings if r.status is Status.BREACH]
    if incidents:
        peak_seq = _find_peak(breaches)
        later = [c for c in incidents if c.seq > peak_seq]
        return Fact(later[0].summary if later else incidents[-1].summary)
    if breaches:
        words = "; ".join(f"{breach.name}: {say_reading(breach)}" for breach in breaches[:2])
        return Fact(words, breaches[0].reason)
    return Fact(looks[-1].summary if looks else "nothing was read yet")


def _find_peak(breaches: Sequence[Reading]) -> int:
    """Return the number of the first entry that shows the highest backlog; 0 without one."""
    backlog = [breach for breach in breaches if breach.role is Role.BACKLOG]
    peak = max(backlog, key=lambda breach: to_number(breach.value) or 0, default=None)
    return peak.seq if peak else 0


def _describe_cause(model: ReportModel) -> Fact:
    if model.causes:
        return Fact(_capitalise(say_causes(model.causes)), model.causes[0].reason)
    if model.journal.findings():
        return Fact(_NO_CAUSE)
    section = model.section_with(Role.CAUSE)
    where = f" (section {section.number})" if section and section.number else ""
    return Fact(f"not looked for yet{where}")


def _describe_start(model: ReportModel) -> Fact:
    if model.since is None:
        return Fact("no breach was seen")
    return Fact(format_value(model.since), _format_local(model.since))


def _format_local(at: datetime) -> str:
    """Write a time of day as this machine's clock shows it, with its zone."""
    local = at.astimezone()
    zone = f"{local:%z}"
    return f"{local:%H:%M:%S} local time (UTC{zone[:3]}:{zone[3:]})"


def _describe_end(model: ReportModel) -> Fact:
    since = model.since
    end = model.recovered_at
    if since is None:
        return Fact("–")
    if end is not None and end > since:
        duration = format_duration(end - since)
        note = f"{_format_local(end)}; {duration} until recovery was read"
        return Fact(format_value(end), note)
    duration = format_duration(model.journal.entries[-1].at - since)
    return Fact("not yet", f"recovery was not read; {duration} up to the last journal entry")


def _describe_severity(model: ReportModel) -> Fact:
    """Return the severity of the first firing alert that a breach of the alert's step shows."""
    for breach in model.journal.breaches({Role.ALERT}):
        for row in breach.rows:
            if row.get("severity") and row.get("state") == "firing":
                return Fact(str(row["severity"]), f"by the alert {row.get('alert')}")
    return Fact("not known", "no alert was seen firing")


def _describe_impact(model: ReportModel) -> Fact:
    count, _, details = str(model.impact).partition("; ")
    return Fact(count, details)


def _describe_actions(model: ReportModel) -> Fact:
    done = [action for action in model.tried if action.applied]
    cut_off = [action for action in model.tried if action.is_cut_off]
    describe = model.policy.describe_action
    if not done and cut_off:
        text = "; ".join(f"{describe(action)}: begun, and not ended" for action in cut_off)
        return Fact(_capitalise(text), cut_off[-1].last.reason)
    if not done:
        waiting = len(model.waiting)
        note = f"{waiting} planned, waiting for approval" if waiting else ""
        return Fact("nothing was changed", note)
    # What an exercise made and took back stands in the timeline only.
    main = [action for action in done if action in model.remedies] or done
    describe_proof = model.policy.describe_proof
    text = "; ".join(f"{describe(action)} ({describe_proof(action)})" for action in main)
    approvers = dict.fromkeys(action.approver for action in main if action.approver)
    note = f"approved by {', '.join(approvers)}" if approvers else ""
    return Fact(_capitalise(text), note)


def tell_timeline(model: ReportModel) -> list[TimelineRow]:
    """Return what a person would tell, sorted by time: fifteen rows at most.

    A drill's timeline begins with the drill.
    """
    rows = [row for row in _list_rows(model) if row.at >= model.begin]
    return shorten(sorted(rows, key=lambda row: row.at), _MAIN_ROWS)


def _list_rows(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield first sign, alert, who was told, cause named, what was done, cleared, verdict."""
    yield from _list_entries(model)
    if model.since is not None:
        yield TimelineRow(model.since, "breach", "First sign of trouble")
    yield from _list_alerts(model)
    yield from _list_notices(model)
    yield from _list_incident_seen(model)
    for cause in model.causes:
        yield from _list_cause(model, cause)
    for action in model.remedies:
        yield _describe_action_row(model, action)
    if model.recovered_at:
        yield TimelineRow(model.recovered_at, "ok", "Recovery was read")
    yield from _list_outcomes(model)


def _list_entries(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield what a drill did, what failed, and the end."""
    for entry in model.journal.entries:
        words = _find_words(entry)
        if words is not None:
            reason = str(entry.data.get("reason") or "")
            yield TimelineRow(entry.at, words.tone, words.text, reason, entry.seq)
        elif entry.kind == "notebook" and entry.data.get("status") not in _ENDED_WELL:
            text = f"Notebook {entry.data.get('notebook')}: {entry.data.get('status')}"
            error = str(entry.data.get("error") or "")
            yield TimelineRow(entry.at, "failed", text, error, entry.seq)


def _find_words(entry: Entry) -> _Words | None:
    """Return what the timeline says of an entry; None of most."""
    if entry.kind == "drill":
        return _BY_EVENT.get(str(entry.data.get("event")))
    return _BY_KIND.get(entry.kind)


def _list_alerts(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield when an alert fired, and when it no longer did."""
    states: dict[str, str] = {}
    for event in _list_recent(model):
        alert, _, state = event.text.rpartition(" ")
        if event.kind != "alert" or "firing" not in alert:
            continue
        if states.get(alert) != state:  # else it is the beginning of an older window
            states[alert] = state
            yield TimelineRow(event.at, "alert", event.text)


def _list_notices(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield which channels were told what, once each."""
    channels_by_text: dict[str, dict[str, datetime]] = {}
    for event in _list_recent(model):
        if event.kind == "notice":
            channel, _, text = event.text.partition(" receives ")
            channels_by_text.setdefault(text, {}).setdefault(channel, event.at)
    for text, channels in channels_by_text.items():
        words = f"{', '.join(channels)} told: {text}"
        yield TimelineRow(min(channels.values()), "notice", words)


def _list_recent(model: ReportModel) -> list[Event]:
    """Return what systems told since the trouble began."""
    since = model.since or model.begin
    return [event for event in list_observed(model) if event.at >= since]


def _list_incident_seen(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield when an incident was seen; an alert that fired says it already."""
    alerts = [event for event in list_observed(model) if event.kind == "alert"]
    if any("firing" in alert.text for alert in alerts):
        return
    for c in model.journal.conclusions:
        if c.verdict is Verdict.INCIDENT and not c.findings:
            yield TimelineRow(c.at, "incident", "Incident seen", c.summary, c.seq)
            return


def _list_cause(model: ReportModel, cause: Finding) -> Iterator[TimelineRow]:
    """Yield when a cause was named, and when its first sign was."""
    words = say_causes([cause])
    for conclusion in model.journal.conclusions:
        finding = _find_support(conclusion, cause.name)
        if finding is not None:
            text = f"Cause named: {words}"
            yield TimelineRow(conclusion.at, "cause", text, finding.reason, conclusion.seq)
            break
    if cause.first_seen and not model.drill:
        yield TimelineRow(cause.first_seen, "cause", f"First sign of the cause: {words}")


def _find_support(conclusion: Conclusion, name: str) -> Finding | None:
    """Return the finding by which a conclusion supports a cause."""
    for finding in conclusion.findings:
        if finding.name == name and finding.status is CauseStatus.SUPPORTED:
            return finding
    return None


def _describe_action_row(model: ReportModel, action: ActionRecord) -> TimelineRow:
    outcome = model.policy.describe_proof(action) if action.applied else action.last.reason
    note = f"approved by {action.approver}; {outcome}" if action.approver else outcome
    text = _capitalise(model.policy.describe_action(action))
    entry = action.decisive
    return TimelineRow(entry.at, str(action.last.phase), text, note, entry.seq)


def _list_outcomes(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield each change of the verdict after an action.

    That the alert still clears is left out where it cleared.
    """
    outcomes = [c for c in model.journal.conclusions if c.verdict in _OUTCOMES]
    is_cleared = any(c.verdict is Verdict.FIXED for c in outcomes)
    before = None
    for c in outcomes:
        is_passing = c.verdict is Verdict.FIXED_ALERT_DECAYING and is_cleared
        if c.verdict is not before and not is_passing:
            yield TimelineRow(c.at, str(c.verdict), VERDICT_WORDS[c.verdict], c.summary, c.seq)
        before = c.verdict


def list_observed(model: ReportModel) -> list[Event]:
    """Return what the systems' clocks and logs told, each event once, since a drill began."""
    events: dict[tuple[str, str], Event] = {}
    for conclusion in model.journal.conclusions:
        for event in conclusion.timeline:
            if event.at >= model.begin and event.kind not in ("action", "drill"):
                events[f"{event.at:%c}", event.text] = event
    return sorted(events.values(), key=lambda event: event.at)


def list_open(model: ReportModel) -> list[Open]:
    """Return what is still open, each with the ids of the steps that say so."""
    return [*_list_open_record(model), *_list_open_actions(model), *_list_open_steps(model)]


def _list_open_record(model: ReportModel) -> Iterator[Open]:
    """Yield what is wrong with the record itself."""
    if model.damage:
        yield model.damage, ()
    if model.journal.unreadable:
        count = len(model.journal.unreadable)
        yield f"{count} journal entries could not be understood", ()
    for entry in model.journal.entries:
        if entry.kind == "interrupted":
            text = f"the run was interrupted at {entry.at:%H:%M:%SZ}"
            reason = str(entry.data.get("reason") or "")
            yield f"{text}: {reason}" if reason else text, ()
    for entry in model.journal.entries:
        if entry.kind == "journal_damaged":
            yield str(entry.data.get("reason")), ()
    for section in model.sections.values():
        if section.runs and section.runs[-1].run.status not in _ENDED_WELL:
            run = section.runs[-1].run
            yield f"notebook {run.notebook} ended as {run.status}: {run.error}", ()


def _list_open_actions(model: ReportModel) -> Iterator[Open]:
    """Yield plans that wait, and actions that failed or left something to do."""
    for action in model.waiting:
        expires_at = str(action.result(ActionPhase.PLANNED).get("expires_at", ""))
        until = f" until {expires_at[11:19]}Z" if expires_at[11:19] else ""
        text = f"{action.first.action} on {action.first.target} is planned and waits for approval"
        yield f"{text}{until}", (action.first.step,)
    newest = {action.first.step: action for action in model.tried}
    for action in model.tried:
        last = action.last
        steps = (action.first.step,)
        has_failed = last.phase in (ActionPhase.REFUSED, ActionPhase.FAILED)
        if has_failed and newest[last.step] is action:
            yield f"{last.action} was {last.phase}: {last.reason}", steps
        for text in model.policy.list_unfinished(action, model.tried):
            yield text, steps


def _list_open_steps(model: ReportModel) -> Iterator[Open]:
    """Yield the newest breaches, what could not be read, and points that are not ticked."""
    judged_from = _find_judged_action(model)
    current = [
        (step, step.latest)
        for step in model.steps.values()
        # What symptoms were before an action that was judged is history.
        if step.latest and (step.role not in SIGNS or step.latest.seq >= judged_from)
    ]
    roles: set[Role | None] = set()
    for step, reading in current:
        is_wanted = step.role is Role.RECOVERY or (step.role in SIGNS and not model.is_good)
        if reading.status is Status.BREACH and is_wanted:
            roles.add(step.role)
            yield f"{reading.name}: {say_reading(reading)}", (step.id,)
    unread = [s.id for s, r in current if r.status is Status.UNKNOWN and s.role in _READ]
    if unread:
        yield "could not be read:", tuple(unread)
    for step in model.of(Role.CLEARED, Role.CHECKLIST):
        # An alert that has not cleared is the one that fires.
        is_said = step.role is Role.CLEARED and Role.ALERT in roles
        if step.latest and step.latest.status.is_open and not is_said:
            yield f"{step.title}: {step.latest.reason}", (step.id,)


def _find_judged_action(model: ReportModel) -> int:
    """Return the number of the last action if recovery was judged after it, else 0."""
    section = model.section_with(Role.RECOVERY)
    last = model.journal.last_applied
    if last is None or section is None or not section.conclusions:
        return 0
    return last.seq if section.conclusions[-1].seq > last.seq else 0


def say_reading(reading: Reading) -> str:
    """Write a reading's value for people."""
    return format_value(reading.value, reading.unit)


def shorten(items: Sequence[T], limit: int) -> list[T]:
    """Return the first and the last items, ``limit`` at most."""
    if len(items) <= limit:
        return list(items)
    last = limit // 2
    first = limit - last
    return [*items[:first], *items[-last:]]
