"""The way back: an undo that is disturbed ends well by the printed commands alone, and is told."""

from __future__ import annotations

import random
import shlex
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from runbook_lib.record.folds import group_actions
from runbook_lib.record.incident import Incident, list_incidents
from runbook_lib.redact import Redactor
from tests.faults.commands import Lane, Operator, open_lane
from tests.faults.printed import (
    Tally,
    approve,
    expect_finished,
    expect_home,
    expect_nothing_twice,
    follow,
    kill,
    paste,
    put_and_plan,
    release,
    ship_the_rest,
    spoil_after,
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
    lane: Lane, seed: int, *, labels: int = LABELS
) -> tuple[Operator, str, list[Label]]:
    put = lane.shelf.put_labels(labels, random.Random(seed))
    ann = lane.hire("ann")
    plan = release(ann, labels)
    return ann, plan.document["plan"], put


def expect_all_back(lane: Lane, ann: Operator, put: list[Label]) -> None:
    expect_home(lane, put)
    expect_finished(lane, ann)
    ship_the_rest(lane, put, Tally(lane))


@pytest.mark.parametrize(
    ("kinds", "fate"),
    [
        (("copy",), "made-503-html"),
        (DELETES, "reset_after"),
    ],
)
def test_an_undo_with_a_lost_answer_ends_by_the_printed_commands(
    lane: Lane, seed: int, kinds: tuple[str, ...], fate: str
) -> None:
    """G1: one lost answer or one 503 of a router strands labels in ready/."""
    lane.proxy.has_renames = kinds != DELETES
    ann, plan_id, put = put_and_release(lane, seed)
    command = approve(ann, "undo", plan_id)
    spoil_after(lane, "copy", 3, Spoil(kinds, 1.0, [fate]))
    undone = paste(ann, command)
    follow(ann, undone)
    assert sum(lane.proxy.seen[kind, fate] for kind in kinds) == 1
    expect_all_back(lane, ann, put)


@pytest.mark.parametrize(
    ("kinds", "number"),
    [(("copy",), 20), (DELETES, 2)],
)
def test_a_killed_undo_ends_by_the_printed_commands(
    lane: Lane, seed: int, kinds: tuple[str, ...], number: int
) -> None:
    """G1: kill -9 in an undo leaves rows that no printed command can end."""
    lane.proxy.has_renames = kinds != DELETES
    ann, plan_id, put = put_and_release(lane, seed, labels=60)
    killed = kill(lane, ann, approve(ann, "undo", plan_id), kinds, number, phase="after")
    follow(ann, killed)
    expect_all_back(lane, ann, put)
    *_, first = list_incidents(ann.home)
    actions = group_actions(Incident(first, redactor=Redactor()).journal.view().actions)
    assert not any(action.is_unfinished for action in actions)
    assert [action.plan for action in actions if action.is_undone] == [plan_id]


@pytest.mark.long  # most copies get an ETag
@pytest.mark.timeout(400)  # a copy without an ETag is proven by a look, after the fence
@pytest.mark.parametrize("server", ["juicefs"], indirect=True)
def test_a_copy_that_the_store_left_without_an_etag_is_known_by_its_content(
    lane: Lane, seed: int
) -> None:
    """The gateway leaves a copy without one when its source goes at that moment."""
    ann, plan_id, put = put_and_release(lane, seed)
    killed = kill(lane, ann, approve(ann, "undo", plan_id), ("copy",), 6, phase="after")
    places = where_are(lane, put)
    copied = sorted(places["pending/"] & places["ready/"])[0]
    lane.shelf.copy_without_etag(f"ready/{copied}", f"pending/{copied}")
    lane.shelf.client.remove_object(lane.shelf.bucket, f"ready/{copied}")
    last = follow(ann, killed)
    assert not last.get("failed") + last.get("waiting"), tell(last)
    (way_on,) = last.document["way_on"]
    settled = paste(ann, approve(ann, *shlex.split(way_on)[1:], "--not-taken"))
    assert settled.code == 0, tell(settled)
    expect_home(lane, put)
    assert ann.run("plan").document["excluded"]["no_etag"] == 1


def test_a_part_that_was_taken_before_the_undo_is_counted_apart(lane: Lane, seed: int) -> None:
    tally = Tally(lane)
    ann, plan_id, put = put_and_release(lane, seed)
    tally.take(*[label.name for label in put[:5]])
    undone = paste(ann, approve(ann, "undo", plan_id))
    follow(ann, undone)
    proof = ann.run("verify", plan_id)
    assert proof.code == 3, tell(proof)
    assert proof.document["taken_back"] == len(put) - 5
    assert proof.document["taken_back_by"] == f"{plan_id}-undo"
    assert proof.document["gone_after_landed"] == 5
    ship_the_rest(lane, put, tally)


def test_an_undo_while_a_consumer_drains_is_refused_with_names(lane: Lane, seed: int) -> None:
    """G12: a consumer that has read and not yet deleted, an undo meanwhile: 40 of 40 twice."""
    tally = Tally(lane)
    ann, plan_id, put = put_and_release(lane, seed, labels=40)
    command = approve(ann, "undo", plan_id)
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


def test_another_store_is_refused(
    server: StoreServer, lane: Lane, tmp_path: Path, seed: int
) -> None:
    ann, plan_id, _ = put_and_release(lane, seed, labels=4)
    with open_lane(server, tmp_path / "other", seed=seed, bucket="other", consumers=0) as other:
        strange = replace(ann, endpoint=other.proxy.endpoint, bucket="other")
        other.shelf.put_labels(3, random.Random(seed + 1))
        release(other.hire("zoe"), 3)
        before = other.shelf.list_keys()
        for words in (("resume", plan_id), ("undo", plan_id), ("settle", plan_id)):
            refused = strange.run(*words)
            assert refused.code == 5, tell(refused)
        assert other.shelf.list_keys("ready/") == [k for k in before if k.startswith("ready/")]


def test_a_strict_release_refuses_a_label_that_is_gone(lane: Lane, seed: int) -> None:
    put, ann, plan = put_and_plan(lane, seed, LABELS, worker=True)
    lane.shelf.client.remove_object(lane.shelf.bucket, f"pending/{put[0].name}")
    strict = ann.run("apply", plan.document["plan"], *plan.approval, "--strict")
    assert strict.code == 5, tell(strict)
    assert put[0].name in strict.errors
    assert not lane.proxy.landed
    assert not lane.worker.is_paused
