"""The main job on real servers: look, drill, release, prove, report."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dataflow_stack.config import load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.orders import inject_orders, wait_for_artifacts
from runbook_lib.record.manifest import verify_incident
from tests.support.stack import Runbook, RunningStack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


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
    config = load_config(home=stack.home).remembered()
    FAULTS[fault].on(config)
    try:
        yield
    finally:
        FAULTS[fault].restore(config)
        wait_until(lambda: not stack.list_keys("pending/1"), what="the orders' labels leave")


def put_stuck_labels(stack: RunningStack) -> None:
    ids = inject_orders(stack.env["FULFILLMENT_URL"], 4)
    keys = wait_for_artifacts(stack.env["FULFILLMENT_URL"], ids)
    waiting = read_bucket(stack, "pending/")
    assert set(keys) <= set(waiting)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_paused_pipeline_is_fixed_by_the_printed_commands_until_all_is_over(
    stack: RunningStack, runbook: Runbook
) -> None:
    with broken(stack, "pipeline_paused"):
        put_stuck_labels(stack)
        wait_until(stack.is_firing, what="FulfillmentDelay fires")
        code, seen = runbook.run("investigate")
        assert (code, list_supported(seen)) == (3, ["pipeline_paused"])
        assert seen["next"] == "runbook fix"
        _, shown = runbook.run("fix")
        verbs = []
        while shown["action"]:
            _, shown = runbook.run(*shown["next"].split()[1:])  # as it is printed
            verbs += [action["verb"] for action in shown["done"]]
        assert verbs[:2] == ["release", "unpause"]
        wait_until(lambda: is_resolved(stack), what="every channel is told that it is over")
        code, done = runbook.run("run", "06", "07")
        assert (code, done["incident"]) == (0, seen["incident"]), done
    _, listed = runbook.run("incidents")
    assert [row["incident"] for row in listed["incidents"] if row["closed_at"] is None] == []
    assert not verify_incident(runbook.home / str(seen["incident"])).problems
    _, history = runbook.run("history")
    (row,) = history["incidents"]
    assert (row["incident"], row["cause_found"]) == (seen["incident"], "pipeline_paused")


def list_supported(document: dict[str, Any]) -> list[str]:
    return [cause["name"] for cause in document["causes"] if cause["status"] == "supported"]


def is_resolved(stack: RunningStack) -> bool:
    heard = stack.get("NOTIFICATIONS_URL", "/notifications")["items"]
    last = {n["channel"]: n["status"] for n in heard if "FulfillmentDelay" in n["alertnames"]}
    return not stack.is_firing() and set(last.values()) == {"resolved"}


def test_the_synthetic_drill_needs_nothing_of_our_own_stack(
    stack: RunningStack, runbook: Runbook
) -> None:
    """A marked DataFlow: no supervisor, no worker API, no probe, nobody to ask who was told."""
    others = {"RUNBOOK_SERVICES": "none", "WORKER_CONTROL": "none"}
    others |= {"NOTIFICATIONS_URL": "", "PROBE_URL": "", "PIPELINE_URL": ""}
    before = read_bucket(stack, "ready/")  # the worker moves what is elsewhere
    code, refused = runbook.run("drill", "--scenario", "pipeline_paused", **others)
    assert (code, "drill synthetic" in refused["error"]) == (1, True), refused
    code, drill = runbook.run("drill", "synthetic", **others)
    assert "objectives" in drill, drill
    missed = [o for o in drill["objectives"] if not o["met"]]
    assert (code, drill["verdict"], missed) == (0, "healthy", []), drill
    assert drill["cause_found"] == ["synthetic"]
    assert (drill["objects_lost"], drill["reverted"]) == (None, True)  # nothing was moved
    assert read_bucket(stack, "chaos/") == {}
    assert read_bucket(stack, "ready/").items() >= before.items()
