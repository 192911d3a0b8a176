"""One run: a world, a person who follows what is printed, and what disturbs both.

A run is determined by its script: what happens at which point. ``1.copy@ready/a=lost``: of the
first process's copy to ``ready/a`` the answer is lost. ``1<copy@ready/a=sleep``: before it, that
process sleeps until its lock has lapsed. ``#2`` is a point's second time. What no script names goes
as usual.
"""

from __future__ import annotations

import pickle
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple

from greenlet import greenlet  # type: ignore[import-untyped]

from . import audits, chance
from .audits import Finding
from .engine import errors, plan, result, state
from .person import LAPSE_MS, Desk, Line, Word, find_way_on, read_line, read_told
from .process import CHANGE_FATES, COPY_FATES, LOOK_FATES, Killed, Process, Quiet
from .scenarios import Scenario
from .wire import CHANGES, Call, to_datetime
from .world import OURS, PARKED, SOURCE, TO, Machine, World, get_name

Script = tuple[tuple[str, str], ...]
#: A point that a run passed, and what could have happened there.
Point = tuple[str, Sequence[str]]
_STEPS = 20
_LOOKS = ("look", "list", "read")
_SIDES = (SOURCE, TO)
_HOUR_MS = 3_600_000
#: How often a person tries to clear a place that other content occupies.
_MAKINGS = 3
#: The most rows that one kill leaves in doubt.
_WINDOW = 32


class Fates(NamedTuple):
    """What a search offers; a script may name more: all that the simulation knows.

    Attributes
    ----------
    changes, copies : fates of requests that change planned objects; of copies and renames beside
    looks : of looks at planned objects
    own_looks : of looks at objects of our own
    own_changes : of changes of them, by verb and kind: only the fates that differ for who comes
        later
    events : what happens before something: those that not every search offers
    """

    changes: tuple[str, ...]
    copies: tuple[str, ...]
    looks: tuple[str, ...]
    own_looks: tuple[str, ...]
    own_changes: Mapping[tuple[str, str], tuple[str, ...]]
    events: tuple[str, ...]


_STATE_FATES = ("lost", "dropped", "refused", "late", "die-late", "twice", "router-after")
#: All fates: of the first disturbance of a run, and of runs by chance.
FATES = Fates(
    changes=CHANGE_FATES,
    copies=COPY_FATES,
    looks=LOOK_FATES,
    own_looks=("blind", "router-404"),
    own_changes={
        ("put", "claim"): ("lost", "late", "twice", "router-after"),
        ("delete", "claim"): ("dropped", "router-after"),
        ("put", "plan"): ("lost", "dropped"),
        ("put", "state"): _STATE_FATES,
        ("put", "part1"): _STATE_FATES,
        ("put", "part2"): _STATE_FATES,
        ("delete", "state"): ("lost", "dropped", "late", "die-late"),
        ("delete", "plan"): ("dropped", "late"),
    },
    events=("read-late", "copy-folder", "kill-forgotten", "interrupt", "forget-part"),
)
_LATER = ("lost", "dropped", "late", "die-late")
#: One fate of each kind, of the later disturbances of a run. What a router makes up has no effect
#: and proves nothing, like ``dropped``; ``router-after`` and ``ghost`` took effect and prove
#: nothing, like ``lost``; a failed look is a failed look. Each was tried alone, by ``FATES``.
FATES_LATER = Fates(
    changes=("refused", "lost", "dropped", "late", "slow", "die-late"),
    copies=(),
    looks=("blind",),
    own_looks=(),
    own_changes={
        ("put", "claim"): ("lost", "late"),
        ("delete", "claim"): ("dropped",),
        ("put", "plan"): ("dropped",),
        ("put", "state"): _LATER,
        ("put", "part1"): _LATER,
        ("put", "part2"): _LATER,
        ("delete", "state"): ("dropped",),
        ("delete", "plan"): ("dropped",),
    },
    events=("read-late", "copy-folder", "interrupt"),
)


@dataclass
class Start:
    world: World
    machines: dict[str, Machine]
    lines: list[tuple[str, Line]]


@dataclass
class Outcome:
    script: Script
    violations: list[str] = field(default_factory=list)
    declared: list[str] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    events: list[tuple[int, str, Any]] = field(default_factory=list)
    is_known: bool = False
    has_moved: bool = False

    @property
    def log(self) -> list[str]:
        """What happened, in lines; written only when someone reads them."""
        lines = []
        for at_ms, text, word in self.events:
            told = text if word is None else f"{text}: {_describe(word)}"
            lines.append(f"{at_ms / 1000:8.3f}  {told}")
        return lines


class ScriptError(ValueError):
    """A script names what does not come."""


class _KnownStateError(Exception):
    """The state at a restart was searched before."""


def parse_script(text: str) -> Script:
    return tuple((point, what) for point, _, what in (part.partition("=") for part in text.split()))


