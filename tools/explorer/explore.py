"""Run the engine through every interleaving up to a bound, and audit what came of it.

The search re-executes: a run tells the points that it passed after its last disturbance, and what
may happen there. ``python -m tools.explorer.explore --help`` says how to search and reproduce.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from .chance import without_chance
from .scenarios import SCENARIOS, Scenario
from .story import Outcome, Point, Run, Script, ScriptError, format_script, parse_script

#: How many runs by chance each of two processes makes in ``--full`` and ``--ci``.
_FULL_RANDOM, _CI_RANDOM = 20_000, 300
_DEPTH = 10
#: How many scripts a search keeps of each kind of violation.
_SCRIPTS = 5


@dataclass
class Found:
    """What a search found: violations by kind, with scripts, the shortest first.

    ``known`` runs ended in a state that was searched before; ``idle`` ones moved nothing.
    """

    name: str
    runs: int = 0
    known: int = 0
    idle: int = 0
    seconds: float = 0.0
    failing: int = 0
    declared: Counter[str] = field(default_factory=Counter)
    violations: dict[str, list[tuple[str, Script]]] = field(default_factory=dict)

    def add(self, scenario: Scenario, outcome: Outcome) -> None:
        self.runs += 1
        self.known += outcome.is_known
        self.idle += not outcome.has_moved
        self.declared.update(outcome.declared)
        self.failing += bool(outcome.violations)
        for violation in outcome.violations:
            scripts = self.violations.setdefault(mask_violation(violation), [])
            if len(scripts) < _SCRIPTS:
                scripts.append((scenario.name, outcome.script))

    def shrink(self) -> None:
        """Keep of each kind of violation the shortest scripts, without what it doesn't need."""
        for kind, scripts in self.violations.items():
            shrunk = {(name, shrink(SCENARIOS[name], script, kind)) for name, script in scripts}
            self.violations[kind] = sorted(shrunk, key=lambda it: (len(it[1]), it))[:2]

    def render(self) -> str:
        lines = [
            f"{self.name}: {self.runs} runs in {self.seconds:.0f} s ({self.known} ended in a known"
            f" state, {self.idle} moved nothing), {sum(self.declared.values())} times declared"
            f" damage, {self.failing} failing"
        ]
        for kind, scripts in self.violations.items():
            lines.append(f"  {kind}")
            for name, script in scripts:
                choices = format_script(script)
                lines.append(f"    --scenario {name} --choices '{choices}'")
        return "\n".join(lines)


def mask_violation(violation: str) -> str:
    """Return the kind of a violation: its text without numbers and plans' ids."""
    return re.sub(r"\b\d+(?!:)", "n", re.sub(r"rel-\w+-\w+", "PLAN", violation))


def shrink(scenario: Scenario, script: Script, kind: str) -> Script:
    for size in (1, 2, 1):
        start = 0
        while start + size <= len(script):
            shorter = script[:start] + script[start + size :]
            if _breaks(scenario, shorter, kind):
                script = shorter
            else:
                start += 1
    return script


def _breaks(scenario: Scenario, script: Script, kind: str) -> bool:
    try:
        outcome = Run(scenario, script).execute()
    except ScriptError:
        return False
    return kind in map(mask_violation, outcome.violations)


class Task(NamedTuple):
    """What one process searches.

    Attributes
    ----------
    name : of the scenario; empty in a search by chance: all of them
    bound : the most disturbances; 0: by chance, ``runs`` runs from ``seed``
    part : of the scripts, those whose first disturbance has this number modulo that many
    """

    name: str = ""
    bound: int = 0
    part: tuple[int, int] = (0, 1)
    runs: int = 0
    seed: int = 0
    depth: int = _DEPTH

    def search(self) -> Found:
        with without_chance():
            if self.bound:
                return search(SCENARIOS[self.name], self.bound, part=self.part)
            return search_randomly(self.name, self.runs, self.depth, self.seed)


