"""Compute rates and changes from samples. Pure.

A counter that falls was reset to zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from runbook_lib.model import Timestamp

_EPISODE = timedelta(minutes=2)
_BY_CHANCE = 0.01
_Z95 = 1.96
_USUAL_INTERVAL_S = 15.0


class Sample(NamedTuple):
    """One value; it may be NaN or infinite, as in Prometheus."""

    at: Timestamp
    value: float


class Rate(NamedTuple):
    """How many per minute, with 95 % bounds."""

    per_minute: float
    low: float
    high: float


def clean(samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples that hold a finite value, oldest first."""
    return sorted(sample for sample in samples if math.isfinite(sample.value))


def compute_interval_s(samples: Sequence[Sample]) -> float:
    """Return the usual time between two samples in seconds; 15 when there are not two."""
    if len(samples) < 2:
        return _USUAL_INTERVAL_S
    gaps = [new.at - old.at for old, new in pairwise(samples)]
    return median(gap.total_seconds() for gap in gaps)


def list_growth(samples: Iterable[Sample]) -> list[Sample]:
    """Return when a counter grew, and by how much."""
    growth = []
    for old, new in pairwise(samples):
        grown = new.value
        was_reset = new.value < old.value
        if not was_reset:
            grown -= old.value
        if grown > 0:
            growth.append(Sample(new.at, grown))
    return growth


def compute_increase(samples: Iterable[Sample], since: datetime) -> float:
    """Return by how much a counter grew after ``since``."""
    return math.fsum(grown.value for grown in list_growth(samples) if grown.at > since)


def find_end(failed: Iterable[Sample], succeeded: Iterable[Iterable[Sample]]) -> datetime | None:
    """Return when the failures ended: the time of the last one. None while they may go on.

    They have ended if so many successes in a row had a probability under 1 % at the failures'
    earlier rate. After a fault that let nothing through, a few successes are enough.

    Parameters
    ----------
    failed : a counter that grew at least once
    succeeded : counters of what the fault prevents
    """
    failures = list_growth(failed)
    last = failures[-1].at
    start = last - _EPISODE
    failed_count = sum(failure.value for failure in failures if failure.at > start)
    let_through = 0.0
    since = 0.0
    for success in _join_growth(succeeded):
        if success.at > last:
            since += success.value
        elif success.at > start:
            let_through += success.value
    success_rate = (let_through + 1) / (let_through + failed_count + 1)
    has_ended = success_rate**since < _BY_CHANCE
    return last if has_ended else None


def find_beginning(counters: Iterable[Iterable[Sample]]) -> datetime | None:
    """Return when the latest growth began: the first one after two minutes without any."""
    times = sorted(grown.at for grown in _join_growth(counters))
    if not times:
        return None
    began = times[0]
    for last, at in pairwise(times):
        if at - last > _EPISODE:
            began = at
    return began


def _join_growth(counters: Iterable[Iterable[Sample]]) -> list[Sample]:
    growth: list[Sample] = []
    for samples in counters:
        growth += list_growth(samples)
    return growth


def compute_rate(*counters: Iterable[Sample]) -> Rate | None:
    """Compute the rate of counters over their samples, with the bounds of Poisson counts.

    Parameters
    ----------
    counters : their rates are added, such as those of labels and of slips

    Returns
    -------
    None unless every counter has two samples at different times, and there is one counter at
    least: a missing sample is never a zero.
    """
    if not counters:
        return None
    total = 0.0
    below = 0.0
    above = 0.0
    for counter in counters:
        samples = clean(counter)
        if not samples or samples[-1].at == samples[0].at:
            return None
        start = samples[0].at
        duration = samples[-1].at - start
        minutes = duration.total_seconds() / 60
        count = compute_increase(samples, start)
        # Bounds of a Poisson mean by the square-root transform, which holds near zero too.
        low_root = max(0.0, math.sqrt(count) - _Z95 / 2)
        high_root = math.sqrt(count + 1) + _Z95 / 2
        low = low_root**2
        high = high_root**2
        # Those of two independent counts combine as the root of the sum of squares.
        below = math.hypot(below, (count - low) / minutes)
        above = math.hypot(above, (high - count) / minutes)
        total += count / minutes
    return Rate(
        per_minute=total,
        low=max(0.0, total - below),
        high=total + above,
    )