def format_script(script: Script) -> str:
    return " ".join(f"{point}={what}" for point, what in script)


class Run:
    """One execution; also the director of its world.

    Parameters
    ----------
    script : what happens where
    draw, depth : take so many disturbances by chance; everything is offered everywhere then, not
        only what can matter there
    visited, left : hashes of states at restarts and ends that were searched, with how many
        disturbances were left then; a run by chance asks once it draws no more
    start : where to begin; default: the scenario's own
    is_traced : tell every point that it passes
    """

    def __init__(
        self,
        scenario: Scenario,
        script: Script = (),
        *,
        draw: random.Random | None = None,
        depth: int = 0,
        visited: dict[int, int] | None = None,
        left: int = 0,
        start: Start | None = None,
        is_traced: bool = False,
    ) -> None:
        self.scenario = scenario
        self._is_traced = is_traced
        self.outcome = Outcome(script)
        is_first = draw is not None or not script
        self._fates = FATES if is_first else FATES_LATER
        self._is_naive = draw is not None
        self._draw = draw
        self._depth = depth
        self._visited = visited
        self._left = left
        start = start or load_start(scenario)
        self.world = start.world
        self.machines = start.machines
        self.machine = self.machines["first"]
        self._lines = start.lines
        self.desk = Desk(self.world, self, self._tell)
        self._line = Line("check")
        self._waiting = dict(script)
        self._passed: Counter[str] = Counter()
        self._main: Any = greenlet.getcurrent()
        self._second: Any = None
        self._main_process: Process | None = None
        self._first_entries: dict[str, int] = {}
        self._operators = 0
        # Nobody takes since some seconds before; times in commands are the store's whole seconds.
        self._still_since = to_datetime(self.world.store_ms - 10_000).isoformat()
        self._disturbances = 0
        self._is_overtaken = False
        self._makings = 0
        self._is_stuck = False
        self._has_early_reader = False
        self._is_forgotten = False
        self._late = set[str]()
        #: What the second operator printed who paused the worker too late.
        self._printed_beside = ""
        self._is_late_killed = False
        self._is_quiet = False
        self._is_person = False

    def before(self, process: Process, verb: str, keys: Sequence[str]) -> None:
        """Let things happen, as long as the script says so."""
        while not self._is_quiet:
            point = self._count(f"{process.name}<{_name(verb, *keys[:1])}")
            what = self._pick(point, partial(self._list_events, process, verb, keys))
            if not what:
                return
            if verb == "pause" and what.startswith(("op-", "yield")):
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
        if what == "die-late":
            self._is_late_killed |= bool(self._late)
        return what

    def _count(self, point: str) -> str:
        self._passed[point] += 1
        count = self._passed[point]
        counted = f"{point}#{count}" if count > 1 else point
        if self._is_traced:
            self._tell(f"    {counted}")
        return counted

    def _pick(self, point: str, list_options: Callable[[], Sequence[str]]) -> str:
        what = ""
        if self._waiting:
            what = self._waiting.pop(point, "")
        elif self._draw is None:
            options = list_options()
            if options:
                self.outcome.points.append(_share(point, tuple(options)))
        elif len(self.outcome.script) < self._depth and self._draw.random() < 0.05:
            options = list_options()
            if options:
                what = self._draw.choice(options)
                self.outcome.script += ((point, what),)
        if what:
            self._disturbances += 1
            self._tell(f"{point}={what}")
        return what

    def _do(self, what: str, process: Process) -> None:
        world = self.world
        verb, _, name = what.partition(":")
        source = SOURCE + name
        to = TO + name
        acts: dict[str, Callable[[], object]] = {
            "take": lambda: world.take(to),
            "read": lambda: self._read(to, 15),
            "read-late": lambda: self._read(to, 6_000),
            "rewrite": lambda: world.write(source, self._make_label(name), "writer"),
            "again": lambda: world.write(source, f"{name}1", "writer"),
            "remove": lambda: world.remove(source, "someone"),
            "foreign": lambda: world.write(to, self._make_label(f"x{name}"), "someone"),
            "work": lambda: self._work(source, to, 0),
            "half": lambda: self._work(source, to, 900),
            "person": self._pause_by_person,
            "sleep": lambda: world.advance(LAPSE_MS),
            "suspend": lambda: self._suspend(process),
            "jump": lambda: self._jump(process, _HOUR_MS),
            "jump-back": lambda: self._jump(process, -_HOUR_MS),
            "yield": self._switch,
            "copy-folder": lambda: self._copy_folder(process),
            "forget-part": lambda: self._forget(f"{OURS}parts/"),
            "interrupt": self._interrupt,
        }
        if verb.startswith("op-"):
            self._begin_second(verb)
        elif verb.startswith("kill"):
            self._kill(verb, process)
        else:
            acts[verb]()

    def _interrupt(self) -> None:
        raise KeyboardInterrupt

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
        self.world.advance(LAPSE_MS)
        process.lag_ms += LAPSE_MS

    def _jump(self, process: Process, ms: int) -> None:
        process.machine.offset_ms += ms

    def _copy_folder(self, process: Process) -> None:
        """Copy the folder with ``cp -r``; a second operator may use it, in the end both resume."""
        self.machines["copied"] = Machine("copied", process.machine.folder.copy())

    def _forget(self, prefix: str) -> None:
        self.world.remove_memory(prefix)
        self._is_forgotten = True

    def _kill(self, verb: str, process: Process) -> None:
        """Kill a process; whoever resumes has this folder, an older copy, or none."""
        old = process.machine
        machine = old
        if verb == "kill-bare":
            machine = Machine("bare")
        elif verb == "kill-old":
            count = self._first_entries.get(process.name, 0)
            machine = Machine("old", old.folder.copy_first(process.plan, count))
        elif verb == "kill-forgotten":
            self._forget(OURS)
        self._is_late_killed |= bool(self._late)
        if machine is not old and process is self._main_process:
            self.machines[machine.name] = machine
            self.machine = machine
        process.kill(power=verb != "kill-kept")

    def _list_fates(self, verb: str, keys: Sequence[str], options: str) -> Sequence[str]:
        if self.scenario.kills_only:
            return ("die-late",) if verb in CHANGES and keys[0].startswith(TO) else ()
        if verb in CHANGES or verb in _LOOKS:
            return self._list_request_fates(verb, keys)
        return options.split() if verb != "clock" else ()

    def _list_request_fates(self, verb: str, keys: Sequence[str]) -> Sequence[str]:
        is_about_objects = any(not key.startswith(OURS) for key in keys)
        if verb in _LOOKS:
            return self._fates.looks if is_about_objects else self._fates.own_looks
        if verb in ("copy", "rename"):
            return self._fates.changes + self._fates.copies
        if is_about_objects or self._is_naive:
            return self._fates.changes
        return self._fates.own_changes.get((verb, _find_kind(keys[0])), ())

    def _list_events(self, process: Process, verb: str, keys: Sequence[str]) -> Sequence[str]:
        if verb in ("clock", "read"):
            return ()
        is_change = verb in CHANGES
        is_append = verb.startswith("append")
        touched = self._find_touched(keys)
        if self.scenario.kills_only:
            return ["kill"] if is_change or verb in ("pause", "resume") else []
        world = self.world
        events = list[str]()
        if self._is_naive:
            touched = [(side, name) for name in self.scenario.objects for side in _SIDES]
        for side, name in touched:
            events += self._list_foreign(side, name)
        if is_change or is_append or verb in ("pause", "resume"):
            events += self._list_kills(process, is_append=is_append)
        is_weighty = is_change and (bool(touched) or verb == "put")
        if is_weighty:
            events += ["sleep", "suspend"] if touched else ["sleep"]
        if verb == "start":
            events += ["jump", "jump-back"]
        is_free = not world.paused_by and (world.is_held or self.scenario.stage != "undo")
        if is_free and (verb in ("start", "pause") or (touched and not world.is_held)):
            events += [what for name in self.scenario.objects for what in self._list_work(name)]
        if verb == "start" and world.processes == 1:
            events += [] if world.paused_by else ["person"]
            events += self._list_early_reads()
        if is_weighty or verb in ("start", "sleep", "pause"):
            events += self._list_operators(process, verb)
        is_main = process is self._main_process
        if (is_weighty or is_append) and is_main and "copied" not in self.machines:
            events += [what for what in self._fates.events if what == "copy-folder"]
        return events

    def _find_touched(self, keys: Sequence[str]) -> list[tuple[str, str]]:
        """Return which side of which object is touched."""
        touched = []
        for key in keys:
            if key.startswith(_SIDES):
                side, _, name = key.partition("/")
                names = [name] if name else list(self.scenario.objects)
                touched += [(f"{side}/", one) for one in names]
        return touched

    def _list_foreign(self, side: str, name: str) -> list[str]:
        is_there = side + name in self.world.objects
        if side == SOURCE:
            return [
                f"rewrite:{name}",
                f"again:{name}",
                *([f"remove:{name}"] if is_there else []),
            ]
        does_anyone_take = self.scenario.stage != "undo" and not self.scenario.is_still
        if is_there and does_anyone_take:
            takes = ["take", "read"]
            if "read-late" in self._fates.events:
                takes.append("read-late")
            return [f"{verb}:{name}" for verb in ("foreign", *takes)]
        return [f"foreign:{name}"]

    def _list_early_reads(self) -> list[str]:
        """Return the reads of consumers before a person confirms that they are stopped."""
        if self.scenario.stage != "undo":
            return []
        there = [name for name in self.scenario.objects if TO + name in self.world.objects]
        return [f"read-late:{name}" for name in there]

    def _list_work(self, name: str) -> list[str]:
        is_idle = self.world.is_worker_busy or SOURCE + name not in self.world.objects
        return [] if is_idle else [f"work:{name}", f"half:{name}"]

    def _list_kills(self, process: Process, *, is_append: bool) -> list[str]:
        if process is not self._main_process:
            return ["kill"]
        disk = process.machine.folder.get_disk(process.plan)
        events = ["kill", *(["kill-kept"] if disk.synced < len(disk.entries) else [])]
        if is_append and not self._is_naive:
            return events  # to who has no new folder this is as before the next request
        events.append("kill-bare")
        count = self._first_entries.get(process.name, 0)
        events += ["kill-old"] if count < len(disk.entries) else []
        offered = ["interrupt"]
        if self._second is None and disk.entries:
            offered.append("kill-forgotten")
        if self.scenario.parts:
            offered.append("forget-part")
        return events + [what for what in offered if what in self._fates.events]

    def _list_operators(self, process: Process, verb: str) -> list[str]:
        if self._second is not None:
            return ["yield"]
        if verb == "sleep" or process is not self._main_process or self._operators > 1:
            return []
        if verb == "start":
            return ["op-same"]
        operators = ["op-bare"]
        if len(self._lines) > 1:
            operators.append("op-other")
        if "copied" in self.machines:
            operators.append("op-copied")
        return operators

    def _begin_second(self, verb: str) -> None:
        """Let someone else work until they end, or yield; the first stands still meanwhile."""
        plan_id = self._line.plan or self._lines[0][1].plan
        # It confirms what the first operator did, as a printed command repeats it.
        still = self._still_since if self._line.still else ""
        line = Line("resume", plan_id, still=still)
        machine = self.machine
        if verb == "op-bare":
            machine = self.machines.setdefault("second", Machine("second"))
        elif verb == "op-other":
            name, line = self._lines[1]
            machine = self.machines[name]
        elif verb == "op-copied":
            machine = self.machines["copied"]
        self._operators += 1

        def work() -> None:
            self._attempt(machine, line, is_main=False)
            self._second = None

        self._second = greenlet(work)
        self._second.switch()

    def _switch(self) -> None:
        if self._second is not None:
            is_second = greenlet.getcurrent() is self._second
            (self._main if is_second else self._second).switch()

    def execute(self) -> Outcome:
        """Type the commands, do what is printed until nothing is left, and audit."""
        chance.use(self.world)
        try:
            for name, line in self._lines:
                self.machine = self.machines[name]
                self._lead_on(line)
            self.world.advance(600_000)
            self._note_end()
            self._audit()
        except ScriptError:
            raise
        except _KnownStateError:
            self.outcome.is_known = True
        except Exception as error:  # noqa: BLE001  # whatever breaks, a search goes on
            self._fail(4, f"it breaks: {error!r}")
        self.outcome.has_moved = any(
            event.is_ours and event.verb in ("put", "delete") for event in self.world.history
        )
        self._check_script()
        return self.outcome

    def _check_script(self) -> None:
        if self._waiting:
            raise ScriptError(f"never came to {', '.join(self._waiting)}")

    def prepare(self, *, is_cut: bool) -> None:
        for name, line in self._lines:
            self.machine = self.machines[name]
            if is_cut:
                self._attempt(self.machine, line)
            else:
                self._lead_on(line, is_person_there=False)
        self._check_script()
        if self.outcome.violations:
            raise ScriptError(f"what comes before breaks: {self.outcome.violations}")

    def _lead_on(self, line: Line, *, is_person_there: bool = True) -> None:
        """Run a command, and then what is printed, until nothing is printed and nothing shown.

        A printed command that is refused breaks promise 4, and so does one that is printed twice
        in a row without progress, unless something happened since.
        """
        is_printed = False
        waits = 0
        disturbances = self._disturbances
        for step in range(_STEPS):
            if step:
                self._note_restart()
            before = self._measure()
            was_overtaken = self._is_overtaken
            self._line = line
            if line.verb == "settle":
                self._check_question(line)
            word = self._attempt(self.machine, line)
            is_undisturbed = disturbances == self._disturbances and not was_overtaken
            disturbances = self._disturbances
            is_waiting = isinstance(word, errors.BusyError)
            # That a plan never began is no promise: its objects may have changed before.
            is_drift = isinstance(word, errors.DriftError)
            if is_printed and is_undisturbed and _is_refusal(word) and not is_drift:
                self._fail(4, f"`{self._mask(line)}` was printed, and is refused: {word!r}")
            following, is_printed = self._find_following(line, word)
            if following is None or (following.verb == "settle" and not is_person_there):
                return
            if following.verb == "plan" and not following.flags:
                # In the end, what waits is planned and moved anyway.
                following, is_printed = self._check(), True
                if following is None:
                    return
            if following.verb == line.verb == "settle" and self.desk.is_stuck:
                following = self._make_way(word)
                if following is None:
                    return
                line = following
                continue
            is_same = _forget_approval(following) == _forget_approval(line)
            has_moved_on = self._measure() < before
            is_approving = bool(following.approval) and not line.approval
            # A consumer that read before it was stopped still removes what it has read.
            is_waiting |= self._has_early_reader and isinstance(word, errors.MoveError)
            if isinstance(word, result.MoveResult) and "Try again" in word.stopped and waits < 2:
                # Somebody works, or was killed: its lock lapses.
                waits += 1
                self.world.advance(LAPSE_MS)
                is_waiting = True
            is_excused = has_moved_on or is_waiting or is_approving
            if is_same and is_undisturbed and not is_excused:
                self._fail(4, f"`{self._mask(line)}` is printed twice in a row")
                return
            line = following
        self._fail(4, "it does not end")

    def _make_way(self, word: Word) -> Line | None:
        """Return how to go on when an answer waits for a place that other content occupies.

        The person moves the other content first. If that goes nowhere, only a hand helps.
        """
        self._makings += 1
        if self._makings <= _MAKINGS:
            self._release_what_waits()
            return self._check()
        self._is_stuck = True
        if not isinstance(word, result.MoveResult):
            return self._line
        return read_line("".join(word.ways_on[1:2]))

    def _check_question(self, line: Line) -> None:
        """Find questions that nobody should have to answer."""
        with suppress(errors.MoveError):
            doubts = self.desk.list_doubts(self.machine, line.plan)
            keys = [doubt.key for doubt in doubts if doubt.is_open]
            is_still = self.scenario.is_still
            if keys:
                self._find(audits.check_doubts(self.world, keys, is_still=is_still))

    def _find_following(self, line: Line, word: Word) -> tuple[Line | None, bool]:
        """Return the command that leads on, and whether it was printed or shown."""
        printed = read_line(find_way_on(word))
        if printed is not None:
            return printed, True
        shown = self._check()
        if shown is not None:
            return shown, True
        is_cut = isinstance(word, Killed | KeyboardInterrupt | errors.StoreError)
        is_over = isinstance(word, errors.MoveError) and not isinstance(word, errors.StoreError)
        if is_cut and not is_over:
            return line, False  # who typed it tries again
        if isinstance(word, errors.StoppedError | errors.BusyError):
            return line, False
        return None, False

    def _attempt(self, machine: Machine, line: Line, *, is_main: bool = True) -> Word:
        """Run our program once; what it returns or raises are its words."""
        self._tell(f"$ {line}")
        process = self.desk.begin(machine, line.plan)
        self._first_entries[process.name] = len(machine.folder.get_disk(line.plan).entries)
        if is_main:
            self._main_process = process
        word: Word
        try:
            self.before(process, "start", ())
        except (Killed, KeyboardInterrupt) as error:
            word = error
        else:
            word = self.desk.type(process, line)
        return self._hear(process, line, word, is_main=is_main)

    def _hear(self, process: Process, line: Line, word: Word, *, is_main: bool) -> Word:
        """Take in what a run says, and check it."""
        who = f"`{self._mask(line)}`"
        if isinstance(word, result.MoveResult):
            told = read_told(word, process.machine.folder.plans[line.plan], line.part)
            # Who slept after its last save says what was true then.
            since = self.world.history[process.saved_at :]
            is_overtaken = any(event.is_ours and event.by != process.name for event in since)
            if not is_overtaken:
                self._find(audits.check_told(self.world, told, who))
            for key in told.unproven:
                self.world.say("unproven", key, line.plan)
            if len(word.unproven) > _WINDOW * max(1, self._disturbances):
                self._fail(4, f"{len(word.unproven)} objects are in doubt after one kill")
        self._find(audits.find_reach(self.world, who))
        if not is_main and process.name in self._late:
            self._printed_beside = find_way_on(word)
        if is_main:
            # What is printed now, the second operator may make untrue before it is typed.
            saved = self.world.objects.get(state.STATE)
            is_mine = process.saved_at == 0 or saved is None or saved.by == process.name
            self._is_overtaken = self._second is not None or not is_mine
            while self._second is not None:
                self._second.switch()
            if isinstance(word, errors.BusyError | Killed):
                self.world.advance(LAPSE_MS)
        return word

    def _check(self) -> Line | None:
        """Return the first command that ``check`` shows here, else what the other operator saw."""
        unfinished = self.desk.list_unfinished(self.machine)
        is_told = any(one.held_by and one.held_since for one in unfinished)
        # Who paused late says so itself, and its ``resume`` ends the pause.
        if self.world.paused_by == "us" and not is_told and not self._late:
            self._fail_pause("the worker is paused, and `check` does not say for whom")
        ways_on = [one.way_on for one in unfinished if one.way_on]
        if self.world.paused_by == "us":
            ways_on.append(self._printed_beside)
            self._printed_beside = ""
        return read_line("".join(ways_on[:1]))

    def _measure(self) -> int:
        """Return how much is open, as ``check`` shows it."""
        count = 0
        for one in self.desk.list_unfinished(self.machine):
            count += 1 + one.rows + bool(one.held_by)
        return count

    def _mask(self, line: Line) -> str:
        """Return a command without what differs from run to run."""
        still = "since" if line.still else ""
        return str(line._replace(plan="PLAN" if line.plan else "", approval="", still=still))

    def _tell(self, text: str, word: Any = None) -> None:
        self.outcome.events.append((self.world.now_ms, text, word))

    def _note_restart(self) -> None:
        """End the run where the search was before, with as many disturbances left."""
        is_going_on = self._draw is not None and len(self.outcome.script) < self._depth
        if self._visited is None or self._waiting or is_going_on:
            return
        state = self._hash_state(str(self._line.verb))
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

    def _hash_state(self, at: str) -> int:
        """Return 64 bits for a state, since a search meets hundreds of thousands."""
        return hash((self.scenario.name, at, self._describe_state()))

    def _describe_state(self) -> Any:
        world = self.world
        mask = _Mask(world)
        folders = [
            (
                name,
                machine.offset_ms,
                machine is self.machine,
                sorted(map(mask.apply, machine.folder.plans)),
                [
                    (kind, mask.apply(str(data)))
                    for disk in machine.folder.disks.values()
                    for kind, data in disk.entries
                ],
                [disk.synced < len(disk.entries) for disk in machine.folder.disks.values()],
            )
            for name, machine in self.machines.items()
        ]
        agenda = [
            (
                round((at_ms - world.now_ms) / 1000),
                what,
                [mask.apply(part) for part in details if isinstance(part, str)],
                [mask.describe_call(part) for part in details if isinstance(part, Call)],
            )
            for at_ms, _, what, details in world.agenda
        ]
        happened = Counter(
            (_classify(e.by), e.verb, e.key, e.label, e.old and e.old.label, e.is_declared)
            for e in world.history
            if not e.key.startswith(PARKED)
        )
        return (
            str(folders),
            str(sorted(agenda)),
            frozenset((what, min(count, 2)) for what, count in happened.items()),
            str([mask.describe_object(key) for key in sorted(world.objects)]),
            (world.paused_by, self._is_person, self._operators, self._has_early_reader),
            (self._is_forgotten, self._is_late_killed),
            tuple(self.outcome.violations),
        )

    def _audit(self) -> None:
        if self.world.paused_by == "us" and self._late:
            # Who paused late was told to plan again when its plan had expired: that ends the pause.
            self._release_what_waits()
        if self.world.paused_by == "us" and not self._is_stuck:
            self._fail_pause("the worker stays paused, and nothing says so")
        if self._is_person and self.world.paused_by != "person":
            self._fail(5, "the worker that a person paused was let go on")
        self._find(audits.find_all(self.world))
        self._is_quiet = True
        for plan_id in list(self.world.goals):
            self._audit_proof(plan_id)
            self._audit_doubts(plan_id)
        self._audit_again()
        self._find(audits.find_reach(self.world, "all"))
        self._release_what_waits()
        self._find(audits.find_second_copies(self.world))
        self._find(audits.find_lost(self.world))
        self._find(audits.find_forgotten_parked(self.world))

    def _audit_proof(self, plan_id: str) -> None:
        """Compare the proof of a plan with the history."""
        try:
            said = self.desk.verify(self.machine, plan_id)
        except errors.MoveError as error:
            self._tell(f"no proof of {plan_id}", error)
            return
        self._tell(f"proof of {plan_id}", said)
        outcomes = {outcome for outcome, count in said.counts.items() if count}
        is_as_planned = outcomes <= {"in_place", "gone_after_landed"}
        told = audits.Told(
            plan=plan_id,
            moved=said.counts.get("in_place", 0) + said.counts.get("gone_after_landed", 0),
            is_complete=is_as_planned and not said.taken_back_by,
            taken_back=bool(said.taken_back_by),
        )
        self._find(audits.check_told(self.world, told, "the proof"))

    def _audit_doubts(self, plan_id: str) -> None:
        """Find what a person is still asked about after the last command."""
        try:
            doubts = self.desk.list_doubts(self.machine, plan_id)
        except errors.MoveError:
            return
        # What comes back after all was over is not known before somebody looks again.
        goals = self.world.goals[plan_id]
        left = [
            doubt.key
            for doubt in doubts
            if doubt.is_open and not audits.is_late(self.world, doubt.key, goals[doubt.key])
        ]
        if left and not self._is_forgotten and not self._is_stuck:
            self._fail(4, f"{left} stay in doubt, and nothing says so")

    def _audit_again(self) -> None:
        """Resume what is over, here and with every other folder: nothing may come of it."""
        still = "now" if self.scenario.stage == "undo" else ""
        for plan_id in list(self.world.goals):
            for machine in list(self.machines.values()):
                if machine is self.machine or plan_id in machine.folder.plans:
                    self._attempt(machine, Line("resume", plan_id, still=still))
        shown = self._check()
        if shown is not None:
            self._lead_on(shown)
        if self.world.paused_by == "us" and not self._is_stuck:
            self._fail_pause("the worker stays paused")
        shown = self._check()
        if shown is not None and not self._is_stuck:
            self._fail(4, f"`{self._mask(shown)}` is shown after all")

    def _release_what_waits(self) -> None:
        """Make a plan of what waits and carry it out: nothing of it may have been shipped."""
        if not any(key.startswith(SOURCE) for key in self.world.objects):
            return
        machine = self.machines.setdefault("next", Machine("next"))
        word = self._attempt(machine, Line("plan"))
        if isinstance(word, plan.Plan) and word.rows:
            first, self.machine = self.machine, machine
            self._lead_on(Line("apply", word.id))
            self.machine = first
        elif self._is_quiet and not isinstance(word, plan.Plan):
            self._fail(4, f"`plan` is refused: {word!r}")

    def _find(self, findings: Iterator[Finding]) -> None:
        for finding in findings:
            # Of a process that paused the worker late nobody else can know.
            if finding.is_declared or (finding.promise == 5 and self._late):
                self.outcome.declared.append(finding.text)
            else:
                self._fail(finding.promise, finding.text)

    def _fail_pause(self, text: str) -> None:
        """Fail, or count what is declared: a process stopped before its pause, and died then."""
        if self._is_late_killed:
            self.outcome.declared.append(text)
        else:
            self._fail(5, text)

    def _fail(self, promise: int, text: str) -> None:
        is_replayed = any(event.is_replay for event in self.world.history)
        is_outside = is_replayed or self.world.has_replayed
        if promise < 4 and self._has_early_reader:
            is_outside = True  # it read before the person confirmed
        if promise > 1 and self._is_forgotten:
            is_outside = True  # someone removed .runbook/, or parts of it
        if promise == 2 and self.scenario.lies:
            # What a false answer freed, the worker may have moved before it was corrected.
            is_outside |= any(event.by == "worker" for event in self.world.history)
        if is_outside:
            self.outcome.declared.append(text)
            return
        violation = f"promise {promise}: {text}"
        if violation not in self.outcome.violations:
            self.outcome.violations.append(violation)
            self._tell(f"VIOLATION of promise {promise}: {text}")


