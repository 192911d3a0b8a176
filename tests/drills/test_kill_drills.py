"""A drill that is killed, or loses its network: the system is steady again within two minutes.

`make test-drills` runs all of it; `make test` only what has no mark ``long``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import requests
from urllib3.exceptions import MaxRetryError

from dataflow_stack import fault_state, health
from dataflow_stack.config import StackConfig, StackError, load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.supervisor import Supervisor
from dataflow_stack.topology import SERVICES
from fulfillment.change.exercises import REVERT_COMMAND, find_open_drill, get_drill_id
from runbook_lib.record.incident import Incident, list_incidents
from runbook_lib.redact import Redactor
from tests.support.stack import Runbook, RunningStack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

#: What the issue promises: steady within two minutes.
STEADY_WITHIN_S = 120.0
#: Each looks for a minute and a half whether the system is healthy.
_MOST_STARTS = 5


class DrillProcess(Runbook):
    @property
    def _told(self) -> Path:
        return self.home / "told.txt"

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        with self._told.open("wb") as told:
            return subprocess.Popen(
                [sys.executable, "-m", "runbook_lib", "drill", *options],
                env=self.environment,
                cwd=self.home,
                stdout=told,
                stderr=told,
            )

    def read_told(self) -> str:
        return self._told.read_text("utf-8", "replace")

    def bring_to(self, phase: str, scenario: str) -> subprocess.Popen[bytes]:
        """Start a drill and wait until a phase begins.

        A drill does not begin while the system is not healthy, as in the minutes after uploads
        failed. Then it is started again.
        """
        for _ in range(_MOST_STARTS):
            process = self.start("--scenario", scenario)
            if self._reaches(process, phase):
                return process
        raise AssertionError(self.read_told())

    def _reaches(self, process: subprocess.Popen[bytes], phase: str) -> bool:
        wait_until(
            lambda: phase in self.read_told() or process.poll() is not None,
            what=f"the drill reaches {phase}",
            deadline_s=300,
        )
        told = self.read_told()
        assert phase in told or "nothing was injected" in told, told
        return phase in told


@pytest.fixture
def drill(stack: RunningStack, tmp_path: Path) -> DrillProcess:
    config = load_config(home=stack.home).remembered()
    wait_until(lambda: is_calm(stack, config), what="the stack is calm", deadline_s=STEADY_WITHIN_S)
    return DrillProcess(stack, tmp_path)


def is_calm(stack: RunningStack, config: StackConfig) -> bool:
    if health.find_unhealthy(config) or health.read_lag_minutes(config) > 5:
        return False
    return not stack.list_alerts()


def find_drill(home: Path) -> str:
    """Return the id of the drill that is not taken back yet; empty: there is none."""
    incident = find_open_drill(home, redactor=Redactor())
    return get_drill_id(incident) if incident else ""


def find_left(stack: RunningStack, config: StackConfig, home: Path) -> dict[str, object]:
    left: dict[str, object] = dict(health.find_unhealthy(config))
    if left:
        return left
    try:
        worker = stack.get("FULFILLMENT_URL", "/fulfillment/worker")
        found: dict[str, object] = {
            "faults noted": sorted(fault_state.active(config)),
            "faults on": [name for name, fault in FAULTS.items() if fault.is_on(config)],
            "worker paused": worker["paused"],
            "synthetic labels": stack.list_keys(stack.env["CHAOS_PREFIX"]),
            "the lag, minutes": max(0.0, health.read_lag_minutes(config) - 5),
            "an open drill": find_drill(home),
        }
    except (StackError, requests.ConnectionError, MaxRetryError) as error:
        return {"an answer": str(error)}  # the revert starts a service again just now
    return {name: value for name, value in found.items() if value}


def wait_until_steady(stack: RunningStack, home: Path, *, since: float) -> None:
    config = load_config(home=stack.home).remembered()
    left: dict[str, object] = {}

    def is_steady() -> bool:
        left.clear()
        left.update(find_left(stack, config, home))
        return not left

    try:
        wait_until(
            is_steady,
            what="the steady state",
            deadline_s=since + STEADY_WITHIN_S - time.monotonic(),
        )
    except TimeoutError as error:
        log = home / "drill-watch.log"
        raise AssertionError(f"{error}: {left}\n{log.read_text('utf-8')}") from error


def end_drill(
    stack: RunningStack, drill: DrillProcess, scenario: str, phase: str, how: signal.Signals
) -> None:
    process = drill.bring_to(phase, scenario)
    process.send_signal(how)
    since = time.monotonic()
    process.wait(STEADY_WITHIN_S)
    if how is not signal.SIGKILL:
        assert process.returncode == 130, drill.read_told()
        assert "Traceback" not in drill.read_told()
    wait_until_steady(stack, drill.home, since=since)
    wait_until(lambda: are_closed(drill.home), what="the drill's incident is closed")


def are_closed(home: Path) -> bool:
    folders = list(list_incidents(home))
    states = [Incident(folder, redactor=Redactor()).is_closed for folder in folders]
    return all(states) and all((folder / "report.html").exists() for folder in folders)


@pytest.mark.parametrize(
    ("scenario", "phase", "how"),
    [
        ("pipeline_paused", "remedy:", signal.SIGKILL),
        ("synthetic", "alert:", signal.SIGTERM),
    ],
)
def test_a_drill_that_is_ended_leaves_nothing(
    stack: RunningStack, drill: DrillProcess, scenario: str, phase: str, how: signal.Signals
) -> None:
    end_drill(stack, drill, scenario, phase, how)


@contextmanager
def frozen(stack: RunningStack) -> Iterator[None]:
    """Let every service of the stack answer nothing, as behind a network that is away."""
    programs = Supervisor(load_config(home=stack.home).remembered()).programs()
    pids = [programs[name]["pid"] for name in SERVICES if programs[name]["pid"]]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.mark.long
@pytest.mark.parametrize("phase", ["alert:", "diagnosis:", "close:"])
def test_a_drill_that_loses_its_network_is_taken_back_when_it_is_there_again(
    stack: RunningStack, drill: DrillProcess, phase: str
) -> None:
    process = drill.bring_to(phase, "carrier_errors")
    with frozen(stack):
        process.wait(600)
        assert process.returncode in (1, 3), drill.read_told()
        # In the last phase the fault may be taken back already.
        is_left = find_drill(drill.home) != ""
        assert (REVERT_COMMAND in drill.read_told()) is is_left
        assert is_left or phase == "close:"
    wait_until_steady(stack, drill.home, since=time.monotonic())


def find_watchdogs(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if f"the watchdog of {home}" in words:
            found.append(process)
    return found


@pytest.mark.long
def test_without_a_watchdog_the_next_command_says_what_is_left_and_takes_it_back(
    stack: RunningStack, drill: DrillProcess
) -> None:
    process = drill.bring_to("diagnosis:", "carrier_errors")
    (watchdog,) = find_watchdogs(drill.home)
    watchdog.kill()
    process.kill()
    process.wait(30)
    drill_id = find_drill(drill.home)
    assert drill_id
    _, checked = drill.run("check")
    assert [(row["plan"], row["way_on"]) for row in checked["unfinished"]] == [
        (drill_id, REVERT_COMMAND)
    ]
    _, seen = drill.run("investigate")
    assert REVERT_COMMAND in seen["unfinished"]
    since = time.monotonic()
    code, reverted = drill.run("drill", "--revert")
    assert (code, reverted["drill"], reverted["reverted"]) == (0, drill_id, True)
    wait_until_steady(stack, drill.home, since=since)
