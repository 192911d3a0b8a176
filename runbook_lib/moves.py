"""The gate for a proven move: one adapter between a mover's plans and this package's.

A mover is a library that moves objects by a plan of its own, keeps a ledger, and proves the move.
This module imports none: the protocol ``Mover`` says what the gate calls. A runbook
subclasses ``MoveGate`` with its own rules: who else moves objects, what is known of a row, and the
words of its messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar

from pydantic import Field

from chainlog import ChainedLog, Entry

from .approvals import Effect, Plan, PlanKind, load_plan
from .errors import SafetyError, UsageError
from .model import Json, format_time, parse_json
from .record.incident import Incident, list_incidents, write_json
from .runbook import name_runbook
from .section import ActionStep, ChangeParameters, by_id, get_parameters, split_list

Logs = Callable[[str], ChainedLog]
"""Opens the ledger of the plan with an id, in the folder of that plan's incident."""

ListBegun = Callable[[], Mapping[str, Callable[[], Any]]]
"""Returns a mapping from a plan's id to a function that reads the plan.

The mapping has every plan that has a ledger on this machine.
"""

#: How long a plan may be begun after it was made, and a move be undone after its first copy, unless
#: the runbook says otherwise.
_LIFETIME = timedelta(minutes=15)
#: The most objects of a plan, unless the runbook's ``header`` says otherwise.
_LIMIT_OBJECTS = 1000
#: A message names this many shards at most.
_NAMED_SHARDS = 10
#: Outcomes of a proof that are as planned.
_AS_PLANNED = ("in_place", "gone_after_landed")
#: Outcome of rows that an undo took back. A proof counts them again by where their objects are now.
_UNDONE = "taken_back"
#: A run that may change something writes a ledger line of one of these kinds, after its last check.
_BEGINNINGS = ("approved", "resumed", "goes_on")
PlanId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._#-]{0,150}$")]
#: What a person says of a row's object; empty: nothing.
Word = Literal["", "taken", "not_taken"]
#: Names of the numbers and lists in a run's facts that say what is not as planned.
TROUBLES = (
    "skipped",
    "conflicts",
    "failed",
    "unproven",
    "lost_in_window",
    "in_reach",
    "waiting",
    "left",
)


class MovePlan(Protocol):
    """A mover's plan, as the gate sees it."""

    @property
    def id(self) -> str:
        """Name of its file without the ending."""

    @property
    def path(self) -> Path:
        """Its file."""

    @property
    def sha256(self) -> str:
        """Hash of the file's bytes. ``Mover.find_approval`` says which hash an approval names."""

    @property
    def made_at(self) -> datetime:
        """When it was made."""

    @property
    def expires_at(self) -> datetime:
        """The latest time at which it may begin."""

    @property
    def step(self) -> str:
        """Id of the runbook's step that it belongs to."""

    @property
    def action(self) -> str:
        """``move``, or what is done about an earlier plan: ``undo``, ``settle``, ``reopen``."""

    @property
    def target(self) -> str:
        """Source and destination, in words."""

    @property
    def summary(self) -> dict[str, Any]:
        """What an approver needs to know beside the rows; JSON values."""

    @property
    def rows(self) -> Sequence[Any]:
        """What would move; each has ``key`` and ``to_json``."""

    @property
    def shards(self) -> Sequence[Any]:
        """For a manifest, the plans that it names, with ranges, counts and hashes; else empty."""

    @property
    def undo_command(self) -> str:
        """The command that takes the plan back; empty where there is none."""

    @property
    def way_back(self) -> str:
        """The command that takes the plan back, or in words what to do instead."""


class MoveReport(Protocol):
    """What a run did, or what a proof found."""

    @property
    def is_complete(self) -> bool:
        """Whether every planned object is where the plan says."""

    def to_json(self) -> dict[str, Any]:
        """Return numbers by name, and lists of what is not as planned."""


class MoveProof(MoveReport, Protocol):
    """What an independent look found."""

    @property
    def at(self) -> datetime:
        """When it looked, by the store's clock."""

    @property
    def counts(self) -> Mapping[str, int]:
        """How many objects have each outcome."""

    @property
    def taken_back_by(self) -> str:
        """Id of the undo that took rows back; empty when none did."""

    @property
    def shards(self) -> Mapping[str, Mapping[str, int]] | None:
        """For a manifest: the shards that lack something, with their counts; None for a plan."""

    @property
    def taken_before(self) -> int:
        """How many objects of the undone plan a consumer had taken before the undo."""


