"""Run the mover through every interleaving up to a bound, and audit what came of it.

A run is determined by its script: what happens at which point. ``1.copy@ready/a=lost``: of the
first process's copy to ``ready/a`` the answer is lost. ``1<copy@ready/a=sleep``: before it, that
process sleeps past its claim. ``#2`` is a point's second time. What no script names goes as usual.
The search re-executes: a run tells the points that it passed after its last disturbance, and what
may happen there. ``python -m tests.objectmove.explore --help`` says how to search and reproduce.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import pickle
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import cache
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, cast
from unittest import mock

from greenlet import greenlet  # type: ignore[import-untyped]

from chainlog import ChainedLog, LogError
from objectmove import move, planning, proof, session
from objectmove import plan as plan_file
from objectmove.bucket import S3Bucket, Seen, parse_time
from objectmove.errors import HeldError, MoveError, RefusedError
from objectmove.ledger import Ledger
from objectmove.plan import Abilities, MovePlan, PlanRow, Timing
from objectmove.planning import Judgement
from objectmove.table import State

from .simulation import Call, Disk, Event, Killed, Machine, Process, Version, World, to_datetime

Script = tuple[tuple[str, str], ...]
_RESUMES = 20
_APPLY = "was never begun: apply it"
_LAPSE_MS = 70_000
_OTHERS = ("worker", "someone")
_CHANGES = ("copy", "put", "delete", "delete_many")
_LOOKS = ("look", "list", "read", "versions")


class Fates(NamedTuple):
    """What a search offers; a script may name more: all that the simulation knows.

    Attributes
    ----------
    changes, copies : fates of requests that change planned objects; of copies beside
    looks, naive_looks : of looks at planned objects; in a naive search
    own_looks : of looks at objects of our own
    own_changes : of changes of them, by verb and kind: only the fates that differ for who comes
        later
    events : what happens before something: the verbs of ``Run._do`` that not every search offers
    """

    changes: tuple[str, ...]
    copies: tuple[str, ...]
    looks: tuple[str, ...]
    naive_looks: tuple[str, ...]
    own_looks: tuple[str, ...]
    own_changes: dict[tuple[str, str], tuple[str, ...]]
    events: tuple[str, ...]


FATES_NOW = Fates(
    changes=("refused", "lost", "dropped", "late", "slow", "die-late"),
    copies=("ghost",),
    looks=(),
    naive_looks=("blind",),
    own_looks=(),
    own_changes={
        ("put", "claim"): ("lost", "late"),
        ("delete", "claim"): ("dropped",),
        ("put", "json"): ("lost", "dropped", "late", "die-late"),
        ("delete", "json"): ("lost", "dropped", "late", "die-late"),
        ("put", "gz"): ("lost", "dropped"),
        ("delete", "gz"): ("dropped",),
    },
    events=(),
)
#: Beside the former, what the mover of November does not withstand.
FATES_NEXT = Fates(
    changes=(
        *FATES_NOW.changes,
        "twice",
        "router-200",
        "router-403",
        "router-404",
        "router-412",
        "router-503",
        "router-after",
    ),
    copies=(*FATES_NOW.copies, "slowdown"),
    looks=("blind", "silent", "router-404", "router-200", "router-503"),
    naive_looks=("blind", "silent", "router-404", "router-200", "router-503"),
    own_looks=("blind", "router-404"),
    own_changes={
        ("put", "claim"): ("lost", "late", "twice", "router-after"),
        ("delete", "claim"): ("dropped", "router-after"),
        ("put", "json"): ("lost", "dropped", "late", "die-late", "twice", "router-after"),
        ("delete", "json"): ("lost", "dropped", "late", "die-late", "twice", "router-after"),
        ("put", "gz"): ("lost", "dropped"),
        ("delete", "gz"): ("dropped",),
    },
    events=("read-late", "take-version", "copy-folder"),
)
#: What searches offer when they are not told otherwise.
FATES = FATES_NOW


@dataclass(frozen=True, slots=True)
class Scenario:
    """Where runs begin.

    Attributes
    ----------
    stage : what is carried out: ``release``, ``undo``, ``taken`` or ``not_taken``
    polls : a consumer takes everything at once
    before : script of the release that came before
    is_cut : that release was not resumed
    is_versioned : the bucket keeps versions, and the consumer that polls deletes by version
    bound, ci_bound : how many disturbances ``--full`` and ``--ci`` try
    """

    name: str
    stage: str
    is_strict: bool
    objects: str = "a"
    polls: bool = False
    before: str = ""
    is_cut: bool = False
    is_versioned: bool = False
    bound: int = 2
    ci_bound: int = 1


def _list_scenarios() -> Iterator[Scenario]:
    for store in ("strict", "loose"):
        it = store == "strict"
        yield Scenario(f"release-{store}", "release", it, bound=3, ci_bound=2)
        yield Scenario(f"polled-{store}", "release", it, polls=True, bound=3, ci_bound=2)
        yield Scenario(f"two-{store}", "release", it, objects="ab")
        yield Scenario(f"three-{store}", "release", it, objects="abc")
        yield Scenario(f"undo-{store}", "undo", it, bound=3)
        cut = "1<deleting@ledger=kill-kept"
        yield Scenario(f"undo-half-{store}", "undo", it, before=cut, is_cut=True)
        lost, dropped = "1.copy@ready/a=lost", "1.copy@ready/a=dropped"
        yield Scenario(f"taken-{store}", "taken", it, polls=True, before=lost, bound=3)
        yield Scenario(f"not-taken-{store}", "not_taken", it, polls=True, before=dropped, bound=3)
    yield Scenario("release-versioned", "release", is_strict=True, is_versioned=True)
    yield Scenario("polled-versioned", "release", is_strict=True, polls=True, is_versioned=True)


SCENARIOS = {scenario.name: scenario for scenario in _list_scenarios()}


@dataclass
class Start:
    """A world, the first operator's machine, and the plans."""

    world: World
    machine: Machine
    plan: MovePlan
    other: MovePlan | None
    plans: dict[str, MovePlan]


