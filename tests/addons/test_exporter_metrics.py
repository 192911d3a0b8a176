from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from addons.artifact_exporter.inventory import ArtifactInventory
from addons.artifact_exporter.metrics import BacklogCollector
from addons.artifact_exporter.refresher import Refresher
from addons.artifact_exporter.store import StoreReadError
from tests.support.fake_artifact_store import FakeArtifactStore

NOW = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
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


def names(samples: Samples) -> set[str]:
    return {name for name, _ in samples}


@pytest.fixture
def store() -> FakeArtifactStore:
    store = FakeArtifactStore()
    store.put("pending/1.pdf", NOW - timedelta(minutes=12))
    return store


@pytest.fixture
def collector() -> BacklogCollector:
    return BacklogCollector(15)


@pytest.fixture
def refresher(store: FakeArtifactStore, collector: BacklogCollector) -> Refresher:
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
    assert names(samples) == {
        "fulfillment_exporter_refresh_interval_seconds",
        "fulfillment_exporter_refresh_failures_total",
        "fulfillment_exporter_last_refresh_timestamp_seconds",
    }
    assert samples["fulfillment_exporter_refresh_failures_total", (("reason", reason),)] == 1
    store.listing_error = None
    refresher.refresh()
    assert "fulfillment_lag_minutes" in names(read_samples(collector))