class OpenRow(Protocol):
    """A row of a plan that has ended, when only a person can say what became of its object."""

    @property
    def row(self) -> Any:
        """The plan's row; it has ``key``."""

    @property
    def evidence(self) -> str:
        """What was known of its object before the object was parked."""

    @property
    def reason(self) -> str:
        """Why it is open."""

    @property
    def parked(self) -> str:
        """The key where its object is parked; empty when it is not."""

    @property
    def source(self) -> object | None:
        """What is at the source now; None: nothing."""

    @property
    def destination(self) -> object | None:
        """What is at the destination now; None: nothing."""

    @property
    def is_rewritten(self) -> bool:
        """Whether something else than the planned version is at the source."""

    @property
    def is_freed(self) -> bool:
        """Whether a person said that the object was not taken, and this word still holds."""


class MoveParameters(ChangeParameters):
    """Parameters of a section that moves objects; several hold a person's word."""

    memory_removed: bool = Field(
        False, description="also plan objects whose fate the bucket forgot"
    )
    shards: int = Field(
        0, ge=0, le=256, description="cut the plan by key range into so many; 0: one plan"
    )
    strict: bool = Field(False, description="refuse when any planned object changed")
    stop_here: bool = Field(False, description="resume: copy nothing more, finish what landed")
    consumer_stands_still: bool = Field(
        False, description="your word that nobody takes from the destination until this is done"
    )
    same_store: bool = Field(
        False, description="your word that the plan's endpoint is this store by another name"
    )
    undo: PlanId = Field("", description="id of the plan to take back; empty: none")
    settle: PlanId = Field("", description="id of the plan to settle; empty: none")
    settle_word: Word = Field("", description="what became of its objects: taken, or not_taken")
    settle_keys: str = Field("", description="settle only these keys: a,b or a JSON list")


P = TypeVar("P", bound=MovePlan)
P_co = TypeVar("P_co", bound=MovePlan, covariant=True)


