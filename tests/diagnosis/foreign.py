"""How well section 5 judges others' cases: ``python -m tests.diagnosis.foreign``.

Plays each case of docs/diagnosis-cases.md on a stack of its own, asks section 5 as an operator
does, and prints how each was judged. Where the answer is empty, no cause may be supported.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from dataflow_stack.config import load_config
from fulfillment.settings import Settings
from runbook_lib.model import CauseStatus
from tests.diagnosis.foreign_play import PLAYS, Stage
from tests.support.diagnosis import ask_why, list_causes, open_diagnosis
from tests.support.stack import run_stack

#: The cause of each case, as the page has it.
ANSWERS: Mapping[str, str] = {
    "worker_scaled_to_zero": "worker_stopped",
    "pipeline_controller_at_zero": "",
    "corrupted_secret": "bad_credentials",
    "changed_password": "bad_credentials",
    "missing_credentials": "bad_credentials",
    "revoked_right": "no_permission",
    "unregistered_user": "bad_credentials",
    "wrong_environment": "bad_prefix",
    "wrong_target_port": "carrier_errors",
    "wrong_own_port": "",
    "network_delay": "carrier_timeout",
    "network_partition": "",
    "name_resolution": "",
    "full_disk": "storage_full",
    "failing_job": "pipeline_failing",
    "breaking_configuration": "worker_stopped",
    "container_kill": "",
    "pod_failure": "worker_stuck",
    "flood": "surge",
    "slow_but_healthy": "",
    "burst_that_drains": "",
    "unrelated_failure": "",
    "half_blind": "",
}
#: Causes that follow from the case, and may be supported beside its own.
_TOLERATED = {"changed_password": {"metrics_blind"}}
#: So long section 5 is asked at least: what is wrong may be supported late, or for a moment.
_WATCHED_S = 25.0
_DEADLINE_S = 60.0
_APART_S = 3.0


def judge(looks: Sequence[set[str]], *, expected: Set[str], tolerated: Set[str]) -> str:
    """Return ``right``, or what was not; the last of the looks must name the expected causes."""
    wrong = set().union(*looks) - expected - tolerated
    if wrong:
        return f"wrong: {', '.join(sorted(wrong))}"
    missed = expected - looks[-1]
    return f"missed: {', '.join(sorted(missed))}" if missed else "right"


def play(
    home: Path, perform: Callable[[Stage], None], *, expected: Set[str], tolerated: Set[str]
) -> list[set[str]]:
    """Play a case on a fresh stack, and look until its causes are named."""
    looks: list[set[str]] = []
    with run_stack(home / "stack") as stack, ExitStack() as ends:
        stage = Stage(load_config(stack.home).remembered(), ends)
        perform(stage)
        began = time.monotonic()
        variables = stack.env | {"RUNBOOK_HOME": str(home / "reports")} | stage.operator
        with patch.dict(os.environ, variables):
            inv = open_diagnosis(Settings.load())
            while True:
                looks.append(list_causes(ask_why(inv), CauseStatus.SUPPORTED))
                elapsed_s = time.monotonic() - began
                verdict = judge(looks, expected=expected, tolerated=tolerated)
                if elapsed_s > _DEADLINE_S or (elapsed_s > _WATCHED_S and verdict == "right"):
                    return looks
                time.sleep(_APART_S)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.diagnosis.foreign", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(ANSWERS), help="this case alone")
    names = parser.parse_args().only or list(ANSWERS)
    right = 0
    for name in names:
        home = Path(tempfile.mkdtemp(prefix="case-"))
        expected = {ANSWERS[name]} - {""}
        tolerated = _TOLERATED.get(name, set())
        looks = play(home, PLAYS[name], expected=expected, tolerated=tolerated)
        verdict = judge(looks, expected=expected, tolerated=tolerated)
        right += verdict == "right"
        print(f"{name:<28} {verdict}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
    print(f"{right} of {len(names)} right", flush=True)
    return 0 if right == len(names) else 3


if __name__ == "__main__":
    sys.exit(main())
