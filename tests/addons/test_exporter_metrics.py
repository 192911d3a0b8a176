from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from addons.artifact_exporter.inventory import ArtifactInventory
from addons.artifact_exporter.metrics import BacklogCollector
from addons.artifact_exporter.refresher import Refresher
from addons.artifact_exporter.server import make_app
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


def call(app: Callable[..., Any], path: str) -> tuple[str, bytes]:
    told: list[str] = []

    def start_response(status: str, _headers: object, _info: object = None) -> None:
        told.append(status)

    body = b"".join(app({"PATH_INFO": path, "REQUEST_METHOD": "GET"}, start_response))
    return told[0], body


def test_what_is_ready_has_its_own_count_and_time_and_vanishes_when_it_cannot_be_listed(
    refresher: Refresher, collector: BacklogCollector, store: FakeArtifactStore
) -> None:
    counted_at = "fulfillment_exporter_ready_counted_timestamp_seconds", ()
    ready = (("origin", "real"), ("prefix", "ready/"))
    objects = "fulfillment_artifacts_backlog_objects", ready
    store.put("ready/1.pdf", NOW)
    refresher.refresh()
    assert not {counted_at, objects} & read_samples(collector).keys()
    refresher.count_ready()
    samples = read_samples(collector)
    assert (samples[objects], samples[counted_at]) == (1, NOW.timestamp())
    store.listing_error = StoreReadError("access_denied", "no")
    refresher.count_ready()
    assert not {counted_at, objects} & read_samples(collector).keys()
    assert ("fulfillment_lag_minutes", (("origin", "real"),)) in read_samples(collector)


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


def test_before_the_first_refresh_nothing_is_claimed(collector: BacklogCollector) -> None:
    assert names(read_samples(collector)) == {
        "fulfillment_exporter_refresh_interval_seconds",
        "fulfillment_exporter_refresh_failures_total",
    }


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


def test_every_failure_reason_is_a_series_from_the_start(collector: BacklogCollector) -> None:
    reasons = {
        dict(labels)["reason"]: value
        for (name, labels), value in read_samples(collector).items()
        if name == "fulfillment_exporter_refresh_failures_total"
    }
    assert reasons == dict.fromkeys(
        ("store_unreachable", "access_denied", "bad_credentials", "no_such_bucket", "other"), 0
    )


def test_health_is_503_until_the_first_refresh_has_ended(
    refresher: Refresher, collector: BacklogCollector
) -> None:
    app = cast("Callable[..., Any]", make_app(collector, is_refreshing=lambda: True))
    assert call(app, "/health")[0].startswith("503")
    refresher.refresh()
    status, body = call(app, "/health")
    assert status.startswith("200")
    assert body == (
        b'{"status": "ok", "lastRefreshAt": "2026-11-24T03:14:00.000Z", "lastFailure": null}'
    )


def test_health_is_503_when_refreshing_has_stopped(
    refresher: Refresher, collector: BacklogCollector
) -> None:
    app = cast("Callable[..., Any]", make_app(collector, is_refreshing=lambda: False))
    refresher.refresh()
    status, body = call(app, "/health")
    assert status.startswith("503")
    assert b'"status": "stopped"' in body


def test_an_unknown_path_is_not_the_metrics(collector: BacklogCollector) -> None:
    app = cast("Callable[..., Any]", make_app(collector, is_refreshing=lambda: True))
    assert call(app, "/")[0].startswith("404")
    assert b"fulfillment_exporter_refresh_interval_seconds" in call(app, "/metrics")[1]
