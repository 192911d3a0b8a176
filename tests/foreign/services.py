"""fulfillment-service and support-service as DataFlow has them, written for these tests.

They speak what DATAFLOW.md states and nothing of ours: no interface for the worker, no gauges, no
probe. Each wants its bearer token.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.network import Received, make_answer

_WANTING = ("pending", "ready", "processing", "packed", "delayed", "shipped")


def _now() -> str:
    return datetime.now(UTC).isoformat()


class _Service:
    def __init__(self, token: str) -> None:
        self.token, self.lock = token, threading.Lock()
        self.requests: Counter[tuple[str, str, int]] = Counter()

    def __call__(self, request: Received) -> bytes:
        path = urlsplit(request.target).path
        with self.lock:
            status, answer, handler = self._route(request, path)
            self.requests[handler, request.method, status] += 1
        kind = "application/json"
        if isinstance(answer, str):
            body, kind = answer.encode(), "text/plain; version=0.0.4"
        else:
            body = json.dumps(answer).encode()
        date = f"date: {formatdate(usegmt=True)}"
        return make_answer(body, status, f"content-type: {kind}", date)

    def _route(self, request: Received, path: str) -> tuple[int, Any, str]:
        if path == "/health":
            return 200, {"status": "ok"}, path
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"detail": "Not authenticated"}, path
        if path == "/metrics":
            return 200, self._write_metrics(), path
        query = {name: some[0] for name, some in parse_qs(urlsplit(request.target).query).items()}
        body = json.loads(request.body) if request.body.startswith(b"{") else {}
        for method, pattern, answer in self.routes():
            if method == request.method and (found := re.fullmatch(pattern, path)):
                status, said = answer(*found.groups(), query=query, body=body)
                return status, said, pattern
        return 404, {"detail": "Not Found"}, "none"

    def routes(self) -> list[tuple[str, str, Callable[..., tuple[int, Any]]]]:
        raise NotImplementedError

    def measure(self) -> dict[str, float]:
        return {}

    def _write_metrics(self) -> str:
        lines = ["# TYPE http_requests_total counter"]
        for (handler, method, status), count in self.requests.items():
            labels = f'handler="{handler}",method="{method}",status="{status}"'
            lines.append(f"http_requests_total{{{labels}}} {count}".replace("\\", "\\\\"))
        for name, value in self.measure().items():
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        return "\n".join(lines) + "\n"


class Fulfillment(_Service):
    """Shipments only; ``shipped`` returns the orders whose labels a consumer took."""

    def __init__(self, token: str, shipped: Callable[[], set[int]]) -> None:
        super().__init__(token)
        self.shipments: dict[int, dict[str, Any]] = {}
        self._shipped = shipped

    def add(self, order: int, *, status: str, age_s: float = 0.0) -> None:
        """Make a shipment. It gets its tracking number now, as in DataFlow, whatever its status."""
        at = datetime.fromtimestamp(time.time() - age_s, UTC)
        self.shipments[order] = {
            "id": order,
            "orderId": order,
            "fulfillmentCenterId": 1,
            "carrier": "GHN",
            "serviceLevel": "STANDARD",
            "status": status,
            "trackingNumber": f"TRK-{order}-{order:08x}",
            "shippedAt": None,
            "deliveredAt": None,
            "estimatedDelivery": None,
            "createdAt": at.isoformat(),
            "updatedAt": at.replace(tzinfo=None).isoformat(),  # without a zone, as DataFlow's
            "tasks": [],
        }

    def routes(self) -> list[tuple[str, str, Callable[..., tuple[int, Any]]]]:
        root = "/fulfillment/shipments"
        return [
            ("GET", root, self._list),
            ("POST", rf"{root}/(\d+)/status", self._set_status),
        ]

    def measure(self) -> dict[str, float]:
        shipped = self._shipped()
        waiting = [
            datetime.fromisoformat(one["createdAt"]).timestamp()
            for order, one in list(self.shipments.items())
            if one["status"] in _WANTING and order not in shipped
        ]
        age = time.time() - min(waiting) if waiting else 0.0
        return {"fulfillment_oldest_unshipped_label_seconds": age}

    def _list(self, *, query: dict[str, str], **_: Any) -> tuple[int, Any]:
        wanted = int(query["orderId"])
        found = [one for order, one in list(self.shipments.items()) if order == wanted]
        return 200, {"items": found[: int(query.get("limit", 50))], "total": len(found)}

    def _set_status(self, order: str, *, body: dict[str, Any], **_: Any) -> tuple[int, Any]:
        if (found := self.shipments.get(int(order))) is None:
            return 404, {"detail": "Shipment not found"}
        found |= {"status": body["status"], "updatedAt": _now()}
        return 200, found


class Support(_Service):
    def __init__(self, token: str, fulfillment: Fulfillment) -> None:
        super().__init__(token)
        self._fulfillment = fulfillment
        self.cases: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[tuple[str, str, Callable[..., tuple[int, Any]]]]:
        case = "/support/cases/([0-9a-f-]+)"
        return [
            ("POST", "/support/cases", self._open),
            ("GET", case, self._read),
            ("POST", f"{case}/timeline/refresh", self._refresh),
        ]

    def _open(self, *, body: dict[str, Any], **_: Any) -> tuple[int, Any]:
        case = {
            "id": str(uuid.uuid4()),
            "subject": body["subject"],
            "channel": body["channel"],
            "status": "open",
            "context": body["context"],
            "createdAt": _now(),
            "timeline": [],
        }
        self.cases[case["id"]] = case
        return 201, case

    def _read(self, case: str, *, query: dict[str, str], **_: Any) -> tuple[int, Any]:
        if (found := self.cases.get(case)) is None:
            return 404, {"detail": "Ticket not found"}
        orders = [item["orderId"] for item in found["context"] if item["type"] == "order"]
        timeline = [
            {
                "source": "fulfillment-service",
                "type": "shipment",
                "shipmentId": one["id"],
                "orderId": order,
                "status": one["status"],
                "trackingNumber": one["trackingNumber"],
                "timestamp": one["updatedAt"],
            }
            for order in orders
            if (one := self._fulfillment.shipments.get(order))
        ]
        is_wanted = query.get("includeTimeline") == "true"
        return 200, {**found, "timeline": timeline if is_wanted else []}

    def _refresh(self, case: str, **_: Any) -> tuple[int, Any]:
        return self._read(case, query={"includeTimeline": "true"})
