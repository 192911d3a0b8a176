"""The gate for a mover's plans, with a mover that only pretends."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runbook_lib import runbook as runbooks
from runbook_lib.approvals import Plan
from runbook_lib.cli import app
from runbook_lib.move_cli import make_move_commands
from runbook_lib.moves import MoveGate, MoveParameters, WatchedOthers
from runbook_lib.record.incident import create_incident
from runbook_lib.redact import Redactor
from runbook_lib.runbook import name_runbook

NOW = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
FACTS: dict[str, Any] = {
    "moved": 3,
    "skipped": [],
    "conflicts": [],
    "failed": [],
    "unproven": [],
    "waiting": 0,
    "left": 0,
    "is_ended": True,
    "stopped": "",
}


class FakeRefusalError(Exception):
    """The fake mover changed nothing."""


@dataclass
class FakePlan:
    path: Path
    sha256: str
    rows: tuple[str, ...] = ("a", "b", "c")
    made_at: datetime = NOW
    expires_at: datetime = NOW + timedelta(minutes=15)
    step: str = "1.3"
    action: str = "move"
    target: str = "in/ → out/"
    undo_command: str = ""
    way_back: str = "by hand"
    summary: dict[str, Any] = field(default_factory=dict)
    shards: tuple[Any, ...] = ()

    @property
    def id(self) -> str:
        return self.path.stem


@dataclass
class FakeReport:
    is_complete: bool
    facts: dict[str, Any]
    at: datetime = NOW
    taken_back_by: str = ""
    shards: dict[str, dict[str, int]] | None = None
    taken_before: int = 0

    @property
    def counts(self) -> dict[str, int]:
        return {name: count for name, count in self.facts.items() if isinstance(count, int)}

    def to_json(self) -> dict[str, Any]:
        return dict(self.facts)


@dataclass
class FakeMover:
    """Says what a test tells it to say, and keeps what it was given."""

    SCHEMA = "fake/1"
    REFUSALS = (FakeRefusalError,)
    NEEDS_APPROVAL = FakeRefusalError

    report: FakeReport
    error: BaseException | None = None
    is_cut_off: bool = False
    given: dict[str, Any] = field(default_factory=dict)

    def make_clock(self, now: Any, sleep: Any) -> Any:
        return (now, sleep)

    def parse_plan(self, content: bytes, *, path: Path) -> FakePlan:
        return FakePlan(path, hashlib.sha256(content).hexdigest())

    def find_approval(self, plan: FakePlan) -> str:
        return plan.sha256

    def apply_plan(self, store: object, plan: FakePlan, **given: Any) -> FakeReport:
        self.given = {"store": store, "plan": plan, **given}
        if self.error is not None:
            raise self.error
        return self.report

    resume_plan = apply_plan
    verify_plan = apply_plan

    def was_cut_off(self, _plan: FakePlan, **_logs: Any) -> bool:
        return self.is_cut_off

    def find_ways_on(self, plan: FakePlan, facts: Any) -> list[str]:
        return [] if facts["is_ended"] else [f"runbook resume {plan.id}"]

    def make_gate(self) -> MoveGate[Any]:
        mover: Any = self
        return FakeGate(mover, step="1.3")


class FakeGate(MoveGate[Any]):
    def make_hold(self, _inv: Any) -> WatchedOthers:
        return WatchedOthers(check=lambda: None, words="nobody moves", way_back="")


@pytest.fixture
def inv(tmp_path: Path) -> Any:
    incident = create_incident(tmp_path, redactor=Redactor(()))
    return SimpleNamespace(
        clients="the store",
        parameters=MoveParameters.model_validate({"consumer_stands_still": True}),
        incident=incident,
        operator="a person",
        now=lambda: NOW,
        sleep=lambda _: None,
        progress=lambda *_: None,
        get_approval=lambda plan: plan.sha256,
        begin_change=lambda _plan: None,
    )


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process carry out a runbook that is not the default."""
    monkeypatch.setattr(runbooks._Process, "runbook", "inbox")


def admit(mover: FakeMover, inv: Any) -> Plan:
    path = inv.incident.folder / "plans" / "move-1.jsonl"
    path.write_bytes(b"fake/1\n")
    parse = mover.make_gate().kind.parse
    assert parse is not None
    return parse(path, b"fake/1\n")


def test_the_gate_sees_of_a_plan_what_the_mover_says(inv: Any) -> None:
    plan = admit(FakeMover(FakeReport(True, FACTS)), inv)
    assert (plan.id, plan.step, plan.action, plan.target) == ("move-1", "1.3", "move", "in/ → out/")
    assert plan.sha256 == hashlib.sha256(b"fake/1\n").hexdigest()
    assert (len(plan.rows), plan.is_empty) == (3, False)
    assert (plan.way_back, plan.reversible) == ("by hand", False)


