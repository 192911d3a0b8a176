"""The drain forecast, held against a simulated queue whose rates are known."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulfillment.analysis.forecasts import forecast_backlog
from fulfillment.analysis.samples import Rate, Sample, compute_rate, find_steady

T0 = datetime(2026, 11, 24, 3, tzinfo=UTC)


def points(*values: float, step_s: float = 15) -> list[Sample]:
    return [Sample(T0 + timedelta(seconds=step_s * i), value) for i, value in enumerate(values)]


def exact(per_minute: float) -> Rate:
    return Rate(per_minute, per_minute, per_minute)


def simulate_counter(random_: random.Random, per_minute: float, minutes: int) -> list[Sample]:
    """Count Poisson events, scraped every 15 s."""
    at_s, total, samples, events = 0.0, 0, [], []
    while at_s < minutes * 60:
        at_s += random_.expovariate(per_minute / 60)
        events.append(at_s)
    for scrape in range(minutes * 4 + 1):
        while total < len(events) and events[total] <= scrape * 15:
            total += 1
        samples.append(Sample(T0 + timedelta(seconds=15 * scrape), float(total)))
    return samples


def test_the_rate_of_a_steady_counter() -> None:
    rate = compute_rate(points(100, 105, 110, 115, 120))
    assert rate is not None
    assert rate.per_minute == 20
    assert 0 < rate.low < 20 < rate.high


def test_a_burst_of_arrivals_does_not_go_on() -> None:
    burst = [800.0 * second / 5 for second in range(6)]
    steady = [800.0 + second * 49 / 60 for second in range(1, 50)]
    rate = compute_rate(find_steady(points(*burst, *map(round, steady), step_s=1)))
    assert rate is not None
    assert rate.low <= 49 <= rate.high < 120


def test_a_burst_at_the_end_and_too_few_seconds_show_no_rate() -> None:
    steady = [round(second * 40 / 60) for second in range(100)]
    burst = [steady[-1] + 27 * second for second in range(1, 13)]
    assert find_steady(points(*steady, step_s=1))
    assert find_steady(points(*steady, *burst, step_s=1)) == []
    assert find_steady(points(0, 12, *range(14, 24, 2), step_s=2)) == []


@pytest.mark.parametrize("at", [3, 20, 26])
@pytest.mark.parametrize("seen_in", [1, 2, 3])
def test_one_burst_wherever_it_is_does_not_count(at: int, seen_in: int) -> None:
    growth = [2] * 40
    for index in range(seen_in):
        growth[at + index] += 45 // seen_in
    counter = points(*accumulate(growth, initial=100), step_s=3)
    rate = compute_rate(find_steady(counter))
    assert rate is not None
    assert 36 < rate.per_minute < 44


def test_a_burst_that_has_only_just_been_shows_no_rate() -> None:
    for growth in ([2] * 6 + [20, 20], [0] * 6 + [40, 40], [0] * 7 + [20], [2] * 7 + [20]):
        assert find_steady(points(*accumulate(growth, initial=100))) == [], growth


def test_one_batch_and_nothing_else_shows_no_rate() -> None:
    for at in (0, 2, 4):
        growth = [0] * 8
        growth[at] = 40
        assert find_steady(points(*accumulate(growth, initial=100))) == [], at


def test_labels_that_come_in_bursts_all_count() -> None:
    growth = [30 if index % 10 == 0 else 0 for index in range(40)]
    counter = points(*accumulate(growth, initial=100), step_s=3)
    assert find_steady(counter) == counter


def test_an_empty_queue_says_which_rate_is_not_known() -> None:
    backlog = forecast_backlog(0, None, Rate(0, 0, 0))
    assert backlog.outlook == "empty"
    assert "objects arrive is not known" in backlog.reason


@pytest.mark.parametrize("per_minute", [0.5, 4, 60])
def test_chance_is_no_burst(per_minute: float) -> None:
    random_ = random.Random(20261129)
    counters = [simulate_counter(random_, per_minute, 2) for _ in range(200)]
    assert sum(find_steady(counter) == counter for counter in counters) >= 194


def test_a_reset_counts_from_zero() -> None:
    rate = compute_rate(points(100, 110, 3, 5))
    assert rate is not None
    assert rate.per_minute == 20


@pytest.mark.parametrize("values", [(), (5,), (math.nan, 5, math.nan), (math.inf, math.inf)])
def test_no_two_samples_are_no_rate(values: tuple[float, ...]) -> None:
    assert compute_rate(points(*values)) is None


def test_nan_samples_are_left_out() -> None:
    assert compute_rate(points(0, math.nan, 10)) == compute_rate(
        [Sample(T0, 0), Sample(T0 + timedelta(seconds=30), 10)]
    )


def test_an_unsorted_series_is_sorted() -> None:
    series = points(1, 2, 3)
    assert compute_rate(series[::-1]) == compute_rate(series)


def test_nothing_counted_still_leaves_room_above() -> None:
    rate = compute_rate(points(7, 7, 7))
    assert rate is not None
    assert (rate.per_minute, rate.low) == (0, 0)
    assert rate.high > 0


@pytest.mark.parametrize("per_minute", [0.5, 4, 60])
def test_the_bounds_hold_the_true_rate_about_19_times_in_20(per_minute: float) -> None:
    random_ = random.Random(20261124)
    held = 0
    for _ in range(200):
        rate = compute_rate(simulate_counter(random_, per_minute, 10))
        assert rate is not None
        held += rate.low <= per_minute <= rate.high
    assert held >= 184


def test_time_to_empty_of_a_simulated_queue() -> None:
    random_ = random.Random(7)
    held = 0
    for _ in range(100):
        arrival = compute_rate(simulate_counter(random_, 20, 15))
        drain = compute_rate(simulate_counter(random_, 60, 15))
        backlog = forecast_backlog(400, arrival, drain)
        assert backlog.outlook == "draining"
        assert backlog.low_minutes is not None
        assert backlog.high_minutes is not None
        held += backlog.low_minutes <= 400 / (60 - 20) <= backlog.high_minutes
    assert held >= 90


def test_exact_rates_give_the_exact_time() -> None:
    backlog = forecast_backlog(90, exact(10), exact(40))
    assert (backlog.minutes_to_empty, backlog.low_minutes, backlog.high_minutes) == (3, 3, 3)


@pytest.mark.parametrize(("arrival", "drain"), [(10, 10), (11, 10), (5, 0), (0, 0)])
def test_never_when_they_arrive_as_fast_as_they_leave(arrival: float, drain: float) -> None:
    backlog = forecast_backlog(3, exact(arrival), exact(drain))
    assert backlog.outlook == "never"
    assert backlog.minutes_to_empty is None
    assert ("grows" in backlog.reason) == (arrival > drain)


def test_few_counts_may_mean_never() -> None:
    backlog = forecast_backlog(50, compute_rate(points(0, 1)), compute_rate(points(0, 2)))
    assert backlog.outlook == "draining"
    assert backlog.high_minutes is None
    assert "may never" in backlog.reason


def test_an_empty_backlog_needs_no_rates() -> None:
    backlog = forecast_backlog(0, None, None)
    assert backlog.outlook == "empty"


def test_labels_that_arrive_and_do_not_leave_are_never_gone_though_none_waits_just_now() -> None:
    arrival, drain = compute_rate(points(0, 10, 20, 30, 40)), compute_rate(points(7, 7, 7, 7, 7))
    backlog = forecast_backlog(0, arrival, drain)
    assert backlog.outlook == "never"
    assert "40.0 arrive" in backlog.reason
    assert "0.0 leave" in backlog.reason


def test_an_empty_backlog_is_empty_while_labels_leave_about_as_fast_as_they_come() -> None:
    arrival, drain = compute_rate(points(0, 10, 20, 31)), compute_rate(points(0, 10, 20, 29))
    backlog = forecast_backlog(0, arrival, drain)
    assert backlog.outlook == "empty"
    # Beside these rates nobody may read that the queue surely stays empty.
    assert "41.3 arrive, 38.7 leave" in backlog.reason
    assert "chance" in backlog.reason
    assert "arrive" not in forecast_backlog(0, drain, arrival).reason


@pytest.mark.parametrize(
    ("objects", "arrival", "drain"),
    [(None, exact(1), exact(2)), (math.nan, exact(1), exact(2)), (5, None, exact(2)),
     (5, exact(1), None)],
)  # fmt: skip
def test_what_is_not_known_is_unknown(
    objects: float | None, arrival: Rate | None, drain: Rate | None
) -> None:
    backlog = forecast_backlog(objects, arrival, drain)
    assert backlog.outlook == "unknown"
    assert backlog.reason


def test_rates_add_up_unless_one_is_unknown() -> None:
    total = compute_rate(points(0, 10), points(0, 5))
    assert total is not None
    assert total.per_minute == 60
    assert total.low < 60 < total.high
    assert compute_rate(points(0, 10), points(5)) is None
    assert compute_rate() is None


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_a_rate_is_never_negative(values: list[float]) -> None:
    rate = compute_rate(points(*values))
    assert rate is not None
    assert 0 <= rate.low <= rate.per_minute + 1e-9 <= rate.high + 1e-6


@given(
    st.floats(0.1, 1e5), st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 100), st.floats(0, 100)
)
def test_bounds_enclose_the_estimate(
    objects: float, arrival: float, drain: float, below: float, above: float
) -> None:
    def rate(value: float) -> Rate:
        return Rate(value, max(0, value - below), value + above)

    backlog = forecast_backlog(objects, rate(arrival), rate(drain))
    if backlog.outlook == "draining":
        assert backlog.low_minutes is not None
        assert backlog.minutes_to_empty is not None
        assert 0 <= backlog.low_minutes <= backlog.minutes_to_empty
        assert backlog.high_minutes is None or backlog.high_minutes >= backlog.minutes_to_empty
    else:
        assert backlog.outlook == "never"
        assert drain <= arrival
