"""Workers of a real Airflow die and freeze while they carry out shards, and a consumer polls.

``AIRFLOW_TEST_LABELS`` says how many labels a shard has.
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

from tests.airflow.releases import ENDS_S, PER_SHARD, Desk, open_desk
from tests.support.airflow_runs import APPROVERS, Run, find_process, list_worker, start_run
from tests.support.real_airflow import Airflow, wait_for

DAG_ID = "runbook_release"
SHARDS = 4
LABELS = SHARDS * PER_SHARD
SEED = 23
#: A look lists all that a bucket with versions ever had: 1.5 s of the store's CPU for 100,000.
_PAUSE_S = PER_SHARD / 5_000
#: Each has its own share of the keys.
_CONSUMERS = 3
_SCHEDULER = int(os.environ.get("AIRFLOW_TEST_SCHEDULER", "0"))

pytestmark = [pytest.mark.timeout(600 + 3 * ENDS_S)]


@pytest.fixture(scope="module", autouse=True)
def _quiet(running: Airflow) -> Iterator[None]:
    """Pause the DAG that runs every minute."""
    client = running.client()
    client.set_paused(True)
    yield
    client.set_paused(False)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long something took."""
    began = time.monotonic()
    yield
    took_s = time.monotonic() - began
    at = datetime.now(UTC)
    print(f"{at:%H:%M:%S} {what}: {took_s:.0f} s, load {os.getloadavg()[0]:.0f}", flush=True)


