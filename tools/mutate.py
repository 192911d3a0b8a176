"""Change the code in small ways, one at a time, and count which changes the tests notice.

The seed decides what is drawn: first places in the code, then one of the changes at each place.
Prose is left alone, because tests do not freeze it. Only a copy is changed: what git tracks, with
the sources as ``ast`` writes them. A first run shows that the tests pass there. Tests that compare
with a page or a golden file see every change, right or wrong: they run last.

Not mutmut 3.8, which mutates functions only, no tables. Not cosmic-ray 8.7, which has one test
command for all files, draws no sample by a seed, and cannot change a word of a table.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Group(NamedTuple):
    """How many mutants are drawn of which sources, and the tests that judge them, in order."""

    size: int
    sources: str
    tests: str


GROUPS: Mapping[str, Group] = {
    "table": Group(
        size=80,
        sources="objectmove/ table carry run settling",
        tests="tests/objectmove/ table tests/runbook_lib/ moving tests/tools/ explorer",
    ),
    "verdict": Group(
        size=70,
        sources="runbook_lib/ record/folds fulfillment/ policy quantities analysis/causes",
        tests="tests/runbook_lib/ folds "
        "tests/fulfillment/ policy observations advice unserved fix "
        "sections_verdicts sections_actions sections_readings causes golden",
    ),
    "gate": Group(
        size=50,
        sources="runbook_lib/ approvals moving",
        tests="tests/runbook_lib/ moving show_progress "
        "tests/fulfillment/ service_actions sections_actions episodes fix",
    ),
}
#: Tables that are strings with a rule in each line, and the columns of which words are swapped.
TABLE_COLUMNS: Mapping[str, Sequence[int]] = {
    "_TABLE": (2, 3, 4, 5),  # of the decision table: both places, act and proof
}
_SWAPPED: Mapping[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
_CONTAINERS = (ast.Dict, ast.List, ast.Set, ast.Tuple)
#: Types, decorators, and the keys of a table, which are not its values.
_LEFT_OUT = ("annotation", "returns", "decorator_list", "keys")
_TYPES = ("Annotated", "Literal")
#: Arguments, each after its function, that change nothing in a program without errors.
_IDLE = (("zip", "strict"), ("field", "repr"), ("TypeVar", "covariant"))

_LIMITED = 'ulimit -S -t "$1"; ulimit -v 8000000 2>/dev/null; shift; exec "$@"'
#: How much of a changed line is shown.
_SHOWN = 90


class Change(NamedTuple):
    put: Callable[[Any], None]
    old: ast.AST
    new: ast.AST
    line: int


@dataclass
class Mutant:
    """A source with one change.

    ``before`` and ``after`` are what ``ast`` writes around the change. ``killed_by`` is the test
    that failed; empty if the tests could not be collected.
    """

    group: str
    file: str
    line: int
    before: str
    after: str
    source: str
    outcome: str = "not run"
    killed_by: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: `{self.before}` → `{self.after}`"


def list_files(text: str) -> list[str]:
    """Return the files of ``folder/ name name``; in a folder of tests, names lack ``test_``."""
    folder = ""
    files = []
    for word in text.split():
        if word.endswith("/"):
            folder = word
        else:
            prefix = "test_" if folder.startswith("tests/") else ""
            files.append(f"{folder}{prefix}{word}.py")
    return files


def list_places(node: ast.AST, words: Sequence[str] = ()) -> Iterator[list[Change]]:
    columns: Sequence[int] = ()
    if isinstance(node, ast.Assign | ast.AnnAssign):
        words = list(_list_names(node.value)) if isinstance(node.value, _CONTAINERS) else ()
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        columns = TABLE_COLUMNS.get(ast.unparse(target), ())
    for field, value in ast.iter_fields(node):
        is_list = isinstance(value, list)
        for index, child in enumerate(value if is_list else [value]):
            if not isinstance(child, ast.AST) or _is_left_out(node, field, child):
                continue
            put = partial(value.__setitem__, index) if is_list else partial(setattr, node, field)
            line = getattr(child, "lineno", getattr(node, "lineno", 0))
            new_nodes = _list_replacements(node, field, child, words)
            yield [Change(put, child, new, line) for new in new_nodes]
            if columns and field == "value":
                for number, tables in _swap_words(ast.literal_eval(child), columns):
                    yield [Change(put, child, table, line + number) for table in tables]
            yield from list_places(child, words)


def _list_names(table: ast.AST) -> Iterator[str]:
    for node in ast.walk(table):
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, str) and re.fullmatch(r"[\w.-]+", value):
            yield value


def _is_left_out(parent: ast.AST, field: str, child: ast.AST) -> bool:
    if isinstance(parent, ast.Subscript) and ast.unparse(parent.value) in _TYPES:
        return True
    if isinstance(parent, ast.Call) and isinstance(child, ast.keyword):
        return (ast.unparse(parent.func), child.arg) in _IDLE
    return field in _LEFT_OUT


def _list_replacements(
    parent: ast.AST, field: str, child: ast.AST, words: Sequence[str]
) -> Iterator[ast.AST]:
    """Yield what may stand in a child's place, except a table with another word."""
    for kind in _SWAPPED.get(type(child), ()):
        yield kind()
    if isinstance(child, ast.UnaryOp) and isinstance(child.op, ast.Not):
        yield child.operand
    if isinstance(child, ast.Expr) and isinstance(child.value, ast.Call):
        yield ast.Pass()
    values: list[Any] = []
    if isinstance(parent, ast.If | ast.IfExp) and field == "test":
        values += [True, False]
    value = child.value if isinstance(child, ast.Constant) else ...
    if isinstance(parent, ast.Return) and value is not None:
        values.append(None)
    if isinstance(value, bool):
        values.append(not value)
    elif isinstance(value, int):
        values += [value + 1, value - 1]
    elif isinstance(value, float):
        values += [value * 2, value / 2]
    elif value in words:
        values += [word for word in words if word != value] or ["other"]
    for new in values:
        yield ast.Constant(value=new)


