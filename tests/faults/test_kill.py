"""kill -9 at each boundary and at random moments: then resume, and someone else counts."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.bucket import Scene, count_independently, make_scene
from tests.faults.conftest import RUNS
from tests.faults.jobs import Job, run_job, start_job
from tests.support.fault_proxy import run_fault_proxy
from tests.support.gateway import StoreServer, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(60 + 30 * RUNS)]

BOUNDARIES = ["approved", "intent", "copied", "landed", "looked", "deleted", "outcomes", "done"]


def finish(scene: Scene, action: str) -> None:
    """Go on until the plan is done, as an operator would."""
    job = Job(action, scene.endpoint, str(scene.folder), scene.plan.id)
    answer = run_job(job)
    if answer.get("error") == "NotApprovedError":  # killed before its approval was written
        answer = run_job(Job("apply", scene.endpoint, str(scene.folder), scene.plan.id))
    assert answer.get("error") in (None, "PlanExpiredError"), answer
    assert [*answer.get("conflicts", []), *answer.get("failed", [])] == []


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_killed_at_a_boundary_of_apply(
    server: StoreServer, tmp_path: Path, seed: int, boundary: str
) -> None:
    scene = make_scene(server.endpoint, tmp_path, seed=seed)
    count = 1 + seed % 3 if boundary not in ("approved", "done") else 1
    job = Job("apply", server.endpoint, str(tmp_path), scene.plan.id, boundary, count)
    assert run_job(job) == {"exit": -signal.SIGKILL}
    finish(scene, "resume")
    assert scene.count() == scene.moved


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_killed_at_a_boundary_of_undo(
    server: StoreServer, tmp_path: Path, seed: int, boundary: str
) -> None:
    scene = make_scene(server.endpoint, tmp_path, seed=seed)
    common = server.endpoint, str(tmp_path), scene.plan.id
    assert run_job(Job("apply", *common))["moved"] == scene.plan.trailer.objects
    count = 1 + seed % 3 if boundary not in ("approved", "done") else 1
    assert run_job(Job("undo", *common, boundary, count)) == {"exit": -signal.SIGKILL}
    finish(scene, "undo")
    assert scene.count() == scene.before


def test_killed_at_random_moments(server: StoreServer, tmp_path: Path, seed: int) -> None:
    rng, killed, run = random.Random(seed), 0, 0
    # How long it takes here when nobody kills it: every moment within that is as likely.
    whole = make_scene(server.endpoint, tmp_path / "whole", seed=seed, objects=20)
    started = time.monotonic()
    run_job(Job("apply", server.endpoint, str(whole.folder), whole.plan.id, batch_size=3))
    span_s = time.monotonic() - started
    while killed < RUNS:
        folder = tmp_path / str(run)
        scene = make_scene(server.endpoint, folder, seed=rng.getrandbits(32), objects=20)
        common = server.endpoint, str(folder), scene.plan.id
        undo = run % 2 == 1
        if undo:
            assert run_job(Job("apply", *common))["moved"] == 20
        # Several deaths in a row: of the run, and of those that go on with it.
        for action in ["undo"] * 3 if undo else ["apply", "resume", "resume"]:
            process = start_job(Job(action, *common, batch_size=3))
            process.join(timeout=rng.uniform(0.0, span_s))
            if process.is_alive():
                os.kill(process.pid or 0, signal.SIGKILL)
                killed += 1
            process.join(timeout=60)
        finish(scene, "undo" if undo else "resume")
        assert scene.count() == (scene.before if undo else scene.moved), f"run {run}, seed {seed}"
        run += 1
    print(f"{killed} kills in {run} runs on {server.kind}")


def test_interrupted_it_ends_and_can_be_resumed(
    server: StoreServer, tmp_path: Path, seed: int
) -> None:
    scene = make_scene(server.endpoint, tmp_path, seed=seed, objects=200)
    job = Job("apply", server.endpoint, str(tmp_path), scene.plan.id, batch_size=10)
    process = start_job(job)
    ledger = tmp_path / "ledger" / f"{scene.plan.id}.jsonl"
    end = time.monotonic() + 30
    while not (ledger.exists() and b'"outcomes"' in ledger.read_bytes()):
        assert time.monotonic() < end
        time.sleep(0.005)
    sent = time.monotonic()
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(timeout=20)
    print(f"ended {time.monotonic() - sent:.2f} s after the interrupt")
    assert process.exitcode not in (None, 0)
    assert len(scene.count()) >= len(scene.before)
    finish(scene, "resume")
    assert scene.count() == scene.moved


def test_interrupted_while_the_store_hangs_it_ends_all_the_same(
    server: StoreServer, tmp_path: Path, seed: int
) -> None:
    with run_fault_proxy(server.endpoint, seed=seed, faults=("hang",)) as proxy:
        scene = make_scene(proxy.endpoint, tmp_path, seed=seed, objects=60)
        job = Job("apply", proxy.endpoint, str(tmp_path), scene.plan.id, batch_size=5, read_s=60)
        process = start_job(job)
        ledger = tmp_path / "ledger" / f"{scene.plan.id}.jsonl"
        wait_until(lambda: ledger.exists() and b'"outcomes"' in ledger.read_bytes(), what="a batch")
        proxy.rate = 1.0
        wait_until(lambda: proxy.seen["hang"] > 0, what="a request that hangs")
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(timeout=20)  # the time-out of a request is a minute
        assert process.exitcode == 130
        proxy.rate = 0.0
        finish(scene, "resume")
    assert count_independently(server.endpoint, scene.root) == scene.moved
