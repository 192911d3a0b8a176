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

#: A counter that does not grow for this long has ended its episode of growth.
_EPISODE = timedelta(minutes=2)
#: Failures that are further apart are not of one fault, as far as its end is concerned.
_FAULT_SPAN = timedelta(minutes=1)
#: Samples of a shorter time show no rate that goes on.
_LEAST_SPAN = timedelta(seconds=30)
#: A counter that grows by more than this many standard deviations above its mean grew by a burst.
_BURST_DEVIATIONS = 5
#: A burst is at least so large.
_LEAST_BURST = 5
#: The growth between fewer samples than this does not show what is usual.
_LEAST_SAMPLES = 6
#: An event that is less probable than this did not happen by chance.
_BY_CHANCE = 0.01
#: Two-sided 95 % bounds lie this many standard deviations from the mean.
_Z95 = 1.96
#: The interval of fewer than two samples, from which none can be computed.
_USUAL_INTERVAL_S = 15.0


class Sample(NamedTuple):
    """One value; it may be NaN or infinite, as in Prometheus."""

    at: Timestamp
    value: float


class Rate(NamedTuple):
    """How many per minute; ``low`` and ``high`` are 95 % bounds, per minute, too."""

    per_minute: float
    low: float
    high: float


def clean(samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples that hold a finite value, oldest first."""
    return sorted(sample for sample in samples if math.isfinite(sample.value))


def compute_interval_s(samples: Sequence[Sample]) -> float:
    """Return the median time between two samples in seconds; 15 for fewer than two samples."""
    if len(samples) < 2:
        return _USUAL_INTERVAL_S
    gaps = [new.at - old.at for old, new in pairwise(samples)]
    return median(gap.total_seconds() for gap in gaps)


def list_growth(samples: Iterable[Sample]) -> list[Sample]:
    """Return when a counter grew, and by how much each time.

    Parameters
    ----------
    samples : of one counter, oldest first
    """
    growth = []
    for old, new in pairwise(samples):
        increase = new.value - old.value
        if increase < 0:  # the counter was reset to zero
            increase = new.value
        if increase > 0:
            growth.append(Sample(new.at, increase))
    return growth


def compute_increase(samples: Iterable[Sample], since: datetime) -> float:
    """Return by how much a counter grew after ``since``."""
    return math.fsum(grown.value for grown in list_growth(samples) if grown.at > since)


def find_end(failed: Iterable[Sample], succeeded: Iterable[Iterable[Sample]]) -> datetime | None:
    """Return when the failures ended: the time of the last failure. None while they may go on.

    From the first to the last sample of one minute that shows a failure, some share of the tries
    succeeded. That share is taken as the chance of one success while the fault lasts. The failures
    have ended if so many successes in a row, as have come since then, would have a chance under
    1 %. After a fault that let nothing through, a few successes are enough. They are, too, after
    the first failure of a fault that lets something through: its next failure corrects it.

    Parameters
    ----------
    failed : a counter that grew at least once
    succeeded : counters of what the fault prevents
    """
    failures = list_growth(failed)
    last_failed_at = failures[-1].at
    recent = [failure for failure in failures if failure.at > last_failed_at - _FAULT_SPAN]
    failed_count = sum(failure.value for failure in recent)
    successes_before = 0.0
    successes_since = 0.0
    for success in _join_growth(succeeded):
        if success.at > last_failed_at:
            successes_since += success.value
        elif success.at >= recent[0].at:
            successes_before += success.value
    # One success is added: with a share of zero, a single success would end the failures.
    success_share = (successes_before + 1) / (successes_before + failed_count + 1)
    has_ended = success_share**successes_since < _BY_CHANCE
    return last_failed_at if has_ended else None


def find_beginning(counters: Iterable[Iterable[Sample]]) -> datetime | None:
    """Return when the latest episode of growth began; None when no counter grew.

    Two minutes without growth end an episode.
    """
    times = sorted(grown.at for grown in _join_growth(counters))
    if not times:
        return None
    began = times[0]
    for previous, at in pairwise(times):
        if at - previous > _EPISODE:
            began = at
    return began


def _join_growth(counters: Iterable[Iterable[Sample]]) -> list[Sample]:
    growth: list[Sample] = []
    for samples in counters:
        growth += list_growth(samples)
    return growth


def compute_rate(*counters: Iterable[Sample]) -> Rate | None:
    """Compute the sum of the rates of counters over their samples, with Poisson bounds.

    Parameters
    ----------
    counters : the samples of each counter, such as those of labels and of packing slips

    Returns
    -------
    None without counters, and when a counter has no two samples at different times: how much
    it grew is then not known.
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
        # The bounds of independent counts combine as the root of the sum of squares.
        below = math.hypot(below, (count - low) / minutes)
        above = math.hypot(above, (high - count) / minutes)
        total += count / minutes
    return Rate(
        per_minute=total,
        low=max(0.0, total - below),
        high=total + above,
    )


def find_steady(samples: Iterable[Sample]) -> list[Sample]:
    """Return a counter's newest samples, from which on it grew as fast as it does now.

    A single burst is taken out. Then the oldest quarter is dropped as long as the counter grew
    faster in the older half than chance explains.

    Returns
    -------
    No samples when they show no rate that goes on: less than half a minute is left, or the counter
    grew faster in the newer half than chance explains. That may be a burst, or only have begun. No
    samples, too, when all growth is one burst, or the burst is less than half a minute old.
    """
    rest = _take_out_burst(clean(samples))
    while len(rest) > 2:
        middle = len(rest) // 2
        older = compute_rate(rest[: middle + 1])
        newer = compute_rate(rest[middle:])
        if older is None or newer is None:
            break
        if newer.low > older.high:
            return []
        if older.low <= newer.high:
            break
        rest = rest[max(1, len(rest) // 4) :]
    if not rest or rest[-1].at - rest[0].at < _LEAST_SPAN:
        return []
    return rest


def _take_out_burst(samples: Sequence[Sample]) -> list[Sample]:
    """Return a counter's samples as if it had not grown in its only burst.

    Unchanged with fewer than six samples, without a burst, and with more than one burst: then
    bursts are how the counter grows. A burst of which neighbouring samples saw a part each is one
    burst. Empty when nobody can know yet whether it is a burst: it has only just been, or there is
    no other growth.

    Parameters
    ----------
    samples : finite, oldest first
    """
    if len(samples) < _LEAST_SAMPLES:
        return list(samples)
    growth = {grown.at: grown.value for grown in list_growth(samples)}
    bursts = [
        index
        for index, (old, new) in enumerate(pairwise(samples))
        if _is_burst(growth.get(new.at, 0.0), old, new, samples)
    ]
    is_single = bool(bursts) and bursts[-1] - bursts[0] == len(bursts) - 1
    if not is_single:
        return list(samples)
    level = samples[0].value
    rest = [samples[0]]
    for index, new in enumerate(samples[1:]):
        if index not in bursts:
            level += growth.get(new.at, 0.0)
        rest.append(Sample(new.at, level))
    burst_at = samples[bursts[-1] + 1].at
    is_over = samples[-1].at - burst_at >= _LEAST_SPAN
    return rest if is_over and level > samples[0].value else []


def _is_burst(count: float, old: Sample, new: Sample, samples: Sequence[Sample]) -> bool:
    """Tell whether a counter grew by more between two samples than its other growth explains.

    Parameters
    ----------
    count : by how much it grew between ``old`` and ``new``
    """
    between_s = (new.at - old.at).total_seconds()
    other_s = (samples[-1].at - samples[0].at).total_seconds() - between_s
    if count < _LEAST_BURST or other_s <= 0:
        return False
    other_count = compute_increase(samples, samples[0].at) - count
    expected = other_count * between_s / other_s
    return count > expected + _BURST_DEVIATIONS * math.sqrt(expected)
