"""What began an incident, and how it was detected. From the journal alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from ..model import ActionPhase, CauseStatus, Event, parse_time
from .view import JournalView

#: The one moment that detects nothing: it says when the cause of the trouble became known.
CAUSE_NAMED = "the cause was named"
#: Kind of the journal's entries in which whoever began the trouble says so; see ``list_triggers``.
TRIGGER = "trigger"


class Moment(NamedTuple):
    """A moment of the detection, such as the first look.

    Attributes
    ----------
    after : the time from the moment before it in the list; None for the first moment
    """

    name: str
    at: datetime
    after: timedelta | None = None


def list_triggers(journal: JournalView) -> list[Event]:
    """Return the changes that began the trouble, as far as a system or an entry reports them.

    Sorted by time, each once. Changes after our own first action are left out. The data of an entry
    of the kind ``TRIGGER`` has ``at``, ``text`` and ``source``.
    """
    applied = journal.list_actions(ActionPhase.APPLIED)
    reported: list[Event] = []
    for reading in journal.readings:
        reported += reading.events
    for entry in journal.entries:
        if entry.kind == TRIGGER:
            at = parse_time(str(entry.data["at"]))
            reported.append(Event(at, TRIGGER, str(entry.data["text"]), str(entry.data["source"])))
    events: dict[tuple[datetime, str], Event] = {}
    for event in reported:
        is_too_late = bool(applied) and event.at >= applied[0].at
        if event.kind == TRIGGER and not is_too_late:
            events[event.at, event.text] = event
    return [events[key] for key in sorted(events)]


def list_moments(journal: JournalView) -> list[Moment]:
    """Return when the trouble began, then the other moments of its detection, sorted by time.

    Moments that are not known are left out. The list is empty when no trouble was seen, or when the
    trouble goes on from an earlier incident.
    """
    since = journal.since()
    if since is None or journal.is_continued:
        return []
    later: dict[str, datetime] = {}

    def note(name: str, at: datetime) -> None:
        later[name] = min(at, later.get(name, at))

    for conclusion in journal.conclusions:
        for event in conclusion.timeline:
            is_over = event.is_end or event.state == "resolved"
            if event.at < since or is_over:
                continue
            if event.kind == "alert" and event.state == "firing":
                note("the alert fired", event.at)
            elif event.kind == "notice":
                note("a channel was told", event.at)
        if any(finding.status is CauseStatus.SUPPORTED for finding in conclusion.findings):
            note(CAUSE_NAMED, conclusion.at)
    first_look_at = journal.first_look_at()
    if first_look_at is not None:
        note("the first look", first_look_at)
    moments = [Moment("the trouble began", since)]
    for name, at in sorted(later.items(), key=lambda item: item[1]):
        # A cause that was named before the first sign of trouble took no time.
        after = max(at - moments[-1].at, timedelta(0))
        moments.append(Moment(name, at, after))
    return moments


def find_detection(moments: list[Moment]) -> Moment | None:
    """Return the moment that detected the trouble; None if none did."""
    return next((moment for moment in moments[1:] if moment.name != CAUSE_NAMED), None)
