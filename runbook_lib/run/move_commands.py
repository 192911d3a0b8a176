"""What ``plan``, ``apply``, ``resume``, ``undo``, ``settle`` and ``verify`` do for a ``MoveGate``.

Command line and tests call the same methods. Fields of documents are added, never renamed.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field

from ..approvals import Plan
from ..errors import (
    ActionInterruptedError,
    ClientError,
    ExitCode,
    SafetyError,
    UsageError,
)
from ..investigation import Investigation, close_if_quiet
from ..model import ActionEntry, ActionPhase, Json, Progress, format_time
from ..moving import OPEN, MoveGate, NotApprovedError, count_trouble
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


class MoveDocument(Document):
    """A document about one plan. ``way_on`` are the commands that finish what was begun."""

    plan: str
    way_on: tuple[str, ...] = ()


class MovePlanDocument(MoveDocument):
    """``plan``: what would move, and how many objects would not, for each reason.

    Attributes
    ----------
    apply : the command that carries the plan out
    reason : what no plan will move, and which setting decides that
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
    reason: str = ""
    rows: tuple[dict[str, Json], ...] = ()
    others: str = ""
    window: str = ""
    parts: int = 0

    @property
    def answer(self) -> str:
        """How much would move, that nothing was changed, and what no plan will move."""
        if not self.apply:
            return ": ".join(filter(None, ("There is nothing to do", self.reason)))
        size = f"{count_of(self.objects, 'object')}, {format_bytes(self.bytes)}"
        return ". ".join(filter(None, (f"Planned, nothing was changed: {size}", self.reason)))

    @property
    def left_out(self) -> tuple[str, ...]:
        """The fields that serve to approve the plan, if it has nothing to do."""
        return () if self.objects else ("plan", "sha256", "expires_at", "path")

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """The command that approves the plan, and the one that carries out only a part."""
        whole = offer(f"To carry it out before {self.expires_at}, paste:", self.apply)
        one = f"{self.apply} --part 1" if self.parts and self.apply else ""
        return whole + offer("Or one part on each of several machines, such as:", one)


class MoveChangeDocument(MoveDocument):
    """A document about a plan that was carried out, and the incident's verdict since then.

    ``reason`` says why the verdict of the incident is what it is now, ``next`` is the next command,
    and ``report`` is the report's path.
    """

    reason: str = ""
    next: str = ""
    report: str = ""

    @property
    def mark(self) -> str:
        """Whether the work is done, whatever the incident's verdict."""
        return "ok" if self.exit_code is ExitCode.OK else "failed"

    @property
    def standing(self) -> str:
        """The incident's verdict now, and its reason; empty without a verdict."""
        return f"{VERDICT_WORDS[self.verdict]}: {self.reason}" if self.verdict else ""

    @property
    def commands(self) -> tuple[str, ...]:
        """What finishes the plan; if it is finished, the next command."""
        return self.way_on or tuple(filter(None, (self.next,)))


class MoveRunDocument(MoveChangeDocument):
    """``apply``, ``resume`` and ``undo``: how many objects moved, and what became of the others.

    Attributes
    ----------
    summary : all of this in words
    already : of how many of ``moved`` a look found the content at the destination
    skipped, conflicts, failed : how many were not moved; of them, how many because their
        destination is taken; how many were tried, and wait or are open
    reasons : ``key`` and ``reason`` of these objects
    unproven : keys of the objects that a person must settle
    waiting : how many objects this plan still has to move
    left : how many objects a new plan may move
    stopped : why the run ended early
    apply : the command of a further approval, where one is needed
    """

    summary: str = ""
    moved: int = 0
    already: int = 0
    skipped: int = 0
    conflicts: int = 0
    failed: int = 0
    reasons: tuple[dict[str, Json], ...] = ()
    unproven: tuple[str, ...] = ()
    waiting: int = 0
    left: int = 0
    is_held: bool = False
    stopped: str = ""
    apply: str = ""

    @property
    def answer(self) -> str:
        """How many moved, and whether that is all."""
        word = "Done" if self.exit_code is ExitCode.OK else "NOT ALL DONE"
        return f"{word}: {self.summary}"

    @property
    def commands(self) -> tuple[str, ...]:
        """What finishes the plan; if it is finished, what proves it, and the next command."""
        if self.way_on or self.apply:
            return self.way_on
        return (name_runbook(f"runbook verify {self.plan}"), *super().commands)

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """The command of a further approval, where one is needed."""
        return offer("To approve it, paste:", self.apply)


