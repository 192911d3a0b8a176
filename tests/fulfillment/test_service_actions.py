"""Service plans: seen, approved, applied once, checked."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fulfillment.change.service_actions import SERVICE, plan_service
from fulfillment.investigation import Investigation
from fulfillment.sections import remediation
from runbook_lib.approvals import Effect, Plan, load_plan
from runbook_lib.errors import (
    BadAnswerError,
    SafetyError,
)
from runbook_lib.model import ActionPhase
from runbook_lib.record.incident import create_incident
from runbook_lib.redact import MASK, Redactor
from tests.support.world import TICKET, FakeServices, World

WORKER = "fulfillment-service"
DAG = "fulfillment_release"


@pytest.fixture
def inv(world: World) -> Investigation:
    pause(world)
    return world.open(remediation)


def pause(world: World, *, is_paused: bool = True) -> None:
    assert world.worker is not None
    world.dag = replace(world.dag, is_paused=is_paused)
    world.worker = replace(world.worker, paused=is_paused)


def make(inv: Investigation, action: str, target: str = WORKER) -> Plan:
    return plan_service(inv, step="6.2", action=action, target=target, reason="the cause says so")


def apply(inv: Investigation, plan: Plan) -> None:
    inv.apply(plan, approve=plan.sha256)


def verify(inv: Investigation, plan: Plan) -> Effect:
    return SERVICE.verify(inv, plan)


CASES = [
    ("restart", WORKER, f"restart {WORKER}"),
    ("unpause", DAG, "paused=False"),
    ("retrigger", WORKER, "trigger"),
    ("resume", WORKER, "resume"),
    ("refresh", TICKET, f"refresh {TICKET}"),
]


@pytest.mark.parametrize(("action", "target", "done"), CASES)
def test_a_plan_changes_nothing_until_it_is_applied_and_then_checks(
    inv: Investigation, world: World, action: str, target: str, done: str
) -> None:
    if action == "retrigger":
        pause(world, is_paused=False)
    plan = make(inv, action, target)
    assert world.calls == []
    assert not plan.is_empty
    assert inv.verify(plan).phase is ActionPhase.PLANNED
    apply(inv, plan)
    assert world.calls == [done]
    checked = verify(inv, plan)
    assert (checked.is_ok, checked.reason) == (True, plan.summary["check"])


@pytest.mark.parametrize(
    ("action", "target"), [("start", WORKER), ("unpause", DAG), ("resume", WORKER)]
)
def test_what_is_so_already_is_an_empty_plan(
    inv: Investigation, world: World, action: str, target: str
) -> None:
    pause(world, is_paused=False)
    plan = make(inv, action, target)
    assert plan.is_empty
    assert inv.apply(plan, approve=plan.sha256).phase is ActionPhase.PLANNED
    assert world.calls == []


def test_what_came_true_since_the_plan_is_not_done_again(inv: Investigation, world: World) -> None:
    plan = make(inv, "unpause", DAG)
    pause(world, is_paused=False)
    with pytest.raises(SafetyError, match="already"):
        apply(inv, plan)
    assert world.calls == []


def test_a_re_trigger_waits_for_the_plan_that_resumes_the_worker(
    inv: Investigation, world: World
) -> None:
    plan = make(inv, "retrigger")
    with pytest.raises(SafetyError, match="approve 6"):
        apply(inv, plan)
    assert world.calls == []
    apply(inv, make(inv, "resume"))
    apply(inv, plan)
    assert world.calls == ["resume", "trigger"]


def test_a_plan_that_failed_is_not_tried_again(
    inv: Investigation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise BadAnswerError("no", system="services")

    plan = make(inv, "restart")
    with monkeypatch.context() as patch:
        patch.setattr(FakeServices, "change", refuse)
        with pytest.raises(BadAnswerError):
            apply(inv, plan)
    with pytest.raises(SafetyError, match="was applied before"):
        apply(inv, plan)
    assert not verify(inv, plan).is_ok


def test_a_plan_that_is_too_old_changes_nothing(inv: Investigation, world: World) -> None:
    plan = make(inv, "restart")
    world.now += timedelta(minutes=16)
    with pytest.raises(SafetyError, match="expired"):
        apply(inv, plan)
    assert world.calls == []


def test_altered_bytes_are_another_plan(inv: Investigation, world: World) -> None:
    plan = make(inv, "restart")
    plan.path.write_text(plan.path.read_text().replace('"restart"', '"start"'))
    altered = load_plan(plan.path, [SERVICE])
    with pytest.raises(SafetyError, match="is the hash of no plan"):
        inv.apply(altered, approve=plan.sha256)
    assert world.calls == []


def test_secrets_are_not_written_into_the_plan(world: World) -> None:
    assert world.worker is not None
    redactor = Redactor(("admin12345",))
    world._incident = create_incident(world.home, redactor=redactor, environment="local")
    world.worker = replace(world.worker, last_error="signature of admin12345 does not match")
    plan = make(world.open(remediation), "retrigger")
    assert plan.summary["state"]["last_error"] == f"signature of {MASK} does not match"
    assert b"admin12345" not in plan.path.read_bytes()
