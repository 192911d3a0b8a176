"""A bad network, a dying store, a full disk, a second operator: nothing is lost or doubled."""

from __future__ import annotations

import random
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runbook_lib.change.plan_file import load_plan
from runbook_lib.change.proof import verify_release
from tests.faults.bucket import count_independently, make_scene
from tests.faults.conftest import RUNS
from tests.faults.jobs import Job, connect, run_job, start_job
from tests.support.fault_proxy import FAULTS, run_fault_proxy
from tests.support.gateway import StoreServer, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120 + 30 * RUNS)]


def go_on(job: Job, *, deadline_s: float = 90) -> dict[str, object]:
    """Run a job, then resume until it is done or time is over; return the last answer."""
    answer, end = run_job(job), time.monotonic() + deadline_s
    while time.monotonic() < end:
        if answer.get("error") == "NotApprovedError":
            answer = run_job(job)
        elif answer.get("error") not in (None, "PlanExpiredError"):
            begun = Path(job.folder, "ledger", f"{job.plan}.jsonl").exists()
            answer = run_job(replace(job, action="resume" if begun else job.action))
        elif answer.get("failed") or answer.get("left"):
            answer = run_job(replace(job, action="resume"))
        else:
            return answer
    return answer


@pytest.mark.parametrize("fault", [*FAULTS, "all"])
def test_a_spoiled_network_loses_and_doubles_nothing(
    server: StoreServer, tmp_path: Path, seed: int, fault: str
) -> None:
    rng = random.Random(seed)
    faults = FAULTS if fault == "all" else (fault,)
    with run_fault_proxy(server.endpoint, seed=seed, faults=faults) as proxy:
        for run in range(max(1, RUNS // 12)):
            folder = tmp_path / str(run)
            scene = make_scene(proxy.endpoint, folder, seed=rng.getrandbits(32), objects=15)
            proxy.rate = 0.08
            job = Job("apply", proxy.endpoint, str(folder), scene.plan.id, read_s=0.5)
            answer = go_on(job)
            proxy.rate = 0.0
            answer = go_on(replace(job, action="resume"))
            counted = count_independently(server.endpoint, scene.root)
            print(f"{fault}: {dict(proxy.seen)}, {answer}")
            assert sum(proxy.seen[name] for name in faults) > 0
            assert counted == scene.moved, f"seed {seed}"


def test_a_store_that_is_killed_and_restarted(
    server: StoreServer, tmp_path: Path, seed: int
) -> None:
    scene = make_scene(server.endpoint, tmp_path, seed=seed, objects=60)
    job = Job("apply", server.endpoint, str(tmp_path), scene.plan.id, batch_size=5, read_s=1)
    process = start_job(job)
    ledger = tmp_path / "ledger" / f"{scene.plan.id}.jsonl"
    wait_until(lambda: ledger.exists() and b'"landed"' in ledger.read_bytes(), what="a batch")
    server.kill()
    process.join(timeout=120)
    server.start()
    print(go_on(replace(job, action="resume")))
    assert scene.count() == scene.moved


def test_a_full_disk_under_the_ledger(server: StoreServer, tmp_path: Path, seed: int) -> None:
    scene = make_scene(server.endpoint, tmp_path, seed=seed)
    rng = random.Random(seed)
    job = Job("apply", server.endpoint, str(tmp_path), scene.plan.id)
    full = run_job(replace(job, file_limit_bytes=rng.randrange(600, 4000)))
    assert full["error"] == "RecordError"
    assert len(scene.count()) >= len(scene.before)
    answer = run_job(replace(job, action="resume" if "approved" in _ledger(job) else "apply"))
    assert "error" not in answer
    assert scene.count() == scene.moved


def _ledger(job: Job) -> str:
    path = Path(job.folder) / "ledger" / f"{job.plan}.jsonl"
    return path.read_text("utf-8") if path.exists() else ""


@pytest.mark.parametrize("folders", ["one", "copied"])
def test_two_appliers_at_once(server: StoreServer, tmp_path: Path, seed: int, folders: str) -> None:
    first = tmp_path / "first"
    scene = make_scene(server.endpoint, first, seed=seed, objects=60)
    second = first
    if folders == "copied":
        second = tmp_path / "second"
        shutil.copytree(first, second)
    jobs = [
        Job("apply", server.endpoint, str(folder), scene.plan.id, batch_size=5)
        for folder in (first, second)
    ]
    processes = [start_job(job) for job in jobs]
    for process in processes:
        process.join(timeout=120)
    assert scene.count() == scene.moved
    # Whoever came second was refused, or found its work done: nobody may say that it lost one.
    for folder in {first, second}:
        plan = load_plan(folder / "plans" / f"{scene.plan.id}.jsonl")
        ledger = folder / "ledger" / f"{plan.id}.jsonl"
        if ledger.exists():
            proof = verify_release(
                connect(server.endpoint), plan, ledger_path=ledger, evidence=folder / "proof.json"
            )
            assert proof.is_proven, proof


def test_overlapping_plans_of_two_operators(server: StoreServer, tmp_path: Path, seed: int) -> None:
    scene = make_scene(server.endpoint, tmp_path / "first", seed=seed, objects=40)
    store = connect(server.endpoint)
    from runbook_lib.change.plan import make_release_plan

    other = make_release_plan(
        store,
        folder=tmp_path / "second" / "plans",
        prefix=f"{scene.root}pending/",
        to=f"{scene.root}ready/",
        made_by="second",
        match="*-slip.pdf",
    )
    jobs = [
        Job("apply", server.endpoint, str(tmp_path / "first"), scene.plan.id, batch_size=5),
        Job("apply", server.endpoint, str(tmp_path / "second"), other.id, batch_size=5),
    ]
    answers: list[dict[str, object]] = []
    threads = [threading.Thread(target=lambda j=job: answers.append(run_job(j))) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for job in jobs:
        begun = "approved" in _ledger(job)
        answers.append(run_job(replace(job, action="resume" if begun else "apply")))
    print(answers)
    counted, planned = scene.count(), {row.key for row in scene.plan.iter_rows()}
    # Where two ran (one was refused, so its plan drifted) some may still wait; none is lost.
    for key, moved_to in ((row.key, row.to) for row in scene.plan.iter_rows()):
        assert (key in counted) != (moved_to in counted), key
    assert {k: v for k, v in counted.items() if k in scene.before and k not in planned} == {
        k: v for k, v in scene.before.items() if k not in planned
    }
