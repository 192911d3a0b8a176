"""`runbook fix`: one action at a time, each approved by its hash, until the incident is fixed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fulfillment.commands import fix
from fulfillment.sections import SECTIONS, remediation
from runbook_lib.errors import ExitCode, SafetyError
from runbook_lib.model import ActionPhase, Verdict
from runbook_lib.run.commands import investigate
from runbook_lib.run.documents import Document
from tests.support.stories import make_world, pause_pipeline
from tests.support.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(tmp_path, monkeypatch)


def approve(world: World, shown: Document) -> Document:
    assert shown.exit_code is ExitCode.REFUSED
    assert shown.action
    short = shown.action["sha256"][:12]
    assert shown.next == f"runbook fix --approve {short}"
    return fix(world.settings, approve=short)


def test_each_approval_carries_one_action_out_until_the_incident_is_fixed(world: World) -> None:
    pause_pipeline(world)
    seen = investigate(world.settings, SECTIONS)
    assert seen.next == "runbook fix"
    first = fix(world.settings)
    assert first.incident == seen.incident
    assert first.action
    assert first.action["verb"] == "release"
    assert first.done == ()
    document = json.loads(first.to_json())
    names = {"schema", "at", "incident", "verdict", "exit_code", "action", "done", "next"}
    assert names <= document.keys()
    assert {"verb", "plan", "sha256"} <= document["action"].keys()
    assert any(key.startswith("pending/") for key in world.store.objects)

    world.put_label(25, 9)  # one more arrives
    last = approve(world, first)
    assert world.dag.is_paused
    done = [*last.done]
    while last.action:
        last = approve(world, last)
        done += last.done
    assert {each["status"] for each in done} == {"verified"}
    assert [each["verb"] for each in done] == ["release", "unpause", "retrigger", "release"]
    assert not world.dag.is_paused
    world.now += timedelta(minutes=2)
    last = fix(world.settings)
    assert (last.verdict, last.exit_code, last.action) == (Verdict.FIXED, ExitCode.OK, None)
    assert last.next == "runbook run 07"
    journal = (world.home / str(last.incident) / "journal.jsonl").read_text("utf-8")
    assert "08_references" in journal


def test_a_move_that_was_cut_off_here_is_resumed_although_the_bucket_is_well(world: World) -> None:
    pause_pipeline(world)
    inv = world.open(remediation, way="release")
    plan = inv.plan("6.1")
    inv._write_phase(plan, ActionPhase.APPROVED)  # killed; another machine finished it
    world.store.objects.clear()
    world.dag = replace(world.dag, is_paused=False)
    assert fix(world.settings).next == f"runbook resume {plan.id}"


def test_where_all_is_well_there_is_nothing_to_do(world: World) -> None:
    healthy = fix(world.settings)
    assert (healthy.verdict, healthy.exit_code) == (Verdict.HEALTHY, ExitCode.OK)
    assert healthy.action is None


def test_a_hash_of_no_plan_is_refused_and_nothing_runs(world: World) -> None:
    pause_pipeline(world)
    shown = fix(world.settings)
    before = dict(world.store.objects)
    for typed in ("0" * 12, str(shown.next)[-11:]):
        with pytest.raises(SafetyError, match="runbook fix"):
            fix(world.settings, approve=typed)
    assert world.store.objects == before


def test_a_plan_that_is_too_old_is_refused_and_planned_again(world: World) -> None:
    pause_pipeline(world)
    shown = fix(world.settings)
    world.now += timedelta(minutes=20)
    refused = approve(world, shown)
    assert refused.exit_code is ExitCode.REFUSED
    assert refused.action is None
    assert refused.next == "runbook fix"
    again = fix(world.settings)
    assert again.action
    assert again.action["sha256"] != str(shown.action and shown.action["sha256"])
