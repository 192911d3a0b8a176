"""What nobody can know, and a person's word on it: few rows, parked, settled singly, told apart."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.commands import Lane, open_lane
from tests.faults.conftest import ON_SEAWEEDFS
from tests.faults.printed import (
    STANDS_STILL,
    Tally,
    approve,
    expect_finished,
    follow,
    kill,
    kill_at,
    paste,
    plan_release,
    put_and_plan,
    put_foreign,
    ship_the_rest,
    start_printed,
    tell,
)
from tests.support.gateway import StoreServer, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

LABELS = 60
NOBODY_SAYS: tuple[str, ...] = ()


@pytest.mark.parametrize("is_said_before", [True, False])
def test_a_kill_while_the_consumer_stands_still_leaves_none_in_doubt(
    lane: Lane, seed: int, *, is_said_before: bool
) -> None:
    lane.proxy.has_renames = False
    tally = Tally(lane)
    put, ann, plan = put_and_plan(lane, seed, 65)
    since = f"{datetime.now(UTC) - timedelta(seconds=2):%Y-%m-%dT%H:%M:%SZ}"
    words = (STANDS_STILL,) if is_said_before else ()
    running = ann.start("apply", plan.document["plan"], *plan.approval, *words)
    kill_at(lane, running, ("copy",), 6, "before")
    killed = running.wait()
    assert killed.code < 0, tell(killed)
    if is_said_before:  # the printed command repeats it, with the time
        resumed = follow(ann, killed)
        assert f"{STANDS_STILL}=" in " ".join(resumed.words)
    else:
        resumed = ann.run("resume", plan.document["plan"], f"{STANDS_STILL}={since}")
        resumed = follow(ann, resumed)
    assert (resumed.code, resumed.get("moved")) == (0, 65), tell(resumed)
    proof = ann.run("verify", plan.document["plan"])
    assert (proof.code, proof.get("in_place")) == (0, 65), tell(proof)
    ship_the_rest(lane, put, tally)


NAMES = (
    "1,2-comma.pdf",
    " outer blanks .pdf",
    "'quotes' \"both\" $HOME.pdf",
    "plain-a.pdf",
    "plain-b.pdf",
    "plain-c.pdf",
)


@pytest.mark.parametrize("way", ["words", "--from-file"])
def test_keys_of_every_shape_are_settled_singly(
    lane: Lane, seed: int, tmp_path: Path, way: str
) -> None:
    """G16: keys with a comma, outer blanks or quotes cannot be settled singly."""
    lane.proxy.has_renames = False
    tally, ann = Tally(lane), lane.hire("ann", RELEASE_MATCH="*")
    for name in NAMES:
        put_foreign(lane, f"pending/{name}", f"%PDF {seed} {name}".encode())
    plan = plan_release(ann, len(NAMES))
    plan_id = plan.document["plan"]
    killed = kill(lane, ann, plan.document["apply"], ("copy",), 2, phase="before")
    wait_until(lambda: lane.proxy.is_idle, what="the copies that were under way")
    tally.take()
    resumed = follow(ann, killed, words=NOBODY_SAYS)
    unproven = resumed.document["unproven"]
    odd = [key for key in unproven if key.partition("/")[2] in NAMES[:3]]
    assert len(unproven) > len(odd) > 1, unproven
    one = random.Random(seed).choice(odd)
    words = ["--not-taken", one]
    if way == "--from-file":
        (tmp_path / "answers.txt").write_text(f"not-taken {one}\n", "utf-8")
        words = ["--from-file", str(tmp_path / "answers.txt")]
    settled = paste(ann, approve(ann, "settle", plan_id, *words))
    assert settled.get("not_taken") == 1, tell(settled)
    assert (settled.code, settled.get("left")) == (3, len(unproven) - 1), tell(settled)
    left = {row["key"] for row in ann.run("settle", plan_id).document["rows"]}
    assert left == set(unproven) - {one}
    assert one in lane.shelf.list_keys("pending/")


@ON_SEAWEEDFS
def test_a_kill_on_a_store_that_renames_asks_about_no_label_that_is_there(
    server: StoreServer, tmp_path: Path, seed: int
) -> None:
    """A rename moves a label in one step: it is waiting, at its destination, or taken."""
    with open_lane(server, tmp_path / "lane", seed=seed) as lane:  # its consumers poll
        put, ann, plan = put_and_plan(lane, seed, LABELS, worker=True)
        plan_id = plan.document["plan"]
        running = start_printed(ann, plan.document["apply"])
        number = random.Random(seed).randint(3, LABELS)
        kill_at(lane, running, ("copy",), number, "before")
        killed = running.wait()
        assert killed.code < 0, tell(killed)
        resumed = follow(ann, killed, words=NOBODY_SAYS)
        shown = ann.run("settle", plan_id)
        assert (shown.code, shown.document["rows"]) == (0, []), tell(shown)
        assert not lane.worker.is_paused
        unproven = {key.partition("/")[2] for key in resumed.document["unproven"]}
        counted = lane.count(put)
        print(f"killed at {number}: {len(unproven)} of {LABELS} unproven, none to decide")
        assert not lane.shelf.list_keys("parked/")
        assert unproven <= counted.taken
        assert counted.taken == {label.name for label in put}
        assert not counted.lost | counted.twice
        proof = ann.run("verify", plan_id)
        assert proof.get("gone_after_landed") == LABELS - len(unproven), tell(proof)
        expect_finished(lane, lane.hire("bob", worker=True))
