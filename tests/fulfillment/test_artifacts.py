from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulfillment.analysis.artifacts import (
    compute_age_start,
    compute_lag_minutes,
    is_synthetic,
)

NOW = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
WRITTEN = NOW - timedelta(minutes=3)
times = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - hypothesis wants naive bounds
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


@pytest.mark.parametrize(
    "metadata",
    [
        {"chaos-scenario": "fulfillment-delay", "hold-until": "2026-11-24T03:30:00+00:00"},
        {"drill-id": "d-1", "expires-at": "2026-11-24T04:00:00Z"},
        {"drill-id": "d-1", "hold-until": "2026-11-24T04:00:00Z"},
    ],
)
def test_metadata_of_either_chaos_script_is_synthetic(metadata: dict[str, str]) -> None:
    assert is_synthetic(metadata)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"chaos-scenario": "  "},
        {"drill-id": "d-1"},
        {"hold-until": "2026-11-24T04:00:00Z"},
    ],
)
def test_metadata_that_proves_nothing_is_not_synthetic(metadata: dict[str, str]) -> None:
    assert not is_synthetic(metadata)


@pytest.mark.parametrize(
    "text", ["2026-11-24T02:50:00Z", "2026-11-24T09:50:00+07:00", "2026-11-24T02:50:00"]
)
def test_an_earlier_pending_since_starts_the_age_in_any_of_the_three_forms(text: str) -> None:
    start = compute_age_start({"pending-since": text}, WRITTEN, NOW)
    assert start == datetime(2026, 11, 24, 2, 50, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        *("yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9" * 400),
        *("2026-11-24T03:13:00Z", "2026-11-24T03:14:01Z"),
    ],
)
def test_a_pending_since_that_is_unreadable_or_after_last_modified_is_ignored(text: str) -> None:
    start = compute_age_start({"pending-since": text}, WRITTEN, NOW)
    assert start == WRITTEN


@given(pending_since=times, written=times, now=times)
def test_the_age_start_is_never_after_last_modified(
    pending_since: datetime, written: datetime, now: datetime
) -> None:
    start = compute_age_start({"pending-since": pending_since.isoformat()}, written, now)
    assert start <= written


def test_ten_minutes_and_a_second_is_more_than_ten_minutes() -> None:
    start = NOW - timedelta(minutes=10, seconds=1)
    assert compute_lag_minutes(start, NOW) > 10
    assert compute_lag_minutes(start, NOW - timedelta(seconds=1)) == 10
