"""What the first screen and the timeline of a report say, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime

from ..analysis.causes import CAUSES
from ..model import ActionPhase, Json, Reading, Status, Verdict
from ..record.log import Entry
from ..show.text import (
    VERDICT_WORDS,
    format_bytes,
    format_duration,
    format_value,
)
from .deeds import count_moved, say_deeds
from .story import ActionStory, Story, parse_at

__all__ = [
    "Event",
    "Fact",
    "format_clock",
    "list_events",
    "list_facts",
    "list_open",
    "write_headline",
]

_ENDED_WELL = ("done", "stopped_at_plan")
_DRILL_FACTS = ("scenario", "seconds", "by", "steps", "reason", "verdict")
_READ = ("2.", "3.", "5.", "6.")
_NO_CAUSE = "the cause is not proven"


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the first screen; ``is_wide``: it holds a sentence, not a value."""

    name: str
    text: str
    note: str = ""
    is_wide: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the timeline; ``tone`` is a word that a status pill knows."""

    at: datetime
    tone: str
    text: str
    note: str
    seq: int | None


def write_headline(story: Story) -> str:
    """Return the report's title: the verdict and the cause."""
    verdict = story.verdict
    if verdict is None:
        return "Nothing was concluded yet" if story.entries else "Nothing was recorded yet"
    words = VERDICT_WORDS[verdict].partition(";")[0]
    if verdict is Verdict.HEALTHY:
        return f"{words}: no label waits too long"
    if verdict is Verdict.UNKNOWN and not story.causes:
        return f"{words}: what a verdict needs could not be read"
    causes = " and ".join(CAUSES[c.name].words for c in story.causes[:2])
    return f"{words}: {causes or _NO_CAUSE}"


def format_clock(at: datetime, today: date) -> str:
    """Write a time of day, with its date only when that is not the report's day."""
    return f"{at:%H:%M:%SZ}" if at.date() == today else f"{at:%Y-%m-%d %H:%M:%SZ}"


def list_facts(story: Story, *, today: date) -> list[Fact]:
    """Return what the first screen must say, in order; nothing is left out, only said unknown."""
    return [
        _what_happened(story),
        _since_when(story, today),
        _how_many(story),
        _why(story),
        Fact("Tickets", ", ".join(story.tickets) or "none named"),
        _what_was_done(story),
    ]


def list_open(story: Story) -> list[tuple[str, tuple[str, ...]]]:
    """Return what is still open, each with the ids of the steps that say so."""
    return [*_open_in_record(story), *_open_actions(story), *_open_steps(story)]


def list_events(story: Story) -> list[Event]:
    """Return the timeline: every change of a reading's status, and everything that was done."""
    return sorted(_events(story), key=lambda event: (event.at, event.seq or 0))


def _events(story: Story) -> Iterator[Event]:
    if story.since is not None:
        yield Event(story.since, "breach", "The first waiting began", "as a reading says", None)
    for step in story.steps.values():
        status = None
        for entry, reading in step.readings:
            if reading.status is not status and (status or reading.status is not Status.OK):
                text = f"{step.id} {reading.name}: {_value(reading)}"
                yield Event(entry.at, str(reading.status), text, reading.reason, entry.seq)
            status = reading.status
    for action in story.actions:
        for entry, phase in action.phases:
            text = f"{phase.step} {phase.action} on {phase.target}"
            yield Event(entry.at, str(phase.phase), text, phase.reason, entry.seq)
    for entry, conclusion in story.conclusions:
        text = f"{conclusion.section}: {VERDICT_WORDS[conclusion.verdict]}"
        yield Event(entry.at, str(conclusion.verdict), text, conclusion.summary, entry.seq)
    for entry, text in story.notes:
        yield Event(entry.at, "note", text, "", entry.seq)
    yield from _observed_events(story)
    for entry in story.entries:
        yield from _other_event(entry)


