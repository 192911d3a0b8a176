"""Every way to know, and to make sure, that nobody else moves, on a DataFlow that is not ours."""

from __future__ import annotations

import time

import pytest

from tests.faults.commands import Operator, Outcome
from tests.foreign.services import Worker
from tests.foreign.system import Foreign, read_plan
from tests.support.gateway import wait_until

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("foreign", ["seaweedfs"], indirect=True),
]


def plan_some(foreign: Foreign, ann: Operator, kind: str, count: int = 3) -> Outcome:
    """Put labels that the worker never looks at, and plan their release."""
    foreign.put(count, f"{kind}/")
    plan = ann.run("plan", "--prefix", f"pending/{kind}/", "--to", f"ready/{kind}/")
    assert (plan.code, plan.document["objects"]) == (0, count), plan
    return plan


def apply(ann: Operator, plan: Outcome) -> Outcome:
    return ann.run("apply", plan.document["plan"], *plan.approval)


def expect_moved(foreign: Foreign, ann: Operator, plan: Outcome, kind: str) -> None:
    """Apply a plan; every label of it is at its destination, and nobody is left paused."""
    applied = apply(ann, plan)
    assert (applied.code, applied.get("moved")) == (0, plan.document["objects"]), applied
    assert len(foreign.shelf.list_keys(f"ready/{kind}/")) == plan.document["objects"]
    assert not foreign.shelf.list_keys(f"pending/{kind}/")
    assert ann.run("check").document["unfinished"] == []


def expect_refused(foreign: Foreign, ann: Operator, plan: Outcome, kind: str) -> Outcome:
    """Apply a plan; it is refused, and nothing was touched."""
    applied = apply(ann, plan)
    assert applied.code == 5, applied
    assert len(foreign.shelf.list_keys(f"pending/{kind}/")) == plan.document["objects"]
    assert not foreign.shelf.list_keys(f"ready/{kind}/")
    return applied


def test_a_service_without_our_interface_is_unknown_and_refuses(foreign: Foreign) -> None:
    ann = foreign.hire("api", WORKER_CONTROL="api")
    plan = plan_some(foreign, ann, "api")
    assert "`apply`" in plan.document["others"]
    assert "WORKER_CONTROL" in plan.document["others"]
    applied = expect_refused(foreign, ann, plan, "api")
    assert "WORKER_CONTROL" in applied.document["error"]


def test_an_owner_adds_the_interface_that_is_documented(foreign: Foreign) -> None:
    ann = foreign.hire("api-added", WORKER_CONTROL="api")
    foreign.fulfillment.worker = worker = Worker()
    try:
        plan = plan_some(foreign, ann, "api-added")
        assert "it is not paused now" in plan.document["others"]
        expect_moved(foreign, ann, plan, "api-added")
        assert (worker.calls, worker.paused) == (["pause", "resume"], False)
    finally:
        foreign.fulfillment.worker = None


def test_a_worker_that_stood_still_before_is_not_started(foreign: Foreign) -> None:
    ann = foreign.hire("stopped", **foreign.commands)
    foreign.steer("stop")
    try:
        plan = plan_some(foreign, ann, "stopped")
        assert "it is paused now" in plan.document["others"]
        expect_moved(foreign, ann, plan, "stopped")
        assert foreign.steer("status") == "stopped"
    finally:
        foreign.steer("start")


def test_a_metric_of_the_owners_says_when_it_moved_last(foreign: Foreign) -> None:
    query = "max(fulfillment_label_job_last_success_timestamp_seconds)"
    ann = foreign.hire("metric", WORKER_CONTROL="metric", WORKER_LAST_MOVE_QUERY=query)

    def tell(at: float) -> None:
        foreign.fulfillment.last_run_at = at
        wait_until(lambda: read() == pytest.approx(at, abs=1), what="the scrape")

    def read() -> float:
        found = foreign.ask_prometheus("/api/v1/query", query=query)["result"]
        return float(found[0]["value"][1]) if found else 0.0

    tell(time.time())
    plan = plan_some(foreign, ann, "metric")
    for words in ("nobody holds the worker", "last scrape", "can ship a label twice"):
        assert words in read_plan(plan)
    applied = expect_refused(foreign, ann, plan, "metric")
    assert "WORKER_LAST_MOVE_QUERY" in applied.document["error"]
    tell(time.time() - 3600)
    expect_moved(foreign, ann, plan, "metric")
    nobody = foreign.hire("no-metric", WORKER_CONTROL="metric", WORKER_LAST_MOVE_QUERY="absent_one")
    plan = plan_some(foreign, nobody, "no-metric")
    assert "no number" in expect_refused(foreign, nobody, plan, "no-metric").document["error"]