def _is_refusal(word: Word) -> bool:
    """Tell whether a command was refused, not for another run that works."""
    is_refused = isinstance(word, errors.RefusedError | errors.PlanError)
    is_needed = isinstance(word, errors.BusyError | errors.NotApprovedError)
    return is_refused and not is_needed


def _forget_approval(line: Line) -> Line:
    """Return a command without what differs each time it is printed."""
    return line._replace(approval="", still="since" if line.still else "")


class _Mask:
    """Writes what outlives a process without times, nonces and plans' ids."""

    _TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)")
    _HASH = re.compile(r"\b[0-9a-f]{12,}\b")
    _VARYING = re.compile(r'"(count|host)":[^,}]*|\bop\d+\b')

    def __init__(self, world: World) -> None:
        self._world = world
        self._names = {plan_id: f"plan{n}" for n, plan_id in enumerate(world.goals)}
        self._hashes: dict[str, str] = {}

    def apply(self, text: str) -> str:
        """Mask a text."""
        for plan_id, name in self._names.items():
            text = text.replace(plan_id, name)
        text = self._TIME.sub(self._mask_time, text)
        text = self._HASH.sub(self._mask_hash, text)
        return self._VARYING.sub("", text)

    def _mask_time(self, found: re.Match[str]) -> str:
        left_s = chance.parse_ms(found[0]) - self._world.store_ms
        return str(max(-8, round(left_s / 15_000)))

    def _mask_hash(self, found: re.Match[str]) -> str:
        return self._hashes.setdefault(found[0], f"#{len(self._hashes)}")

    def describe_call(self, call: Call) -> list[str]:
        return [call.kind, *map(self.apply, call.touched)]

    def describe_object(self, key: str) -> Any:
        """Describe what lies at a key; of our own objects, also how old they are."""
        version = self._world.objects[key]
        if version.label:
            return (self.apply(key), version.label, _classify(version.by))
        age = min(8, round((self._world.store_ms - version.at_ms) / 15_000))
        if key.startswith(f"{OURS}plans/"):
            return "plan"
        return (self.apply(key), age, self.apply(version.body.decode(errors="replace")))