def test_the_mover_gets_store_approval_ledger_and_hold(inv: Any) -> None:
    mover = FakeMover(FakeReport(True, FACTS))
    plan = admit(mover, inv)
    effect = plan.kind.apply(inv, plan)
    assert (effect.is_ok, effect.reason) == (True, "3 moved")
    assert (mover.given["store"], mover.given["approve"]) == ("the store", plan.sha256)
    assert mover.given["operator"] == "a person"
    assert mover.given["logs"]("other").path == inv.incident.folder / "ledger" / "other.jsonl"
    assert mover.given["hold"].is_paused()
    assert (mover.given["stands_still"], mover.given["strict"]) == (True, False)


def test_a_run_says_when_it_held_the_others(inv: Any) -> None:
    plan = admit(FakeMover(FakeReport(True, FACTS)), inv)
    assert "hold" not in plan.kind.apply(inv, plan).result
    gate: Any = plan.kind.apply
    gate.__self__.make_hold = lambda _inv: SimpleNamespace(changes=["paused", "resumed"])
    assert plan.kind.apply(inv, plan).result["hold"] == "paused, resumed"


def test_a_plan_that_was_cut_off_is_resumed_and_needs_no_approval(inv: Any) -> None:
    mover = FakeMover(FakeReport(True, FACTS), is_cut_off=True)
    plan = admit(mover, inv)
    plan.kind.apply(inv, plan)
    assert "approve" not in mover.given


def test_what_is_not_all_done_says_what_and_the_way_on(inv: Any) -> None:
    skipped = [{"key": "a", "reason": "rewritten"}]
    facts = {**FACTS, "moved": 1, "skipped": skipped, "waiting": 1, "is_ended": False}
    plan = admit(FakeMover(FakeReport(False, facts)), inv)
    effect = plan.kind.apply(inv, plan)
    assert not effect.is_ok
    assert effect.reason.startswith("1 moved; 1 skipped; 1 waiting; ")
    assert effect.reason.endswith("runbook resume move-1")


@pytest.mark.usefixtures("named")
def test_every_command_of_the_helper_and_of_a_mover_names_the_runbook() -> None:
    apps = (app, make_move_commands(lambda: pytest.fail("no command runs")))
    for command in (command for each in apps for command in each.registered_commands):
        assert command.callback is not None
        name = command.callback.__name__.replace("_", "-")
        assert name_runbook(f"`runbook {name} X`") == f"`runbook --runbook inbox {name} X`"


@pytest.mark.usefixtures("named")
def test_commands_name_a_runbook_that_is_not_the_default(inv: Any) -> None:
    stopped = "the store is full. Go on with: runbook resume move-1"
    facts = {**FACTS, "moved": 1, "stopped": stopped, "is_ended": False}
    plan = admit(FakeMover(FakeReport(False, facts)), inv)
    effect = plan.kind.apply(inv, plan)
    assert effect.reason.count("runbook --runbook inbox resume move-1") == 1
    error = KeyboardInterrupt("Interrupted. Go on with: runbook resume move-1")
    plan = admit(FakeMover(FakeReport(False, facts), error=error), inv)
    resume = plan.kind.resume
    assert resume is not None
    with pytest.raises(KeyboardInterrupt, match="runbook --runbook inbox resume move-1"):
        resume(inv, plan)


def test_a_refusal_of_the_mover_is_one_of_the_gate(inv: Any) -> None:
    plan = admit(FakeMover(FakeReport(True, FACTS)), inv)
    assert FakeRefusalError in plan.kind.refusals


def test_a_proof_names_our_other_plan_of_what_others_changed(inv: Any) -> None:
    proof = {"changed_by_others": 1, "keys": {"changed_by_others": ["a"]}}
    plan = admit(FakeMover(FakeReport(False, proof)), inv)
    inv.settings = SimpleNamespace(runbook_home=inv.incident.folder.parent)
    other = SimpleNamespace(plan=SimpleNamespace(rows=[SimpleNamespace(key="a")]))
    gate: Any = plan.kind.verify
    gate.__self__.list_begun = lambda _home: {"move-2": lambda: other, "move-3": lambda: None}
    reason = plan.kind.verify(inv, plan).reason
    assert reason.endswith("1 changed by others; move-2 of ours planned some of them, too")


def test_a_proof_is_kept_as_evidence(inv: Any) -> None:
    proof = {"in_place": 2, "lost": 1, "keys": {"lost": ["a"]}}
    plan = admit(FakeMover(FakeReport(False, proof)), inv)
    effect = plan.kind.verify(inv, plan)
    assert not effect.is_ok
    assert "1 lost" in effect.reason
    kept = json.loads((inv.incident.folder / "evidence" / "proof-move-1.json").read_text("utf-8"))
    assert (kept["sha256"], kept["lost"]) == (plan.sha256, 1)
