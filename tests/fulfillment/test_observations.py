"""What a judgement takes from the readings of several steps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations

from fulfillment.analysis.causes import collect_observations
from runbook_lib.model import Reading, Role, Status

AT = datetime(2026, 11, 28, 5, 0, tzinfo=UTC)


def read(step: str, minutes: float, value: float | None) -> Reading:
    return Reading(
        step=step,
        name=step,
        role=Role.BACKLOG,
        status=Status.OK,
        observed_at=AT + timedelta(minutes=minutes),
        source="the bucket",
        observations={"waiting_finished": value},
    )


def test_of_two_steps_that_saw_the_same_the_one_read_last_counts() -> None:
    readings = [read("2.3", 2, 0.0), read("3.1", 0, 120.0), read("6.5", 3, None)]
    for ordered in permutations(readings):
        assert collect_observations(ordered)["waiting_finished"].value == 0.0
