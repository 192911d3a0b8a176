"""What a bucket remembers of a release: lost, read half, copied with its folder, on a weaker store.

Also what is looked at before the first copy: rights, the clock, room, and what a plan costs.
"""

from __future__ import annotations

import io
import random
import re
import signal

import pytest

from tests.faults.commands import FAKETIME, Lane, Operator, Outcome
from tests.faults.printed import (
    MOST_AT_ONCE,
    STANDS_STILL,
    Tally,
    approve,
    expect_finished,
    expect_home,
    expect_nothing_twice,
    follow,
    kill_at,
    list_unfinished,
    paste,
    pick_words,
    plan_release,
    read_printed,
    release,
    remove_memory,
    settle_truthfully,
    ship_the_rest,
    spoil_after,
    start_printed,
    tell,
    where_are,
)
from tests.support.audit import Label
from tests.support.gateway import StoreServer
from tests.support.lossy_proxy import Request, Spoil, Trap
from tests.support.weak_store import drop_conditions

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

LABELS = 60
DELETES = ("delete", "bulk")
WORKS = ("copy", "delete", "bulk", "record", "own")


def kill_and_forget(
    lane: Lane, seed: int, tally: Tally, kinds: tuple[str, ...], number: int
) -> tuple[Operator, Outcome, list[Label]]:
    """Kill a release; a consumer takes what landed, and somebody tidies ``.runbook/`` away."""
    lane.proxy.has_renames = kinds != DELETES
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    ann = lane.hire("ann")
    plan = plan_release(ann, LABELS)
    running = start_printed(ann, plan.document["apply"])
    kill_at(lane, running, kinds, number, "before")
    assert running.wait().code < 0
    where_are(lane, put)
    tally.take()
    remove_memory(lane)
    return ann, plan, put


def says_removed(outcome: Outcome) -> bool:
    """Tell whether an outcome says that the bucket's memory was removed."""
    text = f"{outcome.document} {outcome.errors}".lower()
    return re.search(r"memory[^.]*(removed|gone)|(removed|gone)[^.]*memory", text) is not None


@pytest.mark.parametrize(("kinds", "number"), [(("copy",), 8), (DELETES, 1)])
def test_after_the_memory_was_removed_nothing_ships_twice(
    lane: Lane, seed: int, kinds: tuple[str, ...], number: int
) -> None:
    """G5: resume says "finished elsewhere", and the next plan ships 44 of 60 twice."""
    tally = Tally(lane)
    ann, plan, put = kill_and_forget(lane, seed, tally, kinds, number)
    resumed = ann.run("resume", plan.document["plan"])
    follow(ann, resumed, words=())
    tally.take()
    more = ann.run("plan")
    if more.code == 0 and more.document["objects"]:
        follow(ann, paste(ann, more.document["apply"]), words=())
    tally.take()
    expect_nothing_twice(lane, put, tally)


@pytest.mark.parametrize("command", ["plan", "check"])
def test_what_the_bucket_forgot_is_told(lane: Lane, seed: int, command: str) -> None:
    """G5: the folder knows what the bucket forgot, and nobody says so."""
    ann, _, _ = kill_and_forget(lane, seed, Tally(lane), ("copy",), 8)
    assert says_removed(ann.run(command))


def test_rows_of_a_removed_memory_are_planned_with_that_word_only(lane: Lane, seed: int) -> None:
    """G5: what its ledger does not close wants a person's word before it is planned again."""
    tally = Tally(lane)
    ann, plan, put = kill_and_forget(lane, seed, tally, ("copy",), 8)
    follow(ann, ann.run("resume", plan.document["plan"]), words=())
    waiting = where_are(lane, put)["pending/"]
    assert waiting
    without = ann.run("plan")
    assert without.code == 5, tell(without)
    assert "--memory-removed" in without.errors
    with_word = ann.run("plan", "--memory-removed")
    assert (with_word.code, with_word.document.get("objects")) == (0, len(waiting)), tell(with_word)