@dataclass
class Outcome:
    """What came of a run: ``points`` are those after its last disturbance, with the options."""

    script: Script
    violations: list[str] = field(default_factory=list)
    declared: list[str] = field(default_factory=list)
    points: list[tuple[str, Sequence[str]]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    is_known: bool = False


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
    visited, left : states at restarts that were searched, by how many disturbances were left then
    start : where to begin; default: the scenario's own
    fates : what is offered where
    """

    def __init__(
        self,
        scenario: Scenario,
        script: Script = (),
        *,
        is_naive: bool = False,
        chance: random.Random | None = None,
        depth: int = 0,
        visited: dict[Any, int] | None = None,
        left: int = 0,
        start: Start | None = None,
        fates: Fates | None = None,
    ) -> None:
        self.scenario, self.outcome = scenario, Outcome(script)
        self._fates = fates or FATES
        self._is_naive, self._chance, self._depth = is_naive, chance, depth
        self._visited, self._left = visited, left
        start = start or load_start(scenario)
        self.world, self.machine, self.plan = start.world, start.machine, start.plan
        self._other_plan, self.plans = start.other, start.plans
        self._waiting = dict(script)
        self._passed: Counter[str] = Counter()
        self._others: dict[str, Machine] = {}
        self._stale: list[Machine] = []
        self._begun = {self.plan.id}
        self._words: dict[str, Any] = {}
        self._main: Any = greenlet.getcurrent()
        self._second: Any = None
        self._main_process: Process | None = None
        self._operators = 0
        self._is_quiet = self._is_person = False

    # --- director: what happens ---

    def before(self, process: Process, verb: str, keys: Sequence[str]) -> None:
        """Let things happen, as long as the script says so."""
        while not self._is_quiet:
            point = self._count(f"{process.name}<{_name(verb, *keys[:1])}")
            options = () if self._waiting else self._list_events(process, verb, keys)
            what = self._pick(point, options)
            if not what:
                return
            self._do(what, process)
            process.touch()

    def choose(self, process: Process, verb: str, keys: Sequence[str], options: str) -> str:
        """Return what becomes of a request or a line."""
        if self._is_quiet:
            return ""
        point = self._count(f"{process.name}.{_name(verb, *keys[:1])}")
        what = self._pick(point, () if self._waiting else self._list_fates(verb, keys, options))
        if what and what not in options.split():
            raise ValueError(f"{point} offers {options}, not {what}")
        return what

    def _count(self, point: str) -> str:
        self._passed[point] += 1
        count = self._passed[point]
        return f"{point}#{count}" if count > 1 else point

    def _pick(self, point: str, options: Sequence[str]) -> str:
        what = self._waiting.pop(point, "")
        if options and self._chance is None:
            self.outcome.points.append((point, options))
        elif options and self._chance and self._is_time(self._chance):
            what = self._chance.choice(options)
            self.outcome.script += ((point, what),)
        if what:
            self._tell(f"{point}={what}")
        return what

    def _is_time(self, chance: random.Random) -> bool:
        return len(self.outcome.script) < self._depth and chance.random() < 0.05

    def _do(self, what: str, process: Process) -> None:
        world = self.world
        verb, _, name = what.partition(":")
        source, to = f"pending/{name}", f"ready/{name}"
        acts: dict[str, Callable[[], object]] = {
            "take": lambda: world.take(to),
            "read": lambda: world.take(to, delete_after_ms=15),
            "read-late": lambda: world.take(to, delete_after_ms=6_000),
            "take-version": lambda: world.take(to, by_version=True),
            "rewrite": lambda: world.write(source, self._make_label(name), "writer"),
            "remove": lambda: world.remove(source, "someone"),
            "foreign": lambda: world.write(to, self._make_label(f"x{name}"), "someone"),
            "work": lambda: world.work(source, to),
            "half": lambda: world.work(source, to, delete_after_ms=900),
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

    def _make_label(self, name: str) -> str:
        return f"{name}{1 + sum(e.label.startswith(name) for e in self.world.history)}"

    def _pause_by_person(self) -> None:
        self.world.paused_by, self._is_person = "person", True

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
        kinds = [entry.kind for entry in old.folder.get_disk(self.plan.id).entries]
        if verb == "kill-bare":
            self.machine = Machine("bare")
        elif verb == "kill-old":
            folder = old.folder.copy_first(self.plan.id, kinds.index("approved") + 1)
            self.machine = Machine("old", folder)
        elif verb == "kill-older":
            intent = len(kinds) - 1 - kinds[::-1].index("intent")
            self.machine = Machine("older", old.folder.copy_first(self.plan.id, intent))
        if self.machine is not old and process is self._main_process:
            self._stale.append(old)
        process.kill(power=verb != "kill-kept")

    # --- what may happen ---

    def _list_fates(self, verb: str, keys: Sequence[str], options: str) -> Sequence[str]:
        if verb in _LOOKS:
            return self._list_look_fates(keys)
        is_touching = bool(self._find_touched(keys))
        if verb in _CHANGES:
            return self._list_change_fates(verb, keys, is_touching=is_touching or self._is_naive)
        is_offered = is_touching or self._is_naive or not keys
        return options.split() if is_offered and verb != "clock" else ()

    def _list_look_fates(self, keys: Sequence[str]) -> Sequence[str]:
        if not self._find_touched(keys):
            return self._fates.own_looks
        return self._fates.naive_looks if self._is_naive else self._fates.looks

    def _list_change_fates(
        self, verb: str, keys: Sequence[str], *, is_touching: bool
    ) -> Sequence[str]:
        if not is_touching:
            kind = "claim" if "/claims/" in keys[0] else keys[0].rpartition(".")[2]
            return self._fates.own_changes.get((verb, kind), ())
        if verb == "copy":
            return self._fates.changes + self._fates.copies
        return self._fates.changes

    def _list_events(self, process: Process, verb: str, keys: Sequence[str]) -> Sequence[str]:
        if verb in ("clock", "read", "read-log"):
            return ()
        world, events = self.world, list[str]()
        touched = self._find_touched(keys)
        is_change, is_append = verb in _CHANGES, verb.startswith("append")
        if self._is_naive:
            touched = [(side, name) for name in self.scenario.objects for side in _SIDES]
        for side, name in touched:
            events += self._list_foreign(side, name)
        if is_change or is_append or verb in ("pause", "resume"):
            events += self._list_kills(process, is_append=is_append)
        is_weighty = is_change and bool(
            touched or (verb == "put" and keys[0].endswith(("json", "0", *"123456789abcdef")))
        )
        if is_weighty:
            events += ["sleep", "suspend"] if touched else ["sleep"]
        if verb == "lock":
            events += ["jump", "jump-back"]
        if verb in ("lock", "pause") and not world.paused_by:
            events += [what for name in self.scenario.objects for what in self._list_work(name)]
            events += ["person"] if verb == "lock" and world.processes == 1 else []
        if is_weighty or verb in ("lock", "sleep"):
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
        if is_there and self.scenario.stage != "undo":
            takes = ["take", "read"]
            if "read-late" in self._fates.events:
                takes.append("read-late")
            if "take-version" in self._fates.events and self.world.is_versioned:
                takes.append("take-version")
            return [f"{verb}:{name}" for verb in ("foreign", *takes)]
        return [f"foreign:{name}"]

    def _list_work(self, name: str) -> list[str]:
        is_idle = self.world.is_worker_busy or f"pending/{name}" not in self.world.objects
        return [] if is_idle else [f"work:{name}", f"half:{name}"]

    def _list_kills(self, process: Process, *, is_append: bool) -> list[str]:
        if process is not self._main_process:
            return ["kill"]
        disk = process.machine.folder.get_disk(self.plan.id)
        events = ["kill", *(["kill-kept"] if disk.synced < len(disk.entries) else [])]
        if is_append and not self._is_naive:
            return events  # to who has no new folder this is as before the next request
        kinds = [entry.kind for entry in disk.entries]
        events += ["kill-bare", *(["kill-old"] if "approved" in kinds[:-1] else [])]
        return events + (["kill-older"] if "intent" in kinds else [])

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
        plan, machine, is_new = self.plan, self.machine, False
        if verb == "op-bare":
            machine = Machine("second")
            self._stale.append(machine)
        elif verb == "op-plan" and self._other_plan:
            plan = self._other_plan
            machine = self._others.setdefault(plan.id, Machine("third"))
            is_new = plan.id not in self._begun
        elif verb == "op-copied":
            machine = self._list_copied()[0]
        elif verb == "op-parent":
            plan = self.plans[self.plan.header.parent]
        self._begun.add(plan.id)
        self._operators += 1

        def work() -> None:
            self._attempt(machine, plan, is_new=is_new, is_main=False)
            self._second = None

        self._second = greenlet(work)
        self._second.switch()

    def _switch(self) -> None:
        if self._second is not None:
            is_second = greenlet.getcurrent() is self._second
            (self._main if is_second else self._second).switch()

    # --- execution ---

    def execute(self) -> Outcome:
        """Carry the plan out, resume until nothing is left, and audit.

        Raises
        ------
        ValueError
            When the script names what does not come.
        """
        _chance.world = self.world
        try:
            self._attempt(self.machine, self.plan, is_new=True)
            ends = self._finish(self.plan)
            for plan_id in sorted(self._begun - {self.plan.id}):
                ends = self._finish(self.plans[plan_id]) and ends
            self._audit(ends=ends)
        except _KnownStateError:
            self.outcome.is_known = True
        self._check_script()
        return self.outcome

    def _check_script(self) -> None:
        if self._waiting:
            raise ValueError(f"never came to {', '.join(self._waiting)}")

    def prepare(self) -> None:
        """Carry a release out that comes before, resuming it unless it is to be cut."""
        self._attempt(self.machine, self.plan, is_new=True)
        if not self.scenario.is_cut:
            self._finish(self.plan)
        self._check_script()

    def _finish(self, plan: MovePlan) -> bool:
        """Resume until nothing is left to do; tell whether it ends."""
        for _ in range(_RESUMES):
            if self._is_over(plan):
                break
            self._note_restart()
            self._resume(plan)
        else:
            return False
        self._give_back(plan)
        return True

    def _give_back(self, plan: MovePlan) -> None:
        """Resume what has left the worker paused, or is shown as unfinished."""
        for plan_id in (plan.id, plan.header.parent) * 4:
            is_shown = bool(plan_id) and not self._read_record(plan_id).get("finished", True)
            if is_shown or (plan_id and self.world.paused_by == "us"):
                self._resume(self.plans[plan_id])

    def _is_over(self, plan: MovePlan) -> bool:
        word = self._words.get(plan.id)
        if isinstance(word, move.MoveResult):
            disk = self._others.get(plan.id, self.machine).folder.get_disk(plan.id)
            return not (word.waiting or word.stopped) or _read_ledger(disk, plan).is_done
        is_open = not self._read_record(plan.id).get("finished", True)
        is_refused = isinstance(word, RefusedError) and not is_open
        return is_refused and not self._must_be_applied(plan)

    def _must_be_applied(self, plan: MovePlan) -> bool:
        """Tell whether a plan was never begun; nobody applies a release again for its undo."""
        return _APPLY in str(self._words.get(plan.id)) and plan.id != self.plan.header.parent

    def _resume(self, plan: MovePlan) -> None:
        is_new = self._must_be_applied(plan)
        self._attempt(self._others.get(plan.id, self.machine), plan, is_new=is_new)
        undo = self.plans.get(f"{plan.id}-undo")
        if undo and f"runbook resume {undo.id}" in str(self._words[plan.id]):
            self._resume(undo)

    def _attempt(
        self, machine: Machine, plan: MovePlan, *, is_new: bool, is_main: bool = True
    ) -> None:
        """Run our program once; what it returns or raises are its words."""
        process = Process(self.world, self, machine, plan.id)
        if is_main:
            self._main_process = process
        how: dict[str, Any] = {"logs": process.logs, "operator": f"op{process.name}"}
        how |= {"hold": process.hold, "clock": process.clock}
        word: Any
        try:
            if is_new:
                word = move.apply_plan(process.bucket, plan, approve=plan.sha256, **how)
            else:
                word = move.resume_plan(process.bucket, plan, **how)
        except (Killed, MoveError, LogError) as error:
            word = error
        self._words[plan.id] = word
        self._tell(f"{process.name} on {machine.name}, {plan.id}: {_describe(word)}")
        if isinstance(word, move.MoveResult):
            self._check_words(f"process {process.name}", plan, word)
        if is_main:
            while self._second is not None:
                self._second.switch()
            if isinstance(word, HeldError | Killed):
                self.world.advance(_LAPSE_MS)

    def _tell(self, line: str) -> None:
        self.outcome.log.append(f"{self.world.now_ms / 1000:8.3f}  {line}")

    # --- states at restarts ---

    def _note_restart(self) -> None:
        """End the run where the search was before, with as many disturbances left."""
        if self._visited is None or self._waiting:
            return
        state = self._describe_state()
        if self._visited.get(state, -1) >= self._left:
            raise _KnownStateError
        self._visited[state] = self._left

    def _describe_state(self) -> Any:
        """Return all that outlives processes, without what nothing depends on."""
        world = self.world
        disks = [
            (plan, machine.offset_ms, self._describe_ledger(machine, plan))
            for plan in sorted(filter(None, (*self._begun, self.plan.header.parent)))
            for machine in [self._others.get(plan, self.machine)]
        ]
        agenda = [
            (
                round((at_ms - world.now_ms) / 1000),
                what,
                str([part for part in details if isinstance(part, str | Call)]),
            )
            for at_ms, _, what, details in world.agenda
        ]
        happened = Counter(
            (_classify(e), e.verb, e.key, e.label, e.old and e.old.label, e.is_declared)
            for e in world.history
        )
        return (
            tuple(disks),
            tuple(self._describe_ledger(machine, self.plan.id) for machine in self._stale),
            tuple(sorted(agenda)),
            frozenset((what, min(count, 2)) for what, count in happened.items()),
            tuple(filter(None, map(self._describe_object, sorted(world.objects)))),
            self._describe_versions(),
            (world.paused_by, self._is_person, self._operators),
            tuple(self.outcome.violations),
        )

    def _describe_ledger(self, machine: Machine, plan: str) -> Any:
        """Return what the mover reads from a ledger, and whether it is behind the record."""
        disk, head = machine.folder.get_disk(plan), self._read_record(plan).get("ledger")
        ledger = _read_ledger(disk, self.plans[plan])
        in_doubt = ledger.rows(State.DOUBTFUL, State.LANDED)
        return (
            tuple(ledger.states.values()),
            tuple((place, landing.at is None) for place, landing in ledger.landings.items()),
            (ledger.begun, bool(ledger.approved_sha256), ledger.is_done, ledger.is_holding),
            ledger.is_taken_back,
            tuple(row for row in ledger.rows(State.NONE) if row in ledger.reasons),
            self._count_left_s(ledger.fence_at) if in_doubt else 0,
            disk.synced < len(disk.entries),
            any(entry.hash == head for entry in disk.entries),
        )

    def _describe_versions(self) -> Any:
        """Return what a versioned bucket keeps of planned objects."""

        def describe(version: Version) -> str:
            return "marker" if version.is_marker else version.label

        return tuple(
            (key, tuple(map(describe, versions)))
            for key, versions in sorted(self.world.versions.items())
            if key.startswith(_SIDES)
        )

    def _describe_object(self, key: str) -> Any:
        version = self.world.objects[key]
        if version.label:
            by = version.by if version.by in _OTHERS else version.by.isdigit()
            return (key, version.label, by)
        if "/claims/" in key:
            left = round((version.at_ms + _LAPSE_MS - self.world.store_ms) / 5000)
            return ("claim", left) if left > 0 else None
        if not key.endswith("state.json"):
            return key
        record = json.loads(version.body)
        fence_at = record["fence_at"] and parse_time(record["fence_at"])
        changed = {"fence_at": self._count_left_s(fence_at), "by": "", "ledger": ""}
        return (key, json.dumps({**record, **changed}))

    def _read_record(self, plan: str) -> dict[str, Any]:
        version = self.world.objects.get(f".runbook/releases/{plan}/state.json")
        return json.loads(version.body) if version else {}

    def _count_left_s(self, at: datetime | None) -> int:
        now = to_datetime(self.world.store_ms)
        return max(0, round((at - now).total_seconds())) if at else 0

    # --- audit ---

    def _audit(self, *, ends: bool) -> None:
        self.world.advance(600_000)
        if not ends:
            self._fail(5, "it does not end")
        if self._is_person and self.world.paused_by != "person":
            self._fail(3, "the worker that a person paused was let go on")
        for what in self.world.unheld:
            self._fail(2, f"{what} while the worker may move")
        for name in self.scenario.objects:
            self._audit_deletes(name)
            self._audit_lost(name)
        self._audit_proof()
        self._is_quiet = True
        self._audit_again()
        self._release_what_waits()
        for name in self.scenario.objects:
            self._audit_copies(name)

    def _check_words(self, who: str, plan: MovePlan, said: move.MoveResult) -> None:
        """Compare what a run says with what is true at that moment."""
        moved = sum(self._is_moved(row) for row in plan.rows)
        if said.moved > moved:
            self._fail(4, f"{who} says {said.moved} moved, {moved} are")
        self._check_complete(plan, said.is_complete, who)

    def _check_complete(self, plan: MovePlan, is_complete: bool, who: str) -> None:
        if is_complete and not all(self._is_moved(row) for row in plan.rows if row.to):
            self._fail(4, f"{who} says complete, and something planned waits")
        if is_complete and plan.header.action == "undo":
            for name in self.scenario.objects:
                left = self.world.objects.get(f"ready/{name}")
                if left and left.by.isdigit() and left.label == f"{name}1":
                    self._fail(4, f"{who} says complete, and our copy is at ready/{name}")

    def _is_moved(self, row: PlanRow) -> bool:
        """Tell whether the planned content came to its destination and left its source."""
        label, there = self.world.labels[row.etag], self.world.objects.get(row.key)
        return self._has_come(row) and (
            there is None or there.label != label or there.by in _OTHERS
        )

    def _has_come(self, row: PlanRow, plan: str = "") -> bool:
        came = (row.to, self.world.labels[row.etag])
        return any(
            (e.key, e.label) == came and e.plan[: len(plan)] == plan for e in self.world.history
        )

    def _audit_proof(self) -> None:
        process = Process(self.world, self, self.machine, self.plan.id)
        with suppress(MoveError, LogError):
            said = proof.verify_plan(
                process.bucket, self.plan, logs=process.logs, clock=process.clock
            )
            self._tell(f"proof: {', '.join(f'{n} {what}' for what, n in said.counts.items() if n)}")
            self._check_complete(self.plan, said.is_complete, "the proof")
        ledger = _read_ledger(self.machine.folder.get_disk(self.plan.id), self.plan)
        # a folder that another machine outran tells what it knew
        for row in ledger.rows(State.SKIPPED) if not self._stale else ():
            if self._has_come(self.plan.rows[row], self.plan.id):
                self._fail(4, f"{self.plan.rows[row].key} is told as skipped, and was copied")

    def _audit_again(self) -> None:
        """Resume what is over, here and with every other folder: nothing may come of it."""
        is_done = isinstance(self._words[self.plan.id], move.MoveResult)
        for machine in (*self._stale, self.machine):
            self._attempt(machine, self.plan, is_new=False)
        if is_done and not self._stale and not self._is_over(self.plan):
            self._fail(5, "what was over is not")
        self._give_back(self.plan)
        if self.world.paused_by == "us":
            self._fail(5, "the worker stays paused")
        for plan_id in (self.plan.id, self.plan.header.parent):
            if plan_id and not self._read_record(plan_id).get("finished", True):
                self._fail(5, f"{self.plans[plan_id].header.action} is shown as unfinished")

    def _release_what_waits(self) -> None:
        """Make a plan of what waits and carry it out: nothing of it may have been shipped."""
        if any(key.startswith("pending/") for key in self.world.objects):
            plan = make_plan(self.world)
            self.plans[plan.id] = plan
            self._attempt(Machine("next"), plan, is_new=True)

    def _audit_copies(self, name: str) -> None:
        """Find what was put at the destination twice, or over something."""
        label, to, copies = f"{name}1", f"ready/{name}", 0
        for event in self._list_happened(name):
            is_ours = event.by.isdigit()
            if (event.verb, event.key, event.label) == ("put", to, label):
                if is_ours and copies:
                    self._fail(2, f"{label} was put at {to} again by {event.by}")
                elif event.by == "worker" and copies:
                    self.outcome.declared.append("the worker shipped what was shipped")
                copies += is_ours or event.by == "worker"
            if is_ours and event.verb == "put" and event.old and event.old.label != event.label:
                self._harm(event.is_declared, f"{event.by} overwrote {event.old.label}")
            if event.verb == "delete" and event.key == to and self._is_undo(event.plan):
                copies -= 1

    def _audit_deletes(self, name: str) -> None:
        """Find what we removed that was not ours to remove."""
        for event in self._list_happened(name):
            if event.verb != "delete" or not event.old:
                continue
            is_ready = event.key.startswith("ready/")
            if is_ready and not self._is_undo(event.plan):
                self._fail(3, f"{event.by} removed {event.old.label} from {event.key}")
            elif event.old.label != f"{name}1" or (is_ready and not event.old.by.isdigit()):
                self._harm(event.is_declared, f"{event.by} removed {event.old.label}")

    def _audit_lost(self, name: str) -> None:
        """Find out whether the planned content is nowhere, and we did it."""
        label, goals = f"{name}1", {row.to for plan in self.plans.values() for row in plan.rows}
        left, last, is_excused = set[str](), "", False
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
            self._fail(1, f"{label} is nowhere: {last} removed it")

    def _list_happened(self, name: str) -> list[Event]:
        return [event for event in self.world.history if event.key.rpartition("/")[2] == name]

    def _is_undo(self, plan: str) -> bool:
        return self.plans[plan].header.action == "undo"

    def _harm(self, is_declared: bool, text: str) -> None:
        if is_declared:
            self.outcome.declared.append(text)
        else:
            self._fail(3, text)

    def _fail(self, promise: int, text: str) -> None:
        self.outcome.violations.append(f"promise {promise}: {text}")
        self._tell(f"VIOLATION of promise {promise}: {text}")


_SIDES = ("pending", "ready")


class _KnownStateError(Exception):
    """The state at a restart was searched before."""


def _read_ledger(disk: Disk, plan: MovePlan) -> Ledger:
    """Read a ledger from outside of the simulation."""
    return Ledger(cast(ChainedLog, SimpleNamespace(read=lambda: disk.entries)), plan)


@cache
def _name(verb: str, key: str = "") -> str:
    """Name a point by what it does, without nonces and plans' ids."""
    if verb.startswith("append:"):
        return f"{verb.removeprefix('append:')}@ledger"
    if key.startswith(".runbook/"):
        kind, _, rest = key.removeprefix(".runbook/").partition("/")
        key = "claim" if kind == "claims" else rest.rpartition("/")[2] or kind
        if kind == "settled":
            key = f"settled/{key}"
    return f"{verb}@{key}" if key else verb


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


@contextmanager
def without_chance() -> Iterator[None]:
    """Let the mover draw nothing by chance, write no plan to a disk, and know the store."""
    with ExitStack() as stack:
        for module in (session, planning):
            stack.enter_context(mock.patch.object(module, "secrets", _chance))
        for module in (move, planning):
            stack.enter_context(mock.patch.object(module, "probe", _recall_abilities))
        stack.enter_context(mock.patch.object(session, "os", _chance))
        stack.enter_context(mock.patch.object(plan_file, "save_plan"))
        yield


def _recall_abilities(bucket: S3Bucket, *, expires_s: int) -> Abilities:
    is_strict = bucket.name == "strict"
    return Abilities(
        fence=True,
        conditional_copy=is_strict,
        conditional_put=is_strict,
        conditional_delete=is_strict,
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
    packed, plan, other, plans = prepare_start(scenario)
    world, machine = pickle.loads(packed)  # noqa: S301  # our own
    return Start(world, machine, plan, other, dict(plans))


@cache
def prepare_start(
    scenario: Scenario,
) -> tuple[bytes, MovePlan, MovePlan | None, dict[str, MovePlan]]:
    """Make a scenario's world, packed, and its plans."""
    machine = Machine("first")
    world = World(
        is_strict=scenario.is_strict,
        polls=scenario.polls,
        is_versioned=scenario.is_versioned,
        takes_versions=scenario.is_versioned,
    )
    for name in scenario.objects:
        world.write(f"pending/{name}", f"{name}1", "writer")
    world.advance(120_000)
    plan = make_plan(world)
    plans, other = {plan.id: plan}, None
    if scenario.stage == "release":
        world.advance(5_000)
        other = make_plan(world)
        plans[other.id] = other
    else:
        start = Start(world, machine, plan, None, plans)
        world.processes = 0
        Run(scenario, parse_script(scenario.before), start=start).prepare()
        world.advance(30_000)
        plan = _make_second_plan(scenario.stage, plan, world, machine)
        plans[plan.id] = plan
    world.processes = 0
    return pickle.dumps((world, machine)), plan, other, plans


def make_plan(world: World) -> MovePlan:
    """Make the plan of a release of everything."""
    _chance.world = world
    process = Process(world, _Quiet(), Machine("planner"), "")
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

    return planning.make_move_plan(process.bucket, header=header, folder=Path(), judge=judge)


def _make_second_plan(stage: str, plan: MovePlan, world: World, machine: Machine) -> MovePlan:
    process = Process(world, _Quiet(), machine, "")
    how: dict[str, Any] = {"logs": process.logs, "made_by": "test", "now": process.clock.now()}
    if stage == "undo":
        others = "the consumer stands still"
        return planning.make_undo_plan(process.bucket, plan, others=others, window_s=3600, **how)
    word: Literal["taken", "not_taken"] = "taken" if stage == "taken" else "not_taken"
    return planning.make_settle_plan(process.bucket, plan, word=word, keys=(), evidence={}, **how)


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
    scenario: Scenario,
    bound: int,
    *,
    is_naive: bool = False,
    part: tuple[int, int] = (0, 1),
    fates: Fates | None = None,
) -> Found:
    """Run every script of up to ``bound`` disturbances, the shorter ones first.

    Parameters
    ----------
    is_naive : without the reductions
    part : of the scripts, those whose first disturbance has this number modulo that many
    fates : what is offered where; default: ``FATES``
    """
    found, began, visited = Found(scenario.name), time.monotonic(), dict[Any, int]()
    level: Iterable[Script] = [()]
    for left in range(bound, -1, -1):
        passed: list[tuple[Script, list[tuple[str, Sequence[str]]]]] = []
        for script in level:
            outcome = Run(
                scenario,
                script,
                is_naive=is_naive,
                visited=None if is_naive else visited,
                left=left,
                fates=fates,
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


def search_randomly(
    name: str, count: int, depth: int, seed: int, *, fates: Fates | None = None
) -> Found:
    """Run scripts that are drawn by chance, of all scenarios when the name is empty."""
    found, began, chance = Found(name or "random"), time.monotonic(), random.Random(seed)
    names = [name] if name else sorted(SCENARIOS)
    for _ in range(count):
        scenario = SCENARIOS[chance.choice(names)]
        run = Run(scenario, is_naive=True, chance=chance, depth=depth, fates=fates)
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
    *, is_full: bool, seed: int, count: int
) -> list[tuple[str, int, int, tuple[int, int]]]:
    """Return what ``--full`` or ``--ci`` searches."""
    bounds = {s.name: s.bound if is_full else s.ci_bound for s in SCENARIOS.values()}
    tasks = [(name, bound, 0, (0, 1)) for name, bound in bounds.items()]
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
    parser.add_argument("--next", action="store_true", help="offer FATES_NEXT")
    parser.add_argument("--full", action="store_true", help="all scenarios, about 40 minutes")
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
    fates = FATES_NEXT if given.next else FATES
    with without_chance():
        if given.choices is not None:
            scenario = SCENARIOS[given.scenario or "release-strict"]
            outcome = Run(scenario, parse_script(given.choices)).execute()
            print("\n".join(outcome.log))
            return bool(outcome.violations)
        if given.random:
            print(f"seed {given.seed}")
            found = search_randomly(
                given.scenario, given.random, given.depth, given.seed, fates=fates
            )
            return _print_all([found])
        names = [given.scenario] if given.scenario else list(SCENARIOS)
        first, count = map(int, given.part.split("/"))
        return _print_all(
            search(
                SCENARIOS[name], given.bound, is_naive=given.naive, part=(first, count), fates=fates
            )
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
