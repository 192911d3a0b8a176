"""Recovery: no sample is never a pass."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulfillment.analysis.samples import Sample
from fulfillment.sections.signals import compute_recovery
from runbook_lib.model import Status

ACTION = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return ACTION + timedelta(seconds=seconds)


def lag(*values: float, start_s: float = 20) -> list[Sample]:
    return [Sample(at(start_s + 15 * i), value) for i, value in enumerate(values)]


def refreshed(samples: list[Sample]) -> list[Sample]:
    """Each scrape shows a refresh that was five seconds before it."""
    return [Sample(when, when.timestamp() - 5) for when, _ in samples]


@pytest.mark.parametrize(
    ("samples", "status", "value", "since"),
    [
        (lag(0, 1), Status.OK, 1, at(20)),
        (lag(0), Status.UNKNOWN, 0, at(20)),
        (lag(0, 0, 5), Status.BREACH, 5, None),
        (lag(0, 9, 1), Status.UNKNOWN, 1, at(50)),
        ([], Status.UNKNOWN, None, None),
        (lag(math.nan, math.nan), Status.UNKNOWN, None, None),
    ],
)
def test_two_samples_in_a_row_under_the_threshold_are_a_recovery(
    samples: list[Sample], status: Status, value: float | None, since: datetime | None
) -> None:
    result = compute_recovery(samples, refreshed(samples), ACTION, 5, 2)
    assert (result.status, result.value, result.since) == (status, value, since)


def test_samples_that_rest_on_no_refresh_or_an_older_one_do_not_count() -> None:
    samples = lag(0, 0, 0)
    stale = [Sample(when, ACTION.timestamp() - 1) for when, _ in samples]
    for refreshes in ([], stale):
        assert compute_recovery(samples, refreshes, ACTION, 5, 2).status is Status.UNKNOWN


def test_an_exporter_whose_clock_is_ahead_proves_nothing_early() -> None:
    # Scraped after the action, refreshed before it; its clock, two minutes ahead, says after.
    samples = [Sample(at(3), 0.0), Sample(at(4), 0.0)]
    refreshes = [Sample(at(s), at(-2).timestamp() + 120) for s in (3, 4)]
    before = [Sample(at(-15), at(-15).timestamp() + 120)]
    result = compute_recovery(samples, [*before, *refreshes], ACTION, 5, 2)
    assert result.status is Status.UNKNOWN


@given(
    st.lists(st.one_of(st.floats(0, 100), st.just(math.nan)), max_size=12),
    st.integers(1, 4),
    st.integers(-60, 60),
)
def test_a_pass_always_rests_on_enough_good_samples(
    values: list[float], needed: int, start_s: int
) -> None:
    samples = lag(*values, start_s=start_s)
    result = compute_recovery(samples, refreshed(samples), ACTION, 5, needed)
    late = [v for when, v in samples if not math.isnan(v) and when > at(5)]
    if result.status is Status.OK:
        assert len(late) >= needed
        assert all(value < 5 for value in late[-needed:])
    if result.status is Status.BREACH:
        assert late[-1] >= 5
