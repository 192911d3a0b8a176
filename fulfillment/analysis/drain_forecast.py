"""How fast labels arrive and leave, and when the backlog is empty.

Counts are taken as Poisson: over a short window few labels say little, and the bounds say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal

Point = tuple[datetime, float]
"""A time and a value; NaN and infinities are no values."""

Outlook = Literal["empty", "draining", "never", "unknown"]

_Z95 = 1.96


@dataclass(frozen=True, slots=True)
class Rate:
    """How many per minute, with 95 % bounds."""

    per_minute: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Drain:
    """Where the backlog goes.

    Attributes
    ----------
    outlook : ``never``: labels arrive as fast as they leave, or faster; where none waits for the
        moment, surely faster
    minutes_to_empty : with bounds ``low_minutes`` and ``high_minutes``; all None unless draining,
        and ``high_minutes`` None when, within the uncertainty, it may never be empty
    """

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
    # Bounds of a Poisson mean by the square-root transform, which holds near zero too.
    low = max(0.0, math.sqrt(count) - _Z95 / 2) ** 2
    high = (math.sqrt(count + 1) + _Z95 / 2) ** 2
    minutes = span_s / 60
    return Rate(count / minutes, low / minutes, high / minutes)


def sum_rates(rates: Iterable[Rate | None]) -> Rate | None:
    """Add rates, such as those of labels and of slips; None when one of them is unknown."""
    known = list(rates)
    found = [rate for rate in known if rate is not None]
    if not found or len(found) != len(known):
        return None
    total = sum(rate.per_minute for rate in found)
    low = math.hypot(*(rate.per_minute - rate.low for rate in found))
    high = math.hypot(*(rate.high - rate.per_minute for rate in found))
    return Rate(total, max(0.0, total - low), total + high)


def compute_drain(objects: float | None, arrival: Rate | None, drain: Rate | None) -> Drain:
    """Compute when the backlog will be empty.

    Parameters
    ----------
    objects : how many wait now
    arrival, drain : how fast objects come and leave; None when it could not be read
    """
    if objects is None or not math.isfinite(objects):
        return Drain("unknown", "how many objects wait is not known")
    if objects <= 0 and (arrival is None or drain is None or arrival.low <= drain.high):
        return Drain("empty", "nothing waits")
    if arrival is None or drain is None:
        missing = "arrive" if arrival is None else "leave"
        return Drain("unknown", f"how fast objects {missing} is not known")
    net = drain.per_minute - arrival.per_minute
    rates = f"{arrival.per_minute:.1f} arrive, {drain.per_minute:.1f} leave per minute"
    if objects <= 0:
        return Drain("never", f"nothing waits for the moment, but {rates}")
    if net <= 0:
        what = "they arrive as fast as they leave" if drain.per_minute else "nothing leaves"
        return Drain("never", f"{what}: {rates}")
    # The bounds of two independent counts combine as the root of the sum of squares.
    slower = math.hypot(drain.per_minute - drain.low, arrival.high - arrival.per_minute)
    faster = math.hypot(drain.high - drain.per_minute, arrival.per_minute - arrival.low)
    high = objects / (net - slower) if net > slower else None
    reason = f"{net:.1f} more leave than arrive per minute"
    reason += "" if high else "; so few were counted that it may never be empty"
    return Drain("draining", reason, objects / net, objects / (net + faster), high)
