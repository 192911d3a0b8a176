"""What began an incident, and how it was detected. From the journal alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from ..model import ActionPhase, CauseStatus, Conclusion, Event, parse_time
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
    events: list[Event] = []
    for reading in journal.readings:
        events += reading.events
    for entry in journal.entries:
        if entry.kind == TRIGGER:
            at = parse_time(str(entry.data["at"]))
            text = str(entry.data["text"])
            source = str(entry.data["source"])
            events.append(Event(at, TRIGGER, text, source))
    triggers = {}
    for event in events:
        is_too_late = bool(applied) and event.at >= applied[0].at
        if event.kind == TRIGGER and not is_too_late:
            triggers[event.at, event.text] = event
    return [triggers[key] for key in sorted(triggers)]


def list_moments(journal: JournalView) -> list[Moment]:
    """Return when the trouble began, then the other moments of its detection, sorted by time.

    Moments that are not known are left out. The list is empty when no trouble was seen.
    """
    since = journal.since()
    if since is None:
        return []
    pairs = _list_later_moments(journal, since)
    later = [Moment(name, at) for name, at in pairs if at is not None]
    later.sort(key=lambda moment: moment.at)
    moments = [Moment("the trouble began", since)]
    for moment in later:
        after = moment.at - moments[-1].at
        # A cause that was named before the first sign of trouble took no time.
        moments.append(moment._replace(after=max(after, timedelta(0))))
    return moments


def _list_later_moments(
    journal: JournalView, since: datetime
) -> Iterator[tuple[str, datetime | None]]:
    """Yield name and time of the moments after the beginning; None for a time that is not known."""
    events: list[Event] = []
    for conclusion in journal.conclusions:
        events += [event for event in conclusion.timeline if event.at >= since]
    firing = [e.at for e in events if e.kind == "alert" and e.state == "firing" and not e.is_end]
    yield "the alert fired", min(firing, default=None)
    notices = [e.at for e in events if e.kind == "notice" and e.state != "resolved"]
    yield "a channel was told", min(notices, default=None)
    yield "the runbook saw it", journal.first_look_at()
    named = [conclusion.at for conclusion in journal.conclusions if _names_cause(conclusion)]
    yield CAUSE_NAMED, min(named, default=None)


def _names_cause(conclusion: Conclusion) -> bool:
    return any(finding.status is CauseStatus.SUPPORTED for finding in conclusion.findings)


def find_detection(moments: list[Moment]) -> Moment | None:
    """Return the moment that detected the trouble; None if none did."""
    return next((moment for moment in moments[1:] if moment.name != CAUSE_NAMED), None)
