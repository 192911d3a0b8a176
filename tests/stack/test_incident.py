"""The main job on real servers: look, drill, release, prove, report."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from chainlog import read_entries
from dataflow_stack.config import load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.orders import inject_orders, wait_for_artifacts
from fulfillment.change.drill_record import list_drill_orders
from fulfillment.sections import SECTIONS
from runbook_lib.record.journal import Journal
from runbook_lib.record.manifest import verify_incident
from runbook_lib.redact import Redactor
from tests.support.stack import RunningStack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
ALL_STEPS = sorted(
    {step for section in SECTIONS.values() for step in (*section.STEPS, *section.ACTIONS)}
)


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
    """Return the command with an incident folder of the test's own."""
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


def stuck_labels(stack: RunningStack, orders: int = 4) -> list[str]:
    """Hand over late orders while the DAG is paused; return their keys once they wait."""
    ids = inject_orders(stack.env["FULFILLMENT_URL"], orders)
    keys = wait_for_artifacts(stack.env["FULFILLMENT_URL"], ids)
    waiting = read_bucket(stack, "pending/")
    assert set(keys) <= set(waiting)
    return keys


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
def test_an_incident_and_a_drill_are_two_folders_with_two_reports_each_true(
    stack: RunningStack, runbook: Runbook
) -> None:
    first = tell_first_incident(stack, runbook)
    frozen = (runbook.home / first / "report.html").read_bytes()
    drill = run_as_cron_does(stack, runbook)
    check_drill(stack, runbook, drill)
    assert {path.name for path in runbook.home.glob("inc-*")} == {first, drill["incident"]}
    assert (runbook.home / first / "report.html").read_bytes() == frozen
    assert not verify_incident(runbook.home / first).problems
    _, history = runbook("history")
    rows = {row["incident"]: row for row in history["incidents"]}
    assert rows[first]["cause_found"] == "pipeline_paused"
    assert rows[drill["incident"]]["is_good"] is True


def check_drill(stack: RunningStack, runbook: Runbook, drill: dict[str, Any]) -> None:
    """Check that a drill met every objective, and that its report names every step."""
    missed = [o for o in drill["objectives"] if not o["met"]]
    assert (drill["exit_code"], drill["verdict"], missed) == (0, "fixed", []), drill
    assert drill["cause_found"] == ["pipeline_paused"]
    assert (drill["objects_lost"], drill["foreign_touched"], drill["reverted"]) == (0, 0, True)
    folder = runbook.home / drill["incident"]
    entries = list(read_entries(folder / "journal.jsonl"))
    with_source: set[str] = set()
    for entry in entries:
        for kind in ("reading", "action"):
            found = entry.data.get(kind)
            if found and found["source"]:
                with_source.add(found["step"])
    # Nobody went the way back, and no synthetic object was left: nothing is journalled.
    assert {step for step in ALL_STEPS if step not in with_source} <= {"6.1.1", "6.1.2", "6.3"}

    html = Path(drill["report"]).read_text("utf-8")
    assert [s for s in ALL_STEPS if not re.search(rf'id="step-{re.escape(s)}"', html)] == []
    assert 'http-equiv="Content-Security-Policy"' in html
    assert runbook("verify-report", drill["incident"])[0] == 0
    orders = list_drill_orders(Journal(folder / "journal.jsonl", redactor=Redactor()).view())
    ready = read_bucket(stack, "ready/")
    assert orders
    for order in orders:
        assert len([k for k in ready if k.startswith(f"ready/{order}-")]) == 2


def tell_first_incident(stack: RunningStack, runbook: Runbook) -> str:
    """Tell a paused pipeline from fault to closed by section 7; return the incident."""
    with broken(stack, "pipeline_paused"):
        stuck_labels(stack)
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
    """Return the supported causes."""
    return [cause["name"] for cause in document["causes"] if cause["status"] == "supported"]


def is_resolved(stack: RunningStack) -> bool:
    """Tell whether no alert fires, and the last that each channel heard is that it is over."""
    heard = stack.get("NOTIFICATIONS_URL", "/notifications")["items"]
    last = {n["channel"]: n["status"] for n in heard if "FulfillmentDelay" in n["alertnames"]}
    return not is_firing(stack) and set(last.values()) == {"resolved"}


