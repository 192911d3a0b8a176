"""One timeline on one clock: alerts, turning points, restarts, first errors, our actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from runbook_lib.model import Event

from .drain_forecast import Point, clean_points
from .log_groups import LogGroups


def find_turning_points(
    points: Sequence[Point], threshold: float, *, name: str, unit: str = "", source: str = ""
) -> list[Event]:
    """Find where a series rises over a threshold, where it is highest, where it falls again."""
    events: list[Event] = []
    over: list[Point] = []
    unit = f" {unit}" if unit else ""

    def say(at: datetime, text: str) -> None:
        events.append(Event(at, name, f"{name} {text}", source))

    def say_peak() -> None:
        at, value = max(over, key=lambda point: point[1])
        say(at, f"is highest: {value:g}{unit}")

    for at, value in clean_points(points):
        if value > threshold:
            if not over:
                say(at, f"is over {threshold:g}{unit}: {value:g}")
            over.append((at, value))
        elif over:
            say_peak()
            say(at, f"is back to {value:g}{unit}")
            over = []
    if over:
        say_peak()
    return events


def find_state_changes(
    points: Sequence[Point], *, name: str, gap_s: float, source: str = ""
) -> list[Event]:
    """Find when a state that is sampled while it lasts, such as an alert, begins and ends.

    Parameters
    ----------
    points : one per sample at which the state was seen; zero means that it was seen not to be
    gap_s : a longer time without a sample means that it ended; twice the sampling step is right

    Notes
    -----
    The newest run has no end: whether it goes on is for the present to say.
    """
    events: list[Event] = []
    last: datetime | None = None
    for at, value in clean_points(points):
        if last is not None and (not value or (at - last).total_seconds() > gap_s):
            events.append(Event(last, name, f"{name} ends", source))
            last = None
        if value:
            if last is None:
                events.append(Event(at, name, f"{name} begins", source))
            last = at
    return events


def find_first_errors(groups: LogGroups, *, source: str) -> list[Event]:
    """Return the first occurrence of each kind of error and of warning in a log."""
    return [
        Event(group.first, group.level, f"{group.count}× from here: {group.example}", source)
        for group in groups.groups
        if group.level in ("error", "warning") and group.first is not None
    ]


def merge_events(
    *groups: Iterable[Event],
    since: datetime | None = None,
    until: datetime | None = None,
    skews_s: Mapping[str, float] | None = None,
    limit: int = 500,
) -> list[Event]:
    """Put events in order on this machine's clock.

    Parameters
    ----------
    since, until : leave out what lies outside
    skews_s : by source, how many seconds its clock is ahead of ours
    limit : at most so many, the newest
    """
    skews = skews_s or {}
    events = [
        replace(event, at=event.at - timedelta(seconds=skews.get(event.source, 0.0)))
        for group in groups
        for event in group
    ]
    kept = [e for e in events if (not since or e.at >= since) and (not until or e.at <= until)]
    return sorted(set(kept), key=lambda e: (e.at, e.kind, e.text))[-limit:]
