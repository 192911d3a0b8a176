"""What began an incident, and how it was detected. From the journal alone."""

from __future__ import annotations

from datetime import datetime
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from ..model import ActionPhase, Event, parse_time
from .folds import Ends
from .view import JournalView

#: The mark in which whoever began the trouble says so; see ``list_triggers``.
TRIGGER = "trigger"


class Moment(NamedTuple):
    """What detected the trouble, and when."""

    name: str
    at: datetime


def list_triggers(journal: JournalView) -> list[Event]:
    """Return the changes that began the trouble, as far as a system or a mark reports them.

    Sorted by time, each once. Changes after our own first action are left out. The facts of a mark
    ``TRIGGER`` are ``at``, ``text`` and ``source``.
    """
    events = list(chain.from_iterable(reading.events for reading in journal.readings))
    for mark in journal.marks:
        if mark.what == TRIGGER:
            facts = mark.facts
            events.append(Event(parse_time(facts["at"]), TRIGGER, facts["text"], facts["source"]))
    applied = journal.list_actions(ActionPhase.APPLIED)
    triggers = {}
    for event in events:
        if event.kind == TRIGGER and not (applied and event.at >= applied[0].at):
            triggers[event.at, event.text] = event
    return [triggers[key] for key in sorted(triggers)]


def find_detection(journal: JournalView, ends: Ends) -> Moment | None:
    """Return the first moment at which an alert, a channel or the runbook told of the trouble."""
    if ends.since is None:
        return None
    moments = []
    for conclusion in journal.conclusions:
        for event in conclusion.timeline:
            if event.at < ends.since:
                continue
            if event.kind == "alert" and event.state == "firing" and not event.is_end:
                moments.append(Moment("the alert fired", event.at))
            if event.kind == "notice" and event.state != "resolved":
                moments.append(Moment("a channel was told", event.at))
    if ends.seen_at is not None:
        moments.append(Moment("the runbook saw it", ends.seen_at))
    return min(moments, key=attrgetter("at"), default=None)
