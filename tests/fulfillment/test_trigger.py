"""Who paused what: 5.1 and 5.3 say it where the system tells."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fulfillment.clients.http_systems import DagChange
from fulfillment.sections import root_cause
from runbook_lib.model import Event, Reading
from tests.support.world import NOW, World

PAUSED_AT = NOW - timedelta(minutes=9)


def list_triggers(reading: Reading) -> list[Event]:
    return [event for event in reading.events if event.kind == "trigger"]


def test_the_event_log_says_who_paused_the_dag_and_when(world: World) -> None:
    world.dag = replace(world.dag, is_paused=True)
    world.pause = DagChange(PAUSED_AT, "planner", '{"is_paused": true}')

    reading = world.open(root_cause).read_step("5.3")

    [event] = list_triggers(reading)
    assert (event.at, event.source) == (PAUSED_AT, "pipeline")
    assert "planner" in event.text


def test_an_old_pause_of_a_dag_that_runs_is_no_trigger(world: World) -> None:
    world.pause = DagChange(NOW - timedelta(days=2), "planner", '{"is_paused": true}')

    assert list_triggers(world.open(root_cause).read_step("5.3")) == []


def test_without_an_event_log_nobody_knows_when_the_pause_began(world: World) -> None:
    world.dag = replace(world.dag, is_paused=True)

    assert list_triggers(world.open(root_cause).read_step("5.3")) == []


def test_a_worker_says_who_paused_it_and_since_when(world: World) -> None:
    assert world.worker is not None
    world.worker = replace(world.worker, paused=True, paused_at=PAUSED_AT, paused_by="planner")

    [event] = list_triggers(world.open(root_cause).read_step("5.1"))
    assert (event.at, event.source) == (PAUSED_AT, "fulfillment")
    assert "planner" in event.text


@pytest.mark.parametrize("extra", ["", "no json", "[]", "{}", '{"is_paused": false}'])
def test_another_change_of_the_dag_is_no_pause(extra: str) -> None:
    assert not DagChange(NOW, "planner", extra).is_pause
