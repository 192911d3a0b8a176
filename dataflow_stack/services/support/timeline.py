"""Collects a ticket's timeline from its sources. A source that fails is left out, and counted."""

from __future__ import annotations

import logging
import time
from typing import Any

import requests
from prometheus_client import CollectorRegistry, Counter, Histogram

from ...web import ask
from ..clock import format_naive, parse_time
from .tickets import Tickets

__all__ = ["Timelines"]

log = logging.getLogger("support.timeline")


class Timelines:
    """Timelines with their cache.

    Parameters
    ----------
    tickets
        What this service knows.
    fulfillment_url
        Where the shipments come from.
    ttl_s
        How long a collected timeline is handed out again.
    timeout_s
        The longest wait for a source.
    """

    def __init__(
        self,
        tickets: Tickets,
        *,
        fulfillment_url: str,
        ttl_s: float,
        timeout_s: float,
        registry: CollectorRegistry,
    ) -> None:
        self._tickets, self._ttl_s, self._timeout_s = tickets, ttl_s, timeout_s
        self._shipments_url = f"{fulfillment_url}/fulfillment/shipments"
        self._failures = Counter(
            "support_timeline_collection_failures_total",
            "Sources that failed",
            ["stage"],
            registry=registry,
        )
        self._cache_events = Counter(
            "support_timeline_cache_events_total", "Cache use", ["event"], registry=registry
        )
        self._seconds = Histogram(
            "support_timeline_collect_seconds", "Collection time", ["source"], registry=registry
        )
        self._failures.labels("shipments")
        for event in ("hit", "miss", "drop"):
            self._cache_events.labels(event)

    def read(self, ticket: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a ticket's timeline, oldest first, from the cache while that lasts."""
        cached = self._tickets.cached_timeline(ticket["id"])
        if cached is not None:
            self._cache_events.labels("hit").inc()
            return cached
        self._cache_events.labels("miss").inc()
        timeline = [*self._context(ticket), *self._shipments(ticket)]
        timeline += self._tickets.entries(ticket["id"])
        timeline.sort(key=lambda entry: parse_time(entry["timestamp"]))
        self._tickets.cache_timeline(ticket["id"], timeline, self._ttl_s)
        return timeline

    def drop(self, ticket_id: str) -> None:
        """Forget the cached timeline."""
        self._tickets.drop_timeline(ticket_id)
        self._cache_events.labels("drop").inc()

    def _context(self, ticket: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {**item, "type": "context", "contextType": item.get("type", "")}
            | {"source": "support-service", "timestamp": ticket["createdAt"]}
            for item in ticket["context"]
        ]

    def _shipments(self, ticket: dict[str, Any]) -> list[dict[str, Any]]:
        orders = [c["orderId"] for c in ticket["context"] if c.get("type") == "order"]
        started = time.monotonic()
        try:
            found = [shipment for order in orders for shipment in self._get(order)]
            return [
                {
                    "source": "fulfillment-service",
                    "type": "shipment",
                    "shipmentId": item["id"],
                    "orderId": item["orderId"],
                    "status": item["status"],
                    "trackingNumber": item["trackingNumber"],
                    "timestamp": format_naive(parse_time(item["updatedAt"])),
                }
                for item in found
            ]
        except (requests.RequestException, KeyError, TypeError, ValueError) as error:
            self._failures.labels("shipments").inc()
            log.warning("shipments are missing: %s", error, extra={"ticket_id": ticket["id"]})
            return []
        finally:
            self._seconds.labels("fulfillment-service").observe(time.monotonic() - started)

    def _get(self, order_id: int) -> list[dict[str, Any]]:
        answer = ask(
            "GET", self._shipments_url, params={"orderId": order_id}, timeout_s=self._timeout_s
        )
        answer.raise_for_status()
        items: list[dict[str, Any]] = answer.json()["items"]
        return items