@cache
def _share(point: str, options: tuple[str, ...]) -> Point:
    """Return one and the same object for what is the same: a search keeps millions of points."""
    return point, options


@cache
def _find_kind(key: str) -> str:
    """Name what an object of ours is."""
    kind, _, rest = key.removeprefix(OURS).partition("/")
    if kind == "claims":
        return "claim"
    if kind == "plans":
        return "plan"
    if kind == "parts":
        return f"part{rest.removesuffix('.json').rpartition('-')[2]}"
    return kind.removesuffix(".json")


@cache
def _name(verb: str, key: str = "") -> str:
    """Name a point by what it does, without nonces and plans' ids."""
    if verb.startswith("append:"):
        return f"{verb.removeprefix('append:')}@log"
    if key.startswith(OURS):
        key = _find_kind(key)
    elif key.startswith(PARKED):
        key = PARKED + get_name(key)
    return f"{verb}@{key}" if key else verb


def _classify(by: str) -> str:
    if by in ("worker", "someone", "person"):
        return by
    return "us" if by.isdigit() else "others"


def _describe(word: Any) -> str:
    if isinstance(word, result.MoveResult):
        return str({name: told for name, told in word._asdict().items() if told})
    if isinstance(word, result.MoveProof):
        return str({name: count for name, count in word.counts.items() if count})
    if isinstance(word, plan.Plan):
        return f"{word.id}: {[row.key for row in word.rows]}"
    return f"{type(word).__name__}: {word}"


