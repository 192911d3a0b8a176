"""Orders without any label are counted while none gets into the store."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fulfillment.policy import POLICY
from fulfillment.sections import detection
from fulfillment.sections.detection import read_unserved
from fulfillment.waiting import read_waiting
from runbook_lib.model import format_time
from tests.support.world import ORDER, World

FAILED = 'fulfillment_artifacts_failed_total{stage="upload"}'


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "home")
    world.count(FAILED, "reason", {"bad_credentials": [5.0, 9.0, 14.0]})
    world.count("fulfillment_artifacts_arrived_total", "kind", {"label": [10.0, 10.0, 10.0]})
    return world


def ship(world: World, order_id: int, minutes: float) -> None:
    created_at = format_time(world.now - timedelta(minutes=minutes))
    shipment = {"orderId": order_id, "createdAt": created_at, "status": "pending"}
    world.shipments.append(shipment)


def count(world: World) -> int | None:
    inv = world.open(detection)
    unserved = read_unserved(inv, read_waiting(inv))
    return None if unserved is None else len(unserved)


def test_orders_without_a_label_are_affected_although_nothing_waits(world: World) -> None:
    for number in range(6):
        ship(world, 5000 + number, minutes=4)

    inv = world.open(detection)
    inv.read_step("2.1")
    reading = inv.read_step("2.3")

    assert (reading.value, len(reading.order_ids or ()), reading.longest_minutes) == (0, 6, 4.0)
    assert "6 orders without any label" in reading.reason
    assert str(POLICY.compute_impact(inv.journal)) == "6 orders affected; longest wait 4.0 min"


@pytest.mark.parametrize("prefix", ["pending/", "ready/"])
def test_an_order_with_a_label_is_not_counted(world: World, prefix: str) -> None:
    ship(world, ORDER, minutes=4)
    world.put(f"{prefix}{ORDER}-{1:012x}.pdf", order_id=str(ORDER))

    assert count(world) == 0


@pytest.mark.parametrize("minutes", [0.5, 90])
def test_an_order_that_is_too_young_or_too_old_is_not_counted(world: World, minutes: float) -> None:
    ship(world, 5000, minutes=minutes)

    assert count(world) == 0


def test_a_label_whose_order_cannot_be_told_leaves_the_number_open(world: World) -> None:
    ship(world, 5000, minutes=4)
    world.put("ready/label.pdf")

    assert count(world) is None


def test_while_labels_get_in_nobody_is_asked(world: World) -> None:
    world.count(FAILED, "reason", {"bad_credentials": [5.0] * 3})
    world.count("fulfillment_artifacts_arrived_total", "kind", {"label": [10.0, 15.0, 20.0]})
    ship(world, 5000, minutes=4)
    inv = world.open(detection)
    inv.read_step("2.1")

    assert inv.read_step("2.3").order_ids == ()
