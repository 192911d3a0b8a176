"""What keeps a drill from beginning: the interlock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fulfillment.drills import list_trouble, run_drill
from runbook_lib.errors import EnvironmentForbidsError, SafetyError
from runbook_lib.model import keep_quiet
from tests.support.stories import PausedPipeline, make_world, pause_pipeline
from tests.support.world import FakeClients, World


def let_an_alert_be_pending(world: World) -> None:
    world.fire("FulfillmentUploadFailing")
    world.alerts = [replace(alert, state="pending") for alert in world.alerts]


AGAINST: dict[str, Callable[[World], Any]] = {
    "FulfillmentDelay is firing": lambda world: world.fire(),
    "FulfillmentUploadFailing is pending": let_an_alert_be_pending,
    "1 overdue real label": lambda world: world.put_label(25),
    "the store does not say that it is healthy": lambda world: world.down.add("store"),
    "cannot be read": lambda world: world.down.add("prometheus"),
}


@pytest.mark.parametrize("reason", AGAINST)
def test_what_keeps_a_drill_from_beginning_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    world = make_world(tmp_path, monkeypatch)
    clients: Any = FakeClients(world)
    assert list_trouble(world.settings, clients) == []
    AGAINST[reason](world)
    (trouble,) = list_trouble(world.settings, clients)
    assert reason in trouble


def test_a_drill_that_the_interlock_refuses_injects_nothing_and_leaves_no_incident(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path, monkeypatch)
    pause_pipeline(world)
    before = dict(world.store.objects)
    with pytest.raises(SafetyError, match=r"FulfillmentDelay is firing; .*3 overdue real labels"):
        run_drill(world.settings, PausedPipeline(world=world), progress=keep_quiet)
    assert world.store.objects == before
    assert list(world.home.glob("inc-*")) == []


def test_no_drill_begins_in_production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path, monkeypatch)
    settings = world.settings.model_copy(update={"runbook_environment": "production"})
    with pytest.raises(EnvironmentForbidsError):
        run_drill(settings, PausedPipeline(world=world), progress=keep_quiet)
    assert list(world.home.glob("inc-*")) == []
