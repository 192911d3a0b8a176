"""What ``plan``, ``apply``, ``resume``, ``undo``, ``settle`` and ``verify`` do for a ``MoveGate``.

Command line and tests call the same methods. Fields of documents are added, never renamed.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field

from ..approvals import Plan
from ..errors import (
    ActionInterruptedError,
    ClientError,
    ExitCode,
    PlanNotApprovedError,
    RunInterruptedError,
    SafetyError,
    UsageError,
)
from ..investigation import Investigation
from ..model import ActionEntry, ActionPhase, Json, Progress, Verdict, format_time
from ..moves import TROUBLES, MoveGate, count_reopened
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
    rows : the first objects
    others : what makes sure that nobody else moves objects
    window : what the store cannot guard
    shards : the parts of a plan that was cut: ``plan`` (the id), ``objects``, ``bytes``, ``first``
        and ``last`` (keys)
    apply_shard : the command that carries out only the first shard
    """

    sha256: str
    objects: int
    bytes: int
    expires_at: str
    excluded: dict[str, int]
    path: str
    apply: str = ""
    reason: str = ""
    rows: tuple[dict[str, Json], ...] = ()
    others: str = ""
    window: str = ""
    shards: tuple[dict[str, Json], ...] = ()
    apply_shard: str = ""

    @property
    def answer(self) -> str:
        """How much would move, that nothing was changed, and what no plan will move."""
        size = f"{count_of(self.objects, 'object')}, {format_bytes(self.bytes)}"
        if self.apply:
            reason = f". {self.reason}" if self.reason else ""
            return f"Planned, nothing was changed: {size}{reason}"
        if self.reason:
            return f"There is nothing to do: {self.reason}"
        return "There is nothing to do"

    @property
    def left_out(self) -> tuple[str, ...]:
        """The fields that serve to approve the plan, if it has nothing to do."""
        return () if self.objects else ("plan", "sha256", "expires_at", "path")

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """The command that approves the plan, and the one that carries out only a shard."""
        shard_words = "Or carry out one shard alone, so that machines can share the work:"
        whole = offer(f"To carry it out before {self.expires_at}, paste:", self.apply)
        return whole + offer(shard_words, self.apply_shard)


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
        if self.verdict is None:
            return ""
        return f"{VERDICT_WORDS[self.verdict]}: {self.reason}"


