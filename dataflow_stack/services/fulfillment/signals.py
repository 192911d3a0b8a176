"""The metrics of fulfillment-service, and the one way to count a failure."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["KINDS", "Signals"]

#: The two documents of an order, and how their keys end.
KINDS = {"label": ".pdf", "packing_slip": "-slip.pdf"}

_FAILURES = {
    "carrier": ("carrier_timeout", "carrier_error"),
    "upload": (
        "storage_full",
        "store_unreachable",
        "access_denied",
        "bad_credentials",
        "no_such_bucket",
        "other",
    ),
    "callback": ("other",),
}
_FAILURES["release"] = _FAILURES["upload"]


class Signals:
    """The counters and gauges; every known series starts at 0, so that ``rate()`` works."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.received = Counter(
            "fulfillment_orders_received_total", "Orders that reached the feed", registry=registry
        )
        self.arrived = Counter(
            "fulfillment_artifacts_arrived_total",
            "Artefacts uploaded to pending/",
            ["kind"],
            registry=registry,
        )
        self.moved = Counter(
            "fulfillment_artifacts_moved_total",
            "Artefacts moved to ready/ by the worker",
            ["kind"],
            registry=registry,
        )
        self.failed = Counter(
            "fulfillment_artifacts_failed_total",
            "Attempts that failed",
            ["stage", "reason"],
            registry=registry,
        )
        self.carrier_seconds = Histogram(
            "fulfillment_carrier_request_seconds",
            "Time for one tracking number",
            ["outcome"],
            registry=registry,
        )
        self.last_run = Gauge(
            "fulfillment_worker_last_run_timestamp_seconds",
            "Start of the worker's last pass",
            registry=registry,
        )
        self.last_move = Gauge(
            "fulfillment_worker_last_move_timestamp_seconds",
            "The worker's last move",
            registry=registry,
        )
        self.paused = Gauge(
            "fulfillment_worker_paused", "1 while the worker is paused", registry=registry
        )
        for kind in KINDS:
            self.arrived.labels(kind)
            self.moved.labels(kind)
        for stage, reasons in _FAILURES.items():
            for reason in reasons:
                self.failed.labels(stage, reason)
        for outcome in ("ok", "timeout", "error"):
            self.carrier_seconds.labels(outcome)
