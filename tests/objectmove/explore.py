"""Run the mover through every interleaving up to a bound, and audit what came of it.

A run is determined by its script: what happens at which point. ``1.copy@ready/a=lost``: of the
first process's copy to ``ready/a`` the answer is lost. ``1<copy@ready/a=sleep``: before it, that
process sleeps past its claim. ``#2`` is a point's second time. What no script names goes as usual.
The search re-executes: a run tells the points that it passed after its last disturbance, and what
may happen there. ``python -m tests.objectmove.explore --help`` says how to search and reproduce.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import pickle
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache, lru_cache, partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, cast
from unittest import mock

from greenlet import greenlet  # type: ignore[import-untyped]

from chainlog import ChainedLog, LogError
from objectmove import (
    bucket,
    ledger,
    manifest,
    memory,
    move,
    planning,
    proof,
    record,
    session,
    settling,
    shards,
)
from objectmove import plan as plan_file
from objectmove.bucket import S3Bucket, Seen
from objectmove.errors import DriftError, HeldError, MoveError, PlanError, RefusedError
from objectmove.ledger import HALF_DONE, Ledger
from objectmove.manifest import Manifest, Shard
from objectmove.memory import Begun, ListBegun, list_none, list_unfinished
from objectmove.plan import Abilities, MovePlan, PlanRow, Timing, find_manifest
from objectmove.planning import Judgement
from objectmove.record import Record
from objectmove.result import find_ways_on
from objectmove.table import State

from .simulation import (
    Call,
    Disk,
    Event,
    Killed,
    Machine,
    Process,
    SimBucket,
    Version,
    World,
    to_datetime,
)

Script = tuple[tuple[str, str], ...]
#: A point that a run passed, and what could have happened there.
Point = tuple[str, Sequence[str]]
_STEPS = 20
_LAPSE_MS = 70_000
_OTHERS = ("worker", "someone")
_CHANGES = ("copy", "put", "delete", "delete_many")
_LOOKS = ("look", "list", "read", "versions")
_RELEASES = ".runbook/releases/"


class Line(NamedTuple):
    """A command as it is printed: ``runbook <verb> <plan> <flags> --approve <approval>``."""

    verb: str
    plan: str = ""
    flags: frozenset[str] = frozenset()
    approval: str = ""

    def __str__(self) -> str:
        approval = ("--approve", self.approval) if self.approval else ()
        words = ("runbook", self.verb, self.plan, *sorted(self.flags), *approval)
        return " ".join(filter(None, words))


_PRINTED = re.compile(
    r"runbook (plan|apply|resume|settle|undo)((?: (?:rel-[\w#-]*\w|--[a-z-]+|[0-9a-f]{64}))*)"
)
#: Who has neither the folder nor a record can only plan again.
_LAST_WORDS = (
    "was carried out",
    "was never begun",
    "was taken back by",
    "this folder knows of no copy",
)
_PLAN_AGAIN = re.compile(r"plan again|make a new (plan|one)", re.IGNORECASE)


def read_line(text: str) -> Line | None:
    """Return the first command that a text names."""
    found = _PRINTED.search(text)
    if found is None:
        return None
    words = found[2].split()
    flags = frozenset(word for word in words if word.startswith("--") and word != "--approve")
    plan = next((word for word in words if word.startswith("rel-")), "")
    approval = words[words.index("--approve") + 1] if "--approve" in words else ""
    return Line(found[1], plan, flags, approval)


class Fates(NamedTuple):
    """What a search offers; a script may name more: all that the simulation knows.

    Attributes
    ----------
    changes, copies : fates of requests that change planned objects; of copies beside
    looks : of looks at planned objects
    own_looks : of looks at objects of our own
    own_changes : of changes of them, by verb and kind: only the fates that differ for who comes
        later
    events : what happens before something: the verbs of ``Run._do`` that not every search offers
    """

    changes: tuple[str, ...]
    copies: tuple[str, ...]
    looks: tuple[str, ...]
    own_looks: tuple[str, ...]
    own_changes: Mapping[tuple[str, str], tuple[str, ...]]
    events: tuple[str, ...]


#: All fates: of the first disturbance of a run, and of runs by chance.
FATES = Fates(
    changes=(
        "refused",
        "lost",
        "dropped",
        "late",
        "slow",
        "die-late",
        "twice",
        "router-200",
        "router-403",
        "router-404",
        "router-412",
        "router-503",
        "router-after",
    ),
    copies=("ghost", "slowdown"),
    looks=("blind", "silent", "router-404", "router-200", "router-503"),
    own_looks=("blind", "router-404"),
    own_changes={
        ("put", "claim"): ("lost", "late", "twice", "router-after"),
        ("delete", "claim"): ("dropped", "router-after"),
        ("put", "plan.jsonl"): ("lost", "dropped"),
        ("put", "state"): ("lost", "dropped", "late", "die-late", "twice", "router-after"),
        ("put", "ended.json"): ("lost", "dropped", "late", "die-late", "twice", "router-after"),
        ("put", "id"): ("lost", "dropped"),
        ("delete", "state"): ("lost", "dropped", "late", "die-late"),
        ("delete", "plan.jsonl"): ("dropped", "late"),
    },
    events=("read-late", "take-version", "copy-folder", "kill-forgotten"),
)
#: One fate of each kind, of the later disturbances of a run. What a router makes up has no effect
#: and proves nothing, like ``dropped``; ``router-after`` and ``ghost`` took effect and prove
#: nothing, like ``lost``; a failed look is a failed look. Each was tried alone, by ``FATES``.
FATES_LATER = Fates(
    changes=("refused", "lost", "dropped", "late", "slow", "die-late", "twice"),
    copies=(),
    looks=("blind",),
    own_looks=(),
    own_changes={
        ("put", "claim"): ("lost", "late"),
        ("delete", "claim"): ("dropped",),
        ("put", "plan.jsonl"): ("dropped",),
        ("put", "state"): ("lost", "dropped", "late", "die-late"),
        ("put", "ended.json"): ("lost", "dropped", "late", "die-late"),
        ("delete", "state"): ("dropped",),
        ("delete", "plan.jsonl"): ("dropped",),
    },
    events=("read-late", "copy-folder", "kill-forgotten"),
)

Stage = Literal["release", "undo", "settle", "reopen", "stop"]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Where runs begin.

    Attributes
    ----------
    stage : what is carried out: a release, its undo, a person's true word on what it left open, the
        undo of that word, or ``resume --stop-here`` after a kill
    polls : a consumer takes everything at once
    is_still : a person said that nobody takes, and nobody does
    is_held : the worker can be paused
    is_split : the plan is of the first object, another operator's of the rest
    is_sharded : the plan is the first of two shards, another operator's the second; in an undo, the
        first was released before, and the second is approved and not begun
    is_whole : the first operator carries out both shards, by one command
    before : script of the release that came before
    is_cut : that release was not resumed
    is_versioned : the bucket keeps versions, and the consumer that polls deletes by version
    bound, ci_bound : how many disturbances ``--full`` and ``--ci`` try; 0: it is left out

    Notes
    -----
    Bound 2 costs 15,000 to 60,000 runs a scenario, at 10 ms; bound 3 would cost a hundred times
    as many. So ``--full`` tries pairs where one object shows all that can happen, and single
    disturbances where a scenario only varies another one (``still``, ``unheld``, ``versioned``,
    ``undo-conflict``), has several objects (``two``, ``three``, ``split``, ``undo-two``, ``stop``)
    or is long (``not-taken`` and ``reopen``: 100,000 pairs and more, at 16 ms). Longer sequences,
    and these pairs, are drawn by chance.
    """

    name: str
    stage: Stage
    is_strict: bool
    objects: str = "a"
    polls: bool = False
    is_still: bool = False
    is_held: bool = True
    is_split: bool = False
    is_sharded: bool = False
    is_whole: bool = False
    before: str = ""
    is_cut: bool = False
    is_versioned: bool = False
    bound: int = 1
    ci_bound: int = 1


_LOST = "1.copy@ready/a=lost"
_DROPPED = "1.copy@ready/a=dropped"
_REWRITTEN = "1.copy@ready/a=lost 1<look@pending/a=rewrite:a"


def _list_scenarios() -> Iterator[Scenario]:
    for store in ("strict", "loose"):
        it = store == "strict"
        yield Scenario(f"release-{store}", "release", it, bound=2)
        yield Scenario(f"polled-{store}", "release", it, polls=True, bound=2)
        yield Scenario(f"still-{store}", "release", it, is_still=True)
        yield Scenario(f"unheld-{store}", "release", it, is_held=False)
        yield Scenario(f"two-{store}", "release", it, objects="ab")
        yield Scenario(f"three-{store}", "release", it, objects="abc")
        yield Scenario(f"split-{store}", "release", it, objects="ab", is_split=True)
        larger = 2 if it else 1
        sharded = Scenario(f"shards-{store}", "release", it, objects="ab", is_sharded=True)
        yield replace(sharded, bound=larger)
        yield replace(sharded, name=f"manifest-{store}", is_whole=True, ci_bound=0)
        yield Scenario(f"shard-undo-{store}", "undo", it, objects="ab", is_sharded=True)
        yield Scenario(f"undo-{store}", "undo", it, bound=2)
        yield Scenario(f"undo-two-{store}", "undo", it, objects="ab")
        looked_at = "delete" if it else "look"
        conflict = f"1<{looked_at}@pending/a=rewrite:a"
        yield Scenario(f"undo-conflict-{store}", "undo", it, before=conflict)
        yield Scenario(f"taken-{store}", "settle", it, polls=True, before=_LOST, bound=2)
        yield Scenario(f"not-taken-{store}", "settle", it, polls=True, before=_DROPPED)
        yield Scenario(f"conflict-{store}", "settle", it, before=_REWRITTEN, bound=2)
        yield Scenario(f"reopen-taken-{store}", "reopen", it, polls=True, before=_LOST)
        yield Scenario(f"reopen-not-taken-{store}", "reopen", it, polls=True, before=_DROPPED)
        cut = "1<landed@ledger#2=kill"
        yield Scenario(f"stop-{store}", "stop", it, objects="ab", before=cut, is_cut=True)
    yield Scenario("release-versioned", "release", is_strict=True, is_versioned=True)
    yield Scenario("polled-versioned", "release", is_strict=True, polls=True, is_versioned=True)


