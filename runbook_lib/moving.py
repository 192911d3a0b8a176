"""Every runbook's way to a proven move: plans of ``objectmove`` go through this package's gate.

A runbook subclasses ``MoveGate`` with its own rules: who else moves objects, what is known of a
row, and the words of its messages. Of the helper, only this module knows ``objectmove``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from chainlog import ChainedLog, Entry
from objectmove import plan as plans
from objectmove import planning, proof, result, settling
from objectmove.book import Clock
from objectmove.bucket import S3Bucket, format_time, parse_time
from objectmove.carry import Holder, Operator
from objectmove.errors import (
    ExpiredError,
    InterruptedMoveError,
    MoveError,
    NotApprovedError,
    PlanError,
    RefusedError,
    StoreError,
)
from objectmove.plan import PlanRow
from objectmove.proof import MoveProof
from objectmove.result import MoveResult
from objectmove.run import FROM_NOW_ON, Run
from objectmove.settling import Doubt

from .approvals import Effect, Plan, PlanKind, load_plan
from .errors import PlanAlteredError, SafetyError, UsageError, disk_errors
from .model import Json, parse_json
from .record.incident import Incident, list_incidents, write_file, write_json
from .runbook import name_runbook
from .section import ActionStep, ChangeParameters, by_id, get_parameters, split_list

__all__ = [
    "OPEN",
    "TROUBLES",
    "FollowUp",
    "MoveGate",
    "MoveParameters",
    "NotApprovedError",
    "PlanId",
    "WatchedWorker",
    "count_trouble",
    "list_begun",
    "naming_commands",
    "read_keys",
    "read_since",
]

#: How long a plan may be begun after it was made, and a move be undone after its first copy, unless
#: the runbook says otherwise.
_LIFETIME = timedelta(minutes=15)
#: The most objects of a plan, unless the runbook's ``header`` says otherwise.
_LIMIT_OBJECTS = 1000
#: Outcomes of a proof that are as planned; for an undo; for a settling.
_AS_PLANNED = {"in_place", "gone_after_landed"}
_AS_UNDONE = {"taken_back", "gone_after_landed", "skipped", "waiting", "settled_by_word"}
_FOLLOW_UP = "objectmove/follow-up/1"
PlanId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,150}$")]
#: Names of the numbers and lists in a run's facts that say what is not as planned.
TROUBLES = ("skipped", "failed", "unproven", "in_reach", "waiting", "left")
#: The facts of a run that show that something is left to do.
OPEN = (*TROUBLES, "stopped")


class MoveParameters(ChangeParameters):
    """Parameters of a section that moves objects."""

    memory_removed: bool = Field(
        False, description="also plan objects whose fate the bucket forgot"
    )
    parts: int = Field(
        0, ge=0, le=256, description="cut the plan into so many parts for several machines; 0: one"
    )
    part: int = Field(0, ge=0, le=256, description="carry out only this part; 0: all")
    strict: bool = Field(False, description="refuse when any planned object changed")
    stop_here: bool = Field(False, description="resume: copy nothing more, finish what landed")
    consumer_stands_still: str = Field(
        "",
        description="confirm that nothing consumes from the destination while this runs: now, or "
        "since when (UTC); empty: something may",
    )
    resume_worker: bool = Field(
        False, description="resume: only resume the worker, although objects may ship twice"
    )
    undo: PlanId = Field("", description="id of the plan to take back; empty: none")
    settle: PlanId = Field("", description="id of the plan to settle; empty: none")
    taken: str = Field("", description="settle: keys that were taken: a,b or a JSON list; *: all")
    not_taken: str = Field("", description="settle: keys that were not taken, in the same form")


@dataclass(frozen=True, slots=True)
class FollowUp:
    """What is to be done about a plan that was carried out: take it back, or settle it.

    Attributes
    ----------
    plan : the plan that it is about
    action : ``undo`` or ``settle``
    taken, not_taken : of a settling: the answers, as source keys
    """

    plan: plans.Plan
    action: str
    taken: tuple[str, ...] = ()
    not_taken: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class WatchedWorker:
    """A worker that can only be watched, not paused: ``check`` must show that it stands still.

    Attributes
    ----------
    check : raises one of ``objectmove``'s errors unless the worker stands still
    """

    check: Callable[[], None]
    words: str
    way_back: str
    name: str = "worker"
    holds: bool = False

    def is_paused(self) -> bool:
        """Return True: there is nobody to pause."""
        return True

    def pause(self) -> None:
        """Check that the worker stands still; pause nobody."""
        self.check()

    def resume(self) -> None:
        """Do nothing: nobody was paused."""


class MoveGate:
    """Lets a move's plans through the gate. A runbook subclasses it, and says who else moves.

    Parameters
    ----------
    step : id of the action that moves

    Attributes
    ----------
    kind : the kind of its plans
    step, undo_step, settle_step : ids of the actions that move, take back, and settle
    noun : the word for one of the objects
    shown_facts : names of the facts of each row of a plan that a command shows
    action : what a move is called in journal and report
    held : the words that say that the worker is still held
    """

    noun = "object"
    shown_facts: tuple[str, ...] = ("memory_removed",)
    action = "move"
    held = "the worker is still held"

    def __init__(self, *, step: str) -> None:
        self.step = step
        self.undo_step = f"{step}.1"
        self.settle_step = f"{step}.2"
        self.kind = PlanKind(
            schema="objectmove/",
            apply=self._apply,
            verify=self._verify,
            parse=self._parse,
            resume=self._resume,
            refusals=(SafetyError, RefusedError),
        )

    # --- what a runbook may override ---

    def get_store(self, clients: Any) -> S3Bucket:
        """Return the store with the rights that a change needs."""
        store: S3Bucket = clients
        return store

    def get_store_to_look(self, clients: Any) -> S3Bucket:
        """Return the store with the rights that looking needs."""
        return self.get_store(clients)

    def make_hold(self, inv: Any) -> Holder:
        """Return what holds the worker. Every runbook overrides this method."""
        raise NotImplementedError

    def check_ready(
        self,
        inv: Any,
        move: plans.Plan,
        action: str,
    ) -> None:
        """Raise a ``SafetyError`` while a change must not begin. This class checks nothing."""

    def get_undo_window(self, inv: Any) -> timedelta:  # noqa: ARG002
        """Return how long after its first copy a move may be taken back."""
        return _LIFETIME

    def describe_undo(self, inv: Any) -> str:
        """Say how the worker is held while a move is taken back."""
        return self.make_hold(inv).words

    def ask(self, inv: Any, rows: Sequence[PlanRow]) -> Sequence[str | None]:  # noqa: ARG002
        """Return for each row, right before it moves, whether it may; see ``carry.Ask``."""
        return [""] * len(rows)

    def read_evidence(self, inv: Any, rows: Sequence[PlanRow]) -> dict[str, str]:  # noqa: ARG002
        """Return what is known of each row's object outside the store, by the row's key."""
        return {row.key: "" for row in rows}

    def describe_interruption(self, error: InterruptedMoveError) -> str:
        """Say how far an interrupted run came, and which command goes on with it."""
        held = f". {self.held[:1].upper()}{self.held[1:]}" if error.is_held else ""
        way_on = name_runbook(f"runbook {error.way_on}")
        count = f"{error.moved:,} {self.noun}s"
        return f"Interrupted after {count}{held}. Go on with: {way_on}"

    # --- plans ---

    def plan_move(
        self,
        inv: Any,
        *,
        header: Mapping[str, Any],
        judge: planning.Judge = planning.allow_all,
        match: str = "*",
        first: int | None = None,
    ) -> Plan:
        """Plan a move; see ``objectmove.planning.make_plan``.

        Notes
        -----
        Changes the incident folder, probes the store with scratch objects, and gives the bucket an
        id if it has none.
        """
        now = inv.now()
        parameters = get_parameters(inv, MoveParameters)
        defaults = {
            "step": self.step,
            "made_by": inv.operator,
            "made_at": now,
            "expires_at": now + _LIFETIME,
            "undo_s": self.get_undo_window(inv).total_seconds(),
            "others": self.make_hold(inv).words,
            "limit_objects": _LIMIT_OBJECTS,
            "parts": parameters.parts,
        }
        with naming_commands():
            move = planning.make_plan(
                self.get_store(inv.clients),
                header={**defaults, **header},
                judge=judge,
                match=match,
                first=first,
                begun=list_begun(inv.settings.runbook_home.resolve()),
                memory_removed=parameters.memory_removed,
                clock=Clock(inv.now, inv.sleep),
            )
        return self.admit(move, _save_plan(inv.incident, move))

    def make_actions(self, title: str, plan: Callable[[Any], Plan]) -> dict[str, ActionStep]:
        """Return the actions of a section that moves: the move, taking it back, settling.

        Parameters
        ----------
        title : of the step that moves
        plan : plans the move, with ``plan_move``
        """
        kinds = (self.kind,)
        return by_id(
            ActionStep(self.step, title, plan, kinds),
            ActionStep(self.undo_step, "Take it back", self.plan_undo, kinds),
            ActionStep(self.settle_step, "Settle what nobody can know", self.plan_settling, kinds),
        )

    def plan_undo(self, inv: Any) -> Plan:
        """Plan to take back the move that the parameter ``undo`` names.

        Raises
        ------
        RefusedError
            When nothing of it was moved, or the time for an undo is over.
        """
        plan = self._load_named(inv, get_parameters(inv, MoveParameters).undo)
        move: plans.Plan = plan.content
        found = self._prove(inv, move)
        until = found.undo_until
        if until is None:
            raise SafetyError(f"nothing of {move.id} was moved: there is nothing to take back")
        if found.at > until and not found.taken_back_by:
            text = f"{move.id} could be taken back until {format_time(until)}"
            raise ExpiredError(f"{text}: what it moved may be in use by now")
        left = {name: n for name, n in found.counts.items() if n and name != "in_place"}
        follow_up = {
            "action": "undo",
            "approval": move.undo_approval,
            "objects": found.counts["in_place"],
            "excluded": left,
            "expires_at": format_time(until),
            "who else moves": self.describe_undo(inv),
        }
        return self._write_follow_up(inv, plan, move.undo_id, follow_up)

    def plan_settling(self, inv: Any) -> Plan:
        """Plan the answers of the parameters ``taken`` and ``not_taken`` about ``settle``'s plan.

        Raises
        ------
        UsageError
            When both answers are about all objects, or a key is not in doubt.
        """
        parameters = get_parameters(inv, MoveParameters)
        plan = self._load_named(inv, parameters.settle)
        move: plans.Plan = plan.content
        doubts = self.list_doubts(inv, plan)
        taken, not_taken = _choose_keys(doubts, parameters.taken, parameters.not_taken)
        try:
            answers = settling.choose_answers(doubts, taken, not_taken)
            approval = settling.digest_answers(move, answers)
        except PlanError as error:
            raise UsageError(str(error)) from error
        hold = self.make_hold(inv)
        follow_up = {
            "action": "settle",
            "approval": approval,
            "taken": taken,
            "not_taken": not_taken,
            "objects": len(taken) + len(not_taken),
            "excluded": {},
            "expires_at": format_time(inv.now() + _LIFETIME),
            "who else moves": hold.words,
        }
        return self._write_follow_up(inv, plan, f"{move.id}-settle-{approval[:8]}", follow_up)

    def _load_named(self, inv: Any, plan_id: str) -> Plan:
        """Return the plan that a parameter names; of a follow-up, the plan that it is about."""
        plan = load_plan(inv.incident.find_plan(plan_id), (self.kind,))
        if isinstance(plan.content, FollowUp):
            return self.admit(plan.content.plan, plan.path.parent)
        return plan

    def _write_follow_up(
        self,
        inv: Any,
        plan: Plan,
        follow_up_id: str,
        facts: Mapping[str, Any],
    ) -> Plan:
        """Write a follow-up about a plan beside it, and return it."""
        header = {
            "schema": _FOLLOW_UP,
            "about": plan.id,
            "step": self.undo_step if facts["action"] == "undo" else self.settle_step,
            "made_at": format_time(inv.now()),
            "window": plan.content.header.window,
            "bytes": 0,
            **facts,
        }
        path = plan.path.with_name(f"{follow_up_id}.jsonl")
        content = f"{json.dumps(header, sort_keys=True)}\n".encode()
        path.write_bytes(content)
        return self._parse(path, content)

    def _parse(self, path: Path, content: bytes) -> Plan:
        """Return the plan or the follow-up that a file holds."""
        if f'"{_FOLLOW_UP}"'.encode() not in content[: content.find(b"\n")]:
            return self.admit(plans.parse_plan(content, path.name), path.parent)
        try:
            header = parse_json(content)
            about = path.with_name(f"{header['about']}.jsonl")
            move = plans.parse_plan(about.read_bytes(), about.name)
            keys = [tuple(header.get(name, ())) for name in ("taken", "not_taken")]
            follow_up = FollowUp(move, header["action"], *keys)
            return Plan(
                kind=self.kind,
                path=path,
                sha256=header["approval"],
                expires_at=parse_time(header["expires_at"]),
                step=header["step"],
                action=follow_up.action,
                target=_describe_target(move),
                about=move.id,
                summary={**header, "word": follow_up.action},
                content=follow_up,
                is_empty=not header["objects"],
                way_back=name_runbook(f"settle again: runbook settle {move.id}"),
                made_at=parse_time(header["made_at"]),
            )
        except (ValueError, KeyError, TypeError, OSError, StoreError) as error:
            raise PlanAlteredError(f"{path} is torn or was edited; plan again") from error

    def admit(self, move: plans.Plan, folder: Path) -> Plan:
        """Return a move's plan, whose file is in a folder, as the gate sees it."""
        header = move.header
        return Plan(
            kind=self.kind,
            path=folder / f"{move.id}.jsonl",
            sha256=move.sha256,
            expires_at=header.expires_at,
            step=header.step,
            action=self.action,
            target=_describe_target(move),
            summary={
                "objects": header.objects,
                "bytes": header.bytes,
                "oldest": format_time(header.oldest) if header.oldest else None,
                "excluded": dict(header.excluded),
                "excluded_sample": {
                    why: list(keys) for why, keys in header.excluded_sample.items()
                },
                "expires_at": format_time(header.expires_at),
                **header.selection,
                "who else moves": header.others,
                "window": header.window,
            },
            content=move,
            rows=move.rows,
            is_empty=not move.rows,
            way_back=name_runbook(f"runbook undo {move.id}"),
            made_at=header.made_at,
        )

    # --- what is in doubt, and what is unfinished ---

    def list_doubts(self, inv: Any, plan: Plan) -> list[Doubt]:
        """Return the rows of a plan on which a person must or may answer. Only reads."""
        with naming_commands():
            return settling.list_doubts(self.get_store_to_look(inv.clients), _get_move(plan))

    def list_to_settle(self, inv: Any, plan: Plan) -> list[dict[str, Json]]:
        """Return the rows that a person must decide, with evidence for each. Only reads.

        Returns
        -------
        Rows of ``key``, ``evidence``, ``why``, ``taken_does`` and ``not_taken_does``.
        """
        doubts = [doubt for doubt in self.list_doubts(inv, plan) if doubt.is_open]
        evidence = self.read_evidence(inv, [doubt.planned for doubt in doubts])
        return [self.describe_doubt(doubt, doubt.planned, evidence[doubt.key]) for doubt in doubts]

    def describe_doubt(
        self,
        doubt: Doubt,
        row: PlanRow,  # noqa: ARG002
        evidence: str,
    ) -> dict[str, Json]:
        """Describe a row in doubt: what is known, and what each answer would do."""
        is_parked = doubt.parked.is_here
        parks = f"the {self.noun} stays parked" if is_parked else f"parks the {self.noun}"
        brings = f"the {self.noun} waits again, and a new plan may move it"
        return {
            "key": doubt.key,
            "evidence": doubt.row.evidence or evidence,
            "why": doubt.row.why,
            "taken_does": f"{parks}; nothing is delivered",
            "not_taken_does": f"brings it back: {brings}" if is_parked else brings,
        }

    def list_unfinished(self, clients: Any) -> list[dict[str, Json]]:
        """Return the unfinished moves of a store, with the command that leads on. Only reads.

        Returns
        -------
        Rows of ``plan``, ``rows`` (number that wait, are open or in doubt), ``way_on``,
        ``held_by`` and ``held_since`` (empty when nobody is held).
        """
        unfinished = result.list_unfinished(self.get_store_to_look(clients))
        return [
            {**move._asdict(), "way_on": name_runbook(f"runbook {move.way_on}")}
            for move in unfinished
        ]

    def fetch_plan(
        self,
        clients: Any,
        plan_id: str,
        find_incident: Callable[[], Incident],
    ) -> Path | None:
        """Fetch a plan that the bucket knows, because this machine does not have it.

        Parameters
        ----------
        find_incident : returns the incident that the plan goes into; called only if the store has
            the plan

        Returns
        -------
        The folder of the incident; None when the store does not know the plan.
        """
        store = self.get_store_to_look(clients)
        move = planning.find_plan(store, plan_id)
        if move is None:
            return None
        incident = find_incident()
        _save_plan(incident, move)
        ChainedLog(incident.path("ledger", f"{move.id}.jsonl")).append("fetched", {})
        return incident.folder

    # --- carrying out ---

    def _apply(self, inv: Any, plan: Plan) -> Effect:
        """Carry out an approved plan; go on with it when it was cut off."""
        move = _get_move(plan)
        follow_up = plan.content
        approve = inv.get_approval(plan)
        self.check_ready(inv, move, follow_up.action if isinstance(follow_up, FollowUp) else "move")
        if not isinstance(follow_up, FollowUp):
            carry_out = methodcaller("carry_out", "apply", approve)
        elif follow_up.action == "undo":
            carry_out = methodcaller("carry_out", "undo", approve)
        else:
            carry_out = methodcaller("settle", follow_up.taken, follow_up.not_taken, approve)
        return self._run(carry_out, inv, plan)

    def _resume(self, inv: Any, plan: Plan) -> Effect:
        """Go on with what is unfinished of a plan, or only resume the worker."""
        parameters = get_parameters(inv, MoveParameters)
        if parameters.resume_worker:
            return self._run(methodcaller("resume_worker", parameters.approve), inv, plan)
        return self._run(methodcaller("carry_out", "resume"), inv, plan)

    def _run(
        self,
        carry_out: Callable[[Run], MoveResult],
        inv: Any,
        plan: Plan,
    ) -> Effect:
        """Carry something out, and say what came of it."""
        hold = self.make_hold(inv)
        begin = inv.begin_change

        def ask(rows: Sequence[PlanRow]) -> Sequence[str | None]:
            return self.ask(inv, rows)

        def list_evidence(rows: Sequence[PlanRow]) -> list[str]:
            evidence = self.read_evidence(inv, rows)
            return [evidence[row.key] for row in rows]

        operator = Operator(
            name=inv.operator,
            hold=hold,
            log=partial(_open_log, plan, begin),
            clock=Clock(inv.now, inv.sleep),
            notice=inv.progress,
            progress=partial(inv.progress, "dealt with"),
            ask=ask,
            evidence=list_evidence,
        )
        if isinstance(plan.content, FollowUp) and not plan.trace.exists():
            ChainedLog(plan.trace).append("follow_up", {"about": plan.content.plan.id})
        parameters = get_parameters(inv, MoveParameters)
        try:
            with naming_commands():
                run = Run(
                    self.get_store(inv.clients),
                    _get_move(plan),
                    operator,
                    still_since=read_since(parameters.consumer_stands_still),
                    is_strict=parameters.strict,
                    stop_here=parameters.stop_here,
                    part=parameters.part,
                )
                done = carry_out(run)
        except InterruptedMoveError as error:
            raise KeyboardInterrupt(self.describe_interruption(error)) from error
        return self._describe_run(plan, done, getattr(hold, "changes", ()))

    def _describe_run(
        self,
        plan: Plan,
        done: MoveResult,
        changes: Sequence[str],
    ) -> Effect:
        """Say what a run did, what is left, and which command leads on."""
        facts: dict[str, Json] = asdict(done)
        ways_on = [name_runbook(f"runbook {command}") for command in done.ways_on]
        facts["ways_on"] = ways_on
        facts["plan"] = plan.id
        parts = [f"{done.moved:,} moved"]
        follow_up = plan.content
        is_settling = isinstance(follow_up, FollowUp) and follow_up.action == "settle"
        if is_settling:
            open_keys = {*done.unproven}
            answered = [*follow_up.taken, *follow_up.not_taken]
            settled = [key for key in answered if key not in open_keys]
            facts["settled"] = len(settled)
            parts = [f"{len(settled):,} settled"]
        for name in TROUBLES:
            count = count_trouble(facts, name)
            if count:
                parts.append(_say_count(count, name))
        if done.is_held:
            parts.append(self.held)
        if done.stopped:
            parts.append(done.stopped)
        if ways_on:
            parts.append(f"go on with: {ways_on[0]}")
        if changes:
            facts["hold"] = ", ".join(changes)
        is_ok = not (done.unproven if is_settling else any(facts[name] for name in OPEN))
        return Effect("; ".join(parts), facts, is_ok=is_ok)

    # --- proof ---

    def _prove(self, inv: Any, move: plans.Plan) -> MoveProof:
        with naming_commands():
            return proof.verify_plan(self.get_store_to_look(inv.clients), move)

    def _verify(self, inv: Any, plan: Plan) -> Effect:
        """Prove by an independent look where each planned object is, and write the proof."""
        found = self._prove(inv, _get_move(plan))
        facts = found.to_json()
        facts["plan"] = plan.id
        head = {
            "schema": "runbook/proof/3",
            "at": format_time(found.at),
            "sha256": plan.sha256,
            "how": "a fresh look at the store, compared with the plan and the bucket's state",
        }
        path = inv.incident.path("evidence", f"proof-{plan.id}.json")
        with inv.incident.keep_open() as may_write:
            if may_write:
                write_json(path, {**head, **facts})
        outcomes = {name for name, count in found.counts.items() if count}
        is_ok = outcomes <= _AS_PLANNED and not found.taken_back_by
        follow_up = plan.content
        if isinstance(follow_up, FollowUp) and follow_up.action == "undo":
            is_ok = outcomes <= _AS_UNDONE
        elif isinstance(follow_up, FollowUp):
            is_ok = not found.counts["unproven"]
        return Effect(_describe_proof(found), facts, is_ok=is_ok)


