"""The service's own metrics, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from prometheus_client import (
    CollectorRegistry,
    Counter,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from runbook_lib.model import Verdict
from runbook_lib.record.journal import Clock, utc_now

from .book import Book
from .targets import ENDS, NAMES

#: Every reason for which a request is refused.
REASONS = ("full", "too_large", "too_many_alerts", "malformed", "slow", "unauthorized")


class Metrics(Collector):
    """Counters of this process, and gauges that each scrape reads from the book."""

    def __init__(self, book: Book, *, clock: Clock = utc_now) -> None:
        self._book = book
        self._clock = clock
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._received = self._make_counter("alerts_received", "New alerts that fire")
        self._folded = self._make_counter(
            "alerts_folded", "Alerts that are known, or ended before we heard of them"
        )
        self._refused = self._make_counter("requests_refused", "Requests refused", "reason")
        self._looks = self._make_counter("looks", "Investigations, by verdict", "result")
        self._delivered = self._make_counter(
            "deliveries", "Attempts to deliver, by result", "target", "result"
        )
        # Each series starts at 0, so that Prometheus sees its first increase.
        for reason in REASONS:
            self._refused.labels(reason)
        for result in (*Verdict, "failed"):
            self._looks.labels(result)
        for target in NAMES:
            for result in (*ENDS, "retried"):
                self._delivered.labels(target, result)
        self._registry.register(self)

    def _make_counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"runbook_serve_{name}", f"{help_text}.", labels, registry=self._registry)

    def count_received(self, accepted: int, folded: int) -> None:
        """Count alerts that came in; see ``book.Received`` for the two kinds."""
        self._received.inc(accepted)
        self._folded.inc(folded)

    def count_refused(self, reason: str) -> None:
        """Count a request that was refused, by one of ``REASONS``."""
        self._refused.labels(reason).inc()

    def count_look(self, result: str) -> None:
        """Count an investigation by its verdict or ``failed``."""
        self._looks.labels(result).inc()

    def count_delivery(self, target: str, result: str) -> None:
        """Count an attempt to deliver: ``retried``, or one of ``ENDS``."""
        self._delivered.labels(target, result).inc()

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges, read from the book now."""
        waiting = self._book.read_waiting()
        yield GaugeMetricFamily(
            "runbook_serve_alerts_waiting",
            "Alerts that are not reported yet.",
            value=waiting.alerts,
        )
        age = self._clock() - waiting.oldest if waiting.oldest else timedelta(0)
        yield GaugeMetricFamily(
            "runbook_serve_oldest_wait_seconds",
            "How long the oldest alert waits that is not reported yet.",
            value=max(0.0, age.total_seconds()),
        )
        undelivered = GaugeMetricFamily(
            "runbook_serve_deliveries_waiting", "Messages still to be delivered.", labels=["target"]
        )
        counts = self._book.count_waiting_deliveries()
        for target in NAMES:
            undelivered.add_metric([target], counts.get(target, 0))
        yield undelivered

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
