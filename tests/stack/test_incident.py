"""The main job on real servers: look, drill, release, prove, report."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from dataflow_stack.config import load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.orders import inject_orders, wait_for_artifacts
from runbook_lib.record.manifest import verify_incident
from tests.support.stack import RunningStack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]


class Runbook:
    """The command, run as a user would, with its own incident folder."""

    def __init__(self, stack: RunningStack, home: Path) -> None:
        self.home = home
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", str(home)),
            **stack.env,
            "RUNBOOK_HOME": str(home),
            "PYTHONPATH": str(ROOT),
        }

    def __call__(self, *arguments: str, **changes: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "runbook_lib", *arguments, "--json"],
            env=self.environment | changes,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.stdout.strip(), done.stderr
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def runbook(stack: RunningStack, tmp_path: Path) -> Runbook:
    return Runbook(stack, tmp_path)


def read_bucket(stack: RunningStack, prefix: str) -> dict[str, str]:
    """Return key → SHA-256 of every object, by a client that the project does not move with."""
    bucket, found = stack.env["FULFILLMENT_BUCKET"], {}
    for key in stack.list_keys(prefix):
        with stack.store.get_object(bucket_name=bucket, object_name=key) as answer:
            found[key] = hashlib.sha256(answer.read()).hexdigest()
    return found


@contextmanager
def broken(stack: RunningStack, fault: str) -> Iterator[None]:
    """Break something, and mend it whatever happens."""
    config = load_config(home=stack.home).remembered()
    FAULTS[fault].on(config)
    try:
        yield
    finally:
        FAULTS[fault].restore(config)
        wait_until(lambda: not stack.list_keys("pending/1"), what="the orders' labels leave")
        wait_until(lambda: not stack.list_keys("pending/1"), what="the orders' labels leave")


def put_stuck_labels(stack: RunningStack) -> None:
    """Hand over late orders while the DAG is paused, until their labels wait."""
    ids = inject_orders(stack.env["FULFILLMENT_URL"], 4)
    keys = wait_for_artifacts(stack.env["FULFILLMENT_URL"], ids)
    waiting = read_bucket(stack, "pending/")
    assert set(keys) <= set(waiting)


def is_firing(stack: RunningStack) -> bool:
    """Tell whether Prometheus says that the alert fires; one that just started says nothing yet."""
    try:
        alerts = stack.get("PROMETHEUS_URL", "/api/v1/alerts")["data"]["alerts"]
    except requests.HTTPError:
        return False
    return any(
        a["labels"]["alertname"] == "FulfillmentDelay" and a["state"] == "firing" for a in alerts
    )


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_paused_pipeline_is_fixed_by_the_printed_commands_until_all_is_over(
    stack: RunningStack, runbook: Runbook
) -> None:
    incident = tell_first_incident(stack, runbook)
    assert not verify_incident(runbook.home / incident).problems
    _, history = runbook("history")
    (row,) = history["incidents"]
    assert (row["incident"], row["cause_found"]) == (incident, "pipeline_paused")


def tell_first_incident(stack: RunningStack, runbook: Runbook) -> str:
    """Tell a paused pipeline from fault to closed by section 7; return the incident."""
    with broken(stack, "pipeline_paused"):
        put_stuck_labels(stack)
        wait_until(lambda: is_firing(stack), what="FulfillmentDelay fires")
        code, seen = runbook("investigate")
        assert (code, list_supported(seen)) == (3, ["pipeline_paused"])
        assert seen["next"] == "runbook fix"
        _, shown = runbook("fix")
        verbs = []
        while shown["action"]:
            _, shown = runbook(*shown["next"].split()[1:])  # as it is printed
            verbs += [action["verb"] for action in shown["done"]]
        assert verbs[:2] == ["release", "unpause"]
        wait_until(lambda: is_resolved(stack), what="every channel is told that it is over")
        code, done = runbook("run", "06", "07")
        assert (code, done["incident"]) == (0, seen["incident"]), done
    _, listed = runbook("incidents")
    assert [row["incident"] for row in listed["incidents"] if row["closed_at"] is None] == []
    return str(seen["incident"])


def list_supported(document: dict[str, Any]) -> list[str]:
    return [cause["name"] for cause in document["causes"] if cause["status"] == "supported"]


def is_resolved(stack: RunningStack) -> bool:
    """Tell whether no alert fires, and the last that each channel heard is that it is over."""
    heard = stack.get("NOTIFICATIONS_URL", "/notifications")["items"]
    last = {n["channel"]: n["status"] for n in heard if "FulfillmentDelay" in n["alertnames"]}
    return not is_firing(stack) and set(last.values()) == {"resolved"}


def test_the_synthetic_drill_needs_nothing_of_our_own_stack(
    stack: RunningStack, runbook: Runbook
) -> None:
    """A marked DataFlow: no supervisor, no worker API, no probe, nobody to ask who was told."""
    others = {"RUNBOOK_SERVICES": "none", "WORKER_CONTROL": "none"}
    others |= {"NOTIFICATIONS_URL": "", "PROBE_URL": "", "PIPELINE_URL": ""}
    before = read_bucket(stack, "ready/")  # the worker moves what is elsewhere
    code, refused = runbook("drill", "--scenario", "pipeline_paused", **others)
    assert (code, "drill synthetic" in refused["error"]) == (1, True), refused
    code, drill = runbook("drill", "synthetic", **others)
    assert "objectives" in drill, drill
    missed = [o for o in drill["objectives"] if not o["met"]]
    assert (code, drill["verdict"], missed) == (0, "healthy", []), drill
    assert drill["cause_found"] == ["synthetic"]
    assert (drill["objects_lost"], drill["reverted"]) == (None, True)  # nothing was moved
    assert read_bucket(stack, "chaos/") == {}
    assert read_bucket(stack, "ready/").items() >= before.items()