def _save_plan(incident: Incident, move: plans.Plan) -> Path:
    """Write a move's plan into an incident's folder of plans, and return that folder."""
    path = incident.path("plans", f"{move.id}.jsonl")
    with disk_errors(f"cannot write {path}"):
        write_file(path, move.content.decode())
    return path.parent


def _get_move(plan: Plan) -> plans.Plan:
    """Return the move's plan; of a follow-up, the plan that it is about."""
    content = plan.content
    move: plans.Plan = content.plan if isinstance(content, FollowUp) else content
    return move


def _describe_target(move: plans.Plan) -> str:
    header = move.header
    return f"{header.endpoint}/{header.bucket}: {header.source} → {header.to}"


def list_begun(home: Path) -> Iterator[plans.Plan]:
    """Yield the plans of which this machine's log shows a beginning and no end. Only reads."""
    for folder in list_incidents(home):
        for log in sorted((folder / "ledger").glob("*.jsonl")):
            kinds = [entry.kind for entry in ChainedLog(log).scan()]
            if [kind for kind in kinds if kind in ("begun", "ended")][-1:] != ["begun"]:
                continue
            path = folder / "plans" / log.name
            with suppress(OSError, PlanError):
                yield plans.parse_plan(path.read_bytes(), path.name)


class _WatchedLog(ChainedLog):
    """A log that calls a function when a run begins to change something."""

    on_begin: Callable[[], None]

    def append(
        self,
        kind: str,
        data: dict[str, Any],
        *,
        sync: bool = True,
    ) -> Entry:
        """Append one entry; if it shows that a change begins, call ``on_begin`` first."""
        if kind in ("begun", "answered", "resumed"):
            self.on_begin()
        return super().append(kind, data, sync=sync)


