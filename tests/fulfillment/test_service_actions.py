"""Service plans: seen, approved, applied once, checked; against services that are simulated."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fulfillment.change.service_actions import SERVICE, plan_service
from fulfillment.clients.http_systems import Case, Dag, TimelineEntry, WorkerState
from fulfillment.clients.services import ServiceState
from fulfillment.investigation import Investigation
from runbook_lib.approvals import Effect, Plan, load_plan
from runbook_lib.errors import (
    BadAnswerError,
    ClientTimeoutError,
    PlanNotApprovedError,
    PlanUsedError,
    SafetyError,
)
from runbook_lib.model import ActionPhase
from runbook_lib.record.incident import create_incident
from runbook_lib.redact import MASK, Redactor
from runbook_lib.section import ActionStep, SectionModule, SectionParameters
from tests.support.world import make_settings

NOW = datetime(2026, 11, 24, 3, 14, 0, 123456, tzinfo=UTC)


class World:
    """Services that remember what was done to them; also the ``clients`` that reach them."""

    def __init__(self) -> None:
        self.now = NOW
        self.done: list[str] = []
        self.running, self.restarts = True, 0
        self.paused_dag = self.paused_worker = True
        self.runs, self.error = 3, ""
        self.refreshes = 0
        self.away = 0
        self.is_bare = False
        self.broken: Callable[[], None] = lambda: None
        self.services = self.pipeline = self.fulfillment = self.support = self

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def _do(self, what: str) -> None:
        self.done.append(what)
        self.broken()

    def find_switch(self, _service: str) -> World:
        return self

    def list_services(self) -> list[ServiceState]:
        if self.away:
            self.away -= 1
            raise ClientTimeoutError("restarting", system="services")
        state = "RUNNING" if self.running else "FATAL"
        since = None if self.is_bare else NOW + timedelta(seconds=self.restarts)
        return [ServiceState("worker", self.running, state, since, None)]

    def change(self, name: str, verb: str) -> None:
        self._do(f"{verb} {name}")
        self.running = verb != "stop"
        if verb == "restart":
            self.restarts += 1
            self.away = 2

    def read_dag(self) -> Dag:
        return Dag("release", self.paused_dag, False)

    def set_paused(self, paused: bool) -> None:
        self._do(f"set_paused {paused}")
        self.paused_dag = paused

    def read_worker(self) -> WorkerState:
        last_run = NOW + timedelta(seconds=self.runs)
        return WorkerState(self.paused_worker, False, last_run, None, self.error)

    def trigger_worker(self) -> None:
        self._do("trigger")
        self.runs += 1

    def resume_worker(self) -> None:
        self._do("resume")
        self.paused_worker = False
        self.runs += 1

    def read_case(self, ticket: str) -> Case:
        at = NOW + timedelta(seconds=self.refreshes)
        return Case(ticket, "open", (), (TimelineEntry("shipment", at, "s"),))

    def refresh_timeline(self, ticket: str) -> None:
        self._do(f"refresh {ticket}")
        self.refreshes += 1


@pytest.fixture
def world() -> Any:
    return World()


@pytest.fixture
def inv(tmp_path: Path, world: Any) -> Investigation:
    return open_on(tmp_path, world)


def open_on(home: Path, world: Any, *, secrets: tuple[str, ...] = ()) -> Investigation:
    """Open an incident whose gate knows nothing but plans of services."""
    section = SimpleNamespace(
        NAME="06_remediation", ACTIONS={"6.2": ActionStep("6.2", "x", never, (SERVICE,))}
    )
    return Investigation(
        create_incident(home, redactor=Redactor(secrets), environment="local"),
        section=cast(SectionModule, section),
        parameters=SectionParameters(),
        settings=make_settings(home),
        clients=world,
        now=lambda: world.now,
        sleep=world.sleep,
    )


def never(_: Investigation) -> Plan:
    raise AssertionError("a plan is made by hand here")


def make(inv: Investigation, action: str, target: str = "worker") -> Plan:
    return plan_service(inv, step="6.2", action=action, target=target, reason="the cause says so")


def apply(inv: Investigation, plan: Plan, approve: str | None = None) -> dict[str, Any]:
    return inv.apply(plan, approve=plan.sha256 if approve is None else approve).result


def verify(inv: Investigation, plan: Plan) -> Effect:
    return SERVICE.verify(inv, plan)


CASES = [
    ("restart", "worker", "restart worker"),
    ("unpause", "release", "set_paused False"),
    ("retrigger", "worker", "trigger"),
    ("resume", "worker", "resume"),
    ("refresh", "T-1", "refresh T-1"),
]


@pytest.mark.parametrize(("action", "target", "done"), CASES)
def test_a_plan_changes_nothing_until_it_is_applied_and_then_checks(
    inv: Investigation, world: Any, action: str, target: str, done: str
) -> None:
    world.paused_worker = action == "resume"
    plan = make(inv, action, target)
    assert world.done == []
    assert not plan.is_empty
    assert inv.verify(plan).phase is ActionPhase.PLANNED
    apply(inv, plan)
    assert world.done == [done]
    checked = verify(inv, plan)
    assert (checked.is_ok, checked.reason) == (True, plan.summary["check"])


@pytest.mark.parametrize(
    ("action", "target"), [("start", "worker"), ("unpause", "release"), ("resume", "worker")]
)
def test_what_is_so_already_is_an_empty_plan(
    inv: Investigation, world: Any, action: str, target: str
) -> None:
    world.paused_dag = world.paused_worker = False
    plan = make(inv, action, target)
    assert plan.is_empty
    assert inv.apply(plan, approve=plan.sha256).phase is ActionPhase.PLANNED
    assert world.done == []


def test_what_came_true_since_the_plan_is_not_done_again(inv: Investigation, world: Any) -> None:
    plan = make(inv, "unpause", "release")
    world.paused_dag = False
    apply(inv, plan)
    assert world.done == []
    assert verify(inv, plan).is_ok


def test_a_re_trigger_waits_for_the_plan_that_resumes_the_worker(
    inv: Investigation, world: Any
) -> None:
    about = {"action": "retrigger", "target": "worker", "reason": "it is paused"}
    plan = plan_service(inv, step="6.1", **about, needs_repair=True)
    with pytest.raises(SafetyError, match="approve 6"):
        apply(inv, plan)
    assert world.done == []
    apply(inv, make(inv, "resume"))
    apply(inv, plan)
    assert world.done == ["resume", "trigger"]


def test_a_plan_that_failed_is_not_tried_again(inv: Investigation, world: Any) -> None:
    def refuse() -> None:
        raise BadAnswerError("no", system="services")

    world.broken = refuse
    plan = make(inv, "restart")
    with pytest.raises(BadAnswerError):
        apply(inv, plan)
    world.broken = lambda: None
    with pytest.raises(PlanUsedError):
        apply(inv, plan)
    assert not verify(inv, plan).is_ok


def test_altered_bytes_are_another_plan(inv: Investigation, world: Any) -> None:
    plan = make(inv, "restart")
    plan.path.write_text(plan.path.read_text().replace('"restart"', '"start"'))
    altered = load_plan(plan.path, [SERVICE])
    with pytest.raises(PlanNotApprovedError):
        inv.apply(altered, approve=plan.sha256)
    assert world.done == []


def test_secrets_are_not_written_into_the_plan(tmp_path: Path, world: Any) -> None:
    world.error = "signature of admin12345 does not match"
    world.paused_worker = False
    plan = make(open_on(tmp_path, world, secrets=("admin12345",)), "retrigger")
    assert plan.summary["state"]["last_error"] == f"signature of {MASK} does not match"
    assert b"admin12345" not in plan.path.read_bytes()
