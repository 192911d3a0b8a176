"""The judgement by others' cases as a document, from the recorded runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.diagnosis.foreign_cases import ABSTENTIONS, CASES, FOREIGN, ForeignCase, find_misses

__all__ = ["describe", "list_run_misses", "write_document"]

_GOAL = 0.9
_Run = dict[str, Any]
_HEAD = """# Cases of other projects

What section 5 says of faults that ITBench (`scenarios/sre`, by number) and AIOpsLab (by name of
problem) describe. `make diagnose-cases` plays them on a fresh stack each and writes this page; CI
plays two. `tests/diagnosis/foreign_play.py` brings them about by means of its own, and
`tests/diagnosis/foreign_cases.py` has the right answers, committed before the first run.

Section 5 is asked from scratch every few seconds, for 25 s at least and up to a minute. *Right*:
the last answer supports an expected cause, and none ever supports another one. *Wrong*: an answer
supports another cause, even for a moment. *Missed*: the last answer doesn't name the cause. Seconds
count from when the fault is there.
"""


def list_run_misses(run: _Run) -> list[str]:
    """Say in words what was not right in a run; empty when all was."""
    looks = [look["supported"] for look in run["looks"]]
    misses = find_misses(CASES[run["case"]], looks)
    return [*misses, f"error: {run['error']}"] if run["error"] else misses


def is_wrong(run: _Run) -> bool:
    """Tell whether a look supported a cause that is no part of the right answer."""
    case = CASES[run["case"]]
    return any(case.find_wrong(look["supported"]) for look in run["looks"])


def describe(run: _Run) -> str:
    """Return a run in one line."""
    last = run["looks"][-1] if run["looks"] else {"supported": [], "after_s": 0.0}
    names = ", ".join(f"`{name}`" for name in last["supported"]) or "nothing"
    if run["error"]:
        return f"**not played**: {run['error']}"
    if is_wrong(run):
        case = CASES[run["case"]]
        wrong = sorted(set().union(*(case.find_wrong(look["supported"]) for look in run["looks"])))
        return f"**wrong**: {', '.join(f'`{name}`' for name in wrong)}; last {names}"
    if list_run_misses(run):
        return f"**missed**: {names} after {last['after_s']:.0f} s"
    case = CASES[run["case"]]
    named = next(look for look in run["looks"] if case.is_named(look["supported"]))
    if not case.expected:
        named = last
    return f"right, {named['after_s']:.0f} s"


def write_document(first: Sequence[_Run], later: Sequence[_Run], path: Path) -> bool:
    """Write the document; return whether the newest run meets the goals."""
    newest = later or first
    lines = [_HEAD, "## Result", ""]
    lines += _list_results({"first run": first, "later run": later})
    for title, cases in (("Faults", FOREIGN), ("Healthy systems", ABSTENTIONS)):
        lines += ["", f"## {title}", "", *_list_cases(cases, newest)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return _meets_goals(newest)


def _list_results(columns: dict[str, Sequence[_Run]]) -> list[str]:
    rows = {
        "at": [_describe_time(runs) for runs in columns.values()],
        "commit": [_list_commits(runs) for runs in columns.values()],
        f"faults, right (goal: {_GOAL:.0%})": [_count(FOREIGN, r) for r in columns.values()],
        "healthy systems, right (goal: all)": [_count(ABSTENTIONS, r) for r in columns.values()],
        "wrong (goal: none)": [_list_names(filter(is_wrong, r)) for r in columns.values()],
        "not right": [_list_names(filter(list_run_misses, r)) for r in columns.values()],
    }
    lines = [f"| what | {' | '.join(columns)} |", "|---|---|---|"]
    return lines + [f"| {what} | {' | '.join(cells)} |" for what, cells in rows.items()]


def _list_names(runs: Iterable[_Run]) -> str:
    return ", ".join(f"`{run['case']}`" for run in runs) or "none"


def _describe_time(runs: Sequence[_Run]) -> str:
    return str(runs[0]["at"]) if runs else "–"


def _list_commits(runs: Sequence[_Run]) -> str:
    return ", ".join(sorted({f"`{run['commit']}`" for run in runs})) or "–"


def _count(cases: Iterable[ForeignCase], runs: Sequence[_Run]) -> str:
    names = {case.name for case in cases}
    own = [run for run in runs if run["case"] in names]
    right = sum(not list_run_misses(run) for run in own)
    if not own:
        return "–"
    share = right / len(own)
    return f"{right} of {len(own)} = {share:.0%}"


def _list_cases(cases: Iterable[ForeignCase], runs: Sequence[_Run]) -> list[str]:
    lines = ["| case | what breaks | right answer | section 5 |", "|---|---|---|---|"]
    for case in cases:
        head = f"`{case.name}`"
        if case.source:
            head += f"<br>{case.source}"
        answer = " or ".join(f"`{cause}`" for cause in case.expected) or "nothing"
        if case.tolerated:
            answer += f" (beside it {', '.join(f'`{cause}`' for cause in case.tolerated)})"
        if not case.expected:
            answer += f": {case.why}"
        found = _describe_case(case, runs)
        lines.append(f"| {head} | {case.mechanism} | {answer} | {found} |")
    return lines


def _describe_case(case: ForeignCase, runs: Sequence[_Run]) -> str:
    for run in runs:
        if run["case"] == case.name:
            return describe(run).replace("|", "\\|").replace("\n", " ")
    return "–"


def _meets_goals(runs: Sequence[_Run]) -> bool:
    right = {run["case"] for run in runs if not list_run_misses(run)}
    faults = sum(case.name in right for case in FOREIGN)
    is_calm = all(case.name in right for case in ABSTENTIONS)
    return faults / len(FOREIGN) >= _GOAL and is_calm and not any(map(is_wrong, runs))
