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

This page shows what section 5 says of faults that other projects drill. `make diagnose-cases`
writes it. CI plays only two of the cases (`tests/stack/test_foreign_cases.py`).

The faults come from the descriptions of two benchmarks: ITBench (`itbench-hub/ITBench`,
`scenarios/sre`, by number of scenario) and AIOpsLab (`microsoft/AIOpsLab`, by name of problem).
`tests/diagnosis/foreign_play.py` plays them on our stack. It has its own way to bring about each
fault, and uses none of the sixteen faults of our own drills. The right answers stand in
`tests/diagnosis/foreign_cases.py`; they were committed before the first run.

Each case gets a fresh stack. Section 5 is asked from scratch, as an operator asks it, every few
seconds: for 25 s at least, and for up to a minute if it does not support the cause earlier. An
answer that was asked for before that minute ended still counts. Section 5 sees what an operator
sees: metrics, logs, APIs, the store, and the services' states and settings.

- *Right*: the last answer supports an expected cause, and no answer supports a cause that is
  neither expected nor tolerated. Where the right answer is "nothing", no answer supports a cause.
  Tolerated is what the column "right answer" names in brackets, after "beside it".
- *Wrong*: an answer supports a cause that is neither expected nor tolerated, even for a moment.
  After "last" stands what the last answer supported.
- *Missed*: no answer is wrong, and the last answer does not support the expected cause.
- *Abstentions*: cases of our own in which section 5 must support no cause.
- Seconds count from the moment at which the case has been played (the fault is there, and its
  late orders are made) until the cause was named, or until the last answer.
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
    return f"right: {names}, {named['after_s']:.0f} s"


def write_document(first: Sequence[_Run], later: Sequence[_Run], path: Path) -> bool:
    """Write the document; return whether the newest run meets the goals."""
    columns = {"first run": first, "later run": later}
    lines = [_HEAD, "## Result", ""]
    lines += _list_results(columns)
    lines += ["", "## Faults", ""]
    lines += _list_cases(FOREIGN, columns)
    lines += ["", "## Abstentions", "", "In these cases section 5 must support no cause.", ""]
    lines += _list_cases(ABSTENTIONS, columns)
    for name, runs in columns.items():
        lines += _list_misses(name, runs)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return _meets_goals(later or first)


def _list_results(columns: dict[str, Sequence[_Run]]) -> list[str]:
    rows = {
        "at": [_describe_time(runs) for runs in columns.values()],
        "commit": [_list_commits(runs) for runs in columns.values()],
        "on": [str(runs[0]["on"]) if runs else "–" for runs in columns.values()],
        f"faults, right (goal: {_GOAL:.0%})": [_count(FOREIGN, r) for r in columns.values()],
        "abstentions, right (goal: all)": [_count(ABSTENTIONS, r) for r in columns.values()],
        "a wrong cause supported (goal: 0)": [
            str(sum(is_wrong(run) for run in runs)) if runs else "–" for runs in columns.values()
        ],
    }
    lines = [f"| what | {' | '.join(columns)} |", "|---|---|---|"]
    return lines + [f"| {what} | {' | '.join(cells)} |" for what, cells in rows.items()]


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


def _list_cases(cases: Iterable[ForeignCase], columns: dict[str, Sequence[_Run]]) -> list[str]:
    lines = [
        f"| case | what breaks, and how it is played | right answer | {' | '.join(columns)} |",
        "|---|---|---|---|---|",
    ]
    for case in cases:
        head = f"`{case.name}`"
        if case.source:
            head += f"<br>{case.source}"
        answer = " or ".join(f"`{cause}`" for cause in case.expected) or "nothing"
        if case.tolerated:
            answer += f" (beside it {', '.join(f'`{cause}`' for cause in case.tolerated)})"
        cells = [_describe_case(case, runs) for runs in columns.values()]
        text = f"{_as_sentence(case.mechanism)}. Played: {case.played}."
        lines.append(f"| {head} | {text} | {answer}: {case.why} | {' | '.join(cells)} |")
    return lines


def _as_sentence(words: str) -> str:
    return words[0].upper() + words[1:]


def _describe_case(case: ForeignCase, runs: Sequence[_Run]) -> str:
    for run in runs:
        if run["case"] == case.name:
            return describe(run).replace("|", "\\|").replace("\n", " ")
    return "–"


def _list_misses(name: str, runs: Sequence[_Run]) -> list[str]:
    missed = [run for run in runs if list_run_misses(run)]
    if not missed:
        return []
    lines = ["", f"## What was not right in the {name}", ""]
    for run in missed:
        reason = run["looks"][-1]["summary"] if run["looks"] else "nobody looked"
        reason = " ".join(reason.split())
        lines.append(f"- `{run['case']}`: {'; '.join(list_run_misses(run))}. It said: {reason}")
    return lines


def _meets_goals(runs: Sequence[_Run]) -> bool:
    right = {run["case"] for run in runs if not list_run_misses(run)}
    faults = sum(case.name in right for case in FOREIGN)
    is_calm = all(case.name in right for case in ABSTENTIONS)
    return faults / len(FOREIGN) >= _GOAL and is_calm and not any(map(is_wrong, runs))
