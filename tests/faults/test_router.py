"""What stands between us and the store answers by itself for a moment: it is never believed."""

from __future__ import annotations

import random

import pytest

from tests.faults.commands import Lane
from tests.faults.conftest import ON_SEAWEEDFS
from tests.faults.printed import (
    STANDS_STILL,
    Tally,
    approve,
    expect_home,
    expect_nothing_twice,
    follow,
    paste,
    put_and_plan,
    put_foreign,
    release,
    settle_truthfully,
    ship_the_rest,
    spoil_after,
    tell,
    where_are,
)
from tests.support.gateway import StoreServer
from tests.support.lossy_proxy import Request, Spoil

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

LABELS = 30
DELETES = ("delete", "bulk")
CHANGES = ("copy", *DELETES, "claim", "record", "own")


def is_waiting(request: Request) -> bool:
    return request.key.startswith("pending/")


def test_a_routers_404_is_not_an_absent_source(lane: Lane, server: StoreServer, seed: int) -> None:
    """G4: 404 text/plain to HEADs: apply exit 0 "30 moved", the next plan ships 29 twice."""
    lane.proxy.has_renames = False
    tally = Tally(lane)
    put, ann, plan = put_and_plan(lane, seed, LABELS)
    gone = [Spoil(("head",), 1.0, ["made-404-text"] * 400, is_waiting)]
    if server.kind == "seaweedfs":
        gone.append(Spoil(("delete",), 1.0, ["503"] * 400, is_waiting))  # so that it looks again
    spoil_after(lane, "copy", LABELS // 2, *gone)
    applied = paste(ann, plan.document["apply"])
    lane.proxy.calm()
    waiting = where_are(lane, put)["pending/"]
    assert applied.get("moved") <= LABELS - len(waiting), "told as moved, and still waiting"
    assert applied.code != 0 or not waiting
    tally.take()
    ended = follow(ann, applied, words=())
    if ended.get("unproven"):
        settle_truthfully(ann, plan.document["plan"], tally.names(put))
    ship_the_rest(lane, put, tally)


def test_a_routers_404_is_not_a_free_destination(lane: Lane, seed: int) -> None:
    """G4: another's label in ready/ is overwritten."""
    tally = Tally(lane)
    put, ann, plan = put_and_plan(lane, seed, LABELS)
    to = plan.document["rows"][5]["to"]
    other = put_foreign(lane, to, b"%PDF another's label")
    spoil_after(lane, "copy", 1, Spoil(("head",), 1.0, ["made-404-text"] * 400))
    applied = paste(ann, plan.document["apply"])
    lane.proxy.calm()
    assert where_are(lane, [other])["ready/"], f"another's label was overwritten: {tell(applied)}"
    follow(ann, applied, words=(STANDS_STILL,))
    assert where_are(lane, [other])["ready/"]
    expect_nothing_twice(lane, put, tally)


def lacks_condition(request: Request) -> bool:
    """Tell whether a change names nothing that must be so for it to be done."""
    head, _, body = request.raw.lower().partition(b"\r\n\r\n")
    if body.startswith(b"<delete>"):
        return body.count(b"<etag>") < body.count(b"<key>")
    return not any(name in head for name in (b"\r\nif-match:", b"\r\nif-none-match:"))


@ON_SEAWEEDFS
@pytest.mark.parametrize("has_renames", [True, False], ids=["renames", "copies"])
def test_a_bucket_that_demands_conditions_is_used(
    lane: Lane, seed: int, *, has_renames: bool
) -> None:
    lane.proxy.has_renames = has_renames
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    demand = Spoil(CHANGES, 1.0, ["made-403-xml"] * 10_000, lacks_condition)
    lane.proxy.spoils.append(demand)
    ann = lane.hire("ann")
    plan = release(ann, LABELS)
    assert len(where_are(lane, put)["ready/"]) == LABELS
    undone = paste(ann, approve(ann, "undo", plan.document["plan"], STANDS_STILL))
    assert undone.get("moved") == LABELS, tell(undone)
    expect_home(lane, put)