class MoveRunDocument(MoveChangeDocument):
    """``apply``, ``resume`` and ``undo``: how many objects moved, and what became of the others.

    Attributes
    ----------
    summary : all of this in words
    already : how many of ``moved`` a look found at their destination, after an answer was lost
    skipped, conflicts, failed : a ``key`` and a ``reason`` for each object
    unproven : keys of the objects that a person must settle
    waiting : how many objects this plan still has to move
    left : how many objects this plan will not move any more
    lost_in_window : keys of the objects of which a newer version was lost
    in_reach : keys of the objects that other movers, if they went on, could deliver twice
    is_held : whether other movers are still held for the plan
    stopped : why the run ended early
    reopened : how many objects are in doubt again because a person's word was taken back
    apply : the command of a further approval, where one is needed
    """

    summary: str = ""
    moved: int = 0
    already: int = 0
    skipped: tuple[Json, ...] = ()
    conflicts: tuple[Json, ...] = ()
    failed: tuple[Json, ...] = ()
    unproven: tuple[str, ...] = ()
    waiting: int = 0
    left: int = 0
    lost_in_window: tuple[str, ...] = ()
    in_reach: tuple[str, ...] = ()
    is_held: bool = False
    stopped: str = ""
    reopened: int = 0
    apply: str = ""

    @property
    def mark(self) -> str:
        """Whether the work is done. A run that took back a person's word did not fail."""
        return "taken back" if self.reopened else super().mark

    @property
    def answer(self) -> str:
        """How many moved, and whether that is all."""
        if self.reopened:
            return f"The word is taken back: {self.summary}"
        word = "Done" if self.exit_code is ExitCode.OK else "NOT ALL DONE"
        return f"{word}: {self.summary}"

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the answer says; if a word was taken back, also the counts of moved objects."""
        return ("reopened", "moved", "already") if self.reopened else ("reopened",)

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """The command of a further approval, where one is needed."""
        return offer("To approve it, paste:", self.apply)

    @property
    def commands(self) -> tuple[str, ...]:
        """What finishes the plan; if it is finished, what proves it, and the next command."""
        if self.way_on:
            return self.way_on
        proof = name_runbook(f"runbook verify {self.plan}")
        return (proof, self.next) if self.next else (proof,)


class MoveSettleDocument(MoveChangeDocument):
    """``settle``: how many rows a person's word settled, and how many are left.

    If no word was given, ``rows`` are the rows that wait for one: ``key``, ``evidence``,
    ``rewritten``, ``why``, ``taken_does``, ``not_taken_does``, and what the runbook adds.
    """

    taken: int = 0
    not_taken: int = 0
    left: int
    rows: tuple[dict[str, Json], ...] = ()

    @property
    def answer(self) -> str:
        """How many objects are settled, or wait for a word."""
        settled = self.taken + self.not_taken
        if settled:
            return f"{count_of(settled, 'object')} settled, {self.left} left"
        if self.left:
            return f"{count_of(self.left, 'object')} of {self.plan} wait for your word"
        return f"Nothing is open in {self.plan}"

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands that give your word (taken or not taken), or that come after it.

        Without such a command: the next command.
        """
        if self.way_on or not self.next:
            return self.way_on
        return (self.next,)


class MoveProofDocument(MoveDocument):
    """``verify``: the proof, as a number of objects for each status; ``summary`` has the words.

    ``gone_after_done`` is the old name of ``gone_after_landed``, for one release more.
    """

    summary: str = ""
    in_place: int
    gone_after_landed: int
    gone_after_done: int
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
    detail: dict[str, Json] = Field(default_factory=dict)

    @property
    def answer(self) -> str:
        """The summary as a sentence: whether the whole plan is proven."""
        return self.summary[:1].upper() + self.summary[1:]


def offer(words: str, command: str) -> tuple[tuple[str, str], ...]:
    """Return a command to paste, under its words; nothing where there is no command."""
    return ((words, command),) if command else ()


