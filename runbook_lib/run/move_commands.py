"""The commands ``plan``, ``apply``, ``resume``, ``undo``, ``settle`` and ``verify``."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from typer import Argument, Option, Typer
from typer.core import TyperCommand

from ..approvals import SHORT_HASH, Plan, load_plan
from ..errors import (
    ActionInterruptedError,
    ClientError,
    ExitCode,
    RecordError,
    SafetyError,
    UsageError,
)
from ..investigation import close_if_quiet
from ..language import gettext
from ..model import ActionEntry, ActionPhase, Json, Progress, count_of, format_time, keep_quiet
from ..moving import OPEN, OTHERS, MoveError, MoveGate, NotNowError, save_fetched
from ..record.incident import Incident, list_incidents
from ..redact import Redactor
from ..report import write_outputs
from ..section import Sections
from ..settings import Settings
from ..show.text import VERDICT_WORDS, capitalise, format_bytes
from .console import IncidentId, command, list_options
from .documents import Document

_STILL = "--consumer-stands-still"
PlanId = Annotated[str, Argument(help="the plan's id, as `runbook plan` printed it")]
_APPROVE = "the plan's SHA-256, or its first 12 characters: your approval"
Approval = Annotated[str, Option("--approve", help=_APPROVE)]

_SHOWN = 10
#: Facts that the document lacks, or has under another name.
_HIDDEN_FACTS = {OTHERS, "keys", "ways_on"}


class _MoveCommand(TyperCommand):
    """Accepts ``--consumer-stands-still`` without a time, and an old option name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = [f"{_STILL}=now" if arg == _STILL else arg for arg in args]
        # `--shards` is the old name of `--parts`, for one release.
        return super().parse_args(ctx, [arg.replace("--shards", "--parts") for arg in args])


