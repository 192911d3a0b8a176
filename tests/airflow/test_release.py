"""A release by parts in a real Airflow: who may approve it, and what becomes of each label."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.airflow.releases import Desk, open_desk
from tests.support.airflow_runs import APPROVERS, STRANGER, Run, start_run, unpause
from tests.support.real_airflow import Airflow

DAG_ID = "runbook_release"
LABELS = 24
SEED = 23
#: Airflow's worker holds 143 MiB itself; that is no memory of the command that it starts.
_WORKER_MIB = 130

pytestmark = [pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    with open_desk(folder, seed=SEED, consumers=0) as desk:
        yield desk


@pytest.fixture
def plan(desk: Desk) -> dict[str, Any]:
    desk.lane.clear()
    desk.put_labels(LABELS, seed=1)
    return desk.plan(parts=4)


def ask(running: Airflow, plan: dict[str, Any], dag_id: str = DAG_ID) -> Run:
    run = start_run(running, dag_id, plan["plan"])
    run.wait_for_question()
    return run


def expect_refused(desk: Desk, run: Run, code: str, *, attempt: int = 1) -> None:
    assert run.wait_for_end() == "failed"
    assert run.read_task("approve").state == "failed"
    assert f"{code}: " in run.read_log("approve", attempt=attempt)
    assert {task.state for task in run.list_tasks("carry_out")} == {"upstream_failed"}
    assert len(desk.lane.shelf.list_keys("pending/")) == LABELS
    assert not desk.lane.shelf.list_keys("ready/")
    assert not desk.lane.shelf.list_keys(".runbook/parts/")
    assert not desk.run("check").document["unfinished"]
    assert not desk.lane.worker.is_paused


def test_another_plans_hash_is_refused(running: Airflow, desk: Desk, plan: dict[str, Any]) -> None:
    other = desk.plan(parts=3)
    run = ask(running, plan)
    assert run.answer(APPROVERS[0], other["sha256"]).ok
    expect_refused(desk, run, "other_hash")


def test_an_answer_without_a_hash_is_refused(
    running: Airflow, desk: Desk, plan: dict[str, Any]
) -> None:
    run = ask(running, plan)
    assert run.answer(APPROVERS[0], None).ok, "Airflow lets it pass"
    expect_refused(desk, run, "no_hash")


def test_a_question_that_was_cleared_is_not_asked_again(
    running: Airflow, desk: Desk, plan: dict[str, Any]
) -> None:
    run = ask(running, plan)
    run.clear("approve")
    run.wait_for_task("approve", "failed", tries=2)
    answer = run.answer(APPROVERS[0], plan["sha256"])
    expect_refused(desk, run, "asked_again", attempt=2)
    assert run.read_task("approve").state == "failed", answer.text


def test_the_default_of_a_time_out_is_refused(
    running: Airflow, desk: Desk, plan: dict[str, Any]
) -> None:
    run = start_run(running, "impatient_release", plan["plan"])
    expect_refused(desk, run, "nobody_answered")


def test_a_user_who_is_not_assigned_is_refused(
    running: Airflow, desk: Desk, plan: dict[str, Any]
) -> None:
    run = ask(running, plan)
    assert run.answer(STRANGER, plan["sha256"]).status_code == 403
    assert run.read_task("approve").state == "awaiting_input"
    assert run.answer(APPROVERS[1], plan["sha256"], option="Reject").ok
    expect_refused(desk, run, "rejected")


def test_a_plan_has_one_run(running: Airflow, plan: dict[str, Any]) -> None:
    run = ask(running, plan)
    with pytest.raises(OSError, match="409"):
        start_run(running, DAG_ID, run.run_id)
    assert run.answer(APPROVERS[0], plan["sha256"], option="Reject").ok
    assert run.wait_for_end() == "failed"


def test_who_approved_stands_in_log_journal_and_report(running: Airflow, desk: Desk) -> None:
    desk.lane.clear()
    desk.put_labels(LABELS, seed=2)
    unpause(running, DAG_ID)  # its run is started by another DAG
    planned = start_run(running, "runbook_plan", conf={"parts": 4})
    assert planned.wait_for_end() == "success"
    run = Run(running, DAG_ID, planned.read_result("plan"))
    run.wait_for_question()
    shown = run.read_result("plan")
    assert run.answer(APPROVERS[1], shown["sha256"]).ok
    assert run.wait_for_end() == "success"
    parts = [run.read_result("carry_out", index) for index in range(4)]
    assert sum(part["moved"] for part in parts) == LABELS
    assert run.read_result("proof")["in_place"] == LABELS
    assert all(0 < part["peak_mib"] < _WORKER_MIB for part in parts)
    assert f'"{APPROVERS[1]}"' in desk.read_log(shown["plan"])
    (incident,) = [path.parents[1] for path in desk.home.glob(f"*/plans/{shown['plan']}.jsonl")]
    lines = (incident / "journal.jsonl").read_text("utf-8").splitlines()
    actions = [json.loads(line)["data"].get("action", {}) for line in lines]
    applied = {action["operator"] for action in actions if action.get("phase") == "applied"}
    assert applied == {APPROVERS[1]}
    assert desk.run("report", incident.name).code == 0
    assert APPROVERS[1] in (incident / "report.html").read_text("utf-8")
    assert not desk.lane.worker.is_paused