class Mover(Protocol[P_co]):
    """The functions of a mover that the gate calls. A mover is a module, or an object.

    Attributes
    ----------
    SCHEMA : the beginning of the schema's name in the first line of each of its plans
    REFUSALS : its errors that say that nothing was changed
    NEEDS_APPROVAL : of these, the one that asks to approve more; it has ``reason`` and ``command``

    Notes
    -----
    These parameters mean the same in every function:

    - ``logs`` opens ledgers
    - ``others`` says in words how everyone else is kept from moving objects meanwhile
    - ``made_by`` is the operator
    - ``notice`` shows progress
    - ``same_store`` is a person's word that the plan's endpoint is this store by another name
    """

    @property
    def SCHEMA(self) -> str: ...  # noqa: N802
    @property
    def REFUSALS(self) -> tuple[type[Exception], ...]: ...  # noqa: N802
    @property
    def NEEDS_APPROVAL(self) -> type[Exception]: ...  # noqa: N802

    def make_clock(self, now: Callable[[], datetime], sleep: Callable[[float], None], /) -> Any:
        """Return a clock for the other functions."""

    def parse_plan(self, content: bytes, /, *, path: Path) -> P_co:
        """Read a plan's file; raises when it is not a plan."""

    def make_move_plan(
        self,
        store: Any,
        /,
        *,
        header: Mapping[str, Any],
        folder: Path,
        judge: Any,
        match: str,
        first: int | None,
        list_begun: ListBegun,
        memory_removed: bool,
        shards: int,
    ) -> P_co:
        """Write the plan of a move.

        ``MoveGate.plan_move`` explains ``judge``, ``match`` and ``first``, and ``MoveParameters``
        explains ``memory_removed`` and ``shards``.
        """

    def make_undo_plan(
        self,
        store: Any,
        plan: Any,
        /,
        *,
        logs: Logs,
        made_by: str,
        others: str,
        window_s: float,
        now: datetime,
        same_store: bool,
    ) -> P_co:
        """Write the plan that takes a move, or a person's word, back."""

    def make_settle_plan(
        self,
        store: Any,
        plan: Any,
        /,
        *,
        logs: Logs,
        word: Any,
        keys: Sequence[str],
        evidence: Mapping[str, str],
        made_by: str,
        others: str,
        now: datetime,
        same_store: bool,
    ) -> P_co:
        """Write the plan of a person's word on open rows."""

    def apply_plan(self, store: Any, plan: Any, /, *, approve: str, **how: Any) -> MoveReport:
        """Carry out a plan that was never begun; ``approve`` is the hash as it was typed."""

    def resume_plan(self, store: Any, plan: Any, /, **how: Any) -> MoveReport:
        """Go on with a plan that was begun."""

    def verify_plan(
        self, store: Any, plan: Any, /, *, logs: Logs, clock: Any, notice: Any, same_store: bool
    ) -> MoveProof:
        """Look anew where each planned object is. Only reads."""

    def was_cut_off(self, plan: Any, /, *, logs: Logs) -> bool:
        """Tell whether a plan was begun from this machine, and did not come to its end."""

    def find_approval(self, plan: Any, /) -> str:
        """Return the hash that approves a plan: its own, or of the manifest that names it.

        Empty for a shard whose manifest is not at hand: such a shard can only be resumed.
        """

    def find_ways_on(self, plan: Any, facts: Mapping[str, Any], /) -> list[str]:
        """Return the commands that go on from a run's facts; none when all is done."""

    def find_holder(self, store: Any, plan: Any, /, *, logs: Logs) -> str:
        """Return the id of the plan by which a person settles a plan's open rows.

        It is the plan's own id, or that of the last plan that took a person's word on them back.
        """

    def list_open_rows(
        self, store: Any, plan: Any, /, *, logs: Logs, same_store: bool
    ) -> Sequence[OpenRow]:
        """Return the rows whose objects only a person can account for. Only reads."""

    def list_unfinished(self, store: Any, list_begun: ListBegun, /) -> Sequence[Any]:
        """Return the store's unfinished plans, each a dataclass. Only reads."""

    def read_begun(self, path: Path, ledger: Path, /) -> Any:
        """Read a plan that has a ledger on this machine; None when the plan is damaged or gone."""

    def fetch_plan(
        self, store: Any, plan_id: str, /, *, find_folder: Callable[[], Path]
    ) -> P_co | None:
        """Write a plan that the store remembers into a folder; None when the store has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedOthers:
    """Everyone else who moves objects, where they can only be watched, not paused.

    ``check`` must show that they stand still.

    Attributes
    ----------
    check : raises one of the mover's errors unless the others stand still
    words : the sentence in the plan that says how we know that the others stand still
    way_back : how a person lets the others go on
    holds : False: a watcher keeps nobody still
    changes : when others were held and let go on, in words; a watcher does neither
    """

    check: Callable[[], None]
    words: str
    way_back: str
    holds: bool = False
    changes: Sequence[str] = ()

    def is_paused(self) -> bool:
        """Return True, so that the mover goes on: there is nobody to pause."""
        return True

    def pause(self) -> None:
        """Check that the others stand still; pause nobody."""
        self.check()

    def resume(self) -> None:
        """Do nothing: nobody was paused."""


class MoveGate(Generic[P]):
    """Lets a mover's plans through the gate. A runbook subclasses it, and says who else moves.

    Parameters
    ----------
    mover : what plans, moves and proves
    step : id of the action that moves

    Attributes
    ----------
    kind : the kind of its plans
    step, undo_step, settle_step : ids of the actions that move, take back, and settle
    noun : the word for one of the objects
    shown_facts : names of the facts of each row of a plan that a command shows
    action : what a move is called in journal and report
    held : the words that say that others are still held for a plan
    unheld : the sentence in a settling's plan that says that nobody holds the others
    """

    noun = "object"
    shown_facts: tuple[str, ...] = ("evidence",)
    action = "move"
    held = "the others are still held for this plan"
    unheld = (
        "nobody holds the others: the approval is also your word that they move none of these "
        "objects until the settling is done"
    )

    def __init__(self, mover: Mover[P], *, step: str) -> None:
        self.mover = mover
        self.step = step
        self.undo_step = f"{step}.1"
        self.settle_step = f"{step}.2"
        self.kind = PlanKind(
            schema=mover.SCHEMA,
            apply=self._apply,
            verify=self._verify,
            parse=self._parse,
            resume=self._resume,
            refusals=(SafetyError, *mover.REFUSALS),
        )

    def get_store(self, clients: Any) -> Any:
        """Return the store with the rights that a change needs."""
        return clients

    def get_store_to_look(self, clients: Any) -> Any:
        """Return the store with the rights that looking needs."""
        return self.get_store(clients)

    def make_hold(self, inv: Any) -> Any:
        """Return the mover's ``hold``: what keeps everyone else still.

        The hold's ``words`` stand in the plan. Its ``holds`` is False where it only watches the
        others. Its ``changes`` say when the others were held and let go on. Every runbook overrides
        this method.
        """
        raise NotImplementedError

    def check_ready(self, inv: Any, move: Any) -> None:
        """Raise a ``SafetyError`` while the store is not well. This class checks nothing."""

    def get_options(self, inv: Any) -> dict[str, Any]:
        """Return what a person said, as further arguments of ``apply_plan`` and ``resume_plan``."""
        parameters = get_parameters(inv, MoveParameters)
        return {
            "stands_still": parameters.consumer_stands_still,
            "strict": parameters.strict,
            "stop_here": parameters.stop_here,
            "approve_more": parameters.approve,
            "same_store": parameters.same_store,
        }

    def get_undo_window(self, inv: Any) -> timedelta:  # noqa: ARG002
        """Return how long after its first copy a move may be taken back."""
        return _LIFETIME

    def describe_undo(self, inv: Any) -> str:
        """Say how everyone else is kept from moving while a move is taken back."""
        return str(self.make_hold(inv).words)

    def read_evidence(self, inv: Any, rows: Sequence[Any]) -> dict[str, str]:  # noqa: ARG002
        """Return a mapping from each row's key to what is known of its object outside the store.

        This class knows nothing, so each text is empty. A runbook may override this method.
        """
        return {row.key: "" for row in rows}

    def describe_interruption(self, error: KeyboardInterrupt) -> str:
        """Say how far an interrupted run came, and which command goes on with it."""
        return str(error)

    def plan_move(
        self,
        inv: Any,
        *,
        header: Mapping[str, Any],
        judge: Any = None,
        match: str = "*",
        first: int | None = None,
    ) -> Plan:
        """Plan a move.

        Parameters
        ----------
        header : ``source``, ``to``, and what else the header of the mover's plan needs
        judge : says of each object whether it may move, in the mover's form; None: every object may
        match : shell pattern of names
        first : how many objects at most; None: all

        Notes
        -----
        Changes the incident folder. The mover also probes the store with scratch objects, and may
        write an object there that tells this store from others.
        """
        now = inv.now()
        defaults = {
            "step": self.step,
            "made_by": inv.operator,
            "made_at": now,
            "expires_at": now + _LIFETIME,
            "others": self.make_hold(inv).words,
            "limit_objects": _LIMIT_OBJECTS,
        }
        home = inv.settings.runbook_home.resolve()
        move = self.mover.make_move_plan(
            self.get_store(inv.clients),
            header={**defaults, **header},
            folder=inv.incident.folder / "plans",
            judge=judge,
            match=match,
            first=first,
            list_begun=partial(self.list_begun, home),
            memory_removed=get_parameters(inv, MoveParameters).memory_removed,
            shards=get_parameters(inv, MoveParameters).shards,
        )
        return self.admit(move)

    def make_actions(self, title: str, plan: Callable[[Any], Plan]) -> dict[str, ActionStep]:
        """Return the actions of a section that moves: the move, taking it back, settling.

        Parameters
        ----------
        title : of the step that moves
        plan : plans the move, with ``plan_move``
        """
        return by_id(
            ActionStep(self.step, title, plan, (self.kind,)),
            ActionStep(self.undo_step, "Take it back", self._plan_named_undo, (self.kind,)),
            ActionStep(
                self.settle_step,
                "Settle what nobody can know",
                self._plan_named_settling,
                (self.kind,),
            ),
        )

    def _plan_named_undo(self, inv: Any) -> Plan:
        """Plan to take back the plan that the parameter ``undo`` names."""
        return self.plan_undo(inv, self._load_plan(inv, get_parameters(inv, MoveParameters).undo))

    def _plan_named_settling(self, inv: Any) -> Plan:
        """Plan to settle the plan that the parameter ``settle`` names."""
        parameters = get_parameters(inv, MoveParameters)
        return self.plan_settling(
            inv,
            self._load_plan(inv, parameters.settle),
            word=parameters.settle_word,
            keys=read_keys(parameters.settle_keys),
        )

    def _load_plan(self, inv: Any, plan_id: str) -> Plan:
        return load_plan(inv.incident.find_plan(plan_id), (self.kind,))

    def plan_undo(self, inv: Any, plan: Plan) -> Plan:
        """Plan to take a move, or a person's word, back."""
        undo = self.mover.make_undo_plan(
            self.get_store(inv.clients),
            plan.content,
            logs=_open_logs(plan),
            made_by=inv.operator,
            others=self.describe_undo(inv),
            window_s=self.get_undo_window(inv).total_seconds(),
            now=inv.now(),
            same_store=get_parameters(inv, MoveParameters).same_store,
        )
        return self.admit(undo)

    def plan_settling(self, inv: Any, plan: Plan, *, word: str, keys: Sequence[str]) -> Plan:
        """Plan to write down a person's word, with evidence, on rows that nothing else can decide.

        Parameters
        ----------
        word : ``taken`` or ``not_taken``
        keys : keys of the rows; none: all unproven rows
        """
        open_rows = self._list_open_rows(inv, self.get_store(inv.clients), plan, keys)
        hold = self.make_hold(inv)
        settling = self.mover.make_settle_plan(
            self.get_store(inv.clients),
            plan.content,
            logs=_open_logs(plan),
            word=word,
            keys=keys,
            evidence=self.read_evidence(inv, [open_row.row for open_row in open_rows]),
            made_by=inv.operator,
            others=hold.words if hold.holds else self.unheld,
            now=inv.now(),
            same_store=get_parameters(inv, MoveParameters).same_store,
        )
        return self.admit(settling)

    def admit(self, move: P) -> Plan:
        """Return a mover's plan as the gate sees it."""
        summary = dict(move.summary)
        is_reversible = bool(move.undo_command)
        way_back = name_runbook(move.way_back)
        if not is_reversible:  # an approver must know that no command takes the plan back
            summary["way_back"] = way_back
        return Plan(
            kind=self.kind,
            path=move.path,
            sha256=self.mover.find_approval(move),
            expires_at=move.expires_at,
            step=move.step,
            action=self.action if move.action == "move" else move.action,
            target=move.target,
            summary=summary,
            content=move,
            rows=move.rows,
            is_empty=not move.rows and not move.shards,
            way_back=way_back,
            reversible=is_reversible,
            made_at=move.made_at,
        )

    def list_to_settle(
        self, inv: Any, plan: Plan, *, keys: Sequence[str] = ()
    ) -> list[dict[str, Json]]:
        """Return the rows that a person must decide, with evidence for each. Only reads.

        Parameters
        ----------
        keys : only the rows with these keys; none: all rows

        Returns
        -------
        Rows of ``key``, ``evidence``, ``rewritten``, ``why``, ``taken_does`` and
        ``not_taken_does``.
        """
        open_rows = self._list_open_rows(inv, self.get_store_to_look(inv.clients), plan, keys)
        # Of a freed row a person has said already that its object was not taken.
        open_rows = [open_row for open_row in open_rows if not open_row.is_freed]
        evidence = self.read_evidence(inv, [open_row.row for open_row in open_rows])
        return [
            self.describe_open_row(open_row, evidence[open_row.row.key]) for open_row in open_rows
        ]

    def _list_open_rows(
        self, inv: Any, store: Any, plan: Plan, keys: Sequence[str]
    ) -> list[OpenRow]:
        """Return a plan's open rows with these keys; without keys, all."""
        open_rows = self.mover.list_open_rows(
            store,
            plan.content,
            logs=_open_logs(plan),
            same_store=get_parameters(inv, MoveParameters).same_store,
        )
        if not keys:
            return list(open_rows)
        return [open_row for open_row in open_rows if open_row.row.key in keys]

    def describe_open_row(self, open_row: Any, evidence: str) -> dict[str, Json]:
        """Describe an open row: what is known, and what each word would do."""
        return {
            "key": open_row.row.key,
            "evidence": open_row.evidence or evidence,
            "rewritten": open_row.is_rewritten,
            "why": open_row.reason,
            "taken_does": _describe_taken(open_row, self.noun),
            "not_taken_does": _describe_not_taken(open_row, self.noun),
        }

    def find_holder(self, inv: Any, plan: Plan) -> str:
        """Return the id of the plan by which a person settles a plan's open rows.

        It is the plan's own id, or that of the last plan that took a person's word on them back.
        """
        store = self.get_store_to_look(inv.clients)
        return self.mover.find_holder(store, plan.content, logs=_open_logs(plan))

    def list_unfinished(self, clients: Any, home: Path) -> list[dict[str, Json]]:
        """Return the unfinished plans of a store, with the command that goes on with each.

        Parameters
        ----------
        home : holds this machine's ledgers; they show plans that the store does not remember

        Returns
        -------
        Rows of ``plan``, ``by``, ``state``, ``rows`` (number in doubt or begun), ``way_on``,
        ``held_by`` and ``held_since`` (empty when nobody is held). Plans for which others are held
        come first. Only reads.
        """
        unfinished = self.mover.list_unfinished(
            self.get_store_to_look(clients), partial(self.list_begun, home.resolve())
        )
        return [_name_commands(asdict(plan)) for plan in unfinished]

    def list_begun(self, home: Path) -> dict[str, Callable[[], Any]]:
        """Return a mapping from a plan's id to a function that reads the plan. Only reads.

        The mapping has every plan that has a ledger in an incident's folder on this machine.
        """
        begun: dict[str, Callable[[], Any]] = {}
        for folder in list_incidents(home):
            for ledger in sorted((folder / "ledger").glob("*.jsonl")):
                path = folder / "plans" / ledger.name
                begun[ledger.stem] = partial(self.mover.read_begun, path, ledger)
        return begun

    def fetch_plan(
        self, clients: Any, plan_id: str, find_incident: Callable[[], Incident]
    ) -> Path | None:
        """Fetch a plan from the bucket's record, because this machine does not have it.

        The plan gets a ledger here, whose first line says where the plan came from.

        Parameters
        ----------
        find_incident : returns the incident that the plan goes into; called only if the store has
            the plan

        Returns
        -------
        The folder of the incident; None when the store does not hold the plan.
        """
        plan = self.mover.fetch_plan(
            self.get_store_to_look(clients),
            plan_id,
            find_folder=lambda: find_incident().folder / "plans",
        )
        if plan is None:
            return None
        folder = plan.path.parents[1]
        ledger = ChainedLog(folder / "ledger" / f"{plan_id}.jsonl")
        ledger.append("fetched", {"from": "the bucket's record"})
        return folder

    def read_needed_approval(self, error: Any) -> tuple[str, str]:
        """Return why a ``NEEDS_APPROVAL`` asks for more, and the command that approves it."""
        return error.reason, name_runbook(error.command)

    def find_ways_on(self, plan: Plan, facts: Mapping[str, Json]) -> list[str]:
        """Return the commands that go on after a run, in their order; none when all is done."""
        ways_on = self.mover.find_ways_on(plan.content, facts)
        return [name_runbook(way_on) for way_on in ways_on]

    def _parse(self, path: Path, content: bytes) -> Plan:
        return self.admit(self.mover.parse_plan(content, path=path))

    def _apply(self, inv: Any, plan: Plan) -> Effect:
        """Carry out an approved plan; go on with it when it was cut off."""
        self.check_ready(inv, plan.content)
        if self.mover.was_cut_off(plan.content, logs=_open_logs(plan)):
            return self._run(self.mover.resume_plan, inv, plan)
        apply = partial(self.mover.apply_plan, approve=inv.get_approval(plan))
        return self._run(apply, inv, plan)

    def _resume(self, inv: Any, plan: Plan) -> Effect:
        return self._run(self.mover.resume_plan, inv, plan)

    def _run(self, run: Callable[..., MoveReport], inv: Any, plan: Plan) -> Effect:
        """Begin a plan, or go on with it, by the mover's function ``run``."""
        options = self.get_options(inv)
        hold = self.make_hold(inv)
        try:
            with _naming_commands_in_errors():
                done = run(
                    self.get_store(inv.clients),
                    plan.content,
                    logs=_open_logs(plan, on_beginning=partial(inv.begin_change, plan)),
                    operator=inv.operator,
                    hold=hold,
                    clock=self.mover.make_clock(inv.now, inv.sleep),
                    notice=inv.progress,
                    progress=partial(inv.progress, "dealt with"),
                    **options,
                )
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(self.describe_interruption(error)) from error
        effect = self._describe_run(plan, done)
        if hold.changes:
            effect.result["hold"] = ", ".join(hold.changes)
        return effect

    def _describe_run(self, plan: Plan, done: MoveReport) -> Effect:
        """Say what a run did, what is left, and which command goes on."""
        facts = _name_commands(done.to_json())
        parts = [f"{facts['moved']:,} moved"]
        troubles = list(TROUBLES)
        reopened = count_reopened(plan.action, facts)
        if reopened:
            words = f"{reopened:,} {self.noun}s are" if reopened > 1 else f"1 {self.noun} is"
            parts = [f"{words} in doubt again"]
            troubles.remove("unproven")  # these are the same objects
        for name in troubles:
            count = _count_trouble(facts, name)
            if count:
                parts.append(_say_count(count, name))
        if facts.get("is_held"):
            parts.append(self.held)
        stopped = str(facts.get("stopped") or "")
        if stopped:
            parts.append(stopped)
        ways_on = self.find_ways_on(plan, facts)
        if ways_on and ways_on[0] not in stopped:  # the reason may name the command already
            parts.append(f"go on with: {ways_on[0]}")
        return Effect("; ".join(parts), facts, is_ok=done.is_complete)

    def _verify(self, inv: Any, plan: Plan) -> Effect:
        """Prove by an independent look where each planned object is, and write the proof."""
        with _naming_commands_in_errors():
            proof = self.mover.verify_plan(
                self.get_store_to_look(inv.clients),
                plan.content,
                logs=_open_logs(plan),
                clock=self.mover.make_clock(inv.now, inv.sleep),
                notice=inv.progress,
                same_store=get_parameters(inv, MoveParameters).same_store,
            )
        facts = proof.to_json()
        head = {
            "schema": "runbook/proof/3",
            "at": format_time(proof.at),
            "sha256": plan.sha256,
            "how": "a fresh look at the store, compared with plan, ledger and record",
        }
        path = inv.incident.path("evidence", f"proof-{plan.id}.json")
        with inv.incident.keep_open() as may_write:
            if may_write:
                write_json(path, {**head, **facts})
        words = _describe_proof(proof)
        changed = set(facts["keys"].get("changed_by_others", ()))
        begun = self.list_begun(inv.settings.runbook_home) if changed else {}
        for plan_id, read in begun.items():
            other = read()  # None when that plan's file is damaged or gone
            if other and plan_id != plan.id and any(row.key in changed for row in other.plan.rows):
                words += f"; {plan_id} of ours planned some of them, too"
        return Effect(words, facts, is_ok=proof.is_complete)


