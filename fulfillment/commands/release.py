"""``plan``, ``apply``, ``resume``, ``undo``, ``settle`` and ``verify``: the release by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from objectmove.ledger import read_record, read_recorded_plan
from objectmove.plan import save_plan
from runbook_lib.approvals import Plan, load_plan
from runbook_lib.errors import SafetyError, UsageError
from runbook_lib.exit_codes import ExitCode
from runbook_lib.model import ActionPhase, Json, Progress, Verdict, format_time
from runbook_lib.record.incident import Incident, list_incidents
from runbook_lib.redact import Redactor

from ..change.release import MOVE, find_way_on, list_unfinished
from ..change.service_actions import SERVICE
from ..change.synthetic import SYNTHETIC
from ..investigation import Investigation
from ..sections import SECTIONS
from ..sections.detection import read_backlog_objects
from ..sections.plan_effect import describe_effect
from ..settings import Settings
from .documents import ApplyDocument, PlanDocument, SettleDocument, VerifyDocument

_SECTION = SECTIONS["06_remediation"]
_TROUBLES = ("conflicts", "failed", "unproven", "waiting", "lost_in_window", "stopped")
_SHOWN = 10
_OF_PLAN = ("objects", "bytes", "excluded", "expires_at", "window")


def plan_release(
    settings: Settings, *, incident_id: str, progress: Progress, **parameters: Any
) -> PlanDocument:
    """Make a plan of a release by move; moves nothing. Exit 3 when labels wait and none may move.

    Raises
    ------
    LimitError
        When more waits than one plan may hold; gives the lines that split it.
    """
    backlog = read_backlog_objects.id
    incident, is_new = Investigation.find(settings, incident_id, keeps=True, but=backlog)
    progress("list what waits")
    inv = _open(settings, incident.id, progress, way="release", **parameters)
    plan = _must_move(inv.plan("6.1"))
    effect, words, oldest_minutes = describe_effect(inv, plan)
    if oldest_minutes > settings.lag_threshold_minutes and not incident.is_open:
        incident.open(backlog)
    if is_new and plan.is_empty and not incident.is_open:
        incident.close(Verdict.UNKNOWN)
    waits_in_vain = plan.is_empty and plan.summary.get("reason")
    code = ExitCode.NOT_OK if waits_in_vain else ExitCode.OK
    about = {"effect": tuple(effect), "effect_reason": words}
    return _to_plan_document(inv, plan, f"apply {plan.id}", code, **about)


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
    inv = _open_on(settings, plan_id, progress, plan=plan_id)
    plan = _load(inv, plan_id)
    if not approve:
        return _to_plan_document(inv, plan, f"apply {plan.id}", ExitCode.REFUSED)
    return _to_document(inv, "apply", plan, inv.apply(plan, approve=approve).result)


def resume_release_plan(settings: Settings, plan_id: str, *, progress: Progress) -> ApplyDocument:
    """Go on with a plan that was cut off, here or on another machine; its approval counts."""
    inv = _open_on(settings, plan_id, progress, fetch=True, plan=plan_id)
    plan = _load(inv, plan_id)
    return _to_document(inv, "resume", plan, inv.resume(plan).result)


def undo_release(
    settings: Settings, plan_id: str, *, approve: str, progress: Progress
) -> ApplyDocument | PlanDocument:
    """Take a release back, within its window; without approval it stops at its plan, exit 5."""
    inv = _open_on(settings, plan_id, progress, undo=plan_id)
    plan = _plan_about(inv, "6.1.1", plan_id, approve)
    if not approve:
        return _to_plan_document(inv, plan, f"undo {plan_id}", ExitCode.REFUSED)
    return _to_document(inv, "undo", plan, inv.apply(plan, approve=approve).result)


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
    about: dict[str, Any] = {"settle_word": word, "settle_keys": ",".join(keys)}
    inv = _open_on(settings, plan_id, progress, settle=plan_id, **about)
    plan = _plan_about(inv, "6.1.2", plan_id, approve)
    if (said := plan.content.move.header.word) != word:
        raise UsageError(f"{plan.id} says {said}, and you say {word}")
    if not approve:
        how = f"settle {plan_id} --{word.replace('_', '-')}"
        return _to_plan_document(inv, plan, how, ExitCode.REFUSED)
    result = inv.apply(plan, approve=approve).result
    left = next((r["rows"] for r in list_unfinished(inv.clients) if r["plan"] == plan_id), 0)
    return SettleDocument(
        **_head(inv, "settle", _judge(result)),
        plan=plan_id,
        **{word: result.get("settled", 0)},
        left=left,
        way_on=_list_ways_on(inv),
    )


def verify_release_plan(settings: Settings, plan_id: str, *, progress: Progress) -> VerifyDocument:
    """Prove by an independent listing where each planned object is now."""
    progress("list the bucket")
    inv = _open_on(settings, plan_id, progress, look=True, plan=plan_id)
    plan = _load(inv, plan_id)
    if not plan.trace.exists():
        raise SafetyError(f"{plan.id} was never applied: there is nothing to prove")
    entry = inv.verify(plan)
    result = {**entry.result, "gone_after_done": entry.result["gone_after_landed"]}
    known = {name: result.pop(name) for name in VerifyDocument.model_fields if name in result}
    code = ExitCode.OK if entry.phase is ActionPhase.VERIFIED else ExitCode.NOT_OK
    way_on = _list_ways_on(inv)
    return VerifyDocument(**_head(inv, "verify", code), **known, way_on=way_on, detail=result)


def _open(
    settings: Settings, incident_id: str, progress: Progress, **parameters: Any
) -> Investigation:
    inv = Investigation.open(incident_id, section=_SECTION, settings=settings, **parameters)
    inv.progress = progress
    return inv


def _open_on(
    settings: Settings,
    plan_id: str,
    progress: Progress,
    *,
    fetch: bool = False,
    look: bool = False,
    **parameters: Any,
) -> Investigation:
    """Open the incident in which a release goes on: its own, until it is closed.

    Parameters
    ----------
    fetch : whether the bucket's record will do, where no folder here has the plan
    look : whether nothing is changed, so that its own will always do
    """
    home = settings.runbook_home.resolve()
    found = (f for f in list_incidents(home) if (f / "plans" / f"{plan_id}.jsonl").is_file())
    folder = next(found, None) or (_fetch(settings, plan_id) if fetch else None)
    if folder is None:
        raise UsageError(f"no incident under {home} has a plan {plan_id!r}")
    is_closed = Incident(folder, redactor=Redactor(settings.secrets)).is_closed
    incident_id = Investigation.find(settings)[0].id if is_closed and not look else folder.name
    return _open(settings, incident_id, progress, **parameters)


def _fetch(settings: Settings, plan_id: str) -> Path | None:
    """Take a plan over from the bucket's record into an incident's folder of this machine."""
    incident, _ = Investigation.find(settings)
    bucket = Investigation.connect(settings).bucket
    if (record := read_record(bucket, plan_id)) is None:
        return None
    save_plan(read_recorded_plan(bucket, record, folder=incident.folder / "plans"))
    return incident.folder


def _load(inv: Investigation, plan_id: str) -> Plan:
    plan = load_plan(inv.incident.find_plan(plan_id), (MOVE, SERVICE, SYNTHETIC))
    if plan.kind is not MOVE:
        raise UsageError(f"{plan_id} is not the plan of a release: run 06 with -p plan={plan_id}")
    return plan


def _plan_about(inv: Investigation, step: str, release: str, approve: str) -> Plan:
    """Return the plan about a release that was approved; without approval make one."""
    folder = inv.incident.find_plan(release).parent
    hashes = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path.stem
        for path in folder.glob(f"{release}-*.jsonl")
    }
    return _must_move(inv.plan(step, plan=hashes.get(approve, "")))


def _must_move(plan: Plan) -> Plan:
    if plan.kind is not MOVE:
        raise SafetyError(str(plan.summary["reason"]))
    return plan


def _list_ways_on(inv: Investigation) -> tuple[str, ...]:
    return tuple(
        f"{row['plan']} by {row['by']}: {row['state']}. {row['way_on']}"
        for row in list_unfinished(inv.clients)
    )


def _to_plan_document(
    inv: Investigation, plan: Plan, command: str, code: ExitCode, **more: Any
) -> PlanDocument:
    return PlanDocument(
        **_head(inv, "plan", code),
        **{name: plan.summary[name] for name in _OF_PLAN},
        plan=plan.id,
        sha256=plan.sha256,
        others=plan.summary["who else moves"],
        path=str(plan.path),
        rows=tuple(
            {
                "key": row.key,
                "to": row.to,
                "waits since": format_time(row.age_start),
                **{name: row.facts[name] for name in ("order_id", "evidence") if name in row.facts},
            }
            for row in plan.rows[:_SHOWN]
        ),
        apply="" if plan.is_empty else f"runbook {command} --approve {plan.sha256}",
        reason=str(plan.summary.get("reason") or ""),
        way_on=_list_ways_on(inv),
        **more,
    )


def _to_document(
    inv: Investigation, action: str, plan: Plan, result: dict[str, Json]
) -> ApplyDocument:
    way_on = find_way_on(plan, result)
    known = {name: told for name, told in result.items() if name in ApplyDocument.model_fields}
    return ApplyDocument(
        **_head(inv, action, _judge(result)), **known, way_on=(way_on,) if way_on else ()
    )


def _judge(result: dict[str, Json]) -> ExitCode:
    return ExitCode.NOT_OK if any(result.get(name) for name in _TROUBLES) else ExitCode.OK


def _head(inv: Investigation, kind: str, code: ExitCode) -> dict[str, Any]:
    return {"schema": f"runbook/{kind}/1", "incident": inv.incident.id, "exit_code": code}
