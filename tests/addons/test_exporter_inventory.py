from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from addons.artifact_exporter.inventory import ArtifactInventory, Snapshot
from addons.artifact_exporter.store import StoreReadError
from tests.support.fake_artifact_store import FakeArtifactStore

NOW = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
CHAOS = "chaos/fulfillment-delay/"


def minutes_ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


@pytest.fixture
def store() -> FakeArtifactStore:
    return FakeArtifactStore()


def make_inventory(
    store: FakeArtifactStore,
    *,
    waiting: Iterable[str] = ("pending/", CHAOS),
    metadata_reads: int = 500,
) -> ArtifactInventory:
    return ArtifactInventory(
        store,
        waiting_prefixes=waiting,
        ready_prefix="ready/",
        clock=lambda: NOW,
        metadata_reads=metadata_reads,
        threads=2,
    )


def counts(snapshot: Snapshot) -> dict[tuple[str, str], int]:
    return {key: backlog.objects for key, backlog in snapshot.backlog.items() if backlog.objects}


def test_an_empty_bucket_has_no_lag_and_shows_every_prefix_with_zero(
    store: FakeArtifactStore,
) -> None:
    snapshot = make_inventory(store).read_snapshot()
    assert snapshot.lag_minutes == {"real": 0.0, "synthetic": 0.0}
    assert set(snapshot.backlog) == {
        ("pending/", "real"),
        ("pending/", "synthetic"),
        (CHAOS, "real"),
        (CHAOS, "synthetic"),
    }
    assert counts(snapshot) == {}


def test_the_oldest_age_start_is_the_lag_of_its_origin(store: FakeArtifactStore) -> None:
    store.put("pending/1.pdf", minutes_ago(3), pending_since="2026-11-24T02:49:00Z")
    store.put("pending/2.pdf", minutes_ago(9))
    store.put(f"{CHAOS}3.pdf", minutes_ago(60), chaos_scenario="fulfillment-delay")
    snapshot = make_inventory(store).read_snapshot()
    assert snapshot.lag_minutes == {"real": 25.0, "synthetic": 60.0}
    assert snapshot.backlog["pending/", "real"].size_bytes == 200


def test_metadata_and_not_the_key_tells_what_is_synthetic(store: FakeArtifactStore) -> None:
    store.put("pending/chaos-d1-1.pdf", minutes_ago(1), order_id="1")
    store.put("pending/2.pdf", minutes_ago(1), chaos_scenario="fulfillment-delay")
    store.put(f"{CHAOS}3.pdf", minutes_ago(30))
    snapshot = make_inventory(store).read_snapshot()
    assert counts(snapshot) == {
        ("pending/", "real"): 1,
        ("pending/", "synthetic"): 1,
        (CHAOS, "real"): 1,
    }
    assert snapshot.lag_minutes["real"] == 30.0


def test_objects_in_ready_neither_wait_nor_cost_a_read(store: FakeArtifactStore) -> None:
    store.put("ready/1.pdf", minutes_ago(90))
    inventory = make_inventory(store)
    snapshot = inventory.read_snapshot()
    ready = inventory.count_ready()
    assert (ready.prefix, ready.backlog.objects, ready.started_at) == ("ready/", 1, NOW)
    assert counts(snapshot) == {}
    assert snapshot.lag_minutes["real"] == 0.0
    assert store.metadata_reads == []


def test_a_chaos_prefix_inside_pending_is_counted_once(store: FakeArtifactStore) -> None:
    store.put("pending/1.pdf", minutes_ago(1))
    store.put("pending/chaos/2.pdf", minutes_ago(1), chaos_scenario="fulfillment-delay")
    snapshot = make_inventory(store, waiting=("pending/", "pending/chaos/")).read_snapshot()
    assert counts(snapshot) == {("pending/", "real"): 1, ("pending/chaos/", "synthetic"): 1}


def test_the_same_prefix_twice_is_counted_once(store: FakeArtifactStore) -> None:
    store.put("pending/1.pdf", minutes_ago(1))
    snapshot = make_inventory(store, waiting=("pending/", "pending/")).read_snapshot()
    assert counts(snapshot) == {("pending/", "real"): 1}


def test_metadata_is_read_once_per_version_of_an_object(store: FakeArtifactStore) -> None:
    inventory = make_inventory(store)
    store.put("pending/1.pdf", minutes_ago(2))
    inventory.read_snapshot()
    inventory.read_snapshot()
    assert store.metadata_reads == ["pending/1.pdf"]
    # The same bytes written again keep the ETag; only LastModified tells.
    store.put("pending/1.pdf", minutes_ago(1), pending_since="2026-11-24T02:54:00Z")
    assert inventory.read_snapshot().lag_minutes["real"] == 20.0
    store.put("pending/1.pdf", minutes_ago(1), etag="e2", chaos_scenario="fulfillment-delay")
    assert counts(inventory.read_snapshot()) == {("pending/", "synthetic"): 1}


