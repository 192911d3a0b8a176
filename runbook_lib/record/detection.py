"""What began an incident, and how it was detected. From the journal alone."""

from __future__ import annotations

from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

from ..model import ActionPhase, CauseStatus, Event, parse_time
from .folds import Ends
from .view import JournalView

ALERT_FIRED = "the alert fired"
#: The one moment that detects nothing: it says when the cause of the trouble became known.
CAUSE_NAMED = "the cause was named"
#: The mark in which whoever began the trouble says so; see ``list_triggers``.
TRIGGER = "trigger"


class Moment(NamedTuple):
    """A moment of the detection, such as the first look."""

    name: str
    at: datetime


def list_events(journal: JournalView) -> list[Event]:
    """Return what systems told of alerts, channels and triggers, sorted by time, each once."""
    events: dict[tuple[str, str], Event] = {}
    for reading in journal.readings:  # each tells of its whole window
        for event in reading.events:
            events.setdefault((f"{event.at:%c}", event.text), event)
    return sorted(events.values(), key=attrgetter("at"))


def list_triggers(journal: JournalView) -> list[Event]:
    """Return the changes that began the trouble, as far as a system or an entry reports them.

    Sorted by time, each once. Changes after our own first action are left out. The facts of a mark
    ``TRIGGER`` are ``at``, ``text`` and ``source``.
    """
    events = [event for event in list_events(journal) if event.kind == TRIGGER]
    for mark in journal.marks:
        if mark.what == TRIGGER:
            facts = mark.facts
            events.append(Event(parse_time(facts["at"]), TRIGGER, facts["text"], facts["source"]))
    applied = journal.list_actions(ActionPhase.APPLIED)
    if applied:
        events = [event for event in events if event.at < applied[0].at]
    return sorted(events, key=attrgetter("at"))


def list_moments(journal: JournalView, ends: Ends) -> list[Moment]:
    """Return when the trouble began, then the known moments of its detection, sorted by time.

    The list is empty when no trouble was seen.
    """
    if ends.since is None:
        return []
    moments = []
    for event in list_events(journal):
        if event.at < ends.since:
            continue
        if event.kind == "alert" and event.state == "firing" and not event.is_end:
            moments.append(Moment(ALERT_FIRED, event.at))
        if event.kind == "notice" and event.state != "resolved":
            moments.append(Moment("a channel was told", event.at))
    for conclusion in journal.conclusions:
        statuses = [finding.status for finding in conclusion.findings]
        if CauseStatus.SUPPORTED in statuses:
            moments.append(Moment(CAUSE_NAMED, conclusion.at))
    if ends.seen_at is not None:
        moments.append(Moment("the runbook saw it", ends.seen_at))
    earliest: dict[str, Moment] = {}
    for moment in sorted(moments, key=attrgetter("at")):
        earliest.setdefault(moment.name, moment)
    return [Moment("the trouble began", ends.since), *earliest.values()]


def find_detection(moments: list[Moment]) -> Moment | None:
    """Return the moment that detected the trouble; None if none did."""
    return next((moment for moment in moments[1:] if moment.name != CAUSE_NAMED), None)
