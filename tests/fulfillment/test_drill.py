"""Which drills run where, and how long they wait there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fulfillment import drills as module
from fulfillment.analysis.artifacts import is_synthetic
from fulfillment.change.drill_record import DrillError
from fulfillment.drills import Drill, find_scenario, run_drill
from fulfillment.sections import SECTIONS
from objectmove.errors import InterruptedMoveError
from objectmove.run import Run
from runbook_lib.errors import RunInterruptedError
from runbook_lib.investigation import make_incident
from runbook_lib.model import keep_quiet
from runbook_lib.record.detection import list_triggers
from runbook_lib.record.incident import Incident, list_incidents
from runbook_lib.redact import Redactor
from runbook_lib.run import notebooks
from runbook_lib.run.commands import investigate
from tests.support.stories import PausedPipeline, make_world
from tests.support.world import FakeClients, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a demo DataFlow: a marked bucket, services by compose, and no stack of ours."""
    world = World(tmp_path)
    monkeypatch.setattr(module, "Clients", lambda _: FakeClients(world))
    world.settings = world.settings.model_copy(update={"runbook_services": "compose"})
    return world


def test_a_drill_that_needs_our_own_stack_says_so_and_what_runs_instead(world: World) -> None:
    with pytest.raises(DrillError, match="drill synthetic"):
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
    world.rules = [
        replace(r, for_s=300.0, keep_firing_for_s=90.0, group_interval_s=15.0) for r in world.rules
    ]
    fitted = module._add_waits(FakeClients(world), scenario)  # type: ignore[arg-type]
    assert fitted.detect_timeout_s == scenario.detect_timeout_s + 300 + 60
    assert fitted.notify_timeout_s == scenario.notify_timeout_s + 30
    assert fitted.clear_timeout_s == scenario.clear_timeout_s + 90 + 300 + 60
    world.down |= {"prometheus", "alertmanager"}
    assert module._add_waits(FakeClients(world), scenario) == scenario  # type: ignore[arg-type]


def test_trouble_that_is_over_does_not_keep_a_drill_from_its_steady_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path, monkeypatch)
    clients: Any = FakeClients(world)
    incident = make_incident(world.settings, exercise="synthetic", approver="drill:d1")
    drill = Drill(world.settings, clients, find_scenario("synthetic"), keep_quiet, incident)
    world.fire()
    assert not drill.is_well()
    world.alerts.clear()
    world.routed.clear()
    assert drill.is_well()


@dataclass(frozen=True)
class SeenByServe(PausedPipeline):
    """A drill whose alert ``runbook serve`` answers, too: it looks, as soon as the alert fires."""

    def inject(self, drill: Drill) -> None:
        super().inject(drill)
        investigate(self.world.settings, SECTIONS)


def test_what_serve_opened_for_a_drills_alert_ends_as_the_drill_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(tmp_path, monkeypatch)
    document = run_drill(world.settings, SeenByServe(world=world), progress=keep_quiet)
    folders = list(list_incidents(world.home))
    states = [Incident(folder, redactor=Redactor()).state for folder in folders]
    assert [state.verdict for state in states] == [document.verdict, document.verdict]
    assert all(state.closed_at and state.exercise for state in states)
    (seen,) = [folder for folder in folders if folder.name != document.incident]
    report = (seen / "report.html").read_text("utf-8")
    assert f"../{document.incident}/report.html" in report
    summary = (seen / "summary.txt").read_text("utf-8")
    assert "Fixed" in summary
    assert "[DRILL] " in summary
    assert document.incident in summary
    for folder in folders:
        journal = Incident(folder, redactor=Redactor()).journal.view()
        assert document.incident in list_triggers(journal)[0].text


# --- Ctrl-C ---


_CUT_OFF = "Interrupted after 1 files. Go on with: runbook resume rel-1"


def interrupt(*_: object) -> Any:
    raise KeyboardInterrupt


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
    (unmet,) = [o for o in document.objectives if o.name == "no notebook fails"]
    assert not unmet.met
    (folder,) = list_incidents(world.home)
    journal = Incident(folder, redactor=Redactor()).journal.view()
    events = [mark.what for mark in journal.marks]
    assert "drill_inject" in events
    assert "approved" not in {action.phase for action in journal.actions}
    assert not world.dag.is_paused


def interrupt_in_detection(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(notebooks, "_execute", interrupt)


def interrupt_the_release(patch: pytest.MonkeyPatch) -> None:
    def carry_out(_run: Run, _verb: str, _approve: str) -> None:
        raise InterruptedMoveError(moved=1, way_on="resume rel-1", is_held=False)

    patch.setattr(Run, "carry_out", carry_out)


def interrupt_the_revert(patch: pytest.MonkeyPatch) -> None:
    revert = PausedPipeline.revert

    def revert_and_go_on(scenario: PausedPipeline, drill: Drill) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        revert(scenario, drill)

    patch.setattr(PausedPipeline, "revert", revert_and_go_on)


def interrupt_the_wait_for_the_steady_state(patch: pytest.MonkeyPatch) -> None:
    wait = Drill.is_well

    def wait_at_the_beginning(drill: Drill) -> bool:
        return interrupt() if drill.injected_at else wait(drill)

    patch.setattr(Drill, "is_well", wait_at_the_beginning)


def interrupt_before_anything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Drill, "is_well", interrupt)


_REVERTED = "Interrupted. The drill's fault is taken back."


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (interrupt_in_detection, _REVERTED),
        (interrupt_the_release, f"{_REVERTED} {_CUT_OFF}"),
        (interrupt_the_revert, _REVERTED),
        (interrupt_the_wait_for_the_steady_state, _REVERTED),
        (interrupt_before_anything, "Interrupted. Nothing was injected."),
    ],
)
def test_an_interrupted_drill_takes_its_fault_back_and_says_so_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[pytest.MonkeyPatch], None],
    sentence: str,
) -> None:
    world = make_world(tmp_path, monkeypatch)
    spoil(monkeypatch)
    with pytest.raises(RunInterruptedError) as caught:
        run_drill(world.settings, PausedPipeline(world=world), progress=keep_quiet)
    assert str(caught.value) == sentence
    assert not world.dag.is_paused
    (folder,) = list_incidents(world.home)
    incident = Incident(folder, redactor=Redactor())
    events = [mark.what for mark in incident.journal.view().marks]
    assert events.count("drill_failed") == 1
    assert incident.is_closed
    assert "interrupted" in (folder / "report.html").read_text("utf-8").lower()


def test_an_exercise_leaves_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path, monkeypatch)
    scenario = PausedPipeline(world=world, exercise_steps=("4.1", "4.2"))
    assert run_drill(world.settings, scenario, progress=keep_quiet).missed == ()
    assert not [key for key in world.store.objects if key.startswith("chaos/")]
