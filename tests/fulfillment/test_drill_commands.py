"""Every scenario in one go, and what a killed drill left."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fulfillment import cli, drill_commands, drills
from fulfillment.change.drill_record import (
    REVERT_COMMAND,
    DrillError,
    find_killed_drill,
    find_open_drill,
    get_drill_id,
    lock_drills,
)
from fulfillment.commands import check
from fulfillment.drill_commands import drill_all, drill_one, revert_killed_drill, revert_until
from fulfillment.drills import Scenario
from fulfillment.sections import SECTIONS
from objectmove.errors import StoreError
from runbook_lib.errors import (
    RunInterruptedError,
    SafetyError,
    UsageError,
)
from runbook_lib.investigation import make_incident
from runbook_lib.model import keep_quiet
from runbook_lib.record.incident import Incident, list_incidents
from runbook_lib.redact import Redactor
from runbook_lib.run.commands import investigate
from tests.support.stories import PausedPipeline, make_world, pause_pipeline
from tests.support.world import World

if TYPE_CHECKING:
    from fulfillment.drills import Drill


@dataclass(frozen=True)
class Broken(PausedPipeline):
    """A scenario whose fault cannot be caused."""

    cause_expected: str = "bad_prefix"

    def inject(self, drill: Drill) -> None:
        raise DrillError(f"{drill.scenario.name} cannot be injected")


@dataclass(frozen=True)
class Stays(PausedPipeline):
    """A scenario whose fault cannot be taken back, and that gets no further."""

    cause_expected: str = "carrier_errors"

    def inject(self, drill: Drill) -> None:
        raise DrillError(f"{drill.scenario.name} was injected halfway")

    def revert(self, drill: Drill) -> None:
        raise DrillError(f"{drill.scenario.name} stays")


@dataclass(frozen=True)
class Interrupted(PausedPipeline):
    """A scenario in which somebody presses Ctrl-C."""

    cause_expected: str = "surge"

    def inject(self, drill: Drill) -> None:  # noqa: ARG002
        pause_pipeline(self.world)
        raise KeyboardInterrupt


@dataclass(frozen=True)
class InterruptedTwice(Interrupted):
    """A scenario in which somebody presses Ctrl-C twice more while the fault is taken back."""

    cause_expected: str = "pipeline_failing"

    def revert(self, drill: Drill) -> None:  # noqa: ARG002
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a world with our own stack's services, in which drills can be carried out."""
    world = make_world(tmp_path, monkeypatch)
    world.settings = world.settings.model_copy(update={"runbook_services": "supervisor"})
    return world


def offer(monkeypatch: pytest.MonkeyPatch, *scenarios: Scenario) -> None:
    """Let these be all the scenarios that there are."""
    known = {scenario.name: scenario for scenario in scenarios}
    monkeypatch.setattr(drill_commands, "list_scenarios", lambda: known)
    monkeypatch.setattr(drills, "list_scenarios", lambda: known)


def test_all_drills_run_each_to_its_score_though_one_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, Broken(world=world), PausedPipeline(world=world))
    said: list[str] = []

    def say(words: str, _done: int = 0, _total: int = 0, /) -> None:
        said.append(words)

    document = drill_all(world.settings, progress=say)
    rows = {row.scenario: row for row in document.rows}
    assert list(rows) == ["bad_prefix", "pipeline_paused"]
    assert (rows["bad_prefix"].end, rows["pipeline_paused"].end) == ("FAILED", "passed")
    assert document.exit_code == 3
    assert [drill.scenario for drill in document.drills] == ["bad_prefix", "pipeline_paused"]
    assert "2 of 2 pipeline_paused" in said
    assert len(list(list_incidents(world.home))) == 2
    assert not world.dag.is_paused


def test_all_drills_are_refused_before_the_first_and_leave_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, PausedPipeline(world=world))
    world.fire()
    with pytest.raises(SafetyError):
        drill_all(world.settings, progress=keep_quiet)
    assert list(list_incidents(world.home)) == []


def test_ctrl_c_in_one_of_all_takes_its_fault_back_and_begins_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, PausedPipeline(world=world), Interrupted(world=world), Stays(world=world))
    known = {name: drill_commands.list_scenarios()[name] for name in ("pipeline_paused", "surge")}
    known["zzz"] = Stays(world=world)
    monkeypatch.setattr(drill_commands, "list_scenarios", lambda: known)
    with pytest.raises(RunInterruptedError, match="taken back"):
        drill_all(world.settings, progress=keep_quiet)
    assert not world.dag.is_paused
    assert len(list(list_incidents(world.home))) == 2