def load_start(scenario: Scenario) -> Start:
    """Return a fresh world in which a scenario begins."""
    start: Start = pickle.loads(prepare_start(scenario))  # noqa: S301  # our own
    return start


@cache
def prepare_start(scenario: Scenario) -> bytes:
    """Make a scenario's world, packed, and its first commands."""
    world = World(
        scenario.kind,
        polls=scenario.polls,
        is_held=scenario.is_held,
        has_parking=scenario.has_parking,
    )
    chance.use(world)
    machines = {"first": Machine("first")}
    start = Start(world, machines, [])
    desk = Desk(world, Quiet(), lambda *_: None)
    if scenario.is_later:
        _carry_out_older(world, desk)
    for name in scenario.objects:
        world.write(SOURCE + name, f"{name}1", "writer")
    world.advance(120_000)
    process = desk.begin(machines["first"], "")
    match = scenario.objects[0] if scenario.is_split else "*"
    planned = desk.make_plan(process, match=match, parts=scenario.parts)
    start.lines = [("first", Line("apply", planned.id))]
    world.advance(5_000)
    if scenario.is_split:
        machines["third"] = Machine("third")
        process = desk.begin(machines["third"], "")
        other = desk.make_plan(process, match=f"[!{scenario.objects[0]}]")
        start.lines.append(("third", Line("apply", other.id)))
        world.advance(5_000)
    if scenario.parts:
        machines["third"] = Machine("third", machines["first"].folder.copy())
        start.lines = [("first", Line("apply", planned.id, part=1))]
        start.lines.append(("third", Line("apply", planned.id, part=2)))
    if scenario.is_still:
        start.lines = [(name, line._replace(still="now")) for name, line in start.lines]
    if scenario.stage != "release":
        _prepare_stage(scenario, start, planned.id)
    world.processes = 0
    return pickle.dumps(start)


