"""Section 5's events, and what services say of themselves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fulfillment.analysis.samples import Sample
from fulfillment.sections import root_cause
from runbook_lib.record.detection import list_events
from tests.support.world import World

ALERTS = 'ALERTS{alertname=~"Fulfillment.*"}'


def list_texts(world: World, kind: str) -> list[str]:
    """Return what systems told of one kind, as the journal has it."""
    inv = world.open(root_cause)
    inv.read_step("5.1")
    return [event.text for event in list_events(inv.journal) if event.kind == kind]


def test_a_state_of_one_sample_ends_by_the_interval_of_the_others(world: World) -> None:
    pending = {"alertname": "FulfillmentMetricsMissing", "alertstate": "pending"}
    firing = {"alertname": "FulfillmentDelay", "alertstate": "firing"}
    one = world.line([1.0], **pending)
    seen_at = world.now - timedelta(seconds=8)
    world.series[ALERTS] = [
        replace(one, samples=(Sample(seen_at, 1.0),)),
        world.line([1.0] * 20, step_s=1, **firing),
    ]
    assert "FulfillmentMetricsMissing pending ends" in list_texts(world, "alert")


def test_a_channel_that_was_told_is_an_event(world: World) -> None:
    world.hear("slack", minutes_ago=3)
    (text,) = list_texts(world, "notice")
    assert all(word in text for word in ("slack", "FulfillmentDelay", "firing"))


@pytest.mark.parametrize(
    ("state", "running"), [("STARTING", None), ("EXITED", False), ("BACKOFF", False)]
)
def test_a_worker_that_is_just_starting_is_not_called_stopped(
    world: World, state: str, running: bool | None
) -> None:
    name = "fulfillment-service"
    world.services[name] = replace(world.services[name], running=False, state=state)
    told = world.take(root_cause, "5.1").observations
    assert told["worker_running"] is running


def test_an_exporter_that_moved_is_not_down(world: World) -> None:
    old, new = world.line([1.0, 0.0], instance="old"), world.line([1.0, 1.0], instance="new")
    before = tuple(s._replace(at=s.at - timedelta(seconds=30)) for s in old.samples)
    world.series['up{job="artifact-exporter"}'] = [replace(old, samples=before), new]
    assert world.take(root_cause, "5.1").observations["exporter_up"] is True