def _observed_events(story: Story) -> Iterator[Event]:
    """Yield what the newest timeline of a conclusion says of the systems; ours stand here already.

    A row that has not the shape of one is left to the journal.
    """
    told = [(e, c.detail["timeline"]) for e, c in story.conclusions if c.detail.get("timeline")]
    seq, rows = (told[-1][0].seq, told[-1][1]) if told else (None, [])
    for row in rows if isinstance(rows, list) else []:
        at = parse_at(row.get("at")) if isinstance(row, dict) else None
        if at is not None and row.get("kind") not in ("action", "drill"):
            note = f"by the clock of {row['source']}" if row.get("source") else ""
            yield Event(at, str(row.get("kind")), str(row.get("text")), note, seq)


def _other_event(entry: Entry) -> Iterator[Event]:
    if entry.kind == "interrupted":
        yield Event(entry.at, "failed", "The run was interrupted", "", entry.seq)
    elif entry.kind == "torn_tail":
        note = f"kept as {entry.data.get('kept_as')}"
        yield Event(
            entry.at, "unknown", "A torn last line of the journal was set aside", note, entry.seq
        )
    elif entry.kind == "notebook" and entry.data.get("error"):
        text = f"Notebook {entry.data.get('notebook')}: {entry.data.get('status')}"
        yield Event(entry.at, "note", text, str(entry.data["error"]), entry.seq)
    elif entry.kind == "closed":
        yield Event(entry.at, "closed", "The incident was closed", "", entry.seq)
    elif entry.kind == "drill" and (event := entry.data.get("event")):
        told = {k: v for k, v in entry.data.items() if k in _DRILL_FACTS and v not in (None, [])}
        note = ", ".join(f"{name} {_say(value)}" for name, value in told.items())
        yield Event(entry.at, "drill", str(event).replace("_", " "), note, entry.seq)


def _open_in_record(story: Story) -> Iterator[tuple[str, tuple[str, ...]]]:
    if story.damage:
        yield story.damage, ()
    if story.unreadable:
        yield f"{len(story.unreadable)} journal entries could not be understood", ()
    for entry in story.entries:
        if entry.kind == "interrupted":
            yield f"the run was interrupted at {entry.at:%H:%M:%SZ}", ()
    for section in story.sections:
        if section.runs and section.runs[-1].status not in _ENDED_WELL:
            run = section.runs[-1]
            yield f"notebook {run.notebook} ended as {run.status}: {run.error}", ()


def _open_actions(story: Story) -> Iterator[tuple[str, tuple[str, ...]]]:
    for action in story.actions:
        first, last = action.first, action.last
        if action.is_waiting:
            yield (
                f"{first.action} on {first.target} is planned and waits for approval",
                (first.step,),
            )
        elif last.phase in (ActionPhase.REFUSED, ActionPhase.FAILED):
            yield f"{first.action} was {last.phase}: {last.reason}", (first.step,)
        yield from _open_rows(story, action)


