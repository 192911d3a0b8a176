"""Proven moves: plans of ``objectmove`` go through this package's gate.

No other module of this package knows ``objectmove``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from chainlog import ChainedLog
from objectmove import plan as plans
from objectmove import planning, result, settling
from objectmove.book import Clock
from objectmove.bucket import S3Bucket, format_time, parse_time
from objectmove.carry import Holder, Operator, WatchedWorker
from objectmove.errors import (
    InterruptedMoveError,
    MoveError,
    NotApprovedError,
    NotNowError,
    PlanError,
    StoreError,
)
from objectmove.plan import PlanRow
from objectmove.result import MoveResult
from objectmove.run import FROM_NOW_ON, Run
from objectmove.state import read_release

from .approvals import (
    LIFETIME,
    SHORT_HASH,
    Effect,
    Plan,
    PlanKind,
    is_approved,
    load_plan,
    make_empty_plan,
)
from .errors import ClientError, UsageError
from .model import Json, Outcome
from .record.incident import Incident, write_file
from .runbook import name_runbook
from .section import ActionStep, ChangeParameters, by_id, split_list

__all__ = ["MoveError", "MoveGate", "MoveParameters", "NotNowError", "WatchedWorker"]

#: The most objects of a plan, unless the runbook's ``header`` says otherwise.
_LIMIT_OBJECTS = 1000
#: The outcomes that prove a move, its undo, and a settling.
_LANDED = {"in_place", "gone_after_landed"}
_UNDONE = {"taken_back", "gone_after_landed", "skipped", "waiting", "settled_by_word"}
_AS_PLANNED = {"undo": _UNDONE, "settle": {*_LANDED, *_UNDONE, "changed_by_others"}}
#: In a plan's summary: who else moves objects, and how they are paused.
OTHERS = "who else moves"
_Keys = Annotated[
    list[str], BeforeValidator(lambda keys: split_list(keys) if isinstance(keys, str) else keys)
]
#: A run's facts that count or list what is left to do.
_LEFT = ("skipped", "failed", "unproven", "in_reach", "waiting", "left")
#: If one of these facts is set, something is left to do.
OPEN = (*_LEFT, "stopped")


class MoveParameters(ChangeParameters):
    memory_removed: bool = False
    """also objects whose state was removed from the bucket"""
    parts: int = Field(0, ge=0, le=256)
    """cut the plan into N parts for several machines"""
    part: int = Field(0, ge=0, le=256)
    """only this part of the plan; 0: all"""
    strict: bool = False
    """refuse when any planned object changed"""
    stop_here: bool = False
    """copy nothing more; finish what was copied"""
    consumer_stands_still: str = ""
    """confirm that nothing consumes from the destination: now, or since when"""
    resume_worker: bool = False
    """only resume the worker, although objects may ship twice"""
    undo: str = ""
    settle: str = ""
    taken: _Keys = Field([])
    """settle: keys that were taken, comma-separated; *: all"""
    not_taken: _Keys = Field([])
    """settle: keys that were not taken, in the same form"""


@contextmanager
def _naming_commands() -> Iterator[None]:
    """Let errors of ``objectmove`` name the command to carry on with."""
    try:
        yield
    except MoveError as error:
        if error.way_on:
            command = error.way_on.replace(error.needed, error.needed[:SHORT_HASH])
            error.args = (name_runbook(f"{error}. Carry on with: runbook {command}"),)
        raise


class MoveGate:
    """Lets a move's plans through the gate. A runbook subclasses it.

    The ``content`` of all its plans, also for undo and settle, is the move's own plan. ``columns``
    are the facts, by column, that a person sees of rows in doubt.
    """

    noun = "object"
    action = "move"
    columns: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *, step: str) -> None:
        self.step = step
        self.undo_step = f"{step}.1"
        self.settle_step = f"{step}.2"
        self.kind = PlanKind(
            schema="objectmove/plan/",
            apply=lambda inv, plan: self._carry_out(
                inv, plan, plan.action if plan.original else "apply"
            ),
            verify=self._verify,
            parse=lambda path, content: self.admit(plans.parse_plan(content, path.name), path),
            resume=lambda inv, plan: self._carry_out(inv, plan, "resume"),
        )

    def get_store(self, clients: Any) -> S3Bucket:
        """Return the store with the rights that a change needs."""
        store: S3Bucket = clients
        return store

    def get_read_store(self, clients: Any) -> S3Bucket:
        """Return the store with the rights that reading needs."""
        return self.get_store(clients)

    def make_hold(self, inv: Any) -> Holder:
        """Return what pauses the worker. Every runbook overrides this."""
        raise NotImplementedError

    def check_ready(self, inv: Any, move: plans.Plan, verb: str) -> None:
        """Raise a ``SafetyError`` while ``apply``, ``undo`` or ``settle`` must not begin."""

    def describe_undo(self, inv: Any) -> str:
        """Say how the worker is paused during an undo."""
        return self.make_hold(inv).words

    def ask(self, inv: Any, rows: Sequence[PlanRow]) -> Sequence[str | None]:  # noqa: ARG002
        """Return for each row, right before its move, whether it may; see ``carry.Ask``."""
        return [""] * len(rows)

    def read_evidence(self, inv: Any, rows: Sequence[PlanRow]) -> Sequence[str]:  # noqa: ARG002
        """Return what systems other than the store know about each row's object."""
        return [""] * len(rows)

    def make_actions(
        self, title: str, plan: Callable[[Any], Plan], *kinds: PlanKind
    ) -> dict[str, ActionStep]:
        """Return the actions of a section that moves: the move, its undo, and settling.

        ``kinds`` are what ``plan`` may plan instead of a move.
        """
        moves = (self.kind,)
        return by_id(
            ActionStep(self.step, title, plan, (*moves, *kinds)),
            ActionStep(self.undo_step, f"Undo the {self.action}", self.plan_undo, moves),
            ActionStep(
                self.settle_step, f"Resolve {self.noun}s in doubt", self.plan_settling, moves
            ),
        )

    @_naming_commands()
    def plan_move(
        self,
        inv: Any,
        *,
        header: Mapping[str, Any],
        judge: planning.Judge = planning.allow_all,
        match: str = "*",
        first: int | None = None,
    ) -> Plan:
        """Plan a move; see ``objectmove.planning.make_plan``. ``header`` overrides the defaults.

        Changes the incident folder, probes the store with scratch objects, and gives the bucket an
        id if it has none.
        """
        now = inv.now()
        parameters: MoveParameters = inv.parameters
        defaults = {
            "step": self.step,
            "made_by": inv.operator,
            "made_at": now,
            "expires_at": now + LIFETIME,
            "others": self.make_hold(inv).words,
            "limit_objects": _LIMIT_OBJECTS,
            "parts": parameters.parts,
        }
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

    @_naming_commands()
    def plan_undo(self, inv: Any) -> Plan:
        """Plan to undo the move that the parameter ``undo`` names, if any.

        Raises NotNowError when nothing was moved, or the time for an undo is over.
        """
        plan_id = inv.parameters.undo
        if not plan_id:
            return make_empty_plan(
                step=self.undo_step, target=self.action, reason=f"no {self.action} is named"
            )
        release = self._load(inv, plan_id)
        move: plans.Plan = release.content
        proof = result.verify_plan(self.get_read_store(inv.clients), move)
        until = proof.undo_until
        is_too_late = until is not None and proof.at > until
        # An undo that has begun may be finished at any time.
        if until is None or (is_too_late and not proof.taken_back_by):
            raise NotNowError(
                f"nothing of {move.id} can be undone: nothing was moved, or its undo period is over"
            )
        excluded = {status: count for status, count in proof.counts.items() if count}
        objects = excluded.pop("in_place", 0)
        summary = {"objects": objects, "excluded": excluded, OTHERS: self.describe_undo(inv)}
        return self._derive_undo(release, summary, until)

    def _derive_undo(
        self, release: Plan, summary: Mapping[str, Json], expires_at: datetime
    ) -> Plan:
        return _derive_plan(
            release,
            summary,
            path=release.path.with_stem(release.content.undo_id),
            step=self.undo_step,
            action="undo",
            way_back="runbook plan",
            sha256=release.content.get_approval("undo"),
            expires_at=expires_at,
        )

    def find_begun(self, inv: Any, plan: Plan) -> Plan:
        """Return what a resume resumes: a plan's undo once that was begun, else the plan."""
        with suppress(NotNowError):  # never begun: the resume says so
            release, _ = read_release(self.get_read_store(inv.clients), plan.id)
            if release.undo is not None:
                return self._derive_undo(plan, plan.summary, plan.expires_at)
        return plan

    @_naming_commands()
    def plan_settling(self, inv: Any) -> Plan:
        """Plan the answers ``taken`` and ``not_taken`` about the plan that ``settle`` names.

        Raises PlanError when a key is not in doubt, or has both answers.
        """
        parameters: MoveParameters = inv.parameters
        taken = parameters.taken
        not_taken = parameters.not_taken
        if not (taken or not_taken):
            return make_empty_plan(
                step=self.settle_step, target=self.action, reason="no answer is given"
            )
        release = self._load(inv, parameters.settle)
        doubts = settling.list_doubts(self.get_read_store(inv.clients), release.content)
        open_keys = {doubt.key for doubt in doubts if doubt.is_open}
        # "*" stands for all keys that the other answer leaves.
        if taken == ["*"]:
            taken = sorted(open_keys.difference(not_taken))
        elif not_taken == ["*"]:
            not_taken = sorted(open_keys.difference(taken))
        answers = settling.choose_answers(doubts, taken, not_taken)
        approval = settling.digest_answers(release.content, answers)
        summary = {"objects": len(answers), "taken": taken, "not_taken": not_taken, "excluded": {}}
        return _derive_plan(
            release,
            {**summary, OTHERS: self.make_hold(inv).words},
            path=release.path.with_stem(f"{release.id}-settle-{approval[:8]}"),
            step=self.settle_step,
            action="settle",
            way_back=f"runbook settle {release.id}",
            sha256=approval,
            expires_at=inv.now() + LIFETIME,
        )

    def _load(self, inv: Any, plan_id: str) -> Plan:
        return load_plan(inv.incident.find_plan(plan_id), (self.kind,))

    def admit(self, move: plans.Plan, path: Path) -> Plan:
        """Return a plan of ``objectmove``, saved at ``path``, as the gate's own type."""
        header = move.header
        return Plan(
            kind=self.kind,
            path=path,
            sha256=move.sha256,
            expires_at=header.expires_at,
            step=header.step,
            action=self.action,
            target=f"{header.endpoint}/{header.bucket}: {header.source} → {header.to}",
            summary={
                "objects": header.objects,
                "bytes": header.bytes,
                "excluded": dict(header.excluded),
                "expires_at": format_time(header.expires_at),
                **header.selection,
                OTHERS: header.others,
                "window": header.window,
            },
            content=move,
            rows=move.rows,
            is_empty=not move.rows,
            way_back=f"runbook undo {move.id}",
        )

    @_naming_commands()
    def list_to_settle(self, inv: Any, plan: Plan) -> list[dict[str, Json]]:
        """Return the rows in doubt that a person must decide, with evidence. Only reads."""
        store = self.get_read_store(inv.clients)
        release, _ = read_release(store, plan.content.id)
        doubts = [doubt for doubt in settling.list_answerable(store, release) if doubt.is_open]
        texts = self.read_evidence(inv, [doubt.planned for doubt in doubts])
        warning = ""
        if release.announced_at is not None:
            at = format_time(release.announced_at)
            warning = (
                f"our first copy was announced at {at}: an earlier status is from before that copy"
            )
        return [
            self._describe_doubt(doubt, text, warning)
            for doubt, text in zip(doubts, texts, strict=True)
        ]

    def _describe_doubt(self, doubt: settling.Doubt, text: str, warning: str) -> dict[str, Json]:
        """Return a row in doubt: its facts, the evidence, and what each answer does.

        The evidence is what a person gave before, else what systems say (``text``).
        """
        evidence = [doubt.row.evidence or text]
        if doubt.parked.is_here and not doubt.row.evidence:
            # The worker may take our parking for a move of its own.
            evidence.append("read after we parked it, which may have caused the status")
        evidence.append(warning)
        facts = doubt.planned.facts
        return {
            "key": doubt.key,
            **{column: facts.get(name, "") for column, name in self.columns.items()},
            "evidence": "; ".join(filter(None, evidence)),
            "why": doubt.row.why,
            "taken_does": f"the {self.noun} stays parked; nothing is delivered",
            "not_taken_does": f"the {self.noun} waits again, and a new plan may move it",
        }

    def list_unfinished(self, clients: Any) -> list[dict[str, Json]]:
        """Return each ``objectmove.result.Unfinished``, with its command to resume. Only reads."""
        unfinished = result.list_unfinished(self.get_read_store(clients))
        return [{**move._asdict(), "way_on": f"runbook {move.way_on}"} for move in unfinished]

    def read_unfinished(self, inv: Any, *known: dict[str, Json]) -> Outcome:
        """Return an outcome with the unfinished moves, after those that are known. Only reads."""
        rows = [*known]
        try:
            rows += self.list_unfinished(inv.clients)
        except (ClientError, MoveError):
            if not rows:  # else the known ones suffice for a breach
                raise
        outcome = Outcome(
            value=len(rows), rows=rows, finish_commands=tuple(row["way_on"] for row in rows)
        )
        if not rows:
            return outcome.ok(f"every {self.action} of this bucket is finished")
        return outcome.breach(
            "; ".join(f"{row['plan']} is unfinished: {row['way_on']}" for row in rows)
        )

    def fetch_plan(self, clients: Any, plan_id: str) -> plans.Plan:
        """Fetch a plan begun on another machine, or raise NotNowError if the store has none."""
        return planning.find_plan(self.get_read_store(clients), plan_id)

    @_naming_commands()
    def _carry_out(self, inv: Any, plan: Plan, verb: str) -> Effect:
        """Apply, resume, undo or settle (``verb``) a plan, and say what came of it.

        If interrupted, raises KeyboardInterrupt with the command to carry on with.
        """
        move: plans.Plan = plan.content
        if verb != "resume":
            self.check_ready(inv, move, verb)
        if plan.original and not plan.trace.exists():
            ChainedLog(plan.trace).append("follow_up", {"about": move.id})
        run = self._make_run(inv, plan)
        try:
            if verb == "settle":
                answers = (plan.summary["taken"], plan.summary["not_taken"])
                done = run.settle(*answers, plan.sha256)
            elif verb == "resume":
                done = _resume(run, inv.parameters)
            elif verb == "undo":
                done = run.carry_out("undo", plan.sha256)
            else:
                done = run.carry_out("apply", plan.sha256)
        except InterruptedMoveError as error:
            count = f"{error.moved:,} {self.noun}s"
            text = f"Interrupted after {count}. Carry on with: runbook {error.way_on}"
            raise KeyboardInterrupt(name_runbook(text)) from error
        facts: dict[str, Json] = done._asdict()
        facts["plan"] = plan.id
        facts["ways_on"] = [f"runbook {command}" for command in done.ways_on]
        counted = "moved"
        if verb == "settle":
            counted = "settled"
            for answer in ("taken", "not_taken"):
                facts[answer] = len({*plan.summary[answer]} - {*done.unproven})
            facts[counted] = facts["taken"] + facts["not_taken"]
        return Effect(_describe_run(facts, counted), facts)

    def _make_run(self, inv: Any, plan: Plan) -> Run:
        """Return what carries out a plan's move, with the parameters given."""
        parameters: MoveParameters = inv.parameters
        log = ChainedLog(plan.trace.with_stem(plan.content.id))

        def open_log() -> ChainedLog:
            """Return this machine's log. Opening it means that something changes now."""
            inv.begin_change()
            return log

        operator = Operator(
            name=inv.operator,
            hold=self.make_hold(inv),
            log=open_log,
            clock=Clock(inv.now, inv.sleep),
            notice=inv.progress,
            progress=partial(inv.progress, "processed"),
            ask=partial(self.ask, inv),
            evidence=partial(self.read_evidence, inv),
        )
        return Run(
            self.get_store(inv.clients),
            plan.content,
            operator,
            still_since=read_still_since(parameters.consumer_stands_still),
            is_strict=parameters.strict,
            stop_here=parameters.stop_here,
            part=parameters.part,
        )

    @_naming_commands()
    def _verify(self, inv: Any, plan: Plan) -> Effect:
        """Prove by a fresh listing whether each planned object is where the plan wants it."""
        proof = result.verify_plan(self.get_read_store(inv.clients), plan.content)
        statuses = {status for status, count in proof.counts.items() if count}
        is_ok = statuses <= _AS_PLANNED.get(plan.action, _LANDED)
        words = "proven by listing" if is_ok else "not proven"
        facts: dict[str, Json] = {
            **proof.counts,
            "keys": proof.keys,
            "taken_back_by": proof.taken_back_by,
            "plan": plan.id,
        }
        return Effect(f"{words}: {_say_counts(proof.counts)}", facts, is_ok=is_ok)


