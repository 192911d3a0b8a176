"""Two machines carry out shards of one manifest at once, with the printed commands alone."""

from __future__ import annotations

import random

import pytest

from tests.faults.commands import Lane
from tests.faults.printed import (
    MOST_AT_ONCE,
    Tally,
    expect_nothing_twice,
    follow,
    start_printed,
    tell,
    where_are,
)
from tests.support.gateway import wait_until
from tests.support.lossy_proxy import Request, Trap

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

LABELS = 40


def test_shards_on_two_machines_one_of_them_killed(lane: Lane, seed: int) -> None:
    tally = Tally(lane)
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    bob = lane.hire("bob", worker=True)
    plan = ann.run("plan", "--shards", "2")
    assert plan.code == 0, tell(plan)
    first, second = plan.document["shards"]
    apply_second = plan.document["apply_shard"].replace(first["plan"], second["plan"])
    assert first["objects"] + second["objects"] == LABELS

    def is_of_first(request: Request) -> bool:
        key = request.key.replace("ready/", "pending/", 1)
        return str(first["first"]) <= key <= str(first["last"])

    killed = start_printed(ann, plan.document["apply_shard"])
    # The last copy of the second window: what was announced is on its way, and leaves no doubt.
    last = 1 + MOST_AT_ONCE
    lane.proxy.traps.append(Trap(("copy",), last, "after", killed.process.kill, is_of_first))
    wait_until(
        lambda: bool(lane.shelf.list_keys(f".runbook/releases/{second['plan']}/")),
        what="the beginning of the manifest",
    )
    beside = start_printed(bob, apply_second)
    died = killed.wait()
    assert died.code < 0
    done = beside.wait()
    assert done.code == 0, tell(done)
    assert done.document["moved"] == second["objects"]
    assert lane.worker.is_paused, "the killed shard keeps it paused"
    resumed = follow(bob, died)
    assert resumed.words[:2] == ("resume", first["plan"])
    assert resumed.code == 0, tell(resumed)
    assert not lane.worker.is_paused
    proof = ann.run("verify", plan.document["plan"])
    assert proof.code == 0, tell(proof)
    assert proof.document["in_place"] == LABELS
    assert len(where_are(lane, put)["ready/"]) == LABELS
    tally.take()
    expect_nothing_twice(lane, put, tally)