@pytest.mark.parametrize("moment", range(3))
def test_a_folder_that_is_copied_at_any_point_ships_nothing_twice(
    lane: Lane, seed: int, moment: int
) -> None:
    """G5: cp -r of RUNBOOK_HOME at some point, a kill later, both resumed, a consumer between."""
    rng, tally = random.Random(f"{seed}-{moment}"), Tally(lane)
    put = lane.shelf.put_labels(30, random.Random(seed))
    ann, bob = lane.hire("ann"), lane.hire("bob")
    plan = plan_release(ann, 30)
    running = start_printed(ann, plan.document["apply"])
    copied = Trap(WORKS, rng.randint(2, 30), "before", lambda: bob.copy_from(ann))
    killed = Trap(WORKS, rng.randint(31, 60), "before", running.process.kill)
    lane.proxy.traps += [copied, killed]
    first = running.wait()
    lane.proxy.calm()
    if not copied.sprung.is_set():
        bob.copy_from(ann)
    where_are(lane, put)
    tally.take()
    for person in (bob, ann):
        outcome = person.run("resume", plan.document["plan"])
        follow(person, outcome, words=())
        tally.take()
    print(f"copied {copied.sprung.is_set()}, first ended with {first.code}")
    expect_nothing_twice(lane, put, tally)
    settle_truthfully(ann, plan.document["plan"], tally, put)
    ship_the_rest(lane, put, tally)


@pytest.fixture
def strong_lane(lane: Lane, server: StoreServer) -> Lane:
    """One whose store honours conditions, and can lose them."""
    if server.kind != "seaweedfs":
        pytest.skip("only SeaweedFS honours conditions, so only it can stop doing so")
    return lane


def test_a_release_ends_on_a_store_that_became_weaker(strong_lane: Lane, seed: int) -> None:
    """G9: "the store is not as it was" for ever, settle refused too, 39 of 40 stuck."""
    lane, tally = strong_lane, Tally(strong_lane)
    put = lane.shelf.put_labels(40, random.Random(seed))
    ann = lane.hire("ann")
    plan = plan_release(ann, 40)
    running = start_printed(ann, plan.document["apply"])
    kill_at(lane, running, ("copy",), 8, "before")
    killed = running.wait()
    lane.proxy.rewrite = drop_conditions
    ended = follow(ann, killed, words=())
    while ended.document.get("apply"):
        ended = follow(ann, paste(ann, ended.document["apply"]), words=())
    tally.take()
    proof = ann.run("verify", plan.document["plan"])
    assert proof.get("unproven") <= MOST_AT_ONCE
    settle_truthfully(ann, plan.document["plan"], tally, put)
    ship_the_rest(lane, put, tally)


def test_an_undo_probes_anew_on_a_store_that_became_weaker(strong_lane: Lane, seed: int) -> None:
    """G9: an undo of a release that was made on a stronger store."""
    lane = strong_lane
    put = lane.shelf.put_labels(24, random.Random(seed))
    ann = lane.hire("ann")
    plan_id = release(ann, 24).document["plan"]
    running = start_printed(ann, approve(ann, "undo", plan_id))
    kill_at(lane, running, ("copy",), 5, "before")
    killed = running.wait()
    lane.proxy.rewrite = drop_conditions
    follow(ann, killed)
    expect_home(lane, put)
    expect_finished(lane, ann)


def is_delete_in_pending(request: Request) -> bool:
    """Tell whether a request deletes where labels wait."""
    is_delete = request.raw.startswith(b"DELETE ") or b"<Delete>" in request.raw
    return is_delete and (request.key.startswith("pending/") or b"<Key>pending/" in request.raw)


