"""The worker's pause: never forgotten, and given back when nothing can ship twice."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from datetime import datetime

import pytest

from tests.faults.commands import Lane, Operator, Outcome, Running
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
    list_unfinished,
    paste,
    plan_release,
    release,
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
    lane: Lane, seed: int, how: signal.Signals, *, before: int = 0
) -> tuple[Operator, str, Outcome, list[Label]]:
    """End an apply when the worker has just been paused for it, and nothing else has happened.

    Parameters
    ----------
    before : how many labels wait already
    """
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan = plan_release(ann, before + LABELS)
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
    expect_finished(lane, person)
    ship_the_rest(lane, put, Tally(lane))


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


def test_resume_never_begins_a_plan_that_nobody_approved(lane: Lane, seed: int) -> None:
    """G15: it names the command that begins it; after a pause that was left it goes on."""
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan_id = plan_release(ann, LABELS).document["plan"]
    refused = ann.run("resume", plan_id)
    assert refused.code == 5, tell(refused)
    assert f"runbook apply {plan_id}" in refused.errors
    assert not lane.worker.is_paused
    expect_home(lane, put)
    _, plan_id, _, more = end_at_the_pause(lane, seed + 1, signal.SIGKILL, before=LABELS)
    resumed = ann.run("resume", plan_id)
    assert (resumed.code, resumed.get("moved")) == (0, 2 * LABELS), tell(resumed)
    assert not lane.worker.is_paused
    expect_finished(lane, ann)
    ship_the_rest(lane, [*put, *more], Tally(lane))


def test_a_killed_release_is_listed_and_its_pause_ends(lane: Lane, seed: int) -> None:
    """G15: kill -9 in the middle: check names it, whose the pause is, and what ends it."""
    lane.proxy.has_renames = False
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
    lane.proxy.has_renames = False
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
    # The printed time is not true any more: a consumer took labels since.
    resumed = ann.run("resume", plan_id, STANDS_STILL)
    follow(ann, resumed, words=(STANDS_STILL,))
    assert lane.worker.is_paused, "an undo keeps the worker paused until a person resumes it"
    follow(ann, ann.run("resume", plan_id, RESUME_WORKER), words=(RESUME_WORKER,))
    assert not lane.worker.is_paused
    run_worker_pass(lane)
    tally.take()
    expect_nothing_twice(lane, put, tally)


def test_the_worker_goes_on_by_an_approval_that_names_the_keys(lane: Lane, seed: int) -> None:
    """G18: who cannot end it otherwise approves what may ship twice, key by key."""
    lane.proxy.has_renames = False
    lane.shelf.put_labels(12, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan_id = release(ann, 12).document["plan"]
    command = approve(ann, "undo", plan_id)
    running = start_printed(ann, command)
    kill_at(lane, running, DELETES, 1, "before")
    assert running.wait().code < 0
    assert lane.worker.is_paused
    lane.proxy.spoils.append(Spoil(DELETES, 1.0, ["made-403-xml"] * 2000))
    shown = ann.run("resume", plan_id, RESUME_WORKER)
    assert shown.code == 5, tell(shown)
    both = set(lane.shelf.list_keys("pending/")) - {"pending/notes.txt"}
    assert both
    text = str(shown.document["stopped"])
    assert any(key in text for key in both)
    goes_on = paste(ann, shown.document["apply"])
    assert goes_on.code in (0, 3), tell(goes_on)
    assert not lane.worker.is_paused
