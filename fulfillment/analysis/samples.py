"""What samples say: of any series, and of counters, whose fall is a reset to zero. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from ..clients.http_systems import Sample, Series

_EPISODE = timedelta(minutes=2)
_BY_CHANCE = 0.01
_Z95 = 1.96


class Rate(NamedTuple):
    """How many per minute, with 95 % bounds."""

    per_minute: float
    low: float
    high: float


def clean(samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples that hold a finite value, oldest first."""
    return sorted(sample for sample in samples if math.isfinite(sample.value))


def join(series: Iterable[Series]) -> list[Sample]:
    """Return the clean samples of all series."""
    return clean(sample for one in series for sample in one.samples)


def compute_interval_s(samples: Sequence[Sample]) -> float:
    """Return the usual time between two samples in seconds; 15 when there are not two."""
    gaps = [(b.at - a.at).total_seconds() for a, b in pairwise(samples)]
    return median(gaps) if gaps else 15.0


def list_growth(samples: Iterable[Sample]) -> list[Sample]:
    """Return when a counter grew, and by how much."""
    return [
        Sample(new.at, grown)
        for old, new in pairwise(samples)
        if (grown := new.value if new.value < old.value else new.value - old.value) > 0
    ]


def compute_increase(samples: Iterable[Sample], since: datetime) -> float:
    """Return by how much a counter grew after ``since``."""
    return math.fsum(grown.value for grown in list_growth(samples) if grown.at > since)


def find_end(failed: Iterable[Sample], succeeded: Iterable[Series]) -> datetime | None:
    """Return when failures were last counted, if so many successes since say that they ended.

    So many that a fault that lets through what it did would not leave them once in a hundred times:
    few after a fault that let nothing through.

    Parameters
    ----------
    failed : a counter that grew at least once
    """
    failures = list_growth(failed)
    successes = [grown for one in succeeded for grown in list_growth(one.samples)]
    last = failures[-1].at
    count = sum(n for at, n in failures if at > last - _EPISODE)
    let_through = sum(n for at, n in successes if last - _EPISODE < at <= last)
    since = sum(n for at, n in successes if at > last)
    share = (let_through + 1) / (let_through + count + 1)
    return last if share**since < _BY_CHANCE else None


def find_beginning(series: Iterable[Series]) -> datetime | None:
    """Return when the latest time of growth began: after all counters rested for two minutes."""
    times = sorted(grown.at for one in series for grown in list_growth(one.samples))
    began = times[:1] + [at for last, at in pairwise(times) if at - last > _EPISODE]
    return began[-1] if began else None


def compute_rate(*counters: Iterable[Sample]) -> Rate | None:
    """Compute the rate of counters over their samples, as Poisson counts have it.

    Parameters
    ----------
    counters : that add up, such as those of labels and of slips

    Returns
    -------
    None when of one of them, or of none, two samples span any time: no sample is never a zero.
    """
    total, below, above = 0.0, 0.0, 0.0
    for samples in map(clean, counters):
        minutes = (samples[-1].at - samples[0].at).total_seconds() / 60 if samples else 0.0
        if not minutes:
            return None
        count = compute_increase(samples, samples[0].at)
        # Bounds of a Poisson mean by the square-root transform, which holds near zero too.
        low = max(0.0, math.sqrt(count) - _Z95 / 2) ** 2
        high = (math.sqrt(count + 1) + _Z95 / 2) ** 2
        # Those of two independent counts combine as the root of the sum of squares.
        below = math.hypot(below, (count - low) / minutes)
        above = math.hypot(above, (high - count) / minutes)
        total += count / minutes
    return Rate(total, max(0.0, total - below), total + above) if counters else None
