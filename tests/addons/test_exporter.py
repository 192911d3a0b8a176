"""The exporter: its rules for ages are the runbook's; what it reads, and what it shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from addons.artifact_exporter import ages
from addons.artifact_exporter.inventory import ArtifactInventory, Snapshot
from addons.artifact_exporter.metrics import BacklogCollector
from addons.artifact_exporter.refresher import Refresher
from addons.artifact_exporter.store import StoreReadError
from fulfillment.analysis import artifacts
from tests.support.fake_artifact_store import FakeArtifactStore

NOW = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
WRITTEN = NOW - timedelta(minutes=3)
values = st.sampled_from(["", " ", "x", "2026-11-24T03:30:00Z"])
names = st.sampled_from(["chaos-scenario", "drill-id", "hold-until", "expires-at", "order-id"])
times = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@given(metadata=st.dictionaries(names, values))
def test_both_prove_the_same_objects_synthetic(metadata: dict[str, str]) -> None:
    assert ages.is_synthetic(metadata) == artifacts.is_synthetic(metadata)


@given(pending_since=times, written=times, now=times)
def test_both_start_an_age_at_the_same_time(
    pending_since: datetime, written: datetime, now: datetime
) -> None:
    metadata = {"pending-since": pending_since.isoformat()}
    check_same(metadata, written, now)


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2026-11-24T09:50:00+07:00",
        "2026-11-24T03:14:01Z",
    ],
)
def test_both_read_the_same_forms_of_a_time(text: str) -> None:
    check_same({"pending-since": text}, WRITTEN, NOW)
    check_same({}, WRITTEN, NOW)


def check_same(metadata: dict[str, str], written: datetime, now: datetime) -> None:
    start = ages.find_age_start(metadata, written, now)
    expected = artifacts.compute_age_start(metadata, written, now)
    assert start.at == expected


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


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read_samples(collector: BacklogCollector) -> Samples:
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def names_of(samples: Samples) -> set[str]:
    return {name for name, _ in samples}


@pytest.fixture
def collector() -> BacklogCollector:
    return BacklogCollector(15)


@pytest.fixture
def refresher(store: FakeArtifactStore, collector: BacklogCollector) -> Refresher:
    store.put("pending/1.pdf", minutes_ago(12))
    inventory = ArtifactInventory(
        store, waiting_prefixes=["pending/"], ready_prefix="ready/", clock=lambda: NOW
    )
    return Refresher(inventory, collector, interval_s=15)


def test_a_refresh_shows_lag_backlog_and_its_own_time(
    refresher: Refresher, collector: BacklogCollector
) -> None:
    refresher.refresh()
    samples = read_samples(collector)
    assert samples["fulfillment_lag_minutes", (("origin", "real"),)] == 12.0
    pending = (("origin", "real"), ("prefix", "pending/"))
    assert samples["fulfillment_artifacts_backlog_objects", pending] == 1
    assert samples["fulfillment_artifacts_backlog_bytes", pending] == 100
    assert samples["fulfillment_exporter_last_refresh_timestamp_seconds", ()] == NOW.timestamp()
    assert samples["fulfillment_exporter_refresh_interval_seconds", ()] == 15
    assert samples["fulfillment_exporter_future_pending_since_objects", ()] == 0
    assert samples["fulfillment_exporter_unread_metadata_objects", ()] == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StoreReadError("bad_credentials", "SignatureDoesNotMatch"), "bad_credentials"),
        (RuntimeError("a defect"), "other"),
    ],
)
def test_after_a_failed_refresh_the_series_are_gone_until_the_next_good_one(
    refresher: Refresher,
    collector: BacklogCollector,
    store: FakeArtifactStore,
    error: Exception,
    reason: str,
) -> None:
    refresher.refresh()
    store.listing_error = error
    refresher.refresh()
    samples = read_samples(collector)
    assert names_of(samples) == {
        "fulfillment_exporter_refresh_interval_seconds",
        "fulfillment_exporter_refresh_failures_total",
        "fulfillment_exporter_last_refresh_timestamp_seconds",
    }
    assert samples["fulfillment_exporter_refresh_failures_total", (("reason", reason),)] == 1
    store.listing_error = None
    refresher.refresh()
    assert "fulfillment_lag_minutes" in names_of(read_samples(collector))
