"""When failures have ended, by samples."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from fulfillment.analysis.samples import Sample, find_end, list_growth

T0 = datetime(2026, 11, 24, 3, tzinfo=UTC)


def count(growth: Sequence[int], step_s: float = 5) -> list[Sample]:
    """Return a counter that grows by so much between each two scrapes."""
    samples = [Sample(T0, 0.0)]
    for number, grown in enumerate(growth, 1):
        at = T0 + timedelta(seconds=step_s * number)
        samples.append(Sample(at, samples[-1].value + grown))
    return samples


@pytest.mark.parametrize(("since", "has_ended"), [(0, False), (6, False), (7, True)])
@pytest.mark.parametrize("before", [0, 850])
def test_what_succeeded_before_the_fault_does_not_make_its_end_later(
    before: int, since: int, *, has_ended: bool
) -> None:
    failed = count([0, 1, 0])
    succeeded = count([before, 0, since])
    end = find_end(list_growth([failed]), list_growth([succeeded]))
    assert end == (failed[2].at if has_ended else None)


@pytest.mark.parametrize(("since", "has_ended"), [(7, False), (12, True)])
def test_a_fault_that_lets_much_through_ends_later(since: int, *, has_ended: bool) -> None:
    failed = count([0, 5, 5, 5, 0])
    succeeded = count([100, 10, 10, 10, since])
    end = find_end(list_growth([failed]), list_growth([succeeded]))
    assert end == (failed[4].at if has_ended else None)