@dataclass
class MoveCommands:
    """The commands of a runbook that moves objects. A runbook subclasses it.

    Options are parameters of the section that moves; ``fixed`` have a fixed value, ``plan_options``
    are those of ``plan``, by option.
    """

    sections: ClassVar[Sections]
    section: ClassVar[str]
    gate: ClassVar[MoveGate]
    fixed: ClassVar[Mapping[str, Json]] = {}
    plan_options: ClassVar[Mapping[str, str]] = {}

    settings: Settings
    progress: Progress = keep_quiet

    @classmethod
    def make_app(cls) -> Typer:
        app = Typer()
        choose = partial(list_options, cls.sections[cls.section].Parameters)
        still = ("consumer_stands_still",)
        for method, options in (
            (cls.plan, choose("memory_removed", "parts", **cls.plan_options)),
            (cls.apply, choose("strict", "part", *still)),
            (cls.resume, choose("part", "stop_here", "resume_worker", *still)),
            (cls.undo, choose(*still)),
            (cls.verify, []),
        ):
            command(app, *options, make_self=cls, cls=_MoveCommand)(method)
        raw = {"ignore_unknown_options": True}
        command(app, make_self=cls, context_settings=raw)(cls.settle)
        return app

    def plan(self, *, incident_id: IncidentId = "", **options: Any) -> Document:
        """List exactly what would move, and what not. Moves nothing.

        Exit 3 when objects wait and none of them may move.
        """
        inv = self._open(incident_id, **options)
        plan = self._make_move_plan(inv, self.gate.step)
        _close_if_made_here(inv)
        is_blocked = plan.is_empty and any(map(plan.summary.get, ("reason", "excluded")))
        return self._show_plan(
            inv,
            plan,
            f"apply {plan.id}",
            exit_code=ExitCode.of(not is_blocked),
            way_on=self._list_resume_commands(inv),
        )

    def apply(self, plan_id: PlanId, *, approve: Approval = "", **options: Any) -> Document:
        """Carry out an approved plan, or resume it. Without --approve it stops at the plan."""
        inv, plan = self._open_plan(plan_id, **options)
        return self._change("apply", inv, plan, approve, plan_id)

    def resume(self, plan_id: PlanId, *, approve: Approval = "", **options: Any) -> Document:
        """Resume an unfinished plan, begun here or on another machine."""
        inv, named = self._open_plan(plan_id, approve=approve, **options)
        plan = self.gate.find_begun(inv, named)
        done = self._carry_out("resume", inv, plan, lambda: inv.resume(plan))
        return done.model_copy(update={"plan": plan_id})

    def undo(self, plan_id: PlanId, *, approve: Approval = "", **options: Any) -> Document:
        """Move a plan's objects back in its undo period. Without --approve it stops at the plan."""
        inv, _ = self._open_plan(plan_id, undo=plan_id, **options)
        plan = self._make_move_plan(inv, self.gate.undo_step)
        return self._change("undo", inv, plan, approve, f"{plan_id} --consumer-stands-still")

    def settle(
        self,
        plan_id: PlanId,
        answers: Annotated[
            list[str] | None,
            Argument(
                metavar="[--taken [KEY]...] [--not-taken [KEY]...]",
                help="what became of the objects; without KEY: all that the other doesn't name",
            ),
        ] = None,
        *,
        from_file: Annotated[
            Path | None,
            Option(exists=True, help="answers, one a line: `taken KEY` or `not-taken KEY`"),
        ] = None,
        approve: Approval = "",
    ) -> Document:
        """Show objects that may or may not have been taken; carry out your answers.

        Taken: a copy that is left stays parked. Not taken: a new plan may move the object. After a
        wrong answer, it is delivered twice, or never.

        Returns
        -------
        Without answers, the objects in doubt, with exit 3, or 0 if there are none. With answers
        that are not approved, the plan, with exit 5.
        """
        typed = list(answers or ())
        for line in from_file.read_text("utf-8").splitlines() if from_file else ():
            answer, _, key = line.partition(" ")
            typed += [f"--{answer}", key]
        inv, release = self._open_plan(
            plan_id, only_reads=not typed, settle=plan_id, **_parse_answers(typed)
        )
        if typed:
            plan = self._make_move_plan(inv, self.gate.settle_step)
            if not plan.is_empty:
                return self._change("settle", inv, plan, approve, shlex.join([plan_id, *typed]))
        rows = self.gate.list_to_settle(inv, release)
        commands = [f"runbook settle {plan_id} {word}" for word in ("--not-taken", "--taken")]
        return self._make_document(
            "settle",
            inv,
            release,
            exit_code=ExitCode.of(not rows),
            summary=f"{count_of(len(rows), inv.policy.noun)} of {plan_id} wait for your answer",
            taken=0,
            not_taken=0,
            left=len(rows),
            rows=rows,
            way_on=commands if rows else (),
        )

    def verify(self, plan_id: PlanId) -> Document:
        """Prove by a fresh listing where each planned object is. Moves nothing."""
        self.progress("list the bucket")
        inv, plan = self._open_plan(plan_id, only_reads=True)
        if not plan.trace.exists():  # another machine may have carried it out
            save_fetched(inv.incident, self.gate.fetch_plan(inv.clients, plan_id))
        entry = inv.verify(plan)
        return self._make_document(
            "verify",
            inv,
            plan,
            entry.result,
            exit_code=ExitCode.of(entry.phase is ActionPhase.VERIFIED),
            summary=entry.reason,
            way_on=self._list_resume_commands(inv, plan.id),
        )

    def _make_document(
        self, command: str, inv: Any, plan: Plan, facts: Mapping[str, Json] = {}, **fields: Any
    ) -> Document:
        """Return a command's document: ``facts``, lists as counts, overridden by ``fields``."""
        values: dict[str, Json] = {"reason": "", "report": "", "next": "", "way_on": ()}
        for name, fact in facts.items():
            is_counted = isinstance(fact, list) and name != "unproven"
            if name not in _HIDDEN_FACTS:
                values[name] = len(fact) if is_counted else fact
        values |= {
            "schema_name": f"runbook/{command}/1",
            "incident": inv.incident.id,
            "plan": plan.id,
        }
        values |= fields
        lines = [capitalise(values["summary"])]
        if values.get("verdict"):
            lines.append(f"{gettext(VERDICT_WORDS[values['verdict']])}: {values['reason']}")
        values["answer"] = "\n".join(lines)
        return Document.model_validate(values)

    def _show_plan(self, inv: Any, plan: Plan, command: str, **fields: Any) -> Document:
        """Return what a plan would do, and in ``apply`` the command that carries it out.

        Exit 5, because it waits for an approval, unless ``fields`` say otherwise.
        """
        facts = plan.summary
        words = "There is nothing to do"
        apply = ""
        if not plan.is_empty:
            apply = f"runbook {command} --approve {plan.sha256[:SHORT_HASH]}"
            words = f"Planned, nothing was changed: {count_of(facts['objects'], inv.policy.noun)}"
            if "bytes" in facts:
                words += f", {format_bytes(facts['bytes'])}"
        rows = [
            {"key": row.key, "to": row.to, "waits since": format_time(row.age_start), **row.facts}
            for row in plan.rows[:_SHOWN]
        ]
        values = {
            "exit_code": ExitCode.REFUSED,
            "summary": ": ".join(filter(None, (words, facts.get("reason")))),
            "sha256": plan.sha256,
            "others": facts[OTHERS],
            "path": "" if plan.original else str(plan.path),
            "parts": plan.content.header.parts,
            "apply": apply,
            "rows": rows,
        }
        return self._make_document("plan", inv, plan, facts, **values | fields)

    def _list_resume_commands(self, inv: Any, plan_id: str = "") -> list[str]:
        """Return what resumes each unfinished move, or only the one of a plan."""
        rows = self.gate.list_unfinished(inv.clients)
        return [str(row["way_on"]) for row in rows if str(row["plan"]).startswith(plan_id)]

    def _make_move_plan(self, inv: Any, step: str) -> Plan:
        """Make a step's plan of a move.

        Raises SafetyError if the step plans something else instead; its summary says why.
        """
        plan: Plan = inv.plan(step)
        if plan.kind is not self.gate.kind:
            raise SafetyError(str(plan.summary["reason"]))
        return plan

    def _open(self, incident_id: str, **parameters: Any) -> Any:
        return self.sections.investigation.open(
            incident_id,
            section=self.sections[self.section],
            settings=self.settings,
            progress=self.progress,
            **self.fixed,
            **parameters,
        )

    def _open_plan(
        self, plan_id: str, *, only_reads: bool = False, **parameters: Any
    ) -> tuple[Any, Plan]:
        """Open the incident in which to work on a plan, and load the plan.

        That is the plan's own incident, or the open one if it is damaged or closed. If the command
        ``only_reads``, a closed one will do. A plan that this machine lacks comes from the bucket.
        """
        home = self.settings.runbook_home.resolve()
        incident_id = ""
        fetched: Any = None
        owners = [f for f in list_incidents(home) if (f / "plans" / f"{plan_id}.jsonl").is_file()]
        if owners:
            own = Incident(owners[0], redactor=Redactor())
            with suppress(RecordError):
                own.journal.view()
                if only_reads or not own.is_closed:
                    incident_id = own.id
        else:
            fetched = self._fetch(plan_id)  # fails before an incident is made
        inv = self._open(incident_id, **parameters)
        if fetched is not None:
            save_fetched(inv.incident, fetched)
        return inv, load_plan(inv.incident.find_plan(plan_id), (self.gate.kind,))

    def _fetch(self, plan_id: str) -> Any:
        """Fetch a plan that another machine may have begun, or raise UsageError."""
        with suppress(ClientError, NotNowError):
            clients = self.sections.investigation.connect(self.settings)
            return self.gate.fetch_plan(clients, plan_id)
        home = self.settings.runbook_home
        raise UsageError(f"no incident under {home} has a plan {plan_id!r}")

    def _change(self, command: str, inv: Any, plan: Plan, approve: str, typed: str) -> Document:
        """Carry a plan out if there is an approval, else show it, and the command to approve it.

        ``typed`` are the words after the command.
        """
        if not approve:
            return self._show_plan(inv, plan, f"{command} {typed}")
        return self._carry_out(command, inv, plan, partial(inv.apply, plan, approve=approve))

    def _carry_out(
        self, command: str, inv: Any, plan: Plan, change: Callable[[], ActionEntry]
    ) -> Document:
        """Carry out a ``change`` by a plan; return how it ended, and the incident's new verdict.

        If interrupted, write the report first.
        """
        try:
            entry = change()
        except ActionInterruptedError:
            inv.progress("interrupted; writing the report")
            with suppress(KeyboardInterrupt):  # a second Ctrl-C skips the report
                write_outputs(inv.incident, self.sections)
            raise
        finally:
            _close_if_made_here(inv)
        facts = entry.result
        must_be_empty: Sequence[str] = OPEN
        left = facts.get("left", 0)
        if command == "settle":
            must_be_empty = ("unproven", "stopped")
            left = entry.count("unproven")
        is_done = not any(facts.get(name) for name in must_be_empty)
        word = "Done" if is_done else "NOT ALL DONE"
        return self._make_document(
            command,
            inv,
            plan,
            facts,
            exit_code=ExitCode.of(is_done),
            summary=f"{word}: {entry.reason}",
            left=left,
            reasons=[*facts.get("skipped", ()), *facts.get("failed", ())],
            way_on=facts.get("ways_on", ()),
            **self._check_result(inv, plan),
        )

    def _check_result(self, inv: Any, plan: Plan) -> dict[str, Json]:
        """Prove a change, read the section's steps again, conclude, and write the report."""
        inv.progress("check the result")
        # If this fails, the verdict says that the change is not proven.
        with suppress(MoveError, ClientError):
            inv.verify(plan)
        for step in inv.section.STEPS:
            inv.read_step(step)
        inv.conclude()
        judgement = inv.policy.judge(inv.journal, now=inv.now())
        return {
            "verdict": judgement.verdict,
            "reason": judgement.reason,
            "next": next(iter(inv.journal.finish_commands), judgement.next.command),
            "report": str(write_outputs(inv.incident, self.sections)),
        }


def _close_if_made_here(inv: Any) -> None:
    """Close an incident made for this command if nothing is left to do in it."""
    if not inv.journal.readings:  # older incidents have some
        close_if_quiet(inv.incident)


def _parse_answers(words: Sequence[str]) -> dict[str, list[str]]:
    """Return the keys for each answer, as in ``--taken A B --not-taken``; ``*`` where none is."""
    keys_of: dict[str, list[str]] = {}
    current: list[str] | None = None
    for word in words:
        if word in ("--taken", "--not-taken"):
            current = keys_of.setdefault(word[2:].replace("-", "_"), [])
        elif current is None:
            raise UsageError(f"say what became of {word}: --taken KEY… or --not-taken KEY…")
        else:
            current.append(word)
    return {answer: keys or ["*"] for answer, keys in keys_of.items()}
