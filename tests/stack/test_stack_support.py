"""support-service and the probe, with a real fulfillment-service behind them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests

from dataflow_stack.config import load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.orders import inject_orders, wait_for_artifacts
from tests.support.stack import RunningStack, stack, wait_until

__all__ = ["stack"]
pytestmark = pytest.mark.stack


def case(stack: RunningStack, path: str) -> str:
    return f"{stack.env['SUPPORT_URL']}/support/cases{path}"


def open_case(stack: RunningStack, order_id: int) -> str:
    body = {
        "subject": "Where is my parcel?",
        "channel": "email",
        "context": [{"type": "order", "orderId": order_id}],
        "initialMessage": "It is late.",
    }
    answer = requests.post(case(stack, ""), json=body, timeout=10)
    assert answer.status_code == 201
    assert answer.json()["timeline"] == []
    return str(answer.json()["id"])


def timeline(stack: RunningStack, ticket: str) -> list[dict[str, Any]]:
    answer = requests.get(case(stack, f"/{ticket}?includeTimeline=true"), timeout=10)
    answer.raise_for_status()
    entries: list[dict[str, Any]] = answer.json()["timeline"]
    return entries


def test_a_timeline_is_cached_until_it_is_refreshed(stack: RunningStack) -> None:
    config, url = load_config(stack.home).remembered(), stack.env["FULFILLMENT_URL"]
    FAULTS["pipeline_paused"].on(config)
    try:
        (order,) = inject_orders(url, 1)
        wait_for_artifacts(url, [order])
        ticket = open_case(stack, order)
        (shipment,) = [e for e in timeline(stack, ticket) if e["type"] == "shipment"]
        assert shipment["status"] == "HANDED_OVER"
        assert shipment["trackingNumber"] is None
        assert shipment["source"] == "fulfillment-service"
    finally:
        FAULTS["pipeline_paused"].off(config)

    def released() -> bool:
        path = f"/fulfillment/shipments?orderId={order}"
        items = stack.get("FULFILLMENT_URL", path)["items"]
        return bool(items[0]["status"] == "IN_TRANSIT")

    wait_until(released, what="the shipment is in transit")
    (stale,) = [e for e in timeline(stack, ticket) if e["type"] == "shipment"]
    assert stale["status"] == "HANDED_OVER"
    answer = requests.post(case(stack, f"/{ticket}/timeline/refresh"), timeout=10)
    assert answer.status_code == 200
    (fresh,) = [e for e in timeline(stack, ticket) if e["type"] == "shipment"]
    assert fresh["status"] == "IN_TRANSIT"
    assert fresh["trackingNumber"]


def test_timestamps_come_in_three_forms(stack: RunningStack) -> None:
    (order,) = inject_orders(stack.env["FULFILLMENT_URL"], 1)
    ticket = open_case(stack, order)
    files = {"file": ("photo.txt", b"a parcel", "text/plain")}
    answer = requests.post(case(stack, f"/{ticket}/attachments"), files=files, timeout=10)
    assert answer.status_code == 201
    by_type = {entry["type"]: entry["timestamp"] for entry in timeline(stack, ticket)}
    assert by_type["attachment"].endswith("Z")
    assert by_type["conversation"].endswith("+00:00")
    assert re.fullmatch(r"[\d-]+T[\d:.]+", by_type["shipment"])


def test_a_missing_source_is_counted_and_silently_missing(stack: RunningStack) -> None:
    def failures() -> float:
        text = requests.get(stack.env["SUPPORT_URL"] + "/metrics", timeout=10).text
        name = "support_timeline_collection_failures_total"
        found = re.search(rf'^{name}{{stage="shipments"}} (\S+)', text, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    config, before = load_config(stack.home).remembered(), failures()
    ticket = open_case(stack, 1)
    FAULTS["worker_stopped"].on(config)
    try:
        types = {entry["type"] for entry in timeline(stack, ticket)}
        assert types == {"context", "conversation"}
        assert failures() > before
    finally:
        FAULTS["worker_stopped"].off(config)


def test_an_unknown_ticket_is_not_found(stack: RunningStack) -> None:
    answer = requests.get(case(stack, "/no-such-ticket"), timeout=10)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Ticket not found"})


def test_the_probe_reports_a_failing_refresh(stack: RunningStack) -> None:
    config = load_config(stack.home).remembered()

    def step(name: str) -> str:
        steps = stack.get("PROBE_URL", "/status")["steps"]
        return next(str(s["status"]) for s in steps if s["step"] == name)

    assert step("timeline_refresh") == "ok"
    FAULTS["support_down"].on(config)
    try:
        wait_until(
            lambda: stack.get("PROBE_URL", "/status")["status"] == "error",
            what="the probe reports an error",
        )
        assert step("timeline_refresh") == "error"
        text = requests.get(stack.env["PROBE_URL"] + "/metrics", timeout=10).text
        assert 'synthetic_probe_step_status{status="ok",step="create_ticket"} 0.0' in text
    finally:
        FAULTS["support_down"].off(config)
    assert step("timeline_refresh") == "ok"
