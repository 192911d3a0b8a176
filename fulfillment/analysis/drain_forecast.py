"""How fast labels arrive and leave, and when the backlog is empty.

Counts are taken as Poisson: over a short window few labels say little, and the bounds say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Literal

Point = tuple[datetime, float]
"""A time and a value; NaN and infinities are no values."""

Outlook = Literal["empty", "draining", "never", "unknown"]

_Z95 = 1.96


@dataclass(frozen=True, slots=True)
class Rate:
    """How many per minute, with 95 % bounds; ``count`` were seen in ``span_s`` seconds."""

    per_minute: float
    low: float
    high: float
    count: float
    span_s: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits and where it goes.

    Attributes
    ----------
    outlook : ``never``: labels arrive as fast as they leave, or faster; where none waits for the
        moment, surely faster
    minutes_to_empty : with bounds ``low_minutes`` and ``high_minutes``; all None unless draining,
        and ``high_minutes`` None when, within the uncertainty, it may never be empty
    """

    objects: float | None
    oldest_minutes: float | None
    arrival: Rate | None
    drain: Rate | None
    outlook: Outlook
    reason: str
    minutes_to_empty: float | None = None
    low_minutes: float | None = None
    high_minutes: float | None = None


def clean_points(points: Iterable[Point]) -> list[Point]:
    """Return the points that hold a finite value, oldest first."""
    return sorted((at, value) for at, value in points if math.isfinite(value))


def compute_rate(counter: Sequence[Point]) -> Rate | None:
    """Compute the rate of a counter over its samples; a fall is a reset to zero.

    Returns
    -------
    None when fewer than two samples span any time: no sample is never a zero.
    """
    points = clean_points(counter)
    if len(points) < 2 or (span_s := (points[-1][0] - points[0][0]).total_seconds()) <= 0:
        return None
    count = sum(b - a if b >= a else b for (_, a), (_, b) in pairwise(points))
    return _make_rate(count, span_s)


def sum_rates(rates: Iterable[Rate | None]) -> Rate | None:
    """Add rates, such as those of labels and of slips; None when one of them is unknown."""
    known = list(rates)
    found = [rate for rate in known if rate is not None]
    if not found or len(found) != len(known):
        return None
    total = sum(rate.per_minute for rate in found)
    low = math.sqrt(sum((rate.per_minute - rate.low) ** 2 for rate in found))
    high = math.sqrt(sum((rate.high - rate.per_minute) ** 2 for rate in found))
    count, span_s = sum(rate.count for rate in found), min(rate.span_s for rate in found)
    return Rate(total, max(0.0, total - low), total + high, count, span_s)


def compute_backlog(
    *, objects: float | None, oldest_minutes: float | None, arrival: Rate | None, drain: Rate | None
) -> Backlog:
    """Compute when the backlog will be empty.

    Parameters
    ----------
    objects : how many wait now
    oldest_minutes : how long the oldest of them waits
    arrival, drain : how fast objects come and leave; None when it could not be read
    """
    known = Backlog(objects, oldest_minutes, arrival, drain, "unknown", "")
    if objects is None or not math.isfinite(objects):
        return replace(known, objects=None, reason="how many objects wait is not known")
    if objects <= 0:
        if arrival is None or drain is None or arrival.low <= drain.high:
            return replace(known, outlook="empty", reason="nothing waits")
        rates = f"{arrival.per_minute:.1f} arrive, {drain.per_minute:.1f} leave per minute"
        return replace(known, outlook="never", reason=f"nothing waits for the moment, but {rates}")
    if arrival is None or drain is None:
        missing = "arrive" if arrival is None else "leave"
        return replace(known, reason=f"how fast objects {missing} is not known")
    net = drain.per_minute - arrival.per_minute
    if net <= 0:
        rates = f"{arrival.per_minute:.1f} arrive, {drain.per_minute:.1f} leave per minute"
        what = "nothing leaves" if drain.count == 0 else "they arrive as fast as they leave"
        return replace(known, outlook="never", reason=f"{what}: {rates}")
    # The bounds of two independent counts combine as the root of the sum of squares.
    slower = math.hypot(drain.per_minute - drain.low, arrival.high - arrival.per_minute)
    faster = math.hypot(drain.high - drain.per_minute, arrival.per_minute - arrival.low)
    high = objects / (net - slower) if net > slower else None
    return replace(
        known,
        outlook="draining",
        minutes_to_empty=objects / net,
        low_minutes=objects / (net + faster),
        high_minutes=high,
        reason=f"{net:.1f} more leave than arrive per minute"
        + ("" if high is not None else "; so few were counted that it may never be empty"),
    )


def compute_plan_effect(
    backlog: Backlog, *, planned_objects: float, oldest_left_minutes: float | None
) -> tuple[Backlog, float | None]:
    """Compute what moving objects out of the backlog changes.

    Parameters
    ----------
    backlog : as it is now
    planned_objects : how many the plan moves
    oldest_left_minutes : how long the oldest object that stays waits; None when none stays or it
        is not known

    Returns
    -------
    The backlog after the plan, and how many minutes of lag it takes off; None when not known.
    """
    left = None if backlog.objects is None else max(0.0, backlog.objects - planned_objects)
    oldest = 0.0 if left == 0 else oldest_left_minutes
    after = compute_backlog(
        objects=left, oldest_minutes=oldest, arrival=backlog.arrival, drain=backlog.drain
    )
    if backlog.oldest_minutes is None or oldest is None:
        return after, None
    return after, backlog.oldest_minutes - oldest


def _make_rate(count: float, span_s: float) -> Rate:
    # Bounds of a Poisson mean by the square-root transform, which holds near zero too.
    low = max(0.0, math.sqrt(count) - _Z95 / 2) ** 2
    high = (math.sqrt(count + 1) + _Z95 / 2) ** 2
    minutes = span_s / 60
    return Rate(count / minutes, low / minutes, high / minutes, count, span_s)