SCENARIOS = {scenario.name: scenario for scenario in _list_scenarios()}


@dataclass
class Start:
    """A world, the first operator's machine, the plans, and the first command."""

    world: World
    machine: Machine
    plan: MovePlan
    other: MovePlan | None
    plans: dict[str, MovePlan]
    line: Line


@cache
def _share(point: str, options: tuple[str, ...]) -> Point:
    """Return one and the same object for what is the same: a search keeps millions of points."""
    return point, options


@dataclass
class Outcome:
    """What came of a run: ``points`` are those after its last disturbance, with the options."""

    script: Script
    violations: list[str] = field(default_factory=list)
    declared: list[str] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    events: list[tuple[int, str, Any]] = field(default_factory=list)
    is_known: bool = False

    @property
    def log(self) -> list[str]:
        """What happened, in lines; written only when someone reads them."""
        lines = []
        for at_ms, text, word in self.events:
            told = text if word is None else f"{text}: {_describe(word)}"
            lines.append(f"{at_ms / 1000:8.3f}  {told}")
        return lines


def parse_script(text: str) -> Script:
    """Read a script from a line."""
    return tuple((point, what) for point, _, what in (part.partition("=") for part in text.split()))


def format_script(script: Script) -> str:
    """Write a script as a line."""
    return " ".join(f"{point}={what}" for point, what in script)


