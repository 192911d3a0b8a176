"""What began an incident, how it was detected, and where time was lost. From the journal alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from ..model import SYMPTOMS, ActionPhase, CauseStatus, Conclusion, Event
from .view import JournalView

_FASTER = {
    "the alert fired": "The alert's threshold and its `for` decide that.",
    "a channel was told": "The alert's route decides that: group_wait, and its receivers.",
    "somebody looked": "A receiver that wakes a person, or `runbook serve`, is faster.",
    "the cause was named": "A look that names the cause right after the first breach is faster.",
}


class Moment(NamedTuple):
    """One step of the detection. ``after`` is the time since the step before it; None: the first.

    A step that was earlier than the one before it took no time.
    """

    name: str
    at: datetime
    after: timedelta | None = None


def list_triggers(journal: JournalView) -> list[Event]:
    """Return the changes that began the trouble, as far as a system reports them.

    Sorted by time, each once. What was changed after our own first action is left out.
    """
    applied = journal.list_actions(ActionPhase.APPLIED)
    events: dict[tuple[datetime, str], Event] = {}
    for reading in journal.readings:
        for event in reading.events:
            is_own = bool(applied) and event.at >= applied[0].at
            if event.kind == "trigger" and not is_own:
                events[event.at, event.text] = event
    return [events[key] for key in sorted(events)]


def list_moments(journal: JournalView) -> list[Moment]:
    """Return the moments from the beginning of the trouble to the first cause that was named.

    What is not known is left out. Empty: no trouble was seen, or another incident saw it first.
    """
    since = journal.since()
    if since is None or journal.is_continued:
        return []
    moments = [Moment("the trouble began", since)]
    newest = since
    for name, at in _list_later(journal, since):
        if at is not None:
            moments.append(Moment(name, at, max(at - newest, timedelta(0))))
            newest = max(newest, at)
    return moments


def _list_later(journal: JournalView, since: datetime) -> Iterator[tuple[str, datetime | None]]:
    events: list[Event] = []
    for conclusion in journal.conclusions:
        events += [event for event in conclusion.timeline if event.at >= since]
    firing = [e.at for e in events if e.kind == "alert" and e.text.endswith("firing begins")]
    yield "the alert fired", min(firing, default=None)
    notices = [e.at for e in events if e.kind == "notice" and not e.text.endswith("resolved")]
    yield "a channel was told", min(notices, default=None)
    looks = [reading.at for reading in journal.breaches(SYMPTOMS)]
    yield "somebody looked", min(looks, default=None)
    named = [conclusion.at for conclusion in journal.conclusions if _names_cause(conclusion)]
    yield "the cause was named", min(named, default=None)


def _names_cause(conclusion: Conclusion) -> bool:
    return any(finding.status is CauseStatus.SUPPORTED for finding in conclusion.findings)


def find_slowest(moments: list[Moment]) -> Moment | None:
    """Return the step of the detection that took longest; None when none took any time."""
    later = [moment for moment in moments if moment.after]
    return max(later, key=_get_after, default=None)


def _get_after(moment: Moment) -> timedelta:
    return moment.after or timedelta(0)


def say_faster(moment: Moment) -> str:
    """Say what would make a step of the detection faster."""
    return _FASTER.get(moment.name, "")