def _resume(run: Run, parameters: MoveParameters) -> MoveResult:
    """Resume a move, or only the worker; if objects may ship twice, ``approve`` must say so."""
    if not parameters.resume_worker:
        return run.carry_out("resume")
    try:
        return run.resume_worker("")
    except NotApprovedError as error:
        if not is_approved(error.needed, parameters.approve):
            raise
        return run.resume_worker(error.needed)


def _derive_plan(plan: Plan, summary: Mapping[str, Json], **facts: Any) -> Plan:
    """Return the plan that undoes or settles ``plan``. It has no file and no rows."""
    return replace(
        plan,
        original=plan.id,
        rows=(),
        is_empty=not summary["objects"],
        target=plan.id,
        summary={
            **summary,
            "expires_at": format_time(facts["expires_at"]),
            "window": plan.summary["window"],
        },
        **facts,
    )


def _save_plan(incident: Incident, move: plans.Plan) -> Path:
    path = incident.path("plans", f"{move.id}.jsonl")
    write_file(path, move.content.decode())
    return path


def save_fetched(incident: Incident, move: plans.Plan) -> None:
    """Save a plan that was fetched, and begin its log, to an incident."""
    _save_plan(incident, move)
    ChainedLog(incident.path("ledger", f"{move.id}.jsonl")).append("fetched", {})


