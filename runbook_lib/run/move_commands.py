"""What ``plan``, ``apply``, ``resume``, ``undo``, ``settle`` and ``verify`` do for a ``MoveGate``.

Command line and tests call the same methods. Fields of documents are added, never renamed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BeforeValidator, Field

from ..approvals import SHORT_HASH, Plan, load_plan
from ..errors import ActionInterruptedError, ClientError, ExitCode, SafetyError, UsageError
from ..investigation import close_if_quiet
from ..model import ActionEntry, ActionPhase, Json, Progress, format_time, keep_quiet
from ..moving import OPEN, MoveGate, NotNowError, get_verb
from ..record.incident import Incident, list_incidents
from ..redact import Redactor
from ..report import write_outputs
from ..runbook import load_policy
from ..section import Sections
from ..settings import Settings
from ..show.text import VERDICT_WORDS, capitalise, count_of, format_bytes
from .documents import IncidentDocument

#: How many objects of a plan are shown.
_SHOWN = 10

#: The engine lists these objects; a document counts them.
_Count = Annotated[int, BeforeValidator(lambda found: found if type(found) is int else len(found))]


class MoveDocument(IncidentDocument, extra="ignore"):
    """A document about one plan.

    Attributes
    ----------
    way_on : the commands that finish what was begun
    summary : what came of it, in words
    reason : of a plan: what no plan will move, and which setting decides that; else why the
        incident's verdict is what it is now
    """

    plan: str
    way_on: tuple[str, ...] = ()
    summary: str = ""

    @property
    def answer(self) -> str:
        """What came of the plan; then the incident's verdict now."""
        lines = [capitalise(self.summary)]
        if self.verdict:
            lines.append(f"{VERDICT_WORDS[self.verdict]}: {self.reason}")
        return "\n".join(lines)

    @property
    def commands(self) -> tuple[str, ...]:
        """What finishes the plan; if it is finished, the next command."""
        return self.way_on or super().commands


class MovePlanDocument(MoveDocument):
    """``plan``: what would move, and how many objects would not, for each reason.

    Attributes
    ----------
    apply : the command that carries the plan out
    by_status : how many objects have each status, where the runbook knows one
    rows : some objects, those with the rarest status first
    others : how the worker is held
    window : what the store cannot guard
    """

    sha256: str
    objects: int
    bytes: int | None = None
    expires_at: str
    by_status: dict[str, int] = Field(default={})
    excluded: dict[str, int]
    path: str
    apply: str = ""
    rows: tuple[dict[str, Json], ...] = ()
    others: str = ""
    window: str = ""
    parts: int = 0

    @property
    def answer(self) -> str:
        """How much would move, that nothing was changed, and what no plan will move."""
        words = "There is nothing to do"
        if self.apply:
            files = count_of(self.objects, load_policy().noun)
            words = f"Planned, nothing was changed: {files}"
            if self.bytes is not None:
                words += f", {format_bytes(self.bytes)}"
        return ": ".join(filter(None, (words, self.reason)))


class MoveRunDocument(MoveDocument):
    """``apply``, ``resume``, ``undo``, ``settle``: how many objects moved, and what of the others.

    Attributes
    ----------
    already : of how many of ``moved`` a look found the content at the destination
    skipped, conflicts, failed : how many were not moved; of them, how many because their
        destination is taken; how many were tried, and wait or are open
    reasons : ``key`` and ``reason`` of these objects
    unproven : keys of the objects that a person must settle
    waiting : how many objects this plan still has to move
    left : how many objects a new plan may move
    stopped : why the run ended early
    taken, not_taken : of ``settle``: how many rows each answer settled
    rows : of ``settle`` without an answer: the rows that wait for one, with ``key``, ``evidence``,
        ``why``, ``taken_does``, ``not_taken_does``, and what the runbook adds
    """

    moved: int = 0
    already: int = 0
    skipped: _Count = 0
    conflicts: _Count = 0
    failed: _Count = 0
    reasons: tuple[dict[str, Json], ...] = ()
    unproven: tuple[str, ...] = ()
    waiting: int = 0
    left: int = 0
    is_held: bool = False
    stopped: str = ""
    taken: int = 0
    not_taken: int = 0
    rows: tuple[dict[str, Json], ...] = ()

    @property
    def answer(self) -> str:
        """How many moved, and whether that is all."""
        word = "Done" if self.exit_code is ExitCode.OK else "NOT ALL DONE"
        return f"{word}: {super().answer}"