def search(scenario: Scenario, bound: int, *, part: tuple[int, int] = (0, 1)) -> Found:
    """Run every script of up to ``bound`` disturbances, the shorter ones first."""
    found, began, visited = Found(scenario.name), time.monotonic(), dict[int, int]()
    level: Iterable[Script] = [()]
    for left in range(bound, -1, -1):
        passed: list[tuple[Script, list[Point]]] = []
        for script in level:
            outcome = Run(scenario, script, visited=visited, left=left).execute()
            found.add(scenario, outcome)
            if left:
                passed.append((script, outcome.points))
        level = (
            (*script, (point, what))
            for script, points in passed
            for point, options in points
            for what in options
        )
        if left == bound:
            level = islice(level, part[0], None, part[1])
    found.seconds = time.monotonic() - began
    return found


def search_randomly(name: str, count: int, depth: int, seed: int) -> Found:
    """Run scripts that are drawn by chance, of all scenarios when the name is empty."""
    found, began, draw = Found(name or "random"), time.monotonic(), random.Random(seed)
    names = [name] if name else sorted(SCENARIOS)
    visited = dict[int, int]()
    for _ in range(count):
        scenario = SCENARIOS[draw.choice(names)]
        run = Run(scenario, draw=draw, depth=depth, visited=visited)
        found.add(scenario, run.execute())
    found.shrink()
    found.seconds = time.monotonic() - began
    return found


def search_all(tasks: Sequence[Task]) -> Iterator[Found]:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield from pool.imap_unordered(Task.search, tasks)


def list_tasks(*, is_full: bool, seed: int, part: tuple[int, int] = (0, 1)) -> list[Task]:
    """Return what ``--full`` or ``--ci`` searches; of each scenario, the part i of n."""
    bounds = {it.name: it.bound if is_full else it.ci_bound for it in SCENARIOS.values()}
    tasks = [Task(name, bound, part) for name, bound in bounds.items() if bound]
    tasks.sort(key=lambda task: -task.bound)
    count = _FULL_RANDOM if is_full else _CI_RANDOM
    return [*tasks, *list_random_tasks("", count, seed, _DEPTH)]


def list_random_tasks(name: str, count: int, seed: int, depth: int) -> list[Task]:
    """Return a search by chance for two processes."""
    half = (count + 1) // 2
    return [Task(name, runs=half, seed=seed + one, depth=depth) for one in range(2)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--scenario", default="", choices=["", *sorted(SCENARIOS)])
    parser.add_argument("--choices", help="show the run with this script")
    parser.add_argument("--trace", action="store_true", help="with --choices: every point, too")
    parser.add_argument("--bound", type=int, default=1, help="try up to so many disturbances")
    parser.add_argument("--part", default="0/1", help="only the part i/n of them")
    parser.add_argument("--full", action="store_true", help="all scenarios, an hour of CPU")
    parser.add_argument("--ci", action="store_true", help="all scenarios, about 2 minutes")
    parser.add_argument("--random", type=int, default=0, help="so many runs by chance")
    parser.add_argument("--depth", type=int, default=_DEPTH)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    given = parser.parse_args(arguments)
    first, count = map(int, given.part.split("/"))
    if given.choices is not None:
        with without_chance():
            scenario = SCENARIOS[given.scenario or "release-strict"]
            run = Run(scenario, parse_script(given.choices), is_traced=given.trace)
            outcome = run.execute()
        _print("\n".join(outcome.log))
        return bool(outcome.violations)
    if given.full or given.ci:
        _print(f"seed {given.seed}")
        tasks = list_tasks(is_full=given.full, seed=given.seed, part=(first, count))
        return _print_all(search_all(tasks))
    if given.random:
        _print(f"seed {given.seed}")
        tasks = list_random_tasks(given.scenario, given.random, given.seed, given.depth)
        return _print_all(search_all(tasks))
    names = [given.scenario] if given.scenario else list(SCENARIOS)
    return _print_all(search_all([Task(name, given.bound, (first, count)) for name in names]))


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _print_all(founds: Iterable[Found]) -> int:
    runs = failing = idle = 0
    for found in founds:
        _print(found.render())
        runs += found.runs
        failing += found.failing
        idle += found.idle
    _print(f"{runs} executions, {idle} of them moved nothing, {failing} failing")
    return bool(failing)


if __name__ == "__main__":
    sys.exit(main())
