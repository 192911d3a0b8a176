"""Compute changes from samples. Pure.

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

#: Failures that are further apart are not of one fault, as far as its end is concerned.
_FAULT_SPAN = timedelta(minutes=1)
#: An event that is less probable than this did not happen by chance.
_BY_CHANCE = 0.01
#: The interval of fewer than two samples, from which none can be computed.
_USUAL_INTERVAL_S = 15.0


class Sample(NamedTuple):
    """One value; it may be NaN or infinite, as in Prometheus."""

    at: Timestamp
    value: float


def clean(samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples that hold a finite value, oldest first."""
    return sorted(sample for sample in samples if math.isfinite(sample.value))


def compute_interval_s(samples: Sequence[Sample]) -> float:
    """Return the median time between two samples in seconds; 15 for fewer than two samples."""
    if len(samples) < 2:
        return _USUAL_INTERVAL_S
    gaps = [new.at - old.at for old, new in pairwise(samples)]
    return median(gap.total_seconds() for gap in gaps)


def list_growth(counters: Iterable[Iterable[Sample]]) -> list[Sample]:
    """Return when any of some counters grew, and by how much each time, oldest first.

    Parameters
    ----------
    counters : the samples of each counter, oldest first
    """
    growth = []
    for samples in counters:
        for old, new in pairwise(samples):
            increase = new.value - old.value
            if increase < 0:  # the counter was reset to zero
                increase = new.value
            if increase > 0:
                growth.append(Sample(new.at, increase))
    return sorted(growth)


def sum_growth(counters: Iterable[Iterable[Sample]], since: datetime) -> float:
    """Return by how much some counters grew after ``since``."""
    return math.fsum(grown.value for grown in list_growth(counters) if grown.at > since)


def find_end(failures: Sequence[Sample], successes: Iterable[Sample]) -> datetime | None:
    """Return when failures ended: the time of the last failure. None while they may go on.

    From the first to the last failure of one minute, some share of the tries succeeded. That share
    is taken as the chance of one success while the fault lasts. The failures have ended if so many
    successes in a row, as have come since then, would have a chance under 1 %. After a fault that
    let nothing through, a few successes are enough.

    Parameters
    ----------
    failures : when how many tries failed, oldest first; at least one
    successes : when how many tries succeeded
    """
    last_failed_at = failures[-1].at
    recent = [failure for failure in failures if failure.at > last_failed_at - _FAULT_SPAN]
    failed_count = sum(failure.value for failure in recent)
    successes_before = 0.0
    successes_since = 0.0
    for success in successes:
        if success.at > last_failed_at:
            successes_since += success.value
        elif success.at >= recent[0].at:
            successes_before += success.value
    # One success is added: with a share of zero, a single success would end the failures.
    success_share = (successes_before + 1) / (successes_before + failed_count + 1)
    has_ended = success_share**successes_since < _BY_CHANCE
    return last_failed_at if has_ended else None