def _describe_proof(proof: MoveProof) -> str:
    """Say whether a plan is proven, and how many objects are not where the plan says.

    For a plan that was taken back, say how many objects were, and where its objects are now.
    """
    if proof.taken_back_by:
        places = [
            _say_count(count, name)
            for name, count in proof.counts.items()
            if count and name != _UNDONE
        ]
        undone = proof.counts.get(_UNDONE, 0)
        words = f"{undone:,} taken back by {proof.taken_back_by}; now: {', '.join(places)}"
        if proof.taken_before:
            words += f"; a consumer took {proof.taken_before:,} before"
        return words
    as_planned: list[str] = []
    lacking: list[str] = []
    for name, count in proof.counts.items():
        if count:
            parts = as_planned if name in _AS_PLANNED else lacking
            parts.append(_say_count(count, name))
    if lacking:
        return f"not proven: {', '.join(lacking + as_planned)}{_describe_lacking_shards(proof)}"
    return f"proven by listing: {', '.join(as_planned)}"


def _describe_lacking_shards(proof: MoveProof) -> str:
    """Name the incomplete shards of a manifest, with their counts that are not as planned.

    The first ten are named, and the others counted. Empty for a plan that is no manifest.
    """
    words = []
    for shard, counts in (proof.shards or {}).items():
        parts = [
            _say_count(count, name) for name, count in counts.items() if name not in _AS_PLANNED
        ]
        words.append(f"; {shard}: {', '.join(parts)}")
    unnamed = len(words) - _NAMED_SHARDS
    text = "".join(words[:_NAMED_SHARDS])
    return f"{text}; and {unnamed} more shards" if unnamed > 0 else text


