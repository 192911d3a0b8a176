"""What the journal says of an incident as a whole: since when, why, what was done, the outcome."""

from __future__ import annotations

from datetime import datetime

from ..investigation import Investigation
from ..model import (
    ActionEntry,
    ActionPhase,
    CauseStatus,
    Finding,
    Json,
    Status,
    format_time,
    parse_time,
)
from . import remediation, root_cause

__all__ = ["find_causes", "find_measures", "find_note", "find_since", "find_verdict"]


def find_causes(inv: Investigation) -> list[Finding]:
    """Return the causes that section 5 supported before anything was changed, else its newest."""
    found: list[Finding] = []
    for entry in inv.incident.journal.read():
        if entry.kind == "conclusion" and entry.data["section"] == root_cause.NAME:
            named = [
                Finding.model_validate(f)
                for f in entry.data["conclusion"]["findings"]
                if f["status"] == CauseStatus.SUPPORTED
            ]
            known = {f.name for f in found}
            found += [f for f in named if f.name not in known]
    return found


def find_measures(inv: Investigation) -> list[dict[str, Json]]:
    """Return the actions that were carried out."""
    measures: list[dict[str, Json]] = []
    for entry in inv.incident.journal.read():
        if entry.kind == "action" and entry.data["action"]["phase"] == ActionPhase.APPLIED:
            action = ActionEntry.model_validate(entry.data["action"])
            measures.append(
                {
                    "at": format_time(entry.at),
                    "step": action.step,
                    "action": action.action,
                    "target": action.target,
                    "result": action.reason,
                    "entry": f"#{entry.seq}",
                }
            )
    return measures


def find_since(inv: Investigation) -> datetime | None:
    """Return when the earliest breach began."""
    found = [
        parse_time(since)
        for entry in inv.incident.journal.read()
        if entry.kind == "reading"
        and entry.data["reading"]["status"] == Status.BREACH
        and (since := entry.data["reading"].get("since"))
    ]
    return min(found, default=None)


def find_verdict(inv: Investigation) -> str | None:
    """Return the newest verdict of section 6."""
    found = [
        entry.data["conclusion"]["verdict"]
        for entry in inv.incident.journal.read()
        if entry.kind == "conclusion" and entry.data["section"] == remediation.NAME
    ]
    return found[-1] if found else None


def find_note(inv: Investigation, step: str) -> str:
    """Return the newest remark that somebody wrote for a point of the checklist."""
    notes = [
        str(entry.data.get("text", ""))
        for entry in inv.incident.journal.read()
        if entry.kind == "note" and entry.data.get("checklist") == step
    ]
    return notes[-1].strip() if notes else ""