def run_as_cron_does(stack: RunningStack, runbook: Runbook) -> dict[str, Any]:
    """Run the line that `runbook drill --print-cron` prints, in an empty environment."""
    text = subprocess.run(
        [sys.executable, "-m", "runbook_lib", "drill", "--print-cron"],
        env=runbook.environment,
        cwd=runbook.home,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    line = next(line for line in text.splitlines() if line.startswith("30 9"))
    subprocess.run(
        ["/usr/bin/env", "-i", f"PYTHONPATH={ROOT}", "/bin/sh", "-c", line.split(" ", 5)[5]],
        cwd="/",
        timeout=400,
        check=False,
    )
    log = (runbook.home / "drill.log").read_text("utf-8")
    drill: dict[str, Any] = json.loads(log[log.index("{") :])
    return drill


def test_a_release_by_hand_is_bound_to_its_plan_and_proven(
    stack: RunningStack, runbook: Runbook
) -> None:
    with broken(stack, "pipeline_paused"):
        keys = stuck_labels(stack)
        before = read_bucket(stack, "pending/")
        code, plan = runbook("plan")
        assert code == 0
        assert plan["objects"] >= len(keys)
        path = runbook.home / plan["incident"] / "plans" / f"{plan['plan']}.jsonl"
        assert hashlib.sha256(path.read_bytes()).hexdigest() == plan["sha256"]

        assert runbook("apply", plan["plan"])[0] == 5
        assert runbook("apply", plan["plan"], "--approve", "0" * 64)[0] == 5
        assert read_bucket(stack, "pending/").items() >= before.items()

        code, done = runbook("apply", plan["plan"], "--approve", plan["sha256"])
        assert (code, done["moved"], done["failed"]) == (0, plan["objects"], 0)
        ready = read_bucket(stack, "ready/")
        for key in keys:
            assert ready[key.replace("pending/", "ready/", 1)] == before[key]
        code, proof = runbook("verify", plan["plan"])
        assert (code, proof["in_place"]) == (0, plan["objects"])
        assert (proof["lost"], proof["duplicated"], proof["foreign_changed"]) == (0, 0, 0)
        code, again = runbook("apply", plan["plan"], "--approve", plan["sha256"])
        assert (code, again["moved"], again["already"]) == (0, plan["objects"], 0)

        code, undo = runbook("undo", plan["plan"])
        assert (code, undo["objects"]) == (5, plan["objects"])
        still = "--consumer-stands-still"
        code, undone = runbook("undo", plan["plan"], still, "--approve", undo["sha256"])
        assert (code, undone["moved"], undone["is_held"]) == (0, plan["objects"], True)
        assert read_bucket(stack, "pending/").items() >= {k: before[k] for k in keys}.items()
        assert undone["way_on"] == [f"runbook resume {plan['plan']} --resume-worker"]
        code, resumed = runbook("resume", plan["plan"], "--resume-worker")
        assert (code, resumed["is_held"]) == (0, False)


def test_the_synthetic_drill_needs_nothing_of_our_own_stack(
    stack: RunningStack, runbook: Runbook
) -> None:
    """A marked DataFlow: no supervisor, no worker API, no probe, nobody to ask who was told."""
    others = {"RUNBOOK_SERVICES": "none", "WORKER_CONTROL": "none"}
    others |= {"NOTIFICATIONS_URL": "", "PROBE_URL": "", "PIPELINE_URL": ""}
    before = read_bucket(stack, "")
    code, refused = runbook("drill", "--scenario", "pipeline_paused", **others)
    assert (code, "drill synthetic" in refused["error"]) == (1, True), refused
    code, drill = runbook("drill", "synthetic", **others)
    assert "objectives" in drill, drill
    missed = [o for o in drill["objectives"] if not o["met"]]
    assert (code, drill["verdict"], missed) == (0, "healthy", []), drill
    assert drill["cause_found"] == ["synthetic"]
    assert (drill["objects_lost"], drill["reverted"]) == (None, True)  # nothing was moved
    assert read_bucket(stack, "chaos/") == {}
    assert {k: v for k, v in read_bucket(stack, "").items() if k in before} == before