class MoveProofDocument(MoveDocument):
    """``verify``: the proof, as a number of objects for each status."""

    in_place: int
    gone_after_landed: int
    unproven: int
    waiting: int
    changed_by_others: int
    lost: int
    duplicated: int
    foreign_changed: int
    skipped: int
    taken_back: int
    taken_back_by: str
    settled_by_word: int


D = TypeVar("D", bound=MoveDocument)


@dataclass
class MoveCommands:
    """The commands of a runbook that moves objects. A runbook subclasses it.

    Options are parameters of the section that moves, such as those of ``MoveParameters``.

    Attributes
    ----------
    sections : the runbook's
    section : name of the section that moves
    gate : makes the section's plans and carries them out
    fixed : the section's parameters that differ from their defaults
    """

    sections: ClassVar[Sections]
    section: ClassVar[str]
    gate: ClassVar[MoveGate]
    fixed: ClassVar[Mapping[str, Json]] = {}

    settings: Settings
    progress: Progress = keep_quiet

    def plan(self, *, incident_id: str = "", **options: Any) -> MovePlanDocument:
        """Make a plan; moves nothing. Exit 3 when objects wait and none of them may move."""
        inv = self._open(incident_id, **options)
        plan = self._make_plan(inv, self.gate.step)
        _close_if_new(inv)
        shown = self._describe_plan(inv, plan, f"apply {plan.id}")
        why_objects_stay = plan.summary.get("reason", shown.excluded)
        is_blocked = plan.is_empty and bool(why_objects_stay)
        return shown.model_copy(update={"exit_code": ExitCode.of(not is_blocked)})

    def apply(self, plan_id: str, *, approve: str = "", **options: Any) -> MoveDocument:
        """Carry out a plan; if ``approve`` is empty, stop at the plan, exit 5."""
        inv, plan = self._open_plan(plan_id, **options)
        return self._change(inv, plan, approve, f"apply {plan.id}")

    def resume(self, plan_id: str, *, approve: str = "", **options: Any) -> MoveDocument:
        """Go on with what is unfinished of a plan, or only resume the worker."""
        inv, plan = self._open_plan(plan_id, approve=approve, **options)
        return self._carry_out("resume", inv, plan, lambda: inv.resume(plan))

    def undo(self, plan_id: str, *, approve: str = "", **options: Any) -> MoveDocument:
        """Take back a move; if ``approve`` is empty, stop at the plan, exit 5."""
        inv = self._open_on(plan_id, undo=plan_id, **options)
        plan = self._make_plan(inv, self.gate.undo_step)
        return self._change(inv, plan, approve, f"undo {plan_id} --consumer-stands-still")

    def settle(
        self,
        plan_id: str,
        answers: Sequence[str] | None = None,
        *,
        from_file: Path | None = None,
        approve: str = "",
    ) -> MoveDocument:
        """Carry out answers about objects that nothing proves; without an answer, show them.

        Parameters
        ----------
        answers : ``--taken`` or ``--not-taken``, each followed by keys; without keys: all open
            objects that the other answer lacks
        from_file : more answers, one a line: ``taken KEY`` or ``not-taken KEY``

        Returns
        -------
        Without an answer: the rows, exit 3, or exit 0 if there are none. With answers that are not
        approved: the plan, exit 5. With approved ones: how many are settled, and how many are left.
        """
        words = list(answers or ())
        for line in from_file.read_text("utf-8").splitlines() if from_file else ():
            answer, _, key = line.partition(" ")
            words += [f"--{answer}", key]
        if not words:
            return self._show_doubts(plan_id)
        inv = self._open_on(plan_id, settle=plan_id, **_sort_answers(words))
        plan = self._make_plan(inv, self.gate.settle_step)
        if plan.is_empty:
            return self._show_doubts(plan_id)
        return self._change(inv, plan, approve, f"settle {plan_id} {shlex.join(words)}")

    def _show_doubts(self, plan_id: str) -> MoveRunDocument:
        """Return the rows that a person must decide, and the commands that decide."""
        inv, plan = self._open_plan(plan_id, look=True)
        rows = self.gate.list_to_settle(inv, plan)
        commands = [f"runbook settle {plan_id} {word}" for word in ("--not-taken", "--taken")]
        return _make(
            MoveRunDocument,
            "settle",
            inv,
            plan,
            exit_code=ExitCode.of(not rows),
            summary=f"{count_of(len(rows), inv.policy.noun)} of {plan_id} wait for your answer",
            left=len(rows),
            rows=rows,
            way_on=commands if rows else (),
        )

    def verify(self, plan_id: str) -> MoveProofDocument:
        """Prove by an independent look where each planned object is. Moves nothing."""
        self.progress("list the bucket")
        inv, plan = self._open_plan(plan_id, look=True)
        if not plan.trace.exists():  # another machine may have carried it out
            self.gate.fetch_plan(inv.clients, plan_id, lambda: inv.incident)
        entry = inv.verify(plan)
        return _make(
            MoveProofDocument,
            "verify",
            inv,
            plan,
            entry.result,
            exit_code=ExitCode.of(entry.phase is ActionPhase.VERIFIED),
            summary=entry.reason,
            way_on=self._list_ways_on(inv, plan.id),
        )

    def look_again(self, inv: Any, plan: Plan) -> dict[str, Json]:  # noqa: ARG002
        """Write the report, and return the fields of ``MoveDocument`` about the incident.

        A runbook overrides this method with one that first looks whether the change helped.
        """
        return {"report": str(write_outputs(inv.incident, self.sections))}

    def _describe_plan(self, inv: Any, plan: Plan, command: str) -> MovePlanDocument:
        """Return what a plan would do, and how to approve it; exit 5, since nothing is approved.

        Parameters
        ----------
        command : carries the plan out, without ``runbook`` and the approval
        """
        apply = f"runbook {command} --approve {plan.sha256[:SHORT_HASH]}"
        return _make(
            MovePlanDocument,
            "plan",
            inv,
            plan,
            plan.summary,
            exit_code=ExitCode.REFUSED,
            sha256=plan.sha256,
            others=plan.summary["who else moves"],
            path="" if plan.about else str(plan.path),
            rows=show_rows(plan),
            apply="" if plan.is_empty else apply,
            parts=plan.content.header.parts,
            way_on=() if plan.about else self._list_ways_on(inv),
        )

    def _list_ways_on(self, inv: Any, plan_id: str = "") -> list[str]:
        """Return the commands that lead on from what is unfinished; of one plan, or of all."""
        rows = self.gate.list_unfinished(inv.clients)
        return [str(row["way_on"]) for row in rows if str(row["plan"]).startswith(plan_id)]

    def _make_plan(self, inv: Any, step: str) -> Plan:
        """Make a step's plan; refuse when the runbook can only say why there is none."""
        plan: Plan = inv.plan(step)
        if plan.kind is not self.gate.kind:
            raise SafetyError(str(plan.summary["reason"]))
        return plan

    # --- where a plan is carried out ---

    def _open(self, incident_id: str, **parameters: Any) -> Any:
        """Open an investigation in the section that moves objects."""
        return self.sections.investigation.open(
            incident_id,
            section=self.sections[self.section],
            settings=self.settings,
            progress=self.progress,
            **self.fixed,
            **parameters,
        )

    def _open_plan(self, plan_id: str, **options: Any) -> tuple[Any, Plan]:
        """Open the incident in which a plan goes on, and load the plan."""
        inv = self._open_on(plan_id, **options)
        return inv, load_plan(inv.incident.find_plan(plan_id), (self.gate.kind,))

    def _open_on(self, plan_id: str, *, look: bool = False, **parameters: Any) -> Any:
        """Open the incident in which a plan goes on: the plan's own, unless closed or damaged.

        Parameters
        ----------
        look : whether the caller only looks. If so, the plan's own incident may be closed
        parameters : of the section
        """
        incident = self._find_incident(plan_id)
        if (look or not incident.is_closed) and not incident.is_damaged():
            return self._open(incident.id, **parameters)
        inv = self._open("", **parameters)
        text = f"Plan {plan_id} is one of another incident, {incident.id}"
        inv.incident.tell("plan_of_closed", text)
        return inv

    def _find_incident(self, plan_id: str) -> Incident:
        """Return this machine's newest incident that has a plan.

        If none has it, the plan is fetched from the bucket into the incident to work on.

        Raises
        ------
        UsageError
            When the store does not have the plan, or does not answer.
        """
        settings = self.settings
        for folder in list_incidents(settings.runbook_home.resolve()):
            if (folder / "plans" / f"{plan_id}.jsonl").is_file():
                return Incident(folder, redactor=Redactor(settings.secrets))
        opener = self.sections.investigation
        with suppress(ClientError, NotNowError):
            clients = opener.connect(settings)
            return self.gate.fetch_plan(clients, plan_id, lambda: opener.find_or_make(settings)[0])
        raise UsageError(f"no incident under {settings.runbook_home} has a plan {plan_id!r}")

    # --- changing ---

    def _change(
        self,
        inv: Any,
        plan: Plan,
        approve: str,
        typed: str,
    ) -> MoveDocument:
        """Carry out an approved plan; without an approval, show it and what to type."""
        if not approve:
            return self._describe_plan(inv, plan, typed)
        return self._carry_out(
            get_verb(plan),
            inv,
            plan,
            lambda: inv.apply(plan, approve=approve),
        )

    def _carry_out(
        self,
        command: str,
        inv: Any,
        plan: Plan,
        change: Callable[[], ActionEntry],
    ) -> MoveRunDocument:
        """Carry a change out; return how it ended, and the incident's verdict by a new look.

        If it is interrupted, write the report and raise the error again.
        """
        try:
            entry = change()
        except ActionInterruptedError:
            inv.progress("interrupted; writing the report")
            with suppress(KeyboardInterrupt):  # a second Ctrl-C skips the report
                write_outputs(inv.incident, self.sections)
            raise
        finally:
            _close_if_new(inv)
        facts = dict(entry.result)
        names: Sequence[str] = OPEN
        if command == "settle":
            names = ("unproven", "stopped")
            facts["left"] = len(facts["unproven"])
        return _make(
            MoveRunDocument,
            command,
            inv,
            plan,
            facts,
            exit_code=ExitCode.of(not any(facts.get(name) for name in names)),
            summary=entry.reason,
            reasons=[*facts.get("skipped", ()), *facts.get("failed", ())],
            way_on=facts.get("ways_on", ()),
            **self.look_again(inv, plan),
        )


