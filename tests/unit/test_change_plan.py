"""A plan lists exactly what would move, and says why the rest stays."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.change.lookup import look_up
from runbook_lib.change.plan_file import load_plan
from runbook_lib.clients.object_store import LiveCheck
from runbook_lib.errors import (
    BadAnswerError,
    LimitError,
    PlanAlteredError,
    StoreNotReadyError,
    UsageError,
)
from runbook_lib.model import format_time
from tests.support.memory_store import EndlessStore, MemoryStore
from tests.support.releases import NOW, Release, get_contents, put_label, put_labels


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def release(store: MemoryStore, tmp_path: Path) -> Release:
    return Release(store, tmp_path)


def test_finished_labels_are_planned_with_their_versions(
    store: MemoryStore, release: Release
) -> None:
    info = put_label(store, "1-abc.pdf", order_id="1")
    plan = release.make()
    (row,) = plan.iter_rows()
    (listed,) = store.list_objects("pending/")
    assert (row.key, row.to, row.order_id) == (info.key, "ready/1-abc.pdf", "1")
    assert row.info == listed
    assert (row.age_start, row.age_source) == (NOW - timedelta(minutes=20), "pending-since")


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("a.pdf", {"chaos_scenario": "fulfillment-delay"}, "synthetic"),
        ("a.pdf", {"drill_id": "d1", "expires_at": "2026-11-24T05:00:00Z"}, "synthetic"),
        ("a.pdf", {"tracking_number": None}, "incomplete"),
        ("a.txt", {}, "no_match"),
    ],
)
def test_what_must_not_move_is_left_out_with_its_reason(
    store: MemoryStore, release: Release, name: str, changes: dict[str, Any], reason: str
) -> None:
    put_label(store, name, **changes)
    plan = release.make()
    assert plan.is_empty
    assert plan.trailer.excluded == {reason: 1}
    assert plan.trailer.excluded_sample == {reason: (f"pending/{name}",)}


def test_a_real_object_with_a_look_alike_name_is_planned(
    store: MemoryStore, release: Release
) -> None:
    put_label(store, "chaos-d1-7-0123456789ab.pdf")
    assert release.make().trailer.objects == 1


@pytest.mark.parametrize("etag", ["d41d8cd98f00b204e9800998ecf8427e-3", "not-a-hash", ""])
def test_etags_that_are_no_hash_of_the_content_are_left_out(
    store: MemoryStore, release: Release, etag: str
) -> None:
    put_label(store, "a.pdf")
    store.change("pending/a.pdf", etag=etag)
    assert release.make().trailer.excluded == {"etag_not_comparable": 1}


@pytest.mark.parametrize("name", ["a//b.pdf", "ctl\x01.pdf", "new\nline.pdf", "x\x7f.pdf"])
def test_keys_that_cannot_be_named_exactly_are_left_out(
    store: MemoryStore, release: Release, name: str
) -> None:
    put_label(store, name)
    assert release.make().trailer.excluded == {"key_not_supported": 1}


def test_a_destination_with_other_content_is_left_out(store: MemoryStore, release: Release) -> None:
    put_label(store, "a.pdf", b"new")
    put_label(store, "a.pdf", b"old", prefix="ready/")
    assert release.make().trailer.excluded == {"destination_taken": 1}


def test_a_destination_with_the_same_object_is_a_move_that_was_cut_off(
    store: MemoryStore, release: Release
) -> None:
    put_label(store, "a.pdf", b"same")
    put_label(store, "a.pdf", b"same", prefix="ready/")
    put_label(store, "b.pdf", b"same")
    put_label(store, "b.pdf", b"same", prefix="ready/", order_id="another")
    plan = release.make()
    assert [(row.key, row.is_there) for row in plan.iter_rows()] == [("pending/a.pdf", True)]
    assert plan.trailer.excluded == {"destination_taken": 1}


def test_metadata_that_cannot_be_read_leaves_the_object_out(
    store: MemoryStore, release: Release
) -> None:
    put_label(store, "a.pdf")
    put_label(store, "b.pdf")

    def fail(method: str, key: str) -> None:
        if (method, key) == ("head", "pending/a.pdf"):
            raise BadAnswerError("HEAD: 500", system="object store")

    store.fail = fail
    plan = release.make()
    assert [row.key for row in plan.iter_rows()] == ["pending/b.pdf"]
    assert plan.trailer.excluded == {"unreadable": 1}


def test_an_object_rewritten_while_it_is_planned_is_left_out(
    store: MemoryStore, release: Release
) -> None:
    put_label(store, "a.pdf")

    def rewrite(method: str, key: str) -> None:
        if (method, key) == ("head", "pending/a.pdf"):
            store.fail = lambda *_: None
            put_label(store, "a.pdf", b"newer", chaos_scenario="x")

    store.fail = rewrite
    assert release.make().trailer.excluded == {"unreadable": 1}


def test_age_counts_from_the_earlier_of_two_times_and_young_ones_stay(
    store: MemoryStore, release: Release
) -> None:
    put_label(store, "old.pdf", pending_since=format_time(NOW - timedelta(minutes=31)))
    put_label(store, "young.pdf", pending_since=format_time(NOW - timedelta(minutes=29)))
    store.clock = lambda: NOW
    put_label(store, "new.pdf", pending_since=None)
    store.change("pending/young.pdf", last_modified=NOW)
    plan = release.make(older_than_s=1800)
    assert [row.key for row in plan.iter_rows()] == ["pending/old.pdf"]
    assert plan.trailer.excluded == {"too_young": 2}


def test_a_drill_plans_its_own_orders_only(store: MemoryStore, release: Release) -> None:
    put_label(store, "1.pdf", order_id="1")
    put_label(store, "2.pdf", order_id="2")
    plan = release.make(only_orders=frozenset({"2"}))
    assert [row.order_id for row in plan.iter_rows()] == ["2"]
    assert plan.header.only_orders == ("2",)
    assert plan.trailer.excluded == {"not_of_this_drill": 1}


def test_a_drill_without_orders_plans_nothing(store: MemoryStore, release: Release) -> None:
    put_label(store, "1.pdf", order_id="1")
    assert release.make(only_orders=frozenset()).is_empty


def test_label_and_slip_are_separate_objects_of_one_order(
    store: MemoryStore, release: Release
) -> None:
    put_label(store, "7-ab.pdf", order_id="7")
    put_label(store, "7-ab-slip.pdf", order_id="7")
    assert [row.order_id for row in release.make().iter_rows()] == ["7", "7"]


def test_over_the_limit_it_refuses_and_says_how_to_split(
    store: MemoryStore, release: Release, tmp_path: Path
) -> None:
    put_labels(store, 12)
    with pytest.raises(LimitError, match=r"12 objects.*--limit 10.*--older-than.*--match"):
        release.make(limit_objects=10)
    with pytest.raises(LimitError):
        release.make(limit_bytes=20)
    assert list((tmp_path / "plans").iterdir()) == []


def test_the_first_ones_are_a_part_that_can_be_released(
    store: MemoryStore, release: Release
) -> None:
    names = put_labels(store, 12)
    plan = release.make(limit_objects=10, first=5)
    assert [row.key for row in plan.iter_rows()] == [f"pending/{n}" for n in sorted(names)[:5]]
    assert plan.trailer.excluded == {"left_for_later": 7}


@pytest.mark.parametrize(
    ("prefix", "to"),
    [("a/", "a/"), ("a/", "a/b/"), ("a/b/", "a/"), ("a", "b/"), ("a/", "b")],
)
def test_prefixes_that_lie_in_each_other_are_refused(
    release: Release, prefix: str, to: str
) -> None:
    with pytest.raises(UsageError):
        release.make(prefix=prefix, to=to)


def test_a_store_that_is_not_well_or_full_is_refused(store: MemoryStore, release: Release) -> None:
    store.live = LiveCheck(False, "live endpoint", "http://store/live", "answered 503")
    with pytest.raises(StoreNotReadyError, match="503"):
        release.make()
    store.live = LiveCheck(True, "live endpoint", "http://store/live")

    def fail(method: str, key: str) -> None:
        if method == "put":
            raise BadAnswerError("storage full: PUT", system="object store")

    store.fail = fail
    with pytest.raises(StoreNotReadyError, match="storage full"):
        release.make()


def test_no_room_for_the_copies_is_refused_where_the_store_tells(
    store: MemoryStore, release: Release
) -> None:
    put_labels(store, 3)
    store.free_bytes = 10
    with pytest.raises(StoreNotReadyError, match="10 bytes are free"):
        release.make()
    store.free_bytes = 10**9
    assert release.make().header.free_bytes == 10**9


def test_the_header_names_the_window_that_the_store_leaves(tmp_path: Path) -> None:
    blind = MemoryStore(conditional_delete=False, conditional_put=False)
    assert "ignores conditional deletes" in Release(blind, tmp_path).make().header.window
    assert Release(MemoryStore(), tmp_path).make().header.window.startswith("none")


def test_planning_changes_no_object(store: MemoryStore, release: Release) -> None:
    put_labels(store, 5)
    before = get_contents(store)
    release.make()
    assert get_contents(store) == before
    assert list(store.list_objects(".runbook/")) == []


def test_the_hash_is_that_of_the_files_bytes_and_it_loads_back(
    store: MemoryStore, release: Release
) -> None:
    put_labels(store, 5)
    plan = release.make()
    assert plan.sha256 == hashlib.sha256(plan.path.read_bytes()).hexdigest()
    loaded = load_plan(plan.path)
    assert loaded == plan
    assert list(loaded.iter_rows()) == list(plan.iter_rows())


def test_names_survive_the_file_exactly(store: MemoryStore, release: Release) -> None:
    names = ["é\u2028.pdf", 'q"\\.pdf', "📦 <b>.pdf", "trailing .pdf"]
    for name in names:
        put_label(store, name)
    assert {row.key for row in release.make().iter_rows()} == {f"pending/{n}" for n in names}


@pytest.mark.parametrize("change", ["drop_row", "cut_trailer", "not_json", "other_name"])
def test_a_damaged_plan_is_not_loaded(store: MemoryStore, release: Release, change: str) -> None:
    put_labels(store, 3)
    path = release.make().path
    lines = path.read_text("utf-8").splitlines(keepends=True)
    if change == "drop_row":
        del lines[1]
    elif change == "cut_trailer":
        del lines[-1]
    elif change == "not_json":
        lines[1] = lines[1][:20] + "\n"
    elif change == "other_name":
        path = path.with_name("other.jsonl")
    path.write_text("".join(lines), "utf-8")
    with pytest.raises((PlanAlteredError, UsageError)):
        load_plan(path)


def test_other_files_are_not_plans(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with pytest.raises(UsageError, match="no plan"):
        load_plan(path)
    path.write_text(json.dumps({"schema": "runbook/service-plan/1"}) + "\n", "utf-8")
    with pytest.raises(UsageError, match="not a release plan"):
        load_plan(path)


def test_memory_does_not_grow_with_the_number_of_objects(tmp_path: Path) -> None:
    peaks = []
    for count in (2_000, 20_000):
        store = EndlessStore(count)
        tracemalloc.start()
        plan = Release(store, tmp_path).make(limit_objects=count, limit_bytes=10**12)
        assert sum(1 for _ in plan.iter_rows()) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5


def test_looking_up_keys_far_apart_asks_for_them_one_by_one() -> None:
    store = MemoryStore()
    for n in range(4000):
        store.put_object(f"ready/{n:05d}", b"x")
    asked: list[str] = []
    store.fail = lambda method, _: asked.append(method)
    keys = ["ready/00000", "ready/00001-absent", "ready/03999"]
    assert sorted(look_up(store, "ready/", keys)) == ["ready/00000", "ready/03999"]
    assert asked.count("list") < 4
    assert look_up(store, "ready/", ["ready/02000"]).keys() == {"ready/02000"}
    assert look_up(store, "ready/", []) == {}
