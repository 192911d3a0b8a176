"""What an engineer does next with a reading's rows, on the frames that the sections declare."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from fulfillment.clients.http_systems import Panel
from fulfillment.clients.services import LogLine
from fulfillment.sections import detection, immediate, root_cause
from tests.support.world import NOW, ORDER, TICKET, World, make_case

SECTIONS = (detection, immediate, root_cause)


TABLES = [
    (section, step) for section in SECTIONS for step in section.COLUMNS if step in section.STEPS
]


def describe_carrier_failure(order_id: int) -> str:
    """Return the worker's log line, as the local stack's service writes it."""
    message = "carrier request failed: carrier_timeout: no answer within 5 s"
    return json.dumps({"level": "error", "msg": message, "order_id": order_id})


@pytest.fixture
def busy(world: World) -> World:
    """Return a world in which every table has rows."""
    world.put_lag(25)
    world.put_label(25, number=1)
    world.put_label(95, number=2, finished=False)
    world.fire()
    world.case = make_case(NOW)
    world.panel = Panel("Fulfillment backlog", ("sum(waiting)",), "http://grafana/d/x")
    world.series["sum(waiting)"] = [world.line([2.0])]
    world.logs = [
        LogLine(NOW - timedelta(minutes=1), describe_carrier_failure(ORDER)),
        LogLine(NOW - timedelta(minutes=1), "ERROR upload failed: storage_full"),
    ]
    return world


@pytest.mark.parametrize(("section", "step"), TABLES)
def test_a_step_has_the_columns_and_kinds_of_values_that_are_declared(
    busy: World, section: Any, step: str
) -> None:
    declared = section.COLUMNS[step]
    inv = busy.open(section, ticket_id=TICKET)
    reading = inv.read_step(step)
    frame = inv.frame(step)
    assert frame.dtypes.astype(str).to_dict() == declared
    for row in reading.rows:
        assert list(row) == list(declared)
    for name in declared:  # what does not fit its column would be missing
        known = [row[name] for row in reading.rows if row[name] is not None]
        assert frame[name].notna().sum() == len(known), name
