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
    Tally,
    approve,
    expect_finished,
    expect_home,
    follow,
    kill,
    list_unfinished,
    paste,
    plan_release,
    put_and_plan,
    read_printed,
    release,
    ship_the_rest,
    start_printed,
    tell,
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


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("who", ["ann", "bob"])
def test_the_printed_command_ends_a_pause_that_is_left(
    lane: Lane, seed: int, how: signal.Signals, who: str
) -> None:
    """G15: Ctrl-C or kill -9 when only the hold is there; check is all ok, resume refuses."""
    ann, plan_id, ended, put = end_at_the_pause(lane, seed, how)
    person = ann if who == "ann" else lane.hire("bob", worker=True)
    if person is not ann:
        ended = replace(ended, document={}, errors="")
    if how == signal.SIGKILL:
        assert lane.worker.is_paused
        (row,) = list_unfinished(person)
        assert (row["plan"], "ann" in row["held_by"]) == (plan_id, True)
        assert datetime.fromisoformat(row["held_since"]).tzinfo is not None
    follow(person, ended, words=())
    assert not lane.worker.is_paused, "the worker was left paused"
    expect_finished(lane, person)
    ship_the_rest(lane, put, Tally(lane))


def test_resume_never_begins_a_plan_that_nobody_approved(lane: Lane, seed: int) -> None:
    put, ann, plan = put_and_plan(lane, seed, LABELS, worker=True)
    plan_id = plan.document["plan"]
    refused = ann.run("resume", plan_id)
    assert refused.code == 5, tell(refused)
    assert f"runbook apply {plan_id}" in refused.errors
    assert not lane.worker.is_paused
    expect_home(lane, put)


def test_the_worker_goes_on_by_an_approval_that_names_the_keys(lane: Lane, seed: int) -> None:
    lane.proxy.has_renames = False
    lane.shelf.put_labels(12, random.Random(seed))
    ann = lane.hire("ann", worker=True)
    plan_id = release(ann, 12).document["plan"]
    command = approve(ann, "undo", plan_id)
    kill(lane, ann, command, DELETES, 1, phase="before")
    assert lane.worker.is_paused
    lane.proxy.spoils.append(Spoil(DELETES, 1.0, ["made-403-xml"] * 2000))
    shown = ann.run("resume", plan_id, RESUME_WORKER)
    assert shown.code == 5, tell(shown)
    both = set(lane.shelf.list_keys("pending/")) - {"pending/notes.txt"}
    assert both
    assert any(key in shown.errors for key in both)
    (command,) = read_printed(shown)
    goes_on = paste(ann, command)
    assert goes_on.code in (0, 3), tell(goes_on)
    assert not lane.worker.is_paused
