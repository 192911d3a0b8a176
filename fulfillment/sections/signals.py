"""The signals that several sections look at: alerts and metrics by name, the panel, plots.

Only reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from runbook_lib.errors import ClientError
from runbook_lib.model import Line
from runbook_lib.section import attempt

from ..analysis.samples import Sample, clean
from ..clients.http_systems import Series
from ..investigation import Investigation
from ..situation import DELAY_ALERT, UPLOAD_ALERT

ALERT = DELAY_ALERT
BLIND_ALERT = "FulfillmentMetricsMissing"
ALERTS = (ALERT, UPLOAD_ALERT)
LAG = 'fulfillment_lag_minutes{origin="real"}'
REFRESH = "fulfillment_exporter_last_refresh_timestamp_seconds"
#: Real objects that wait, by Prometheus; the prefix is filled in.
BACKLOG = 'fulfillment_artifacts_backlog_objects{origin="real",prefix="%s"}'
DASHBOARD_UID = "dataflow-overview"
PANEL_TITLE = "Fulfillment backlog"
#: The probe runs every night: an older run says nothing of today.
PROBE_MAX_AGE = timedelta(hours=26)

_MAX_POINTS = 200
_MAX_LINES = 20
_LISTING = "listing of the bucket"


def is_drill(labels: Mapping[str, str]) -> bool:
    """Tell whether an alert rests on synthetic objects alone."""
    return labels.get("drill") == "true"


def read_samples(inv: Investigation, selector: str, window_s: float) -> list[Sample]:
    """Return the raw samples of all series of a selector as one list, oldest first."""
    samples: list[Sample] = []
    for series in inv.clients.prometheus.query_samples(selector, window_s):
        samples += series.samples
    return clean(samples)


def draw_line(name: str, samples: Sequence[Sample]) -> Line:
    """Return a line of at most 200 points, including the newest. A flat stretch keeps only its two
    ends.
    """
    stride = max(1, math.ceil(len(samples) / _MAX_POINTS))
    newest_first = samples[::-stride]
    points = []
    for sample in clean(newest_first):
        value = round(sample.value, 4)
        points.append((sample.at, value))
    values = [value for _, value in points]
    last = len(points) - 1
    kept = []
    for index, point in enumerate(points):
        is_end = index in (0, last)
        with_neighbours = values[index - 1 : index + 2]
        is_flat = len(set(with_neighbours)) == 1
        if is_end or not is_flat:
            kept.append(point)
    return Line(name=name, points=tuple(kept))


def read_lines(
    inv: Investigation,
    promql: str,
    *,
    labels: Sequence[str] = (),
    name: str = "",
) -> tuple[Line, ...]:
    """Return an expression's series over the window for a plot, named by some labels."""
    end = inv.now()
    start = end - inv.window
    step_s = max(1.0, inv.window.total_seconds() / _MAX_POINTS)
    all_series = inv.clients.prometheus.query_range(promql, start, end, step_s)
    lines = []
    for series in all_series[:_MAX_LINES]:
        own_name = _name_series(series, labels)
        line = draw_line(own_name or name or promql, series.samples)
        lines.append(line)
    return tuple(lines)


def _name_series(series: Series, labels: Sequence[str]) -> str:
    words = [series.labels.get(label, "") for label in labels]
    return " ".join(words).strip()


class PanelShow(NamedTuple):
    """What the dashboard's panel shows, asked of Prometheus with the panel's own queries.

    Attributes
    ----------
    queries : PromQL
    source : the panel's link in Grafana, else that the dashboard as code was read
    problem : why Grafana's own panel could not be read; None when it was
    current : the newest value of each series
    lines : the series over the window
    """

    queries: tuple[str, ...]
    source: str
    problem: ClientError | None
    current: tuple[Series, ...]
    lines: tuple[Line, ...]

    @property
    def total(self) -> float:
        """How many objects the panel shows now."""
        return sum(series.samples[-1].value for series in self.current)


def read_panel(inv: Investigation) -> PanelShow:
    """Read the panel `Fulfillment backlog`: Grafana's own, else that of the dashboard as code.

    Raises
    ------
    ClientError
        When neither has the panel, or Prometheus does not answer.
    """
    clients = inv.clients
    problem: ClientError | None = None
    try:
        panel = clients.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE)
        source = panel.link
    except ClientError as error:
        installed, _ = attempt(lambda: clients.dashboards.find_panel(DASHBOARD_UID, PANEL_TITLE))
        if installed is None:
            raise
        panel = installed
        problem = error
        source = f"{inv.settings.prometheus_url}, by the dashboard {DASHBOARD_UID} as code"
    current: list[Series] = []
    lines: list[Line] = []
    for query in panel.expressions:
        answer = clients.prometheus.query(query)
        current += [series for series in answer if math.isfinite(series.samples[-1].value)]
        lines += read_lines(inv, query, labels=("prefix", "origin"), name=PANEL_TITLE)
    return PanelShow(panel.expressions, source, problem, tuple(current), tuple(lines))


def draw_listing(at: datetime, count: int) -> Line:
    """Return a listing's count as a line of one point, to be drawn beside the panel's lines."""
    return Line(name=_LISTING, points=((at, float(count)),))