def show_rows(plan: Plan) -> list[dict[str, Json]]:
    """Return the rows that a person sees: a few, those with the rarest status first."""
    by_status = plan.summary.get("by_status", {})
    rows = sorted(plan.rows, key=lambda row: by_status.get(row.facts.get("status"), 0))
    return [
        {
            "key": row.key,
            "to": row.to,
            "waits since": format_time(row.age_start),
            **row.facts,
        }
        for row in rows[:_SHOWN]
    ]


def _close_if_new(inv: Any) -> None:
    """Close an incident that was made for this command, if nothing is to be done in it."""
    if not inv.journal.readings:
        close_if_quiet(inv.incident)


def _make(
    kind: type[D],
    command: str,
    inv: Any,
    plan: Plan,
    facts: Mapping[str, Json] = {},
    **fields: Any,
) -> D:
    """Return a command's document: ``fields``, and those of an action's facts that it knows."""
    head = {"schema": f"runbook/{command}/1", "incident": inv.incident.id, "plan": plan.id}
    return kind.model_validate({**facts, **head, **fields})


def _sort_answers(words: Sequence[str]) -> dict[str, Any]:
    """Return the answers as the parameters ``taken`` and ``not_taken``."""
    keys: dict[str, list[str]] = {}
    own: list[str] | None = None
    for word in words:
        if word in ("--taken", "--not-taken"):
            own = keys.setdefault(word[2:].replace("-", "_"), [])
        elif own is None:
            raise UsageError(f"say what became of {word}: --taken KEY… or --not-taken KEY…")
        else:
            own.append(word)
    return {name: named or ["*"] for name, named in keys.items()}
