"""From Alertmanager's firing to the report on the ticket, on a real local stack.

Each round starts `runbook serve` anew, with an empty folder, and fires one alert.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import requests

from bench.release import tabulate
from dataflow_stack import reporter
from dataflow_stack.config import StackConfig, load_config
from dataflow_stack.faults import FAULTS
from dataflow_stack.orders import inject_orders
from dataflow_stack.supervisor import Supervisor
from tests.support.stack import RunningStack, run_stack, wait_until

GOAL_S = 10.0
_GROUP = "stack-tools"
_DEADLINE_S = 180
_POLL_S = 0.05
wait_closely = partial(wait_until, deadline_s=_DEADLINE_S, longest_pause_s=_POLL_S)


class Cost(NamedTuple):
    """Seconds from the alert's firing to the report on the ticket, and to every target."""

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

    def measure(self, number: int) -> Cost:
        """Let Alertmanager fire an alert in a group of its own; return what its report took."""
        known = self._count_told()
        fired_at = time.time()
        self._fire(number)
        wait_closely(lambda: self._count_told() > known, what="the report is on the ticket")
        told_at = time.time()
        wait_closely(self._is_done, what="every target has its message")
        return Cost(told_at - fired_at, time.time() - fired_at)

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
            costs = []
            for number in range(options.rounds):
                bench.restart()
                costs.append(bench.measure(number))
                print(f"  round {number + 1}: {costs[-1]}", file=sys.stderr, flush=True)
            FAULTS["pipeline_paused"].off(config)
    rows = [["from firing to", "s, median", "least to most", "goal"]]
    for name, goal in (("ticket_s", f"≤ {GOAL_S:.0f}"), ("all_s", "")):
        walls = [getattr(cost, name) for cost in costs]
        spread = f"{min(walls):.2f} to {max(walls):.2f}"
        rows.append([name, f"{statistics.median(walls):.2f}", spread, goal])
    print(f"{datetime.now(UTC):%Y-%m-%d}, {options.rounds} rounds, load {os.getloadavg()[0]:.1f}\n")
    print(tabulate(rows))


if __name__ == "__main__":
    main()
