"""How well section 5 names real faults: ``python -m tests.diagnosis.matrix``.

Starts a stack of its own, injects every fault for real, and asks the diagnosis until it names the
cause or a deadline passes. Each finished run is a line in ``<out>/runs.jsonl``; started again, it
goes on where it stopped. The page is written from those lines.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from dataflow_stack import health
from dataflow_stack.config import StackConfig, StackError, load_config
from dataflow_stack.faults import FAULTS, turn_off_all
from dataflow_stack.orders import inject_orders
from fulfillment.settings import Settings
from runbook_lib.errors import RunbookError
from runbook_lib.model import CauseStatus, Conclusion, Verdict
from tests.support.diagnosis import ask_why, list_causes, open_diagnosis
from tests.support.stack import run_stack

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
_GOAL = 0.95
#: Healthy runs come in groups: one long wait for the traces of the last fault serves a group.
_GROUP = 4
#: The worker's failures of the last half minute count as present: so long do traces last.
_TRACES_S = 40.0
_CLEAN_DEADLINE_S = 180.0
_NAMED_DEADLINE_S = 60.0
#: So long some faults stay on: time for alerts, for notifications, and for what follows from them.
_HELD_S = 20.0
#: Between the two questions of a healthy run: labels come and go meanwhile, late ones too.
_APART_S = 6.0
_ORDERS = 6
#: With these no order is taken, so labels that wait must be there before.
_ORDERS_FIRST = ("worker_stopped",)
#: With these no label has to wait: the fault shows by itself.
_NO_ORDERS = ("synthetic", "support_down", "metrics_blind", "store_down", "surge", "clock_skew")
#: Who first asks while the last alert still fires sees a trouble that ends, not a healthy system.
_WELL = (Verdict.HEALTHY, Verdict.FIXED)
_Run = dict[str, Any]
#: Its words before the tables stay.
_PAGE = Path("docs/diagnosis-matrix.md")


@dataclass(frozen=True, slots=True)
class Case:
    """One run: the faults to inject, and the causes that must be found, which are the same."""

    id: str
    faults: tuple[str, ...] = ()

    @property
    def is_held(self) -> bool:
        """Whether the faults stay on for twenty seconds: pairs, and each fault's first run."""
        return len(self.faults) > 1 or self.id.endswith("-1")


def list_cases(
    seed: int, *, rounds: int, healthy: int, only: list[str] | None = None
) -> list[Case]:
    groups = [
        [Case(f"{name}-{number}", (name,))]
        for name in only or FAULTS
        for number in range(1, rounds + 1)
    ]
    if not only:
        groups += [[Case("+".join(pair), pair)] for pair in PAIRS]
    quiet = [Case(f"healthy-{number}") for number in range(1, healthy + 1)]
    groups += [quiet[start : start + _GROUP] for start in range(0, healthy, _GROUP)]
    random.Random(seed).shuffle(groups)
    return [case for group in groups for case in group]


def main() -> int:
    """Run the matrix; exit 0 when at least 95 % are right and nothing wrong was supported."""
    parser = argparse.ArgumentParser(prog="tests.diagnosis.matrix", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".stack-matrix"), help="its folder")
    parser.add_argument("--doc", type=Path, default=_PAGE)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the order")
    parser.add_argument("--rounds", type=int, default=3, help="how often each fault, alone")
    parser.add_argument("--healthy", type=int, default=20, help="how many runs without a fault")
    parser.add_argument("--only", action="append", choices=list(FAULTS), help="this fault alone")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "runs.jsonl"
    runs = read_runs(file)
    seed = runs[0]["seed"] if runs else options.seed
    cases = list_cases(seed, rounds=options.rounds, healthy=options.healthy, only=options.only)
    done = {run["id"] for run in runs}
    todo = [case for case in cases if case.id not in done]
    print(f"seed {seed}: {len(cases)} runs, {len(cases) - len(todo)} done already", flush=True)
    with file.open("a", encoding="utf-8") as out:
        for run in _run_all(todo, options.out.resolve()) if todo else ():
            out.write(json.dumps({"seed": seed, **run}) + "\n")
            out.flush()
            print(f"{run['id']:<32} {_judge(run)}", flush=True)
    return write_page(read_runs(file), planned=len(cases), path=options.doc)


def read_runs(file: Path) -> list[_Run]:
    runs: list[_Run] = []
    for line in file.read_text("utf-8").splitlines() if file.exists() else ():
        # A run that was killed while it wrote leaves half a line: it is run again.
        with suppress(json.JSONDecodeError):
            runs.append(json.loads(line))
    return runs


def _run_all(todo: list[Case], out: Path) -> Iterator[_Run]:
    with run_stack(out / "stack") as stack:
        os.environ.update(stack.env)
        os.environ["RUNBOOK_HOME"] = str(out / "reports")
        config = load_config(stack.home).remembered()
        settings = Settings.load()
        last_fault = time.monotonic() - _TRACES_S
        for case in todo:
            yield _run_case(case, config, settings, last_fault)
            if case.faults:
                last_fault = time.monotonic()


def _run_case(case: Case, config: StackConfig, settings: Settings, last_fault: float) -> _Run:
    run: _Run = {
        "id": case.id,
        "faults": list(case.faults),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "found": [],
        "wrong": [],
        "verdict_s": None,
        "said": "it was not asked",
        "error": "",
    }
    try:
        _wait_until_clean(case, config, settings, last_fault)
        if case.faults:
            _inject_and_ask(case, run, config, settings)
        else:
            began = time.monotonic()
            inv = open_diagnosis(settings)
            _note(run, case, ask_why(inv))
            after_s = round(time.monotonic() - began, 1)
            time.sleep(_APART_S)
            last = ask_why(inv)
            _note(run, case, last)
            run["verdict_s"] = after_s if last.verdict is Verdict.HEALTHY else None
    except RunbookError as error:
        run["error"] = str(error)[:600]
    finally:
        _restore(config, run)
    return run


