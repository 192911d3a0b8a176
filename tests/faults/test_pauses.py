"""The worker's pause: never forgotten, and given back when nothing can ship twice."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from datetime import datetime

import pytest

from tests.faults.commands import Lane, Operator, Outcome, Running
from tests.faults.printed import (
    STANDS_STILL,
    WORKER_GOES_ON,
    Tally,
    approve,
    expect_finished,
    expect_home,
    expect_nothing_twice,
    follow,
    kill_at,
    list_unfinished,
    paste,
    plan_release,
    release,
    remove_memory,
    run_worker_pass,
    settle_truthfully,
    ship_the_rest,
    spoil_after,
    start_printed,
    tell,
    where_are,
)
from tests.support.audit import Label
from tests.support.lossy_proxy import Spoil

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

LABELS = 24
DELETES = ("delete", "bulk")
ENDS = (signal.SIGKILL, signal.SIGINT)


def end_at_the_pause(
    lane: Lane, seed: int, how: signal.Signals
) -> tuple[Operator, str, Outcome, list[Label]]:
    """End an apply when the worker has just been paused for it, and nothing else has happened."""
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan = plan_release(ann, LABELS)
    started: list[Running] = []
    lane.worker.on_pause = lambda: started[0].send(how)
    started.append(start_printed(ann, plan.document["apply"]))
    ended = started[0].wait()
    assert ended.code in (-how, 130), tell(ended)
    assert not lane.proxy.landed
    return ann, plan.document["plan"], ended, put


def test_a_pause_that_is_left_is_shown_on_every_machine(lane: Lane, seed: int) -> None:
    """G15: the worker stays paused, and check is all ok."""
    _, plan_id, _, _ = end_at_the_pause(lane, seed, signal.SIGKILL)
    assert lane.worker.is_paused
    bob = lane.hire("bob", worker=True)
    (row,) = list_unfinished(bob)
    assert row["plan"] == plan_id
    assert "ann" in row["held_by"]
    since = datetime.fromisoformat(row["held_since"])
    assert since.tzinfo is not None
    assert f"runbook resume {plan_id}" in str(row["way_on"])


def test_a_pause_is_shown_although_the_memory_was_removed(lane: Lane, seed: int) -> None:
    """The command was shown, but not for whom the worker stood still, and since when."""
    ann, plan_id, _, _ = end_at_the_pause(lane, seed, signal.SIGKILL)
    remove_memory(lane)
    (row,) = list_unfinished(ann)
    assert row["plan"] == plan_id
    assert "ann" in row["held_by"]
    assert datetime.fromisoformat(row["held_since"]).tzinfo is not None
    follow(ann, paste(ann, str(row["way_on"])))
    assert not lane.worker.is_paused


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("who", ["ann", "bob"])
def test_the_printed_command_ends_a_pause_that_is_left(
    lane: Lane, seed: int, how: signal.Signals, who: str
) -> None:
    """G15: Ctrl-C or kill -9 when only the hold is there; resume says "was never begun"."""
    ann, _, ended, put = end_at_the_pause(lane, seed, how)
    person = ann if who == "ann" else lane.hire("bob", worker=True)
    if person is not ann:
        ended = replace(ended, document={}, errors="")
    follow(person, ended, words=())
    assert not lane.worker.is_paused, "the worker was left paused"
    if "runbook apply" not in ended.errors:  # which begins it anew, and moves them
        expect_home(lane, put)
    expect_finished(lane, person)


def test_the_next_release_does_not_leave_the_worker_paused(lane: Lane, seed: int) -> None:
    """G15: the next release takes the pause for somebody's, and leaves it."""
    tally = Tally(lane)
    _, _, _, put = end_at_the_pause(lane, seed, signal.SIGKILL)
    bob = lane.hire("bob", worker=True)
    plan = bob.run("plan")
    applied = paste(bob, plan.document["apply"]) if plan.document.get("apply") else plan
    follow(bob, applied, words=())
    assert not lane.worker.is_paused, "the worker was left paused"
    ship_the_rest(lane, put, tally)


