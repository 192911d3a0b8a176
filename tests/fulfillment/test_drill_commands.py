"""Every scenario in one go, and what a killed drill left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fulfillment import commands, drills
from fulfillment.change.exercises import (
    REVERT_COMMAND,
    DrillError,
    find_open_drill,
    get_drill_id,
)
from fulfillment.commands import drill_all, drill_one, revert_killed_drill
from fulfillment.drills import Scenario
from runbook_lib.model import keep_quiet
from runbook_lib.record.incident import Incident, list_incidents
from runbook_lib.redact import Redactor
from tests.support.stories import PausedPipeline, make_world
from tests.support.world import World

if TYPE_CHECKING:
    from fulfillment.drills import Drill


@dataclass(frozen=True)
class Broken(PausedPipeline):
    name: str = "bad_prefix"

    def inject(self, drill: Drill) -> None:
        raise DrillError(f"{drill.scenario.name} cannot be injected")


@dataclass(frozen=True)
class Stays(PausedPipeline):
    name: str = "carrier_errors"

    def inject(self, drill: Drill) -> None:
        super().inject(drill)
        raise DrillError(f"{drill.scenario.name} was injected halfway")

    def revert(self, drill: Drill) -> None:
        raise DrillError(f"{drill.scenario.name} stays")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = make_world(tmp_path, monkeypatch)
    world.settings = world.settings.model_copy(update={"runbook_services": "supervisor"})
    return world


def offer(monkeypatch: pytest.MonkeyPatch, *scenarios: Scenario) -> None:
    known = {scenario.name: scenario for scenario in scenarios}
    monkeypatch.setattr(commands, "list_scenarios", lambda: known)
    monkeypatch.setattr(drills, "list_scenarios", lambda: known)


def test_all_drills_run_each_to_its_score_though_one_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, Broken(world=world), PausedPipeline(world=world))
    said: list[str] = []

    def say(words: str, _done: int = 0, _total: int = 0, /) -> None:
        said.append(words)

    document = drill_all(world.settings, progress=say)
    ends = [(row["scenario"], row["end"]) for row in document.rows]
    assert ends == [("bad_prefix", "FAILED"), ("pipeline_paused", "passed")]
    assert document.exit_code == 3
    assert [drill.scenario for drill in document.drills] == ["bad_prefix", "pipeline_paused"]
    assert "2 of 2 pipeline_paused" in said
    assert len(list(list_incidents(world.home))) == 2
    assert not world.dag.is_paused


def find_drill(world: World) -> Incident | None:
    return find_open_drill(world.home, redactor=Redactor())


def test_a_fault_that_cannot_be_taken_back_stays_noted_and_its_incident_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, Stays(world=world))
    document = drill_one(world.settings, Stays(world=world), progress=keep_quiet)
    assert (document.reverted, document.commands) == (False, (REVERT_COMMAND,))
    incident = find_drill(world)
    assert incident is not None
    offer(monkeypatch, replace(PausedPipeline(world=world), name="carrier_errors"))
    back = revert_killed_drill(world.settings, progress=keep_quiet)
    assert (back.drill, back.reverted) == (get_drill_id(incident), True)
    assert not world.dag.is_paused
    assert incident.is_closed
    assert (incident.folder / "report.html").exists()
    assert find_drill(world) is None
    again = revert_killed_drill(world.settings, progress=keep_quiet)
    assert (again.drill, again.exit_code) == ("", 0)