class Run:
    """One execution; also the director of its world.

    Parameters
    ----------
    script : what happens where
    is_naive : offer everything everywhere, not only what can matter there
    chance, depth : take so many disturbances by chance
    visited, left : hashes of states at restarts and ends that were searched, with how many
        disturbances were left then; a run by chance asks once it draws no more
    start : where to begin; default: the scenario's own
    """

    def __init__(
        self,
        scenario: Scenario,
        script: Script = (),
        *,
        is_naive: bool = False,
        chance: random.Random | None = None,
        depth: int = 0,
        visited: dict[int, int] | None = None,
        left: int = 0,
        start: Start | None = None,
    ) -> None:
        self.scenario = scenario
        self.outcome = Outcome(script)
        is_first = is_naive or chance is not None or not script
        self._fates = FATES if is_first else FATES_LATER
        self._is_naive = is_naive
        self._chance = chance
        self._depth = depth
        self._visited = visited
        self._left = left
        start = start or load_start(scenario)
        self.world = start.world
        self.machine = start.machine
        self.plan = start.plan
        self.plans = start.plans
        self._whole = (start.other or start.plan).sha256  # of a shard: finds its manifest
        self._line = start.line
        self._other_plan = start.other
        self._waiting = dict(script)
        self._passed: Counter[str] = Counter()
        self._others: dict[str, Machine] = {}
        self._stale: list[Machine] = []
        self._begun = set(self.plans)
        if start.other is not None and not start.other.header.is_shard:
            self._begun.remove(start.other.id)
        self._ledgers: dict[tuple[str, str], Ledger] = {}
        self._main: Any = greenlet.getcurrent()
        self._second: Any = None
        self._main_process: Process | None = None
        self._printed_on = self.machine
        self._reader: dict[str, Machine] = {}  # for a printed command's plan, who reads it
        self._operators = 0
        self._disturbances = 0
        self._freed: list[tuple[int, str]] = []
        self._has_early_reader = False
        self._is_named = False
        self._is_forgotten = False
        self._is_old_copy = False
        self._late = set[str]()
        self._is_late_killed = False
        self._is_quiet = False
        self._is_person = False

    # --- director: what happens ---

    def before(self, process: Process, verb: str, keys: Sequence[str]) -> None:
        """Let things happen, as long as the script says so."""
        while not self._is_quiet:
            point = self._count(f"{process.name}<{_name(verb, *keys[:1])}")
            what = self._pick(point, partial(self._list_events, process, verb, keys))
            if not what:
                return
            if verb == "pause" and what.startswith("op-"):
                self._late.add(process.name)
            self._do(what, process)
            process.touch()

    def choose(self, process: Process, verb: str, keys: Sequence[str], options: str) -> str:
        """Return what becomes of a request or a line."""
        if self._is_quiet:
            return ""
        point = self._count(f"{process.name}.{_name(verb, *keys[:1])}")
        what = self._pick(point, partial(self._list_fates, verb, keys, options))
        if what and what not in options.split():
            raise ScriptError(f"{point} offers {options}, not {what}")
        is_kill = what == "die-late" and bool(self._late)
        if is_kill or (what and verb == "append:late_pause"):
            self._is_late_killed = True
        return what

    def _count(self, point: str) -> str:
        self._passed[point] += 1
        count = self._passed[point]
        return f"{point}#{count}" if count > 1 else point

    def _pick(self, point: str, list_options: Callable[[], Sequence[str]]) -> str:
        """Return what the script names for a point, else what chance draws, else nothing."""
        what = ""
        if self._waiting:
            what = self._waiting.pop(point, "")
        elif self._chance is None:
            options = list_options()
            if options:
                self.outcome.points.append(_share(point, tuple(options)))
        elif len(self.outcome.script) < self._depth and self._chance.random() < 0.05:
            options = list_options()
            if options:
                what = self._chance.choice(options)
                self.outcome.script += ((point, what),)
        if what:
            self._disturbances += 1
            self._tell(f"{point}={what}")
        return what

    def _do(self, what: str, process: Process) -> None:
        world = self.world
        verb, _, name = what.partition(":")
        source = f"pending/{name}"
        to = f"ready/{name}"
        acts: dict[str, Callable[[], object]] = {
            "take": lambda: world.take(to),
            "read": lambda: self._read(to, 15),
            "read-late": lambda: self._read(to, 6_000),
            "take-version": lambda: world.take(to, by_version=True),
            "rewrite": lambda: world.write(source, self._make_label(name), "writer"),
            "remove": lambda: world.remove(source, "someone"),
            "foreign": lambda: world.write(to, self._make_label(f"x{name}"), "someone"),
            "work": lambda: self._work(source, to, 0),
            "half": lambda: self._work(source, to, 900),
            "person": self._pause_by_person,
            "sleep": lambda: world.advance(_LAPSE_MS),
            "suspend": lambda: self._suspend(process),
            "jump": lambda: self._jump(process, 3_600_000),
            "jump-back": lambda: self._jump(process, -3_600_000),
            "yield": self._switch,
            "copy-folder": lambda: self._copy_folder(process),
        }
        if verb.startswith("op-"):
            self._begin_second(verb)
        elif verb.startswith("kill"):
            self._kill(verb, process)
        else:
            acts[verb]()

    def _read(self, key: str, delete_after_ms: int) -> None:
        """Let a consumer read now and delete later; in an undo, it has read before the word."""
        self.world.take(key, delete_after_ms=delete_after_ms)
        self._has_early_reader |= self.scenario.stage == "undo"

    def _work(self, source: str, to: str, delete_after_ms: int) -> None:
        """Let the worker move an object, unless it is paused by now."""
        if not self.world.paused_by:
            self.world.work(source, to, delete_after_ms)

    def _make_label(self, name: str) -> str:
        return f"{name}{1 + sum(e.label.startswith(name) for e in self.world.history)}"

    def _pause_by_person(self) -> None:
        self.world.paused_by = "person"
        self._is_person = True

    def _suspend(self, process: Process) -> None:
        self.world.advance(_LAPSE_MS)
        process.lag_ms += _LAPSE_MS

    def _jump(self, process: Process, ms: int) -> None:
        process.machine.offset_ms += ms

    def _copy_folder(self, process: Process) -> None:
        """Copy the folder with ``cp -r``; a second operator may use it, in the end both resume."""
        self._stale.append(Machine("copied", process.machine.folder.copy()))

    def _kill(self, verb: str, process: Process) -> None:
        """Kill a process; whoever resumes has this folder, an older copy, or none."""
        old = process.machine
        kinds = [entry.kind for entry in old.folder.get_disk(process.plan).entries]
        self._is_old_copy = self._is_old_copy or verb in ("kill-old", "kill-older")
        if verb == "kill-bare":
            self.machine = Machine("bare")
        elif verb == "kill-old":
            folder = old.folder.copy_first(process.plan, kinds.index("approved") + 1)
            self.machine = Machine("old", folder)
        elif verb == "kill-older":
            intent = len(kinds) - 1 - kinds[::-1].index("intent")
            self.machine = Machine("older", old.folder.copy_first(process.plan, intent))
        elif verb == "kill-forgotten":
            self.world.remove_memory()
            self._is_forgotten = True
        self._is_late_killed |= bool(self._late)
        if self.machine is not old and process is self._main_process:
            self._stale.append(old)
        process.kill(power=verb != "kill-kept")

    # --- what may happen ---

    def _list_fates(self, verb: str, keys: Sequence[str], options: str) -> Sequence[str]:
        is_about_objects = any(not key.startswith(".runbook/") for key in keys)
        if verb in _LOOKS:
            return self._fates.looks if is_about_objects else self._fates.own_looks
        if verb == "copy":
            return self._fates.changes + self._fates.copies
        if verb in _CHANGES and is_about_objects:
            return self._fates.changes
        if verb in _CHANGES and self._is_naive:
            return self._fates.changes
        if verb in _CHANGES:
            return self._fates.own_changes.get((verb, _find_kind(keys[0])), ())
        return options.split() if verb != "clock" else ()

    def _list_events(self, process: Process, verb: str, keys: Sequence[str]) -> Sequence[str]:
        if verb in ("clock", "read", "read-log"):
            return ()
        world = self.world
        events = list[str]()
        touched = self._find_touched(keys)
        is_change = verb in _CHANGES
        is_append = verb.startswith("append")
        if self._is_naive:
            touched = [(side, name) for name in self.scenario.objects for side in _SIDES]
        for side, name in touched:
            events += self._list_foreign(side, name)
        if is_change or is_append or verb in ("pause", "resume"):
            events += self._list_kills(process, is_append=is_append)
        is_weighty = is_change and (bool(touched) or verb == "put")
        if is_weighty:
            events += ["sleep", "suspend"] if touched else ["sleep"]
        if verb == "lock":
            events += ["jump", "jump-back"]
        is_free = not world.paused_by and (world.is_held or self.scenario.stage != "undo")
        if is_free and (verb in ("lock", "pause") or (touched and not world.is_held)):
            events += [what for name in self.scenario.objects for what in self._list_work(name)]
        if verb == "lock" and world.processes == 1:
            events += [] if world.paused_by else ["person"]
            events += self._list_early_reads()
        if is_weighty or verb in ("lock", "sleep", "pause"):
            events += self._list_operators(process, verb)
        if (is_weighty or is_append) and process is self._main_process and not self._stale:
            events += [what for what in self._fates.events if what == "copy-folder"]
        return events

    def _find_touched(self, keys: Sequence[str]) -> list[tuple[str, str]]:
        """Return which side of which object is touched."""
        touched = []
        for key in keys:
            if key.startswith(_SIDES):
                side, _, name = key.partition("/")
                touched += [(side, one) for one in ([name] if name else self.scenario.objects)]
        return touched

    def _list_foreign(self, side: str, name: str) -> list[str]:
        is_there = f"{side}/{name}" in self.world.objects
        if side == "pending":
            return [f"rewrite:{name}", *([f"remove:{name}"] if is_there else [])]
        does_anyone_take = self.scenario.stage != "undo" and not self.scenario.is_still
        if is_there and does_anyone_take:
            takes = ["take", "read"]
            if "read-late" in self._fates.events:
                takes.append("read-late")
            if "take-version" in self._fates.events and self.world.is_versioned:
                takes.append("take-version")
            return [f"{verb}:{name}" for verb in ("foreign", *takes)]
        return [f"foreign:{name}"]

    def _list_early_reads(self) -> list[str]:
        """Return the reads of consumers before a person says that they stand still."""
        if self.scenario.stage != "undo":
            return []
        there = [name for name in self.scenario.objects if f"ready/{name}" in self.world.objects]
        return [f"read-late:{name}" for name in there]

    def _list_work(self, name: str) -> list[str]:
        is_idle = self.world.is_worker_busy or f"pending/{name}" not in self.world.objects
        return [] if is_idle else [f"work:{name}", f"half:{name}"]

    def _list_kills(self, process: Process, *, is_append: bool) -> list[str]:
        if process is not self._main_process:
            return ["kill"]
        disk = process.machine.folder.get_disk(process.plan)
        events = ["kill", *(["kill-kept"] if disk.synced < len(disk.entries) else [])]
        if is_append and not self._is_naive:
            return events  # to who has no new folder this is as before the next request
        kinds = [entry.kind for entry in disk.entries]
        events += ["kill-bare", *(["kill-old"] if "approved" in kinds[:-1] else [])]
        events += ["kill-older"] if "intent" in kinds else []
        if "kill-forgotten" in self._fates.events and self._second is None and kinds:
            events.append("kill-forgotten")
        return events

    def _list_operators(self, process: Process, verb: str) -> list[str]:
        if self._second is not None:
            return ["yield"]
        if verb == "sleep" or process is not self._main_process or self._operators > 1:
            return []
        if verb == "lock":
            return ["op-same"]
        operators = ["op-bare"]
        if self._other_plan:
            operators.append("op-plan")
        if self.plan.header.parent:
            operators.append("op-parent")
        if self._list_copied():
            operators.append("op-copied")
        return operators

    def _list_copied(self) -> list[Machine]:
        """Return the machines that have a copy of the folder."""
        return [machine for machine in self._stale if machine.name == "copied"]

    # --- the second operator ---

    def _begin_second(self, verb: str) -> None:
        """Let someone else work until they end, or yield; the first stands still meanwhile."""
        plan = self.plan
        machine = self.machine
        line = read_line(plan.header.resume_command)
        if verb == "op-bare":
            machine = Machine("second")
            self._stale.append(machine)
        elif verb == "op-plan" and self._other_plan:
            plan = self._other_plan
            machine = self._others.setdefault(plan.id, Machine("third"))
            line = Line("apply", plan.id)
        elif verb == "op-copied":
            machine = self._list_copied()[0]
        elif verb == "op-parent":
            plan = self.plans[self.plan.header.parent]
            line = Line("resume", plan.id)
        self._begun.add(plan.id)
        self._operators += 1

        def work() -> None:
            self._attempt(machine, plan, cast(Line, line), is_main=False)
            self._second = None

        self._second = greenlet(work)
        self._second.switch()

    def _switch(self) -> None:
        if self._second is not None:
            is_second = greenlet.getcurrent() is self._second
            (self._main if is_second else self._second).switch()

    # --- execution: an operator who does what is printed ---

    def execute(self) -> Outcome:
        """Carry the plan out, do what is printed until nothing is left, and audit.

        Raises
        ------
        ScriptError
            When the script names what does not come.
        """
        _chance.world = self.world
        try:
            self._lead_on(self._line)
            self.world.advance(600_000)
            self._note_end()
            self._audit()
        except ScriptError:
            raise
        except _KnownStateError:
            self.outcome.is_known = True
        except Exception as error:  # noqa: BLE001  # whatever breaks, a search goes on
            self._fail(5, f"it breaks: {error!r}")
        self._check_script()
        return self.outcome

    def _check_script(self) -> None:
        if self._waiting:
            raise ScriptError(f"never came to {', '.join(self._waiting)}")

    def prepare(self) -> None:
        """Carry a release out that comes before, up to what a person must decide."""
        if self.scenario.is_cut or self.scenario.is_sharded:
            self._run_line(self._line)
        else:
            self._lead_on(self._line, is_person_there=False)
        self._check_script()

    def _lead_on(self, line: Line, *, is_person_there: bool = True) -> None:
        """Run a command, and then what is printed, until nothing is printed and nothing shown.

        A printed command that is refused breaks promise 5, and so does one that is printed twice
        in a row without progress, unless something happened since.
        """
        is_printed = False
        word: Any = None
        disturbances = self._disturbances
        for step in range(_STEPS):
            if step:
                self._note_restart()
            before = self._measure()
            was_disk_full = isinstance(word, LogError)
            word = self._run_line(line)
            is_undisturbed = disturbances == self._disturbances
            # Somebody else works, or takes: the same again, later.
            is_waiting = isinstance(word, HeldError) or "try again" in str(word)
            # Declared: once the bucket forgot, a machine without the folder knows of no beginning.
            unknown = ("was never begun", "memory (.runbook/) was removed")
            is_unknown = self._is_forgotten and any(text in str(word) for text in unknown)
            # To look at a plan that never began is no promise: its objects may have changed before.
            is_drift = line.verb == "apply" and isinstance(word, DriftError)
            # Declared: a plan that never began was ended, and the full disk lost only this line.
            is_over = was_disk_full and "was never begun, and nothing was moved" in str(word)
            is_accepted = is_waiting or is_unknown or is_drift or is_over
            is_refusal = isinstance(word, RefusedError) and not is_accepted
            if is_printed and is_undisturbed and is_refusal:
                self._fail(5, f"`{self._mask(line)}` was printed, and is refused: {word}")
            disturbances = self._disturbances
            following = self._read_way_on(line, word)
            if following is None or (following.verb == "settle" and not is_person_there):
                return
            has_moved_on = self._has_progressed(before, self._measure())
            if following == line and is_undisturbed and not (has_moved_on or is_waiting):
                self._fail(5, f"`{self._mask(line)}` is printed twice in a row")
                return
            is_printed = self._is_named
            line = following
        self._fail(5, "it does not end")

    def _run_line(self, line: Line) -> Any:
        """Run one command; return what it returned or raised."""
        self._tell(f"$ {line}")
        self._printed_on = self.machine
        if line.verb == "plan":
            return self._plan_anyway()
        plan = self._find_plan(line.plan)
        if line.verb == "settle":
            return self._settle(plan)
        if line.verb == "undo":
            return self._undo(plan)
        machine = self._reader.get(plan.id) or self._others.get(plan.id, self.machine)
        self._printed_on = machine
        return self._attempt(machine, plan, line)

    def _find_plan(self, plan_id: str) -> MovePlan:
        """Return a plan, or the manifest of the shards."""
        known = self.plans.get(plan_id)
        return known or cast(MovePlan, _manifests[self._whole])

    def _read_way_on(self, line: Line, word: Any) -> Line | None:
        """Return the command that goes on: what was printed, else what ``check`` shows first."""
        if word is None and line.verb == "plan":
            return self._check(but=line)  # nobody can give that word truthfully
        following = None
        self._is_named = True
        if isinstance(word, move.MoveResult):
            following = self._read_way_of_result(word)
        elif isinstance(word, Exception):
            following = self._read_way_of_error(line, word)
        if following is not None and following.verb != "plan":
            is_elsewhere = self._printed_on is not self.machine
            is_read = not isinstance(word, Killed)  # who reads it is there
            self._reader = {following.plan: self._printed_on} if is_read else {}
            if is_elsewhere and is_read:
                self._others[following.plan] = self._printed_on
            return following
        self._reader = {}
        shown = self._check()
        if shown is None and isinstance(word, Killed):
            return self._repeat(line)
        return shown

    def _repeat(self, line: Line) -> Line:
        """Return a command that nobody printed: who typed it tries again."""
        self._is_named = False
        return line

    def _read_way_of_result(self, result: move.MoveResult) -> Line | None:
        plan = self._find_plan(result.plan)
        ways = find_ways_on(plan, asdict(result))
        return read_line(ways[0]) if ways else None

    def _read_way_of_error(self, line: Line, error: Exception) -> Line | None:
        """Return the command that an error names; the same again when it names none."""
        text = str(error)
        named = read_line(text)
        if named is not None:
            return named
        if any(words in text for words in _LAST_WORDS):
            return None
        if _PLAN_AGAIN.search(text) is None or line.verb in ("plan", "undo", "settle"):
            return self._repeat(line)
        header = self._find_plan(line.plan).header
        again = {"undo": "undo", "reopen": "undo", "settle": "settle"}
        if header.action in again:
            return self._repeat(Line(again[header.action], header.parent, line.flags))
        return Line("plan")

    def _check(self, *, but: Line | None = None) -> Line | None:
        """Return the first command that ``runbook check`` shows on this machine.

        Parameters
        ----------
        but : a command that helps no more
        """
        process = Process(self.world, _Quiet(), self.machine, "")
        self.world.processes -= 1
        bucket = cast(Any, process.bucket)
        ways_on = [unfinished.way_on for unfinished in list_unfinished(bucket)]
        self._check_pause(bucket)
        if self._is_forgotten:
            try:
                known = memory.read_memory(
                    process.bucket, parked_prefix="parked/", list_begun=self._list_begun
                )
            except PlanError as error:
                return read_line(str(error))
            for plan_id in known.ways_on:
                self._others[plan_id] = self._find_machine(plan_id)
            ways_on = [*known.ways_on.values(), *ways_on]
        lines = filter(None, map(read_line, ways_on))
        return next((line for line in lines if line != but), None)

    def _check_pause(self, bucket: S3Bucket) -> None:
        """Find a pause of ours of which no machine's ``check`` says whose it is, and since when."""
        if self.world.paused_by != "us":
            return
        unfinished = list_unfinished(bucket, self._list_begun)
        if not any(plan.held_by and plan.held_since for plan in unfinished):
            self._fail_pause("the worker is paused, and `check` does not say for whom")

    def _find_machine(self, plan_id: str) -> Machine:
        """Return the machine that knows most of a plan: it holds the worker, or has more lines."""

        def rank(machine: Machine) -> tuple[bool, int]:
            is_holding = self._read_ledger(plan_id, machine).hold is not None
            return is_holding, len(machine.folder.get_disk(plan_id).entries)

        return max((self.machine, *self._stale, *self._others.values()), key=rank)

    def _list_begun(self) -> Mapping[str, Callable[[], Begun | None]]:
        """Return every plan that has a ledger in some folder, with the one that knows most."""
        machines = (self.machine, *self._stale, *self._others.values())
        disks = [item for machine in machines for item in machine.folder.disks.items()]
        plan_ids = {plan_id for plan_id, disk in disks if disk.entries and plan_id in self.plans}

        def open_disk(plan_id: str) -> Begun:
            disk = self._find_machine(plan_id).folder.get_disk(plan_id)
            return Begun(self.plans[plan_id], _open_disk(disk))

        return {plan_id: partial(open_disk, plan_id) for plan_id in sorted(plan_ids)}

    def _measure(self) -> tuple[int, datetime]:
        """Return how much is open, and when the last fence passes."""
        count = 0
        fence_at = to_datetime(0)
        for plan_id, known in self._read_records().items():
            if not known.is_tombstone:
                count += 1 + len(known.find_owned_rows(len(self.plans[plan_id].rows)))
                count += (not known.ended) + (known.hold is not None)
                count += len(known.forgotten_rows)
                fence_at = max(fence_at, known.fence_at)
        for plan_id in self._begun:
            ledger = self._read_ledger(plan_id)
            if ledger.is_begun and not ledger.is_ended:
                count += 1 + len(ledger.rows(*HALF_DONE, State.NONE))
        return count, fence_at

    def _has_progressed(self, before: tuple[int, datetime], after: tuple[int, datetime]) -> bool:
        """Tell whether less is open than before, or a fence has passed."""
        now = to_datetime(self.world.store_ms)
        return after[0] < before[0] or (after[1] <= now < before[1])

    def _mask(self, line: Line) -> str:
        """Return a command with the kind of its plan in place of its name."""
        kind = self._find_plan(line.plan).header.action if line.plan else ""
        return str(line._replace(plan=kind, approval=""))

    def _attempt(
        self, machine: Machine, plan: MovePlan, line: Line, *, is_main: bool = True
    ) -> Any:
        """Run our program once; what it returns or raises are its words."""
        process = Process(self.world, self, machine, plan.id)
        if is_main:
            self._main_process = process
        how: dict[str, Any] = {
            "logs": process.logs,
            "operator": f"op{process.name}",
            "hold": process.hold,
            "clock": process.clock,
            "stands_still": "--consumer-stands-still" in line.flags,
            "stop_here": "--stop-here" in line.flags,
            "goes_on": "--worker-goes-on" in line.flags,
        }
        word: Any
        try:
            if plan.sha256 in _manifests and line.verb == "apply":
                approval = _manifests[plan.sha256].sha256
                word = shards.apply_plan(process.bucket, plan, approve=approval, **how)
            elif self._is_new(plan, machine, line):
                word = move.apply_plan(process.bucket, plan, approve=plan.sha256, **how)
            else:
                how["approve_more"] = line.approval
                word = shards.resume_plan(process.bucket, plan, **how)
        except (Killed, MoveError, LogError) as error:
            word = error
        return self._hear(process, plan, word, is_main=is_main)

    def _is_new(self, plan: MovePlan, machine: Machine, line: Line) -> bool:
        """Tell whether a plan begins, by the ledger of a machine."""
        if line.verb == "resume":
            return False
        ledger = self._read_ledger(plan.id, machine)
        return not ledger.is_begun or ledger.is_ended

    def _hear(self, process: Process, plan: MovePlan, word: Any, *, is_main: bool) -> Any:
        """Take in what a run says, and check it."""
        self._tell(f"{process.name} on {process.machine.name}, {plan.id}", word)
        if isinstance(word, move.MoveResult):
            self._check_words(f"process {process.name}", plan, word)
        self._check_reach(f"process {process.name}")
        if is_main:
            while self._second is not None:
                self._second.switch()
            if isinstance(word, HeldError | Killed):
                self.world.advance(_LAPSE_MS)
        return word

    # --- a person ---

    def _settle(self, plan: MovePlan) -> Any:
        """Say of each open row whether a consumer took it: ``runbook settle``, word by word."""
        word: Any = None
        for said in ("taken", "not_taken"):
            settle_plan, failure = self._plan_settling(plan, cast(settling.Word, said))
            if failure is not None:
                return failure
            if settle_plan is None:
                continue
            word = self._attempt(self.machine, settle_plan, Line("apply", settle_plan.id))
            is_over = isinstance(word, move.MoveResult) and word.is_ended and not word.is_held
            if not is_over:
                return word
        return word

    def _plan_settling(self, plan: MovePlan, said: settling.Word) -> tuple[MovePlan | None, Any]:
        """Plan one true word; None when it is true of no row, or with what went wrong."""
        process = Process(self.world, self, self.machine, plan.id)
        self._main_process = process
        try:
            settle_plan = self.plan_word(process, plan, said)
        except (Killed, MoveError, LogError) as error:
            return None, self._hear(process, plan, error, is_main=True)
        return settle_plan, None

    def plan_word(self, process: Process, plan: MovePlan, said: settling.Word) -> MovePlan | None:
        """Make the plan of a word on the rows of which it is true; None when there are none."""
        open_rows = settling.list_open_rows(process.bucket, plan, logs=process.logs)
        keys = []
        for open_row in open_rows:
            is_taken = self._was_taken(self.world.labels[open_row.row.etag])
            if not open_row.is_freed and is_taken == (said == "taken"):
                keys.append(open_row.row.key)
        if not keys:
            return None
        settle_plan = settling.make_settle_plan(
            process.bucket,
            plan,
            logs=process.logs,
            word=said,
            keys=keys,
            evidence={},
            made_by="test",
            others="the worker is held",
            now=process.clock.now(),
        )
        self._enter(settle_plan)
        if said == "not_taken":
            self._freed += [(self.world.now_ms, _get_rest(key)) for key in keys]
        return settle_plan

    def _enter(self, plan: MovePlan) -> None:
        self.plans[plan.id] = plan
        self._begun.add(plan.id)

    def _was_taken(self, label: str) -> bool:
        return any(e.verb == "read" and e.label == label for e in self.world.history)

    def _plan_anyway(self) -> Any:
        """Plan what the bucket forgot: ``--memory-removed``, where it is true that nobody took it.

        Return None where it is not true, and where something else is at the destination.
        """
        plan = make_plan(
            self.world,
            offset_ms=self.machine.offset_ms,
            list_begun=self._list_begun,
            memory_removed=True,
        )
        if not plan.rows or any(self._was_taken(self.world.labels[row.etag]) for row in plan.rows):
            return None
        self._enter(plan)
        self._freed += [(self.world.now_ms, _get_rest(row.key)) for row in plan.rows]
        word = self._attempt(self.machine, plan, Line("apply", plan.id))
        is_done = isinstance(word, move.MoveResult) and word.is_complete
        if is_done and "destination_taken" in plan.header.excluded:
            return None  # to plan the others again helps nobody
        return word

    def _undo(self, plan: MovePlan) -> Any:
        """Plan to take a plan back, and do it: ``runbook undo``."""
        process = Process(self.world, self, self.machine, plan.id)
        self._main_process = process
        try:
            undo = _plan_undo(process, plan)
        except (Killed, MoveError, LogError) as error:
            return self._hear(process, plan, error, is_main=True)
        begun = self.plans.get(undo.id)
        is_reopening = undo.header.action == "reopen"
        if begun and is_reopening and self._read_ledger(undo.id, self.machine).is_begun:
            undo = begun  # on a disk, the file of a reopening that was begun is found
        self._enter(undo)
        line = Line("apply", undo.id, frozenset(["--consumer-stands-still"]))
        return self._attempt(self.machine, undo, line)

    def _tell(self, text: str, word: Any = None) -> None:
        self.outcome.events.append((self.world.now_ms, text, word))

    # --- what outlives a process ---

    def _read_ledger(self, plan_id: str, machine: Machine | None = None) -> Ledger:
        """Read a ledger from outside of the simulation."""
        machine = machine or self._others.get(plan_id, self.machine)
        disk = machine.folder.get_disk(plan_id)
        head = disk.entries[-1].hash if disk.entries else ""
        known = self._ledgers.get((plan_id, head))
        if known is None:  # the last line's hash tells all lines
            known = _read_ledger(disk, self.plans[plan_id])
            self._ledgers[plan_id, head] = known
        return known

    def _read_records(self) -> dict[str, Record]:
        """Return what the bucket knows of each plan, from outside of the simulation."""
        records: dict[str, Record] = {}
        for key, version in sorted(self.world.objects.items()):
            if not key.startswith(_RELEASES) or key.endswith("plan.jsonl"):
                continue
            plan_id, _, name = key.removeprefix(_RELEASES).partition("/")
            known = _parse_record(version.body)
            if name == "ended.json":
                known = known.model_copy(update={"is_tombstone": True})
            # The tombstone's name comes after every number.
            records[plan_id] = known
        return records

    def _know(self, plan: MovePlan) -> Ledger:
        """Return what the first operator's folder and the bucket know of a plan."""
        known = self._read_records()
        later = [record for plan_id, record in known.items() if plan_id.startswith(f"{plan.id}-")]
        machine = self._others.get(plan.id, self.machine)
        log = _open_disk(machine.folder.get_disk(plan.id))
        return Ledger(log, plan, known.get(plan.id), later)

    def _note_restart(self) -> None:
        """End the run where the search was before, with as many disturbances left."""
        is_going_on = self._chance is not None and len(self.outcome.script) < self._depth
        if self._visited is None or self._waiting or is_going_on:
            return
        state = self._hash_state()
        if self._visited.get(state, -1) >= self._left:
            raise _KnownStateError
        self._visited[state] = self._left

    def _note_end(self) -> None:
        """Audit no end that was audited before, nor the same end again in this search."""
        if self._visited is None or self.outcome.violations:
            return
        state = self._hash_state("end")
        if state in self._visited:
            raise _KnownStateError
        self._visited[state] = 0

    def _hash_state(self, at: str = "") -> int:
        """Return 64 bits for a state, since a search meets hundreds of thousands."""
        return hash((self.scenario.name, at, self._describe_state()))

    def _describe_state(self) -> Any:
        """Return all that outlives processes, without what nothing depends on."""
        world = self.world
        names = {plan_id: f"plan{number}" for number, plan_id in enumerate(self.plans)}
        machines = (self.machine, *self._stale, *self._others.values())
        ledgers = [
            (index, machine.offset_ms, names[plan_id], self._describe_ledger(machine, plan_id))
            for index, machine in enumerate(machines)
            for plan_id, disk in machine.folder.disks.items()
            if disk.entries and plan_id in names
        ]
        agenda = [
            (
                round((at_ms - world.now_ms) / 1000),
                what,
                str([part for part in details if isinstance(part, str)]),
                [self._describe_call(part, names) for part in details if isinstance(part, Call)],
            )
            for at_ms, _, what, details in world.agenda
        ]
        happened = Counter(
            (_classify(e), e.verb, e.key, e.label, e.old and e.old.label, e.is_declared)
            for e in world.history
            if not e.key.startswith("parked/")
        )
        return (
            tuple(ledgers),
            str(sorted(agenda)),
            frozenset((what, min(count, 2)) for what, count in happened.items()),
            tuple(filter(None, (self._describe_object(k, names) for k in sorted(world.objects)))),
            self._describe_records(names),
            self._describe_versions(),
            (world.paused_by, self._is_person, self._operators),
            (self._is_forgotten, self._is_old_copy, self._is_late_killed, world.has_replayed),
            tuple(sorted({name for _, name in self._freed})),
            tuple(self.outcome.violations),
        )

    def _describe_call(self, call: Call, names: Mapping[str, str]) -> tuple[str, ...]:
        keys = [_mask_key(key, names) for key in call.touched]
        return (call.kind, *keys)

    def _describe_ledger(self, machine: Machine, plan_id: str) -> Any:
        """Return what the mover reads from a ledger, and whether it is behind the record."""
        disk = machine.folder.get_disk(plan_id)
        ledger = self._read_ledger(plan_id, machine)
        known = self._read_records().get(plan_id)
        hashes = {entry.hash for entry in disk.entries}
        return (
            tuple(ledger.states.values()),
            tuple(ledger.park_states.values()),
            tuple((row, landing.at is None) for row, landing in ledger.landings.items()),
            tuple(sorted(ledger.refused)),
            tuple(sorted(ledger.in_flight)),
            tuple(sorted(ledger.reported_rows)),
            tuple(sorted(ledger.reopened_by)),
            (ledger.begun, ledger.is_begun, ledger.is_ended),
            (ledger.hold is not None, ledger.late_pause is not None),
            (ledger.was_going, ledger.memory_removed, bool(ledger.taken_back_by)),
            self._count_left_s(ledger.fence_at) if ledger.in_flight else 0,
            disk.synced < len(disk.entries),
            known is not None and known.ledger in hashes,
        )

    def _describe_records(self, names: Mapping[str, str]) -> Any:
        """Return what the newest states say, without what is only told."""
        told = []
        for plan_id, known in self._read_records().items():
            changed = {
                "plan": names[plan_id],
                "release": names[known.release],
                "parent": names.get(known.parent, ""),
                "fence_at": to_datetime(self._count_left_s(known.fence_at)),
                "by": "",
                "ledger": "",
                "words": (),
                "hold": None,
            }
            is_held = known.hold is not None
            described = known.model_copy(update=changed).model_dump_json(exclude={"begun_at"})
            told.append((described, is_held, known.is_tombstone))
        return tuple(told)

    def _describe_versions(self) -> Any:
        """Return what a versioned bucket keeps of planned objects."""

        def describe(version: Version) -> str:
            return "marker" if version.is_marker else version.label

        return tuple(
            (key, tuple(map(describe, versions)))
            for key, versions in sorted(self.world.versions.items())
            if key.startswith(_SIDES)
        )

    def _describe_object(self, key: str, names: Mapping[str, str]) -> Any:
        version = self.world.objects[key]
        if version.label:
            by = version.by if version.by in _OTHERS else version.by.isdigit()
            return (_mask_key(key, names), version.label, by)
        if "/claims/" in key:
            left = round((version.at_ms + _LAPSE_MS - self.world.store_ms) / 5000)
            claimed = _parse_claim(version.body).first
            return ("claim", claimed, left) if left > 0 else None
        return None if "-" in key.rpartition("/")[2] else _mask_key(key, names)

    def _count_left_s(self, at: datetime) -> int:
        now = to_datetime(self.world.store_ms)
        return max(0, round((at - now).total_seconds()))

    # --- audit ---

    def _audit(self) -> None:
        if self.world.paused_by == "us":
            self._fail_pause("the worker stays paused, and nothing says so")
        if self._is_person and self.world.paused_by != "person":
            text = "the worker that a person paused was let go on"
            if self._is_forgotten and self._is_old_copy:
                # An old ledger says that it is held, and no record says that this is over.
                self.outcome.declared.append(text)
            else:
                self._fail(3, text)
        for what in self.world.unheld:
            self._fail(2, f"{what} while the worker may move")
        for name in self.scenario.objects:
            self._audit_deletes(name)
            self._audit_lost(name)
        self._is_quiet = True
        for plan_id in sorted(self._begun):
            self._audit_proof(self.plans[plan_id])
            self._audit_doubts(self.plans[plan_id])
        self._audit_again()
        self._check_reach("all")
        self._release_what_waits()
        for name in self.scenario.objects:
            self._audit_copies(name)
            self._audit_parked(name)

    def _check_words(self, who: str, plan: MovePlan, said: move.MoveResult) -> None:
        """Compare what a run says with what is true at that moment."""
        moved = sum(self._is_moved(row) for row in plan.rows if row.to)
        # It says that this may not be so any more: it was forgotten, or is being taken back.
        is_warned = bool(said.waits_for) or (self._is_forgotten and bool(said.stopped))
        if said.moved > moved and not is_warned:
            self._fail(4, f"{who} says {said.moved} moved, {moved} are")
        known = self._read_records().get(plan.id)
        if said.settled and known is not None and known.is_tombstone and not known.about:
            self._fail(4, f"{who} says settled, and the settling ended without that word")
        # Without the memory, a machine cannot know what another one's undo did with a parked row.
        if plan.header.action == "undo" and said.unproven and not self._is_forgotten:
            self._fail(5, "an undo leaves a row unproven")
        self._check_complete(plan, said.is_complete, who)

    def _check_complete(self, plan: MovePlan, is_complete: bool, who: str) -> None:
        if is_complete and not all(self._is_moved(row) for row in plan.rows if row.to):
            self._fail(4, f"{who} says complete, and something planned waits")
        if is_complete and plan.header.action == "undo":
            for name in self.scenario.objects:
                # The undo of a shard is about the shard's keys, any other about all.
                is_planned = any(row.key == f"ready/{name}" for row in plan.rows)
                is_about = is_planned or not self.scenario.is_sharded
                left = self.world.objects.get(f"ready/{name}")
                if is_about and left and left.by.isdigit() and left.label == f"{name}1":
                    self._fail(4, f"{who} says complete, and our copy is at ready/{name}")

    def _is_moved(self, row: PlanRow) -> bool:
        """Tell whether the planned content came to its destination and left its source."""
        label = self.world.labels[row.etag]
        there = self.world.objects.get(row.key)
        is_gone = there is None or there.label != label or there.by in _OTHERS
        return self._has_come(row) and is_gone

    def _has_come(self, row: PlanRow) -> bool:
        came = (row.to, self.world.labels[row.etag])
        return any((e.key, e.label) == came for e in self.world.history)

    def _is_left_at(self, row: PlanRow, plan: str) -> bool:
        """Tell whether a plan put the content at its destination and it was not removed again.

        What an undo put back is removed by others, too; what a release put was taken then.
        """
        label = self.world.labels[row.etag]
        puts_back = row.to.startswith("pending/")
        is_left = False
        for event in self.world.history:
            if event.key != row.to:
                continue
            is_ours = event.plan == plan
            is_removed = event.old is not None and event.old.label == label
            if is_ours and event.label == label:
                is_left = True
            elif is_removed and (event.verb == "delete" if is_ours else puts_back):
                is_left = False
        return is_left

    def _verify(self, plan: MovePlan) -> proof.MoveProof | None:
        process = Process(self.world, self, self._others.get(plan.id, self.machine), plan.id)
        with suppress(MoveError, LogError):
            return proof.verify_plan(process.bucket, plan, logs=process.logs, clock=process.clock)
        return None

    def _audit_proof(self, plan: MovePlan) -> None:
        """Check what a proof says, also of the release that was taken back."""
        said = self._verify(plan)
        if said is None:
            return
        counts = ", ".join(f"{n} {what}" for what, n in said.counts.items() if n)
        self._tell(f"proof of {plan.id}: {counts}")
        self._check_complete(plan, said.is_complete, f"the proof of the {plan.header.action}")
        ledger = self._know(plan)
        # A new folder that applies anew, and a bucket that forgot, know nothing.
        for row in ledger.rows(State.SKIPPED) if not self._is_forgotten else ():
            if self._is_left_at(plan.rows[row], plan.id):
                self._fail(4, f"{plan.rows[row].key} is told as skipped, and was copied")
        if plan.header.action == "undo" and ledger.rows(State.MOVED) and not self._is_forgotten:
            parent = self._verify(self.plans[plan.header.parent])
            if parent is not None and parent.is_complete:
                self._fail(4, "the proof of a release that was taken back says complete")
            # If several undos took rows back, the proof names the last one.
            if parent is not None and not self._is_undo(parent.taken_back_by):
                self._fail(4, "the proof of a release does not say that it was taken back")

    def _audit_doubts(self, plan: MovePlan) -> None:
        """Find what is in doubt in an undo or a settling after its last command.

        A row that a settling leaves unproven is open in its release, which is shown until then.
        """
        in_doubt = {"undo": (*HALF_DONE, State.UNPROVEN), "settle": HALF_DONE, "reopen": HALF_DONE}
        ledger = self._know(plan)
        if ledger.is_begun and ledger.rows(*in_doubt.get(plan.header.action, ())):
            self._fail(5, f"something stays in doubt in the {plan.header.action}")

    def _audit_again(self) -> None:
        """Resume what is over, here and with every other folder: nothing may come of it."""
        for plan_id in sorted(self._begun):
            plan = self.plans[plan_id]
            line = cast(Line, read_line(plan.header.resume_command))
            for machine in (*self._stale, self.machine):
                if machine is self.machine or machine.folder.get_disk(plan_id).entries:
                    self._attempt(machine, plan, line)
        self._lead_on_after_all()
        if self.world.paused_by == "us":
            self._fail_pause("the worker stays paused")
        shown = self._check()
        if shown is not None and shown.verb != "plan":
            self._fail(5, f"`{self._mask(shown)}` is shown after all")

    def _lead_on_after_all(self) -> None:
        shown = self._check()
        if shown is not None:
            self._lead_on(shown)

    def _check_reach(self, who: str) -> None:
        """Find what our worker would ship twice if its next pass were now."""
        world = self.world
        if not world.is_held or world.paused_by or world.is_worker_busy:
            return
        for name in self.scenario.objects:
            there = world.objects.get(f"pending/{name}")
            is_shipped = there is not None and f"ready/{name}" not in world.objects
            if there is not None and is_shipped and self._count_copies(name, there.label):
                self._fail(2, f"after {who} our worker ships {there.label} again")

    def _count_copies(self, name: str, label: str) -> int:
        """Count our copies that may have been taken: not undone, and of which nobody said no."""
        count = 0
        freed = [at_ms for at_ms, freed_name in self._freed if freed_name == name]
        for event in self._list_happened(name):
            if event.key != f"ready/{name}":
                continue
            while freed and freed[0] <= event.at_ms:
                freed.pop(0)
                count = 0
            if event.verb == "put" and event.label == label and event.by.isdigit():
                count += 1
            elif event.verb == "delete" and self._is_undo(event.plan):
                count = max(0, count - 1)
        return 0 if freed else count

    def _release_what_waits(self) -> None:
        """Make a plan of what waits and carry it out: nothing of it may have been shipped."""
        if any(key.startswith("pending/") for key in self.world.objects):
            plan = make_plan(self.world, list_begun=self._list_begun)
            self._enter(plan)
            self._attempt(Machine("next"), plan, Line("apply", plan.id))

    def _audit_copies(self, name: str) -> None:
        """Find what was put at the destination twice, or over something."""
        label = f"{name}1"
        to = f"ready/{name}"
        copies = 0
        freed = [at_ms for at_ms, freed_name in self._freed if freed_name == name]
        for event in self._list_happened(name):
            if event.key != to:
                continue
            while freed and freed[0] <= event.at_ms:
                freed.pop(0)
                copies = 0
            is_ours = event.by.isdigit()
            if event.verb == "put" and event.label == label:
                is_shipping = is_ours or event.by == "worker"
                if is_shipping and copies:
                    self._judge_second_copy(event)
                copies += is_shipping
            if is_ours and event.verb == "put" and event.old and event.old.label != event.label:
                self._harm(event, f"overwrote {event.old.label}")
            if event.verb == "delete" and self._is_undo(event.plan):
                copies = max(0, copies - 1)

    def _judge_second_copy(self, event: Event) -> None:
        """Fail, or count what the plan declares: movers that nobody holds."""
        who = "our worker" if event.by == "worker" else event.by
        text = f"{event.label} was put at {event.key} again by {who}"
        if not self.world.is_held:
            self.outcome.declared.append(text)
        else:
            self._fail(2, text)

    def _audit_parked(self, name: str) -> None:
        """Find an object that waits for nobody under the parking prefix, and was never taken."""
        label = f"{name}1"
        lying = [key for key, version in self.world.objects.items() if version.label == label]
        is_parked = bool(lying) and all(key.startswith("parked/") for key in lying)
        others = {"writer", "someone"}
        is_replaced = any(
            event.by in others and event.label != label for event in self._list_happened(name)
        )
        is_replaced |= any(event.verb == "remove" for event in self._list_happened(name))
        if is_parked and not is_replaced and not self._was_taken(label):
            self._fail(1, f"{label} was not taken, and stays parked")

    def _audit_deletes(self, name: str) -> None:
        """Find what we removed that was not ours to remove."""
        for event in self._list_happened(name):
            if event.verb != "delete" or not event.old:
                continue
            is_ready = event.key.startswith("ready/")
            if is_ready and not self._is_undo(event.plan):
                self._fail(3, f"{event.by} removed {event.old.label} from {event.key}")
            elif not self._is_planned(event) or (is_ready and not event.old.by.isdigit()):
                self._harm(event, f"removed {event.old.label}")

    def _is_planned(self, event: Event) -> bool:
        """Tell whether what was removed is what the plan that removed it names there."""
        plan = self._find_plan(event.plan) if event.plan else None
        label = event.old.label if event.old else ""
        rows = plan.rows if plan else ()
        return any(
            event.key in (row.key, row.to) and self.world.labels[row.etag] == label for row in rows
        )

    def _audit_lost(self, name: str) -> None:
        """Find out whether the planned content is nowhere, and we did it."""
        label = f"{name}1"
        goals = {row.to for plan in self.plans.values() for row in plan.rows}
        left = set[str]()
        last = ""
        is_excused = False
        for event in self._list_happened(name):
            if event.old is not None and event.old.label == label:
                left.discard(event.key)
                last = event.by
                is_move = (event.by, event.verb) == ("worker", "remove")
                is_excused |= not last.isdigit() and not is_move and event.key in goals
            if event.label == label:
                left.add(event.key)
                is_excused |= event.verb == "read"
        if not left and last.isdigit() and not is_excused:
            text = f"{label} is nowhere: {last} removed it"
            if self.world.is_held:
                self._fail(1, text)
            else:
                self.outcome.declared.append(text)  # movers that nobody holds

    def _list_happened(self, name: str) -> list[Event]:
        return [event for event in self.world.history if event.key.rpartition("/")[2] == name]

    def _is_undo(self, plan: str) -> bool:
        return plan in self.plans and self.plans[plan].header.action == "undo"

    def _harm(self, event: Event, text: str) -> None:
        text = f"{event.by} {text}"
        if event.is_declared or event.is_replay:
            self.outcome.declared.append(text)
        else:
            self._fail(3, text)

    def _fail_pause(self, text: str) -> None:
        """Fail, or count what is declared about pauses.

        A session paused late, and died before it could say so. Or, after the memory was removed, a
        repeated request put back a state of the record in which nobody is held.
        """
        is_state_back = self._is_forgotten and self.world.has_replayed
        if self._is_late_killed or is_state_back:
            self.outcome.declared.append(text)
        else:
            self._fail(5, text)

    def _fail(self, promise: int, text: str) -> None:
        if promise < 5 and any(event.is_replay for event in self.world.history):
            # A proxy that repeats a request while its signature lives is outside, as the plan says.
            self.outcome.declared.append(text)
            return
        if promise < 5 and self._has_early_reader:
            self.outcome.declared.append(text)  # it read before the word was given
            return
        self.outcome.violations.append(f"promise {promise}: {text}")
        self._tell(f"VIOLATION of promise {promise}: {text}")


