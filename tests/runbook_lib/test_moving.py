"""The gate for moves: plans, orders about a plan, proofs, and the commands that they name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fulfillment.commands import ReleaseCommands
from objectmove.bucket import Answer, Request
from objectmove.errors import NotApprovedError, NotNowError
from objectmove.result import MoveResult
from objectmove.run import Run
from runbook_lib.approvals import Plan
from runbook_lib.moving import (
    MoveGate,
    MoveParameters,
    WatchedWorker,
)
from runbook_lib.record.incident import create_incident
from runbook_lib.redact import Redactor
from runbook_lib.run.commands import app
from runbook_lib.run.documents import Document
from runbook_lib.show.text import visible
from tests.support.memory_store import MemoryStore

NOW = datetime(2026, 11, 24, 3, 14, tzinfo=UTC)
HEADER = {"source": "in/", "to": "out/"}


class InboxGate(MoveGate):
    noun = "file"

    def make_hold(self, _inv: Any) -> WatchedWorker:
        return WatchedWorker(check=lambda: None, words="nobody moves", way_back="")


GATE = InboxGate(step="1.3")


@pytest.fixture
def inv(tmp_path: Path) -> Any:
    clock = [NOW]

    def sleep(seconds: float) -> None:
        clock[0] += timedelta(seconds=seconds)

    store = MemoryStore(clock=lambda: clock[0])
    for name in "abc":
        store.put_object(f"in/{name}", name.encode())
    incident = create_incident(tmp_path, redactor=Redactor(()))
    begun: list[bool] = []
    return SimpleNamespace(
        clients=store.memory,
        store=store,
        begun=begun,
        parameters=MoveParameters(),
        section=None,
        settings=SimpleNamespace(runbook_home=tmp_path),
        incident=incident,
        operator="a person",
        now=lambda: clock[0],
        sleep=sleep,
        progress=lambda *_: None,
        begin_change=lambda: begun.append(True),
    )


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNBOOK_NAME", "inbox")


def plan_move(inv: Any) -> Plan:
    return GATE.plan_move(inv, header=HEADER)


def set_parameters(inv: Any, **changed: Any) -> None:
    inv.parameters = MoveParameters.model_validate(changed)


def lose_answers(inv: Any, *names: str) -> None:
    """Let copies of these files never happen, and no answer say so."""
    keys = {f"out/{name}" for name in names}

    def fate(request: Request) -> Answer | None:
        is_lost = request.kind == "copy" and request.key in keys
        return Answer("unknown", code="NoAnswer") if is_lost else None

    inv.clients.fate = fate


def test_a_move_is_carried_out_by_the_operator(inv: Any) -> None:
    plan = plan_move(inv)
    effect = plan.kind.apply(inv, plan)
    assert (effect.reason, effect.result["moved"]) == ("3 moved", 3)
    assert {key for key in inv.store.objects if key.startswith("in/")} == set()
    log = inv.incident.folder / "ledger" / f"{plan.id}.jsonl"
    assert '"a person"' in log.read_text("utf-8")
    assert inv.begun


def interrupt_copies(request: Request) -> Answer | None:
    if request.kind == "copy" and request.key.startswith("out/"):
        raise KeyboardInterrupt
    return None


def test_a_plan_that_was_cut_off_is_resumed_without_an_approval(inv: Any) -> None:
    plan = plan_move(inv)
    inv.clients.fate = interrupt_copies
    with pytest.raises(KeyboardInterrupt, match=f"files.*runbook resume {plan.id}"):
        plan.kind.apply(inv, plan)
    inv.clients.fate = lambda _: None
    assert plan.kind.resume is not None
    result = plan.kind.resume(inv, plan).result
    assert result["moved"] + len(result["unproven"]) == 3


@pytest.mark.usefixtures("named")
def test_every_command_of_the_helper_and_of_a_move_names_the_runbook() -> None:
    apps = (app, ReleaseCommands.make_app())
    for command in (command for each in apps for command in each.registered_commands):
        assert command.callback is not None
        name = command.callback.__name__.replace("_", "-")
        assert visible(f"`runbook {name} X`") == f"`runbook --runbook inbox {name} X`"
        error = Document(schema_name="runbook/error/1", error=f"runbook {name} X")
        assert f"runbook --runbook inbox {name} X" in error.to_json()


def test_what_is_unfinished_names_the_command_that_leads_on(inv: Any) -> None:
    plan = plan_move(inv)
    lose_answers(inv, "b")
    effect = plan.kind.apply(inv, plan)
    assert effect.result["ways_on"][0] == f"runbook settle {plan.id}"
    inv.clients.fate = interrupt_copies
    inv.store.put_object("in/d", b"d")
    plan = plan_move(inv)
    with pytest.raises(KeyboardInterrupt, match=f"runbook resume {plan.id}"):
        plan.kind.apply(inv, plan)
    (row,) = [row for row in GATE.list_unfinished(inv.clients) if row["plan"] == plan.id]
    assert row["way_on"] == f"runbook resume {plan.id}"
    inv.store.put_object("in/e", b"e")
    other = plan_move(inv)
    with pytest.raises(NotNowError, match=f"runbook resume {plan.id}"):
        other.kind.apply(inv, other)


def test_a_proof_finds_where_each_file_is(inv: Any) -> None:
    plan = plan_move(inv)
    plan.kind.apply(inv, plan)
    assert plan.kind.verify(inv, plan).reason == "proven by listing: 3 in place"
    del inv.store.objects["out/a"]
    inv.store.put_object("out/z", b"b")  # what a row had, at a key that no row names
    effect = plan.kind.verify(inv, plan)
    assert not effect.is_ok
    assert "1 foreign changed" in effect.reason
    assert "1 gone after landed" in effect.reason
    assert effect.result["gone_after_landed"] == 1


def order_undo(inv: Any, plan: Plan) -> Plan:
    set_parameters(inv, undo=plan.id)
    return GATE.plan_undo(inv)


def order_settling(inv: Any, plan: Plan, **answers: str) -> Plan:
    set_parameters(inv, settle=plan.id, **answers)
    return GATE.plan_settling(inv)


@pytest.fixture
def find_plans(inv: Any) -> Callable[[str], Path]:
    def find(plan_id: str) -> Path:
        return Path(inv.incident.folder / "plans" / f"{plan_id}.jsonl")

    inv.incident.find_plan = find
    return find


@pytest.mark.usefixtures("find_plans")
def test_an_undo_is_an_order_with_an_approval_of_its_own(inv: Any) -> None:
    plan = plan_move(inv)
    plan.kind.apply(inv, plan)
    order = order_undo(inv, plan)
    assert (order.id, order.step, order.action) == (f"{plan.id}-undo", "1.3.1", "undo")
    assert order.sha256 == plan.content.get_approval("undo") != plan.sha256
    assert order.summary["objects"] == 3
    with pytest.raises(NotNowError, match="--consumer-stands-still"):
        order.kind.apply(inv, order)
    set_parameters(inv, consumer_stands_still="now")
    effect = order.kind.apply(inv, order)
    assert effect.result["moved"] == 3
    assert {key for key in inv.store.objects if key.startswith("out/")} == set()
    proof = order.kind.verify(inv, order)
    assert (proof.is_ok, proof.result["taken_back"]) == (True, 3)
    assert not plan.kind.verify(inv, plan).is_ok


@pytest.mark.usefixtures("find_plans")
def test_what_was_not_moved_or_moved_long_ago_cannot_be_taken_back(inv: Any) -> None:
    plan = plan_move(inv)
    with pytest.raises(NotNowError, match=plan.id):
        order_undo(inv, plan)
    plan.kind.apply(inv, plan)
    inv.sleep(15 * 60 + 1)
    with pytest.raises(NotNowError, match=plan.id):
        order_undo(inv, plan)


@pytest.mark.usefixtures("find_plans")
def test_a_settling_is_an_order_that_carries_both_answers(inv: Any) -> None:
    plan = plan_move(inv)
    lose_answers(inv, "a", "b", "c")
    for _ in range(3):  # the first file of a run travels alone
        result = plan.kind.apply(inv, plan).result
    lost = result["unproven"]
    rows = GATE.list_to_settle(inv, plan)
    assert [row["key"] for row in rows] == lost
    assert "our first copy was announced at 2026-" in rows[0]["evidence"]
    assert set(rows[0]) == {"key", "evidence", "why", "taken_does", "not_taken_does"}
    order = order_settling(inv, plan, taken=lost[0], not_taken="*")
    assert (order.step, order.action) == ("1.3.2", "settle")
    assert order.id == f"{plan.id}-settle-{order.sha256[:8]}"
    assert (order.summary["taken"], order.summary["not_taken"]) == (lost[:1], lost[1:])
    inv.clients.fate = lambda _: None
    effect = order.kind.apply(inv, order)
    assert effect.result["settled"] == len(lost)
    assert GATE.list_to_settle(inv, plan) == []
    assert order.kind.verify(inv, order).is_ok
    # the other answer, given later, overrules
    again = order_settling(inv, plan, not_taken=lost[0])
    assert again.kind.apply(inv, again).result["settled"] == 1
    assert set(lost) <= set(inv.store.objects)


def test_an_approval_to_resume_the_worker_may_be_12_characters(
    inv: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_move(inv)
    needed = "ab" * 32

    def resume_worker(run: Run, approve: str) -> MoveResult:
        if approve != needed:
            way_on = f"resume {run.plan.id} --resume-worker --approve {needed}"
            raise NotApprovedError("it may ship twice", needed=needed, way_on=way_on)
        return MoveResult(run.plan.id, 0, 0, [], [], [], [], 0, 0, False, "", [], [])

    monkeypatch.setattr(Run, "resume_worker", resume_worker)
    for typed in ("", needed[:11], "0" * 12):
        set_parameters(inv, resume_worker=True, approve=typed)
        with pytest.raises(NotApprovedError, match=f"--approve {needed[:12]}$"):
            GATE.kind.resume(inv, plan)  # type: ignore[misc]
    set_parameters(inv, resume_worker=True, approve=needed[:12])
    assert GATE.kind.resume(inv, plan).reason == "0 moved"  # type: ignore[misc]