def _describe_taken(open_row: OpenRow, noun: str) -> str:
    """Say what the word ``taken`` would do to an open row."""
    if open_row.is_rewritten:
        return f"closes the row; the rewritten {noun} may be planned"
    if open_row.source is not None:  # still at the source: it must not move any more
        return f"parks the {noun}; nothing is delivered"
    if open_row.parked:
        return f"closes the row; the {noun} stays parked"
    return "closes the row"


def _describe_not_taken(open_row: OpenRow, noun: str) -> str:
    """Say what the word ``not taken`` would do to an open row."""
    if open_row.is_rewritten:
        return f"closes the row; the rewritten {noun} may be planned"
    if open_row.destination is not None:
        return "closes the row; something is at the destination already"
    if open_row.parked:
        return f"brings the {noun} back to wait; a new plan may move it"
    return f"closes the row; a new plan may move the {noun}"


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
        raise UsageError(f"settle_keys is no JSON list: {error}") from error
    if not all(isinstance(key, str) for key in keys):
        raise UsageError("settle_keys is a list of keys, each in quotes")
    return list(keys)


class _WatchedLedger(ChainedLog):
    """A plan's ledger that calls a function when a run of the plan begins to change something."""

    on_beginning: Callable[[], None]
    has_let_go = False

    def append(self, kind: str, data: dict[str, Any], *, sync: bool = True) -> Entry:
        """Append one entry; if it shows that a change begins, call ``on_beginning`` first.

        A run may only end a plan that was never begun. Such a run changes something if it lets the
        others go on, else nothing.
        """
        # An entry ``hold`` without a note says that the others go on.
        self.has_let_go |= kind == "hold" and data["note"] is None
        if kind in _BEGINNINGS or (kind == "ended" and self.has_let_go):
            self.on_beginning()
        return super().append(kind, data, sync=sync)


