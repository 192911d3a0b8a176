"""A person who types commands as they are printed, until none is printed and none is shown.

The person uses the engine's public functions alone. What the person answers is true: in a
simulation it is known who took what.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from chainlog import LogError

from . import audits
from .audits import Told
from .engine import bucket, carry, errors, plan, planning, result, run, settling
from .process import Director, Killed, Process, Quiet
from .world import PARKED, SOURCE, TO, Machine, World

#: How long the lock of a killed run takes to lapse.
LAPSE_MS = 70_000
Plan = plan.Plan
Word = Any
"""What a command returned or raised."""


class Line(NamedTuple):
    """A command; ``part`` is of ``apply``, ``flags`` are options without a value."""

    verb: str
    plan: str = ""
    still: str = ""
    flags: frozenset[str] = frozenset()
    approval: str = ""
    part: int = 0

    def __str__(self) -> str:
        words = [self.verb, self.plan, *sorted(self.flags)]
        if self.still:
            words.append(f"--consumer-stands-still={self.still}")
        if self.part:
            words.append(f"--part {self.part}")
        if self.approval:
            words.append(f"--approve {self.approval[:8]}")
        return " ".join(filter(None, words))


def read_line(text: str) -> Line | None:
    words = text.split()
    if not words:
        return None
    line = Line(words.pop(0))
    if line.verb not in ("plan", "apply", "resume", "undo", "settle", "check"):
        raise ValueError(f"no command: {text}")
    while words:
        name, _, value = words.pop(0).partition("=")
        if name == "--consumer-stands-still":
            line = line._replace(still=value or "now")
        elif name == "--approve":
            line = line._replace(approval=value or words.pop(0))
        elif name == "--part":
            line = line._replace(part=int(value or words.pop(0)))
        elif name.startswith("--"):
            line = line._replace(flags=line.flags | {name})
        else:
            line = line._replace(plan=name)
    return line


class Desk:
    """Commands, typed on some machine.

    Parameters
    ----------
    director : decides what happens meanwhile
    tell : called with a line for the log of the run, and with what a command returned or raised

    Attributes
    ----------
    lies : answer each question wrongly
    is_stuck : whether an answer waits for a source that other content occupies
    """

    def __init__(self, world: World, director: Director, tell: Callable[[str, Word], None]) -> None:
        self.world = world
        self.director = director
        self.tell = tell
        self.lies = False
        self.is_stuck = False

    def begin(self, machine: Machine, plan_id: str, *, is_quiet: bool = False) -> Process:
        """Start a process; one that only shows something is not counted, and not disturbed."""
        if not is_quiet:
            return Process(self.world, self.director, machine, plan_id)
        process = Process(self.world, Quiet(), machine, plan_id)
        self.world.processes -= 1
        return process

    def type(self, process: Process, line: Line) -> Word:
        try:
            word = self._carry_out(process, line)
        except (
            Killed,
            errors.MoveError,
            errors.InterruptedMoveError,
            KeyboardInterrupt,
            LogError,
        ) as error:
            word = error
        self.tell(f"{process.name} on {process.machine.name}", word)
        return word

    def _carry_out(self, process: Process, line: Line) -> Word:
        if line.verb == "plan":
            return self.make_plan(process, memory_removed="--memory-removed" in line.flags)
        planned = self.find_plan(process, line.plan)
        operator = make_operator(process)
        moving = run.Run(
            process.bucket,
            planned,
            operator,
            still_since=_confirm(line),
            stop_here="--stop-here" in line.flags,
            part=line.part,
        )
        if line.verb == "apply":
            return moving.carry_out("apply", planned.sha256)
        if line.verb == "undo":
            self.world.say("undo", "", planned.id)
            return moving.carry_out("undo", planned.get_approval("undo"))
        if line.verb == "settle":
            return self._settle(process, planned, moving)
        if "--resume-worker" in line.flags:
            for key in self.world.goals[planned.id] if line.approval else ():
                self.world.say("let_go", key, planned.id)
            return moving.resume_worker(line.approval)
        return moving.carry_out("resume")

    def find_plan(self, process: Process, plan_id: str) -> Plan:
        plans = process.machine.folder.plans
        if plan_id not in plans:
            plans[plan_id] = planning.find_plan(process.bucket, plan_id)
        planned: Plan = plans[plan_id]
        return planned

    def make_plan(
        self,
        process: Process,
        *,
        match: str = "*",
        parts: int = 0,
        memory_removed: bool = False,
    ) -> Plan:
        now = process.clock.now()
        header = {
            "source": SOURCE,
            "to": TO,
            "made_by": "test",
            "others": "held",
            "step": "6.1",
            "made_at": now,
            "expires_at": now + timedelta(seconds=900),
            "timing": plan.Timing(),
            "limit_objects": 100,
            "undo_s": 3600,
            "parked": PARKED,
            "parts": parts,
        }
        made = planning.make_plan(
            process.bucket,
            header=header,
            judge=_judge,
            match=match,
            first=None,
            begun=list_begun(process.machine),
            memory_removed=memory_removed,
            clock=process.clock,  # type: ignore[arg-type]
        )
        self.world.goals[made.id] = {row.key: self.world.labels[row.etag] for row in made.rows}
        process.machine.folder.plans[made.id] = made
        self.world.say("plan", "", made.id)
        return made

    def list_doubts(self, machine: Machine, plan_id: str) -> Sequence[settling.Doubt]:
        process = self.begin(machine, plan_id, is_quiet=True)
        planned = self.find_plan(process, plan_id)
        return settling.list_doubts(process.bucket, planned)

    def _settle(self, process: Process, planned: Plan, moving: run.Run) -> Word:
        """Answer truly, of each object that is shown, whether a consumer took it."""
        doubts = settling.list_doubts(process.bucket, planned)
        self.is_stuck = any(doubt.source == "other" for doubt in doubts)
        taken: list[str] = []
        not_taken: list[str] = []
        for doubt in doubts:
            label = self.world.goals[planned.id][doubt.key]
            is_taken = audits.was_taken(self.world, label) != self.lies
            if not doubt.is_open and is_taken == (doubt.row.state == "taken"):
                continue  # it was answered so before
            (taken if is_taken else not_taken).append(doubt.key)
        answers = settling.choose_answers(doubts, taken, not_taken)
        approval = settling.digest_answers(planned, answers)
        process.answers = [("taken", key, planned.id) for key in taken]
        process.answers += [("not_taken", key, planned.id) for key in not_taken]
        return moving.settle(taken, not_taken, approval)

    def list_unfinished(self, machine: Machine) -> list[result.Unfinished]:
        process = self.begin(machine, "", is_quiet=True)
        return result.list_unfinished(process.bucket)

    def verify(self, machine: Machine, plan_id: str) -> result.MoveProof:
        process = self.begin(machine, plan_id, is_quiet=True)
        planned = self.find_plan(process, plan_id)
        return result.verify_plan(process.bucket, planned)


def _confirm(line: Line) -> datetime | None:
    if not line.still:
        return None
    if line.still == "now":
        return run.FROM_NOW_ON
    return datetime.fromisoformat(line.still)


def make_operator(process: Process) -> carry.Operator:
    return carry.Operator(
        name=f"op{process.name}",
        hold=process.hold,
        log=partial(process.log, process.plan),  # type: ignore[arg-type]
        clock=process.clock,  # type: ignore[arg-type]
        notice=lambda _: None,
        progress=lambda _done, _total: None,
        ask=partial(_ask, process),
        evidence=lambda rows: ["the order is open"] * len(rows),
    )


def _ask(process: Process, rows: Sequence[plan.PlanRow]) -> list[str | None]:
    """Answer for each row whether its order was cancelled; what was cancelled once stays so."""
    world = process.world
    keys = [row.key for row in rows]
    fate = process.choose("ask", keys, "cancelled unknown")
    if fate == "cancelled":
        world.say("cancelled", keys[0])
    cancelled = {event.key for event in world.history if event.verb == "cancelled"}
    answers: list[str | None] = ["cancelled" if key in cancelled else "" for key in keys]
    if fate == "unknown":
        answers[0] = None
    return answers


def _judge(seen: Sequence[bucket.Seen]) -> list[planning.Judgement]:
    return [planning.Judgement("", one.last_modified) for one in seen]


def list_begun(machine: Machine) -> list[Plan]:
    begun = []
    for plan_id, disk in machine.folder.disks.items():
        kinds = [kind for kind, _ in disk.entries if kind in ("begun", "ended")]
        if plan_id in machine.folder.plans and kinds[-1:] == ["begun"]:
            begun.append(machine.folder.plans[plan_id])
    return begun


def read_told(said: result.MoveResult, planned: Plan, part: int) -> Told:
    """Return what a result says, of a part or of all, as an audit reads it."""
    rows = planned.rows[slice(*planned.get_range(part))] if part else []
    lists = (said.skipped, said.failed, said.unproven, said.in_reach)
    return Told(
        plan=planned.id,
        about=[row.key for row in rows],
        is_undo=said.plan != planned.id,
        moved=said.moved,
        skipped=[told["key"] for told in said.skipped],
        unproven=said.unproven,
        open=said.waiting + said.left,
        is_complete=not any((*lists, said.waiting, said.left, said.stopped)),
        is_ended=not said.waiting,
        is_held=said.is_held,
    )


def find_way_on(word: Word) -> str:
    """Return the first command that a word names."""
    if isinstance(word, result.MoveResult):
        return next(iter(word.ways_on), "")
    if isinstance(word, errors.NotApprovedError) and word.needed and "--approve" not in word.way_on:
        return f"{word.way_on} --approve {word.needed}" if word.way_on else ""
    return str(getattr(word, "way_on", ""))
