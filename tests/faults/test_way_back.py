"""The way back: an undo that is disturbed ends well by the printed commands alone, and is told."""

from __future__ import annotations

import random
import shlex
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.commands import Lane, Operator, Outcome, open_lane
from tests.faults.printed import (
    RESUME_WORKER,
    STANDS_STILL,
    Tally,
    approve,
    expect_finished,
    expect_home,
    expect_nothing_twice,
    follow,
    kill_at,
    paste,
    pick_words,
    plan_release,
    release,
    run_worker_pass,
    ship_the_rest,
    spoil_after,
    start_printed,
    tell,
    where_are,
)
from tests.support.audit import Label
from tests.support.gateway import StoreServer
from tests.support.lossy_proxy import Spoil, Trap

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

LABELS = 24
DELETES = ("delete", "bulk")


def put_and_release(
    lane: Lane, seed: int, *, labels: int = LABELS, worker: bool = False
) -> tuple[Operator, str, list[Label]]:
    """Put labels and release them undisturbed; nobody takes them."""
    put = lane.shelf.put_labels(labels, random.Random(seed))
    ann = lane.hire("ann", worker=worker)
    plan = release(ann, labels)
    return ann, plan.document["plan"], put


def begin_undo(ann: Operator, plan_id: str) -> str:
    """Have an undo shown; return the printed line that carries it out."""
    return approve(ann, "undo", plan_id)


def expect_all_back(lane: Lane, ann: Operator, put: list[Label]) -> None:
    """Check that a release was taken back, and that what waits ships once afterwards."""
    expect_home(lane, put)
    expect_finished(lane, ann)
    ship_the_rest(lane, put, Tally(lane))


@pytest.mark.parametrize(
    ("kinds", "fate"),
    [
        (("copy",), "reset_after"),
        (("copy",), "made-503-html"),
        (DELETES, "reset_after"),
        (DELETES, "made-503-text"),
    ],
)
def test_an_undo_with_a_lost_answer_ends_by_the_printed_commands(
    lane: Lane, seed: int, kinds: tuple[str, ...], fate: str
) -> None:
    """G1: one lost answer or one 503 of a router strands labels in ready/."""
    lane.proxy.has_renames = kinds != DELETES
    ann, plan_id, put = put_and_release(lane, seed)
    command = begin_undo(ann, plan_id)
    spoil_after(lane, "copy", 3, Spoil(kinds, 1.0, [fate]))
    undone = paste(ann, command)
    follow(ann, undone)
    assert sum(lane.proxy.seen[kind, fate] for kind in kinds) == 1
    expect_all_back(lane, ann, put)


@pytest.mark.parametrize(
    ("kinds", "number", "phase"),
    [(("copy",), 4, "before"), (("copy",), 20, "after"), (DELETES, 2, "after")],
)
def test_a_killed_undo_ends_by_the_printed_commands(
    lane: Lane, seed: int, kinds: tuple[str, ...], number: int, phase: str
) -> None:
    """G1: kill -9 in an undo leaves rows that no printed command can end."""
    lane.proxy.has_renames = kinds != DELETES
    ann, plan_id, put = put_and_release(lane, seed, labels=60)
    running = start_printed(ann, begin_undo(ann, plan_id))
    kill_at(lane, running, kinds, number, phase)
    killed = running.wait()
    assert killed.code < 0, tell(killed)
    follow(ann, killed)
    expect_all_back(lane, ann, put)


@pytest.mark.timeout(400)  # a copy without an ETag is proven by a look, after the fence
def test_a_copy_that_the_store_left_without_an_etag_is_known_by_its_content(
    lane: Lane, server: StoreServer, seed: int
) -> None:
    """The gateway leaves a copy without one when its source goes at that moment."""
    if server.kind != "juicefs":
        pytest.skip("this store always writes an ETag")
    ann, plan_id, put = put_and_release(lane, seed)
    running = start_printed(ann, begin_undo(ann, plan_id))
    kill_at(lane, running, ("copy",), 6, "after")
    killed = running.wait()
    places = where_are(lane, put)
    copied = sorted(places["pending/"] & places["ready/"])[0]
    lane.shelf.copy_without_etag(f"ready/{copied}", f"pending/{copied}")
    lane.shelf.client.remove_object(lane.shelf.bucket, f"ready/{copied}")
    last = follow(ann, killed)
    assert not last.get("failed") + last.get("waiting"), tell(last)
    (way_on,) = last.document["way_on"]
    settled = paste(ann, approve(ann, *shlex.split(way_on)[1:], "--not-taken"))
    assert settled.code == 0, tell(settled)
    expect_all_back(lane, ann, put)


def test_another_machine_ends_a_killed_undo(lane: Lane, seed: int) -> None:
    """G1: a colleague without the folder ends it by what check prints there."""
    ann, plan_id, put = put_and_release(lane, seed, labels=60)
    running = start_printed(ann, begin_undo(ann, plan_id))
    kill_at(lane, running, ("copy",), 6, "after")
    killed = running.wait()
    bob = lane.hire("bob")
    follow(bob, replace(killed, document={}, errors=""))
    expect_all_back(lane, bob, put)


