"""The whole way of a release, beside the bare moves of ``s5cmd``, ``mc`` and ``rclone``.

Ours are three commands as whole processes, with every guard: ``runbook plan``, ``apply`` and
``verify``, in an incident of its own each time. Every tool moves such labels in every round, each
time on a server of its own. What is compared is the median of the rounds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psutil

from objectmove.bucket import Request, S3Bucket
from tests.support.gateway import (
    ACCESS_KEY,
    BUCKET,
    SECRET_KEY,
    StoreServer,
    run_juicefs,
    run_seaweedfs,
)
from tests.support.slow_link import run_slow_link

SERVERS = {"juicefs": run_juicefs, "seaweedfs": run_seaweedfs}


STEPS = ("plan", "apply", "verify")
WHOLE = " + ".join(STEPS)
STOPPED = ", consumer stopped"


class Setup(NamedTuple):
    """A server, the link there and back, and the goal of each of our ways, as a ratio."""

    kind: str
    goals: dict[str, float]
    link_ms: float = 0

    @property
    def title(self) -> str:
        return f"{self.kind}, behind a link of {self.link_ms:g} ms" if self.link_ms else self.kind


_LINK_GOALS = {WHOLE: 2.5, WHOLE + STOPPED: 1.5}
SETUPS = {
    "juicefs": Setup("juicefs", {WHOLE: 2.0}),
    "seaweedfs": Setup("seaweedfs", {WHOLE: 1.0}),
    "juicefs-link": Setup("juicefs", _LINK_GOALS, link_ms=10),
    "seaweedfs-link": Setup("seaweedfs", _LINK_GOALS, link_ms=10),
}
GROWTH = (10_000, 100_000)
_PATHS = f"{BUCKET}/pending/", f"{BUCKET}/ready/"
#: Our ways, and what each adds to ``runbook apply``.
OURS = {WHOLE: (), WHOLE + STOPPED: ("--consumer-stands-still",)}
#: The names of each tool's program, and its arguments for a move.
TOOLS = {
    "s5cmd mv": (("s5cmd",), "--numworkers 64 mv s3://{}* s3://{}"),
    "mc mv": (("mcli", "minio-client", "mc"), "mv --recursive bench/{} bench/{}"),
    "rclone move": (("rclone",), "move --transfers 64 --checkers 64 :s3:{} :s3:{}"),
}
SYSTEMS = "PROMETHEUS ALERTMANAGER GRAFANA SUPPORT FULFILLMENT PIPELINE PROBE"
#: What somebody sets who has the store and none of the other systems.
SETTINGS = {
    "LABEL_FINISHED": "metadata:tracking-number",
    "WORKER_CONTROL": "none",
    "RUNBOOK_SERVICES": "none",
    **{f"{system}_URL": "" for system in SYSTEMS.split()},
}
LABEL_BYTES = 1000
_REST_S = 2
_TIMEOUT_S = 900
#: Starts a command: to Linux, a command's peak is at least that of the process that starts it.
_LAUNCHER = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
wall_s = time.perf_counter() - start
with open(sys.argv[1], "w") as file:
    print(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, file=file)
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Cost(NamedTuple):
    """What a command took: seconds, CPU seconds of its process and of the server's, memory."""

    wall_s: float
    client_cpu_s: float
    server_cpu_s: float
    peak_mib: float


def find_program(*names: str) -> str | None:
    for name in names:
        beside = Path(sys.executable).parent / name
        if found := str(beside) if beside.exists() else shutil.which(name):
            return found
    return None


def make_environment(endpoint: str, home: Path, count: int = 0) -> dict[str, str]:
    """Return how every program finds the server; nothing else of this shell."""
    url = f"http://{endpoint}"
    return SETTINGS | {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "RUNBOOK_HOME": str(home / "reports"),
        "MINIO_ENDPOINT": endpoint,
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
        "FULFILLMENT_BUCKET": BUCKET,
        "RELEASE_LIMIT_OBJECTS": str(max(count, 5000)),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "S3_ENDPOINT_URL": url,
        "MC_HOST_bench": url.replace("//", f"//{ACCESS_KEY}:{SECRET_KEY}@"),
        "RCLONE_S3_PROVIDER": "Other",
        "RCLONE_S3_ENV_AUTH": "true",
        "RCLONE_S3_ENDPOINT": url,
        "RCLONE_S3_REGION": "us-east-1",
    }


