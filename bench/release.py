"""Move objects beside ``mc mv``, ``s5cmd mv`` and ``rclone move``; print ratios, not promises.

Ours is apply + verify of an approved plan, with every guard; theirs is a bare move. Each round
runs every tool once on freshly filled prefixes; the median of the rounds is compared.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from bench.growth import measure_growth
from runbook_lib.change.mover import apply_plan
from runbook_lib.change.plan import make_release_plan
from runbook_lib.change.plan_file import ReleasePlan
from runbook_lib.change.proof import verify_release
from runbook_lib.clients.object_store_s3 import S3Store
from runbook_lib.model import format_time
from runbook_lib.redact import Redactor
from tests.support.gateway import (
    ACCESS_KEY,
    BUCKET,
    SECRET_KEY,
    StoreServer,
    run_juicefs,
    run_seaweedfs,
)

Move = Callable[[StoreServer, S3Store, Path], tuple[float, float]]
"""Moves all, and returns its seconds and its CPU seconds, the server's included."""

_NO_LIMIT = 10**9


def find_program(*names: str) -> str | None:
    """Return the first of the programs that is installed, beside Python or on PATH."""
    for name in names:
        beside = Path(sys.executable).with_name(name)
        if beside.exists() or shutil.which(name):
            return str(beside if beside.exists() else name)
    return None


def fill(store: S3Store, count: int, size_bytes: int) -> None:
    """Put ``count`` finished labels under pending/, as fast as the store copies them."""
    seed = store.put_object(
        "seed.pdf",
        os.urandom(size_bytes),
        content_type="application/pdf",
        metadata={
            "order-id": "1",
            "tracking-number": "TRK1",
            "pending-since": format_time(datetime.now(UTC) - timedelta(minutes=20)),
        },
    )
    pairs = [(seed, f"pending/{n:07d}-0123456789ab.pdf") for n in range(count)]
    for start in range(0, count, 5000):
        for _, error in store.copy_objects(pairs[start : start + 5000]):
            if error is not None:
                raise error


def empty(store: S3Store) -> int:
    """Delete everything and return how many objects were under ready/."""
    infos = [info for prefix in ("pending/", "ready/") for info in store.list_objects(prefix)]
    store.delete_objects(infos, guarded=False)
    return sum(info.key.startswith("ready/") for info in infos)


def make_plan(store: S3Store, folder: Path) -> ReleasePlan:
    """Plan the release of all that waits."""
    return make_release_plan(
        store,
        folder=folder / "plans",
        prefix="pending/",
        to="ready/",
        made_by="bench",
        limit_objects=_NO_LIMIT,
        limit_bytes=10**15,
        lifetime_s=3600,
    )


def move_ours(server: StoreServer, store: S3Store, folder: Path) -> tuple[float, float]:
    """Measure apply and verify."""
    planned = time.perf_counter()
    plan = make_plan(store, folder)
    ledger = folder / "ledger" / f"{plan.id}.jsonl"
    start, used = time.perf_counter(), read_cpu_s(server)
    result = apply_plan(
        store,
        plan,
        ledger_path=ledger,
        approve_sha256=plan.sha256,
        approved_by="bench",
        redactor=Redactor([SECRET_KEY]),
    )
    applied = time.perf_counter()
    proof = verify_release(store, plan, ledger_path=ledger, evidence=folder / "proof.json")
    end, cpu = time.perf_counter(), read_cpu_s(server) - used
    if not (result.is_clean and proof.counts["in_place"] == plan.trailer.objects):
        raise RuntimeError(f"{result.to_json()} {proof.counts}")
    print(
        f"    {server.kind}: plan {start - planned:.1f} s, apply {applied - start:.1f} s, "
        f"verify {end - applied:.1f} s"
    )
    return end - start, cpu


def move_by(
    server: StoreServer, command: list[str], environment: dict[str, str]
) -> tuple[float, float]:
    """Measure a command."""
    # rclone refuses to start when a CA bundle is named there.
    kept = {name: text for name, text in os.environ.items() if name != "AWS_CA_BUNDLE"}
    start, used = time.perf_counter(), read_cpu_s(server)
    done = subprocess.run(
        command, env={**kept, **environment}, capture_output=True, timeout=900, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stderr.decode()[-1000:]}")
    return time.perf_counter() - start, read_cpu_s(server) - used


def move_s5cmd(server: StoreServer, _: S3Store, __: Path) -> tuple[float, float]:
    """Measure ``s5cmd mv``."""
    program = find_program("s5cmd") or "s5cmd"
    command = [program, "--endpoint-url", f"http://{server.endpoint}", "--numworkers", "64"]
    command += ["mv", f"s3://{BUCKET}/pending/*", f"s3://{BUCKET}/ready/"]
    return move_by(server, command, _aws())


