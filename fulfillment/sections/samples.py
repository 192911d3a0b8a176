"""Small computations that several steps need: on samples, and on the rows of a table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from statistics import median

from runbook_lib.model import Json, Line

from ..clients.prometheus import Sample, Series
from ..investigation import Investigation

_MAX_POINTS = 200
_EPISODE = timedelta(minutes=2)
_BY_CHANCE = 0.01


def to_rows(columns: Sequence[str], values: Iterable[Sequence[Json]]) -> list[dict[str, Json]]:
    """Return the rows of a table, each value under its column."""
    return [dict(zip(columns, row, strict=True)) for row in values]


def one_series(series: Sequence[Series]) -> list[Sample]:
    """Return the samples of all series in time order, without NaN."""
    found = [s for one in series for s in one.samples if not math.isnan(s.value)]
    return sorted(found, key=lambda s: s.at)


def scrape_interval_s(samples: Sequence[Sample]) -> float:
    """Return the usual time between two samples in seconds; 15 when there are not two."""
    gaps = [(b.at - a.at).total_seconds() for a, b in itertools.pairwise(samples)]
    return median(gaps) if gaps else 15.0


def compute_increase(samples: Sequence[Sample], since: datetime) -> float:
    """Return by how much a counter grew after ``since``; a reset counts from zero."""
    return sum(grown for at, grown in _growths(samples) if at > since)


def find_last_increase(samples: Sequence[Sample]) -> datetime | None:
    """Return when a counter last grew; None when it never did."""
    return max((at for at, grown in _growths(samples) if grown > 0), default=None)


def find_end(
    failed: Iterable[Sequence[Sample]], succeeded: Iterable[Sequence[Sample]]
) -> datetime | None:
    """Return when failures were last counted, if so many successes since say that they ended.

    So many that a fault that lets through what it did would not leave them once in a hundred times:
    few after a fault that let nothing through.
    """
    failures, successes = (
        [(at, grown) for samples in series for at, grown in _growths(samples) if grown > 0]
        for series in (failed, succeeded)
    )
    last = max((at for at, _ in failures), default=None)
    if last is None:
        return None
    count = sum(n for at, n in failures if at > last - _EPISODE)
    let_through = sum(n for at, n in successes if last - _EPISODE < at <= last)
    since = sum(n for at, n in successes if at > last)
    share = (let_through + 1) / (let_through + count + 1)
    return last if share**since < _BY_CHANCE else None


def first_increase(series: Iterable[Sequence[Sample]]) -> datetime | None:
    """Return when the latest time of growth began: after all counters rested for two minutes."""
    grew = sorted(at for samples in series for at, grown in _growths(samples) if grown > 0)
    began = last = None
    for at in grew:
        began = at if last is None or at - last > _EPISODE else began
        last = at
    return began


def _growths(samples: Sequence[Sample]) -> Iterable[tuple[datetime, float]]:
    for before, after in itertools.pairwise(samples):
        step = after.value - before.value
        yield after.at, after.value if step < 0 else step


def to_points(samples: Sequence[Sample]) -> tuple[tuple[datetime, float], ...]:
    """Return at most 200 points for a plot, the newest among them."""
    every = max(1, math.ceil(len(samples) / _MAX_POINTS))
    kept = [s for s in reversed(list(reversed(samples))[::every]) if math.isfinite(s.value)]
    return tuple((s.at, round(s.value, 4)) for s in kept)


def read_range(
    inv: Investigation, promql: str, *, labels: Sequence[str] = (), name: str = ""
) -> tuple[Line, ...]:
    """Return an expression's series over the window for a plot, named by some labels."""
    now, step_s = inv.now(), max(1.0, inv.window.total_seconds() / _MAX_POINTS)
    found = inv.clients.prometheus.query_range(promql, now - inv.window, now, step_s)
    return tuple(
        Line(
            name=" ".join(s.labels.get(label, "") for label in labels).strip() or name or promql,
            points=to_points(s.samples),
        )
        for s in found[:20]
    )
