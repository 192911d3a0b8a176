"""What ``plan``, ``apply``, ``resume``, ``undo``, ``settle`` and ``verify`` do for a ``MoveGate``.

Command line and tests call the same methods. Fields of documents are added, never renamed.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field

from ..approvals import Plan
from ..errors import ActionInterruptedError, ClientError, ExitCode, SafetyError, UsageError
from ..investigation import Investigation, close_if_quiet
from ..model import ActionEntry, ActionPhase, Json, Progress, format_time
from ..moving import OPEN, MoveGate, NotApprovedError
from ..record.incident import Incident, list_incidents
from ..redact import Redactor
from ..report import write_outputs
from ..runbook import name_runbook
from ..section import Sections
from ..settings import Settings
from ..show.text import VERDICT_WORDS, count_of, format_bytes
from .documents import Document

#: How many objects of a plan are shown.
_SHOWN = 10

#: The engine lists these objects; a document counts them.
_Count = Annotated[int, BeforeValidator(lambda found: found if type(found) is int else len(found))]


class MoveDocument(Document, extra="ignore"):
    """A document about one plan.

    Attributes
    ----------
    way_on : the commands that finish what was begun
    summary : what came of it, in words
    reason : of a plan: what no plan will move, and which setting decides that; else why the
        incident's verdict is what it is now
    next : the next command
    report : the report's path
    """

    plan: str
    way_on: tuple[str, ...] = ()
    summary: str = ""
    reason: str = ""
    next: str = ""
    report: str = ""

    @property
    def answer(self) -> str:
        """What came of the plan; then the incident's verdict now."""
        lines = [self.summary[:1].upper() + self.summary[1:]]
        if self.verdict:
            lines.append(f"{VERDICT_WORDS[self.verdict]}: {self.reason}")
        return "\n".join(lines)

    @property
    def commands(self) -> tuple[str, ...]:
        """What finishes the plan; if it is finished, the next command."""
        return self.way_on or tuple(filter(None, (self.next,)))


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
    bytes: int
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
            size = f"{count_of(self.objects, 'object')}, {format_bytes(self.bytes)}"
            words = f"Planned, nothing was changed: {size}"
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
    apply : the command of a further approval, where one is needed
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
    apply: str = ""
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


