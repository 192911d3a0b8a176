"""Every fault can be turned on, and labels flow again after it is off."""

from __future__ import annotations

import json
import re

import pytest
import requests
from typer.testing import CliRunner

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


def lag(stack: RunningStack, origin: str) -> float:
    text = requests.get(stack.env["EXPORTER_URL"] + "/metrics", timeout=10).text
    found = re.search(rf'^fulfillment_lag_minutes{{origin="{origin}"}} (\S+)', text, re.MULTILINE)
    return float(found.group(1)) if found else -1.0


def url(stack: RunningStack) -> str:
    return stack.env["FULFILLMENT_URL"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_on_and_is_really_undone(name: str, stack: RunningStack) -> None:
    config = load_config(stack.home).remembered()
    fault = FAULTS[name]
    fault.on(config)
    try:
        assert fault.is_on(config)
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