class MoveCommands:
    """The commands of a runbook that moves objects.

    ``MoveParameters`` explains the options that most methods share, such as ``same_store``.

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
        gate: MoveGate[Any],
        parameters: Mapping[str, Json] = {},
    ) -> None:
        self._sections = sections
        self._parameters = parameters
        self._section = sections[section]
        self._opener = sections.investigation or Investigation
        self._gate = gate

    def plan(
        self,
        settings: Settings,
        *,
        incident_id: str = "",
        memory_removed: bool = False,
        shards: int = 0,
        progress: Progress,
    ) -> MovePlanDocument:
        """Make a plan; moves nothing. Exit 3 when objects wait and none of them may move.

        A look that this call made is closed if the plan has nothing to do.
        """
        incident, is_new = self._opener.find_or_make(settings, incident_id, keeps=True)
        inv = self._open(settings, incident, progress, memory_removed=memory_removed, shards=shards)
        plan = inv.plan(self._gate.step)
        if is_new and plan.is_empty and not incident.is_open:
            incident.close(Verdict.UNKNOWN)
        is_blocked = plan.is_empty and bool(plan.summary["excluded"])
        document = self.describe_plan(inv, plan, f"apply {plan.id}")
        return document.model_copy(update={"exit_code": ExitCode.of(not is_blocked)})

    def apply(
        self,
        settings: Settings,
        plan_id: str,
        *,
        approve: str,
        strict: bool = False,
        consumer_stands_still: bool = False,
        progress: Progress,
    ) -> MoveRunDocument | MovePlanDocument:
        """Carry out a plan; if ``approve`` is empty, stop at the plan, exit 5.

        Raises
        ------
        SafetyError
            When ``approve`` is not the plan's hash, or a safety rule refuses.
        """
        inv, plan = self._open_plan(
            settings,
            plan_id,
            progress,
            strict=strict,
            consumer_stands_still=consumer_stands_still,
        )
        if not approve:
            return self.describe_plan(inv, plan, f"apply {plan.id}")
        entry = self._carry_out(inv, lambda: inv.apply(plan, approve=approve))
        return self._sum_up(inv, "apply", plan, entry)

    def resume(
        self,
        settings: Settings,
        plan_id: str,
        *,
        approve: str = "",
        consumer_stands_still: bool = False,
        stop_here: bool = False,
        worker_goes_on: bool = False,
        same_store: bool = False,
        progress: Progress,
    ) -> MoveRunDocument:
        """Go on with a plan that was cut off, here or on another machine; its approval counts.

        If a further approval is needed, the document names its command, exit 5.

        Parameters
        ----------
        worker_goes_on : given to the section only if it is true, because most sections have no such
            parameter
        """
        own_parameters = {"worker_goes_on": True} if worker_goes_on else {}
        inv, plan = self._open_plan(
            settings,
            plan_id,
            progress,
            approve=approve,
            consumer_stands_still=consumer_stands_still,
            stop_here=stop_here,
            same_store=same_store,
            **own_parameters,
        )
        try:
            entry = self._carry_out(inv, lambda: inv.resume(plan))
            document = self._sum_up(inv, "resume", plan, entry)
            return self._leave_out_planning(inv, plan, document)
        except self._gate.mover.NEEDS_APPROVAL as error:
            reason, command = self._gate.read_needed_approval(error)
            return MoveRunDocument(
                schema_name="runbook/resume/1",
                incident=inv.incident.id,
                exit_code=ExitCode.REFUSED,
                plan=plan.id,
                summary=reason,
                stopped=reason,
                apply=command,
            )

    def undo(
        self,
        settings: Settings,
        plan_id: str,
        *,
        approve: str,
        consumer_stands_still: bool = False,
        same_store: bool = False,
        progress: Progress,
    ) -> MoveRunDocument | MovePlanDocument:
        """Take back a move, or a settling; if ``approve`` is empty, stop at the plan, exit 5."""
        inv = self._open_on(
            settings,
            plan_id,
            progress,
            undo=plan_id,
            consumer_stands_still=consumer_stands_still,
            same_store=same_store,
        )
        plan = self._plan_about(inv, self._gate.undo_step, plan_id, approve)
        if approve:
            entry = self._carry_out(inv, lambda: inv.apply(plan, approve=approve))
            return self._sum_up(inv, "undo", plan, entry)
        command = f"undo {plan_id}"
        # The plan that takes a settling back has another action, and moves nothing.
        if plan.content.action == "undo":
            command += " --consumer-stands-still"
        if same_store:
            command += " --same-store"
        return self.describe_plan(inv, plan, command)

    def settle(
        self,
        settings: Settings,
        plan_id: str,
        *,
        taken: bool | None,
        keys: Sequence[str],
        approve: str,
        same_store: bool = False,
        progress: Progress,
    ) -> MoveSettleDocument | MovePlanDocument:
        """Write down a person's word on rows that nothing proves; without a word, show the rows.

        Parameters
        ----------
        taken : the person's word. True: taken; False: not taken; None: no word yet
        keys : only these rows; empty: all that are open

        Returns
        -------
        Without a word: the rows, exit 3, or exit 0 if there are none; for a manifest, the commands
        that show the rows of its shards. With a word that is not approved: the plan, exit 5. With
        an approved word: how many rows are settled, and how many are left.

        Raises
        ------
        UsageError
            When the approved plan says the other word.
        """
        inv, plan = self._open_plan(settings, plan_id, progress, look=True, same_store=same_store)
        if plan.content.shards:
            return self._show_open_shards(inv, plan, taken=taken)
        # If a reopening, which takes a word back, holds the open rows now, the word is about it.
        holder = self._gate.find_holder(inv, plan)
        if holder != plan_id:
            plan_id = holder
            inv, plan = self._open_plan(
                settings, plan_id, progress, look=True, same_store=same_store
            )
        if taken is None:
            return self._show_open_rows(inv, plan, keys, same_store=same_store)
        word = "taken" if taken else "not_taken"
        inv = self._open_on(
            settings,
            plan_id,
            progress,
            settle=plan_id,
            settle_word=word,
            settle_keys=json.dumps(list(keys)) if keys else "",
            same_store=same_store,
        )
        plan = self._plan_about(inv, self._gate.settle_step, plan_id, approve)
        planned_word = plan.summary["word"]
        if planned_word != word:
            raise UsageError(f"{plan.id} says {planned_word}, and you say {word}")
        if plan.is_empty:
            return MoveSettleDocument(
                schema_name="runbook/settle/1", incident=inv.incident.id, plan=plan_id, left=0
            )
        if not approve:
            command = f"settle {plan_id} --{word.replace('_', '-')}"
            if same_store:
                command += " --same-store"
            return self.describe_plan(inv, plan, command)
        result = self._carry_out(inv, lambda: inv.apply(plan, approve=approve)).result
        settled = result.get("settled", 0)
        left = self._count_open_rows(inv, plan_id)
        ways_on = self._gate.find_ways_on(plan, result)
        # While rows are open, `settle` comes before a new plan.
        if left and ways_on in ([], [_plan_again()]):
            ways_on.insert(0, name_runbook(f"runbook settle {plan_id}"))
        document = {
            "schema": "runbook/settle/1",
            "incident": inv.incident.id,
            "exit_code": _choose_exit_code(result),
            "plan": plan_id,
            "taken": settled if taken else 0,
            "not_taken": 0 if taken else settled,
            "left": left,
            "way_on": tuple(ways_on),
            **self.look_again(inv, plan),
        }
        return MoveSettleDocument.model_validate(document)

    def verify(
        self, settings: Settings, plan_id: str, *, same_store: bool = False, progress: Progress
    ) -> MoveProofDocument:
        """Prove by an independent look where each planned object is. Moves nothing."""
        progress("list the bucket")
        inv, plan = self._open_plan(settings, plan_id, progress, look=True, same_store=same_store)
        if not plan.trace.exists():
            raise SafetyError(f"{plan.id} was never applied: there is nothing to prove")
        entry = inv.verify(plan)
        ways_on = self.list_ways_on(inv, plan.id)
        # This plan is over. Objects that still wait need a new plan, unless an undo put them back.
        if not ways_on and entry.result["waiting"] and not entry.result["taken_back_by"]:
            # The word of a settling that was not carried out can be said anew.
            about = plan.summary.get("about")
            again = name_runbook(f"runbook settle {about}") if about else _plan_again()
            ways_on = (again,)
        document = {
            "schema": "runbook/verify/1",
            "incident": inv.incident.id,
            "exit_code": ExitCode.of(entry.phase is ActionPhase.VERIFIED),
            "summary": entry.reason,
            "gone_after_done": entry.result["gone_after_landed"],
            "way_on": ways_on,
        }
        detail = {}
        for name, value in entry.result.items():
            if name in MoveProofDocument.model_fields:
                document[name] = value
            else:
                detail[name] = value
        return MoveProofDocument.model_validate({**document, "detail": detail})

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

    def describe_plan(
        self, inv: Investigation[Any, Any], plan: Plan, command: str
    ) -> MovePlanDocument:
        """Return what a plan would do, and how to approve it.

        Asks the store which plans are unfinished, unless the plan is about another plan.

        Parameters
        ----------
        command : carries the plan out, without ``runbook`` and the approval
        """
        summary = plan.summary
        approve = name_runbook(f"runbook {command} --approve {plan.sha256}")
        is_about_another = plan.content.action != "move"
        return MovePlanDocument(
            schema_name="runbook/plan/1",
            incident=inv.incident.id,
            exit_code=ExitCode.REFUSED,  # nothing is approved yet
            plan=plan.id,
            sha256=plan.sha256,
            objects=summary["objects"],
            bytes=summary["bytes"],
            expires_at=summary["expires_at"],
            excluded=summary["excluded"],
            window=summary["window"],
            others=summary["who else moves"],
            path=str(plan.path),
            rows=tuple(self._show_row(row) for row in plan.rows[:_SHOWN]),
            apply="" if plan.is_empty else approve,
            shards=tuple(_describe_shard(shard) for shard in plan.content.shards),
            apply_shard="" if is_about_another else _find_shard_command(plan),
            reason=str(summary.get("reason") or ""),
            way_on=() if is_about_another else self.list_ways_on(inv),
        )

    def list_ways_on(self, inv: Investigation[Any, Any], plan_id: str = "") -> tuple[str, ...]:
        """Return the commands that finish what was begun, as store and ledgers say.

        Parameters
        ----------
        plan_id : only for this plan, its shards, and plans about it; empty: for all plans
        """
        rows = self._gate.list_unfinished(inv.clients, inv.settings.runbook_home)
        return tuple(str(row["way_on"]) for row in rows if _is_about(str(row["plan"]), plan_id))

    def refuse_unless_move(self, plan: Plan) -> Plan:
        """Return a plan of the gate as it is; refuse one that only says why nothing can be done."""
        if plan.kind is not self._gate.kind:
            raise SafetyError(str(plan.summary["reason"]))
        return plan

    def _show_row(self, row: Any) -> dict[str, Json]:
        """Return what a person sees of a plan's row."""
        shown: dict[str, Json] = {
            "key": row.key,
            "to": row.to,
            "waits since": format_time(row.age_start),
        }
        for name in self._gate.shown_facts:
            if name in row.facts:
                shown[name] = row.facts[name]
        return shown

    def _count_open_rows(self, inv: Investigation[Any, Any], plan_id: str) -> int:
        """Return how many rows of a plan still wait for a word."""
        for unfinished in self._gate.list_unfinished(inv.clients, inv.settings.runbook_home):
            if unfinished["plan"] == plan_id:
                return int(unfinished["rows"])
        return 0

    def _show_open_rows(
        self, inv: Investigation[Any, Any], plan: Plan, keys: Sequence[str], *, same_store: bool
    ) -> MoveSettleDocument:
        """Return the rows that wait for a person's word, and the commands that give the word."""
        rows = self._gate.list_to_settle(inv, plan, keys=keys)
        options = "".join(f" --key {shlex.quote(key)}" for key in keys)
        if same_store:
            options += " --same-store"
        words = ("--taken", "--not-taken") if rows else ()
        ways_on = [name_runbook(f"runbook settle {plan.id} {word}{options}") for word in words]
        return MoveSettleDocument(
            schema_name="runbook/settle/1",
            incident=inv.incident.id,
            exit_code=ExitCode.of(not rows),
            plan=plan.id,
            left=len(rows),
            rows=tuple(rows),
            way_on=tuple(ways_on),
        )

    def _show_open_shards(
        self, inv: Investigation[Any, Any], plan: Plan, *, taken: bool | None
    ) -> MoveSettleDocument:
        """Return the commands that show which rows of each shard wait for a person's word.

        Raises
        ------
        UsageError
            When a word is given: it must be given for one shard.
        """
        waiting = []
        for unfinished in self._gate.list_unfinished(inv.clients, inv.settings.runbook_home):
            waits_for_word = name_runbook("runbook settle ") in str(unfinished["way_on"])
            if waits_for_word and _is_about(str(unfinished["plan"]), plan.id):
                waiting.append(unfinished)
        ways_on = tuple(str(unfinished["way_on"]) for unfinished in waiting)
        if taken is not None:
            named = ", ".join(ways_on) or f"nothing is open in {plan.id}"
            raise UsageError(f"give your word for one shard: {named}")
        return MoveSettleDocument(
            schema_name="runbook/settle/1",
            incident=inv.incident.id,
            exit_code=ExitCode.of(not waiting),
            plan=plan.id,
            left=sum(int(unfinished["rows"]) for unfinished in waiting),
            way_on=ways_on,
        )

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
        folder = _find_folder(settings, plan_id) or self._fetch_plan(settings, plan_id)
        if folder is None:
            home = settings.runbook_home
            hint = _name_similar_plan(home, plan_id)
            raise UsageError(f"no incident under {home} has a plan {plan_id!r}{hint}")
        incident = Incident(folder, redactor=Redactor(settings.secrets))
        is_damaged = incident.is_damaged
        # A look that left its trouble to an incident: its plans go on in that incident.
        is_left = not is_damaged and bool(incident.state.same_as)
        is_over = is_left or (not is_damaged and incident.is_closed)
        if is_damaged or (is_over and not look):
            # A look that is made here is kept if the plan's incident is damaged: `verify` opens no
            # incident, and the next command goes on in the same look.
            incident, _ = self._opener.find_or_make(settings, keeps=is_damaged)
            if not (is_damaged or is_left):
                place = f"../{folder.name}/report.html"
                with incident.keep_open():
                    text = f"{plan_id} is a plan of a closed incident: {place}"
                    incident.tell("plan_of_closed", text)
        return self._open(settings, incident, progress, **parameters)

    def _fetch_plan(self, settings: Settings, plan_id: str) -> Path | None:
        """Fetch a plan from the bucket's record, because this machine does not have it.

        Returns
        -------
        The folder of the incident that the plan was written into; None when the store does not
        have the plan, or does not answer.
        """

        def find_incident() -> Incident:
            incident, _ = self._opener.find_or_make(settings, keeps=True)
            return incident

        try:
            return self._gate.fetch_plan(self._opener.connect(settings), plan_id, find_incident)
        except ClientError:
            return None

    def _plan_about(
        self, inv: Investigation[Any, Any], step: str, about: str, approve: str
    ) -> Plan:
        """Return the plan about an earlier plan that ``approve`` names; without one, make a plan.

        Parameters
        ----------
        step : id of the action that makes the plan
        about : id of the earlier plan
        approve : SHA-256 of the approved plan's file

        Raises
        ------
        PlanNotApprovedError
            When there are plans about the earlier plan, and ``approve`` is the hash of none of
            them. Then no plan is made: a new one could take the place of the reviewed one.
        """
        hashes = {}
        for path in sorted(inv.incident.find_plan(about).parent.glob(f"{about}-*.jsonl")):
            hashes[hashlib.sha256(path.read_bytes()).hexdigest()] = path.stem
        if approve and hashes and approve not in hashes:
            choices = "\n".join(f"{plan_id}\n{sha256}" for sha256, plan_id in hashes.items())
            raise PlanNotApprovedError(
                f"{approve[:12]}… matches no plan about {about}. Approve one of these by its whole "
                f"hash, or plan again:\n\n{choices}"
            )
        return self.refuse_unless_move(inv.plan(step, plan=hashes.get(approve, "")))

    def _sum_up(
        self, inv: Investigation[Any, Any], command: str, plan: Plan, entry: ActionEntry
    ) -> MoveRunDocument:
        """Write the report (``look_again``); return how a run ended, and the incident's verdict.

        Parameters
        ----------
        command : the command's name: ``apply``, ``resume`` or ``undo``
        entry : the journal's entry of the run

        Raises
        ------
        RunInterruptedError
            After an interrupt: the plan was carried out all the same.
        """
        result = entry.result
        document = {name: result[name] for name in MoveRunDocument.model_fields if name in result}
        document["schema"] = f"runbook/{command}/1"
        document["incident"] = inv.incident.id
        document["exit_code"] = _choose_exit_code(result)
        document["summary"] = entry.reason
        document["reopened"] = count_reopened(plan.action, result)
        way_on = tuple(self._gate.find_ways_on(plan, result))
        document["way_on"] = way_on
        try:
            document.update(self.look_again(inv, plan))
        except KeyboardInterrupt:
            following = way_on[0] if way_on else f"runbook verify {plan.id}"
            text = f"Interrupted after this run of {plan.id} had ended: {entry.reason}."
            raise RunInterruptedError(f"{text} Go on with: {following}") from None
        return MoveRunDocument.model_validate(document)

    def _leave_out_planning(
        self, inv: Investigation[Any, Any], plan: Plan, document: MoveRunDocument
    ) -> MoveRunDocument:
        """Drop the advice to plan again if no object of this plan waits any more.

        Changes nothing but the plan's proof in the incident folder, and then the report.
        """
        again = _plan_again()
        has_more_to_do = document.way_on != (again,) or document.skipped
        if has_more_to_do or plan.content.action != "move":
            return document
        proof = plan.kind.verify(inv, plan).result
        write_outputs(inv.incident, self._sections)  # the manifest has the hash of the proof
        if proof["waiting"]:
            return document
        summary = document.summary.removesuffix(f"; go on with: {again}")
        summary += ". None of these waits any more: a later plan took them, or somebody else did"
        return document.model_copy(update={"summary": summary, "way_on": ()})

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

    def look_again(self, inv: Any, plan: Plan) -> dict[str, Json]:  # noqa: ARG002
        """Write the report, and return the fields of ``MoveChangeDocument`` about the incident.

        A runbook overrides this method with one that first looks whether the change helped.
        """
        return {"report": str(write_outputs(inv.incident, self._sections))}