_SIDES = ("pending", "ready")


class ScriptError(ValueError):
    """A script names what does not come."""


class _KnownStateError(Exception):
    """The state at a restart was searched before."""


def _open_disk(disk: Disk) -> ChainedLog:
    """Return what only reads a ledger's lines, from outside of the simulation."""
    return cast(ChainedLog, SimpleNamespace(scan=lambda: iter(disk.entries)))


def _read_ledger(disk: Disk, plan: MovePlan) -> Ledger:
    """Read a ledger from outside of the simulation."""
    return Ledger(_open_disk(disk), plan)


@lru_cache(maxsize=4096)
def _parse_record(body: bytes) -> Record:
    return Record.model_validate_json(body)


@lru_cache(maxsize=4096)
def _parse_claim(body: bytes) -> session.Claim:
    return session.Claim.model_validate_json(body)


@cache
def _find_kind(key: str) -> str:
    """Name what an object of ours is."""
    kind, _, rest = key.removeprefix(".runbook/").partition("/")
    if kind == "claims":
        return "claim"
    name = rest.rpartition("/")[2]
    if name.startswith("rel-"):
        return "later"
    if kind == "releases" and name[:1].isdigit():
        return "state"
    return name or kind


@cache
def _name(verb: str, key: str = "") -> str:
    """Name a point by what it does, without nonces and plans' ids."""
    if verb.startswith("append:"):
        return f"{verb.removeprefix('append:')}@ledger"
    if key.startswith(".runbook/"):
        key = _find_kind(key)
    elif key.startswith("parked/"):
        key = f"parked/{_get_rest(key)}"
    return f"{verb}@{key}" if key else verb