def test_a_release_that_was_taken_back_is_not_proven(lane: Lane, seed: int) -> None:
    """G2: verify says proven, exit 0, and all labels wait in pending/."""
    ann, plan_id, put = put_and_release(lane, seed)
    undone = paste(ann, begin_undo(ann, plan_id))
    assert undone.code == 0, tell(undone)
    expect_home(lane, put)
    proof = ann.run("verify", plan_id)
    assert proof.code == 3, tell(proof)
    assert proof.document["taken_back"] == len(put)
    assert f"{plan_id}-undo" in str(proof.document["taken_back_by"])
    assert proof.get("in_place") + proof.get("gone_after_landed") == 0


def test_a_part_that_was_taken_before_the_undo_is_counted_apart(lane: Lane, seed: int) -> None:
    """G2: of a release that a consumer had begun to take, only what is back counts as such."""
    tally = Tally(lane)
    ann, plan_id, put = put_and_release(lane, seed)
    tally.take(*[label.name for label in put[:5]])
    undone = paste(ann, begin_undo(ann, plan_id))
    follow(ann, undone)
    proof = ann.run("verify", plan_id)
    assert proof.code == 3, tell(proof)
    assert proof.document["taken_back"] == len(put) - 5
    assert proof.document["gone_after_landed"] == 5
    ship_the_rest(lane, put, tally)


def test_an_undo_wants_the_word_that_the_consumer_stands_still(lane: Lane, seed: int) -> None:
    """G12: the only guard is the end of a wrapped line; the word is a flag of the approval."""
    ann, plan_id, put = put_and_release(lane, seed)
    shown = ann.run("undo", plan_id)
    assert shown.code == 5, tell(shown)
    copies = lane.proxy.seen["copy", "passed"]
    refused = ann.run("undo", plan_id, *shown.approval)
    assert refused.code == 5, tell(refused)
    assert lane.proxy.seen["copy", "passed"] == copies
    assert where_are(lane, put)["ready/"] == {label.name for label in put}
    assert "--consumer-stands-still" in shown.document["apply"]
    undone = paste(ann, shown.document["apply"])
    assert undone.code == 0, tell(undone)
    expect_all_back(lane, ann, put)


def test_an_undo_while_a_consumer_drains_is_refused_with_names(lane: Lane, seed: int) -> None:
    """G12: a consumer that has read and not yet deleted, an undo meanwhile: 40 of 40 twice."""
    tally = Tally(lane)
    ann, plan_id, put = put_and_release(lane, seed, labels=40)
    command = begin_undo(ann, plan_id)
    copies = lane.proxy.seen["copy", "passed"]
    with ExitStack() as stack:

        def drain() -> None:
            stack.enter_context(tally.drain(every_s=2.0))

        look = Trap(("list",), 1, "before", drain, lambda request: b"prefix=ready" in request.raw)
        lane.proxy.traps.append(look)
        refused = paste(ann, command)
        named = [name for name in tally.names(put) if name in refused.errors]
    assert refused.code == 5, tell(refused)
    assert named, f"whose label vanished is not named: {tell(refused)}"
    assert lane.proxy.seen["copy", "passed"] == copies
    tally.take()
    expect_nothing_twice(lane, put, tally)
    assert not where_are(lane, put)["pending/"]


@pytest.mark.parametrize("meanwhile", ["worker", "consumer"])
def test_an_undo_that_ends_between_copy_and_delete_loses_nothing(
    lane: Lane, seed: int, meanwhile: str
) -> None:
    """G17: its copies are trusted across a pause, and the last copy of a label is deleted."""
    lane.proxy.has_renames = False
    tally = Tally(lane)
    ann, plan_id, put = put_and_release(lane, seed, labels=12, worker=True)
    command = begin_undo(ann, plan_id)
    spoil_after(lane, "copy", 1, Spoil(DELETES, 1.0, ["made-500-xml"] * 500))
    undone = paste(ann, command)
    assert undone.code not in (0, 2), tell(undone)
    if meanwhile == "worker":
        run_worker_pass(lane)
    else:
        tally.take(put[0].name)
    lane.proxy.calm()
    # The printed time is not true any more: say it anew.
    resumed = ann.run("resume", plan_id, STANDS_STILL)
    follow(ann, resumed, words=(STANDS_STILL, RESUME_WORKER))
    assert not lane.worker.is_paused
    run_worker_pass(lane)
    tally.take()
    expect_nothing_twice(lane, put, tally)
    places = where_are(lane, put)
    assert tally.names(put) | places["pending/"] | places["parked/"] == {p.name for p in put}


def test_an_undo_goes_on_with_the_word_only(lane: Lane, seed: int) -> None:
    """G12: the word counts for one session: the printed resume carries the flag."""
    ann, plan_id, put = put_and_release(lane, seed)
    running = start_printed(ann, begin_undo(ann, plan_id))
    kill_at(lane, running, ("copy",), 5, "after")
    running.wait()
    without = ann.run("resume", plan_id)
    assert without.code == 5, tell(without)
    assert "--consumer-stands-still" in without.errors
    follow(ann, without)
    expect_all_back(lane, ann, put)