def _open_logs(plan: Plan, *, on_beginning: Callable[[], None] = lambda: None) -> Logs:
    """Return a function from a plan's id to its ledger, in the folder of ``plan``'s ledger.

    Parameters
    ----------
    on_beginning : called when a run of the plan, or of one of its shards, begins to change
        something; perhaps several times
    """

    def open_log(plan_id: str) -> ChainedLog:
        log = _WatchedLedger(plan.trace.with_name(f"{plan_id}.jsonl"))
        log.on_beginning = on_beginning
        return log

    return open_log


def _count_trouble(facts: Mapping[str, Json], name: str) -> int:
    """Return how many objects one of a run's facts counts or lists; 0 when it is missing."""
    count_or_list = facts.get(name) or 0
    return count_or_list if isinstance(count_or_list, int) else len(count_or_list)


def count_reopened(action: str, facts: Mapping[str, Json]) -> int:
    """Return how many objects are in doubt again because a person's word was taken back.

    Parameters
    ----------
    action : of the plan that was carried out
    facts : of that plan's run; while the run is not over, the answer is 0
    """
    is_over = facts.get("is_ended") and not facts.get("stopped") and not facts.get("is_held")
    if action != "reopen" or not is_over:
        return 0
    return _count_trouble(facts, "unproven")


def _say_count(count: int, name: str) -> str:
    return f"{count:,} {name.replace('_', ' ')}"


def _name_commands(facts: Mapping[str, Json]) -> dict[str, Json]:
    """Return facts whose commands name this runbook where that is needed."""
    return {
        name: name_runbook(value) if isinstance(value, str) else value
        for name, value in facts.items()
    }


@contextmanager
def _naming_commands_in_errors() -> Iterator[None]:
    """Change a mover's errors: their commands name this runbook where that is needed."""
    try:
        yield
    except BaseException as error:
        error.args = tuple(
            name_runbook(argument) if isinstance(argument, str) else argument
            for argument in error.args
        )
        raise
