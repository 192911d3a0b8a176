"""The gate for a proven move: one adapter between a mover's plans and this package's.

A mover is a library that moves objects by a plan of its own, keeps a ledger, and proves the move.
This module imports none. ``MovePlan``, ``MoveReport`` and ``Mover`` say what the gate needs of
one. A runbook hands its mover to ``MoveGate``, with what keeps the others still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from chainlog import ChainedLog

from .approvals import Effect, Plan, PlanKind
from .errors import SafetyError
from .model import Json, format_time
from .record.incident import write_json
from .runbook import name_runbook

Logs = Callable[[str], ChainedLog]
"""Plan id to its ledger, in the folder of the plan's incident."""

#: Outcomes of a proof that are as planned.
_AS_PLANNED = ("in_place", "gone_after_landed")
#: Parts of a run's facts that are not as planned.
_TROUBLES = (
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
        """Of the file's bytes: what an approval names."""

    @property
    def expires_at(self) -> datetime:
        """Until when it may be begun."""

    @property
    def target(self) -> str:
        """From where to where, in words."""

    @property
    def summary(self) -> dict[str, Any]:
        """What an approver needs to know beside the rows, as JSON."""

    @property
    def rows(self) -> Sequence[Any]:
        """What would move; each has ``to_json``."""


class MoveReport(Protocol):
    """What a run did, or what a proof found."""

    @property
    def is_complete(self) -> bool:
        """Whether every planned object is where the plan says."""

    def to_json(self) -> dict[str, Any]:
        """Return numbers, and lists of what is not as planned, by name."""


P = TypeVar("P", bound=MovePlan)
P_co = TypeVar("P_co", bound=MovePlan, covariant=True)


class ParsePlan(Protocol[P_co]):
    """Reads a plan's file; raises when it is none."""

    def __call__(self, content: bytes, *, path: Path) -> P_co: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover(Generic[P]):
    """What the gate calls of a mover.

    Attributes
    ----------
    schema : the first line of its plans begins with it
    parse : reads a plan's file
    apply : carries out a plan that was never begun. It gets ``approve``, the hash as it was typed,
        and what ``resume`` gets
    resume : goes on with a plan that was begun. It gets the store, the plan, ``logs``,
        ``operator``, ``hold``, ``clock`` and ``progress``
    verify : looks anew where each planned object is, and only reads. It gets the store, the plan,
        ``logs`` and ``clock``
    clock : makes its clock of ``now`` and ``sleep``
    refusals : its errors that say that nothing was changed
    """

    schema: str
    parse: ParsePlan[P]
    apply: Callable[..., MoveReport]
    resume: Callable[..., MoveReport]
    verify: Callable[..., MoveReport]
    clock: Callable[[Callable[[], datetime], Callable[[float], None]], Any]
    refusals: tuple[type[Exception], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedOthers:
    """For a mover that holds who else moves: nobody is paused, and a look must say that all stand.

    Attributes
    ----------
    check : raises one of the mover's errors unless the others stand still
    words : how it is made sure; stands in the plan
    way_back : how a person lets the others go on
    holds : False: it keeps nobody still
    """

    check: Callable[[], None]
    words: str
    way_back: str
    holds: bool = False

    def is_paused(self) -> bool:
        """Return True: there is nobody to pause."""
        return True

    def pause(self) -> None:
        """Look; nobody is paused."""
        self.check()

    def resume(self) -> None:
        """Do nothing: nobody was paused."""


class MoveGate(Generic[P]):
    """Lets a mover's plans through the gate.

    Parameters
    ----------
    mover : what plans, moves and proves
    step : id of the action that its plans belong to
    hold : returns what keeps the others still, by the investigation. ``clients`` of an
        investigation is the store
    way_back : how a move is taken back, in words

    Attributes
    ----------
    kind : the kind of its plans
    """

    def __init__(
        self, mover: Mover[P], *, step: str, hold: Callable[[Any], Any], way_back: str
    ) -> None:
        self._mover = mover
        self._step = step
        self._hold = hold
        self._way_back = way_back
        self.kind = PlanKind(
            schema=mover.schema,
            apply=self._apply,
            verify=self._verify,
            parse=self._parse,
            resume=self._resume,
            refusals=(SafetyError, *mover.refusals),
        )

    def admit(self, move: P) -> Plan:
        """Return a mover's plan as the gate sees it."""
        return Plan(
            kind=self.kind,
            path=move.path,
            sha256=move.sha256,
            expires_at=move.expires_at,
            summary=move.summary,
            step=self._step,
            action="move",
            target=move.target,
            content=move,
            rows=move.rows,
            is_empty=not move.rows,
            way_back=self._way_back,
        )

    def _parse(self, path: Path, content: bytes) -> Plan:
        return self.admit(self._mover.parse(content, path=path))

    def _apply(self, inv: Any, plan: Plan) -> Effect:
        apply = partial(self._mover.apply, approve=inv.get_approval(plan))
        return self._run(apply, inv, plan)

    def _resume(self, inv: Any, plan: Plan) -> Effect:
        return self._run(self._mover.resume, inv, plan)

    def _run(self, run: Callable[..., MoveReport], inv: Any, plan: Plan) -> Effect:
        """Begin a plan, or go on with it."""
        with _named_commands():
            done = run(
                inv.clients,
                plan.content,
                logs=_open_logs(plan),
                operator=inv.operator,
                hold=self._hold(inv),
                clock=self._mover.clock(inv.now, inv.sleep),
                progress=partial(inv.progress, "dealt with"),
            )
        return _describe_run(plan, done)

    def _verify(self, inv: Any, plan: Plan) -> Effect:
        """Prove by an independent look where each planned object is, and keep the proof."""
        with _named_commands():
            proof = self._mover.verify(
                inv.clients,
                plan.content,
                logs=_open_logs(plan),
                clock=self._mover.clock(inv.now, inv.sleep),
            )
        facts = proof.to_json()
        if not inv.incident.is_late:
            head = {
                "schema": "runbook/proof/3",
                "at": format_time(inv.now()),
                "sha256": plan.sha256,
                "how": "a fresh look at the store, compared with plan, ledger and record",
            }
            path = inv.incident.path("evidence", f"proof-{plan.id}.json")
            write_json(path, {**head, **facts})
        counts = {name: n for name, n in facts.items() if isinstance(n, int) and n}
        wrong = [_say(n, name) for name, n in counts.items() if name not in _AS_PLANNED]
        right = [_say(n, name) for name, n in counts.items() if name in _AS_PLANNED]
        words = f"proven: {', '.join(right)}"
        if not proof.is_complete:
            words = f"not proven: {', '.join(wrong)}"
        return Effect(words, facts, is_ok=proof.is_complete)


def _open_logs(plan: Plan) -> Logs:
    """Return what opens the ledger of a plan, or of one about it, in the folder of its incident."""
    return lambda plan_id: ChainedLog(plan.trace.with_name(f"{plan_id}.jsonl"))


def _describe_run(plan: Plan, done: MoveReport) -> Effect:
    """Say what a run did, why it is not all, and what goes on with it."""
    facts = _name_commands(done.to_json())
    facts["is_complete"] = done.is_complete
    parts = [f"{facts['moved']} moved"]
    for name in _TROUBLES:
        count = count_trouble(facts, name)
        if count:
            parts.append(_say(count, name))
    if facts.get("stopped"):
        parts.append(str(facts["stopped"]))
    way_on = find_way_on(plan, facts)
    if way_on and way_on not in parts[-1]:
        parts.append(f"go on with: {way_on}")
    return Effect("; ".join(parts), facts, is_ok=done.is_complete)


def count_trouble(facts: Mapping[str, Json], name: str) -> int:
    """Return how many objects a part of a run's facts names."""
    part = facts.get(name) or 0
    return part if isinstance(part, int) else len(part)


def find_way_on(plan: Plan, facts: Mapping[str, Json]) -> str:
    """Return the command that goes on after a run; empty when the run is at its end."""
    is_over = facts.get("is_ended") and not facts.get("is_held")
    return "" if is_over else name_runbook(f"runbook resume {plan.id}")


def _say(count: int, name: str) -> str:
    return f"{count:,} {name.replace('_', ' ')}"


def _name_commands(facts: Mapping[str, Json]) -> dict[str, Json]:
    """Return a run's facts with their commands typed as this runbook needs it."""
    return {name: name_runbook(v) if isinstance(v, str) else v for name, v in facts.items()}


@contextmanager
def _named_commands() -> Iterator[None]:
    """Type the commands in a mover's errors as this runbook needs it."""
    try:
        yield
    except BaseException as error:
        error.args = tuple(name_runbook(a) if isinstance(a, str) else a for a in error.args)
        raise
