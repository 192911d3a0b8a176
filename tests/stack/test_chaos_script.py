"""The runbook's own chaos commands, as written, against real servers."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.stack import RunningStack, wait_until

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/chaos/simulate_fulfillment_delay.py"
PREFIX = "chaos/fulfillment-delay/"


def run(stack: RunningStack, *argv: str, **changes: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *argv],
        env=stack.settings_env | changes,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def list_keys(stack: RunningStack, prefix: str) -> set[str]:
    objects = stack.store.list_objects("fulfillment-artifacts", prefix=prefix, recursive=True)
    return {str(o.object_name) for o in objects}


def read_lag(stack: RunningStack, origin: str) -> float | None:
    query = {"query": f'fulfillment_lag_minutes{{origin="{origin}"}}'}
    url = f"{stack.env['PROMETHEUS_URL']}/api/v1/query"
    found = requests.get(url, query, timeout=5).json()["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def make_ticket(stack: RunningStack) -> str:
    url = f"{stack.env['FULFILLMENT_URL']}/fulfillment/shipments"

    def find_order() -> int:
        items = requests.get(url, {"limit": 1}, timeout=5).json()["items"]
        return int(items[0]["orderId"]) if items else 0

    wait_until(lambda: bool(find_order()), what="an order", deadline_s=30)
    body = {
        "subject": "Where is my parcel?",
        "channel": "email",
        "context": [{"type": "order", "orderId": find_order()}],
        "initialMessage": "It is late.",
    }
    made = requests.post(f"{stack.env['SUPPORT_URL']}/support/cases", json=body, timeout=5)
    return str(made.json()["id"])


def test_a_backlog_is_made_seen_by_the_exporter_and_reverted(stack: RunningStack) -> None:
    ticket = make_ticket(stack)
    real = f"{PREFIX}chaos-look-alike-9000001-0123456789ab.pdf"
    try:
        code, made = run(
            stack, "--count", "4", "--hold-minutes", "30", "--object-size-kb", "2",
            "--age-minutes", "20", "--support-ticket-id", ticket,
        )  # fmt: skip
        assert code == 0, made
        assert made["results"]["compose"]["minioRunning"] is True
        assert made["results"]["support"]["status"] == "ok"
        sample = [label["key"] for label in made["results"]["backlog"]["sample"]]
        assert set(sample) == list_keys(stack, PREFIX)
        metadata = stack.store.stat_object("fulfillment-artifacts", sample[0]).metadata
        assert metadata is not None
        assert metadata["x-amz-meta-chaos-scenario"] == "fulfillment-delay"
        wait_until(lambda: (read_lag(stack, "synthetic") or 0) > 19, what="the synthetic lag")
        _put(stack, real)
        code, reverted = run(stack, "--revert")
        assert code == 0, reverted
        assert reverted["results"]["removal"]["removed"] == 4
        assert reverted["results"]["removal"]["kept"] == 1
        assert list_keys(stack, PREFIX) == {real}
    finally:
        run(stack, "--revert")
        stack.store.remove_object("fulfillment-artifacts", real)


def _put(stack: RunningStack, key: str) -> None:
    stack.store.put_object(
        "fulfillment-artifacts", key, io.BytesIO(b"real"), 4, metadata={"order-id": "9000001"}
    )