def _get_rest(key: str) -> str:
    return key.rpartition("/")[2]


def _mask_key(key: str, names: Mapping[str, str]) -> str:
    """Return a key without a plan's id and nonces."""
    parts = [names.get(part, part) for part in key.split("/")]
    if parts[0] == ".runbook" and parts[-1][:1].isdigit():
        parts[-1] = "nonce"
    return "/".join(parts)


def _classify(event: Event) -> str:
    return event.by if event.by in _OTHERS else "us" if event.by.isdigit() else "others"


def _describe(word: Any) -> str:
    if isinstance(word, move.MoveResult):
        return str({k: v for k, v in asdict(word).items() if v and k != "plan"})
    return f"{type(word).__name__}: {word}"


# --- where runs begin ---


class _Chance:
    """Makes the nonces and random waits of a run the same each time."""

    world: World

    def token_hex(self, size: int) -> str:
        """Return a nonce."""
        self.world.nonces += 1
        return f"{self.world.nonces:0{2 * size}x}"

    def urandom(self, size: int) -> bytes:
        """Return bytes."""
        return bytes(size)


_chance = _Chance()


_PARSERS: tuple[tuple[Any, str], ...] = (
    (bucket, "parse_xml"),
    (bucket, "parse_time"),
    (bucket, "format_time"),
    (bucket, "quote"),
    (bucket, "_read_objects"),
    (ledger, "parse_time"),
    (move, "format_time"),
    (Record, "model_validate_json"),
)


