"""A store that answers each copy with 501: labels are read, and put at their destination."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.faults.commands import Lane, open_lane
from tests.faults.conftest import ON_SEAWEEDFS
from tests.faults.printed import (
    STANDS_STILL,
    approve,
    expect_finished,
    expect_home,
    paste,
    plan_release,
    put_and_plan,
    put_foreign,
    release,
    tell,
    where_are,
)
from tests.support.gateway import StoreServer
from tests.support.weak_store import drop_conditions

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180), ON_SEAWEEDFS]

LABELS = 24
MIB = 1024**2


@pytest.fixture
def lane(server: StoreServer, tmp_path: Path, seed: int) -> Iterator[Lane]:
    """One bucket of a store without copies, tags and renames, which nobody takes from."""
    with open_lane(server, tmp_path / "lane", seed=seed, consumers=0) as opened:
        opened.proxy.has_copies = False
        opened.proxy.has_renames = False
        opened.shelf.has_tags = False
        yield opened


def test_content_headers_and_metadata_go_there_and_back(lane: Lane, seed: int) -> None:
    put = lane.shelf.put_labels(LABELS, random.Random(seed))
    largest = {"content-type": "application/pdf", "x-amz-meta-note": "two  blanks, a ,comma"}
    lane.shelf._put("pending/1-00000000000a.pdf", bytes(MIB), largest, {})
    before = lane.shelf.read_places("pending/")
    ann = lane.hire("ann")
    plan = release(ann, LABELS + 1)
    there = lane.shelf.read_places("ready/")
    assert len(there) == LABELS + 1
    for sha256, (place,) in there.items():
        assert place.shown == before[sha256][0].shown
    assert sum(lane.proxy.landed.values()) == LABELS + 1
    undone = paste(ann, approve(ann, "undo", plan.document["plan"], STANDS_STILL))
    assert undone.get("moved") == LABELS + 1, tell(undone)
    expect_home(lane, put)
    assert not lane.count(put).unkept
    expect_finished(lane, ann)


def test_a_file_past_the_limit_stays_and_the_plan_says_so(lane: Lane, seed: int) -> None:
    lane.shelf.put_labels(3, random.Random(seed))
    put_foreign(lane, "pending/9-00000000000a.pdf", bytes(MIB + 1))
    ann = lane.hire("ann")
    plan = plan_release(ann, 3)
    assert plan.document["excluded"]["too_large"] == 1, tell(plan)
    assert "does not copy" in plan.document["window"]
    applied = paste(ann, plan.document["apply"])
    assert (applied.code, applied.get("moved")) == (0, 3), tell(applied)


def test_a_source_that_is_rewritten_under_our_read_is_not_put(lane: Lane, seed: int) -> None:
    put, ann, plan = put_and_plan(lane, seed, LABELS)
    row = plan.document["rows"][5]

    def rewrite(raw: bytes) -> bytes:
        if raw.startswith(f"GET /{lane.shelf.bucket}/{quote(row['key'], safe='/~')}?".encode()):
            put_foreign(lane, row["key"], b"%PDF rewritten")
        return raw

    lane.proxy.rewrite = rewrite
    applied = paste(ann, plan.document["apply"])
    lane.proxy.rewrite = None
    assert applied.get("moved") == LABELS - 1, tell(applied)
    assert row["key"] in lane.shelf.list_keys("pending/")
    assert row["to"] not in lane.shelf.list_keys("ready/")
    assert len(where_are(lane, put)["ready/"]) == LABELS - 1


def test_a_store_that_puts_without_conditions_as_well_is_refused(lane: Lane, seed: int) -> None:
    lane.shelf.put_labels(3, random.Random(seed))
    lane.proxy.rewrite = drop_conditions
    ann = lane.hire("ann")
    refused = ann.run("plan")
    assert refused.code == 5, tell(refused)
    assert "NotImplemented" in refused.errors
    assert not lane.shelf.list_keys("ready/")
