"""What an engineer does next with a reading: its whole frame, its query, questions beside."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from fulfillment.clients.http_systems import Panel
from fulfillment.clients.services import LogLine
from fulfillment.sections import SECTIONS
from tests.support.world import NOW, ORDER, TICKET, World, make_case

STEPS = {step: module for module in SECTIONS.values() for step in module.STEPS}


def describe_carrier_failure(order_id: int) -> str:
    message = "carrier request failed: carrier_timeout: no answer within 5 s"
    return json.dumps({"level": "error", "msg": message, "order_id": order_id})


@pytest.fixture
def busy(world: World) -> World:
    world.put_lag(24, 25)
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


@pytest.mark.parametrize("step", STEPS)
def test_a_frame_has_every_row_and_the_columns_and_dtypes_that_the_step_declares(
    busy: World, step: str
) -> None:
    module = STEPS[step]
    read = busy.open(module, ticket_id=TICKET).read(step)
    declared: dict[str, Any] = dict(module.STEPS[step].columns)
    assert len(read.frame) == len(read.reading.rows)
    assert read.frame.dtypes.astype(str)[list(declared)].to_dict() == declared
    for name in declared:  # what does not fit its column would be missing
        known = [row for row in read.reading.rows if row.get(name) is not None]
        assert read.frame[name].notna().sum() == len(known), name


@pytest.mark.parametrize("step", ["2.3", "2.4", "3.2", "3.4"])
def test_a_frame_is_never_cut_though_the_journal_keeps_fifty_rows(world: World, step: str) -> None:
    for number in range(70):
        world.put_label(25, number=number)
    inv = world.open(STEPS[step])
    read = inv.read(step)
    assert len(read.frame) == 70
    assert len(inv.latest()[step].rows) == 50
    assert read.frame.groupby("order").size().sum() == 70