def _inject_and_ask(case: Case, run: _Run, config: StackConfig, settings: Settings) -> None:
    inv = open_diagnosis(settings)
    began = time.monotonic()
    if set(case.faults) & set(_ORDERS_FIRST):
        inject_orders(settings.fulfillment_url, _ORDERS)
    for name in case.faults:
        FAULTS[name].on(config)
    if not set(case.faults) & {*_ORDERS_FIRST, *_NO_ORDERS}:
        inject_orders(settings.fulfillment_url, _ORDERS)
    while time.monotonic() - began < _NAMED_DEADLINE_S:
        _note(run, case, ask_why(inv))
        if len(run["found"]) == len(case.faults):
            run["verdict_s"] = round(time.monotonic() - began, 1)
            # Asked once more: what is supported must stay so, and nothing wrong may join it.
            if case.is_held:
                time.sleep(max(0.0, _HELD_S - (time.monotonic() - began)))
            _note(run, case, ask_why(inv))
            return


def _note(run: _Run, case: Case, conclusion: Conclusion) -> None:
    supported = list_causes(conclusion, CauseStatus.SUPPORTED)
    run["found"] = sorted(supported & set(case.faults))
    run["wrong"] = sorted({*run["wrong"], *(supported - set(case.faults))})
    run["said"] = f"{conclusion.verdict}: {conclusion.summary[:400]}"


def _wait_until_clean(
    case: Case, config: StackConfig, settings: Settings, last_fault: float
) -> None:
    """Wait for a healthy stack; before a healthy run the diagnosis itself is not asked."""
    health.wait_until_healthy(config, deadline_s=_CLEAN_DEADLINE_S)
    if not case.faults:
        time.sleep(max(0.0, _TRACES_S - (time.monotonic() - last_fault)))
        return
    inv, deadline = open_diagnosis(settings), time.monotonic() + _CLEAN_DEADLINE_S
    while (answer := ask_why(inv)).verdict not in _WELL or list_causes(
        answer, CauseStatus.SUPPORTED
    ):
        if time.monotonic() > deadline:
            raise StackError(f"not healthy before the run: {answer.verdict}, {answer.summary}")
        time.sleep(1.0)


def _restore(config: StackConfig, run: _Run) -> None:
    try:
        for name in reversed(run["faults"]):
            FAULTS[name].off(config)
    except RunbookError as error:
        run["error"] += f" restore: {str(error)[:300]}"
        turn_off_all(config)


def is_right(run: _Run) -> bool:
    is_found = run["verdict_s"] is not None and set(run["found"]) == set(run["faults"])
    return is_found and not run["wrong"] and not run["error"]


def _judge(run: _Run) -> str:
    if is_right(run):
        return f"right, {run['verdict_s']} s"
    wrong = ", ".join(run["wrong"])
    lacking = ", ".join(sorted(set(run["faults"]) - set(run["found"])))
    told = (("wrong", wrong), ("missed", lacking), ("error", run["error"][:200]))
    judged = [f"{name}: {text}" for name, text in told if text]
    return "; ".join([*judged, f"it said {run['said']}"])


def write_page(runs: list[_Run], *, planned: int, path: Path) -> int:
    right = [run for run in runs if is_right(run)]
    wrong = [run for run in runs if run["wrong"]]
    times = [run["verdict_s"] for run in right if run["faults"]]
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=8"],
        capture_output=True,
        text=True,
        check=True,
    )
    words = _PAGE.read_text("utf-8").split("\n\n")[:3]
    lines = ["\n\n".join(words), "", "| what | number |", "|---|---|"]
    lines += [
        f"| runs finished, of those planned | {len(runs)} of {planned} |",
        f"| right | {len(right)} = {len(right) / len(runs):.1%} (goal: {_GOAL:.0%}) |",
        f"| runs in which a wrong cause was supported | {len(wrong)} (goal: 0) |",
    ]
    if times:
        text = f"{median(times):.1f} / {max(times):.1f} s"
        lines.append(f"| injection to verdict, median / longest | {text} |")
    lines += [
        "",
        f"Commit `{described.stdout.strip()}`, {runs[0]['at']} to {runs[-1]['at']}, order by seed "
        f"{runs[0]['seed']}, Python {platform.python_version()}, two shared cores.",
        "",
        "| faults | right | to verdict, s |",
        "|---|---|---|",
    ]
    for faults in sorted({tuple(run["faults"]) for run in runs}, key=lambda one: (len(one), one)):
        own = [run for run in runs if tuple(run["faults"]) == faults]
        names = ", ".join(f"`{name}`" for name in faults) or "none"
        good = [run for run in own if is_right(run)]
        seconds = ", ".join(f"{run['verdict_s']:.1f}" for run in good)
        lines.append(f"| {names} | {len(good)} of {len(own)} | {seconds} |")
    missed = [f"- `{run['id']}`: {_judge(run)}" for run in runs if not is_right(run)]
    if missed:
        lines += ["", "## What was not right", "", *missed]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    is_good = len(right) / len(runs) >= _GOAL and not wrong and len(runs) == planned
    return 0 if is_good else 3


if __name__ == "__main__":
    sys.exit(main())
