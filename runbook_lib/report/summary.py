"""An incident told to somebody who was not there: first screen, timeline, what is open.

From the model alone: no HTML, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from ..model import SIGNS, ActionPhase, CauseStatus, Event, Finding, Reading, Role, Status, Verdict
from ..record.journal import number_of
from ..show.text import VERDICT_WORDS, format_duration, format_value, visible
from .model import ReportModel

T = TypeVar("T")

_ENDED_WELL = ("done", "stopped_at_plan", "by_hand")
_OUTCOMES = (Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING, Verdict.MITIGATED, Verdict.NOT_FIXED)
_TOLD = {"interrupted": ("failed", "The run was interrupted"),
         "journal_damaged": ("failed", "The journal before this one is damaged"),
         "closed": ("closed", "The incident was closed"),
         "started": ("drill", "The drill begins"), "injected": ("drill", "The fault is injected"),
         "failed": ("failed", "The drill failed"), "reverted": ("drill", "The fault is taken back"),
         "revert_failed": ("failed", "The fault could not be taken back")}  # fmt: skip
_READ = SIGNS | {Role.CAUSE, Role.EFFECT, Role.RECOVERY}
_NO_CAUSE = "the cause is not proven"
_NEVER = ("no breach was seen", "")
_MAIN_ROWS = 15
Open = tuple[str, tuple[str, ...]]


class TimelineRow(NamedTuple):
    """One line of the timeline; ``tone`` is a word that a status pill knows."""

    at: datetime
    tone: str
    text: str
    note: str = ""
    seq: int | None = None


def write_headline(model: ReportModel) -> str:
    """Return the report's title: the verdict and the cause; of a drill, whether it passed."""
    verdict, why = model.verdict, say_causes(model.causes[:2]) or _NO_CAUSE
    if model.has_passed:
        return f"Drill passed: {why}"
    if model.objectives:
        missed = sum(objective.get("met") is not True for objective in model.objectives)
        what = f"{missed} of {len(model.objectives)} objectives missed"
        return f"Drill failed: {what if missed else 'it broke off'}"
    if verdict is None:
        return f"Nothing was {'concluded' if model.journal.entries else 'recorded'} yet"
    if verdict is Verdict.HEALTHY:
        why = "no label waits too long"
    if verdict is Verdict.UNKNOWN and not model.causes:
        why = "what a verdict needs could not be read"
    return f"{VERDICT_WORDS[verdict].partition(';')[0]}: {why}"


def say_causes(findings: Iterable[Finding]) -> str:
    """Return causes in words."""
    return " and ".join(finding.words or finding.name for finding in findings)


def list_facts(model: ReportModel) -> dict[str, tuple[str, str]]:
    """Return what the first screen must say, in order: name, and text with a remark.

    Nothing is left out, only said unknown.
    """
    since, (many, _, about) = model.since, str(model.impact).partition("; ")
    return {
        "What happened": _what_happened(model),
        "Cause": _why(model),
        "Since": (format_value(since), _format_local(since)) if since else _NEVER,
        "Until": _until_when(model),
        "Severity": _how_severe(model),
        "Labels and orders": (many, about),
        "Tickets": (", ".join(model.tickets) or "none named", ""),
        "What was done": _what_was_done(model),
    }


def summarise(model: ReportModel, link: str) -> str:
    """Return the incident in five lines, for a chat or a ticket: each of them one line."""
    facts = list_facts(model)
    said = {name: "; ".join(filter(None, fact)) for name, fact in facts.items()}
    since, until = facts["Since"][0], facts["Until"][0]
    verdict = f"{write_headline(model)} ({model.incident_id})"
    numbers = f"{said['Labels and orders']}; since {since}; until {until}"
    texts = (verdict, said["Cause"], numbers, said["What was done"], link)
    lines = zip(("Verdict", "Cause", "Numbers", "Action", "Report"), texts, strict=True)
    return "".join(f"{name}: {' '.join(visible(text).split())}\n" for name, text in lines)


def _what_happened(model: ReportModel) -> tuple[str, str]:
    """Say it as it was said when most waited."""
    about = [c for c in model.journal.conclusions if not c.findings]
    seen = [c for c in about if c.verdict is Verdict.INCIDENT]
    breaches = [r for r in model.journal.readings if r.status is Status.BREACH]
    if seen:
        waiting = [(number_of(r.value) or 0, -r.seq) for r in breaches if r.role is Role.BACKLOG]
        height = -max(waiting, default=(0, 0))[1]
        return next((c for c in seen if c.seq > height), seen[-1]).summary, ""
    if breaches:
        words = "; ".join(f"{r.name}: {say_reading(r)}" for r in breaches[:2])
        return words, breaches[0].reason
    return about[-1].summary if about else "nothing was read yet", ""


def _why(model: ReportModel) -> tuple[str, str]:
    if not model.causes:
        return _NO_CAUSE if model.journal.findings() else "not looked for yet (section 5)", ""
    text = say_causes(model.causes)
    return text[:1].upper() + text[1:], model.causes[0].reason