def _carry_out_older(world: World, desk: Desk) -> None:
    """Release two objects on another machine, each so that it is over when the next one begins.

    The first one is forgotten then: the last hold stays noted with its plan.
    """
    machine = Machine("older")
    for name in ("older", "old"):
        world.write(SOURCE + name, f"{name}1", "writer")
        world.advance(120_000)
        planned = desk.make_plan(desk.begin(machine, ""))
        desk.type(desk.begin(machine, planned.id), Line("apply", planned.id))
        world.advance(2 * _HOUR_MS)


def _prepare_stage(scenario: Scenario, start: Start, plan_id: str) -> None:
    """Carry out what comes before, up to the stage that is explored."""
    world = start.world
    world.processes = 0
    run = Run(scenario, parse_script(scenario.before), start=start)
    run.prepare(is_cut=scenario.is_cut)
    world.advance(LAPSE_MS)
    stages = {
        "undo": Line("undo", plan_id, still="now"),
        "settle": Line("settle", plan_id),
        "stop": Line("resume", plan_id, flags=frozenset(["--stop-here"])),
    }
    start.lines = [(run.machine.name, stages[scenario.stage])]
    if scenario.lies:
        world.processes = 0
        liar = Run(scenario, start=start)
        liar.desk.lies = True
        liar.prepare(is_cut=True)
        world.advance(LAPSE_MS)