def list_begun(home: Path) -> Iterator[plans.Plan]:
    """Yield the plans that this machine's logs show as begun and not ended. Only reads."""
    for log in home.glob("*/ledger/*.jsonl"):
        kinds = [entry.kind for entry in ChainedLog(log).scan()]
        newest = [kind for kind in kinds if kind in ("begun", "ended")][-1:]
        if newest == ["begun"]:
            path = log.parents[1] / "plans" / log.name
            with suppress(OSError, PlanError):
                yield plans.parse_plan(path.read_bytes(), path.name)


def read_still_since(text: str) -> datetime | None:
    """Return since when nothing consumes from the destination, or None if nobody confirms that.

    Raises UsageError when the text is neither ``now`` nor a time.
    """
    if not text:
        return None
    if text == "now":
        return FROM_NOW_ON
    try:
        return parse_time(text)
    except StoreError as error:
        raise UsageError(f"--consumer-stands-still: {error}") from error


def _describe_run(facts: Mapping[str, Json], counted: str) -> str:
    """Say how many objects a run ``counted`` as moved or settled, and what is left, and why."""
    counts = {counted: facts[counted]}
    for name in _LEFT:
        fact = facts[name]
        counts[name] = fact if isinstance(fact, int) else len(fact)
    texts = [_say_counts(counts) or f"0 {counted}", facts["stopped"]]
    if facts["is_held"]:
        texts.append("the worker is still paused for it")
    return "; ".join(filter(None, texts))


def _say_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in counts.items() if n)