def _is_about(plan_id: str, about: str) -> bool:
    """Tell whether a plan is the plan ``about``, one of its shards, or a plan about it.

    Always True when ``about`` is empty.
    """
    beginnings = (f"{about}-", f"{about}#")
    return not about or plan_id == about or plan_id.startswith(beginnings)


def _describe_shard(shard: Any) -> dict[str, Json]:
    """Return a shard as a row of the plan's document."""
    return {
        "plan": shard.plan,
        "objects": shard.objects,
        "bytes": shard.bytes,
        "first": shard.first,
        "last": shard.last,
    }


def _find_shard_command(plan: Plan) -> str:
    """Return the command that carries out only a plan's first shard; empty without shards."""
    shards = plan.content.shards
    if not shards:
        return ""
    return name_runbook(f"runbook apply {shards[0].plan} --approve {plan.sha256}")


def _plan_again() -> str:
    """Return the command for objects that wait and that no unfinished plan will move."""
    return name_runbook("runbook plan")


def _choose_exit_code(result: dict[str, Json]) -> ExitCode:
    """Return OK when a run left nothing open, else NOT_OK."""
    is_done = not any(result.get(name) for name in (*TROUBLES, "is_held", "stopped"))
    return ExitCode.of(is_done)


def _name_similar_plan(home: Path, plan_id: str) -> str:
    """Ask whether this machine's plan with the most similar id was meant; empty without one."""
    known = [path.stem for path in home.glob("inc-*/plans/*.jsonl")]
    similar = get_close_matches(plan_id, known, n=1)
    if not similar:
        return ""
    return f". Did you mean {similar[0]}?"


def _find_folder(settings: Settings, plan_id: str) -> Path | None:
    """Return the folder of this machine's newest incident that has a plan; None if none has it."""
    for folder in list_incidents(settings.runbook_home.resolve()):
        if (folder / "plans" / f"{plan_id}.jsonl").is_file():
            return folder
    return None
