"""Our own faults as cases, one at a time and two at once: docs/diagnosis-matrix.md."""

from __future__ import annotations

import sys
from functools import partial

from dataflow_stack.faults import FAULTS
from tests.diagnosis.player import Case, run_command
from tests.diagnosis.stage import Stage

#: Each pair can be true at once and each cause is in one. The one that restarts a service, and
#: would undo the other's settings, comes first.
PAIRS = (
    ("pipeline_paused", "carrier_timeout"),
    ("store_down", "support_down"),
    ("worker_stuck", "metrics_blind"),
    ("bad_prefix", "carrier_errors"),
    ("storage_full", "pipeline_failing"),
    ("no_permission", "pipeline_paused"),
    ("bad_credentials", "support_down"),
    ("synthetic", "metrics_blind"),
    ("clock_skew", "surge"),
    ("worker_stopped", "support_down"),
)
#: How often each fault is played alone, and the system without a fault.
_ROUNDS = 3
_HEALTHY = 20
#: With these no order is taken, so labels that wait must be there before.
_ORDERS_FIRST = {"worker_stopped"}
#: With these no label has to wait: the fault shows by itself.
_NO_ORDERS = {"synthetic", "support_down", "metrics_blind", "store_down", "surge", "clock_skew"}


def _inject(stage: Stage, faults: tuple[str, ...]) -> None:
    stage.wait_until_healthy()
    if _ORDERS_FIRST & set(faults):
        stage.hand_over()
    for fault in faults:
        FAULTS[fault].on(stage.config)
    if not (_ORDERS_FIRST | _NO_ORDERS) & set(faults):
        stage.hand_over()


def _make_case(*faults: str) -> Case:
    breaks = " and ".join(f"`{fault}`" for fault in faults)
    return Case(breaks, partial(_inject, faults=faults), frozenset(faults), frozenset())


CASES = {
    f"{fault}-{number}": _make_case(fault) for fault in FAULTS for number in range(1, _ROUNDS + 1)
}
CASES |= {"+".join(pair): _make_case(*pair) for pair in PAIRS}
CASES |= {
    f"healthy-{number}": Case("nothing", Stage.wait_until_healthy, frozenset(), frozenset())
    for number in range(_HEALTHY)
}

if __name__ == "__main__":
    sys.exit(run_command(CASES, "matrix"))