class MoveCommands:
    """The commands of a runbook that moves objects.

    ``MoveParameters`` explains the options that most methods share.

    Parameters
    ----------
    sections : the runbook's
    section : name of the section that moves; its parameters are ``MoveParameters``, or more
    gate : makes the section's plans and carries them out
    parameters : the section's parameters that differ from their defaults
    """

    def __init__(
        self,
        sections: Sections,
        *,
        section: str,
        gate: MoveGate,
        parameters: Mapping[str, Json] = {},
    ) -> None:
        self._sections = sections
        self._parameters = parameters
        self._section = sections[section]
        self._opener = sections.investigation or Investigation
        self._gate = gate

    def plan(
        self, settings: Settings, *, incident_id: str = "", progress: Progress, **parameters: Any
    ) -> MovePlanDocument:
        """Make a plan; moves nothing. Exit 3 when objects wait and none of them may move."""
        inv = self._open(settings, incident_id, progress, **parameters)
        plan = self.make_plan(inv, self._gate.step)
        _close_if_new(inv)
        shown = self.describe_plan(inv, plan, f"apply {plan.id}")
        why_objects_stay = plan.summary.get("reason", shown.excluded)
        is_blocked = plan.is_empty and bool(why_objects_stay)
        return shown.model_copy(update={"exit_code": ExitCode.of(not is_blocked)})

    def apply(
        self, settings: Settings, plan_id: str, *, approve: str, progress: Progress, **how: Any
    ) -> MoveRunDocument | MovePlanDocument:
        """Carry out a plan; if ``approve`` is empty, stop at the plan, exit 5."""
        inv, plan = self._open_plan(settings, plan_id, progress, **how)
        return self._change("apply", inv, plan, approve, f"apply {plan.id}")

    def resume(
        self, settings: Settings, plan_id: str, *, approve: str, progress: Progress, **how: Any
    ) -> MoveRunDocument:
        """Go on with what is unfinished of a plan, or only resume the worker.

        If that needs an approval, the document names its command, exit 5.
        """
        inv, plan = self._open_plan(settings, plan_id, progress, approve=approve, **how)
        try:
            entry = self._carry_out(inv, lambda: inv.resume(plan))
        except NotApprovedError as error:
            if not error.needed or approve:
                raise
            return _make(
                MoveRunDocument,
                "resume",
                inv,
                plan.id,
                exit_code=ExitCode.REFUSED,
                summary=str(error),
                stopped=str(error),
                apply=name_runbook(f"runbook {error.way_on}"),
            )
        return self._sum_up(inv, "resume", plan, entry)

    def undo(
        self, settings: Settings, plan_id: str, *, approve: str, progress: Progress, **how: Any
    ) -> MoveRunDocument | MovePlanDocument:
        """Take back a move; if ``approve`` is empty, stop at the plan, exit 5."""
        inv = self._open_on(settings, plan_id, progress, undo=plan_id, **how)
        plan = self.make_plan(inv, self._gate.undo_step)
        typed = f"undo {plan_id} --consumer-stands-still"
        return self._change("undo", inv, plan, approve, typed)

    def _change(
        self,
        command: str,
        inv: Any,
        plan: Plan,
        approve: str,
        typed: str,
    ) -> MoveRunDocument | MovePlanDocument:
        """Carry out an approved plan; without an approval, show it and what to type."""
        if not approve:
            return self.describe_plan(inv, plan, typed)
        entry = self._carry_out(inv, lambda: inv.apply(plan, approve=approve))
        return self._sum_up(inv, command, plan, entry)

    def settle(
        self,
        settings: Settings,
        plan_id: str,
        answers: Sequence[str] | None,
        *,
        from_file: Path | None = None,
        approve: str,
        progress: Progress,
    ) -> MoveRunDocument | MovePlanDocument:
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
            return self._show_doubts(settings, plan_id, progress)
        parameters: dict[str, Any] = {}
        for name, keys in _sort_answers(words).items():
            parameters[name] = json.dumps(keys) if keys else "*"
        inv = self._open_on(settings, plan_id, progress, settle=plan_id, **parameters)
        plan = self.make_plan(inv, self._gate.settle_step)
        if plan.is_empty:
            return self._show_doubts(settings, plan_id, progress)
        typed = f"settle {plan_id} {shlex.join(words)}"
        return self._change("settle", inv, plan, approve, typed)

    def _show_doubts(self, settings: Settings, plan_id: str, progress: Progress) -> MoveRunDocument:
        """Return the rows that a person must decide, and the commands that decide."""
        inv, plan = self._open_plan(settings, plan_id, progress, look=True)
        rows = self._gate.list_to_settle(inv, plan)
        commands = [f"runbook settle {plan_id} {word}" for word in ("--not-taken", "--taken")]
        return _make(
            MoveRunDocument,
            "settle",
            inv,
            plan_id,
            exit_code=ExitCode.of(not rows),
            summary=f"{count_of(len(rows), 'object')} of {plan_id} wait for your answer",
            left=len(rows),
            rows=rows,
            way_on=map(name_runbook, commands) if rows else (),
        )

    def verify(self, settings: Settings, plan_id: str, *, progress: Progress) -> MoveProofDocument:
        """Prove by an independent look where each planned object is. Moves nothing."""
        progress("list the bucket")
        inv, plan = self._open_plan(settings, plan_id, progress, look=True)
        if not plan.trace.exists():  # another machine may have carried it out
            self._gate.fetch_plan(inv.clients, plan_id, lambda: inv.incident)
        entry = inv.verify(plan)
        return _make(
            MoveProofDocument,
            "verify",
            inv,
            plan_id,
            entry.result,
            exit_code=ExitCode.of(entry.phase is ActionPhase.VERIFIED),
            summary=entry.reason,
            way_on=self._list_ways_on(inv, plan.id),
        )

    def describe_plan(self, inv: Any, plan: Plan, command: str, **fields: Json) -> MovePlanDocument:
        """Return what a plan would do, and how to approve it; exit 5, since nothing is approved.

        Parameters
        ----------
        command : carries the plan out, without ``runbook`` and the approval
        fields : more fields of the document
        """
        summary = plan.summary
        by_status = summary.get("by_status") or {}
        apply = name_runbook(f"runbook {command} --approve {plan.sha256}")
        if not plan.about:
            fields["parts"] = plan.content.header.parts
            fields["way_on"] = self._list_ways_on(inv)
        return _make(
            MovePlanDocument,
            "plan",
            inv,
            plan.id,
            summary,
            exit_code=ExitCode.REFUSED,
            sha256=plan.sha256,
            others=summary["who else moves"],
            path=str(plan.path),
            rows=[self._show_row(row) for row in choose_rows(plan.rows, by_status)],
            apply="" if plan.is_empty else apply,
            **fields,
        )

    def _list_ways_on(self, inv: Any, plan_id: str = "") -> list[str]:
        """Return the commands that lead on from what is unfinished; of one plan, or of all."""
        rows = self._gate.list_unfinished(inv.clients)
        return [str(row["way_on"]) for row in rows if str(row["plan"]).startswith(plan_id)]

    def make_plan(self, inv: Any, step: str) -> Plan:
        """Make a step's plan; refuse when the runbook can only say why there is none."""
        plan: Plan = inv.plan(step)
        if plan.kind is not self._gate.kind:
            raise SafetyError(str(plan.summary["reason"]))
        return plan

    def _show_row(self, row: Any) -> dict[str, Json]:
        """Return what a person sees of a plan's row."""
        shown = {"key": row.key, "to": row.to, "waits since": format_time(row.age_start)}
        facts = {name: row.facts[name] for name in self._gate.shown_facts if name in row.facts}
        return {**shown, **facts}

    def _open(
        self, settings: Settings, incident_id: str, progress: Progress, **parameters: Any
    ) -> Any:
        """Open an investigation in the section that moves objects."""
        opened: Any = self._opener.open(
            incident_id,
            section=self._section,
            settings=settings,
            progress=progress,
            **{**self._parameters, **parameters},
        )
        return opened

    def _open_plan(
        self, settings: Settings, plan_id: str, progress: Progress, **options: Any
    ) -> tuple[Any, Plan]:
        """Open the incident in which a plan goes on, and load the plan.

        Raises
        ------
        UsageError
            When the plan is not one of the gate's.
        """
        inv = self._open_on(settings, plan_id, progress, plan=plan_id, **options)
        (plan,) = inv.load_named_plans()
        if plan.kind is not self._gate.kind:
            advice = f"Go on with: runbook run {self._section.NAME[:2]} -p plan={plan_id}"
            raise UsageError(f"{plan_id} is not the plan of a {self._gate.action}. {advice}")
        return inv, plan

    def _open_on(
        self,
        settings: Settings,
        plan_id: str,
        progress: Progress,
        *,
        look: bool = False,
        **parameters: Any,
    ) -> Any:
        """Open the incident in which a plan goes on: the plan's own, unless closed or damaged.

        Parameters
        ----------
        look : whether the caller only looks. If so, the plan's own incident may be closed
        parameters : of the section
        """
        incident = self._find_incident(settings, plan_id)
        if (look or not incident.is_closed) and not incident.find_damage():
            return self._open(settings, incident.id, progress, **parameters)
        inv = self._open(settings, "", progress, **parameters)
        inv.incident.tell(
            "plan_of_closed", f"{plan_id} is a plan of another incident, {incident.id}"
        )
        return inv

    def _find_incident(self, settings: Settings, plan_id: str) -> Incident:
        """Return this machine's newest incident that has a plan.

        If none has it, the plan is fetched from the bucket into the incident to work on.

        Raises
        ------
        UsageError
            When the store does not have the plan, or does not answer.
        """
        for folder in list_incidents(settings.runbook_home.resolve()):
            if (folder / "plans" / f"{plan_id}.jsonl").is_file():
                return Incident(folder, redactor=Redactor(settings.secrets))
        with suppress(ClientError):
            clients = self._opener.connect(settings)
            find = self._opener.find_or_make
            incident = self._gate.fetch_plan(clients, plan_id, lambda: find(settings)[0])
            if incident is not None:
                return incident
        raise UsageError(f"no incident under {settings.runbook_home} has a plan {plan_id!r}")

    def _sum_up(
        self,
        inv: Any,
        command: str,
        plan: Plan,
        entry: ActionEntry,
    ) -> MoveRunDocument:
        """Return how a run ended, and the incident's verdict by a new look."""
        result = dict(entry.result)
        names: Sequence[str] = OPEN
        plan_id = plan.id
        if command == "settle":
            names = ("unproven", "stopped")
            plan_id = plan.about
            result["left"] = len(result["unproven"])
        return _make(
            MoveRunDocument,
            command,
            inv,
            plan_id,
            result,
            exit_code=ExitCode.of(not any(result.get(name) for name in names)),
            summary=entry.reason,
            reasons=[*(result.get("skipped") or ()), *(result.get("failed") or ())],
            way_on=result.get("ways_on", ()),
            **self.look_again(inv, plan),
        )

    def _carry_out(self, inv: Any, change: Callable[[], ActionEntry]) -> ActionEntry:
        """Carry a change out; if it is interrupted, write the report and raise the error again."""
        try:
            return change()
        except ActionInterruptedError:
            inv.progress("interrupted; writing the report")
            with suppress(KeyboardInterrupt):  # a second Ctrl-C skips the report
                write_outputs(inv.incident, self._sections)
            raise
        finally:
            _close_if_new(inv)

    def look_again(self, inv: Any, plan: Plan) -> dict[str, Json]:  # noqa: ARG002
        """Write the report, and return the fields of ``MoveDocument`` about the incident.

        A runbook overrides this method with one that first looks whether the change helped.
        """
        return {"report": str(write_outputs(inv.incident, self._sections))}