def _open_log(plan: Plan, on_begin: Callable[[], None], plan_id: str) -> ChainedLog:
    """Return the log of a plan, in the folder of ``plan``'s log."""
    log = _WatchedLog(plan.trace.with_name(f"{plan_id}.jsonl"))
    log.on_begin = on_begin
    return log


@contextmanager
def naming_commands() -> Iterator[None]:
    """Let the errors of ``objectmove`` name the command that leads on."""
    try:
        yield
    except MoveError as error:
        if error.way_on:
            way_on = name_runbook(f"runbook {error.way_on}")
            error.args = (f"{error}. Go on with: {way_on}",)
        raise


def read_since(text: str) -> datetime | None:
    """Return since when nothing consumes; None without a confirmation.

    Raises
    ------
    UsageError
        When the text is neither ``now`` nor a time.
    """
    if not text:
        return None
    if text == "now":
        return FROM_NOW_ON
    try:
        return parse_time(text)
    except StoreError as error:
        raise UsageError(f"--consumer-stands-still: {error}") from error


def _choose_keys(
    doubts: Sequence[Doubt], taken: str, not_taken: str
) -> tuple[list[str], list[str]]:
    """Return the keys of both answers; ``*`` stands for all open rows that the other lacks."""
    if taken == not_taken == "*":
        raise UsageError("both answers cannot be about all: name the keys of one of them")
    answers = [[] if text == "*" else read_keys(text) for text in (taken, not_taken)]
    for number, text in enumerate((taken, not_taken)):
        if text == "*":
            other = answers[1 - number]
            answers[number] = [d.key for d in doubts if d.is_open and d.key not in other]
    return answers[0], answers[1]


