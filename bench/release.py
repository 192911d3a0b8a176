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
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
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
from tests.support.slow_link import run_slow_link

SERVERS = {"juicefs": run_juicefs, "seaweedfs": run_seaweedfs}


class Setup(NamedTuple):
    """What is measured: a server, the labels, the link, and the most that the whole way may take.

    ``goal`` is a ratio to the fastest tool; ``delay_ms`` is what the link adds each way.
    """

    kind: str
    goal: float
    has_since: bool = False
    delay_ms: float = 0

    @property
    def title(self) -> str:
        """Its name in the tables."""
        words = [self.kind]
        if self.has_since:
            words.append("with `pending-since`")
        if self.delay_ms:
            words.append(f"behind a link that adds {self.delay_ms:g} ms each way")
        return ", ".join(words)


SETUPS = {
    "juicefs": Setup("juicefs", 1.6),
    "juicefs-since": Setup("juicefs", 1.6, has_since=True),
    "seaweedfs": Setup("seaweedfs", 1.3),
    "seaweedfs-since": Setup("seaweedfs", 1.3, has_since=True),
    "slow-link": Setup("seaweedfs", 1.2, delay_ms=5),
}
STEPS = ("plan", "apply", "verify")
WHOLE = " + ".join(STEPS)
#: How many labels the growth is measured with, and the most memory that a command may take.
GROWTH = (5_000, 100_000)
_MOST_MIB = 350
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
    """What a command took: seconds, CPU seconds of its process and of the server's, memory."""

    wall_s: float
    client_cpu_s: float
    server_cpu_s: float
    peak_mib: float


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
    server_process = psutil.Process(server.process.pid)

    def read_server_cpu_s() -> float:
        used = server_process.cpu_times()
        return used.user + used.system

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        served = read_server_cpu_s()
        process = subprocess.Popen(
            command, env=environment, cwd=environment["HOME"], stdout=out, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        served = read_server_cpu_s() - served
        out.seek(0)
        errors.seek(0)
        said = out.read().decode()
        if process.returncode != 0:
            told = f"{said[-2000:]}\n{errors.read().decode()[-2000:]}"
            raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}: {told}")
    # Linux counts in KiB, macOS in bytes.
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    cpu_s = usage.ru_utime + usage.ru_stime
    return Cost(wall, cpu_s, served, usage.ru_maxrss / unit), said


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


