"""What began an incident, and how it was detected. From the journal alone."""

from __future__ import annotations

from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

from ..model import ActionPhase, Event, parse_time
from .view import JournalView

#: The mark in which whoever began the trouble says so; see ``list_triggers``.
TRIGGER = "trigger"


class Moment(NamedTuple):
    """What detected the trouble, and when.

    ``words`` are those that follow how long it took.
    """

    words: str
    at: datetime


def list_events(journal: JournalView) -> list[Event]:
    """Return what systems told of alerts, channels and triggers, sorted by time, each once."""
    events: dict[tuple[str, str], Event] = {}
    for reading in journal.readings:  # each tells of its whole window
        for event in reading.events:
            events.setdefault((f"{event.at:%c}", event.text), event)
    return sorted(events.values(), key=attrgetter("at"))


def is_firing(event: Event) -> bool:
    """Tell whether an alert began to fire."""
    return event.kind == "alert" and event.state == "firing" and not event.is_end


def list_triggers(journal: JournalView) -> list[Event]:
    """Return the changes that began the trouble, as far as a system or a mark reports them.

    Sorted by time, each once. Changes after our own first action are left out. The facts of a mark
    ``TRIGGER`` are ``at``, ``text`` and ``source``.
    """
    events = [event for event in list_events(journal) if event.kind == TRIGGER]
    for mark in journal.marks:
        if mark.what == TRIGGER:
            facts = mark.facts
            events.append(Event(parse_time(facts["at"]), TRIGGER, facts["text"], facts["source"]))
    for action in journal.list_actions(ActionPhase.APPLIED):
        events = [event for event in events if event.at < action.at]
    return sorted(events, key=attrgetter("at"))


def find_detection(
    journal: JournalView, since: datetime | None, seen_at: datetime | None
) -> Moment | None:
    """Return the first moment at which an alert, a channel or the runbook told of the trouble."""
    moments = []
    for event in list_events(journal):
        if is_firing(event):
            moments.append(Moment("until the alert fired", event.at))
        elif event.kind == "notice" and event.state != "resolved":
            moments.append(Moment("until a channel was told", event.at))
    if seen_at is not None:
        moments.append(Moment("until the runbook saw it", seen_at))
    known = [moment for moment in moments if since and moment.at >= since]
    return min(known, key=attrgetter("at"), default=None)
