"""What ``plan``, ``apply``, ``resume`` and ``verify`` do for a runbook with a ``MoveGate``.

The runbook names the section and the step that moves. Fields of documents are added, never
renamed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..approvals import Plan
from ..errors import ExitCode, SafetyError, UsageError
from ..investigation import Investigation
from ..model import ActionEntry, ActionPhase, Json, Progress, Verdict
from ..moves import find_way_on
from ..record.incident import Incident, list_incidents
from ..redact import Redactor
from ..runbook import name_runbook
from ..section import Sections
from ..settings import Settings
from ..show.text import count_of, format_bytes
from .documents import Document

_SHOWN = 10


class MoveStep(NamedTuple):
    """Which section, and which of its steps, moves."""

    section: str
    step: str


class MovePlanDocument(Document):
    """``plan``: what would move, and what would not, by reason; ``apply`` is the command.

    ``rows`` are the first objects. ``others`` says how it is made sure that nobody else moves,
    ``window`` what the store cannot guard.
    """

    plan: str
    sha256: str
    objects: int
    bytes: int
    expires_at: str
    excluded: dict[str, int]
    path: str
    others: str
    window: str
    apply: str = ""
    rows: tuple[dict[str, Json], ...] = ()

    @property
    def answer(self) -> str:
        """How much would move; nothing did."""
        if not self.apply:
            return "There is nothing to move"
        much = f"{count_of(self.objects, 'object')}, {format_bytes(self.bytes)}"
        return f"Planned, nothing was changed: {much}"

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """The command that approves it."""
        if not self.apply:
            return ()
        return ((f"To carry it out before {self.expires_at}, paste:", self.apply),)


class MoveRunDocument(Document):
    """``apply`` and ``resume``; ``already`` are those of ``moved`` that a look found.

    ``skipped``, ``conflicts`` and ``failed`` are objects of ``key`` and ``reason``; ``unproven``
    and ``lost_in_window`` are keys. ``left`` counts what this plan will not move any more.
    ``summary`` says all of it in words.
    """

    plan: str
    summary: str
    moved: int = 0
    already: int = 0
    skipped: tuple[Json, ...] = ()
    conflicts: tuple[Json, ...] = ()
    failed: tuple[Json, ...] = ()
    unproven: tuple[str, ...] = ()
    waiting: int = 0
    left: int = 0
    lost_in_window: tuple[str, ...] = ()
    stopped: str = ""
    way_on: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """How many moved, and whether that is all."""
        return f"{'Done' if self.exit_code is ExitCode.OK else 'NOT ALL DONE'}: {self.summary}"

    @property
    def commands(self) -> tuple[str, ...]:
        """The way on; at the end, the proof."""
        return self.way_on or (name_runbook(f"runbook verify {self.plan}"),)


class MoveProofDocument(Document):
    """``verify``: the proof, in numbers of objects; ``summary`` says it in words."""

    plan: str
    summary: str
    in_place: int
    gone_after_landed: int
    unproven: int
    waiting: int
    changed_by_others: int
    lost: int
    duplicated: int
    foreign_changed: int
    skipped: int
    settled_by_word: int
    detail: dict[str, Json]

    @property
    def answer(self) -> str:
        """Whether the whole plan is proven."""
        return self.summary[:1].upper() + self.summary[1:]


def plan_move(
    settings: Settings, sections: Sections, where: MoveStep, *, incident_id: str, progress: Progress
) -> MovePlanDocument:
    """Make a plan; moves nothing. Exit 3 when objects wait and none of them may move."""
    opener = sections.investigation or Investigation
    incident, is_new = opener.find(settings, incident_id, keeps=True)
    inv = _open(settings, sections, where, incident, progress)
    plan = inv.plan(where.step)
    if is_new and plan.is_empty and not incident.is_open:
        incident.close(Verdict.UNKNOWN)
    is_blocked = plan.is_empty and bool(plan.summary["excluded"])
    return _describe_plan(inv, plan, ExitCode.of(not is_blocked))


def apply_move(
    settings: Settings,
    sections: Sections,
    where: MoveStep,
    plan_id: str,
    *,
    approve: str,
    progress: Progress,
) -> MovePlanDocument | MoveRunDocument:
    """Carry out an approved plan; without approval stop at the plan, exit 5."""
    inv, plan = _open_plan(settings, sections, where, plan_id, progress)
    if plan.is_empty or not approve:
        return _describe_plan(inv, plan, ExitCode.OK if plan.is_empty else ExitCode.REFUSED)
    return _describe_run(inv, "apply", plan, inv.apply(plan, approve=approve))


def resume_move(
    settings: Settings, sections: Sections, where: MoveStep, plan_id: str, *, progress: Progress
) -> MoveRunDocument:
    """Go on with a plan that was approved, begun and cut off."""
    inv, plan = _open_plan(settings, sections, where, plan_id, progress)
    return _describe_run(inv, "resume", plan, inv.resume(plan))


def verify_move(
    settings: Settings, sections: Sections, where: MoveStep, plan_id: str, *, progress: Progress
) -> MoveProofDocument:
    """Prove by an independent look where each planned object is. Only reads."""
    inv, plan = _open_plan(settings, sections, where, plan_id, progress, changes=False)
    if not plan.trace.exists():
        raise SafetyError(f"{plan.id} was never applied: there is nothing to prove")
    entry = inv.verify(plan)
    facts = entry.result
    return MoveProofDocument(
        schema_name="runbook/verify/1",
        incident=inv.incident.id,
        exit_code=ExitCode.of(entry.phase is ActionPhase.VERIFIED),
        plan=plan.id,
        summary=entry.reason,
        in_place=facts["in_place"],
        gone_after_landed=facts["gone_after_landed"],
        unproven=facts["unproven"],
        waiting=facts["waiting"],
        changed_by_others=facts["changed_by_others"],
        lost=facts["lost"],
        duplicated=facts["duplicated"],
        foreign_changed=facts["foreign_changed"],
        skipped=facts["skipped"],
        settled_by_word=facts["settled_by_word"],
        detail=facts["keys"],
    )


def _open(
    settings: Settings,
    sections: Sections,
    where: MoveStep,
    incident: Incident,
    progress: Progress,
    **parameters: Any,
) -> Investigation[Any, Any]:
    opener = sections.investigation or Investigation
    opened: Investigation[Any, Any] = opener.open(
        incident.id,
        section=sections[where.section],
        settings=settings,
        progress=progress,
        **parameters,
    )
    return opened


def _open_plan(
    settings: Settings,
    sections: Sections,
    where: MoveStep,
    plan_id: str,
    progress: Progress,
    *,
    changes: bool = True,
) -> tuple[Investigation[Any, Any], Plan]:
    """Return a plan, and the incident in which it goes on: its own, until that one is closed."""
    folder = _find_folder(settings, plan_id)
    incident = Incident(folder, redactor=Redactor(settings.secrets))
    if changes and incident.is_closed:
        opener = sections.investigation or Investigation
        incident, _ = opener.find(settings)
    inv = _open(settings, sections, where, incident, progress, plan=plan_id)
    (plan,) = inv.load_named_plans()
    return inv, plan


def _find_folder(settings: Settings, plan_id: str) -> Path:
    """Return the folder of the incident that has a plan."""
    home = settings.runbook_home.resolve()
    for folder in list_incidents(home):
        if (folder / "plans" / f"{plan_id}.jsonl").is_file():
            return folder
    raise UsageError(f"no incident under {home} has a plan {plan_id!r}")


def _describe_plan(
    inv: Investigation[Any, Any], plan: Plan, exit_code: ExitCode
) -> MovePlanDocument:
    """Return what a plan would do, and how to approve it; nothing was done."""
    command = name_runbook(f"runbook apply {plan.id} --approve {plan.sha256}")
    return MovePlanDocument(
        schema_name="runbook/plan/1",
        incident=inv.incident.id,
        exit_code=exit_code,
        plan=plan.id,
        sha256=plan.sha256,
        objects=plan.summary["objects"],
        bytes=plan.summary["bytes"],
        expires_at=plan.summary["expires_at"],
        excluded=plan.summary["excluded"],
        path=str(plan.path),
        others=plan.summary["who else moves"],
        window=plan.summary["window"],
        apply="" if plan.is_empty else command,
        rows=tuple({"key": row.key, "to": row.to} for row in plan.rows[:_SHOWN]),
    )


def _describe_run(
    inv: Investigation[Any, Any], command: str, plan: Plan, entry: ActionEntry
) -> MoveRunDocument:
    facts = entry.result
    way_on = find_way_on(plan, facts)
    return MoveRunDocument(
        schema_name=f"runbook/{command}/1",
        incident=inv.incident.id,
        exit_code=ExitCode.of(facts["is_complete"]),
        plan=plan.id,
        summary=entry.reason,
        moved=facts["moved"],
        already=facts["already"],
        skipped=tuple(facts["skipped"]),
        conflicts=tuple(facts["conflicts"]),
        failed=tuple(facts["failed"]),
        unproven=tuple(facts["unproven"]),
        waiting=facts["waiting"],
        left=facts["left"],
        lost_in_window=tuple(facts["lost_in_window"]),
        stopped=facts["stopped"],
        way_on=(way_on,) if way_on else (),
    )