def test_the_same_bucket_under_another_host_name_is_the_same(lane: Lane, seed: int) -> None:
    """G8: localhost for 127.0.0.1, and there is no resume, undo or settle any more."""
    lane.proxy.has_renames = False
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    ann = lane.hire("ann")
    plan = plan_release(ann, LABELS)
    plan_id = plan.document["plan"]
    running = start_printed(ann, plan.document["apply"])
    kill_at(lane, running, DELETES, 2, "after")
    running.wait()
    renamed = replace(ann, endpoint=ann.endpoint.replace("127.0.0.1", "localhost"))
    resumed = renamed.run("resume", plan_id)
    assert resumed.code in (0, 3), tell(resumed)
    landed = len(put) - resumed.get("unproven")
    proof = renamed.run("verify", plan_id)
    assert proof.get("in_place") == landed, tell(proof)
    shown = renamed.run("settle", plan_id)
    assert len(shown.document["rows"]) == resumed.get("unproven"), tell(shown)
    undone = paste(renamed, approve(renamed, "undo", plan_id))
    assert undone.get("moved") == landed, tell(undone)


def test_another_store_is_refused(
    server: StoreServer, lane: Lane, tmp_path: Path, seed: int
) -> None:
    """G8: a plan belongs to the bucket that its id names, whatever its address."""
    ann, plan_id, _ = put_and_release(lane, seed, labels=4)
    with open_lane(server, tmp_path / "other", seed=seed, bucket="other", consumers=0) as other:
        strange = replace(ann, endpoint=other.proxy.endpoint, bucket="other")
        release(replace(other.hire("zoe")), _put_some(other, seed))
        before = other.shelf.list_keys()
        for words in (("resume", plan_id), ("undo", plan_id), ("settle", plan_id)):
            refused = strange.run(*words)
            assert refused.code == 5, tell(refused)
        assert other.shelf.list_keys("ready/") == [k for k in before if k.startswith("ready/")]


def _put_some(lane: Lane, seed: int) -> int:
    return len(lane.shelf.put_labels(3, random.Random(seed + 1)))


def expect_skipped(outcome: Outcome, keys: list[str]) -> None:
    """Check that an outcome names exactly these rows as skipped."""
    assert outcome.get("skipped") == len(keys), tell(outcome)
    assert sorted(pick_words(outcome, "reasons")) == sorted(keys), tell(outcome)


def test_one_label_of_a_hundred_that_is_gone_is_skipped_and_told(lane: Lane, seed: int) -> None:
    """G11: one label of a hundred gone since the plan: all are refused."""
    tally = Tally(lane)
    put = lane.shelf.put_labels(100, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan = plan_release(ann, 100)
    gone = f"pending/{put[40].name}"
    lane.shelf.client.remove_object(lane.shelf.bucket, gone)
    applied = paste(ann, plan.document["apply"])
    assert applied.code == 3, tell(applied)
    assert applied.document["moved"] == 99
    expect_skipped(applied, [gone])
    proof = ann.run("verify", plan.document["plan"])
    assert (proof.code, proof.get("skipped")) == (3, 1), tell(proof)
    left = [label for label in put if label != put[40]]
    ship_the_rest(lane, left, tally)


def test_a_strict_release_refuses_a_label_that_is_gone(lane: Lane, seed: int) -> None:
    """G11: who wants all or nothing says --strict."""
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan = plan_release(ann, LABELS)
    lane.shelf.client.remove_object(lane.shelf.bucket, f"pending/{put[0].name}")
    strict = ann.run("apply", plan.document["plan"], *plan.approval, "--strict")
    assert strict.code == 5, tell(strict)
    assert put[0].name in strict.errors
    assert not lane.proxy.landed
    assert not lane.worker.is_paused


def test_a_release_of_which_more_than_a_tenth_is_gone_is_refused(lane: Lane, seed: int) -> None:
    """G11: more than a tenth of the rows, or than 3, means that the plan is of another time."""
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan = plan_release(ann, LABELS)
    for label in put[:4]:
        lane.shelf.client.remove_object(lane.shelf.bucket, f"pending/{label.name}")
    refused = paste(ann, plan.document["apply"])
    assert refused.code == 5, tell(refused)
    assert not lane.proxy.landed
    assert not lane.worker.is_paused


def test_a_label_that_is_gone_refuses_where_nobody_holds_the_worker(lane: Lane, seed: int) -> None:
    """G11: with WORKER_CONTROL=none a missing row means that someone moves."""
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    ann = lane.hire("ann")
    plan = plan_release(ann, LABELS)
    lane.shelf.client.remove_object(lane.shelf.bucket, f"pending/{put[0].name}")
    refused = paste(ann, plan.document["apply"])
    assert refused.code == 5, tell(refused)
    assert not lane.proxy.landed
