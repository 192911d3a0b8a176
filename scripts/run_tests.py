"""Run every test that needs a process or a server: what `make test` runs after `make check`.

Four lanes run beside each other. They wait for servers as often as they compute, and more lanes
would only wait for two cores. The first lane's output is shown as it comes, that of the others when
all are done. A failure is a failure: nothing is run a second time.

A part of the tests counts only with a report of this run, written at its end. If pytest is killed,
breaks off, or finds no test, the part is broken.

`make test-airflow` runs tests/airflow, in an environment of its own. `make test-long` runs tests
with the mark `long`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from typing import NamedTuple

import pytest

_REPORTS = Path(".pytest_cache/parts")
_EXPLORER = "tests/tools/test_explorer.py"
#: Folders that have a part of their own, or need another environment.
_OWN_FOLDERS = (
    "airflow",
    "alerting",
    "browser",
    "drills",
    "faults",
    "foreign",
    "notebooks",
    "runbook_lib",
    "stack",
)


class Part(NamedTuple):
    """Tests that one pytest runs.

    Attributes
    ----------
    arguments : pytest's; options come before paths
    """

    name: str
    arguments: tuple[str, ...]


class Lane(NamedTuple):
    """Parts that run one after the other.

    Attributes
    ----------
    number : which ports its servers take; two workers take those of two lanes
    """

    number: int
    parts: tuple[Part, ...]


class Outcome(NamedTuple):
    """How a part ended.

    Attributes
    ----------
    failed : ids of the tests that failed, or that could not be collected
    broken : why the part did not run to its end; empty if it did
    """

    failed: frozenset[str] = frozenset()
    broken: str = ""


_ELSEWHERE = (
    *(f"--ignore=tests/{folder}" for folder in _OWN_FOLDERS),
    f"--deselect={_EXPLORER}",
    "tests",
)
_LANES = (
    Lane(
        0,
        (
            Part("stack", ("tests/stack",)),
            Part("drills", ("tests/drills",)),
        ),
    ),
    Lane(1, (Part("stores", ("-n2", "--dist=worksteal", "tests/foreign", "tests/faults")),)),
    Lane(3, (Part("alerting", ("tests/alerting",)),)),
    Lane(
        4,
        (
            Part("browser", ("tests/browser",)),
            Part("notebooks", ("tests/notebooks",)),
            Part("library", ("tests/runbook_lib",)),
            Part("elsewhere", _ELSEWHERE),
        ),
    ),
)


class Recorder:
    """Pytest's plugin that writes which tests failed, when a session ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._failed: set[str] = set()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that cannot be collected."""
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how set-up, test or tear-down ended."""
        if report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the report."""
        report = {"exit": int(exitstatus), "failed": sorted(self._failed)}
        self._path.write_text(json.dumps(report), "utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the report."""
    parser.addoption("--part-report", type=Path, help="where to write which tests failed")


def pytest_configure(config: pytest.Config) -> None:
    """Record the session, but not in a worker, which knows only its own tests."""
    path = config.getoption("--part-report")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(path))


def judge_part(exit_code: int, report: Path) -> Outcome:
    """Return how a part ended, by its process and the report that it wrote.

    Parameters
    ----------
    exit_code : of pytest's process; below 0 if a signal killed it
    report : may be missing or cut off
    """
    if exit_code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return Outcome(broken=f"pytest ended with {exit_code}")
    try:
        content = json.loads(report.read_text("utf-8"))
    except (OSError, ValueError) as error:
        return Outcome(broken=f"no report: {error}")
    if content["exit"] != exit_code:
        return Outcome(broken=f"pytest ended with {exit_code}, its report says {content['exit']}")
    failed = frozenset(content["failed"])
    if bool(failed) != bool(exit_code):
        return Outcome(broken=f"pytest ended with {exit_code}, and {len(failed)} tests failed")
    return Outcome(failed=failed)


def list_verdicts(outcomes: dict[str, Outcome]) -> tuple[list[str], bool]:
    """Return the lines that a run ends with, and whether the run is green."""
    failed = []
    broken = []
    for name, outcome in outcomes.items():
        failed += [f"failed: {test}" for test in sorted(outcome.failed)]
        if outcome.broken:
            broken.append(f"broken: {name}: {outcome.broken}")
    lines = [*failed, *broken]
    return lines, not lines


def run_part(
    name: str, arguments: Iterable[str], *, lane: int = 0, log: Path | None = None
) -> Outcome:
    """Run a part of the tests, and return how it ended.

    Parameters
    ----------
    name : names the report
    log : gets the output; None: it is shown
    """
    report = _REPORTS / f"{name}.json"
    command = [
        *(sys.executable, "-m", "pytest", "-p", "scripts.run_tests", "-p", "no:cacheprovider"),
        *("-m", "process and not long", "--durations=8", f"--part-report={report.absolute()}"),
        *arguments,
    ]
    environment = {**os.environ, "TEST_LANE": str(lane)}
    if log is None:
        exit_code = subprocess.run(command, env=environment, check=False).returncode
    else:
        with log.open("ab") as output:
            exit_code = subprocess.run(
                command, env=environment, check=False, stdout=output, stderr=output
            ).returncode
    return judge_part(exit_code, report)


def run_lane(lane: Lane, stopped: Event) -> dict[str, Outcome]:
    """Run a lane's parts, one after the other, and return how each ended.

    Parameters
    ----------
    stopped : once it is set, no part begins: Ctrl-C ends only the part that runs
    """
    outcomes = {}
    for part in lane.parts:
        if stopped.is_set():
            outcomes[part.name] = Outcome(broken="not run")
            continue
        log = None if lane.number == 0 else _REPORTS / f"{part.name}.log"
        outcomes[part.name] = run_part(part.name, part.arguments, lane=lane.number, log=log)
    return outcomes


def main() -> int:
    """Run all lanes, then the explorer; return 1 unless all of it is green."""
    shutil.rmtree(_REPORTS, ignore_errors=True)
    _REPORTS.mkdir(parents=True)
    outcomes: dict[str, Outcome] = {}
    stopped = Event()
    with ThreadPoolExecutor(len(_LANES)) as pool:
        try:
            for outcomes_of_lane in pool.map(partial(run_lane, stopped=stopped), _LANES):
                outcomes |= outcomes_of_lane
        except KeyboardInterrupt:
            stopped.set()
            raise
    for log in sorted(_REPORTS.glob("*.log"), key=lambda log: log.stat().st_mtime):
        sys.stdout.write(log.read_text("utf-8", errors="replace"))
    sys.stdout.flush()
    # The explorer keeps every core busy, and the stores' tests hold leases: so it comes last.
    outcomes["explorer"] = run_part("explorer", [_EXPLORER])
    lines, is_green = list_verdicts(outcomes)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0 if is_green else 1


if __name__ == "__main__":
    raise SystemExit(main())
