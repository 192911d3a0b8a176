"""What alerts and channels did in the window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import zip_longest

from runbook_lib.model import Event
from runbook_lib.section import attempt

from ..analysis.samples import Sample, clean, compute_interval_s
from ..investigation import Investigation
from .signals import is_drill

_ALERT_STATES = 'ALERTS{alertname=~"Fulfillment.*"}'


def find_alert_changes(
    samples: Iterable[Sample],
    *,
    name: str,
    state: str,
    interval_s: float,
    now: datetime,
    link: str = "",
) -> list[Event]:
    """Find when an alert's state begins and ends: with the first evaluation after its last sample.

    Parameters
    ----------
    samples : samples of the alert; Prometheus has them only while the alert lasts
    interval_s : the time between two evaluations; three without a sample mean that the alert ended
    link : see ``Event``
    now : when the samples were read. An alert whose newest sample is much older has ended
    """
    longest_gap = timedelta(seconds=3 * interval_s)
    until_next = timedelta(seconds=round(interval_s))  # two looks may measure it a bit differently

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
    """Read what alerts and channels did in the window, each system by its own clock."""
    alerts, _ = attempt(lambda: list(_read_alerts(inv)))
    notices, _ = attempt(lambda: list(_read_notices(inv)))
    start = inv.now() - inv.window
    return [event for event in (*(alerts or ()), *(notices or ())) if event.at >= start]


def _read_alerts(inv: Investigation) -> Iterator[Event]:
    """Yield when each Fulfillment alert became pending or firing, and when that ended."""
    found = inv.clients.prometheus.query_samples(_ALERT_STATES, inv.window.total_seconds())
    # All are evaluated alike; a state that lasted for one sample shows no interval.
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
