"""An incident is one episode of trouble: when it opens, whom it adopts, when it closes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fulfillment.commands import ReleaseCommands
from fulfillment.investigation import Investigation
from fulfillment.sections import SECTIONS, detection
from runbook_lib.errors import (
    ExitCode,
    NotConnectedError,
    UsageError,
    exit_code_of_error,
)
from runbook_lib.model import Verdict
from runbook_lib.record.incident import Incident
from runbook_lib.redact import Redactor
from runbook_lib.report import ReportModel
from runbook_lib.run import commands
from runbook_lib.run.commands import investigate
from runbook_lib.run.documents import Document
from tests.support.incidents import damage_journal
from tests.support.stories import make_world, pause_pipeline
from tests.support.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(tmp_path, monkeypatch)


def look(world: World, incident_id: str = "") -> Document:
    return investigate(world.settings, SECTIONS, incident_id=incident_id)


def open_(world: World, document: Document) -> Incident:
    return Incident(world.home / str(document.incident), redactor=Redactor())


def run(world: World, *sections: str) -> Document:
    return commands.run(world.settings, SECTIONS, sections)


def get(document: Document, name: str) -> Any:
    """Return a field that only some documents about a plan have."""
    return (document.model_extra or {})[name]


def plan_by_hand(world: World) -> Document:
    return ReleaseCommands(world.settings).plan()


def apply(world: World, plan: Document, **how: Any) -> Document:
    approve = get(plan, "sha256")
    return ReleaseCommands(world.settings).apply(plan.plan, approve=approve, **how)


def show_undo(world: World, plan: Document) -> Document:
    return ReleaseCommands(world.settings).undo(plan.plan)


def undo(world: World, plan: Document, approve: str) -> Document:
    commands_ = ReleaseCommands(world.settings)
    return commands_.undo(plan.plan, approve=approve, consumer_stands_still="now")


def recover(world: World) -> None:
    world.dag = replace(world.dag, is_paused=False)
    for key in [key for key in world.store.objects if key.startswith("pending/")]:
        del world.store.objects[key]
    world.alerts.clear()
    world.routed.clear()
    world.put_lag(0.0, 0.0, 0.0)


def list_open(world: World) -> list[str]:
    return [row.incident for row in commands.incidents(world.settings).incidents if row.is_open]


def read_record(world: World, incident: str) -> dict[str, bytes]:
    names = ("journal.jsonl", "report.html", "manifest.json")
    return {name: (world.home / incident / name).read_bytes() for name in names}


def test_a_run_that_finds_nothing_wrong_leaves_no_open_incident(world: World) -> None:
    assert look(world).verdict is Verdict.HEALTHY
    run(world, "02", "06")
    plan_by_hand(world)
    assert commands.incidents(world.settings).incidents == []


def test_the_next_episode_closes_the_incident_and_does_not_write_into_it(world: World) -> None:
    pause_pipeline(world)
    first = look(world)
    world.now += timedelta(minutes=1)
    recover(world)
    look(world)
    world.now += timedelta(hours=1)
    pause_pipeline(world)
    second = look(world)

    old = open_(world, first)
    assert second.incident != first.incident
    assert list_open(world) == [second.incident]
    assert old.journal.view().marks[-1].what == "closed"
    marks = [mark.what for mark in open_(world, second).journal.view().marks]
    assert "took_over" in marks
    for report, other in ((old, second.incident), (open_(world, second), old.id)):
        assert f"../{other}/report.html" in (report.folder / "report.html").read_text("utf-8")
    assert second.incident in ReportModel(old, SECTIONS).neighbours
    before = read_record(world, old.id)
    look(world)
    assert read_record(world, old.id) == before


def test_an_alert_that_fires_again_after_a_short_calm_is_the_same_episode(world: World) -> None:
    pause_pipeline(world)
    first = look(world)
    world.now += timedelta(minutes=1)
    recover(world)
    look(world)
    world.now += timedelta(minutes=4)
    pause_pipeline(world)
    world.put_lag(0.0, *[12.0] * 12)
    assert look(world).incident == first.incident


def test_a_closed_incident_is_never_reopened(world: World) -> None:
    pause_pipeline(world)
    first = look(world)
    closed = commands.close(world.settings, SECTIONS, str(first.incident))
    assert (closed.exit_code, closed.verdict) == (ExitCode.NOT_OK, Verdict.INCIDENT)
    before = read_record(world, str(first.incident))
    with pytest.raises(UsageError, match="closed"):
        commands.close(world.settings, SECTIONS, str(first.incident))
    with pytest.raises(UsageError, match="is closed"):
        look(world, str(first.incident))
    with pytest.raises(UsageError, match="is closed"):
        commands.run(world.settings, SECTIONS, ["02"], incident_id=str(first.incident))
    second = look(world)
    assert second.incident != first.incident
    assert read_record(world, str(first.incident)) == before


def release_and_close(world: World) -> Document:
    pause_pipeline(world)
    plan = plan_by_hand(world)
    apply(world, plan)
    recover(world)
    commands.close(world.settings, SECTIONS, str(plan.incident))
    return plan


def test_a_change_by_a_plan_of_a_closed_incident_opens_one(world: World) -> None:
    plan = release_and_close(world)
    before = read_record(world, str(plan.incident))
    back = show_undo(world, plan)
    new = open_(world, undo(world, plan, get(back, "sha256")))
    assert list_open(world) == [new.id]
    assert {action.phase for action in new.journal.view().actions} > {"approved", "applied"}
    old = world.home / str(plan.incident)
    assert (old / "ledger" / f"{back.plan}.jsonl").is_file()
    assert read_record(world, str(plan.incident)) == before


def test_not_connected_is_one_sentence_and_nothing_is_written(world: World) -> None:
    world.down |= {"store", "prometheus", "alertmanager", "fulfillment", "support", "pipeline"}
    world.down |= {"grafana", "probe", "notifications"}
    before = list(world.home.rglob("*"))
    attempts: list[Callable[[], object]] = [
        lambda: look(world),
        lambda: run(world, "02"),
        lambda: Investigation.open(section=detection, settings=world.settings),
    ]
    for attempt in attempts:
        with pytest.raises(NotConnectedError) as caught:
            attempt()
        assert exit_code_of_error(caught.type) is ExitCode.UNKNOWN
        assert "\n" not in str(caught.value)
    assert list(world.home.rglob("*")) == before


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return what an incident's folder holds, but for locks and what belongs to its plans."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    kept = (path for path in files if path.parent.name not in ("plans", "ledger"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def list_damages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if "damaged" in record.message]


def test_a_damaged_journal_stays_as_it_is_and_a_new_incident_takes_its_place(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    pause_pipeline(world)
    old = str(look(world).incident)
    damage_journal(world.home / old)
    before = read_folder(world.home / old)

    new = str(look(world).incident)
    assert plan_by_hand(world).incident == look(world).incident == new != old
    sentence = list_damages(caplog)[0]
    assert f"{old}/journal.jsonl, line 3: " in sentence
    assert read_folder(world.home / old) == before

    assert list_open(world) == [new]
    document = commands.incidents(world.settings, show_all=True)
    rows = {row.incident: row.damage for row in document.incidents}
    assert f"{old}/journal.jsonl, line 3: " in rows.pop(old)
    assert rows == {new: ""}


def test_a_plan_can_begin_a_new_incident(world: World) -> None:
    commands = ReleaseCommands(world.settings)
    first = commands.plan(incident_id="new")
    assert commands.plan(incident_id="new").incident != first.incident