def measure(setup: Setup, tool: str, *, count: int) -> dict[str, Cost]:
    """Return the cost of each of the tool's commands on a fresh server; check what they moved."""
    names, arguments = TOOLS[tool]
    program = find_program(*names) or names[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(SERVERS[setup.kind](folder / "store"))
        home = folder / "home"
        home.mkdir()
        bucket = S3Bucket(
            endpoint=server.endpoint, bucket=BUCKET, access_key=ACCESS_KEY, secret_key=SECRET_KEY
        )
        labels = fill(bucket, count, has_since=setup.has_since)
        endpoint = server.endpoint
        if setup.delay_ms:
            link = stack.enter_context(run_slow_link(endpoint, setup.delay_ms / 1000))
            endpoint = link.endpoint
        environment = make_environment(endpoint, home, count)
        time.sleep(_SETTLE_S)
        if tool == "runbook":
            costs = release(server, program, environment, count)
        else:
            command = [program, *arguments.format(*_PATHS).split()]
            cost, _ = run(server, command, environment)
            costs = {tool: cost}
        left = sum(1 for _ in bucket.list_objects("pending/"))
        landed = {seen.key: seen.etag for seen in bucket.list_objects("ready/")}
    if left or landed != {f"ready/{name}": etag for name, etag in labels.items()}:
        raise RuntimeError(f"{tool}: {left} labels left, {len(landed)} of {count} under ready/")
    return costs


def compare(setup: Setup, tools: list[str], *, count: int, rounds: int) -> str:
    """Run each tool in turn, every other round in reverse order; return a table."""
    costs: dict[str, list[Cost]] = {name: [] for name in (*STEPS, WHOLE)}
    for number in range(rounds):
        for tool in tools if number % 2 == 0 else tools[::-1]:
            taken = measure(setup, tool, count=count)
            for command, cost in taken.items():
                costs.setdefault(command, []).append(cost)
            said = ", ".join(f"{command} {cost.wall_s:.2f} s" for command, cost in taken.items())
            where = f"{setup.title}, round {number + 1}, load {os.getloadavg()[0]:.1f}"
            print(f"  {where}: {said}", file=sys.stderr, flush=True)
    costs[WHOLE] = [_add(one) for one in zip(*(costs[step] for step in STEPS), strict=True)]
    medians = {name: _take_medians(measured) for name, measured in costs.items()}
    fastest = min(tools[1:], key=lambda tool: medians[tool].wall_s, default=WHOLE)
    titles = ["", "s", "least to most", f"ratio to {fastest}", "goal"]
    rows = [[*titles, "client CPU s", "server CPU s", "peak MiB"]]
    for name, median in medians.items():
        walls = [cost.wall_s for cost in costs[name]]
        rows.append(
            [
                name,
                f"{median.wall_s:.2f}",
                f"{min(walls):.2f} to {max(walls):.2f}",
                f"{median.wall_s / medians[fastest].wall_s:.2f}",
                f"≤ {setup.goal}" if name == WHOLE else "",
                f"{median.client_cpu_s:.2f}",
                f"{median.server_cpu_s:.2f}",
                f"{median.peak_mib:.0f}",
            ]
        )
    return tabulate(rows)


def _add(costs: Sequence[Cost]) -> Cost:
    """Return what commands took that ran one after the other."""
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
    titles = ["labels", *(f"{step} s" for step in STEPS), "peak MiB", "goal"]
    rows = [titles]
    for count in counts:
        costs = measure(SETUPS["seaweedfs"], "runbook", count=count)
        seconds = [f"{costs[step].wall_s:.1f}" for step in STEPS]
        peak = f"{_add(list(costs.values())).peak_mib:.0f}"
        rows.append([f"{count:,}", *seconds, peak, f"≤ {_MOST_MIB}"])
        print(f"  growth: {rows[-1]}", file=sys.stderr, flush=True)
    return tabulate(rows)


def tabulate(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table; the first row is the head."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    head, *body = rows
    lines = [head, ["-" * width for width in widths], *body]
    padded = ([text.ljust(w) for text, w in zip(row, widths, strict=True)] for row in lines)
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
    parser.add_argument("--only", nargs="*", choices=[*SETUPS, "growth"], help="some of the parts")
    parser.add_argument("--write", type=Path, help="a Markdown file for what is printed")
    options = parser.parse_args()
    tools = [tool for tool, (names, _) in TOOLS.items() if find_program(*names)]
    if missing := ", ".join(TOOLS.keys() - tools):
        print(f"not installed, left out: {missing}", file=sys.stderr)
    settings = " ".join(f"`{name}={text}`" for name, text in SETTINGS.items())
    said = [
        "# How fast a release is, beside three tools",
        f"`make bench`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores. {read_versions()}.",
        f"{options.objects} labels of {LABEL_BYTES} bytes, median of {options.rounds} rounds. In "
        f"each round, every tool had a fresh server and labels that were {_SETTLE_S} s old; every "
        "second round ran the tools in reverse order. The server's CPU counts while a command "
        "runs.",
        f"Settings: {settings}.",
        profile_start(),
    ]
    print("\n\n".join(said), flush=True)
    wanted = options.only or [*SETUPS, "growth"]
    for name in wanted:
        if name == "growth":
            said += ["## More labels, on seaweedfs", measure_growth(GROWTH)]
        else:
            setup = SETUPS[name]
            table = compare(setup, tools, count=options.objects, rounds=options.rounds)
            said += [f"## {setup.title}", table]
        print(f"\n{said[-2]}\n\n{said[-1]}", flush=True)
    if options.write:
        options.write.write_text("\n\n".join(said) + "\n", "utf-8")


if __name__ == "__main__":
    main()