@contextmanager
def without_chance() -> Iterator[None]:
    """Let the mover draw nothing by chance, write no plan to a disk, and know the store."""
    with ExitStack() as stack:
        for module in (session, planning, record, settling):
            stack.enter_context(mock.patch.object(module, "secrets", _chance))
        for module in (move, planning, settling):
            stack.enter_context(mock.patch.object(module, "probe", _recall_abilities))
        for module in (move, planning):
            # The rights are known, too: what a refusal of them does is tested in ``test_move``.
            stack.enter_context(mock.patch.object(module, "check_right_to_delete", _do_nothing))
        stack.enter_context(mock.patch.object(session, "os", _chance))
        # The same bytes are parsed once: runs have most of their answers in common.
        for module, name in _PARSERS:
            parse = lru_cache(maxsize=8192)(getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, parse))
        stack.enter_context(mock.patch.object(plan_file, "save_plan", _do_nothing))
        stack.enter_context(mock.patch.object(shards, "read_manifest", _recall_manifest))
        for module in (manifest, shards):
            stack.enter_context(mock.patch.object(module, "read_shard", _recall_shard))
        # A run makes thousands of small objects, and few circles: collect them seldom.
        stack.callback(gc.set_threshold, *gc.get_threshold())
        gc.set_threshold(50_000, 10, 10)
        yield


