"""The synthetic probe: walks through a support ticket and reports each step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Gauge
from pydantic import Field

from ..web import ask
from .clock import Clock, format_z
from .plumbing import Loop, ServiceSettings, build_app, configure_logging, serve

__all__ = ["STEPS", "Probe", "ProbeSettings", "build", "main"]

log = logging.getLogger("synthetic_probe")

STEPS = ("find_order", "create_ticket", "read_timeline", "timeline_refresh", "close_ticket")
_STATUSES = ("ok", "error", "skipped")


class ProbeSettings(ServiceSettings):
    """Whom to ask, how often, and how slow is too slow."""

    fulfillment_service_url: str = "http://127.0.0.1:8108"
    support_service_url: str = "http://127.0.0.1:8109"
    probe_interval_s: float = Field(10.0, gt=0)
    latency_threshold_ms: float = Field(1500.0, gt=0)
    probe_timeout_s: float = Field(5.0, gt=0)


class _StepError(Exception):
    """A step failed; the text says how."""


@dataclass(slots=True)
class _Run:
    """What one walk has found so far."""

    order_id: int | None = None
    ticket_id: str | None = None
    timeline: list[dict[str, Any]] = field(default_factory=list)
    messages: int = 0
    latency_ms: float = 0.0
    steps: list[dict[str, str]] = field(default_factory=list)


class Probe:
    """Runs the steps in order; after a failed one only the ticket is closed."""

    def __init__(self, settings: ProbeSettings, clock: Clock, registry: CollectorRegistry) -> None:
        self._settings, self._clock = settings, clock
        self._step_status = Gauge(
            "synthetic_probe_step_status",
            "1 for a step's present status",
            ["step", "status"],
            registry=registry,
        )
        self._last_run = Gauge(
            "synthetic_probe_last_run_timestamp_seconds", "End of the last run", registry=registry
        )
        self._latency = Gauge(
            "synthetic_probe_timeline_latency_ms", "Timeline latency", registry=registry
        )
        self.status: dict[str, Any] = {"status": "pending", "steps": [], "errors": []}

    def run(self) -> float:
        """Walk once; return the seconds to the next walk."""
        run = _Run()
        walk: tuple[Callable[[_Run], None], ...] = (
            self._find_order,
            self._create_ticket,
            self._read_timeline,
            self._refresh,
            self._close,
        )
        failed = False
        for step, act in zip(STEPS, walk, strict=True):
            if failed and (step != "close_ticket" or run.ticket_id is None):
                # What the probe exists for counts as failed when it could not even be tried.
                status = "error" if step == "timeline_refresh" else "skipped"
                self._note(run, step, status, "not tried: an earlier step failed")
                continue
            try:
                act(run)
                self._note(run, step, "ok", "")
            except (_StepError, requests.RequestException, KeyError, ValueError) as error:
                failed = True
                log.error(  # noqa: TRY400 - the step and its message say it
                    "step %s failed: %s", step, error, extra={"ticket_id": run.ticket_id}
                )
                self._note(run, step, "error", str(error))
        self._publish(run)
        # After a failure it looks again soon: what failed may be starting still.
        return (
            min(1.0, self._settings.probe_interval_s)
            if failed
            else (self._settings.probe_interval_s)
        )

    def _find_order(self, run: _Run) -> None:
        url = f"{self._settings.fulfillment_service_url}/fulfillment/shipments"
        items = self._call("GET", f"{url}?limit=1")["items"]
        if not items:
            raise _StepError("there is no order to ask about yet")
        run.order_id = items[0]["orderId"]

    def _create_ticket(self, run: _Run) -> None:
        body = {
            "subject": "Synthetic probe",
            "channel": "synthetic",
            "context": [{"type": "order", "orderId": run.order_id}],
            "initialMessage": "Where is my parcel?",
        }
        run.ticket_id = self._call("POST", self._case(""), body)["id"]

    def _read_timeline(self, run: _Run) -> None:
        started = time.monotonic()
        ticket = self._call("GET", f"{self._case(run.ticket_id)}?includeTimeline=true")
        self._check(run, ticket, (time.monotonic() - started) * 1000)

    def _refresh(self, run: _Run) -> None:
        started = time.monotonic()
        ticket = self._call("POST", f"{self._case(run.ticket_id)}/timeline/refresh", {})
        self._check(run, ticket, (time.monotonic() - started) * 1000)

    def _close(self, run: _Run) -> None:
        self._call("POST", f"{self._case(run.ticket_id)}/close", {})

    def _check(self, run: _Run, ticket: dict[str, Any], latency_ms: float) -> None:
        run.timeline = ticket["timeline"]
        run.messages = sum(1 for e in run.timeline if e["type"] == "conversation")
        run.latency_ms = max(run.latency_ms, latency_ms)
        limit_ms = self._settings.latency_threshold_ms
        if latency_ms > limit_ms:
            raise _StepError(f"took {latency_ms:.0f} ms, more than {limit_ms:g} ms")
        if not any(e["type"] == "shipment" and e["orderId"] == run.order_id for e in run.timeline):
            raise _StepError(f"the timeline has no shipment of order {run.order_id}")

    def _call(self, method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = ask(method, url, json=body, timeout_s=self._settings.probe_timeout_s)
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        return content

    def _case(self, ticket_id: str | None) -> str:
        return f"{self._settings.support_service_url}/support/cases/{ticket_id}".rstrip("/")

    def _note(self, run: _Run, step: str, status: str, message: str) -> None:
        run.steps.append({"step": step, "status": status, "message": message})
        for other in _STATUSES:
            self._step_status.labels(step, other).set(other == status)

    def _publish(self, run: _Run) -> None:
        errors = [f"{s['step']}: {s['message']}" for s in run.steps if s["status"] == "error"]
        self._latency.set(run.latency_ms)
        self._last_run.set(self._clock.time())
        self.status = {
            "status": "error" if errors else "ok",
            "ticket_id": run.ticket_id,
            "order_id": run.order_id,
            "timeline_entries": len(run.timeline),
            "messages": run.messages,
            "latency_ms": round(run.latency_ms, 1),
            "threshold_ms": self._settings.latency_threshold_ms,
            "errors": errors,
            "ran_at": format_z(self._clock.now()),
            "steps": run.steps,
        }


def build(settings: ProbeSettings) -> FastAPI:
    """Build the probe's API and its loop."""
    registry = CollectorRegistry()
    probe = Probe(settings, settings.clock, registry)
    app = build_app(
        "synthetic-probe",
        clock=settings.clock,
        registry=registry,
        loops=[Loop("synthetic_probe", probe.run)],
    )

    @app.get("/status")
    def status() -> dict[str, Any]:
        return probe.status

    return app


def main() -> None:
    """Serve the probe."""
    settings = ProbeSettings()
    configure_logging(settings.clock)
    serve(build(settings), settings)


if __name__ == "__main__":
    main()