def _close_if_new(inv: Any) -> None:
    """Close an incident that was made for this command, if nothing is to be done in it."""
    if not inv.journal.readings:
        close_if_quiet(inv.incident)


def _make(
    kind: type[D],
    command: str,
    inv: Any,
    plan_id: str,
    facts: Mapping[str, Json] = {},
    **fields: Any,
) -> D:
    """Return a command's document: ``fields``, and those of an action's facts that it knows."""
    head = {"schema": f"runbook/{command}/1", "incident": inv.incident.id, "plan": plan_id}
    return kind.model_validate({**facts, **head, **fields})


def _sort_answers(words: Sequence[str]) -> dict[str, list[str]]:
    """Return the keys of the answers ``taken`` and ``not_taken``."""
    keys: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word in ("--taken", "--not-taken"):
            name = word[2:].replace("-", "_")
            keys.setdefault(name, [])
        elif name:
            keys[name].append(word)
        else:
            raise UsageError(f"say what became of {word}: --taken KEY… or --not-taken KEY…")
    return keys


def choose_rows(rows: Sequence[Any], by_status: Mapping[str, int]) -> list[Any]:
    """Return the rows that a person sees: a few, those with the rarest status first."""
    return sorted(rows, key=lambda row: by_status.get(row.facts.get("status"), 0))[:_SHOWN]
