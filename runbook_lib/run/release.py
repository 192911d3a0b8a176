"""``plan``, ``apply``, ``resume``, ``undo`` and ``verify``: the release by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..change.mover import MoveResult, resume_plan
from ..change.plan_file import ReleasePlan
from ..change.quiesce import hold_worker
from ..change.undo import undo_plan
from ..errors import SafetyError, UsageError
from ..exit_codes import ExitCode
from ..investigation import Investigation
from ..model import ActionEntry, ActionPhase, Json, format_time
from ..record.incident import list_incidents
from ..record.log import utc_now
from ..sections import SECTIONS
from ..settings import Settings
from ..show.progress import make_meter
from .documents import ApplyDocument, PlanDocument, VerifyDocument
from .investigate import get_incident

__all__ = ["apply_release", "plan_release", "resume_release", "undo_release", "verify_release"]

_PLAN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")
_SECTION = "06_remediation"
Progress = Callable[[str], None]


def _open(settings: Settings, incident_id: str, **parameters: Any) -> Investigation:
    return Investigation.open(
        incident_id, section=SECTIONS[_SECTION], settings=settings, **parameters
    )


def plan_release(
    settings: Settings, *, incident_id: str, progress: Progress, **parameters: Any
) -> PlanDocument:
    """Make a plan of a release by move; moves nothing.

    Raises
    ------
    LimitError
        When more waits than one plan may hold; says how to split it.
    """
    incident, _ = get_incident(settings, incident_id)
    progress("list what waits")
    inv = _open(settings, incident.id, way="release", **parameters)
    inv.progress = make_meter(progress)
    plan = inv.plan("6.1")
    if not isinstance(plan, ReleasePlan):
        raise UsageError("section 6 did not plan a release")
    progress("compare the backlog before and after")
    effect = inv.take("6.1")
    return PlanDocument(
        schema_name="runbook/plan/1",
        at=utc_now(),
        incident=incident.id,
        exit_code=ExitCode.OK,
        plan=plan.id,
        sha256=plan.sha256,
        objects=plan.trailer.objects,
        bytes=plan.trailer.bytes,
        expires_at=format_time(plan.header.expires_at),
        excluded=plan.trailer.excluded,
        path=str(plan.path),
        effect=effect.detail.get("rows") or [],
        effect_reason=effect.reason,
    )


def apply_release(
    settings: Settings, plan_id: str, *, approve: str, progress: Progress
) -> ApplyDocument:
    """Carry out an approved plan.

    Raises
    ------
    SafetyError
        When it is not approved, or a safety rule refuses; nothing was changed.
    """
    inv, plan = _load(settings, plan_id, progress)
    entry = inv.apply(plan, approve=approve)
    return _to_document(inv, "apply", plan, entry.result)


def resume_release(settings: Settings, plan_id: str, *, progress: Progress) -> ApplyDocument:
    """Go on with an apply or an undo that was cut off; the ledgered approval counts."""
    inv, plan = _load(settings, plan_id, progress)
    result = resume_plan(inv.clients.store, plan, resumed_by="operator", **_how(inv, plan))
    return _journal(inv, "resume", plan, result)


def undo_release(settings: Settings, plan_id: str, *, progress: Progress) -> ApplyDocument:
    """Move back what a plan moved, within its undo window and where it is still ours."""
    inv, plan = _load(settings, plan_id, progress)
    result = undo_plan(inv.clients.store, plan, undone_by="operator", **_how(inv, plan))
    return _journal(inv, "undo", plan, result)


def verify_release(settings: Settings, plan_id: str) -> VerifyDocument:
    """Prove by an independent listing where each planned object is now."""
    inv, plan = _load(settings, plan_id, lambda _: None)
    if not _ledger(inv, plan.id).exists():
        raise SafetyError(f"{plan.id} was never applied: there is nothing to prove")
    result = inv.verify(plan).result
    numbers = {name: result[name] for name in VerifyDocument.model_fields if name in result}
    bad = any(numbers[name] for name in ("lost", "duplicated", "foreign_changed"))
    return VerifyDocument(
        schema_name="runbook/verify/1",
        at=utc_now(),
        incident=inv.incident.id,
        exit_code=ExitCode.NOT_OK if bad else ExitCode.OK,
        detail={name: value for name, value in result.items() if name not in numbers},
        **{name: value for name, value in numbers.items() if name != "detail"},
    )


def _load(
    settings: Settings, plan_id: str, progress: Progress
) -> tuple[Investigation, ReleasePlan]:
    if not _PLAN_ID.fullmatch(plan_id):
        raise UsageError(f"{plan_id!r} is not a plan id; `runbook plan` prints it")
    home = settings.runbook_home.resolve()
    found = (f for f in list_incidents(home) if (f / "plans" / f"{plan_id}.jsonl").is_file())
    folder: Path | None = next(found, None)
    if folder is None:
        raise UsageError(f"no incident under {home} has a plan {plan_id!r}")
    inv = _open(settings, folder.name, plan=plan_id)
    inv.progress = make_meter(progress)
    plan = inv.plan("6.1.1" if plan_id.endswith("-undo") else "6.1")
    if not isinstance(plan, ReleasePlan) or plan.id != plan_id:
        raise UsageError(f"{plan_id} is not the plan of a release: run 06 with -p plan={plan_id}")
    return inv, plan


def _how(inv: Investigation, plan: ReleasePlan) -> dict[str, Any]:
    """Return what resume and undo need beside the plan; the worker is paused meanwhile."""
    return {
        "ledger_path": _ledger(inv, plan.id),
        "redactor": inv.incident.redactor,
        "progress": inv.progress("dealt with") if inv.progress else None,
        "hold": hold_worker(
            inv.clients,
            service=inv.settings.worker_service,
            # lets a run after a crash resume the worker
            note=inv.incident.path("ledger", "worker-paused.json"),
        ),
    }


def _ledger(inv: Investigation, plan_id: str) -> Path:
    return inv.incident.path("ledger", f"{plan_id}.jsonl")


def _journal(
    inv: Investigation, action: str, plan: ReleasePlan, result: MoveResult
) -> ApplyDocument:
    entry = ActionEntry(
        step=plan.step,
        action=action,
        phase=ActionPhase.APPLIED,
        target=plan.target,
        reversible=True,
        undo=f"runbook undo {plan.id}" if action == "resume" else "release again by a new plan",
        source=f"ledger/{result.plan}.jsonl",
        result={**result.to_json(), "sha256": plan.sha256},
    )
    inv.record("action", {"action": entry.model_dump(mode="json")})
    return _to_document(inv, action, plan, entry.result)


def _to_document(
    inv: Investigation, action: str, plan: ReleasePlan, result: dict[str, Json]
) -> ApplyDocument:
    troubles = ("conflicts", "failed", "left", "stopped", "lost_in_window")
    troubled = any(result.get(name) for name in troubles)
    return ApplyDocument(
        schema_name=f"runbook/{action}/1",
        at=utc_now(),
        incident=inv.incident.id,
        exit_code=ExitCode.NOT_OK if troubled else ExitCode.OK,
        plan=str(result.get("plan", plan.id)),
        moved=result.get("moved", 0),
        already=result.get("already", 0),
        conflicts=tuple(result.get("conflicts", ())),
        failed=tuple(result.get("failed", ())),
    )
