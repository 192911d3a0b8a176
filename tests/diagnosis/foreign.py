"""How well section 5 judges others' cases: ``python -m tests.diagnosis.foreign``.

Plays each case on a stack of its own, asks section 5 as an operator does, and compares the causes
that it supports with the answers in ``foreign_cases.py``. Each finished case is a line in
``<out>/runs.jsonl``; started again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dataflow_stack.config import load_config
from fulfillment.investigation import Investigation
from fulfillment.settings import Settings
from runbook_lib.errors import RunbookError
from runbook_lib.model import CauseStatus
from tests.diagnosis.foreign_cases import CASES, ForeignCase
from tests.diagnosis.foreign_play import PLAYS, Stage
from tests.diagnosis.foreign_table import describe, list_run_misses, write_document
from tests.diagnosis.matrix import read_runs
from tests.diagnosis.table import describe_programs
from tests.support.diagnosis import ask_why, list_causes, open_diagnosis
from tests.support.stack import run_stack

__all__ = ["RECORDS", "main"]

#: The runs that the document shows.
RECORDS = Path(__file__).parent / "runs"
#: So long section 5 is asked at least: what is wrong may be supported late, or for a moment.
_WATCHED_S = 25.0
_APART_S = 3.0
_SHOWN = 400
_Run = dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    """Play the cases; exit 0 when all meet the goals, or those that were played are right."""
    options = _parse(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "runs.jsonl"
    done = {run["case"] for run in read_runs(file)}
    todo = [name for name in options.only or CASES if name not in done]
    print(f"{len(todo)} cases to play, {len(done)} done already", flush=True)
    for name in [] if options.table_only else todo:
        run = _run_case(CASES[name], options)
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(run) + "\n")
        print(f"{name:<28} {run['took_s']:>6.1f} s  {describe(run)}", flush=True)
    runs = {run["case"]: run for run in read_runs(file)}
    is_complete = set(runs) == set(CASES)
    if is_complete:
        lines = [json.dumps(runs[name]) for name in CASES]
        RECORDS.mkdir(exist_ok=True)
        (RECORDS / f"{options.record}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    is_good = write_document(
        read_runs(RECORDS / "first.jsonl"), read_runs(RECORDS / "later.jsonl"), options.doc
    )
    print(f"{options.doc} is written", flush=True)
    if not is_complete:
        is_good = not any(list_run_misses(run) for run in runs.values())
    return 0 if is_good else 3


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.diagnosis.foreign", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path(".stack-cases"), help="its folder; remove it to play anew"
    )
    parser.add_argument("--doc", type=Path, default=Path("docs/diagnosis-cases.md"))
    parser.add_argument("--only", action="append", choices=list(CASES), help="this case alone")
    parser.add_argument("--deadline-s", type=float, default=60.0, help="to name the cause")
    parser.add_argument(
        "--record",
        choices=["first", "later"],
        default="later",
        help="the column of a complete run",
    )
    parser.add_argument("--table-only", action="store_true", help="write the document, run nothing")
    return parser.parse_args(argv)


def _run_case(case: ForeignCase, options: argparse.Namespace) -> _Run:
    started = time.monotonic()
    out = options.out
    run: _Run = {
        "case": case.name,
        "commit": _read_commit(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "on": describe_programs(),
        "looks": [],
        "error": "",
    }
    home = (out / "stack").resolve()
    shutil.rmtree(home, ignore_errors=True)
    try:
        with run_stack(home) as stack:
            reports = (out / "reports" / f"{case.name}-{started:.0f}").resolve()
            with ExitStack() as ends:
                stage = Stage(load_config(stack.home).remembered(), ends)
                variables = stack.env | {"RUNBOOK_HOME": str(reports)}
                _play_and_look(case, stage, variables, run["looks"], options)
    except (RunbookError, OSError, ValueError, subprocess.SubprocessError) as error:
        run["error"] = f"{type(error).__name__}: {error}"[:_SHOWN]
    run["took_s"] = round(time.monotonic() - started, 1)
    return run


def _play_and_look(
    case: ForeignCase,
    stage: Stage,
    variables: dict[str, str],
    looks: list[_Run],
    options: argparse.Namespace,
) -> None:
    """Play a case, and look until its cause is named.

    Parameters
    ----------
    variables : the operator's settings
    looks : each look is added to it
    """
    PLAYS[case.name](stage)
    began = time.monotonic()
    with patch.dict(os.environ, variables | stage.operator):
        inv = open_diagnosis(Settings.load())
        while True:
            look = _ask_section(inv)
            elapsed_s = round(time.monotonic() - began, 1)
            looks.append({"after_s": elapsed_s, **look})
            is_named = elapsed_s > _WATCHED_S and case.is_named(look["supported"])
            if is_named or elapsed_s > options.deadline_s:
                return
            time.sleep(_APART_S)


def _ask_section(inv: Investigation) -> _Run:
    conclusion = ask_why(inv)
    return {
        "verdict": str(conclusion.verdict),
        "supported": sorted(list_causes(conclusion, CauseStatus.SUPPORTED)),
        "undecided": sorted(list_causes(conclusion, CauseStatus.UNDECIDED)),
        "summary": conclusion.summary[:_SHOWN],
    }


def _read_commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
