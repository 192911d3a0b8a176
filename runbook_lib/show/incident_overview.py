"""What is going on: the newest incidents, the last drill, and where to go next."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from ..errors import RunbookError
from ..investigation import Investigation
from ..model import CauseStatus, Json, Verdict
from ..record.incident import Incident, list_incidents
from .display import Card
from .tables import Table
from .text import format_bytes

_NEXT = {
    "": ("02_signals_detection", "Is there an incident? Read the signals."),
    "healthy": ("08_references", "Nothing waits too long. Check the references if you have time."),
    "unknown": ("03_immediate_actions", "Something could not be read. Look at store and worker."),
    "incident": ("05_root_cause", "Labels wait. Find out why."),
    "caused": ("06_remediation", "The cause is named. Plan the way out."),
    "not_fixed": ("05_root_cause", "It is not fixed. Look for the cause again."),
    "mitigated": ("05_root_cause", "The cause is still there. Look at it again."),
    "fixed": ("07_postmortem", "It is fixed. Write down what was learned."),
    "fixed_alert_decaying": ("07_postmortem", "It is fixed; the alert is still clearing."),
}


def overview(inv: Investigation) -> Card:
    """Return what is open, how the last drill went, and where to go next. Only reads."""
    home = inv.incident.folder.parent
    found: list[dict[str, Json]] = []
    for folder in islice(list_incidents(home), 200):
        try:
            facts = Incident(folder, redactor=inv.incident.redactor).facts
        except RunbookError as error:
            facts = {"opened_at": str(error)}
        found.append(
            {
                "incident": folder.name,
                "opened": facts.get("opened_at"),
                "state": "closed" if facts.get("closed_at") else "open",
                "verdict": facts.get("verdict"),
                "drill": bool(facts.get("drill")),
            }
        )
    notebook, why = _NEXT.get(_read_state(inv), _NEXT[""])
    drills = [row for row in found if row["drill"]][:1]
    newest = [row for row in found if not row["drill"]][:5]
    tables = (Table("The newest incidents", newest), Table("The last drill", drills))
    return Card(why, link=(f"{notebook}.ipynb", f"Go to {notebook}"), tables=tables)


def _read_state(inv: Investigation) -> str:
    """Return the verdict of this incident; ``caused`` when a cause stands supported."""
    verdict = inv.journal.verdict()
    supported = any(f.status is CauseStatus.SUPPORTED for f in inv.journal.findings())
    return "caused" if verdict is Verdict.INCIDENT and supported else str(verdict or "")


def file_link(path: Path) -> Card:
    """Return a file of the incident folder, as a link where the notebook can reach it."""
    href = os.path.relpath(path).replace(os.sep, "/")
    size = format_bytes(path.stat().st_size)
    return Card(lines=(str(path),), link=(href, f"{path.name} ({size})"))
