"""A second runbook, on the helper alone: a folder that fills up with what nobody needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from runbook_lib.approvals import Effect, Plan, PlanKind, mark_applied, write_plan
from runbook_lib.model import Conclusion, Outcome, Role, Status, Verdict
from runbook_lib.runbook import Runbook
from runbook_lib.section import ActionStep, ChangeParameters, Sections, by_id, step
from runbook_lib.settings import Settings

NAME, TITLE = "06_disk", "A folder that fills up"


Parameters = ChangeParameters


def _find() -> list[Path]:
    return sorted(Path().glob("*.tmp"))


@step("6.1", "What nobody needs", name="leftovers", role=Role.SYMPTOM, unit="files", source="*.tmp")
def read_leftovers(_inv: Any) -> Outcome:
    seen = Outcome(value=len(_find()), rows=[{"file": path.name} for path in _find()])
    return seen.breach(f"{seen.value} are left") if seen.value else seen.ok("none is left")


@step("6.2", "How much it is", name="size", role=Role.IMPACT, unit="bytes", source="*.tmp")
def read_size(_inv: Any) -> Outcome:
    return Outcome(value=sum(path.stat().st_size for path in _find())).ok("all of them")


def _apply(inv: Any, plan: Plan) -> Effect:
    mark_applied(plan, {"by": inv.operator})
    removed = [Path(name).unlink() for name in plan.content["files"]]
    return Effect("removed", {"removed": len(removed)})


CLEAN = PlanKind("disk/clean/1", _apply, lambda *_: Effect("looked", {}, is_ok=not _find()))


def _plan(inv: Any) -> Plan:
    folder, files = inv.incident.folder / "plans", [path.name for path in _find()]
    told = {"step": "6.3", "action": "clean", "target": "leftovers", "now": inv.now()}
    return write_plan(folder, CLEAN, "clean", **told, is_empty=not files, files=files)


STEPS = by_id(read_leftovers, read_size)
ACTIONS = {"6.3": ActionStep("6.3", "Remove it", _plan, (CLEAN,))}


def conclude(inv: Any) -> Conclusion:
    """Say whether anything is left."""
    is_clean = inv.latest()["6.1"].status is Status.OK
    verdict = Verdict.FIXED if is_clean else Verdict.NOT_FIXED
    return Conclusion(verdict=verdict, summary="clean" if is_clean else "full")


SECTIONS = Sections([sys.modules[__name__]], notebooks=Path(__file__).parent, read_only=())
RUNBOOK = Runbook("A folder that fills up.", (), {}, lambda: SECTIONS, Settings.load)
