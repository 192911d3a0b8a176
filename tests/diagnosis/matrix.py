"""How well section 5 names real faults: ``python -m tests.diagnosis.matrix``.

Starts a stack of its own, injects every fault for real, and asks the diagnosis until it names
the cause or a deadline passes. Each finished run is a line in ``<out>/runs.jsonl``; started
again, it goes on where it stopped. The table is written from those lines.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dataflow_stack import health
from dataflow_stack.config import StackConfig, StackError, load_config
from dataflow_stack.faults import FAULTS, turn_off_all
from dataflow_stack.orders import inject_orders
from fulfillment.investigation import Investigation
from fulfillment.settings import Settings
from runbook_lib.errors import RunbookError
from runbook_lib.model import CauseStatus, Conclusion, Verdict
from tests.diagnosis.cases import Case, list_cases
from tests.diagnosis.table import write_table
from tests.support.diagnosis import ask_why, list_causes, open_diagnosis
from tests.support.stack import run_stack

__all__ = ["main", "read_runs"]

#: The worker's failures of the last half minute count as present: so long do traces last.
_TRACES_S = 40.0
_CLEAN_DEADLINE_S = 180.0
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


def main(argv: list[str] | None = None) -> int:
    """Run the matrix; exit 0 when at least 95 % are right and nothing wrong was supported."""
    options = _parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "runs.jsonl"
    runs = read_runs(file)
    seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
    seed = runs[0]["seed"] if runs else seed
    cases = list_cases(
        seed,
        rounds=options.rounds,
        healthy=options.healthy,
        pairs=not options.no_pairs,
        only=options.only,
    )
    done = {run["id"] for run in runs}
    todo = [case for case in cases if case.id not in done]
    print(f"seed {seed}: {len(cases)} runs, {len(cases) - len(todo)} done already", flush=True)
    if todo and not options.table_only:
        _run_all(todo, seed, file, options)
    runs = read_runs(file)
    is_good = write_table(runs, planned=len(cases), path=options.doc, note=options.note)
    print(f"{options.doc} is written", flush=True)
    return 0 if is_good else 3


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.diagnosis.matrix", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(".stack-matrix"), help="its folder")
    parser.add_argument("--doc", type=Path, default=Path("docs/diagnosis-matrix.md"))
    parser.add_argument("--seed", type=int, help="decides the order; default: random, printed")
    parser.add_argument("--rounds", type=int, default=3, help="how often each fault, alone")
    parser.add_argument("--healthy", type=int, default=20, help="how many runs without a fault")
    parser.add_argument("--no-pairs", action="store_true", help="leave out the ten pairs")
    parser.add_argument("--only", action="append", choices=list(FAULTS), help="this fault alone")
    parser.add_argument("--deadline-s", type=float, default=60.0, help="to name the causes")
    parser.add_argument("--note", default="", help="a remark for the end of the document")
    parser.add_argument("--table-only", action="store_true", help="write the table, run nothing")
    return parser.parse_args(argv)


def read_runs(file: Path) -> list[_Run]:
    """Return the finished runs of a file, one in a line; none where there is no file."""
    if not file.exists():
        return []
    runs: list[_Run] = []
    for line in file.read_text("utf-8").splitlines():
        # A run that was killed while it wrote leaves half a line: it is run again.
        with suppress(json.JSONDecodeError):
            runs.append(json.loads(line))
    return runs


def _run_all(todo: list[Case], seed: int, file: Path, options: argparse.Namespace) -> None:
    with run_stack((options.out / "stack").resolve()) as stack:
        os.environ.update(stack.env)
        os.environ["RUNBOOK_HOME"] = str((options.out / "reports").resolve())
        config = load_config(stack.home).remembered()
        settings = Settings.load()
        last_fault = time.monotonic() - _TRACES_S
        for number, case in enumerate(todo, 1):
            run = _run_case(case, config, settings, options.deadline_s, last_fault)
            if case.faults:
                last_fault = time.monotonic()
            run = {"seed": seed, **run}
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(run) + "\n")
            print(f"{number}/{len(todo)} {_say(run)}", flush=True)


def _say(run: _Run) -> str:
    took = f"{run['verdict_s']:.1f} s" if run["verdict_s"] is not None else "not found"
    wrong = f"  WRONG: {', '.join(run['wrong'])}" if run["wrong"] else ""
    error = f"  ERROR: {run['error']}" if run["error"] else ""
    return f"{run['id']:<32} {took:>10}  found {', '.join(run['found']) or '-'}{wrong}{error}"


def _run_case(
    case: Case, config: StackConfig, settings: Settings, deadline_s: float, last_fault: float
) -> _Run:
    started = time.monotonic()
    run: _Run = {
        "id": case.id,
        "kind": case.kind,
        "faults": list(case.faults),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "found": [],
        "wrong": [],
        "verdict": "",
        "verdict_s": None,
        "asked": [],
        "error": "",
    }
    try:
        _wait_until_clean(case, config, settings, last_fault)
        run["settle_s"] = round(time.monotonic() - started, 1)
        inv = open_diagnosis(settings)
        if case.faults:
            _inject_and_ask(case, run, config, inv, deadline_s)
        else:
            began = time.monotonic()
            _note(run, case, ask_why(inv), began)
            time.sleep(_APART_S)
            _note(run, case, ask_why(inv), began)
            if run["verdict"] == Verdict.HEALTHY and not run["wrong"]:
                run["verdict_s"] = run["asked"][0]["after_s"]
    except RunbookError as error:
        run["error"] = str(error)[:600]
    finally:
        _restore(config, run)
    run["took_s"] = round(time.monotonic() - started, 1)
    return run


def _inject_and_ask(
    case: Case, run: _Run, config: StackConfig, inv: Investigation, deadline_s: float
) -> None:
    began = time.monotonic()
    if set(case.faults) & set(_ORDERS_FIRST):
        inject_orders(inv.settings.fulfillment_url, _ORDERS)
    for name in case.faults:
        FAULTS[name].on(config)
    if not set(case.faults) & {*_ORDERS_FIRST, *_NO_ORDERS}:
        inject_orders(inv.settings.fulfillment_url, _ORDERS)
    run["injected_s"] = round(time.monotonic() - began, 1)
    while True:
        found = _note(run, case, ask_why(inv), began)
        if found >= set(case.faults):
            run["verdict_s"] = run["asked"][-1]["after_s"]
            # Asked once more: what is supported must stay so, and nothing wrong may join it.
            if case.is_held:
                time.sleep(max(0.0, _HELD_S - (time.monotonic() - began)))
            _note(run, case, ask_why(inv), began)
            return
        if time.monotonic() - began > deadline_s:
            return


def _note(run: _Run, case: Case, conclusion: Conclusion, began: float) -> set[str]:
    supported = list_causes(conclusion, CauseStatus.SUPPORTED)
    run["asked"].append(
        {
            "after_s": round(time.monotonic() - began, 1),
            "supported": sorted(supported),
            "undecided": sorted(list_causes(conclusion, CauseStatus.UNDECIDED)),
            "verdict": str(conclusion.verdict),
            "summary": conclusion.summary[:400],
        }
    )
    run["found"] = sorted(supported & set(case.faults))
    run["wrong"] = sorted({*run["wrong"], *(supported - set(case.faults))})
    run["verdict"] = str(conclusion.verdict)
    return supported


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


if __name__ == "__main__":
    sys.exit(main())