def test_a_key_that_may_not_delete_is_refused_before_the_first_copy(lane: Lane, seed: int) -> None:
    """G13: AccessDenied on deletes: three fences are waited for, and a consumer has the copy."""
    put = lane.shelf.put_labels(12, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan = plan_release(ann, 12)
    kinds = (*DELETES, "own")  # the right is tried on a key that nobody has
    denied = Spoil(kinds, 1.0, ["made-403-xml"] * 2000, matches=is_delete_in_pending)
    lane.proxy.spoils.append(denied)
    refused = start_printed(ann, plan.document["apply"]).wait(60)
    assert refused.code == 5, tell(refused)
    assert not lane.proxy.landed, "something was copied"
    assert "delete" in refused.errors.lower()
    assert not lane.worker.is_paused
    lane.proxy.calm()
    expect_home(lane, put)
    assert not [row for row in list_unfinished(ann) if row["plan"] != plan.document["plan"]]


def test_an_encryption_header_does_not_make_a_plan_read_every_body(lane: Lane, seed: int) -> None:
    """G14: x-amz-server-side-encryption: AES256 everywhere: each plan reads every body."""
    lane.shelf.put_labels(LABELS, random.Random(seed))
    lane.proxy.added = b"x-amz-server-side-encryption: AES256\r\n"
    before = lane.proxy.seen["get", "passed"]
    plan_release(lane.hire("ann"), LABELS)
    bodies = lane.proxy.seen["get", "passed"] - before
    assert bodies < LABELS / 4, f"{bodies} bodies were read to plan {LABELS} labels"


@pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed")
@pytest.mark.parametrize("clock_s", [1200, -1200])
def test_a_clock_that_is_off_is_named_as_that(lane: Lane, seed: int, clock_s: int) -> None:
    """G16: 20 minutes of clock read as "Request has expired"."""
    lane.shelf.put_labels(3, random.Random(seed))
    plan = lane.hire("ann", clock_s=clock_s).run("plan")
    if plan.code != 0:  # SeaweedFS takes signatures of the future
        assert "clock" in plan.errors.lower(), tell(plan)


def test_a_claim_that_nobody_can_read_does_not_block_for_an_hour(lane: Lane, seed: int) -> None:
    """G16: a garbage claim blocks for up to an hour."""
    lane.shelf.put_labels(3, random.Random(seed))
    ann = lane.hire("ann")
    plan = plan_release(ann, 3)
    key = ".runbook/claims/state/0123456789abcdef"
    lane.shelf.client.put_object(lane.shelf.bucket, key, io.BytesIO(b"\x00junk"), 5)
    applied = start_printed(ann, plan.document["apply"]).wait(40)
    if applied.code != 0:
        assert applied.code == 5, tell(applied)
        assert key in applied.errors, tell(applied)


def test_no_room_names_what_goes_on_once_there_is_room(lane: Lane, seed: int) -> None:
    """G16: "no room" does not name resume."""
    tally = Tally(lane)
    put = lane.shelf.put_labels(40, random.Random(seed))
    ann = lane.hire("ann")
    plan = plan_release(ann, 40)
    spoil_after(lane, "copy", 3, Spoil(("copy", "put"), 1.0, ["made-507-xml"] * 2000))
    full = paste(ann, plan.document["apply"])
    assert full.code not in (0, 2), tell(full)
    assert len(pick_words(full, "unproven")) <= MOST_AT_ONCE, tell(full)
    ways = " ".join(read_printed(full))
    assert f"runbook resume {plan.document['plan']}" in ways, tell(full)
    lane.proxy.calm()
    follow(ann, full, words=(STANDS_STILL,))
    tally.take()
    if ann.run("verify", plan.document["plan"]).get("unproven"):
        settle_truthfully(ann, plan.document["plan"], tally, put)
    ship_the_rest(lane, put, tally)


def test_an_interrupted_release_says_how_many_moved_and_what_goes_on(lane: Lane, seed: int) -> None:
    """G15: one sentence says how many of how many labels moved, and the exact next command."""
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan = plan_release(ann, LABELS)
    running = start_printed(ann, plan.document["apply"])
    lane.proxy.traps.append(Trap(("copy",), 10, "after", lambda: running.send(signal.SIGINT)))
    ended = running.wait()
    assert ended.code == 130, tell(ended)
    assert "Traceback" not in ended.errors
    assert re.search(rf"\d+ of {LABELS}\b", ended.errors), tell(ended)
    assert f"runbook resume {plan.document['plan']}" in ended.errors
    follow(ann, ended, words=())
    tally = Tally(lane)
    tally.take()
    settle_truthfully(ann, plan.document["plan"], tally, put)
    ship_the_rest(lane, put, tally)