def _do_nothing(*_: object, **__: object) -> None:
    """Stand in for what a run leaves out; a ``Mock`` would keep every run that called it."""


#: The manifests and shards of scenarios, which every machine has: by the SHA-256 of a shard; each
#: manifest also by its own. It has the rows of its shards, to compare words with.
_manifests: dict[str, Manifest] = {}
_shards: dict[str, MovePlan] = {}


def _recall_manifest(plan: MovePlan) -> Manifest:
    return _manifests[plan.sha256]


def _recall_shard(_bucket: S3Bucket, _manifest: Manifest, shard: Shard) -> MovePlan:
    return _shards[shard.sha256]


def _cut_plan(world: World) -> tuple[MovePlan, MovePlan]:
    """Cut the plan of a release of everything into two shards, and return these."""
    written: list[MovePlan] = []
    with mock.patch.object(plan_file, "save_plan", written.append):
        whole = cast(Manifest, make_plan(world, shards=2))
    first, second, _ = written
    whole = replace(whole, rows=(*first.rows, *second.rows))
    for shard in (first, second):
        _manifests[shard.sha256] = whole
        _shards[shard.sha256] = shard
    _manifests[whole.sha256] = whole
    return first, second


def _recall_abilities(bucket: S3Bucket, *, expires_s: int, parked: str) -> Abilities:
    world = cast(SimBucket, bucket).world
    return _make_abilities(is_strict=world.is_strict, is_versioned=world.is_versioned)


@cache
def _make_abilities(*, is_strict: bool, is_versioned: bool) -> Abilities:
    return Abilities(
        fence=True,
        conditional_copy=is_strict,
        conditional_put=is_strict,
        conditional_delete=is_strict,
        versions=is_versioned,
    )


class _Quiet:
    """The director of a world in which nothing happens."""

    def before(self, process: Process, verb: str, keys: Sequence[str]) -> None:
        """Let nothing happen."""

    def choose(self, process: Process, verb: str, keys: Sequence[str], options: str) -> str:  # noqa: ARG002
        """Choose the usual."""
        return ""


def load_start(scenario: Scenario) -> Start:
    """Return a fresh world in which a scenario begins."""
    packed, start = prepare_start(scenario)
    world, machine = pickle.loads(packed)  # noqa: S301  # our own
    return Start(world, machine, start.plan, start.other, dict(start.plans), start.line)