def test_an_object_that_left_is_forgotten(store: FakeArtifactStore) -> None:
    inventory = make_inventory(store)
    store.put("pending/1.pdf", minutes_ago(2))
    inventory.read_snapshot()
    moved = store.objects.pop("pending/1.pdf")
    inventory.read_snapshot()
    store.objects["pending/1.pdf"] = moved
    inventory.read_snapshot()
    assert store.metadata_reads == ["pending/1.pdf", "pending/1.pdf"]


def test_reads_per_refresh_are_bounded_and_the_rest_follows(store: FakeArtifactStore) -> None:
    inventory = make_inventory(store, metadata_reads=2)
    for number in range(5):
        store.put(f"pending/{number}.pdf", minutes_ago(number), chaos_scenario="fulfillment-delay")
    first = inventory.read_snapshot()
    assert len(store.metadata_reads) == 2
    assert first.unread_metadata == 3
    # Unread objects count as real and are as old as their LastModified.
    assert counts(first) == {("pending/", "real"): 3, ("pending/", "synthetic"): 2}
    assert first.lag_minutes == {"real": 2.0, "synthetic": 4.0}
    inventory.read_snapshot()
    third = inventory.read_snapshot()
    assert third.unread_metadata == 0
    assert counts(third) == {("pending/", "synthetic"): 5}
    assert len(store.metadata_reads) == 5


def test_objects_whose_metadata_is_refused_do_not_keep_others_unread(
    store: FakeArtifactStore,
) -> None:
    inventory = make_inventory(store, metadata_reads=1)
    store.put("pending/old.pdf", minutes_ago(9), chaos_scenario="fulfillment-delay")
    store.put("pending/new.pdf", minutes_ago(1), chaos_scenario="fulfillment-delay")
    store.metadata_errors["pending/old.pdf"] = StoreReadError("access_denied", "no")
    inventory.read_snapshot()
    second = inventory.read_snapshot()
    assert second.unread_metadata == 1
    assert counts(second) == {("pending/", "real"): 1, ("pending/", "synthetic"): 1}
    assert second.lag_minutes["real"] == 9.0
    store.metadata_errors.clear()
    assert inventory.read_snapshot().unread_metadata == 0


def test_an_object_gone_between_listing_and_read_does_not_wait(store: FakeArtifactStore) -> None:
    store.put("pending/1.pdf", minutes_ago(30))
    store.gone_after_listing.add("pending/1.pdf")
    snapshot = make_inventory(store).read_snapshot()
    assert counts(snapshot) == {}
    assert snapshot.lag_minutes["real"] == 0.0
    assert snapshot.unread_metadata == 0


def test_a_pending_since_in_the_future_is_ignored_and_counted(store: FakeArtifactStore) -> None:
    store.put("pending/1.pdf", minutes_ago(4), pending_since="2026-11-24T09:00:00Z")
    snapshot = make_inventory(store).read_snapshot()
    assert snapshot.lag_minutes["real"] == 4.0
    assert snapshot.future_pending_since == 1


@pytest.mark.parametrize("at", ["listing", "metadata"])
def test_a_store_that_cannot_be_reached_gives_no_snapshot(
    store: FakeArtifactStore, at: str
) -> None:
    for number in range(20):
        store.put(f"pending/{number}.pdf", minutes_ago(1))
    error = StoreReadError("store_unreachable", "refused")
    if at == "listing":
        store.listing_error = error
    else:
        store.metadata_errors = dict.fromkeys(store.objects, error)
    with pytest.raises(StoreReadError, match="store_unreachable: refused"):
        make_inventory(store).read_snapshot()


def test_the_refresh_is_dated_by_its_beginning(store: FakeArtifactStore) -> None:
    ticks = iter([NOW, NOW + timedelta(seconds=30)])
    store.put("pending/1.pdf", minutes_ago(1))
    inventory = ArtifactInventory(
        store, waiting_prefixes=["pending/"], ready_prefix="ready/", clock=lambda: next(ticks)
    )
    snapshot = inventory.read_snapshot()
    assert snapshot.started_at == NOW
    assert snapshot.lag_minutes["real"] == 1.5


def test_what_waits_is_read_without_a_listing_of_what_is_ready(store: FakeArtifactStore) -> None:
    make_inventory(store).read_snapshot()
    assert "ready/" not in store.listed


def test_a_waiting_prefix_inside_the_ready_one_is_not_counted_as_ready(
    store: FakeArtifactStore,
) -> None:
    store.put("ready/1.pdf", minutes_ago(1))
    store.put("ready/chaos/2.pdf", minutes_ago(1))
    inventory = make_inventory(store, waiting=("pending/", "ready/chaos/"))
    assert inventory.count_ready().backlog.objects == 1
    assert counts(inventory.read_snapshot()) == {("ready/chaos/", "real"): 1}