class MoveSettleDocument(MoveChangeDocument):
    """``settle``: how many rows an answer settled, and how many are left.

    Without an answer, ``rows`` are those that wait for one: ``key``, ``evidence``, ``why``,
    ``taken_does``, ``not_taken_does``, and what the runbook adds.
    """

    taken: int = 0
    not_taken: int = 0
    left: int
    rows: tuple[dict[str, Json], ...] = ()

    @property
    def answer(self) -> str:
        """How many objects are settled, or wait for an answer."""
        settled = self.taken + self.not_taken
        if settled:
            return f"{count_of(settled, 'object')} settled, {self.left} left"
        if self.left:
            return f"{count_of(self.left, 'object')} of {self.plan} wait for your answer"
        return f"Nothing is open in {self.plan}"


class MoveProofDocument(MoveDocument):
    """``verify``: the proof, as a number of objects for each status; ``summary`` has the words."""

    summary: str = ""
    in_place: int
    gone_after_landed: int
    unproven: int
    waiting: int
    changed_by_others: int
    lost: int
    duplicated: int
    foreign_changed: int
    skipped: int = 0
    taken_back: int = 0
    taken_back_by: str = ""
    settled_by_word: int = 0

    @property
    def answer(self) -> str:
        """The summary as a sentence: whether the whole plan is proven."""
        return self.summary[:1].upper() + self.summary[1:]


