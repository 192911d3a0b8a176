"""What sections 4 and 6 change, and when they refuse."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fulfillment.change.release import MOVE
from fulfillment.sections import chaos, remediation, root_cause
from objectmove.errors import NotNowError
from runbook_lib.errors import (
    SafetyError,
    StoppedAtPlanError,
    UsageError,
)
from runbook_lib.model import ActionPhase, Status
from tests.support.world import ORDER, World


def keys(world: World, prefix: str) -> list[str]:
    return [k for k in world.store.objects if k.startswith(prefix)]


def test_a_stopped_worker_is_started_then_re_triggered(world: World) -> None:
    world.put_label(25)
    own = world.settings.worker_service
    world.services[own] = replace(world.services[own], running=False, state="STOPPED")
    world.down.add("fulfillment")
    inv = world.open(remediation)
    first, second = remediation.put_in_order(inv.plan("6.1"), inv.plan("6.2"))
    assert [(p.step, p.action) for p in (first, second)] == [("6.2", "start"), ("6.1", "retrigger")]
    told = inv.conclude()
    first_advice, second_advice = told.advice
    assert f"6.2 start {own}" in first_advice
    assert "6.1 " in second_advice
    assert all("runbook fix" in text for text in told.advice)
    assert told.advice == world.open(root_cause).conclude().advice
    inv.apply(first, approve=first.sha256)
    world.down.clear()
    assert inv.verify(first).phase is ActionPhase.VERIFIED
    inv.apply(second, approve=second.sha256)
    assert inv.verify(second).phase is ActionPhase.VERIFIED
    assert world.calls == [f"start {own}", "trigger"]


def test_a_release_is_taken_back_through_the_same_gate(world: World) -> None:
    key = world.put_label(25)
    inv = world.open(remediation, way="release")
    release = inv.plan("6.1")
    inv.apply(release, approve=release.sha256)
    assert keys(world, "pending/") == []
    back = inv.plan("6.1.1", undo=release.id)
    assert (back.action, back.step, back.summary["objects"]) == ("undo", "6.1.1", 1)
    with pytest.raises(StoppedAtPlanError):
        inv.apply(back)
    # an approval of the release is none of its way back
    assert inv.apply(back, approve=release.sha256).phase is ActionPhase.PLANNED
    assert keys(world, "pending/") == []
    again = world.open(remediation, undo=release.id)
    assert again.plan("6.1.1").sha256 == back.sha256
    with pytest.raises(NotNowError, match="consumer-stands-still"):
        again.apply(back, approve=back.sha256)
    again = world.open(remediation, undo=release.id, consumer_stands_still="now")
    again.plan("6.1.1")
    assert again.apply(back, approve=back.sha256).result["moved"] == 1
    assert keys(world, "pending/") == [key]
    proof = again.verify(back)
    assert (proof.phase, proof.result["taken_back"]) == (ActionPhase.VERIFIED, 1)
    assert world.calls[-1] == "pause"  # an undo keeps the worker paused
    assert again.read_step("1.5").finish_commands == (
        f"runbook resume {release.id} --resume-worker",
    )
    world.open(remediation, plan=release.id, resume_worker=True).resume(release)
    assert world.calls[-1] == "resume"
    assert again.read_step("1.5").status is Status.OK


def test_nothing_to_do_is_an_empty_plan_for_every_action(world: World) -> None:
    inv = world.open(remediation)
    for step in inv.section.ACTIONS:
        plan = inv.plan(step)
        assert plan.is_empty, step
        assert inv.apply(plan).phase is ActionPhase.PLANNED
        assert inv.verify(plan).phase is ActionPhase.PLANNED
    assert inv.journal.actions == []
    assert world.calls == []


@pytest.mark.parametrize("right", ["delete pending/", "write ready/"])
def test_a_key_without_a_right_that_a_move_needs_plans_and_applies_nothing(
    world: World, right: str
) -> None:
    key = world.put_label(25)
    inv = world.open(remediation, way="release")
    plan = inv.plan("6.1")
    world.rights = {**world.rights, right: (False, "AccessDenied")}
    with pytest.raises(SafetyError, match=f"lacks {right}: AccessDenied"):
        inv.apply(plan, approve=plan.sha256)
    assert keys(world, "pending/") == [key]
    assert keys(world, "ready/") == []
    refused = world.open(remediation, way="release").plan("6.1")
    assert refused.is_empty
    assert right in str(refused.summary["reason"])


def test_a_drill_moves_only_its_own_orders(world: World) -> None:
    world.put_label(25)
    since = (world.now - timedelta(minutes=25)).isoformat()
    world.put(
        "pending/77-0123456789ab.pdf", order_id="77", tracking_number="T", pending_since=since
    )
    world.dag = replace(world.dag, is_paused=True)
    world.incident.update(approver="drill:d1")
    world.incident.mark("drill_injected", orders=[ORDER])
    inv = world.open(remediation, only_orders=f"{ORDER},77")
    plan = inv.plan("6.1")
    assert plan.kind is MOVE
    assert plan.content.header.excluded == {"not_of_this_drill": 1}
    inv.apply(plan, approve=plan.sha256)
    assert keys(world, "pending/") == ["pending/77-0123456789ab.pdf"]


def test_an_approved_clean_up_of_proven_synthetic_objects_works_in_production(world: World) -> None:
    inv = world.open(chaos, count=2, object_size_kb=1, prefix="pending/")
    made = inv.plan("4.1")
    inv.apply(made, approve=made.sha256)
    world.put("pending/9000001-0123456789ab.pdf", chaos_scenario="fulfillment-delay")  # DataFlow's
    real = world.put_label(25)
    del world.store.objects[".runbook/environment.json"]
    world.settings = world.settings.model_copy(update={"runbook_environment": "production"})
    inv = world.open(remediation)
    plan = inv.plan("6.3")
    with pytest.raises(StoppedAtPlanError):
        inv.apply(plan)
    assert len(keys(world, "pending/")) == 4
    assert inv.apply(plan, approve=plan.sha256).result["removed"] == 3
    assert inv.verify(plan).phase is ActionPhase.VERIFIED
    assert keys(world, "pending/") == [real]


def test_what_nobody_wants_is_parked_by_a_plan_and_taken_back(world: World) -> None:
    world.settings = world.settings.model_copy(update={"label_finished": "shipment"})
    key = world.put_label(25)
    world.shipments = [{"orderId": ORDER, "status": "cancelled"}]
    refused = world.open(remediation, way="release").plan("6.1")
    assert "runbook plan --park-unwanted" in str(refused.summary["reason"])
    inv = world.open(remediation, way="release", park_unwanted=True)
    plan = inv.plan("6.1")
    assert (plan.action, plan.summary["by_status"]) == ("park", {"not_wanted": 1})
    assert inv.apply(plan, approve=plan.sha256).result["moved"] == 1
    assert inv.verify(plan).phase is ActionPhase.VERIFIED
    assert keys(world, "parked/") == [key.replace("pending/", "parked/not_wanted/")]
    again = world.open(remediation, undo=plan.id, consumer_stands_still="now")
    back = again.plan("6.1.1")
    assert "releases them again" in str(back.summary["who else moves"])
    assert again.apply(back, approve=back.sha256).result["moved"] == 1
    assert keys(world, "pending/") == [key]


def test_a_label_that_an_order_wants_is_never_parked(world: World) -> None:
    world.settings = world.settings.model_copy(update={"label_finished": "shipment"})
    key = world.put_label(25)
    world.shipments = [{"orderId": ORDER, "status": "cancelled"}]
    inv = world.open(remediation, way="release", park_unwanted=True)
    plan = inv.plan("6.1")
    world.shipments = [{"orderId": ORDER, "status": "packed"}]
    assert inv.apply(plan, approve=plan.sha256).result["moved"] == 0  # asked once more
    assert keys(world, "pending/") == [key]
    wanted = world.open(remediation, way="release", park_unwanted=True).plan("6.1")
    assert wanted.content.header.excluded == {"wanted": 1}
    world.settings = world.settings.model_copy(update={"label_finished": "always"})
    with pytest.raises(UsageError, match="LABEL_FINISHED"):
        world.open(remediation, way="release", park_unwanted=True).plan("6.1")
