"""What a drill makes, and what is left of one that was interrupted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fulfillment import drills as module
from fulfillment.analysis.artifacts import is_synthetic
from fulfillment.drills import find_scenario, run_drill
from objectmove.errors import InterruptedMoveError
from objectmove.run import Run
from runbook_lib.errors import RunInterruptedError
from runbook_lib.model import keep_quiet
from runbook_lib.record.incident import Incident, list_incidents
from runbook_lib.redact import Redactor
from runbook_lib.run import notebooks
from tests.support.stories import PausedPipeline, make_world
from tests.support.world import FakeClients, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a demo DataFlow: a marked bucket, services by compose, and no stack of ours."""
    world = World(tmp_path)
    monkeypatch.setattr(module, "Clients", lambda _: FakeClients(world))
    world.settings = world.settings.model_copy(update={"runbook_services": "compose"})
    return world


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


_CUT_OFF = "Interrupted after 1 files. Carry on with: runbook resume rel-1"


def test_a_drill_whose_plans_could_not_be_made_approves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path, monkeypatch)
    execute = notebooks._execute

    def fail_in_remediation(source: Path, *more: Any) -> notebooks.Failure | None:
        if "06" in source.name:
            return notebooks.Failure("it broke", "ValueError")
        return execute(source, *more)

    monkeypatch.setattr(notebooks, "_execute", fail_in_remediation)
    document = run_drill(world.settings, PausedPipeline(world=world), progress=keep_quiet)
    (unmet,) = [o for o in document.objectives if o["name"] == "no notebook fails"]
    assert not unmet["met"]
    (folder,) = list_incidents(world.home)
    journal = Incident(folder, redactor=Redactor()).journal.view()
    events = [mark.what for mark in journal.marks]
    assert "drill_inject" in events
    assert "approved" not in {action.phase for action in journal.actions}
    assert not world.dag.is_paused


def interrupt_the_release(patch: pytest.MonkeyPatch) -> None:
    def carry_out(_run: Run, _verb: str, _approve: str) -> None:
        raise InterruptedMoveError(moved=1, way_on="resume rel-1")

    patch.setattr(Run, "carry_out", carry_out)


_REVERTED = "Interrupted. The drill's fault is reverted."


def test_an_interrupted_drill_takes_its_fault_back_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path, monkeypatch)
    interrupt_the_release(monkeypatch)
    with pytest.raises(RunInterruptedError) as caught:
        run_drill(world.settings, PausedPipeline(world=world), progress=keep_quiet)
    assert str(caught.value) == f"{_REVERTED} {_CUT_OFF}"
    assert not world.dag.is_paused
    (folder,) = list_incidents(world.home)
    incident = Incident(folder, redactor=Redactor())
    events = [mark.what for mark in incident.journal.view().marks]
    assert events.count("drill_failed") == 1
    assert incident.is_closed
    assert "interrupted" in (folder / "report.html").read_text("utf-8").lower()