def offer(words: str, command: str) -> tuple[tuple[str, str], ...]:
    """Return a command to paste, under its words; nothing where there is no command."""
    return ((words, command),) if command else ()


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
        """Make a plan; moves nothing. Exit 3 when objects wait and none of them may move.

        An incident that this call made is closed if the plan has nothing to do.
        """
        incident, is_new = self._opener.find_or_make(settings, incident_id)
        inv = self._open(settings, incident, progress, **parameters)
        plan = inv.plan(self._gate.step)
        if is_new:
            close_if_quiet(incident)
        is_blocked = plan.is_empty and bool(plan.summary["excluded"])
        document = self.describe_plan(inv, plan, f"apply {plan.id}")
        return document.model_copy(update={"exit_code": ExitCode.of(not is_blocked)})

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
            return self._sum_up(inv, "resume", plan, entry)
        except NotApprovedError as error:
            if not error.needed or approve:
                raise
            return MoveRunDocument(
                schema_name="runbook/resume/1",
                incident=inv.incident.id,
                exit_code=ExitCode.REFUSED,
                plan=plan.id,
                summary=str(error),
                stopped=str(error),
                apply=name_runbook(f"runbook {error.way_on}"),
            )

    def undo(
        self, settings: Settings, plan_id: str, *, approve: str, progress: Progress, **how: Any
    ) -> MoveRunDocument | MovePlanDocument:
        """Take back a move; if ``approve`` is empty, stop at the plan, exit 5."""
        inv = self._open_on(settings, plan_id, progress, undo=plan_id, **how)
        plan = self.refuse_unless_move(inv.plan(self._gate.undo_step))
        typed = f"undo {plan_id} --consumer-stands-still"
        return self._change("undo", inv, plan, approve, typed)

    def _change(
        self,
        command: str,
        inv: Investigation[Any, Any],
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
    ) -> MoveSettleDocument | MovePlanDocument:
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
        named = _sort_answers(words)
        parameters: dict[str, Any]
        parameters = {name: json.dumps(keys) if keys else "*" for name, keys in named.items()}
        inv = self._open_on(settings, plan_id, progress, settle=plan_id, **parameters)
        plan = self.refuse_unless_move(inv.plan(self._gate.settle_step))
        if approve and approve != plan.sha256:
            text = "the approval is not of these answers, or something changed since: look again"
            raise SafetyError(f"{text}: {name_runbook(f'runbook settle {plan_id}')}")
        if plan.is_empty:
            return self._make_settle_document(inv, plan_id)
        if not approve:
            return self.describe_plan(inv, plan, f"settle {plan_id} {shlex.join(words)}")
        result = self._carry_out(inv, lambda: inv.apply(plan, approve=approve)).result
        open_keys = set(result["unproven"])
        return self._make_settle_document(
            inv,
            plan_id,
            taken=len(set(plan.summary["taken"]) - open_keys),
            not_taken=len(set(plan.summary["not_taken"]) - open_keys),
            left=len(open_keys),
            exit_code=ExitCode.of(not (open_keys or result["stopped"])),
            way_on=tuple(result["ways_on"]),
            **self.look_again(inv, plan),
        )

    def _show_doubts(
        self,
        settings: Settings,
        plan_id: str,
        progress: Progress,
    ) -> MoveSettleDocument:
        """Return the rows that a person must decide, and the commands that decide."""
        inv, plan = self._open_plan(settings, plan_id, progress, look=True)
        rows = self._gate.list_to_settle(inv, plan)
        commands = [f"runbook settle {plan_id} {word}" for word in ("--not-taken", "--taken")]
        return self._make_settle_document(
            inv,
            plan_id,
            exit_code=ExitCode.of(not rows),
            left=len(rows),
            rows=tuple(rows),
            way_on=tuple(map(name_runbook, commands)) if rows else (),
        )

    @staticmethod
    def _make_settle_document(inv: Any, plan_id: str, **fields: Any) -> MoveSettleDocument:
        document = {"schema": "runbook/settle/1", "incident": inv.incident.id, "plan": plan_id}
        return MoveSettleDocument.model_validate({**document, "left": 0, **fields})

    def verify(
        self,
        settings: Settings,
        plan_id: str,
        *,
        progress: Progress,
    ) -> MoveProofDocument:
        """Prove by an independent look where each planned object is. Moves nothing."""
        progress("list the bucket")
        inv, plan = self._open_plan(settings, plan_id, progress, look=True)
        if not plan.trace.exists():  # another machine may have carried it out
            found = self._gate.fetch_plan(inv.clients, plan.id, lambda: inv.incident)
            if found is None:
                raise SafetyError(f"{plan.id} was never applied: there is nothing to prove")
        entry = inv.verify(plan)
        ways_on = self.list_ways_on(inv, plan.id)
        if entry.result.get("waiting") and not ways_on:
            ways_on = (name_runbook("runbook plan"),)
        document = {
            "schema": "runbook/verify/1",
            "incident": inv.incident.id,
            "exit_code": ExitCode.of(entry.phase is ActionPhase.VERIFIED),
            "summary": entry.reason,
            "way_on": ways_on,
        }
        counts = _pick_fields(MoveProofDocument, entry.result)
        return MoveProofDocument.model_validate({**document, **counts})

    def describe_plan(
        self,
        inv: Investigation[Any, Any],
        plan: Plan,
        command: str,
    ) -> MovePlanDocument:
        """Return what a plan would do, and how to approve it.

        Parameters
        ----------
        command : carries the plan out, without ``runbook`` and the approval
        """
        summary = plan.summary
        by_status = summary.get("by_status") or {}
        approve = name_runbook(f"runbook {command} --approve {plan.sha256}")
        is_move = plan.step == self._gate.step
        return MovePlanDocument(
            schema_name="runbook/plan/1",
            incident=inv.incident.id,
            exit_code=ExitCode.REFUSED,  # nothing is approved yet
            plan=plan.id,
            sha256=plan.sha256,
            objects=summary["objects"],
            bytes=summary["bytes"],
            expires_at=summary["expires_at"],
            by_status=by_status,
            excluded=summary["excluded"],
            window=summary["window"],
            others=summary["who else moves"],
            path=str(plan.path),
            rows=tuple(map(self._show_row, choose_rows(plan.rows, by_status))),
            apply="" if plan.is_empty else approve,
            parts=plan.content.header.parts if is_move else 0,
            reason=str(summary.get("reason") or ""),
            way_on=self.list_ways_on(inv) if is_move else (),
        )

    def list_ways_on(self, inv: Investigation[Any, Any], plan_id: str = "") -> tuple[str, ...]:
        """Return the commands that lead on from what is unfinished; of one plan, or of all."""
        rows = self._gate.list_unfinished(inv.clients)
        return tuple(str(row["way_on"]) for row in rows if str(row["plan"]).startswith(plan_id))

    def refuse_unless_move(self, plan: Plan) -> Plan:
        """Return a plan of the gate as it is; refuse one that only says why nothing can be done."""
        if plan.kind is not self._gate.kind:
            raise SafetyError(str(plan.summary["reason"]))
        return plan

    def _show_row(self, row: Any) -> dict[str, Json]:
        """Return what a person sees of a plan's row."""
        shown = {"key": row.key, "to": row.to, "waits since": format_time(row.age_start)}
        facts = {name: row.facts[name] for name in self._gate.shown_facts if name in row.facts}
        return {**shown, **facts}

    def _open(
        self, settings: Settings, incident: Incident, progress: Progress, **parameters: Any
    ) -> Investigation[Any, Any]:
        """Open an investigation of an incident, in the section that moves objects."""
        opened: Investigation[Any, Any] = self._opener.open(
            incident.id,
            section=self._section,
            settings=settings,
            progress=progress,
            **{**self._parameters, **parameters},
        )
        return opened

    def _open_plan(
        self, settings: Settings, plan_id: str, progress: Progress, **options: Any
    ) -> tuple[Investigation[Any, Any], Plan]:
        """Open the incident in which a plan goes on, and load the plan.

        Parameters
        ----------
        options : for ``_open_on``: ``look``, and parameters of the section

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
    ) -> Investigation[Any, Any]:
        """Open the incident in which a plan goes on: the plan's own, unless closed or damaged.

        Parameters
        ----------
        look : whether the caller only looks. If so, the plan's own incident may be closed
        parameters : of the section
        """
        incident = self._find_incident(settings, plan_id)
        is_damaged = bool(incident.find_damage())
        if is_damaged or (incident.is_closed and not look):
            state = "damaged" if is_damaged else "closed"
            text = f"{plan_id} is a plan of a {state} incident, {incident.id}"
            incident, _ = self._opener.find_or_make(settings)
            incident.tell("plan_of_closed", text)
        return self._open(settings, incident, progress, **parameters)

    def _find_incident(self, settings: Settings, plan_id: str) -> Incident:
        """Return this machine's newest incident that has a plan.

        If none has it, the plan is fetched from the bucket into the incident to work on.

        Raises
        ------
        UsageError
            When the store does not have the plan, or does not answer.
        """
        home = settings.runbook_home.resolve()
        redactor = Redactor(settings.secrets)
        for folder in list_incidents(home):
            if (folder / "plans" / f"{plan_id}.jsonl").is_file():
                return Incident(folder, redactor=redactor)

        def find_incident() -> Incident:
            incident, _ = self._opener.find_or_make(settings)
            return incident

        with suppress(ClientError):
            clients = self._opener.connect(settings)
            fetched = self._gate.fetch_plan(clients, plan_id, find_incident)
            if fetched is not None:
                return Incident(fetched, redactor=redactor)
        raise UsageError(f"no incident under {settings.runbook_home} has a plan {plan_id!r}")

    def _sum_up(
        self,
        inv: Investigation[Any, Any],
        command: str,
        plan: Plan,
        entry: ActionEntry,
    ) -> MoveRunDocument:
        """Write the report (``look_again``); return how a run ended, and the incident's verdict.

        Parameters
        ----------
        command : the command's name: ``apply``, ``resume`` or ``undo``
        entry : the journal's entry of the run
        """
        result = entry.result
        document = _pick_fields(MoveRunDocument, result)
        for name in ("skipped", "conflicts", "failed"):
            document[name] = count_trouble(result, name)
        is_done = not any(result.get(name) for name in OPEN)
        document |= {
            "schema": f"runbook/{command}/1",
            "incident": inv.incident.id,
            "exit_code": ExitCode.of(is_done),
            "summary": entry.reason,
            "reasons": [*(result.get("skipped") or ()), *(result.get("failed") or ())],
            "way_on": tuple(result.get("ways_on", ())),
        }
        return MoveRunDocument.model_validate({**document, **self.look_again(inv, plan)})

    def _carry_out(
        self, inv: Investigation[Any, Any], change: Callable[[], ActionEntry]
    ) -> ActionEntry:
        """Carry a change out; if it is interrupted, write the report and raise the error again."""
        try:
            return change()
        except ActionInterruptedError:
            inv.progress("interrupted; writing the report")
            with suppress(KeyboardInterrupt):  # a second Ctrl-C skips the report
                write_outputs(inv.incident, self._sections)
            raise
        finally:
            if not inv.journal.readings:  # the incident is a new one
                close_if_quiet(inv.incident)

    def look_again(self, inv: Any, plan: Plan) -> dict[str, Json]:  # noqa: ARG002
        """Write the report, and return the fields of ``MoveChangeDocument`` about the incident.

        A runbook overrides this method with one that first looks whether the change helped.
        """
        return {"report": str(write_outputs(inv.incident, self._sections))}


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


def _pick_fields(kind: type[Document], result: Mapping[str, Json]) -> dict[str, Json]:
    """Return the facts of an action's result that a document has a field for."""
    return {name: result[name] for name in kind.model_fields if name in result}