def run(server: StoreServer, command: list[str], environment: dict[str, str]) -> tuple[Cost, str]:
    """Run a command that has to end with 0; return its cost and its stdout."""
    assert server.process is not None
    server_process = psutil.Process(server.process.pid)

    def read_server_cpu_s() -> float:
        used = server_process.cpu_times()
        return used.user + used.system

    with tempfile.TemporaryDirectory() as folder:
        measured = Path(folder) / "measured"
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(measured)]
        served = read_server_cpu_s()
        done = subprocess.run(
            [*launcher, *command],
            env=environment,
            cwd=environment["HOME"],
            capture_output=True,
            text=True,
            check=False,
        )
        served = read_server_cpu_s() - served
        if done.returncode != 0:
            told = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {told}")
        wall_s, cpu_s, peak_kib = map(float, measured.read_text("utf-8").split())
    return Cost(wall_s, cpu_s, served, peak_kib / 1024), done.stdout


def release(
    server: StoreServer, options: Sequence[str], environment: dict[str, str], count: int
) -> dict[str, Cost]:
    program = find_program("runbook") or "runbook"
    costs = {}

    def take(step: str, field: str, *arguments: str) -> dict[str, str]:
        command = [program, step, *arguments, "--json"]
        costs[step], said = run(server, command, environment)
        document = json.loads(said)
        if document[field] != count:
            raise RuntimeError(f"{' '.join(command)}: {field} is not {count}: {said[:2000]}")
        return dict(document)

    plan = take("plan", "objects")
    take("apply", "moved", plan["plan"], "--approve", plan["sha256"], *options)
    take("verify", "in_place", plan["plan"])
    return costs


def fill(bucket: S3Bucket, count: int) -> dict[str, str]:
    same = {"content-type": "application/pdf"}
    puts, etags = [], {}
    for n in range(count):
        name, body = f"{n:07d}-0123456789ab.pdf", random.randbytes(LABEL_BYTES)
        own = {"x-amz-meta-order-id": str(n), "x-amz-meta-tracking-number": f"TRK{n}"}
        puts.append(Request("put", f"pending/{name}", body=body, headers=same | own))
        etags[name] = hashlib.md5(body).hexdigest()  # noqa: S324
    answers = bucket.send(puts, signed_at=bucket.read_clock(), expires_s=_TIMEOUT_S)
    if failed := next((answer for answer in answers if answer.effect != "done"), None):
        raise RuntimeError(f"a label could not be put: {failed}")
    return etags