def _format_local(at: datetime) -> str:
    """Write a time of day as this machine's clock shows it, with its zone."""
    local = at.astimezone()
    zone = f"{local:%z}"
    return f"{local:%H:%M:%S} local time (UTC{zone[:3]}:{zone[3:]})"


def _until_when(model: ReportModel) -> tuple[str, str]:
    since, end = model.since, model.recovered_at
    if since is None:
        return "–", ""
    if end is not None and end > since:
        lasted = format_duration(end - since)
        return format_value(end), f"{_format_local(end)}; {lasted} until recovery was read"
    lasted = format_duration(model.journal.entries[-1].at - since)
    return "not yet", f"recovery was not read; {lasted} up to the last journal entry"


def _how_severe(model: ReportModel) -> tuple[str, str]:
    """Return the severity of the first alert that a breach of its step shows."""
    rows = [row for reading in model.journal.breaches({Role.ALERT}) for row in reading.rows]
    found = [row for row in rows if row.get("severity") and row.get("state") == "firing"]
    said = [(str(row["severity"]), f"by the alert {row.get('alert')}") for row in found]
    return said[0] if said else ("not known", "no alert was seen firing")


def _what_was_done(model: ReportModel) -> tuple[str, str]:
    done = [action for action in model.told if action.applied]
    cut_off = [action for action in model.told if action.is_cut_off]
    if not done and cut_off:
        text = "; ".join(f"{action.words}: begun, and not ended" for action in cut_off)
        return text[:1].upper() + text[1:], cut_off[-1].last.reason
    if not done:
        waiting = len(model.waiting)
        return "nothing was changed", f"{waiting} planned, waiting for approval" if waiting else ""
    # what an exercise made and took back again is told below
    main = [a for a in done if a.first.step.startswith("6.")] or done
    text = "; ".join(f"{action.words} ({action.proof})" for action in main)
    people = dict.fromkeys(action.approver for action in main if action.approver)
    return text[:1].upper() + text[1:], f"approved by {', '.join(people)}" if people else ""


def tell_timeline(model: ReportModel) -> list[TimelineRow]:
    """Return what a person would tell, in order: fifteen rows at most.

    A drill's timeline begins with the drill.
    """
    rows = [row for row in _tell(model) if row.at >= model.begin]
    return shorten(sorted(rows, key=lambda row: row.at), _MAIN_ROWS)


