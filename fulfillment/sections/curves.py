"""Curves for the plots of readings."""

from __future__ import annotations

import math
from collections.abc import Sequence

from runbook_lib.model import Line

from ..clients.prometheus import Sample, Series
from ..investigation import Investigation

_MAX_POINTS = 200


def draw(name: str, samples: Sequence[Sample]) -> Line:
    """Return a line of at most 200 points, the newest among them."""
    every = max(1, math.ceil(len(samples) / _MAX_POINTS))
    kept = [s for s in reversed(samples[::-1][::every]) if math.isfinite(s.value)]
    return Line(name=name, points=tuple((s.at, round(s.value, 4)) for s in kept))


def read_range(
    inv: Investigation, promql: str, *, labels: Sequence[str] = (), name: str = ""
) -> tuple[Line, ...]:
    """Return an expression's series over the window for a plot, named by some labels."""
    now, step_s = inv.now(), max(1.0, inv.window.total_seconds() / _MAX_POINTS)
    found = inv.clients.prometheus.query_range(promql, now - inv.window, now, step_s)

    def say(series: Series) -> str:
        return " ".join(series.labels.get(label, "") for label in labels).strip()

    return tuple(draw(say(series) or name or promql, series.samples) for series in found[:20])
