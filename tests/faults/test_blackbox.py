"""Any request may be the last, or spoiled, while consumers poll: each label ships exactly once."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.commands import Lane, open_lane
from tests.faults.conftest import RUNS
from tests.faults.printed import (
    CHANGES,
    expect_finished,
    follow,
    put_and_plan,
    release,
    settle_truthfully,
    start_printed,
    tell,
)
from tests.support.gateway import StoreServer, wait_until
from tests.support.lossy_proxy import FATES, Spoil, Trap

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300 + 60 * RUNS)]

LABELS = 30
#: What is spoiled: the one request of a label, the other, what we note, or what we look at.
KINDS = (("copy",), ("delete", "bulk"), ("claim", "record", "own"), ("list", "head", "get"))


@pytest.fixture
def lane(server: StoreServer, tmp_path: Path, seed: int) -> Iterator[Lane]:
    """One bucket, in which consumers poll."""
    with open_lane(server, tmp_path / "lane", seed=seed) as opened:
        yield opened


def test_each_label_ships_once_whatever_dies_or_sleeps(lane: Lane, seed: int) -> None:
    rng = random.Random(seed)
    rounds = 3 * RUNS // 2 if RUNS >= 100 else 3
    for number in range(rounds):
        print(f"round {number}")
        is_stop = number % 3 == 1
        play(lane, rng, signal.SIGSTOP if is_stop else signal.SIGKILL)


def play(lane: Lane, rng: random.Random, how: signal.Signals) -> None:
    """Kill a release at any request, or stop it, and let another machine resume it meanwhile."""
    lane.clear()
    lane.proxy.has_renames = rng.random() < 0.5
    put, ann, plan = put_and_plan(lane, rng.getrandbits(32), LABELS, worker=True)
    plan_id = plan.document["plan"]
    spoil = Spoil(rng.choice(KINDS), rng.uniform(0.02, 0.3), rng.sample(FATES, 3))
    lane.proxy.spoils.append(spoil)
    running = start_printed(ann, plan.document["apply"])
    trap = Trap(
        (*CHANGES, "head", "own"),
        rng.randint(1, 2 * LABELS),
        rng.choice(("before", "after")),
        lambda: running.send(how),
    )
    print(spoil, trap)
    lane.proxy.traps.append(trap)
    wait_until(
        lambda: trap.sprung.is_set() or running.process.poll() is not None,
        what="the trap",
        deadline_s=90,
    )
    lane.proxy.calm()
    if how == signal.SIGSTOP:
        bob = lane.hire("bob", worker=True)
        follow(bob, bob.run("apply", plan_id, *plan.approval), words=())
        running.send(signal.SIGCONT)
    ended = follow(ann, running.wait(), words=())

    counted = lane.count(put)
    proof = ann.run("verify", plan_id)
    proven = proof.get("in_place") + proof.get("gone_after_landed")
    assert max(proven, ended.get("moved")) <= len(counted.moved), tell(proof)
    assert proof.code != 0 or len(counted.moved) == LABELS, tell(proof)
    if proof.get("unproven"):
        settle_truthfully(ann, plan_id, counted.taken)
    carol = lane.hire("carol", worker=True)
    expect_finished(lane, carol)
    waiting = lane.count(put).pending
    if waiting:
        release(carol, len(waiting))
    counted = lane.count(put)
    assert counted.taken == {label.name for label in put}
    assert not counted.twice | counted.lost | counted.unkept
