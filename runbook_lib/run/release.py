"""``plan``, ``apply``, ``resume``, ``undo``, ``settle`` and ``verify``: the release by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from objectmove.plan import save_plan
from objectmove.record import list_records, read_recorded_plan

from ..change.release import ReleasePlan, find_plan, list_unfinished, resume_release
from ..errors import SafetyError, UsageError
from ..exit_codes import ExitCode
from ..investigation import Investigation
from ..model import ActionEntry, ActionPhase, Json, format_time
from ..record.incident import list_incidents
from ..record.log import utc_now
from ..sections import SECTIONS
from ..sections.plan_effect import describe_effect
from ..sections.release import say_way_on
from ..settings import Settings
from ..show.progress import make_meter
from .documents import ApplyDocument, PlanDocument, SettleDocument, VerifyDocument
from .sections import get_incident

__all__ = [
    "apply_release_plan",
    "plan_release",
    "resume_release_plan",
    "settle_release",
    "undo_release",
    "verify_release_plan",
]

_PLAN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
_SECTION = "06_remediation"
_TROUBLES = ("conflicts", "failed", "unproven", "waiting", "lost_in_window", "stopped")
_SHOWN = 10
_FINE = ("in_place", "gone_after_landed")
Progress = Callable[[str], None]


def plan_release(
    settings: Settings, *, incident_id: str, progress: Progress, **parameters: Any
) -> PlanDocument:
    """Make a plan of a release by move; moves nothing. Exit 3 when labels wait and none may move.

    Raises
    ------
    LimitError
        When more waits than one plan may hold; gives the lines that split it.
    """
    incident, _ = get_incident(settings, incident_id)
    progress("list what waits")
    inv = _open(settings, incident.id, progress, way="release", **parameters)
    plan = _must_be_release(inv.plan("6.1"))
    effect, words = describe_effect(inv, plan)
    code = ExitCode.NOT_OK if plan.waits_in_vain else ExitCode.OK
    document = _to_plan_document(inv, plan, "apply", plan.id, code)
    return document.model_copy(update={"effect": tuple(effect), "effect_reason": words})


def apply_release_plan(
    settings: Settings, plan_id: str, *, approve: str, progress: Progress
) -> ApplyDocument | PlanDocument:
    """Carry out an approved plan; without approval it stops at the plan, exit 5.

    Raises
    ------
    SafetyError
        When it is not approved.
    RefusedError
        When a safety rule refuses; nothing was changed.
    """
    inv, plan = _load(settings, plan_id, progress)
    if not approve:
        return _to_plan_document(inv, plan, "apply", plan.id, ExitCode.REFUSED)
    entry = inv.apply(plan, approve=approve)
    return _to_document(inv, "apply", plan, entry.result)


def resume_release_plan(settings: Settings, plan_id: str, *, progress: Progress) -> ApplyDocument:
    """Go on with a plan that was cut off, here or on another machine; its approval counts."""
    inv, plan = _load(settings, plan_id, progress, is_recorded=True)
    result = resume_release(inv, plan).to_json()
    entry = ActionEntry(
        step=plan.step,
        action="resume",
        phase=ActionPhase.APPLIED,
        target=plan.target,
        reversible=plan.reversible,
        undo=f"runbook undo {plan.id}" if plan.reversible else "",
        operator=inv.operator,
        source=f"ledger/{plan.id}.jsonl",
        result={**result, "sha256": plan.sha256},
    )
    inv.record("action", {"action": entry.model_dump(mode="json")})
    return _to_document(inv, "resume", plan, result)


def undo_release(
    settings: Settings, plan_id: str, *, approve: str, progress: Progress
) -> ApplyDocument | PlanDocument:
    """Take a release back, within its window; without approval it stops at its plan, exit 5."""
    inv, release = _load(settings, plan_id, progress, undo=plan_id)
    if (undo := find_plan(inv, release, approve)) is None:
        undo = _must_be_release(inv.plan("6.1.1"))
    if not approve:
        return _to_plan_document(inv, undo, "undo", plan_id, ExitCode.REFUSED)
    inv.know(undo)
    entry = inv.apply(undo, approve=approve)
    return _to_document(inv, "undo", undo, entry.result)


def settle_release(
    settings: Settings,
    plan_id: str,
    *,
    taken: bool,
    keys: tuple[str, ...],
    approve: str,
    progress: Progress,
) -> SettleDocument | PlanDocument:
    """Write down a person's word on rows of which nobody can know; without approval it stops.

    Raises
    ------
    UsageError
        When the approval is of the other word.
    """
    word = "taken" if taken else "not_taken"
    inv, release = _load(
        settings,
        plan_id,
        progress,
        settle=plan_id,
        settle_word=word,
        settle_keys=",".join(keys),
    )
    if (plan := find_plan(inv, release, approve)) is None:
        plan = _must_be_release(inv.plan("6.1.2"))
    if plan.plan.header.word != word:
        raise UsageError(f"{plan.id} says {plan.plan.header.word}, and you say {word}")
    if not approve:
        how = f"{plan_id} --{word.replace('_', '-')}"
        return _to_plan_document(inv, plan, "settle", how, ExitCode.REFUSED)
    inv.know(plan)
    result = inv.apply(plan, approve=approve).result
    left = next((r["rows"] for r in list_unfinished(inv.clients) if r["plan"] == plan_id), 0)
    settled = result.get("settled", 0)
    return SettleDocument(
        schema_name="runbook/settle/1",
        at=utc_now(),
        incident=inv.incident.id,
        exit_code=ExitCode.NOT_OK if any(result.get(name) for name in _TROUBLES) else ExitCode.OK,
        plan=plan_id,
        taken=settled if taken else 0,
        not_taken=0 if taken else settled,
        left=left,
        way_on=_list_ways_on(inv),
    )


def verify_release_plan(
    settings: Settings, plan_id: str, *, progress: Progress = lambda _: None
) -> VerifyDocument:
    """Prove by an independent listing where each planned object is now."""
    inv, plan = _load(settings, plan_id, progress)
    if not inv.incident.path("ledger", f"{plan.id}.jsonl").exists():
        raise SafetyError(f"{plan.id} was never applied: there is nothing to prove")
    result = dict(inv.verify(plan).result)
    result["gone_after_done"] = result.get("gone_after_landed", 0)
    numbers = {name: result[name] for name in VerifyDocument.model_fields if name in result}
    counted = (n for name, n in numbers.items() if isinstance(n, int) and name not in _ALIASES)
    return VerifyDocument(
        schema_name="runbook/verify/1",
        at=utc_now(),
        incident=inv.incident.id,
        exit_code=ExitCode.NOT_OK if any(counted) else ExitCode.OK,
        way_on=_list_ways_on(inv),
        detail={name: value for name, value in result.items() if name not in numbers},
        **numbers,
    )


_ALIASES = (*_FINE, "gone_after_done")


def _open(
    settings: Settings, incident_id: str, progress: Progress, **parameters: Any
) -> Investigation:
    inv = Investigation.open(
        incident_id, section=SECTIONS[_SECTION], settings=settings, **parameters
    )
    inv.progress = make_meter(progress)
    return inv


def _load(
    settings: Settings,
    plan_id: str,
    progress: Progress,
    *,
    is_recorded: bool = False,
    **parameters: Any,
) -> tuple[Investigation, ReleasePlan]:
    """Find a plan in the incidents' folders, or, to resume it, in the bucket's records."""
    if not _PLAN_ID.fullmatch(plan_id):
        raise UsageError(f"{plan_id!r} is not a plan id; `runbook plan` prints it")
    home = settings.runbook_home.resolve()
    found = (f for f in list_incidents(home) if (f / "plans" / f"{plan_id}.jsonl").is_file())
    folder: Path | None = next(found, None)
    if folder is None and is_recorded:
        folder = _fetch(settings, plan_id)
    if folder is None:
        raise UsageError(f"no incident under {home} has a plan {plan_id!r}")
    names = parameters or {"plan": plan_id}
    inv = _open(settings, folder.name, progress, **names)
    load = inv.section.ACTIONS.values()
    loaded = (a.load(inv, plan_id) for a in load if a.id in ("6.1", "6.1.1", "6.1.2"))
    plan = next((p for p in loaded if isinstance(p, ReleasePlan)), None)
    if plan is None:
        raise UsageError(f"{plan_id} is not the plan of a release: run 06 with -p plan={plan_id}")
    inv.know(plan)
    return inv, plan


def _fetch(settings: Settings, plan_id: str) -> Path | None:
    """Take a plan over from the bucket's record into an incident's folder of this machine."""
    incident, _ = get_incident(settings)
    inv = Investigation.open(incident.id, section=SECTIONS[_SECTION], settings=settings)
    for record in list_records(inv.clients.bucket):
        if record.plan == plan_id:
            folder = incident.folder / "plans"
            save_plan(read_recorded_plan(inv.clients.bucket, record, folder=folder))
            return incident.folder
    return None


def _must_be_release(plan: object) -> ReleasePlan:
    if not isinstance(plan, ReleasePlan):
        raise SafetyError(f"nothing was planned: {getattr(plan, 'reason', '')}")
    return plan


def _list_ways_on(inv: Investigation) -> tuple[str, ...]:
    return tuple(
        f"{row['plan']} by {row['by']}: {row['state']}. {row['way_on']}"
        for row in list_unfinished(inv.clients)
    )


def _to_plan_document(
    inv: Investigation, plan: ReleasePlan, command: str, about: str, code: ExitCode
) -> PlanDocument:
    head = plan.plan.header
    rows = plan.plan.rows[:_SHOWN]
    return PlanDocument(
        schema_name="runbook/plan/1",
        at=utc_now(),
        incident=inv.incident.id,
        exit_code=code,
        plan=plan.id,
        sha256=plan.sha256,
        objects=head.objects,
        bytes=head.bytes,
        expires_at=format_time(head.expires_at),
        excluded=head.excluded,
        path=str(plan.path),
        rows=tuple(
            {
                "key": row.key,
                "to": row.to,
                "waits since": format_time(row.age_start),
                **{name: row.facts[name] for name in ("order_id", "evidence") if name in row.facts},
            }
            for row in rows
        ),
        others=head.others,
        window=head.window,
        apply="" if plan.is_empty else f"runbook {command} {about} --approve {plan.sha256}",
        reason=plan.note,
        way_on=_list_ways_on(inv),
    )


def _to_document(
    inv: Investigation, action: str, plan: ReleasePlan, result: dict[str, Json]
) -> ApplyDocument:
    is_troubled = any(result.get(name) for name in _TROUBLES)
    way_on = say_way_on(plan, {"waiting": 0, "unproven": (), **result})
    return ApplyDocument(
        schema_name=f"runbook/{action}/1",
        at=utc_now(),
        incident=inv.incident.id,
        exit_code=ExitCode.NOT_OK if is_troubled else ExitCode.OK,
        plan=str(result.get("plan", plan.id)),
        moved=result.get("moved", 0),
        already=result.get("already", 0),
        conflicts=tuple(result.get("conflicts", ())),
        failed=tuple(result.get("failed", ())),
        unproven=tuple(result.get("unproven", ())),
        waiting=result.get("waiting", 0),
        lost_in_window=tuple(result.get("lost_in_window", ())),
        stopped=str(result.get("stopped", "")),
        way_on=(way_on,) if way_on else (),
    )