def test_resume_never_begins_a_plan(lane: Lane, seed: int) -> None:
    """G15: resume of a plan that announced nothing gives the worker back, says so, and ends it."""
    ann, plan_id, _, put = end_at_the_pause(lane, seed, signal.SIGKILL)
    resumed = ann.run("resume", plan_id)
    assert resumed.code in (0, 3), tell(resumed)
    assert not lane.worker.is_paused
    expect_home(lane, put)
    again = ann.run("apply", plan_id)
    assert again.code == 5, tell(again)
    expect_finished(lane, ann)


def test_a_killed_release_is_listed_and_its_pause_ends(lane: Lane, seed: int) -> None:
    """G15: kill -9 in the middle: check names it, whose the pause is, and what ends it."""
    tally = Tally(lane)
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan = plan_release(ann, LABELS)
    running = start_printed(ann, plan.document["apply"])
    kill_at(lane, running, DELETES, 1, "after")
    killed = running.wait()
    assert lane.worker.is_paused
    bob = lane.hire("bob", worker=True)
    (row,) = list_unfinished(bob)
    assert (row["plan"], "ann" in row["held_by"]) == (plan.document["plan"], True)
    follow(bob, replace(killed, document={}, errors=""), words=())
    assert not lane.worker.is_paused
    tally.take()
    if bob.run("verify", plan.document["plan"]).get("unproven"):
        settle_truthfully(bob, plan.document["plan"], tally, put)
    ship_the_rest(lane, put, tally)


def test_stopping_here_announces_no_copy_and_ends(lane: Lane, seed: int) -> None:
    """G15: resume --stop-here copies nothing to ready/ any more, and gives the worker back."""
    tally = Tally(lane)
    put = lane.shelf.put_labels(60, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan = plan_release(ann, 60)
    plan_id = plan.document["plan"]
    running = start_printed(ann, plan.document["apply"])
    kill_at(lane, running, ("copy",), 8, "before")
    assert running.wait().code < 0
    landed = where_are(lane, put)["ready/"]
    tally.take()
    stopped = ann.run("resume", plan_id, "--stop-here")
    assert stopped.code in (0, 3), tell(stopped)
    assert not where_are(lane, put)["ready/"], "a copy was sent after --stop-here"
    assert not lane.worker.is_paused
    run_worker_pass(lane)
    tally.take()
    expect_nothing_twice(lane, put, tally)
    assert landed <= tally.names(put)
    settle_truthfully(ann, plan_id, tally, put)
    ship_the_rest(lane, put, tally)


def test_an_undo_that_may_not_delete_keeps_the_pause(lane: Lane, seed: int) -> None:
    """G18: the worker goes on while a label lies in ready/ and in pending/, and ships it twice."""
    tally = Tally(lane)
    put = lane.shelf.put_labels(12, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan_id = release(ann, 12).document["plan"]
    command = approve(ann, "undo", plan_id)
    spoil_after(lane, "copy", 1, Spoil(DELETES, 1.0, ["made-403-xml"] * 2000))
    undone = paste(ann, command)
    assert undone.code != 0, tell(undone)
    tally.take()
    run_worker_pass(lane)
    tally.take()
    expect_nothing_twice(lane, put, tally)
    lane.proxy.calm()
    follow(ann, undone, words=(STANDS_STILL,))
    assert not lane.worker.is_paused
    run_worker_pass(lane)
    tally.take()
    expect_nothing_twice(lane, put, tally)


def test_the_worker_goes_on_by_an_approval_that_names_the_keys(lane: Lane, seed: int) -> None:
    """G18: who cannot end it otherwise approves what may ship twice, key by key."""
    lane.shelf.put_labels(12, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan_id = release(ann, 12).document["plan"]
    command = approve(ann, "undo", plan_id)
    running = start_printed(ann, command)
    kill_at(lane, running, DELETES, 1, "before")
    assert running.wait().code < 0
    assert lane.worker.is_paused
    lane.proxy.spoils.append(Spoil(DELETES, 1.0, ["made-403-xml"] * 2000))
    shown = ann.run("resume", f"{plan_id}-undo", WORKER_GOES_ON)
    assert shown.code == 5, tell(shown)
    both = set(lane.shelf.list_keys("pending/")) - {"pending/notes.txt"}
    assert both
    text = str(shown.document["stopped"])
    assert any(key in text for key in both)
    goes_on = paste(ann, shown.document["apply"])
    assert goes_on.code in (0, 3), tell(goes_on)
    assert not lane.worker.is_paused
