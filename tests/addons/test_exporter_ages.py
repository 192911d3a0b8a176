"""The exporter's rules for ages and synthetic objects are the runbook's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.artifact_exporter import ages
from fulfillment.analysis import artifacts

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