def _open_rows(story: Story, action: ActionStory) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Say which labels of a release wait for a person, or for its end."""
    result = action.result(ActionPhase.APPLIED)
    plan, unproven = str(result.get("plan", "")), result.get("unproven") or ()
    done = [str(a.result(ActionPhase.APPLIED).get("plan", "")) for a in story.actions]
    if unproven and not any(other.startswith(f"{plan}-settle") for other in done):
        yield (
            f"{len(unproven)} label{'s' * (len(unproven) != 1)}: nobody can know whether shipped. "
            f"runbook settle {plan} --taken|--not-taken [KEY…]",
            (action.first.step,),
        )
    if result.get("waiting"):
        yield f"{plan} is not finished: runbook resume {plan}", (action.first.step,)


def _open_steps(story: Story) -> Iterator[tuple[str, tuple[str, ...]]]:
    judged_from = _find_judged_action(story)
    open_ones = [
        (s.id, s.latest)
        for s in story.steps.values()
        if s.latest is not None
        and s.latest.status is not Status.OK
        # section 6 judged by what is newer than its action: older symptoms are history
        and not (s.id[:2] in ("2.", "3.") and s.readings[-1][0].seq < judged_from)
    ]
    told: set[str] = set()
    for step, reading in open_ones:
        is_symptom = step[:2] in ("2.", "3.") and not _ended_well(story)
        if reading.status is Status.BREACH and (is_symptom or step == "6.5"):
            told.add(step)
            yield f"{reading.name}: {_value(reading)}", (step,)
    unread = [i for i, r in open_ones if r.status is Status.UNKNOWN and i[:2] in _READ]
    if unread:
        yield "could not be read:", tuple(unread)
    for step, reading in open_ones:
        # 7.1 and 2.1 are about the same alert
        if step.startswith("7.") and not (step == "7.1" and "2.1" in told):
            yield f"{story.steps[step].title}: {reading.reason}", (step,)


def _find_judged_action(story: Story) -> int:
    """Return the entry of the last action that section 6 has judged; 0 without one."""
    judged = max((e.seq for e, c in story.conclusions if c.section.startswith("06")), default=0)
    applied = [e.seq for a in story.actions for e, p in a.phases if p.phase is ActionPhase.APPLIED]
    last = max(applied, default=0)
    return last if judged > last else 0


def _what_happened(story: Story) -> Fact:
    about = [c for _, c in story.conclusions if c.section[:2] in ("02", "03", "05")]
    incidents = [c for c in about if c.verdict is Verdict.INCIDENT]
    if incidents:
        return Fact("What happened", incidents[0].summary, is_wide=True)
    breaches = [r for _, r in story.readings if r.status is Status.BREACH]
    if breaches:
        text = "; ".join(f"{r.name}: {_value(r)}" for r in breaches[:2])
        return Fact("What happened", text, breaches[0].reason, is_wide=True)
    text = about[-1].summary if about else "nothing was read yet"
    return Fact("What happened", text, is_wide=True)


def _since_when(story: Story, today: date) -> Fact:
    since, end = story.since, story.recovered_at
    if since is None:
        return Fact("Since", "no breach was seen")
    if end is not None and end > since:
        text = f"{format_clock(since, today)} to {format_clock(end, today)}"
        return Fact("Since", text, f"{format_duration(end - since)} until recovery was read (6.5)")
    last = story.entries[-1].at
    note = f"{format_duration(last - since)} up to the last journal entry; recovery was not read"
    return Fact("Since", format_clock(since, today), note)


def _how_many(story: Story) -> Fact:
    step = story.steps.get("2.3")
    counts = [
        r.value
        for _, r in (step.readings if step else [])
        if isinstance(r.value, int | float) and not isinstance(r.value, bool)
    ]
    moved = sum(count_moved(action) for action in story.actions)
    note = f"{moved:,} released by move" if moved else ""
    if not counts:
        return Fact("Labels", "not known: 2.3 was not read", note)
    return Fact(
        "Labels",
        f"{max(counts):,g} waited at most",
        f"{counts[-1]:,g} at the last reading; {note}".rstrip("; "),
    )


def _why(story: Story) -> Fact:
    if not story.causes:
        concluded = any(c.findings for _, c in story.conclusions)
        return Fact("Cause", _NO_CAUSE if concluded else "not looked for yet (section 5)")
    text = "; ".join(CAUSES[c.name].words for c in story.causes)
    return Fact("Cause", text[:1].upper() + text[1:], story.causes[0].reason)


def _what_was_done(story: Story) -> Fact:
    done = [a for a in story.actions if a.is_done]
    if not done:
        waiting = sum(1 for a in story.actions if a.is_waiting)
        note = f"{waiting} planned, waiting for approval" if waiting else ""
        return Fact("What was done", "nothing was changed", note, is_wide=True)
    # what an exercise made and took back again is told below
    main = [a for a in done if a.first.step.startswith("6.")] or done
    return Fact("What was done", say_deeds(main), is_wide=True)


def _say(value: Json) -> str:
    """Return a small JSON value in words."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {format_value(part)}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else format_value(value)


def _value(reading: Reading) -> str:
    if reading.unit == "bytes" and isinstance(reading.value, int | float):
        return format_bytes(reading.value)
    return format_value(reading.value, reading.unit)


def _ended_well(story: Story) -> bool:
    return story.verdict in (Verdict.FIXED, Verdict.HEALTHY, Verdict.FIXED_ALERT_DECAYING)
