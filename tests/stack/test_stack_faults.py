"""Every fault is real: seen from outside while it is on, and gone after it is off."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
import requests
from minio.error import S3Error
from typer.testing import CliRunner
from urllib3.exceptions import HTTPError

from dataflow_stack import health, local
from dataflow_stack.cli import app
from dataflow_stack.config import load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.object_store import MARKER_KEY
from dataflow_stack.orders import inject_orders, wait_for_artifacts
from runbook_lib.errors import EnvironmentForbidsError
from tests.support.stack import RunningStack, stack, wait_until

__all__ = ["stack"]
pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


def failures(stack: RunningStack, stage: str, reason: str) -> float:
    text = requests.get(stack.env["FULFILLMENT_URL"] + "/metrics", timeout=10).text
    name = "fulfillment_artifacts_failed_total"
    found = re.search(rf'^{name}{{reason="{reason}",stage="{stage}"}} (\S+)', text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def lag(stack: RunningStack, origin: str) -> float:
    text = requests.get(stack.env["EXPORTER_URL"] + "/metrics", timeout=10).text
    found = re.search(rf'^fulfillment_lag_minutes{{origin="{origin}"}} (\S+)', text, re.MULTILINE)
    return float(found.group(1)) if found else -1.0


def refuses(stack: RunningStack, setting: str) -> bool:
    try:
        requests.get(stack.env[setting] + "/health", timeout=5)
    except requests.ConnectionError:
        return True
    return False


def labels_wait(stack: RunningStack) -> bool:
    """Late labels come in, and are seen to wait."""
    keys = set(wait_for_artifacts(stack.env["FULFILLMENT_URL"], inject_orders(url(stack), 1)))
    wait_until(lambda: lag(stack, "real") > 10, what="the lag shows late labels that wait")
    return keys <= set(stack.list_keys("pending/"))


def url(stack: RunningStack) -> str:
    return stack.env["FULFILLMENT_URL"]


def uploads_fail(reason: str) -> Callable[[RunningStack], bool]:
    def look(stack: RunningStack) -> bool:
        inject_orders(url(stack), 1)
        wait_until(lambda: failures(stack, "upload", reason) > 0, what=f"uploads fail: {reason}")
        return True

    return look


def carrier_fails(reason: str) -> Callable[[RunningStack], bool]:
    def look(stack: RunningStack) -> bool:
        waits = labels_wait(stack)
        wait_until(lambda: failures(stack, "carrier", reason) > 0, what=f"the carrier: {reason}")
        return waits

    return look


def store_refuses(stack: RunningStack) -> bool:
    try:
        stack.list_keys("pending/")
    except (HTTPError, S3Error):
        wait_until(lambda: lag(stack, "real") < 0, what="the exporter shows no lag")
        return True
    return False


def is_stuck(stack: RunningStack) -> bool:
    waits = labels_wait(stack)
    first = stack.get("FULFILLMENT_URL", "/fulfillment/worker")["lastRunAt"]
    requests.post(url(stack) + "/fulfillment/worker/run", timeout=10).raise_for_status()
    again = stack.get("FULFILLMENT_URL", "/fulfillment/worker")["lastRunAt"]
    return waits and first == again and not refuses(stack, "FULFILLMENT_URL")


def watches_another_prefix(stack: RunningStack) -> bool:
    worker = stack.get("FULFILLMENT_URL", "/fulfillment/worker")
    return worker["pendingPrefix"] == "incoming/" and labels_wait(stack)


def overflows(stack: RunningStack) -> bool:
    wait_until(lambda: len(stack.list_keys("pending/")) > 30, what="more arrives than leaves")
    wait_until(lambda: lag(stack, "real") > 10, what="the lag shows it")
    return stack.get("FULFILLMENT_URL", "/fulfillment/worker")["lastError"] is None


def only_synthetic_waits(stack: RunningStack) -> bool:
    wait_until(lambda: lag(stack, "synthetic") > 10, what="the synthetic lag")
    return len(stack.list_keys(stack.env["CHAOS_PREFIX"])) == 25


def clock_is_ahead(stack: RunningStack) -> bool:
    answer = requests.get(url(stack) + "/health", timeout=10)
    ahead = parsedate_to_datetime(answer.headers["Date"]) - datetime.now(UTC)
    return 110 < ahead.total_seconds() < 130


SEEN: dict[str, Callable[[RunningStack], bool]] = {
    "bad_credentials": uploads_fail("bad_credentials"),
    "bad_prefix": watches_another_prefix,
    "carrier_errors": carrier_fails("carrier_error"),
    "carrier_timeout": carrier_fails("carrier_timeout"),
    "clock_skew": clock_is_ahead,
    "metrics_blind": lambda stack: refuses(stack, "EXPORTER_URL"),
    "no_permission": uploads_fail("access_denied"),
    "pipeline_failing": labels_wait,
    "pipeline_paused": labels_wait,
    "storage_full": uploads_fail("storage_full"),
    "store_down": store_refuses,
    "support_down": lambda stack: refuses(stack, "SUPPORT_URL"),
    "surge": overflows,
    "synthetic": only_synthetic_waits,
    "worker_stopped": lambda stack: refuses(stack, "FULFILLMENT_URL"),
    "worker_stuck": is_stuck,
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_real_and_is_really_undone(name: str, stack: RunningStack) -> None:
    config = load_config(stack.home).remembered()
    fault = FAULTS[name]
    fault.on(config)
    try:
        assert fault.is_on(config)
        assert SEEN[name](stack)
    finally:
        fault.off(config)
    assert not fault.is_on(config)
    assert health.find_unhealthy(config) == {}
    keys = wait_for_artifacts(url(stack), inject_orders(url(stack), 1))
    ready = {"ready/" + key.removeprefix("pending/") for key in keys}
    wait_until(lambda: ready <= set(stack.list_keys("ready/")), what="labels flow again")
    assert stack.list_keys(stack.env["CHAOS_PREFIX"]) == []


def test_late_orders_are_late_at_once(stack: RunningStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_STACK_HOME", str(stack.home))
    config, fault = load_config(stack.home).remembered(), FAULTS["pipeline_paused"]
    fault.on(config)
    try:
        done = CliRunner().invoke(app, ["orders", "--late", "2", "--json"])
        assert done.exit_code == 0, done.output
        orders = json.loads(done.stdout)["orders"]
        assert len(wait_for_artifacts(url(stack), orders)) == 4
        wait_until(lambda: lag(stack, "real") > 10, what="the lag shows them at once")
    finally:
        fault.off(config)


def test_up_turns_off_what_is_still_on(stack: RunningStack) -> None:
    config = load_config(stack.home).remembered()
    FAULTS["support_down"].on(config)
    FAULTS["pipeline_paused"].on(config)
    local.up(home=stack.home)
    assert local.status(home=stack.home)["faults"] == []
    dag = stack.get("PIPELINE_URL", f"/api/v2/dags/{stack.env['PIPELINE_DAG_ID']}")
    assert dag["is_paused"] is False


def test_no_fault_without_the_marker(stack: RunningStack) -> None:
    config = load_config(stack.home).remembered()
    bucket = stack.env["FULFILLMENT_BUCKET"]
    stack.store.remove_object(bucket_name=bucket, object_name=MARKER_KEY)
    try:
        with pytest.raises(EnvironmentForbidsError, match="marker"):
            FAULTS["carrier_errors"].on(config)
    finally:
        local.up(home=stack.home)
    behaviour = requests.get(stack.env["CARRIER_URL"] + "/admin/behaviour", timeout=10).json()
    assert behaviour["errorRate"] == 0.0
