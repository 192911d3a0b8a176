"""Workers of a real Airflow die and freeze while they carry out parts, and a consumer polls.

``AIRFLOW_TEST_LABELS`` says how many labels a part has.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.releases import ENDS_S, PER_PART, Desk, open_desk
from tests.faults.printed import answer
from tests.support.airflow_runs import APPROVERS, Run, find_process, list_worker, start_run
from tests.support.real_airflow import Airflow, wait_for

DAG_ID = "runbook_release"
PARTS = 4
LABELS = PARTS * PER_PART
SEED = 23
#: Many labels keep the store busy as they are.
_PAUSE_S = PER_PART / 5_000
#: Each has its own share of the keys.
_CONSUMERS = 3

pytestmark = [pytest.mark.timeout(600 + 3 * ENDS_S)]


@pytest.fixture(scope="module", autouse=True)
def _quiet(running: Airflow) -> Iterator[None]:
    client = running.client()
    client.set_paused(True)
    yield
    client.set_paused(False)


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    took_s = time.monotonic() - began
    at = datetime.now(UTC)
    print(f"{at:%H:%M:%S} {what}: {took_s:.0f} s, load {os.getloadavg()[0]:.0f}", flush=True)


def find_worker(run: Run, desk: Desk, part: int) -> list[int]:
    """Wait until a part is in the middle; return its worker and all that runs below it."""
    plan = run.run_id
    rows = range((part - 1) * PER_PART, part * PER_PART)

    def is_in_the_middle() -> bool:
        assert run.read_state() in ("queued", "running"), run.list_tasks()
        return desk.count_announced(plan, rows) > PER_PART // 10

    wait_for(is_in_the_middle, what=f"the first labels of part {part}", deadline_s=ENDS_S)
    pid = find_process(("apply", plan, "--part", str(part)))
    assert pid is not None, f"part {part} has ended already"
    return list_worker(pid, int(os.environ["AIRFLOW_TEST_SCHEDULER"]))


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, number)


def settle_truthfully(desk: Desk, plan: str) -> dict[str, int]:
    """Say of each label that nobody can know of what became of it; return how many, by word.

    Those that were not taken wait for a new plan, which is carried out by hand.
    """
    assert desk.lane.consumers is not None
    taken = {one.key.partition("/")[2] for one in desk.lane.consumers.read_taken()}
    rows = [row["key"] for row in desk.run("settle", plan).document["rows"]]
    words = answer(rows, {key for key in rows if key.partition("/")[2] in taken})
    settled = dict.fromkeys(("taken", "not_taken"), 0)
    if words:
        print(f"runbook settle {plan} ({len(rows)} keys)")
        shown = desk.run("settle", plan, *words)
        assert shown.code == 5, shown
        said = desk.paste(shown.document["apply"], operator=APPROVERS[0])
        assert said.code == 0, said
        settled = {name: said.document[name] for name in settled}
    if settled["not_taken"]:
        assert said.document["way_on"] == ["runbook plan"], said
        again = desk.run("plan")
        assert again.document["objects"] == settled["not_taken"], again
        assert desk.paste(again.document["apply"], operator=APPROVERS[0]).code == 0
    return settled


def disturb(run: Run, desk: Desk) -> None:
    """Kill the worker of the first part; freeze that of the second until it is tried again."""
    killed = find_worker(run, desk, 1)
    # Stopped first, so that none of them sees another one end.
    signal_all(killed, signal.SIGSTOP)
    frozen = find_worker(run, desk, 2)
    signal_all(frozen, signal.SIGSTOP)
    signal_all(killed, signal.SIGKILL)
    # It may have been tried again before.
    tries = run.read_task("carry_out", 1).tries + 1
    try:
        run.wait_for_task("carry_out", "running", index=1, tries=tries, deadline_s=ENDS_S)
    finally:
        signal_all(frozen, signal.SIGCONT)


def wait_for_consumers(desk: Desk) -> None:
    shelf = desk.lane.shelf

    def is_all_taken() -> bool:
        # One page of the listing: a look at all of it holds up the consumers.
        return not any(shelf.client.list_objects(shelf.bucket, prefix="ready/", recursive=True))

    wait_for(is_all_taken, what="the consumers' last label", deadline_s=ENDS_S)


def finish(run: Run, desk: Desk) -> Counter[str]:
    """Do what the logs of failed parts print; return how many labels rest on which answer."""
    settled: Counter[str] = Counter()
    failed = [task for task in run.list_tasks("carry_out") if task.state == "failed"]
    for task in failed:
        log = run.read_log("carry_out", index=task.index, attempt=task.tries)
        print(f"carry_out[{task.index}] failed after {task.tries} tries")
        if f"runbook settle {run.run_id}" in log and not settled:
            settled.update(settle_truthfully(desk, run.run_id))
    for task in failed:
        run.clear("carry_out", task.index)
    return settled


@pytest.mark.parametrize("has_renames", [True, False], ids=["renames", "copies"])
def test_a_killed_and_a_frozen_worker_lose_nothing_and_ship_nothing_twice(
    running: Airflow, tmp_path: Path, *, has_renames: bool
) -> None:
    with open_desk(
        tmp_path, seed=SEED, consumers=_CONSUMERS, has_renames=has_renames, pause_s=_PAUSE_S
    ) as desk:
        with timed(f"putting {LABELS} labels"):
            labels = desk.put_labels(LABELS, SEED)
        with timed("plan"):
            plan: dict[str, Any] = desk.plan(PARTS)
        run = start_run(running, DAG_ID, plan["plan"])
        run.wait_for_question()
        assert run.answer(APPROVERS[0], plan["sha256"]).ok
        with timed(f"{PARTS} x {PER_PART} labels on {os.cpu_count()} cores, parts and proof"):
            disturb(run, desk)
            run.wait_for_end(deadline_s=ENDS_S)
        answers = finish(run, desk)
        settled = answers.total()
        state = run.wait_for_end(deadline_s=ENDS_S)
        tasks = run.list_tasks("carry_out")
        well = [task.index for task in tasks if task.state == "success"]
        results = [run.read_result("carry_out", index) for index in well]
        print(f"tries {[task.tries for task in tasks]}, {results}")
        assert min(task.tries for task in tasks if task.index < 2) >= 2
        wait_for_consumers(desk)
        counted = desk.lane.count(labels)
        assert not counted.lost
        assert not counted.twice
        proof = desk.run("verify", plan["plan"])
        unproven = proof.document["unproven"]
        print(
            f"{dict(answers)} settled, {unproven} unproven, {len(counted.lost)} lost, "
            f"{len(counted.twice)} twice: {state}"
        )
        assert not desk.lane.worker.is_paused
        assert proof.document["settled_by_word"] == settled
        assert proof.document["gone_after_landed"] == len(labels) - settled - unproven
        # A renamed label that was taken at once is unproven, and nothing is left to decide.
        assert not (settled if has_renames else unproven)
        assert (proof.code, state) == ((3, "failed") if settled + unproven else (0, "success"))
        assert not desk.run("check").document["unfinished"]