def find_worker(run: Run, desk: Desk, shard: str) -> list[int]:
    """Wait until a shard is in the middle; return its worker and all that runs below it."""

    def is_in_the_middle() -> bool:
        assert run.read_state() in ("queued", "running"), run.list_tasks()
        return desk.count_landed(shard) > PER_SHARD // 10

    wait_for(is_in_the_middle, what=f"the first labels of {shard}", deadline_s=ENDS_S)
    pid = find_process(("apply", shard))
    assert pid is not None, f"{shard} has ended already"
    return list_worker(pid, _SCHEDULER)


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to processes, if they still run."""
    for pid in pids:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, number)


def settle_truthfully(desk: Desk, shard: str) -> dict[str, int]:
    """Say of each label that nobody can know of what became of it; return how many, by word.

    Those that were not taken wait for a new plan, which is carried out by hand.
    """
    assert desk.lane.consumers is not None
    taken = {one.key.partition("/")[2] for one in desk.lane.consumers.read_taken()}
    rows = [row["key"] for row in desk.run("settle", shard).document["rows"]]
    settled = {}
    for word in ("--taken", "--not-taken"):
        keys = [key for key in rows if (key.partition("/")[2] in taken) == (word == "--taken")]
        named = [part for key in keys for part in ("--key", key)]
        settled[word] = len(keys)
        if keys:
            print(f"runbook settle {shard} {word} (and {len(keys)} keys)")
            shown = desk.run("settle", shard, word, *named)
            assert shown.code == 5, shown
            said = desk.paste(shown.document["apply"], operator=APPROVERS[0])
            assert said.code == 0, said
    if settled["--not-taken"]:
        assert said.document["way_on"] == ["runbook plan"], said
        again = desk.run("plan")
        assert again.document["objects"] == settled["--not-taken"], again
        assert desk.paste(again.document["apply"], operator=APPROVERS[0]).code == 0
    return settled


def disturb(run: Run, desk: Desk, shards: list[str]) -> None:
    """Kill the worker of the first shard; freeze that of the second until it is tried again."""
    killed = find_worker(run, desk, shards[0])
    # Stopped first, so that none of them sees another one end.
    signal_all(killed, signal.SIGSTOP)
    signal_all(killed, signal.SIGKILL)
    frozen = find_worker(run, desk, shards[1])
    signal_all(frozen, signal.SIGSTOP)
    # It may have been tried again before.
    tries = run.read_task("carry_out", 1).tries + 1
    try:
        run.wait_for_task("carry_out", "running", index=1, tries=tries, deadline_s=ENDS_S)
    finally:
        signal_all(frozen, signal.SIGCONT)


def wait_for_consumers(desk: Desk) -> None:
    """Wait until consumers have taken all that was released."""
    shelf = desk.lane.shelf

    def is_all_taken() -> bool:
        # One page of the listing: a look at all of it holds up the consumers.
        return not any(shelf.client.list_objects(shelf.bucket, prefix="ready/", recursive=True))

    wait_for(is_all_taken, what="the consumers' last label", deadline_s=ENDS_S)


def finish(run: Run, desk: Desk, shards: list[str]) -> Counter[str]:
    """Do what the logs of failed shards print; return how many labels rest on which word."""
    settled: Counter[str] = Counter()
    for index, shard in enumerate(shards):
        if run.read_task("carry_out", index).state == "failed":
            attempt = run.read_task("carry_out", index).tries
            log = run.read_log("carry_out", index=index, attempt=attempt)
            print(f"carry_out[{index}] failed after {attempt} tries; cleared")
            if f"runbook settle {shard}" in log:
                settled.update(settle_truthfully(desk, shard))
            run.clear("carry_out", index)
    return settled


@pytest.mark.parametrize("keeps_versions", [True, False], ids=["versions", "no versions"])
def test_a_killed_and_a_frozen_worker_lose_nothing_and_ship_nothing_twice(
    running: Airflow, tmp_path: Path, keeps_versions: bool
) -> None:
    with open_desk(
        tmp_path, seed=SEED, consumers=_CONSUMERS, keeps_versions=keeps_versions, pause_s=_PAUSE_S
    ) as desk:
        with timed(f"putting {LABELS} labels"):
            labels = desk.put_labels(LABELS, SEED)
        with timed("plan"):
            plan: dict[str, Any] = desk.plan(SHARDS)
        shards = [shard["plan"] for shard in plan["shards"]]
        run = start_run(running, DAG_ID, plan["plan"])
        run.wait_for_question()
        assert run.answer(APPROVERS[0], plan["sha256"]).ok
        with timed(f"{SHARDS} x {PER_SHARD} labels on {os.cpu_count()} cores, shards and proof"):
            disturb(run, desk, shards)
            run.wait_for_end(deadline_s=ENDS_S)
        words = finish(run, desk, shards)
        settled = words.total()
        state = run.wait_for_end(deadline_s=ENDS_S)
        tasks = run.list_tasks("carry_out")
        well = [task.index for task in tasks if task.state == "success"]
        results = [run.read_result("carry_out", index) for index in well]
        print(f"tries {[task.tries for task in tasks]}, {results}")
        # A shard of which a new plan takes something is never whole.
        is_whole = not words["--not-taken"]
        assert (len(well) == SHARDS) == is_whole
        assert min(task.tries for task in tasks if task.index < 2) >= 2
        wait_for_consumers(desk)
        counted = desk.lane.count(labels)
        assert not counted.lost
        assert not counted.twice
        print(
            f"{dict(words)} settled, {len(counted.lost)} lost, {len(counted.twice)} twice: {state}"
        )
        assert not desk.lane.worker.is_paused
        proof = desk.run("verify", plan["plan"])
        proven = proof.document["gone_after_landed"]
        assert proof.document["settled_by_word"] == settled
        assert proven == len(labels) - settled
        # A person's word is no proof. Versions prove what the consumer took.
        assert not (keeps_versions and words["--taken"])
        assert (proof.code, state) == ((3, "failed") if settled else (0, "success"))
        assert not desk.run("check").document["unfinished"]


def test_one_process_carries_out_the_same_labels(tmp_path: Path) -> None:
    with open_desk(
        tmp_path, seed=SEED, consumers=_CONSUMERS, keeps_versions=True, pause_s=_PAUSE_S
    ) as desk:
        with timed(f"putting {LABELS} labels"):
            labels = desk.put_labels(LABELS, SEED)
        with timed("one process: plan"):
            plan = desk.plan(1)
        with timed("one process: apply"):
            assert desk.paste(plan["apply"]).code == 0
        with timed("one process: verify"):
            proof = desk.run("verify", plan["plan"])
        assert proof.code == 0
        proven = proof.document["in_place"] + proof.document["gone_after_landed"]
        assert proven == len(labels)
        wait_for_consumers(desk)
        counted = desk.lane.count(labels)
        assert not counted.lost
        assert not counted.twice
