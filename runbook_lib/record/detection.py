"""What began an incident, and how it was detected, from the journal alone."""

from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

from ..model import ActionPhase, Event, parse_time
from .view import JournalView

#: The mark, with ``at``, ``text`` and ``source``, of whoever began the trouble.
TRIGGER = "trigger"


class Moment(NamedTuple):
    words: str  # they follow how long the detection took
    at: datetime


def list_events(journal: JournalView) -> list[Event]:
    """Return what systems reported of alerts, channels and triggers, by time, each once."""
    events: dict[tuple[str, str], Event] = {}
    for reading in journal.readings:  # windows overlap
        for event in reading.events:
            events.setdefault((f"{event.at:%c}", event.text), event)
    return sorted(events.values(), key=attrgetter("at"))


def is_firing(event: Event) -> bool:
    return event.kind == "alert" and event.state == "firing" and not event.is_end


def list_triggers(journal: JournalView) -> list[Event]:
    """Return the changes that began the trouble, as systems and marks report them, by time.

    Changes after our own first action are left out.
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
    """Return when an alert, a channel or the runbook (``seen_at``) first reported the trouble."""
    moments = []
    for event in list_events(journal):
        if is_firing(event):
            moments.append(Moment("until the alert fired", event.at))
        elif event.kind == "notice" and event.state != "resolved":
            moments.append(Moment("until a channel was notified", event.at))
    if seen_at is not None:
        moments.append(Moment("until the runbook noticed it", seen_at))
    known = [moment for moment in moments if since and moment.at >= since]
    return min(known, key=attrgetter("at"), default=None)
