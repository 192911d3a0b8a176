"""Make docs/drills.md from runs of `runbook drill --all`: how long each phase of each drill takes.

docs/drills.json holds what the last five runs measured. The page holds nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "docs" / "drills.json"
PAGE = ROOT / "docs" / "drills.md"
_KEPT = 5
_COLUMNS = ("scenario", "passed", "detect", "notify", "name the cause", "mitigate", "clear")
_PHASES = ("detect_s", "notify_s", "diagnose_s", "remediate_s", "revert_s", "clear_s")
_PAGE = """\
# Drills

How long each phase of each drill takes on the local stack, in seconds: the median of the drills
that passed, with minimum and maximum in brackets. `make drills` runs `runbook drill --all` and
writes this page from [drills.json](drills.json), which has the last five runs.
[Monitoring](monitoring/README.md#chaos-drills) says what a drill does.

- **detect**, **notify**: from the fault until the alert fires, and until Slack, mail and Teams have
  it. "–" marks a fault that fires no alert.
- **name the cause**: the time that sections 1, 2, 3 and 5 take.
- **mitigate**: the time that section 6 takes. ¹ marks a drill without section 6: there, the time to
  revert the fault.
- **clear**: from section 6's last change, or from the end of the fault if there was no change,
  until the alert is gone and every channel has the resolved message.

{table}

{runs}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run rounds of drills or take documents of some, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=0, help="run so many rounds first")
    parser.add_argument("--add", type=Path, nargs="*", default=[], help="documents of runs")
    parser.add_argument("--commit", default="", help="at which they ran; default: this one")
    options = parser.parse_args(arguments)
    runs = read_runs()
    commit = options.commit or read_commit()
    for path in options.add:
        runs.append(make_run(json.loads(path.read_text("utf-8")), commit))
    for _ in range(options.rounds):
        runs.append(make_run(run_all_drills(), commit))
        write_runs(runs)
    write_runs(runs)


def read_runs() -> list[dict[str, Any]]:
    """Return the runs that are kept, the oldest first."""
    if not RUNS.exists():
        return []
    runs: list[dict[str, Any]] = json.loads(RUNS.read_text("utf-8"))
    return runs


def write_runs(runs: Sequence[dict[str, Any]]) -> None:
    """Keep the newest runs, and write the page from them."""
    kept = sorted(runs, key=lambda run: str(run["at"]))[-_KEPT:]
    RUNS.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    PAGE.write_text(build_page(kept), "utf-8")


def run_all_drills() -> dict[str, Any]:
    """Carry out every drill on the stack that the environment names; return the document."""
    command = [sys.executable, "-m", "runbook_lib", "drill", "--all", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    document: dict[str, Any] = json.loads(done.stdout)
    if "rows" not in document:
        raise SystemExit(f"the drills did not run: {document.get('error')}")
    return document


def read_commit() -> str:
    """Return the commit of this checkout, with a plus when files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=10"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def make_run(document: dict[str, Any], commit: str) -> dict[str, Any]:
    """Return what a run's document says of the times, and where and when it ran."""
    return {
        "at": document["at"],
        "commit": commit,
        "cores": os.cpu_count(),
        "rows": [_make_row(row) for row in document["rows"]],
    }


def _make_row(row: dict[str, Any]) -> dict[str, Any]:
    times = {phase: row.get(phase) for phase in _PHASES}
    return {"scenario": row["scenario"], "end": row["end"], "missed": row["missed"], **times}


def build_page(runs: Sequence[dict[str, Any]]) -> str:
    """Return the page: a row for each scenario, and a line for each run."""
    drills: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for row in run["rows"]:
            drills.setdefault(row["scenario"], []).append(row)
    lines = [_join(_COLUMNS), _join(["---"] * len(_COLUMNS))]
    lines += [_join(_make_cells(name, drills[name])) for name in sorted(drills)]
    run_lines = [_describe_run(run) for run in runs]
    return _PAGE.format(table="\n".join(lines), runs="\n".join(["## The runs", "", *run_lines]))


def _join(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _make_cells(name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    passed = [row for row in rows if row["end"] == "passed"]
    mitigate = _say_times(passed, lambda row: row["remediate_s"])
    if mitigate == "–":
        mitigate = _say_times(passed, lambda row: row["revert_s"])
        if mitigate != "–":
            mitigate += " ¹"
    return [
        f"`{name}`",
        f"{len(passed)} of {len(rows)}",
        _say_times(passed, lambda row: row["detect_s"]),
        _say_times(passed, lambda row: row["notify_s"]),
        _say_times(passed, lambda row: row["diagnose_s"]),
        mitigate,
        _say_times(passed, lambda row: row["clear_s"]),
    ]


def _say_times(
    rows: Sequence[dict[str, Any]], read: Callable[[dict[str, Any]], float | None]
) -> str:
    """Return the median with least and most; a dash where there is no such phase."""
    times = [seconds for seconds in map(read, rows) if seconds is not None]
    if not times:
        return "–"
    middle = statistics.median(times)
    return f"{middle:.1f} ({min(times):.1f}–{max(times):.1f})"


def _describe_run(run: dict[str, Any]) -> str:
    rows = run["rows"]
    passed = sum(1 for row in rows if row["end"] == "passed")
    missed = [f"`{row['scenario']}` {row['missed']}" for row in rows if row["end"] != "passed"]
    end = f"- {run['at'][:16]}Z, commit `{run['commit']}`, {run['cores']} cores: "
    end += f"{passed} of {len(rows)} passed."
    if missed:
        end += f" Not met: {'; '.join(missed)}."
    return end


if __name__ == "__main__":
    main()