def move_mc(server: StoreServer, _: S3Store, folder: Path) -> tuple[float, float]:
    """Measure ``mc mv --recursive``."""
    program = find_program("mcli", "minio-client", "mc") or "mc"
    host = f"http://{ACCESS_KEY}:{SECRET_KEY}@{server.endpoint}"
    command = [program, "--config-dir", str(folder / "mc"), "mv", "--recursive"]
    command += [f"bench/{BUCKET}/pending/", f"bench/{BUCKET}/ready/"]
    return move_by(server, command, {"MC_HOST_bench": host})


def move_rclone(server: StoreServer, _: S3Store, folder: Path) -> tuple[float, float]:
    """Measure ``rclone move``."""
    command = ["rclone", "--config", str(folder / "rclone.conf"), "move", "--transfers", "64"]
    command += ["--checkers", "64", f"bench:{BUCKET}/pending", f"bench:{BUCKET}/ready"]
    remote = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ACCESS_KEY_ID": ACCESS_KEY,
        "SECRET_ACCESS_KEY": SECRET_KEY,
        "ENDPOINT": f"http://{server.endpoint}",
        "REGION": "us-east-1",
    }
    return move_by(
        server, command, {f"RCLONE_CONFIG_BENCH_{name}": text for name, text in remote.items()}
    )


def read_cpu_s(server: StoreServer) -> float:
    """Return the CPU seconds that the server, this process and its children have used."""
    assert server.process is not None
    theirs = psutil.Process(server.process.pid).cpu_times()
    return theirs.user + theirs.system + sum(os.times()[:4])


def time_listing(server: StoreServer) -> float:
    """Return the seconds of ``s5cmd ls`` of what waits."""
    program = find_program("s5cmd") or "s5cmd"
    command = [program, "--endpoint-url", f"http://{server.endpoint}", "ls"]
    return move_by(server, [*command, f"s3://{BUCKET}/pending/*"], _aws())[0]


def _aws() -> dict[str, str]:
    names = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    return {**names, "AWS_REGION": "us-east-1"}


def compare(server: StoreServer, *, count: int, size_bytes: int, rounds: int) -> None:
    """Run every tool in turn and print the medians beside ours."""
    store = S3Store(
        endpoint=server.endpoint, bucket=BUCKET, access_key=ACCESS_KEY, secret_key=SECRET_KEY
    )
    tools: dict[str, Move] = {"runbook apply + verify": move_ours}
    others: tuple[tuple[str, Move, tuple[str, ...]], ...] = (
        ("s5cmd mv", move_s5cmd, ("s5cmd",)),
        ("mc mv", move_mc, ("mcli", "minio-client", "mc")),
        ("rclone move", move_rclone, ("rclone",)),
    )
    for name, move, programs in others:
        if find_program(*programs):
            tools[name] = move
        else:
            print(f"  {name}: not installed, left out")
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    cpu: dict[str, list[float]] = {name: [] for name in tools}
    for _ in range(rounds):
        for name, move in tools.items():
            empty(store)
            fill(store, count, size_bytes)
            with tempfile.TemporaryDirectory() as folder:
                took, used = move(server, store, Path(folder))
            seconds[name].append(took)
            cpu[name].append(used)
            if (landed := empty(store)) != count:
                raise RuntimeError(f"{name} moved {landed} of {count}")
    ours = statistics.median(seconds["runbook apply + verify"])
    print(f"  {server.kind}, {count} objects of {size_bytes} bytes, median of {rounds}:")
    for name, taken in sorted(seconds.items(), key=lambda item: statistics.median(item[1])):
        median, listed = statistics.median(taken), " ".join(f"{s:.1f}" for s in taken)
        print(
            f"    {name:24} {median:7.1f} s   {median / ours:5.2f} × ours   ({listed})   "
            f"CPU of both {statistics.median(cpu[name]):.1f} s"
        )
    fill(store, count, size_bytes)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        make_plan(store, Path(folder))
        planned = time.perf_counter() - start
    print(f"    plan {planned:.2f} s, s5cmd ls {time_listing(server):.2f} s")
    empty(store)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--size-bytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("juicefs", "seaweedfs"))
    options = parser.parse_args()
    for name, run in (("juicefs", run_juicefs), ("seaweedfs", run_seaweedfs)):
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as folder, run(Path(folder)) as server:
                compare(
                    server,
                    count=options.objects,
                    size_bytes=options.size_bytes,
                    rounds=options.rounds,
                )
    measure_growth()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"  peak memory of this process: {peak / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
