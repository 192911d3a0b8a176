"""Two machines carry out parts of one plan at once, with the printed commands alone."""

from __future__ import annotations

import random

import pytest

from tests.faults.commands import Lane
from tests.faults.printed import (
    MOST_AT_ONCE,
    Tally,
    expect_finished,
    expect_nothing_twice,
    follow,
    list_unfinished,
    settle_truthfully,
    ship_the_rest,
    start_printed,
    tell,
    where_are,
)
from tests.support.gateway import wait_until
from tests.support.lossy_proxy import Request, Trap

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

LABELS = 80


def test_parts_on_two_machines_one_of_them_killed(lane: Lane, seed: int) -> None:
    tally = Tally(lane)
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    bob = lane.hire("bob", worker=True)
    plan = ann.run("plan", "--parts", "2")
    assert (plan.code, plan.document["parts"]) == (0, 2), tell(plan)
    plan_id = plan.document["plan"]
    keys = sorted(key for key in lane.shelf.list_keys("pending/") if key.lower().endswith(".pdf"))
    of_first = {key.replace("pending/", "ready/", 1) for key in keys[: LABELS // 2]}

    def is_of_first(request: Request) -> bool:
        return request.key in of_first

    killed = start_printed(ann, f"{plan.document['apply']} --part 1")
    number = MOST_AT_ONCE // 2
    lane.proxy.traps.append(Trap(("copy",), number, "after", killed.process.kill, is_of_first))
    wait_until(
        lambda: bool(lane.shelf.list_keys(".runbook/parts/")),
        what="the beginning of the first part",
    )
    beside = start_printed(bob, f"{plan.document['apply']} --part 2")
    died = killed.wait()
    assert died.code < 0
    done = beside.wait()
    assert (done.code, done.get("moved")) == (0, LABELS // 2), tell(done)
    assert lane.worker.is_paused, "the killed part keeps it paused"
    (row,) = list_unfinished(bob)
    assert row["way_on"] == f"runbook resume {plan_id}"
    resumed = follow(bob, died, words=())
    assert resumed.words[:2] == ("resume", plan_id)
    assert not lane.worker.is_paused
    unproven = resumed.get("unproven")
    assert unproven <= MOST_AT_ONCE, tell(resumed)
    proof = ann.run("verify", plan_id)
    assert proof.get("in_place") == LABELS - unproven, tell(proof)
    assert len(where_are(lane, put)["ready/"]) == LABELS - unproven
    tally.take()
    expect_nothing_twice(lane, put, tally)
    settle_truthfully(ann, plan_id, tally.names(put))
    expect_finished(lane, bob)
    ship_the_rest(lane, put, tally)
