"""Section 5's events, and when causes began."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fulfillment.analysis.samples import Sample, find_beginning, list_growth
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


@pytest.mark.parametrize(
    ("values", "since"), [([1, 2, 3], 1), ([1, 1, 1], None), ([1, 2, 2, 2, 2, 3], 5)]
)
def test_a_counters_growth_is_dated_from_its_latest_beginning(
    world: World, values: list[float], since: int | None
) -> None:
    samples = world.line(values, step_s=50).samples
    assert find_beginning(list_growth([samples])) == (None if since is None else samples[since].at)


def test_counters_of_one_reason_are_dated_together(world: World) -> None:
    # An episode of labels that is over does not date the present one of slips.
    over = world.line([1, 2, 2, 2, 2, 2], step_s=50)
    now = world.line([0, 0, 0, 0, 1, 2], step_s=50)
    assert find_beginning(list_growth([over.samples, now.samples])) == now.samples[4].at


def test_a_store_that_stopped_is_dated_by_its_own_service(world: World) -> None:
    stopped_at = world.now - timedelta(minutes=7)
    world.services["minio"] = replace(
        world.services["minio"], running=False, state="STOPPED", since=stopped_at
    )
    world.count("fulfillment_artifacts_failed_total", "reason", {"store_unreachable": [1.0, 2.0]})
    world.down.add("store")
    for step in ("3.3", "5.1", "5.2"):
        world.take(root_cause, step)
    findings, _ = root_cause.judge_causes(world.open(root_cause))
    (found,) = [f for f in findings if f.name == "store_down"]
    assert found.first_seen == stopped_at


def test_only_a_supported_cause_is_dated(world: World) -> None:
    inv = world.open(root_cause)
    assert inv.read_step("5.1").first_seen, "a healthy worker has a beginning, too"
    findings, _ = root_cause.judge_causes(inv)
    assert {f.first_seen for f in findings} == {None}


def test_an_exporter_that_moved_is_not_down(world: World) -> None:
    old, new = world.line([1.0, 0.0], instance="old"), world.line([1.0, 1.0], instance="new")
    before = tuple(s._replace(at=s.at - timedelta(seconds=30)) for s in old.samples)
    world.series['up{job="artifact-exporter"}'] = [replace(old, samples=before), new]
    assert world.take(root_cause, "5.1").observations["exporter_up"] is True


@pytest.mark.parametrize(("state", "running"), [("STARTING", None), ("RUNNING", True)])
def test_a_worker_that_starts_again_and_again_does_not_run(
    world: World, monkeypatch: pytest.MonkeyPatch, state: str, running: bool | None
) -> None:
    name = "fulfillment-service"
    world.down.add("fulfillment")

    def start_anew(seconds: float) -> None:
        world.now += timedelta(seconds=seconds)
        begun = replace(world.services[name], running=bool(running), state=state)
        world.services[name] = replace(begun, since=world.now)

    start_anew(0)
    assert world.take(root_cause, "5.1").observations["worker_running"] is running
    start_anew(0)
    monkeypatch.setattr(world, "sleep", start_anew)
    assert world.take(root_cause, "5.1").observations["worker_running"] is False