def _tell(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield first sign, alert, who was told, cause named, what was done, cleared, verdict."""
    yield from _tell_entries(model)
    if model.since is not None:
        yield TimelineRow(model.since, "breach", "First sign of trouble")
    yield from _tell_observed(model)
    conclusions = model.journal.conclusions
    fired = any("firing" in e.text for e in list_observed(model) if e.kind == "alert")
    seen = [c for c in conclusions if c.verdict is Verdict.INCIDENT and not c.findings]
    for c in seen[: not fired]:
        yield TimelineRow(c.at, "incident", "Incident seen", c.summary, c.seq)
    for cause in model.causes:
        words, wanted = say_causes([cause]), (cause.name, CauseStatus.SUPPORTED)
        said = [(c, f) for c in conclusions for f in c.findings if (f.name, f.status) == wanted]
        for c, finding in said[:1]:
            yield TimelineRow(c.at, "cause", f"Cause named: {words}", finding.reason, c.seq)
        if cause.first_seen and not model.drill:
            yield TimelineRow(cause.first_seen, "cause", f"First sign of the cause: {words}")
    for action in [a for a in model.told if a.first.step.startswith("6.")] or model.told:
        told, last = action.applied or action.last, action.last
        note = f"approved by {action.approver}; " if action.approver else ""
        note += action.proof if action.applied else last.reason
        text = f"{action.words[:1].upper()}{action.words[1:]}"
        yield TimelineRow(told.at, str(last.phase), text, note, told.seq)
    if model.recovered_at:
        yield TimelineRow(model.recovered_at, "ok", "Recovery was read")
    outcomes = [c for c in conclusions if c.verdict in _OUTCOMES]
    verdicts = [c.verdict for c in outcomes]
    for number, c in enumerate(outcomes):
        # what was said before, and that it still clears where it cleared, is no news
        is_passing = c.verdict is Verdict.FIXED_ALERT_DECAYING and Verdict.FIXED in verdicts
        if not is_passing and c.verdict not in verdicts[:number][-1:]:
            yield TimelineRow(c.at, str(c.verdict), VERDICT_WORDS[c.verdict], c.summary, c.seq)


def _tell_entries(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield what a drill did, what failed, and the end."""
    for entry in model.journal.entries:
        data = entry.data
        told = _TOLD.get(str(data.get("event")) if entry.kind == "drill" else entry.kind)
        if told:
            yield TimelineRow(entry.at, *told, str(data.get("reason") or ""), entry.seq)
        elif entry.kind == "notebook" and data.get("status") not in _ENDED_WELL:
            text = f"Notebook {data.get('notebook')}: {data.get('status')}"
            yield TimelineRow(entry.at, "failed", text, str(data.get("error") or ""), entry.seq)


def _tell_observed(model: ReportModel) -> Iterator[TimelineRow]:
    """Yield when an alert fired and no longer did, and which channels were told, once each."""
    told: dict[str, dict[str, datetime]] = {}
    firing: dict[str, str] = {}
    since = model.since or model.begin
    for event in (event for event in list_observed(model) if event.at >= since):
        what, _, state = event.text.rpartition(" ")
        if event.kind == "alert" and "firing" in what and firing.get(what) != state:
            firing[what] = state  # an older window's beginning is no second one
            yield TimelineRow(event.at, "alert", event.text)
        elif event.kind == "notice":
            channel, _, text = event.text.partition(" receives ")
            told.setdefault(text, {}).setdefault(channel, event.at)
    for text, channels in told.items():
        yield TimelineRow(min(channels.values()), "notice", f"{', '.join(channels)} told: {text}")


def list_observed(model: ReportModel) -> list[Event]:
    """Return what the systems' clocks and logs told, each event once, since a drill began."""
    events = [e for c in model.journal.conclusions for e in c.timeline if e.at >= model.begin]
    found = {(f"{e.at:%c}", e.text): e for e in events if e.kind not in ("action", "drill")}
    return sorted(found.values(), key=lambda event: event.at)


def list_open(model: ReportModel) -> list[Open]:
    """Return what is still open, each with the ids of the steps that say so."""
    return [*_open_in_record(model), *_open_actions(model), *_open_steps(model)]


def _open_in_record(model: ReportModel) -> Iterator[Open]:
    if model.damage:
        yield model.damage, ()
    if unreadable := model.journal.unreadable:
        yield f"{len(unreadable)} journal entries could not be understood", ()
    for entry in (entry for entry in model.journal.entries if entry.kind == "interrupted"):
        reason = str(entry.data.get("reason") or "")
        text = f"the run was interrupted at {entry.at:%H:%M:%SZ}"
        yield f"{text}: {reason}" if reason else text, ()
    for entry in (entry for entry in model.journal.entries if entry.kind == "journal_damaged"):
        yield str(entry.data.get("reason")), ()
    for run in (section.runs[-1].run for section in model.sections.values() if section.runs):
        if run.status not in _ENDED_WELL:
            yield f"notebook {run.notebook} ended as {run.status}: {run.error}", ()


def _open_actions(model: ReportModel) -> Iterator[Open]:
    for action in model.waiting:
        until = str(action.result(ActionPhase.PLANNED).get("expires_at", ""))[11:19]
        text = f"{action.first.action} on {action.first.target} is planned and waits for approval"
        yield f"{text}{until and f' until {until}Z'}", (action.first.step,)
    newest = {action.first.step: action for action in model.told}
    done = [action.plan for action in model.told if action.applied]
    for action in model.told:
        plan, last, steps = action.plan, action.last, (action.first.step,)
        if last.phase in (ActionPhase.REFUSED, ActionPhase.FAILED) and newest[last.step] is action:
            yield f"{last.action} was {last.phase}: {last.reason}", steps
        result = action.result(ActionPhase.APPLIED)
        unproven = result.get("unproven") or ()
        if unproven and not any(other.startswith(f"{plan}-settle") for other in done):
            labels = f"{len(unproven)} label{'s' * (len(unproven) != 1)}"
            way = f"runbook settle {plan} --taken|--not-taken [KEY…]"
            yield f"{labels}: nobody can know whether shipped. {way}", steps
        if result.get("waiting"):
            yield f"{plan} is not finished: runbook resume {plan}", steps


def _open_steps(model: ReportModel) -> Iterator[Open]:
    last, conclusions = model.journal.last_applied, model.journal.conclusions
    judged = max((c.seq for c in conclusions if c.section.startswith("06")), default=0)
    # section 6 judged by what is newer than its action: older symptoms are history
    judged_from = last.seq if last and judged > last.seq else 0
    latest = [(s, s.latest) for s in model.steps.values() if s.latest]
    left = [(s, r) for s, r in latest if s.role not in SIGNS or r.seq >= judged_from]
    said: set[Role | None] = set()
    for step, reading in left:
        is_wanted = step.role is Role.RECOVERY or (step.role in SIGNS and not model.is_good)
        if reading.status is Status.BREACH and is_wanted:
            said.add(step.role)
            yield f"{reading.name}: {say_reading(reading)}", (step.id,)
    unread = [s.id for s, r in left if r.status is Status.UNKNOWN and s.role in _READ]
    if unread:
        yield "could not be read:", tuple(unread)
    for step in model.of(Role.CLEARED, Role.CHECKLIST):
        # that it cleared and that it fires are about the same alert
        is_said = step.role is Role.CLEARED and Role.ALERT in said
        if step.latest and step.latest.status.is_open and not is_said:
            yield f"{step.title}: {step.latest.reason}", (step.id,)


def say_reading(reading: Reading) -> str:
    """Write a reading's value for people."""
    return format_value(reading.value, reading.unit)


def shorten(items: Sequence[T], limit: int) -> list[T]:
    """Return the first and the last items, ``limit`` at most."""
    first, last = limit - limit // 2, limit // 2
    return list(items) if len(items) <= limit else [*items[:first], *items[-last:]]
