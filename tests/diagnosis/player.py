"""Plays cases, each on a fresh stack, and writes a page of what section 5 said of them.

``play LINES`` plays the cases that have no answer in the file LINES yet, and appends one JSON line
for each; ``page LINES`` makes the tables of the page anew. The words around them stay.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from dataflow_stack.config import StackError
from tests.diagnosis.stage import Stage, judge, play

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """What breaks, how, the causes that must be named, and those that may be named beside."""

    breaks: str
    play: Callable[[Stage], None]
    expected: frozenset[str]
    tolerated: frozenset[str]


Cases = Mapping[str, Case]


def _read_git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _read_outcomes(lines: Path) -> dict[str, dict[str, Any]]:
    """Return the line of each case that was played."""
    found = map(json.loads, lines.read_text().splitlines() if lines.exists() else ())
    return {line["case"]: line for line in found if "looks" in line}


def _play(cases: Cases, names: Sequence[str], lines: Path, *, file: str) -> None:
    if _read_git("status", "--porcelain", file):
        sys.exit(f"commit {file} before you play it")
    for name in names:
        case = cases[name]
        line: dict[str, Any] = {
            "case": name,
            "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "cases": _read_git("log", "-1", "--format=%h", "--", file),
            "code": _read_git("log", "-1", "--format=%h"),
            "load": round(os.getloadavg()[0], 1),
        }
        home = Path(tempfile.mkdtemp(prefix="case-"))
        try:
            looks, right_s = play(home, case.play, expected=case.expected, tolerated=case.tolerated)
            line["looks"] = [sorted(look) for look in looks]
            line["right_s"] = right_s
            print(f"{name}: right after {right_s} s", flush=True)
        except (StackError, subprocess.SubprocessError) as error:
            line["error"] = type(error).__name__
            print(f"{name}: not played: {error}", file=sys.stderr, flush=True)
        with lines.open("a") as out:
            out.write(json.dumps(line) + "\n")
        shutil.rmtree(home, ignore_errors=True)


def _describe(names: Set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "0 of 0"


def _write_page(cases: Cases, lines: Path, page: Path) -> None:
    outcomes = _read_outcomes(lines)
    rows = []
    named = named_right = wanted = wanted_found = abstained = faulty = harmless = alarms = 0
    right_cases = 0
    times = []
    for name, case in cases.items():
        right = _describe(case.expected)
        if case.tolerated:
            right += f"; tolerated: {_describe(case.tolerated)}"
        if name not in outcomes:
            rows.append(f"| {case.breaks} | {right} | | not played |")
            continue
        looks = [set(look) for look in outcomes[name]["looks"]]
        ever = set().union(*looks)
        verdict = judge(looks, expected=case.expected, tolerated=case.tolerated)
        if case.expected and not ever:
            verdict = "abstained"
        said = _describe(looks[-1])
        if ever - looks[-1]:
            said += f"; for a time: {_describe(ever - looks[-1])}"
        named += len(ever - case.tolerated)
        named_right += len(ever & case.expected)
        wanted += len(case.expected)
        wanted_found += len(looks[-1] & case.expected)
        if case.expected:
            faulty += 1
            abstained += not ever
        else:
            harmless += 1
            alarms += bool(ever - case.tolerated)
        if verdict == "right":
            right_cases += 1
        else:
            rows.append(f"| {case.breaks} | {right} | {said} | {verdict.partition(':')[0]} |")
        if case.expected and outcomes[name].get("right_s") is not None:
            times.append(outcomes[name]["right_s"])
    played = list(outcomes.values())
    loads = [line["load"] for line in played]
    numbers = {
        "cases judged right": _share(right_cases, len(outcomes)),
        "precision: named causes that were right": _share(named_right, named),
        "recall: expected causes that were named": _share(wanted_found, wanted),
        "abstentions: faulty cases with nothing named": _share(abstained, faulty),
        "false alarms: cases without a fault, something named": _share(alarms, harmless),
        "played": f"{len(outcomes)} of {len(cases)}, {played[0]['at'][:10]}",
        "load of the machine": f"{min(loads)} to {max(loads)}, on {os.cpu_count()} cores",
        "commit of the cases, of the code": f"`{played[0]['cases']}`, `{played[0]['code']}`",
    }
    if times:
        longest = f"{median(times):.1f} / {max(times):.1f} s"
        numbers["from the fault to the right answer, median / longest"] = longest
    table = ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in numbers.items())]
    title, about, _, how_made, _ = page.read_text("utf-8").split("\n\n")
    head = ["| what breaks | right answer | what section 5 said | judged |", "|---|---|---|---|"]
    parts = [title, about, "\n".join(table), how_made, "\n".join([*head, *rows])]
    page.write_text("\n\n".join(parts) + "\n", "utf-8")


def run_command(cases: Cases, name: str) -> int:
    """Play the cases of a module of this folder, or write their page."""
    parser = argparse.ArgumentParser(prog=f"tests.diagnosis.{name}", description=__doc__)
    parser.add_argument("action", choices=("play", "page"))
    parser.add_argument("lines", type=Path, help="file with one JSON line for each case")
    parser.add_argument("--only", action="append", choices=list(cases), help="this case alone")
    options = parser.parse_args()
    if options.action == "play":
        answered = _read_outcomes(options.lines)
        names = [case for case in options.only or cases if case not in answered]
        _play(cases, names, options.lines, file=f"tests/diagnosis/{name}.py")
    else:
        _write_page(cases, options.lines, _ROOT / "docs" / f"diagnosis-{name}.md")
    return 0
