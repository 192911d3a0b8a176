"""One timeline on one clock: alerts, turning points, restarts, first errors, our actions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter

from runbook_lib.model import Event

from ..clients.prometheus import Sample
from .log_groups import LogGroup
from .samples import clean

_MAX_EVENTS = 200
_MAX_CHARS = 300
_CLOCK = "prometheus"  # of every sample


def find_turns(samples: Iterable[Sample], threshold: float, *, name: str, unit: str) -> list[Event]:
    """Find where a series rises over a threshold, where it is highest, where it falls again."""
    told: list[tuple[datetime, str]] = []
    for is_over, in_a_row in groupby(clean(samples), lambda sample: sample.value > threshold):
        run = list(in_a_row)
        (at, value), (peak_at, peak) = run[0], max(run, key=itemgetter(1))
        if is_over:
            told.append((at, f"is over {threshold:g} {unit}: {value:g}"))
            told.append((peak_at, f"is highest: {peak:g} {unit}"))
        elif told:
            told.append((at, f"is back to {value:g} {unit}"))
    return [Event(at, name, f"{name} {text}", _CLOCK) for at, text in told]


def find_alert_changes(samples: Iterable[Sample], *, name: str, gap_s: float) -> list[Event]:
    """Find when an alert, which is sampled while it lasts, begins and ends.

    Parameters
    ----------
    samples : one for each time at which it was seen; zero means that it was seen not to be
    gap_s : a longer time without a sample means that it ended; twice the sampling step is right

    Notes
    -----
    The newest run has no end: whether it goes on is for the present to say.
    """
    told: list[tuple[datetime, str]] = []
    last: datetime | None = None
    for at, value in clean(samples):
        if last and (not value or (at - last).total_seconds() > gap_s):
            told.append((last, "ends"))
            last = None
        if value:
            told += [] if last else [(at, "begins")]
            last = at
    return [Event(at, "alert", f"{name} {what}", _CLOCK) for at, what in told]


def find_first_errors(groups: Iterable[LogGroup], *, source: str) -> list[Event]:
    """Return the first occurrence of each kind of error and of warning in a log."""
    return [
        Event(group.first, group.level, f"{group.count}× from here: {group.example}", source)
        for group in groups
        if group.level in ("error", "warning") and group.first is not None
    ]


def merge_events(
    events: Iterable[Event],
    *,
    since: datetime | None = None,
    skews_s: Mapping[str, float] | None = None,
) -> list[Event]:
    """Put events in order on this machine's clock, each on one line, the newest 200 of them.

    Parameters
    ----------
    since : leave out what is older
    skews_s : by source, how many seconds its clock is ahead of ours
    """
    skews = skews_s or {}
    ours = {
        (e.at - timedelta(seconds=skews.get(e.source, 0)), e.kind, _shorten(e.text), e.source)
        for e in events
    }
    return [Event(*one) for one in sorted(ours) if since is None or one[0] >= since][-_MAX_EVENTS:]


def _shorten(text: str) -> str:
    return " ".join(text.split())[:_MAX_CHARS]
