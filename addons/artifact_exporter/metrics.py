"""The exporter's metrics: what the last refresh saw, or nothing when it failed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from addons.artifact_exporter.inventory import ReadyCount, Snapshot
from addons.artifact_exporter.store import FAILURE_REASONS, FailureReason

__all__ = ["BacklogCollector"]


class BacklogCollector(Collector):
    """Keeps the last refresh's outcome and gives it to Prometheus.

    A custom collector, since a plain gauge would go on showing its last value: a backlog that
    can no longer be seen must vanish and never look like a steady one.
    """

    def __init__(self, refresh_interval_s: float) -> None:
        self._refresh_interval_s = refresh_interval_s
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._ready: ReadyCount | None = None
        self._last_refresh: datetime | None = None
        self._last_failure = ""
        self._failures: Counter[FailureReason] = Counter()

    @property
    def last_refresh(self) -> datetime | None:
        """When the last complete refresh began."""
        with self._lock:
            return self._last_refresh

    @property
    def last_failure(self) -> str:
        """Why the newest refresh failed, empty when it did not."""
        with self._lock:
            return self._last_failure

    def record(self, snapshot: Snapshot) -> None:
        """Show what a refresh saw."""
        with self._lock:
            self._snapshot = snapshot
            self._last_refresh = snapshot.started_at
            self._last_failure = ""

    def record_ready(self, ready: ReadyCount | None) -> None:
        """Show what was counted under the ready prefix; None: it could not be counted."""
        with self._lock:
            self._ready = ready

    def record_failure(self, reason: FailureReason) -> None:
        """Show nothing of the backlog until a refresh succeeds again."""
        with self._lock:
            self._snapshot = None
            self._last_failure = reason
            self._failures[reason] += 1

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Give the families that Prometheus scrapes."""
        with self._lock:
            snapshot = self._snapshot
            ready = self._ready
            last_refresh = self._last_refresh
            failures = Counter(self._failures)
        yield _gauge(
            "fulfillment_exporter_refresh_interval_seconds",
            "Seconds between two refreshes.",
            self._refresh_interval_s,
        )
        total = CounterMetricFamily(
            "fulfillment_exporter_refresh_failures",
            "Refreshes that failed, by reason.",
            labels=["reason"],
        )
        for reason in FAILURE_REASONS:
            total.add_metric([reason], failures[reason])
        yield total
        if last_refresh is not None:
            yield _gauge(
                "fulfillment_exporter_last_refresh_timestamp_seconds",
                "Unix time at which the last complete refresh began.",
                last_refresh.timestamp(),
            )
        if snapshot is not None:
            yield from _backlog_families(snapshot, ready)
        if ready is not None:
            yield _gauge(
                "fulfillment_exporter_ready_counted_timestamp_seconds",
                "Unix time at which the last complete count of the ready prefix began.",
                ready.started_at.timestamp(),
            )


def _backlog_families(snapshot: Snapshot, ready: ReadyCount | None) -> Iterator[GaugeMetricFamily]:
    objects = GaugeMetricFamily(
        "fulfillment_artifacts_backlog_objects",
        "Objects under a prefix, by origin.",
        labels=["prefix", "origin"],
    )
    size = GaugeMetricFamily(
        "fulfillment_artifacts_backlog_bytes",
        "Bytes under a prefix, by origin.",
        labels=["prefix", "origin"],
    )
    backlogs = dict(snapshot.backlog)
    if ready is not None:
        backlogs.setdefault((ready.prefix, "real"), ready.backlog)
    for labels, backlog in backlogs.items():
        objects.add_metric(labels, backlog.objects)
        size.add_metric(labels, backlog.size_bytes)
    lag = GaugeMetricFamily(
        "fulfillment_lag_minutes",
        "Minutes since the oldest waiting object's age start, 0 when none waits.",
        labels=["origin"],
    )
    for origin, lag_minutes in snapshot.lag_minutes.items():
        lag.add_metric([origin], lag_minutes)
    yield from (objects, size, lag)
    yield _gauge(
        "fulfillment_exporter_future_pending_since_objects",
        "Waiting objects whose pending-since lies in the future and is ignored.",
        snapshot.future_pending_since,
    )
    yield _gauge(
        "fulfillment_exporter_unread_metadata_objects",
        "Waiting objects whose metadata is not read yet: with any, the lag may be too low.",
        snapshot.unread_metadata,
    )


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value=value)
