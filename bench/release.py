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
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
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

SERVERS = {"juicefs": run_juicefs, "seaweedfs": run_seaweedfs}
VARIANTS = {"without `pending-since`": False, "with `pending-since`": True}
STEPS = ("plan", "apply", "verify")
#: What is added up, and the most that it may take, as a ratio to the fastest tool.
SUMS = {"apply + verify": (STEPS[1:], 0.8), "plan + apply + verify": (STEPS, 1.0)}
_PATHS = f"{BUCKET}/pending/", f"{BUCKET}/ready/"
#: The names of each tool's program, and its arguments for a move; ours are three commands.
TOOLS = {
    "runbook": (("runbook",), ""),
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
#: Labels of a backlog have been there for a while: `runbook` looks twice at what was just written.
_SETTLE_S = 11
_TIMEOUT_S = 900


class Cost(NamedTuple):
    """What a command took: seconds, and CPU seconds of its process and of the server's."""

    wall_s: float
    client_cpu_s: float
    server_cpu_s: float


def find_program(*names: str) -> str | None:
    """Return the first of the programs that is installed, beside Python or on PATH."""
    for name in names:
        beside = Path(sys.executable).with_name(name)
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
    process = psutil.Process(server.process.pid)

    def read_cpu_s() -> tuple[float, float]:
        # Of the children only those count that have ended: the server has not.
        ended, used = resource.getrusage(resource.RUSAGE_CHILDREN), process.cpu_times()
        return ended.ru_utime + ended.ru_stime, used.user + used.system

    start, (client, served) = time.perf_counter(), read_cpu_s()
    done = subprocess.run(
        command,
        env=environment,
        cwd=environment["HOME"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    wall, (client_end, served_end) = time.perf_counter() - start, read_cpu_s()
    if done.returncode != 0:
        said = f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {said}")
    return Cost(wall, client_end - client, served_end - served), done.stdout


def release(
    server: StoreServer, program: str, environment: dict[str, str], count: int
) -> dict[str, Cost]:
    """Plan, apply and verify, each as a person types it."""
    costs = {}

    def take(step: str, field: str, *arguments: str) -> dict[str, str]:
        command = [program, step, *arguments, "--json"]
        costs[step], said = run(server, command, environment)
        document = json.loads(said)
        if document[field] != count:
            raise RuntimeError(f"{' '.join(command)}: {field} is not {count}: {said[:2000]}")
        return dict(document)

    plan = take("plan", "objects")
    take("apply", "moved", plan["plan"], "--approve", plan["sha256"])
    take("verify", "in_place", plan["plan"])
    return costs


def fill(bucket: S3Bucket, count: int, *, has_since: bool) -> dict[str, str]:
    """Put finished labels under ``pending/``; return each one's ETag by its name."""
    since = (datetime.now(UTC) - timedelta(minutes=20)).strftime("%Y-%m-%dT%H:%M:%SZ")
    same = {"content-type": "application/pdf"}
    if has_since:
        same["x-amz-meta-pending-since"] = since
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


def measure(kind: str, tool: str, *, count: int, has_since: bool) -> dict[str, Cost]:
    """Return the cost of each of the tool's commands on a fresh server; check what they moved."""
    names, arguments = TOOLS[tool]
    program = find_program(*names) or names[0]
    with tempfile.TemporaryDirectory() as folder, SERVERS[kind](Path(folder) / "store") as server:
        (home := Path(folder) / "home").mkdir()
        bucket = S3Bucket(
            endpoint=server.endpoint, bucket=BUCKET, access_key=ACCESS_KEY, secret_key=SECRET_KEY
        )
        labels = fill(bucket, count, has_since=has_since)
        environment = make_environment(server.endpoint, home, count)
        time.sleep(_SETTLE_S)
        if tool == "runbook":
            costs = release(server, program, environment, count)
        else:
            command = [program, *arguments.format(*_PATHS).split()]
            costs = {tool: run(server, command, environment)[0]}
        left = sum(1 for _ in bucket.list_objects("pending/"))
        landed = {seen.key: seen.etag for seen in bucket.list_objects("ready/")}
    if left or landed != {f"ready/{name}": etag for name, etag in labels.items()}:
        raise RuntimeError(f"{tool}: {left} labels left, {len(landed)} of {count} under ready/")
    return costs


def compare(kind: str, tools: list[str], *, count: int, has_since: bool, rounds: int) -> str:
    """Run each tool in turn, every other round from the last one; return a table."""
    costs: dict[str, list[Cost]] = {name: [] for name in (*STEPS, *SUMS)}
    for number in range(rounds):
        for tool in tools if number % 2 == 0 else tools[::-1]:
            taken = measure(kind, tool, count=count, has_since=has_since)
            for command, cost in taken.items():
                costs.setdefault(command, []).append(cost)
            said = ", ".join(f"{command} {cost.wall_s:.2f} s" for command, cost in taken.items())
            load = f"{os.getloadavg()[0]:.1f}"
            print(f"  {kind}, round {number + 1}, load {load}: {said}", file=sys.stderr, flush=True)
    for name, (steps, _) in SUMS.items():
        parts = zip(*(costs[step] for step in steps), strict=True)
        costs[name] = [Cost(*map(sum, zip(*one, strict=True))) for one in parts]
    medians = {
        name: Cost(*map(statistics.median, zip(*c, strict=True))) for name, c in costs.items()
    }
    fastest = min(tools[1:], key=lambda tool: medians[tool].wall_s, default="apply + verify")
    titles = ["", "s", "least to most", f"ratio to {fastest}", "goal"]
    rows = [[*titles, "client CPU s", "server CPU s"]]
    for name, median in medians.items():
        walls = [cost.wall_s for cost in costs[name]]
        row = [name, f"{median.wall_s:.2f}", f"{min(walls):.2f} to {max(walls):.2f}"]
        row.append(f"{median.wall_s / medians[fastest].wall_s:.2f}")
        row.append(f"≤ {SUMS[name][1]}" if name in SUMS else "")
        rows.append([*row, f"{median.client_cpu_s:.2f}", f"{median.server_cpu_s:.2f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    padded = ([text.ljust(w) for text, w in zip(row, widths, strict=True)] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def profile_start() -> str:
    """Return how long a command takes before it does anything: interpreter and imports."""
    said = []
    with tempfile.TemporaryDirectory() as folder:
        environment = make_environment("127.0.0.1:1", Path(folder))
        # The last one reads the settings and finds no such plan.
        for text in ("python -c pass", "runbook --help", "runbook verify none"):
            name, *arguments = text.split()
            command = [find_program(name) or name, *arguments]
            walls = []
            for _ in range(5):
                start = time.perf_counter()
                subprocess.run(
                    command, env=environment, cwd=folder, capture_output=True, check=False
                )
                walls.append(time.perf_counter() - start)
            said.append(f"`{text}` {statistics.median(walls):.2f} s")
    return f"Start and imports, which each command pays: {', '.join(said)}."


def read_versions() -> str:
    """Return the versions of servers and tools, and of Python."""
    said = [f"Python {platform.python_version()}"]
    # Debian's minio-client does not know its own version.
    programs = [(name, "version") for name in ("juicefs", "weed", "s5cmd", "rclone")]
    for name, *arguments in [*programs, ("dpkg-query", "-W", "minio-client")]:
        if program := find_program(name):
            done = subprocess.run([program, *arguments], capture_output=True, check=False)
            words = done.stdout.decode().partition("\n")[0].split()
            said.append(" ".join([name, *(w for w in words if w not in (name, "version"))]))
    return ", ".join(said).replace("dpkg-query ", "")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="python -m bench.release", description=__doc__)
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=tuple(SERVERS), help="one of the servers")
    parser.add_argument("--write", type=Path, help="a Markdown file for what is printed")
    options = parser.parse_args()
    tools = [tool for tool, (names, _) in TOOLS.items() if find_program(*names)]
    if missing := ", ".join(TOOLS.keys() - tools):
        print(f"not installed, left out: {missing}", file=sys.stderr)
    settings = " ".join(f"`{name}={text}`" for name, text in SETTINGS.items())
    said = [
        "# A release beside three tools",
        f"`make bench`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores. {read_versions()}.",
        f"{options.objects} labels of {LABEL_BYTES} bytes, median of {options.rounds} rounds. In "
        f"each, every tool had a fresh server and labels that were {_SETTLE_S} s old; every other "
        "round went from the last tool to the first. The server's CPU counts while a command runs.",
        f"Settings: {settings}.",
        profile_start(),
    ]
    print("\n\n".join(said), flush=True)
    for kind in SERVERS if options.only is None else [options.only]:
        for variant, has_since in VARIANTS.items():
            table = compare(
                kind, tools, count=options.objects, has_since=has_since, rounds=options.rounds
            )
            said += [f"## {kind}, {variant}", table]
            print(f"\n{said[-2]}\n\n{table}", flush=True)
    if options.write:
        options.write.write_text("\n\n".join(said) + "\n", "utf-8")


if __name__ == "__main__":
    main()