@cache
def prepare_start(scenario: Scenario) -> tuple[bytes, Start]:
    """Make a scenario's world, packed, and its plans."""
    machine = Machine("first")
    world = World(
        is_strict=scenario.is_strict,
        polls=scenario.polls,
        is_held=scenario.is_held,
        is_versioned=scenario.is_versioned,
        takes_versions=scenario.is_versioned,
    )
    for name in scenario.objects:
        world.write(f"pending/{name}", f"{name}1", "writer")
    world.advance(120_000)
    other = None
    if scenario.is_sharded:
        plan, other = _cut_plan(world)
    else:
        plan = make_plan(world, match="a" if scenario.is_split else "*")
    line = Line("apply", find_manifest(plan.id) if scenario.is_whole else plan.id)
    start = Start(world, machine, plan, other, {plan.id: plan}, line)
    if other is not None:
        start.plans[other.id] = other
    if scenario.is_sharded and scenario.stage == "release":
        world.advance(5_000)
    elif scenario.stage == "release":
        world.advance(5_000)
        start.other = make_plan(world, match="b" if scenario.is_split else "*")
        start.plans[start.other.id] = start.other
        if scenario.is_still:
            start.line = line._replace(flags=frozenset(["--consumer-stands-still"]))
    else:
        _prepare_stage(scenario, start)
    world.processes = 0
    packed = pickle.dumps((world, start.machine))
    return packed, start


def _prepare_stage(scenario: Scenario, start: Start) -> None:
    """Carry out what comes before, and plan what is explored."""
    world = start.world
    world.processes = 0
    run = Run(scenario, parse_script(scenario.before), start=start)
    run.prepare()
    world.advance(30_000)
    release = start.plan
    if scenario.stage == "stop":
        start.line = Line("resume", release.id, frozenset(["--stop-here"]))
        return
    process = Process(world, _Quiet(), start.machine, "")
    if scenario.stage == "undo":
        start.plan = _plan_undo(process, release)
    else:
        words: tuple[settling.Word, ...] = ("taken", "not_taken")
        settlings = [run.plan_word(process, release, word) for word in words]
        start.plan = next(filter(None, settlings))
    start.plans[start.plan.id] = start.plan
    if scenario.stage == "reopen":
        start.line = Line("apply", start.plan.id)
        Run(scenario, start=start).prepare()
        world.advance(30_000)
        start.plan = _plan_undo(Process(world, _Quiet(), start.machine, ""), start.plan)
        start.plans[start.plan.id] = start.plan
    flags = ["--consumer-stands-still"] if scenario.stage == "undo" else []
    start.line = Line("apply", start.plan.id, frozenset(flags))


def make_plan(
    world: World,
    *,
    match: str = "*",
    offset_ms: int = 0,
    list_begun: ListBegun = list_none,
    memory_removed: bool = False,
    shards: int = 0,
) -> MovePlan:
    """Make the plan of a release of everything, or of what matches.

    Parameters
    ----------
    offset_ms : how far the clock of the planning machine is off
    """
    _chance.world = world
    process = Process(world, _Quiet(), Machine("planner", offset_ms=offset_ms), "")
    header = {
        "source": "pending/",
        "to": "ready/",
        "made_by": "test",
        "others": "held",
        "step": "6.1",
        "made_at": process.clock.now(),
        "expires_at": process.clock.now() + timedelta(seconds=900),
        "timing": Timing(),
        "limit_objects": 10,
    }

    def judge(seen: Sequence[Seen]) -> list[Judgement]:
        return [Judgement("", one.last_modified) for one in seen]

    return planning.make_move_plan(
        process.bucket,
        header=header,
        folder=Path(),
        judge=judge,
        match=match,
        list_begun=list_begun,
        memory_removed=memory_removed,
        shards=shards,
    )


def _plan_undo(process: Process, plan: MovePlan) -> MovePlan:
    return planning.make_undo_plan(
        process.bucket,
        plan,
        logs=process.logs,
        made_by="test",
        others="the consumer stands still",
        window_s=3600,
        now=process.clock.now(),
    )


# --- search ---


@dataclass
class Found:
    """What a search found: violations by kind, with scripts, the shortest first."""

    name: str
    runs: int = 0
    known: int = 0
    seconds: float = 0.0
    failing: int = 0
    declared: Counter[str] = field(default_factory=Counter)
    violations: dict[str, list[str]] = field(default_factory=dict)

    def add(self, scenario: Scenario, outcome: Outcome) -> None:
        """Count one run."""
        self.runs += 1
        self.known += outcome.is_known
        self.declared.update(outcome.declared)
        self.failing += bool(outcome.violations)
        for violation in outcome.violations:
            scripts = self.violations.setdefault(re.sub(r"\b\d+(?!:)", "n", violation), [])
            if len(scripts) < 5:
                line = f"--scenario {scenario.name} --choices '{format_script(outcome.script)}'"
                scripts.append(line)

    def render(self) -> str:
        """Return it as text, with lines that reproduce each kind of violation."""
        lines = [
            f"{self.name}: {self.runs} runs in {self.seconds:.0f} s ({self.known} ended in a known"
            f" state), {sum(self.declared.values())} times declared damage, {self.failing} failing"
        ]
        for kind, scripts in self.violations.items():
            lines += [
                f"  {kind}",
                *(f"    python -m tests.objectmove.explore {script}" for script in scripts),
            ]
        return "\n".join(lines)


def search(
    scenario: Scenario, bound: int, *, is_naive: bool = False, part: tuple[int, int] = (0, 1)
) -> Found:
    """Run every script of up to ``bound`` disturbances, the shorter ones first.

    Parameters
    ----------
    is_naive : without the reductions
    part : of the scripts, those whose first disturbance has this number modulo that many
    """
    found, began, visited = Found(scenario.name), time.monotonic(), dict[int, int]()
    level: Iterable[Script] = [()]
    for left in range(bound, -1, -1):
        passed: list[tuple[Script, list[Point]]] = []
        for script in level:
            outcome = Run(
                scenario,
                script,
                is_naive=is_naive,
                visited=None if is_naive else visited,
                left=left,
            ).execute()
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
    found, began, chance = Found(name or "random"), time.monotonic(), random.Random(seed)
    names = [name] if name else sorted(SCENARIOS)
    visited = dict[int, int]()
    for _ in range(count):
        scenario = SCENARIOS[chance.choice(names)]
        run = Run(scenario, is_naive=True, chance=chance, depth=depth, visited=visited)
        found.add(scenario, run.execute())
    found.seconds = time.monotonic() - began
    return found


def compare(scenario: Scenario, bound: int) -> tuple[set[str], set[str]]:
    """Return the kinds of violations that the naive and the reduced search find."""
    naive, reduced = (search(scenario, bound, is_naive=it) for it in (True, False))
    return set(naive.violations), set(reduced.violations)


def _search_one(task: tuple[str, int, int, tuple[int, int]]) -> Found:
    name, bound, seed, part = task
    with without_chance():
        if not bound:
            return search_randomly("", part[1], 10, seed)
        return search(SCENARIOS[name], bound, part=part)


def search_all(tasks: Sequence[tuple[str, int, int, tuple[int, int]]]) -> Iterator[Found]:
    """Search in two processes, what takes longest first; bound 0 is a random search."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield from pool.imap_unordered(_search_one, tasks)


def list_tasks(
    *, is_full: bool, seed: int, count: int, part: tuple[int, int] = (0, 1)
) -> list[tuple[str, int, int, tuple[int, int]]]:
    """Return what ``--full`` or ``--ci`` searches; of each scenario, the part i of n."""
    bounds = {s.name: s.bound if is_full else s.ci_bound for s in SCENARIOS.values()}
    tasks = [(name, bound, 0, part) for name, bound in bounds.items() if bound]
    tasks.sort(key=lambda task: -task[1])
    return [*tasks, ("", 0, seed, (0, count)), ("", 0, seed + 1, (0, count))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, or show one run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--scenario", default="", choices=["", *sorted(SCENARIOS)])
    parser.add_argument("--choices", help="show the run with this script")
    parser.add_argument("--bound", type=int, default=1, help="try up to so many disturbances")
    parser.add_argument("--part", default="0/1", help="only the part i/n of them")
    parser.add_argument("--naive", action="store_true", help="without reductions")
    parser.add_argument("--full", action="store_true", help="all scenarios, an hour of CPU")
    parser.add_argument("--ci", action="store_true", help="all scenarios, about 3 minutes")
    parser.add_argument("--random", type=int, default=0, help="so many runs by chance")
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    given = parser.parse_args(arguments)
    founds: Iterable[Found]
    if given.full or given.ci:
        print(f"seed {given.seed}")
        tasks = list_tasks(is_full=given.full, seed=given.seed, count=5000)
        founds = search_all(tasks)
        return _print_all(founds)
    with without_chance():
        if given.choices is not None:
            scenario = SCENARIOS[given.scenario or "release-strict"]
            outcome = Run(scenario, parse_script(given.choices)).execute()
            print("\n".join(outcome.log))
            return bool(outcome.violations)
        if given.random:
            print(f"seed {given.seed}")
            found = search_randomly(given.scenario, given.random, given.depth, given.seed)
            return _print_all([found])
        names = [given.scenario] if given.scenario else list(SCENARIOS)
        first, count = map(int, given.part.split("/"))
        return _print_all(
            search(SCENARIOS[name], given.bound, is_naive=given.naive, part=(first, count))
            for name in names
        )


def _print_all(founds: Iterable[Found]) -> int:
    runs = failing = 0
    for found in founds:
        print(found.render(), flush=True)
        runs, failing = runs + found.runs, failing + found.failing
    print(f"{runs} executions, {failing} failing")
    return bool(failing)


if __name__ == "__main__":
    sys.exit(main())
