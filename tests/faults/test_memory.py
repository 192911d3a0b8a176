"""What a bucket remembers of a release: lost, read half, copied with its folder, on a weaker store.

Also what is looked at before the first copy: rights, the clock, room, and what a plan costs.
"""

from __future__ import annotations

import pytest

from tests.faults.commands import Lane
from tests.faults.conftest import ON_SEAWEEDFS
from tests.faults.printed import (
    MOST_AT_ONCE,
    STANDS_STILL,
    Tally,
    expect_home,
    follow,
    kill,
    list_unfinished,
    paste,
    put_and_plan,
    read_printed,
    remove_memory,
    settle_truthfully,
    ship_the_rest,
    spoil_after,
    start_printed,
    tell,
    where_are,
)
from tests.support.lossy_proxy import Request, Spoil
from tests.support.weak_store import drop_conditions

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

LABELS = 60
DELETES = ("delete", "bulk")


def test_rows_of_a_removed_memory_are_planned_with_that_word_only(lane: Lane, seed: int) -> None:
    tally = Tally(lane)
    put, ann, plan = put_and_plan(lane, seed, LABELS)
    kill(lane, ann, plan.document["apply"], ("copy",), 8, phase="before")
    where_are(lane, put)
    tally.take()
    remove_memory(lane)
    follow(ann, ann.run("resume", plan.document["plan"]), words=())
    waiting = where_are(lane, put)["pending/"]
    assert waiting
    without = ann.run("plan")
    assert without.code == 5, tell(without)
    assert "--memory-removed" in without.errors
    with_word = ann.run("plan", "--memory-removed")
    assert (with_word.code, with_word.document.get("objects")) == (0, len(waiting)), tell(with_word)


@ON_SEAWEEDFS
def test_a_release_ends_on_a_store_that_became_weaker(lane: Lane, seed: int) -> None:
    """G9: "the store is not as it was" for ever, settle refused too, 39 of 40 stuck."""
    tally = Tally(lane)
    put, ann, plan = put_and_plan(lane, seed, 40)
    killed = kill(lane, ann, plan.document["apply"], ("copy",), 8, phase="before")
    lane.proxy.rewrite = drop_conditions
    ended = follow(ann, killed, words=())
    while ended.document.get("apply"):
        ended = follow(ann, paste(ann, ended.document["apply"]), words=())
    tally.take()
    proof = ann.run("verify", plan.document["plan"])
    assert proof.get("unproven") <= MOST_AT_ONCE
    settle_truthfully(ann, plan.document["plan"], tally.names(put))
    ship_the_rest(lane, put, tally)


def is_delete_in_pending(request: Request) -> bool:
    is_delete = request.raw.startswith(b"DELETE ") or b"<Delete>" in request.raw
    return is_delete and (request.key.startswith("pending/") or b"<Key>pending/" in request.raw)


def test_a_key_that_may_not_delete_is_refused_before_the_first_copy(lane: Lane, seed: int) -> None:
    """G13: AccessDenied on deletes: three fences are waited for, and a consumer has the copy."""
    put, ann, plan = put_and_plan(lane, seed, 12, worker=True)
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


def test_no_room_names_what_goes_on_once_there_is_room(lane: Lane, seed: int) -> None:
    """G16: "no room" does not name resume."""
    tally = Tally(lane)
    put, ann, plan = put_and_plan(lane, seed, 40)
    spoil_after(lane, "copy", 3, Spoil(("copy",), 1.0, ["made-507-xml"] * 2000))
    full = paste(ann, plan.document["apply"])
    assert full.code not in (0, 2), tell(full)
    assert full.get("unproven") <= MOST_AT_ONCE, tell(full)
    ways = " ".join(read_printed(full))
    assert f"runbook resume {plan.document['plan']}" in ways, tell(full)
    lane.proxy.calm()
    follow(ann, full, words=(STANDS_STILL,))
    tally.take()
    if ann.run("verify", plan.document["plan"]).get("unproven"):
        settle_truthfully(ann, plan.document["plan"], tally.names(put))
    ship_the_rest(lane, put, tally)
