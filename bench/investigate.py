"""``runbook investigate`` beside papermill and nbconvert in a loop, and with more files that wait.

One real local stack. The loop runs the notebooks of ``investigate`` as a person would without this
project: ``papermill`` and then ``jupyter nbconvert --to html``, for each. The files that wait are
unfinished labels: the worker leaves them where they are.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.release import LABEL_BYTES, tabulate
from fulfillment.runbook import RUNBOOK
from objectmove.bucket import Request, S3Bucket
from tests.support.stack import RunningStack, run_stack

_DEADLINE_S = 600


def _run(command: list[str], stack: RunningStack, folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", *command],
        env={**stack.settings_env, "RUNBOOK_HOME": str(folder / "reports")},
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=_DEADLINE_S,
    )
    return time.perf_counter() - began


def _investigate(stack: RunningStack) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return _run(["runbook_lib", "investigate"], stack, Path(folder))


def _loop(stack: RunningStack) -> float:
    sections = RUNBOOK.sections
    took_s = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name in sections.read_only:
            notebook = str(sections.notebooks / f"{name}.ipynb")
            executed = f"{name}.ipynb"
            took_s += _run(["papermill", notebook, executed], stack, Path(folder))
            took_s += _run(["nbconvert", "--to", "html", executed], stack, Path(folder))
    return took_s


def _fill(stack: RunningStack, first: int, count: int) -> None:
    env = stack.env
    bucket = S3Bucket(
        endpoint=env["MINIO_ENDPOINT"],
        bucket=env["FULFILLMENT_BUCKET"],
        access_key=env["MINIO_ROOT_USER"],
        secret_key=env["MINIO_ROOT_PASSWORD"],
    )
    puts = []
    for number in range(first, count):
        key = f"pending/{9_000_000 + number}-0123456789ab.pdf"
        puts.append(Request("put", key, body=bytes(LABEL_BYTES)))
    answers = bucket.send(puts, signed_at=bucket.read_clock(), expires_s=_DEADLINE_S)
    if any(answer.effect != "done" for answer in answers):
        raise RuntimeError("a label could not be put")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.investigate", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, nargs=2, default=[100, 10_000])
    options = parser.parse_args()
    rows = [["", "s, median", "least to most", "ratio"]]

    def add(name: str, walls: list[float], base_s: float) -> float:
        median = statistics.median(walls)
        spread = f"{min(walls):.2f} to {max(walls):.2f}"
        rows.append([name, f"{median:.2f}", spread, f"{median / base_s:.2f}"])
        return median

    with tempfile.TemporaryDirectory() as folder, run_stack(Path(folder) / "stack") as stack:
        ours, loops = [], []
        for _ in range(options.rounds):
            ours.append(_investigate(stack))
            loops.append(_loop(stack))
        base_s = add("`runbook investigate`", ours, statistics.median(ours))
        add("papermill and nbconvert in a loop", loops, base_s)
        few, many = options.files
        _fill(stack, 0, few)
        walls = [_investigate(stack) for _ in range(options.rounds)]
        base_s = add(f"`runbook investigate`, {few:,} files wait", walls, statistics.median(walls))
        _fill(stack, few, many)
        walls = [_investigate(stack) for _ in range(options.rounds)]
        add(f"the same, {many:,} files wait", walls, base_s)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {options.rounds} rounds, load {os.getloadavg()[0]:.1f}\n")
    print(tabulate(rows))


if __name__ == "__main__":
    main()
