"""Compute changes from samples. Pure."""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from runbook_lib.model import Timestamp

#: The interval assumed for fewer than two samples.
_USUAL_INTERVAL_S = 15.0


class Sample(NamedTuple):
    """A value of Prometheus, which may be NaN or infinite."""

    at: Timestamp
    value: float


def clean(samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples with a finite value, oldest first."""
    return sorted(sample for sample in samples if math.isfinite(sample.value))


def compute_interval_s(samples: Sequence[Sample]) -> float:
    """Return the median time between samples, in seconds; 15 for fewer than two."""
    if len(samples) < 2:
        return _USUAL_INTERVAL_S
    gaps = [new.at - old.at for old, new in pairwise(samples)]
    return median(gap.total_seconds() for gap in gaps)


def list_growth(counters: Iterable[Iterable[Sample]]) -> list[Sample]:
    """Return every increase of counters, oldest first, as each counter's samples must be."""
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
    return math.fsum(grown.value for grown in list_growth(counters) if grown.at > since)