def read_keys(text: str) -> list[str]:
    """Return the keys that a parameter names: a JSON list, or keys with commas between them.

    Raises
    ------
    UsageError
        When the JSON list is malformed, or holds something else than keys.
    """
    if not text.lstrip().startswith("["):
        return split_list(text)
    try:
        keys = parse_json(text)
    except ValueError as error:
        raise UsageError(f"this is no JSON list of keys: {error}") from error
    if not all(isinstance(key, str) for key in keys):
        raise UsageError("a list of keys has each key in quotes")
    return list(keys)


def count_trouble(facts: Mapping[str, Json], name: str) -> int:
    """Return how many objects one of a run's facts counts or lists; 0 when it is missing."""
    count_or_list = facts.get(name) or 0
    return count_or_list if isinstance(count_or_list, int) else len(count_or_list)


def _say_count(count: int, name: str) -> str:
    return f"{count:,} {name.replace('_', ' ')}"


def _describe_proof(found: MoveProof) -> str:
    """Say whether a plan is proven, and how many objects are not where the plan says."""
    counts = {name: count for name, count in found.counts.items() if count}
    if found.taken_back_by:
        undone = counts.pop("taken_back", 0)
        rest = ", ".join(_say_count(count, name) for name, count in counts.items())
        return f"{undone:,} taken back by {found.taken_back_by}; else: {rest or 'nothing'}"
    as_planned = [_say_count(n, name) for name, n in counts.items() if name in _AS_PLANNED]
    lacking = [_say_count(n, name) for name, n in counts.items() if name not in _AS_PLANNED]
    if lacking:
        return f"not proven: {', '.join(lacking + as_planned)}"
    return f"proven by listing: {', '.join(as_planned)}"
