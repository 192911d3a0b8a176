"""The signals that several sections read: names of alerts and metrics, the panel, lines for plots.

Only reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from runbook_lib.model import AlertState, Line

from ..analysis.samples import Sample, clean
from ..clients.http_systems import Alert, Panel
from ..investigation import Investigation
from ..quantities import DELAY_ALERT, UPLOAD_ALERT

ALERT = DELAY_ALERT
BLIND_ALERT = "FulfillmentMetricsMissing"
#: The exporter's job in Prometheus.
EXPORTER = "artifact-exporter"
#: The alerts of this runbook.
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


def is_drill(labels: Mapping[str, str]) -> bool:
    """Tell by its labels whether an alert or a rule is about synthetic objects alone."""
    return labels.get("drill") == "true"


def find_alert_states(alerts: Iterable[Alert]) -> dict[str, AlertState]:
    """Return the state of each alert of this runbook; ``resolved`` if Prometheus does not list it.

    An alert that rests on synthetic objects alone does not count. Of several alerts with one name,
    a firing one decides.
    """
    states = dict.fromkeys(ALERTS, AlertState.RESOLVED)
    for alert in alerts:
        if alert.name not in states or is_drill(alert.labels):
            continue
        if alert.state == "firing" or states[alert.name] is AlertState.RESOLVED:
            states[alert.name] = AlertState(alert.state)
    return states


def read_samples(inv: Investigation, selector: str, window_s: float) -> list[Sample]:
    """Return the raw samples of all series of a selector as one list, oldest first.

    Samples without a finite value are left out.
    """
    samples: list[Sample] = []
    for series in inv.clients.prometheus.query_samples(selector, window_s):
        samples += series.samples
    return clean(samples)


def draw_line(name: str, samples: Sequence[Sample]) -> Line:
    """Return a line of at most 200 points, evenly chosen, the newest among them."""
    points = [(sample.at, round(sample.value, 4)) for sample in clean(samples)]
    stride = math.ceil(len(points) / _MAX_POINTS) or 1
    return Line(name=name, points=tuple(points[::-stride][::-1]))


def read_lines(
    inv: Investigation, promql: str, *, labels: Sequence[str] = (), name: str = ""
) -> tuple[Line, ...]:
    """Return an expression's values at even times over the window as lines of a plot, at most 20.

    Parameters
    ----------
    labels : the values of these labels are a line's name
    name : the name of a line whose series has none of these labels
    """
    end = inv.now()
    start = end - inv.window
    step_s = max(1.0, inv.window.total_seconds() / _MAX_POINTS)
    lines = []
    for series in inv.clients.prometheus.query_range(promql, start, end, step_s)[:_MAX_LINES]:
        values = [series.labels.get(label, "") for label in labels]
        lines.append(draw_line(" ".join(values).strip() or name, series.samples))
    return tuple(lines)


def read_panel(inv: Investigation) -> tuple[Panel, list[Line]]:
    """Read the panel `Fulfillment backlog` from Grafana, and send its queries to Prometheus."""
    panel = inv.clients.grafana.find_panel(DASHBOARD_UID, PANEL_TITLE)
    lines: list[Line] = []
    for query in panel.expressions:
        lines += read_lines(inv, query, labels=("prefix", "origin"), name=PANEL_TITLE)
    return panel, lines
