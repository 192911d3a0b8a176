"""Which drills run where, and how long they wait there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fulfillment import drills as module
from fulfillment.analysis.artifacts import is_synthetic
from fulfillment.commands import Phases
from fulfillment.drills import Scorecard, compute_objectives, find_scenario, run_drill
from runbook_lib.errors import DrillError
from runbook_lib.model import keep_quiet
from tests.support.world import FakeClients, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a demo DataFlow: a marked bucket, services by compose, and no stack of ours."""
    world = World(tmp_path)
    monkeypatch.setattr(module, "Clients", lambda _: FakeClients(world))
    world.settings = world.settings.model_copy(update={"runbook_services": "compose"})
    return world


def test_a_drill_that_needs_our_own_stack_says_so_and_what_runs_instead(world: World) -> None:
    with pytest.raises(DrillError, match=r"our own stack.*--scenario synthetic"):
        run_drill(world.settings, find_scenario("pipeline_paused"), progress=keep_quiet)
    assert find_scenario("synthetic").needs == ""
    assert world.calls == []


def test_the_synthetic_drill_makes_labels_of_its_own_and_removes_them_alone(world: World) -> None:
    scenario, other = find_scenario("synthetic"), "chaos/fulfillment-delay/other.pdf"
    world.put(other, chaos_scenario="fulfillment-delay", drill_id="d-other")
    drill: Any = SimpleNamespace(
        id="d-1", settings=world.settings, clients=FakeClients(world), order_ids=set()
    )
    scenario.inject(drill)
    made = [k for k in world.store.objects if k.startswith("chaos/") and k != other]
    assert len(made) == 25
    assert all(is_synthetic(world.store.read_info(key).metadata or {}) for key in made)
    scenario.revert(drill)
    assert [k for k in world.store.objects if k.startswith("chaos/")] == [other]


def test_time_outs_hold_the_waits_of_the_rules_and_routes_there(world: World) -> None:
    scenario = find_scenario("synthetic")
    world.rules = [replace(r, for_s=300.0, group_interval_s=15.0) for r in world.rules]
    fitted = module._fit_times(FakeClients(world), scenario)  # type: ignore[arg-type]
    assert fitted.detect_timeout_s == scenario.detect_timeout_s + 300 + 60
    assert fitted.notify_timeout_s == scenario.notify_timeout_s + 30
    assert fitted.clear_timeout_s == scenario.clear_timeout_s + 300 + 60
    world.down |= {"prometheus", "alertmanager"}
    assert module._fit_times(FakeClients(world), scenario) == scenario  # type: ignore[arg-type]


def test_without_a_sink_nothing_is_scored_on_what_the_receivers_got() -> None:
    scenario, card = (
        find_scenario("synthetic"),
        Scorecard(Phases(detect_s=1.0, clear_s=1.0), is_told=False),
    )
    names = [o.name for o in compute_objectives(card, scenario)]
    assert names[:2] == ["alert fires", "alert clears"]
    assert not [name for name in names if "channel" in name]
