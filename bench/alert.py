"""From Alertmanager's firing to the report on the ticket, on a real local stack.

Each round starts `runbook serve` anew with an empty folder. Its first alert, which comes at once,
is the cold one. Then the incident is closed, and the next alert is the warm one.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil
import requests

from bench.release import tabulate
from dataflow_stack import reporter
from dataflow_stack.config import StackConfig, load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.orders import inject_orders
from dataflow_stack.supervisor import Supervisor
from tests.support.stack import RunningStack, run_stack, wait_until

GOALS_S = {"cold": 10.0, "warm": 6.0}
_GROUP = "stack-tools"
_DEADLINE_S = 180
_POLL_S = 0.05
wait_closely = partial(wait_until, deadline_s=_DEADLINE_S, longest_pause_s=_POLL_S)
#: Less CPU in a second than this is rest.
_AT_REST_S = 0.02


class Cost(NamedTuple):
    ticket_s: float
    all_s: float


class Bench:
    def __init__(self, stack: RunningStack, config: StackConfig) -> None:
        self._stack = stack
        self._config = config
        self._supervisor = Supervisor(config)
        (order,) = inject_orders(stack.env["FULFILLMENT_URL"], 1)
        body = {
            "subject": "Where is my parcel?",
            "channel": "email",
            "context": [{"type": "order", "orderId": order}],
            "initialMessage": "It is late.",
        }
        answer = requests.post(f"{self._cases_url}", json=body, timeout=10)
        answer.raise_for_status()
        self._case = str(answer.json()["id"])

    @property
    def _cases_url(self) -> str:
        return f"{self._stack.env['SUPPORT_URL']}/support/cases"

    def restart(self) -> None:
        name = f"{_GROUP}:{reporter.NAME}"
        self._supervisor.stop(name)
        shutil.rmtree(self._config.runbook_home, ignore_errors=True)
        self._supervisor.start(name)
        wait_until(
            lambda: reporter.is_serving(self._config), what="serve answers", deadline_s=_DEADLINE_S
        )

    def find_process(self) -> psutil.Process:
        return psutil.Process(self._supervisor.programs()[reporter.NAME]["pid"])

    def measure(self, number: int) -> Cost:
        """Let Alertmanager fire an alert in a group of its own; return what its report took."""
        known = self._count_told()
        fired_at = time.time()
        self._fire(number)
        wait_closely(lambda: self._count_told() > known, what="the report is on the ticket")
        told_at = time.time()
        wait_closely(self._is_done, what="every target has its message")
        return Cost(told_at - fired_at, time.time() - fired_at)

    def wait_until_at_rest(self) -> None:
        def is_at_rest() -> bool:
            family = self.find_process().children(recursive=True)
            cpu_s = sum(map(read_cpu_s, family))
            time.sleep(1)
            return sum(map(read_cpu_s, family)) - cpu_s < _AT_REST_S

        wait_closely(is_at_rest, what="the service rests")

    def silence_others(self) -> None:
        """Keep the alerts of Prometheus from the service: each would ask for looks of its own."""
        now = datetime.now(UTC)
        silence = {
            "matchers": [
                {"name": "service", "value": "bench-.*", "isRegex": True, "isEqual": False}
            ],
            "startsAt": now.isoformat(),
            "endsAt": (now + timedelta(hours=6)).isoformat(),
            "createdBy": "bench",
            "comment": "bench.alert",
        }
        url = f"{self._stack.env['ALERTMANAGER_URL']}/api/v2/silences"
        requests.post(url, json=silence, timeout=10).raise_for_status()

    def _fire(self, number: int) -> None:
        labels = {
            "alertname": "FulfillmentDelay",
            "severity": "high",
            "service": f"bench-{number}",
            "support_case": self._case,
        }
        alert = {"labels": labels, "startsAt": datetime.now(UTC).isoformat()}
        url = f"{self._stack.env['ALERTMANAGER_URL']}/api/v2/alerts"
        requests.post(url, json=[alert], timeout=10).raise_for_status()

    def _count_told(self) -> int:
        answer = requests.get(f"{self._cases_url}/{self._case}", timeout=10)
        messages = answer.json()["messages"]
        return sum("[inc-" in message["message"] for message in messages)

    def _is_done(self) -> bool:
        url = f"http://{reporter.serve_address(self._config)}/metrics"
        lines = requests.get(url, timeout=10).text.splitlines()
        waiting = [line for line in lines if "waiting" in line and not line.startswith("#")]
        return all(line.endswith(" 0.0") for line in waiting)

    def close_incident(self) -> None:
        command = [sys.executable, "-m", "runbook_lib", "close"]
        subprocess.run(command, cwd=self._config.home, check=False, stdout=subprocess.DEVNULL)


def read_cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def make_table(costs: dict[str, list[Cost]], loads: list[float]) -> str:
    rows = [["", *(f"{name} s" for name in costs)]]
    totals: dict[str, Callable[[Cost], float]] = {
        "**from firing to the ticket**": lambda cost: cost.ticket_s,
        "from firing to every target": lambda cost: cost.all_s,
    }
    for title, pick in totals.items():
        picked = [sorted(map(pick, c)) for c in costs.values()]
        spans = [f"{statistics.median(v):.2f} ({v[0]:.2f} to {v[-1]:.2f})" for v in picked]
        rows.append([title, *spans])
    rows.append(["goal on an idle machine", *(f"≤ {GOALS_S[name]:.0f}" for name in costs)])
    rows.append(["load average", *([f"{min(loads):.1f} to {max(loads):.1f}"] * len(costs))])
    return tabulate(rows)


def run_rounds(bench: Bench, rounds: int) -> tuple[dict[str, list[Cost]], list[float]]:
    costs: dict[str, list[Cost]] = {"cold": [], "warm": []}
    loads = []
    for number in range(rounds):
        bench.restart()
        for look, kind in enumerate(costs, 1):
            if kind == "warm":
                bench.close_incident()
                bench.wait_until_at_rest()
            cost = bench.measure(10 * number + look)
            costs[kind].append(cost)
            load = os.getloadavg()[0]
            loads.append(load)
            words = f"round {number + 1}, {kind}: {cost.ticket_s:.2f} s, load {load:.1f}"
            print(f"  {words}", file=sys.stderr, flush=True)
    return costs, loads


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.alert", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runbook-bench-") as folder:
        home = Path(folder) / "stack"
        os.environ["RUNBOOK_HOME"] = str(Path(folder) / "reports")
        os.environ["RUNBOOK_STACK_HOME"] = str(home)
        with run_stack(home, serves=True) as stack:
            config = load_config(stack.home).remembered()
            FAULTS["pipeline_paused"].on(config)
            bench = Bench(stack, config)
            bench.silence_others()
            costs, loads = run_rounds(bench, options.rounds)
            FAULTS["pipeline_paused"].off(config)
    page = [
        "# From an alert to its report",
        f"`make bench-alert`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}. Median of {options.rounds} rounds, least to most in "
        "brackets.",
        make_table(costs, loads),
    ]
    print("\n\n".join(page))


if __name__ == "__main__":
    main()
