"""What began an incident, and how it was detected. From the journal alone."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from ..model import ActionPhase, CauseStatus, Event, parse_time
from .folds import Ends
from .view import JournalView

#: The one moment that detects nothing: it says when the cause of the trouble became known.
CAUSE_NAMED = "the cause was named"
#: Kind of the journal's entries in which whoever began the trouble says so; see ``list_triggers``.
TRIGGER = "trigger"


class Moment(NamedTuple):
    """A moment of the detection, such as the first look."""

    name: str
    at: datetime


def list_triggers(journal: JournalView) -> list[Event]:
    """Return the changes that began the trouble, as far as a system or an entry reports them.

    Sorted by time, each once. Changes after our own first action are left out. The data of an entry
    of the kind ``TRIGGER`` has ``at``, ``text`` and ``source``.
    """
    applied = journal.list_actions(ActionPhase.APPLIED)
    events: list[Event] = []
    for reading in journal.readings:
        events += reading.events
    for entry in journal.entries:
        if entry.kind == TRIGGER:
            text, source = str(entry.data["text"]), str(entry.data["source"])
            events.append(Event(parse_time(str(entry.data["at"])), TRIGGER, text, source))
    triggers = {}
    for event in events:
        is_too_late = bool(applied) and event.at >= applied[0].at
        if event.kind == TRIGGER and not is_too_late:
            triggers[event.at, event.text] = event
    return [triggers[key] for key in sorted(triggers)]


def list_moments(journal: JournalView, ends: Ends) -> list[Moment]:
    """Return when the trouble began, then the other known moments of its detection, by time.

    The list is empty when no trouble was seen.
    """
    if ends.since is None:
        return []
    times: list[tuple[datetime, str]] = []
    if ends.seen_at is not None:
        times.append((ends.seen_at, "the runbook saw it"))
    for conclusion in journal.conclusions:
        if any(finding.status is CauseStatus.SUPPORTED for finding in conclusion.findings):
            times.append((conclusion.at, CAUSE_NAMED))
        for event in conclusion.timeline:
            if event.at < ends.since:
                continue
            if event.kind == "alert" and event.state == "firing" and not event.is_end:
                times.append((event.at, "the alert fired"))
            elif event.kind == "notice" and event.state != "resolved":
                times.append((event.at, "a channel was told"))
    moments = [Moment("the trouble began", ends.since)]
    for at, name in sorted(times):
        if name not in [moment.name for moment in moments]:
            moments.append(Moment(name, at))
    return moments


def find_detection(moments: list[Moment]) -> Moment | None:
    """Return the moment that detected the trouble; None if none did."""
    return next((moment for moment in moments[1:] if moment.name != CAUSE_NAMED), None)
