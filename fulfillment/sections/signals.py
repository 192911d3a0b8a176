"""The signals that several sections share: alerts, metrics, the panel. Only reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import zip_longest

from runbook_lib.model import Event, Line, Measurement, Status
from runbook_lib.section import attempt

from ..analysis.samples import Sample, clean, compute_interval_s
from ..clients.http_systems import Alert
from ..investigation import Investigation
from ..quantities import DELAY_ALERT, UPLOAD_ALERT, Quantity

BLIND_ALERT = "FulfillmentMetricsMissing"
#: Whether Prometheus can scrape the exporter; no series if the exporter is no target.
UP = 'up{job="artifact-exporter"}'
#: The alerts of this runbook.
ALERTS = (DELAY_ALERT, UPLOAD_ALERT)
LAG = 'fulfillment_lag_minutes{origin="real"}'
REFRESH = "fulfillment_exporter_last_refresh_timestamp_seconds"
#: Real objects that wait under a prefix, which is filled in.
BACKLOG = 'fulfillment_artifacts_backlog_objects{origin="real",prefix="%s"}'
DASHBOARD_UID = "dataflow-overview"
PANEL_TITLE = "Fulfillment backlog"

_ALERT_STATUSES = {"firing": Status.BREACH, "resolved": Status.OK}
_ALERT_STATES = 'ALERTS{alertname=~"Fulfillment.*"}'
_MAX_POINTS = 200
_MAX_LINES = 20


def is_drill(labels: Mapping[str, str]) -> bool:
    """Tell by its labels whether an alert or rule is about synthetic objects only."""
    return labels.get("drill") == "true"


def measure_alerts(alerts: Iterable[Alert]) -> list[Measurement]:
    """Measure each of ``ALERTS``: ok if Prometheus doesn't list it, unknown while it is pending.

    Alerts about synthetic objects don't count. Of several alerts with one name, a firing one wins.
    """
    states = dict.fromkeys(ALERTS, "resolved")
    for alert in alerts:
        is_ours = alert.name in states and not is_drill(alert.labels)
        if is_ours and states[alert.name] != "firing":
            states[alert.name] = alert.state
    return [
        Measurement(
            quantity=Quantity.ALERT,
            subject=name,
            status=_ALERT_STATUSES.get(state, Status.UNKNOWN),
            text=f"{name}: {state}",
        )
        for name, state in states.items()
    ]


def read_samples(inv: Investigation, selector: str, window_s: float) -> list[Sample]:
    """Return the finite raw samples of all selected series as one list, oldest first."""
    samples: list[Sample] = []
    for series in inv.clients.prometheus.query_samples(selector, window_s):
        samples += series.samples
    return clean(samples)


def draw_line(name: str, samples: Sequence[Sample]) -> Line:
    """Return a line of at most 200 evenly chosen points, including the newest."""
    points = [(sample.at, round(sample.value, 4)) for sample in clean(samples)]
    stride = math.ceil(len(points) / _MAX_POINTS) or 1
    return Line(name=name, points=tuple(points[::-stride][::-1]))


def read_lines(
    inv: Investigation, promql: str, *, labels: Sequence[str] = (), name: str = ""
) -> tuple[Line, ...]:
    """Return an expression's values over the window as at most 20 lines of a plot.

    A line's name is the values of ``labels``; if its series has none of them, ``name``.
    """
    lines = []
    for series in inv.query_window(promql)[:_MAX_LINES]:
        values = [series.labels.get(label, "") for label in labels]
        lines.append(draw_line(" ".join(values).strip() or name, series.samples))
    return tuple(lines)


def find_alert_changes(
    samples: Iterable[Sample],
    *,
    name: str,
    state: str,
    interval_s: float,
    now: datetime,
    link: str = "",
) -> list[Event]:
    """Find when an alert's state began, and ended: at the first evaluation after a last sample.

    Parameters
    ----------
    samples : Prometheus has them only while the alert lasts
    interval_s : the time between two evaluations; a longer gap than three ends the alert
    now : when the samples were read
    """
    longest_gap = timedelta(seconds=3 * interval_s)
    # Rounded, because two readings may measure the interval a bit differently.
    until_next = timedelta(seconds=round(interval_s))

    def make(at: datetime, word: str) -> Event:
        text = f"{name} {state} {word}"
        is_end = word == "ends"
        return Event(
            at, "alert", text, "prometheus", subject=name, state=state, is_end=is_end, link=link
        )

    times = [sample.at for sample in clean(samples) if sample.value]
    changes: list[Event] = []
    for at, following in zip_longest(times, times[1:]):
        if not changes or changes[-1].is_end:
            changes.append(make(at, "begins"))
        if (following or now) - at > longest_gap:
            changes.append(make(at + until_next, "ends"))
    return changes


def read_events(inv: Investigation) -> list[Event]:
    """Read what alerts and channels did in the window, by each system's own clock."""
    alerts, _ = attempt(lambda: list(_read_alerts(inv)))
    notices, _ = attempt(lambda: list(_read_notices(inv)))
    start = inv.now() - inv.window
    return [event for event in (*(alerts or ()), *(notices or ())) if event.at >= start]


def _read_alerts(inv: Investigation) -> Iterator[Event]:
    """Yield when each Fulfillment alert became pending or firing, and when that ended."""
    found = inv.clients.prometheus.query_samples(_ALERT_STATES, inv.window.total_seconds())
    # All rules share an interval, which the longest series shows best.
    longest = max((series.samples for series in found), key=len, default=())
    for series in found:
        yield from find_alert_changes(
            series.samples,
            name=_name(series.labels["alertname"], is_drill=is_drill(series.labels)),
            state=series.labels["alertstate"],
            interval_s=compute_interval_s(longest),
            now=inv.now(),
            link=inv.link_to("query", _ALERT_STATES),
        )


def _read_notices(inv: Investigation) -> Iterator[Event]:
    """Yield each notification about alerts that a channel received."""
    since = inv.now() - inv.window
    for notice in inv.clients.notifications.list_notifications(since=since):
        if not notice.alertnames:
            continue  # a delivered report is not an alert
        names = _name(", ".join(notice.alertnames), is_drill=notice.is_drill)
        yield Event(
            notice.received_at,
            "notice",
            f"{notice.channel} receives {names}: {notice.status}",
            "notifications",
            subject=names,
            state=notice.status,
            channel=notice.channel,
        )


def _name(alerts: str, *, is_drill: bool) -> str:
    return f"{alerts} (drill)" if is_drill else alerts