def test_a_second_ctrl_c_leaves_the_fault_to_the_watchdog(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, InterruptedTwice(world=world))
    with pytest.raises(KeyboardInterrupt):
        drill_all(world.settings, progress=keep_quiet)
    assert world.dag.is_paused
    assert find_killed_drill(world.home) is not None


def test_drill_takes_one_of_its_options_at_a_time() -> None:
    with pytest.raises(UsageError, match="--all"):
        cli.drill("surge", every=True)
    with pytest.raises(UsageError, match="--revert"):
        cli.drill(every=True, revert=True)


# --- killed ---


class KilledError(BaseException):
    """Ends a drill at once, as kill -9 does: nothing is put back."""


def find_drill(world: World) -> Incident | None:
    return find_open_drill(world.home, redactor=Redactor())


def kill(world: World, monkeypatch: pytest.MonkeyPatch, *, at: str) -> Incident:
    """Kill a drill at a function of the drill's module; return its incident."""
    offer(monkeypatch, PausedPipeline(world=world))

    def die(*_: object) -> Any:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(drills, at, die)
        with pytest.raises(KilledError):
            drill_one(
                world.settings,
                PausedPipeline(world=world),
                progress=keep_quiet,
            )
    incident = find_drill(world)
    assert incident is not None
    return incident


@pytest.mark.parametrize(
    "phase",
    [
        "_wait_long",
        "_wait_for_alert",
        "_wait_for_channels",
        "_approve_and_run",
        "_wait_until_clear",
        "_wait_for_verdict",
    ],
)
def test_a_killed_drill_is_taken_back_at_every_phase(
    world: World, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    incident = kill(world, monkeypatch, at=phase)
    document = revert_killed_drill(world.settings, progress=keep_quiet)
    assert (document.drill, document.reverted) == (get_drill_id(incident), True)
    assert not world.dag.is_paused
    assert find_drill(world) is None
    assert incident.is_closed
    assert (incident.folder / "report.html").exists()
    again = revert_killed_drill(world.settings, progress=keep_quiet)
    assert (again.drill, again.exit_code) == ("", 0)


def test_check_and_investigate_name_a_killed_drill_and_its_command(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident = kill(world, monkeypatch, at="_wait_for_channels")
    checked = check(world.settings)
    assert [row["plan"] for row in checked.unfinished] == [get_drill_id(incident)]
    assert REVERT_COMMAND in checked.commands
    assert REVERT_COMMAND in investigate(world.settings, SECTIONS).unfinished


def test_a_drill_that_is_under_way_is_not_told_as_killed(world: World) -> None:
    make_incident(world.settings, exercise="surge", approver="drill:d1")
    with lock_drills(world.home):
        assert find_killed_drill(world.home) is None
    killed = find_killed_drill(world.home)
    assert killed is not None
    assert (killed["plan"], killed["way_on"]) == ("d1", REVERT_COMMAND)


def test_the_watchdog_tells_what_it_could_not_take_back_when_time_is_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(world, monkeypatch, at="_wait_for_alert")

    def fail(*_: object) -> None:
        raise StoreError("the store went away")

    monkeypatch.setattr(type(drill_commands.GATE), "list_unfinished", fail)
    with pytest.raises(StoreError, match="the store went away"):
        revert_until(world.settings, timeout_s=10, progress=keep_quiet)


def test_the_next_drill_takes_a_killed_one_back_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident = kill(world, monkeypatch, at="_wait_for_alert")
    world.alerts.clear()
    for key in [key for key in world.store.objects if key.startswith("pending/")]:
        del world.store.objects[key]
    world.put_lag(0.0, 0.0)
    drill_one(world.settings, Broken(world=world), progress=keep_quiet)
    assert incident.is_closed
    assert not world.dag.is_paused


def test_a_fault_that_cannot_be_taken_back_stays_noted_and_its_incident_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, Stays(world=world))
    document = drill_one(world.settings, Stays(world=world), progress=keep_quiet)
    assert (document.reverted, document.commands) == (False, (REVERT_COMMAND,))
    incident = find_drill(world)
    assert incident is not None
    offer(monkeypatch, replace(PausedPipeline(world=world), cause_expected="carrier_errors"))
    assert revert_killed_drill(world.settings, progress=keep_quiet).reverted
    assert incident.is_closed