def measure(setup: Setup, way: str, *, count: int) -> dict[str, Cost]:
    """Return the costs of a way of ours or a tool, on a fresh server; check what it moved."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(SERVERS[setup.kind](folder / "store"))
        home = folder / "home"
        home.mkdir()
        bucket = S3Bucket(
            endpoint=server.endpoint, bucket=BUCKET, access_key=ACCESS_KEY, secret_key=SECRET_KEY
        )
        labels = fill(bucket, count)
        endpoint = server.endpoint
        if setup.link_ms:
            endpoint = stack.enter_context(run_slow_link(endpoint, setup.link_ms / 2000))
        environment = make_environment(endpoint, home, count)
        time.sleep(_REST_S)
        if way in OURS:
            taken = release(server, OURS[way], environment, count)
            suffix = way.removeprefix(WHOLE)
            costs = {f"{step}{suffix}": cost for step, cost in taken.items()}
            costs[way] = _add(list(taken.values()))
        else:
            names, arguments = TOOLS[way]
            command = [find_program(*names) or names[0], *arguments.format(*_PATHS).split()]
            cost, _ = run(server, command, environment)
            costs = {way: cost}
        left = sum(1 for _ in bucket.list_objects("pending/"))
        landed = {seen.key: seen.etag for seen in bucket.list_objects("ready/")}
    if left or landed != {f"ready/{name}": etag for name, etag in labels.items()}:
        raise RuntimeError(f"{way}: {left} labels left, {len(landed)} of {count} under ready/")
    return costs


def compare(setup: Setup, tools: list[str], *, count: int, rounds: int) -> str:
    """Run ours and each tool in turn; return a table of the medians."""
    ways = [*setup.goals, *tools]
    costs: dict[str, list[Cost]] = {}
    for number in range(rounds):
        for way in ways if number % 2 == 0 else ways[::-1]:
            for command, cost in measure(setup, way, count=count).items():
                costs.setdefault(command, []).append(cost)
                print(
                    f"  {setup.title}, {command}: {cost.wall_s:.2f} s", file=sys.stderr, flush=True
                )
    medians = {name: _take_medians(measured) for name, measured in costs.items()}
    fastest = min(tools, key=lambda tool: medians[tool].wall_s, default=WHOLE)
    titles = [setup.title, "s", "least to most", f"ratio to {fastest}", "goal"]
    rows = [[*titles, "client CPU s", "server CPU s", "peak MiB"]]
    for name in sorted(costs, key=lambda name: (name in tools, STOPPED in name)):
        walls = [cost.wall_s for cost in costs[name]]
        median = medians[name]
        goal = setup.goals.get(name)
        rows.append(
            [
                name,
                f"{median.wall_s:.2f}",
                f"{min(walls):.2f} to {max(walls):.2f}",
                f"{median.wall_s / medians[fastest].wall_s:.2f}",
                f"≤ {goal}" if goal else "",
                f"{median.client_cpu_s:.2f}",
                f"{median.server_cpu_s:.2f}",
                f"{median.peak_mib:.0f}",
            ]
        )
    return tabulate(rows)


def _add(costs: Sequence[Cost]) -> Cost:
    return Cost(
        sum(cost.wall_s for cost in costs),
        sum(cost.client_cpu_s for cost in costs),
        sum(cost.server_cpu_s for cost in costs),
        max(cost.peak_mib for cost in costs),
    )


def _take_medians(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


def measure_growth(counts: Sequence[int]) -> str:
    """Release more and more labels from SeaweedFS, once each; return a table."""
    rows = [["labels", *(f"{step} s" for step in STEPS), "ms a label", "peak MiB"]]
    for count in counts:
        costs = measure(SETUPS["seaweedfs"], WHOLE, count=count)
        walls = [f"{costs[step].wall_s:.1f}" for step in STEPS]
        whole = costs[WHOLE]
        each_ms = f"{1000 * whole.wall_s / count:.2f}"
        rows.append([f"{count:,}", *walls, each_ms, f"{whole.peak_mib:.0f}"])
    return tabulate(rows)


def tabulate(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    head, *body = rows
    lines = [head, ["-" * width for width in widths], *body]
    padded = ([text.ljust(w) for text, w in zip(row, widths, strict=True)] for row in lines)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def read_versions() -> str:
    said = [f"Python {platform.python_version()}"]
    # Debian's minio-client does not know its own version.
    programs = [(name, "version") for name in ("juicefs", "weed", "s5cmd", "rclone")]
    for name, *arguments in [*programs, ("dpkg-query", "-W", "minio-client")]:
        if program := find_program(name):
            done = subprocess.run([program, *arguments], capture_output=True, check=False)
            package = "minio-client" if name == "dpkg-query" else name
            version = re.search(r"\d+\.\d+[\w.~-]*", done.stdout.decode())
            said.append(f"{package} {version.group() if version else 'unknown'}")
    return ", ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.release", description=__doc__)
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=[*SETUPS, "growth"])
    options = parser.parse_args()
    tools = [tool for tool, (names, _) in TOOLS.items() if find_program(*names)]
    print(f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores. {read_versions()}.")
    print(f"{options.objects} labels of {LABEL_BYTES} bytes, median of {options.rounds} rounds.")
    for name in options.only or [*SETUPS, "growth"]:
        load = f"load {os.getloadavg()[0]:.1f}"
        if name == "growth":
            table = measure_growth(GROWTH)
        else:
            setup = SETUPS[name]
            table = compare(setup, tools, count=options.objects, rounds=options.rounds)
        print(f"\n{table}\n\n{load} before it", flush=True)


if __name__ == "__main__":
    main()
