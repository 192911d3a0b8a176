"""How fast labels arrive and leave, by the worker's counters."""

from __future__ import annotations

from collections.abc import Iterable

from ..analysis.backlog import Rate, compute_rate, sum_rates
from ..clients.prometheus import Series
from ..investigation import Investigation
from ..model import Line
from .samples import read_range

__all__ = ["draw_flow", "read_rates"]

_WINDOW_S = 120
_FLOWS = {
    "arrival": "fulfillment_artifacts_arrived_total",
    "drain": "fulfillment_artifacts_moved_total",
}


def read_rates(inv: Investigation) -> dict[str, Rate | None]:
    """Return the rates of ``arrival`` and ``drain``; None for what has too few samples.

    Raises
    ------
    ClientError
        When Prometheus does not answer.
    """
    return {
        name: _sum_series(inv.clients.prometheus.query_samples(metric, _WINDOW_S))
        for name, metric in _FLOWS.items()
    }


def draw_flow(inv: Investigation) -> list[Line]:
    """Return arrival and drain per minute over the window, as series of a plot.

    Raises
    ------
    ClientError
        When Prometheus does not answer.
    """
    return [
        Line(name=name, points=one.points)
        for name, metric in _FLOWS.items()
        for one in read_range(
            inv.clients.prometheus,
            f"sum(rate({metric}[1m])) * 60",
            now=inv.now(),
            window=inv.window,
            labels=(),
        )
    ]


def _sum_series(series: Iterable[Series]) -> Rate | None:
    return sum_rates(compute_rate([(s.at, s.value) for s in one.samples]) for one in series)
