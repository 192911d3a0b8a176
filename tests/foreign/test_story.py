"""An incident on a DataFlow that is not ours: alert, investigate, plan, apply, verify, undo."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runbook_lib.model import parse_time
from tests.faults.commands import Operator, Outcome
from tests.foreign.system import Foreign, read_plan
from tests.support.audit import Label
from tests.support.gateway import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

#: Who looks has a key that may only read.
ON_SEAWEEDFS = pytest.mark.parametrize("foreign", ["seaweedfs"], indirect=True)
ON_JUICEFS = pytest.mark.parametrize("foreign", ["juicefs"], indirect=True)
STEPS = Path(__file__).parents[2] / "docs" / "connect.md"


@contextmanager
def shop(foreign: Foreign) -> Iterator[list[Label]]:
    """Have new labels arrive all the time: the worker moves these."""
    end, labels = threading.Event(), list[Label]()

    def sell() -> None:
        while not end.wait(0.5):
            labels.extend(foreign.put(1, age_s=0))

    thread = threading.Thread(target=sell)
    thread.start()
    try:
        yield labels
    finally:
        end.set()
        thread.join()


def put_backlog(foreign: Foreign) -> tuple[list[Label], list[Label]]:
    days = ("2026/11/23/", "2026/11/24/hcm/", "2026/11/24/")
    labels = [one for n in range(185) for one in foreign.put(1, days[n % 3])]
    labels += foreign.put(8, "2026/11/24/", ".PDF")
    labels += foreign.put(2, "2026/11/24/", size_bytes=11 << 20)  # in three parts
    return labels, foreign.put(5, "2026/11/24/", ".zpl")


def carry_out(operator: Operator, plan: Outcome) -> Outcome:
    applied = operator.run("apply", plan.document["plan"], *plan.approval)
    assert applied.code == 0, applied
    verified = operator.run("verify", plan.document["plan"])
    assert verified.code == 0, verified
    return applied


def read_begin_and_end(operator: Operator, plan: Outcome) -> tuple[float, float]:
    """Return from when to when labels were moved, by this machine's log: the worker was held."""
    (log,) = operator.home.rglob(f"ledger/{plan.document['plan']}.jsonl")
    entries = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    at = {entry["kind"]: parse_time(entry["at"]).timestamp() for entry in entries}
    return at["begun"], at["ended"]


@ON_SEAWEEDFS
def test_what_each_step_shows_is_documented(foreign: Foreign) -> None:
    """The table of docs/connect.md, part 8, on a system with a backlog and with an alert."""
    foreign.put(3, "2026/11/24/")
    wait_until(lambda: "FulfillmentDelay" in foreign.list_alerts(), what="the alert")
    ann = foreign.hire("look", **foreign.commands)
    ticket = foreign.open_ticket()
    outcome = ann.run("investigate", "--ticket", ticket, deadline_s=150)
    assert outcome.code == 3, outcome
    shown = {reading["step"]: reading for reading in outcome.document["readings"]}
    rerun = ann.run("run", "06", "-p", "wait_s=0", deadline_s=150)
    assert rerun.code == 5, rerun  # it stops at its plans
    told = dict(re.findall(r"^\| (\d\.\d) \|[^|]*\| ([a-z ]+) \|", STEPS.read_text("utf-8"), re.M))
    found = {s: shown[s]["status"].replace("_", " ") for s in shown if s in told}
    assert told == found, "\n".join(
        f"{step} {one['name']}: {one['status']} {one['value']}: {one['reason']}"
        for step, one in shown.items()
    )
    clear(foreign)


@ON_JUICEFS
def test_a_backlog_is_released_beside_a_consumer_and_a_worker(foreign: Foreign) -> None:
    labels, others = put_backlog(foreign)
    wait_until(lambda: "FulfillmentDelay" in foreign.list_alerts(), what="the alert")
    ann = foreign.hire("ann", **foreign.commands)
    with foreign.consume(), shop(foreign) as sold:
        wait_until(lambda: len(foreign.read_moves()) > 2, what="the worker's moves")
        plan = ann.run("plan", "--prefix", "pending/2026/", "--to", "ready/2026/")
        assert plan.code == 0, plan
        assert plan.document["objects"] == len(labels)
        assert plan.document["excluded"] == {"no_match": len(others)}
        assert "RELEASE_MATCH=*.pdf" in plan.document["reason"]
        assert "WORKER_CONTROL=command" in read_plan(plan)
        applied = carry_out(ann, plan)
        assert applied.get("moved") == len(labels)
        began, ended = read_begin_and_end(ann, plan)
        assert foreign.steer("status") == "running"
        more = len(foreign.read_moves())
        wait_until(lambda: len(foreign.read_moves()) > more, what="the worker's next move")
        rest = ann.run(
            "plan", "--prefix", "pending/2026/", "--to", "ready/2026/", "--match", "*.zpl"
        )
        carry_out(ann, rest)
    wait_until(lambda: not foreign.shelf.list_keys("pending/"), what="the worker's last move")
    with foreign.consume():
        pass
    counted = foreign.count([*labels, *others, *sold])
    assert not counted.lost | counted.twice | counted.unkept
    assert len(counted.taken) == 200 + len(sold)
    moves = foreign.read_moves()
    assert not [m for m in moves if m["ended"] > began and m["began"] < ended]
    wait_until(lambda: "FulfillmentDelay" not in foreign.list_alerts(), what="the end of the alert")


def clear(foreign: Foreign) -> None:
    foreign.shelf.clear()
    foreign.fulfillment.shipments.clear()


@ON_JUICEFS
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"RELEASE_MATCH": "*.label"}, "RELEASE_MATCH=*.label"),
        ({}, "LABEL_FINISHED=shipment"),
    ],
)
def test_a_plan_that_holds_nothing_names_the_setting(
    foreign: Foreign, settings: dict[str, str], named: str
) -> None:
    foreign.put(3, "nothing/", status="packed" if settings else "cancelled")
    ann = foreign.hire("nothing", **settings)
    plan = ann.run("plan", "--prefix", "pending/nothing/", "--to", "ready/nothing/")
    assert (plan.code, plan.document["objects"]) == (3, 0), plan
    assert "3 stay: " in plan.document["reason"]
    assert named in plan.document["reason"]
    clear(foreign)
