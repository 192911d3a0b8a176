"""The whole chain on real servers: late labels, the alert, all three channels, and back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from dataflow_stack.config import load_config
from dataflow_stack.faults import FAULTS
from tests.support.stack import RunningStack, stack, wait_until

__all__ = ["stack"]
pytestmark = pytest.mark.stack
CHANNELS = {"slack", "email", "teams"}


def heard(
    stack: RunningStack, since: datetime, is_meant: Callable[[dict[str, Any]], bool]
) -> set[str]:
    path = f"/notifications?since={since.isoformat()}"
    items = stack.get("NOTIFICATIONS_URL", path)["items"]
    return {item["channel"] for item in items if is_meant(item)}


def is_delay(status: str, *, drill: bool) -> Callable[[dict[str, Any]], bool]:
    return lambda item: (
        item["status"] == status
        and "FulfillmentDelay" in item["alertnames"]
        and item["drill"] == drill
    )


def test_a_synthetic_backlog_pages_as_a_drill_only(stack: RunningStack) -> None:
    config, since = load_config(stack.home).remembered(), datetime.now(UTC)
    FAULTS["synthetic"].on(config)
    try:
        wait_until(
            lambda: heard(stack, since, is_delay("firing", drill=True)) == CHANNELS,
            what="the drill's alert reached all channels",
        )
    finally:
        FAULTS["synthetic"].off(config)
    assert heard(stack, since, is_delay("firing", drill=False)) == set()


def test_the_sink_answers_only_what_it_understands(stack: RunningStack) -> None:
    sink = stack.env["NOTIFICATIONS_URL"]
    assert requests.post(f"{sink}/slack/x", data="no json", timeout=10).status_code == 400
    assert requests.get(f"{sink}/notifications?since=yesterday", timeout=10).status_code == 422
    assert requests.get(f"{sink}/notifications?channel=pager", timeout=10).status_code == 422


def test_a_generic_webhook_keeps_its_payload(stack: RunningStack) -> None:
    since = datetime.now(UTC)
    payload = {
        "version": "4",
        "status": "firing",
        "alerts": [{"labels": {"alertname": "Other", "drill": "true"}, "status": "firing"}],
    }
    sink = stack.env["NOTIFICATIONS_URL"]
    requests.post(f"{sink}/slack/hook", json=payload, timeout=10).raise_for_status()
    items = stack.get(
        "NOTIFICATIONS_URL", f"/notifications?since={since.isoformat()}&channel=slack"
    )["items"]
    (item,) = [item for item in items if item["alertnames"] == ["Other"]]
    assert item["drill"] is True
    assert item["alertmanagerPayload"] == payload
