"""The predicted clear time: bounded by a simulation of the chain, and none from wrong inputs."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta

import pytest

from fulfillment.analysis.forecasts import compute_clear_time

FIXED = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)


NAMES = ("refresh_s", "scrape_s", "evaluation_s", "keep_firing_for_s")


def make_stages(*values: float) -> dict[str, float]:
    return dict(zip(NAMES, values, strict=True))


def next_tick(at_s: float, interval_s: float, phase_s: float) -> float:
    return math.ceil((at_s - phase_s) / interval_s) * interval_s + phase_s


@pytest.mark.parametrize(
    ("refresh", "scrape", "evaluation", "keep"), [(15, 15, 15, 0), (1, 1, 1, 5), (60, 15, 30, 300)]
)
def test_a_simulated_chain_clears_within_the_bounds(
    refresh: float, scrape: float, evaluation: float, keep: float
) -> None:
    predicted = compute_clear_time(FIXED, make_stages(refresh, scrape, evaluation, keep))
    assert predicted is not None
    random_ = random.Random(5)
    for _ in range(500):
        at_s = random_.uniform(0, 100)
        cleared_s = at_s
        for interval in (refresh, scrape, evaluation):
            cleared_s = next_tick(cleared_s, interval, random_.uniform(0, interval))
        cleared = FIXED + timedelta(seconds=cleared_s - at_s + keep)
        assert predicted.earliest <= cleared <= predicted.latest < predicted.deadline


@pytest.mark.parametrize("wrong", [-1, math.nan, math.inf])
def test_an_interval_that_is_none_predicts_nothing(wrong: float) -> None:
    for name in NAMES:
        assert compute_clear_time(FIXED, make_stages(1, 1, 1, 0) | {name: wrong}) is None
    assert compute_clear_time(FIXED, make_stages(1, 1, 1, 0), group_interval_s=wrong) is None
