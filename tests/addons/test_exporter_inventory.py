from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from addons.artifact_exporter.inventory import ArtifactInventory, Snapshot
from tests.support.fake_artifact_store import FakeArtifactStore

NOW = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
CHAOS = "chaos/fulfillment-delay/"


def minutes_ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


@pytest.fixture
def store() -> FakeArtifactStore:
    return FakeArtifactStore()


def make_inventory(store: FakeArtifactStore, metadata_reads: int = 500) -> ArtifactInventory:
    return ArtifactInventory(
        store,
        waiting_prefixes=("pending/", CHAOS),
        ready_prefix="ready/",
        clock=lambda: NOW,
        metadata_reads=metadata_reads,
        threads=2,
    )


def counts(snapshot: Snapshot) -> dict[tuple[str, str], int]:
    return {key: backlog.objects for key, backlog in snapshot.backlog.items() if backlog.objects}


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