def _swap_words(table: str, columns: Sequence[int]) -> Iterator[tuple[int, list[ast.Constant]]]:
    """Yield, for each word, the number of its line, and the tables with another of its column."""
    rows = [line.split(" ") for line in table.split("\n")]
    for column in columns:
        used = {cells[column] for cells in rows if len(cells) > column}
        for number, cells in enumerate(rows):
            if len(cells) > column:
                tables = []
                for word in sorted(used - {cells[column]}):
                    changed = [*cells[:column], word, *cells[column + 1 :]]
                    lines = [
                        " ".join(row) for row in (*rows[:number], changed, *rows[number + 1 :])
                    ]
                    tables.append(ast.Constant(value="\n".join(lines)))
                yield number, tables


def draw(group: str, *, size: int, seed: int) -> list[Mutant]:
    chance = random.Random(f"{seed} {group}")
    places = []
    for file in list_files(GROUPS[group].sources):
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        places += [(file, tree, changes) for changes in list_places(tree) if changes]
    drawn = chance.sample(places, min(size, len(places)))
    return [make_mutant(group, file, tree, chance.choice(found)) for file, tree, found in drawn]


def make_mutant(group: str, file: str, tree: ast.Module, change: Change) -> Mutant:
    """Return the mutant with a change; the tree stays as it is."""
    original = ast.unparse(tree)
    change.put(change.new)
    source = ast.unparse(tree)
    change.put(change.old)
    # A table is one line, with its line ends escaped.
    old_lines, new_lines = (t.replace("\\n", "\n").split("\n") for t in (original, source))
    pairs = zip(old_lines, new_lines, strict=False)
    old, new = next((old.strip(), new.strip()) for old, new in pairs if old != new)
    common = os.path.commonprefix([old, new])  # noqa: RUF071
    begin = max(min(len(common) - _SHOWN // 2, len(old) - _SHOWN), 0)
    before, after = (line[begin : begin + _SHOWN].replace("`", "'") for line in (old, new))
    return Mutant(group, file, change.line, before, after, source)


def copy_tree(folder: Path) -> None:
    for name in run_git("ls-files", "-z").strip("\0").split("\0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    for group in GROUPS.values():
        for file in list_files(group.sources):
            text = ast.unparse(ast.parse((folder / file).read_text("utf-8")))
            (folder / file).write_text(text, "utf-8")


def run_tests(folder: Path, group: str, *, seed: int, limit_s: int) -> tuple[str, str]:
    """Run a group's tests up to the first that fails; return the outcome, and what pytest printed.

    ``limit_s`` is the most CPU time. A run that waits instead may take five times as long.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONHASHSEED": "0"}
    environment["PYTHONDONTWRITEBYTECODE"] = ""
    pytest = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
    command = [*pytest, f"--hypothesis-seed={seed}", *list_files(GROUPS[group].tests)]
    try:
        done = subprocess.run(
            ["sh", "-c", _LIMITED, "sh", str(limit_s), *command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=5 * limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "timeout", ""
    if done.returncode == -signal.SIGXCPU:
        return "timeout", ""
    outcome = "killed" if done.returncode else "survived"
    return outcome, f"{done.stdout}{done.stderr}"


def run_git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make_report(mutants: Sequence[Mutant]) -> str:
    columns = ("killed", "timeout", "survived", "not run")
    rows = [f"| group | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 1)}"]
    survivors = []
    for group in dict.fromkeys(mutant.group for mutant in mutants):
        counts = Counter(mutant.outcome for mutant in mutants if mutant.group == group)
        rows.append(f"| {group} | {' | '.join(str(counts[name]) for name in columns)} |")
        found = [m for m in mutants if m.group == group and m.outcome == "survived"]
        found.sort(key=lambda mutant: (mutant.file, mutant.line))
        survivors += [f"\n## Survivors: {group}\n", *(f"- {mutant}" for mutant in found)]
    return "\n".join([*rows, *survivors])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.mutate")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--size", type=int, help="so many mutants of each group")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no mutant after that")
    parser.add_argument("--list", action="store_true", help="show the mutants, and run nothing")
    parser.add_argument("--json", type=Path, default=os.devnull, help="write all results there")
    options = parser.parse_args()
    print("seed", options.seed)
    mutants: list[Mutant] = []
    for group in options.groups:
        mutants += draw(group, size=options.size or GROUPS[group].size, seed=options.seed)
    if options.list:
        print(*mutants, sep="\n")
        return
    commit = run_git("describe", "--always", "--dirty", "--abbrev=8", "--exclude=*")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        judge_all(Path(name), mutants, seed=options.seed, end=began + 60 * options.minutes)
    facts: dict[str, Any] = {
        "at": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit,
        "python": sys.version.split()[0],
        "seed": options.seed,
        "minutes": round((time.monotonic() - began) / 60),
        "mutants": [asdict(mutant) for mutant in mutants],
    }
    for mutant_facts in facts["mutants"]:
        del mutant_facts["source"]
    options.json.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(make_report(mutants))


def judge_all(folder: Path, mutants: Sequence[Mutant], *, seed: int, end: float) -> None:
    copy_tree(folder)
    limits_s: dict[str, int] = {}
    for group in dict.fromkeys(mutant.group for mutant in mutants):
        began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        outcome, printed = run_tests(folder, group, seed=seed, limit_s=3600)
        if outcome != "survived":
            raise SystemExit(f"unchanged, the tests of {group} fail:\n{printed}")
        needed_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began
        limits_s[group] = 20 + round(3 * needed_s)
        print(f"{group}: the tests take {needed_s:.0f} s", flush=True)
    # In any order, so that each group lacks as many as another if the time is short.
    for number, mutant in enumerate(random.Random(seed).sample(mutants, len(mutants)), 1):
        if time.monotonic() > end:
            break
        path = folder / mutant.file
        text = path.read_text("utf-8")
        path.write_text(mutant.source, "utf-8")
        os.utime(path, (number, number))  # bytecode is known by the time of its source
        limit_s = limits_s[mutant.group]
        mutant.outcome, printed = run_tests(folder, mutant.group, seed=seed, limit_s=limit_s)
        path.write_text(text, "utf-8")
        os.utime(path, (0, 0))
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", printed, re.MULTILINE)
        mutant.killed_by = failed[1] if failed else ""
        print(f"{mutant.outcome}: {mutant}", flush=True)


if __name__ == "__main__":
    main()
