"""What keeps a drill from beginning: the interlock, and DRILL_HOURS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fulfillment.drill_guard import check_interlock
from fulfillment.drill_hours import parse_drill_hours
from fulfillment.drills import run_drill
from fulfillment.settings import Settings
from objectmove.state import STATE, BucketState, Lock
from runbook_lib.errors import SafetyError, SettingsError
from runbook_lib.model import keep_quiet
from tests.support.stories import PausedPipeline, make_world, pause_pipeline
from tests.support.world import FakeClients, World

MONDAY_NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "at", "holds"),
    [
        ("Mon-Fri 09:00-17:00", "Mon 09:00", True),
        ("Mon-Fri 09:00-17:00", "Fri 16:59", True),
        ("Mon-Fri 09:00-17:00", "Fri 17:00", False),
        ("Mon-Fri 09:00-17:00", "Tue 08:59", False),
        ("Mon-Fri 09:00-17:00", "Sat 12:00", False),
        ("Wed 00:00-23:59", "Wed 12:00", True),
        ("Wed 00:00-23:59", "Thu 12:00", False),
        ("Sat-Mon 10:00-11:00", "Sun 10:30", True),
        ("Sat-Mon 10:00-11:00", "Tue 10:30", False),
    ],
)
def test_drill_hours_hold_on_their_days_from_start_to_end(hours: str, at: str, holds: bool) -> None:
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    name, clock = at.split()
    day = 23 + days.index(name)  # Monday is 23 November 2026
    parsed = parse_drill_hours(hours)
    assert parsed is not None
    assert parsed.contains(datetime.fromisoformat(f"2026-11-{day}T{clock}")) is holds


def test_empty_drill_hours_are_any_time() -> None:
    assert parse_drill_hours("") is None


@pytest.mark.parametrize(
    "hours",
    ["always", "Mon-Fri", "09:00-17:00", "Mon-Fri 17:00-09:00", "Mon-Fri 9-17", "Mo 09:00-24:00"],
)
def test_bad_drill_hours_are_a_settings_error_that_names_the_setting(
    monkeypatch: pytest.MonkeyPatch, hours: str
) -> None:
    monkeypatch.setenv("DRILL_HOURS", hours)
    with pytest.raises(SettingsError, match=r"DRILL_HOURS.*Mon-Fri 09:00-17:00"):
        Settings.load()


def be_outside_the_hours(world: World) -> None:
    local = world.now.astimezone()
    other_day = ("Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Mon")[local.weekday()]
    hours = f"{other_day} 00:00-23:59"
    world.settings = world.settings.model_copy(update={"drill_hours": hours})


def take_the_lock(world: World) -> None:
    lock = Lock(token="one", plan="rel-7", by="ops", host="box", lease_s=60)
    world.put(STATE, BucketState(id="0" * 32, format="objectmove/state/1", lock=lock).encode())


def let_an_alert_be_pending(world: World) -> None:
    world.fire("FulfillmentUploadFailing")
    world.alerts = [replace(alert, state="pending") for alert in world.alerts]


AGAINST: dict[str, Callable[[World], Any]] = {
    "FulfillmentDelay fires": lambda world: world.fire(),
    "FulfillmentUploadFailing is pending": let_an_alert_be_pending,
    "1 real label waits": lambda world: world.put_label(25),
    "ops on box carries out rel-7": take_the_lock,
    "outside DRILL_HOURS": be_outside_the_hours,
    "the store does not say that it is well": lambda world: world.down.add("store"),
    "it cannot be seen": lambda world: world.down.add("prometheus"),
}


@pytest.mark.parametrize("reason", AGAINST)
def test_the_interlock_refuses_with_the_reason(tmp_path: Path, reason: str) -> None:
    world = World(tmp_path)
    clients: Any = FakeClients(world)
    check_interlock(world.settings, clients, now=world.now)
    AGAINST[reason](world)
    with pytest.raises(SafetyError, match=reason):
        check_interlock(world.settings, clients, now=world.now)


def test_every_reason_is_named_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.fire()
    world.put_label(25)
    clients: Any = FakeClients(world)
    with pytest.raises(SafetyError, match=r"FulfillmentDelay fires; .*1 real label waits"):
        check_interlock(world.settings, clients, now=world.now)


def test_an_alert_about_something_else_and_a_lapsed_lock_keep_no_drill(tmp_path: Path) -> None:
    world = World(tmp_path)
    take_the_lock(world)
    world.sleep(66)
    world.fire("FulfillmentDrillOverdue")
    clients: Any = FakeClients(world)
    check_interlock(world.settings, clients, now=world.now)


def test_a_drill_that_the_interlock_refuses_injects_nothing_and_leaves_no_incident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path, monkeypatch)
    pause_pipeline(world)
    before = dict(world.store.objects)
    with pytest.raises(SafetyError, match="FulfillmentDelay fires"):
        run_drill(world.settings, PausedPipeline(world=world), progress=keep_quiet)
    assert world.store.objects == before
    assert list(world.home.glob("inc-*")) == []
    assert not (world.home / ".drill.json").exists()


def test_an_alert_that_stays_pending_refuses_a_drill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path, monkeypatch)
    let_an_alert_be_pending(world)
    before = world.now
    with pytest.raises(SafetyError, match="FulfillmentUploadFailing is pending"):
        run_drill(world.settings, PausedPipeline(world=world), progress=keep_quiet)
    assert world.now > before
