"""The service's own metrics, for Prometheus."""

from collections.abc import Iterable
from functools import partial
from typing import TypeVar

from dbos import DBOS
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)

from runbook_lib.model import Verdict
from runbook_lib.record.journal import utc_now

from .alerts import AlertBook

REASONS = ("full", "too_large", "too_many_alerts", "malformed", "slow", "unauthorized")
DELIVERY = "delivery"
_UNFINISHED = ["ENQUEUED", "PENDING"]

M = TypeVar("M", Counter, Gauge)


class Metrics:
    """Counters of this process, and gauges that each scrape reads.

    ``received`` counts new alerts that fire, ``folded`` all other alerts.
    """

    def __init__(self, book: AlertBook, targets: Iterable[str]) -> None:
        self._book = book
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self.received = self._add(Counter, "alerts_received", "New alerts that fire.")
        self.folded = self._add(
            Counter, "alerts_folded", "Alerts that were known, or had ended when they arrived."
        )
        self.refused = self._add(Counter, "requests_refused", "Requests refused.", "reason")
        self.investigations = self._add(Counter, "looks", "Investigations, by verdict.", "result")
        self.delivered = self._add(
            Counter, "deliveries", "Attempts to deliver, by result.", "target", "result"
        )
        waiting = self._add(Gauge, "alerts_waiting", "Alerts that are not reported yet.")
        waiting.set_function(lambda: book.read_waiting().alerts)
        oldest = self._add(Gauge, "oldest_wait_seconds", "How long the oldest of them has waited.")
        oldest.set_function(self._read_longest_wait_s)
        undelivered = self._add(Gauge, "deliveries_waiting", "Messages still to send.", "target")
        # Each series starts at 0, so that Prometheus sees its first increase.
        for reason in REASONS:
            self.refused.labels(reason)
        for result in (*Verdict, "failed"):
            self.investigations.labels(result)
        for target in targets:
            undelivered.labels(target).set_function(partial(_count_undelivered, target))
            for result in ("sent", "failed", "retried"):
                self.delivered.labels(target, result)

    def _add(self, kind: type[M], name: str, text: str, *labels: str) -> M:
        return kind(f"runbook_serve_{name}", text, labels, registry=self._registry)

    def _read_longest_wait_s(self) -> float:
        oldest = self._book.read_waiting().oldest
        return (utc_now() - oldest).total_seconds() if oldest else 0

    def render(self) -> bytes:
        return generate_latest(self._registry)


def _count_undelivered(target: str) -> int:
    jobs = DBOS.list_workflows(name=DELIVERY, status=_UNFINISHED, load_output=False)
    return len([job for job in jobs if job.input and job.input["args"][0] == target])
