"""What is going on: the newest incidents, the last drill, and where to go next."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from ..errors import RunbookError
from ..investigation import Investigation
from ..model import Json
from ..record.incident import Incident, list_incidents
from .display import Card
from .tables import Table, tabulate_facts
from .text import format_bytes


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
    notebook, why = inv.journal.way_on(inv.now())
    drills = [row for row in found if row["drill"]][:1]
    newest = [row for row in found if not row["drill"]][:5]
    tables = (
        tabulate_facts(inv.journal.log_entry(inv.now()), "This incident"),
        Table("The newest incidents", newest),
        Table("The last drill", drills),
    )
    return Card(why, link=(f"{notebook}.ipynb", f"Go to {notebook}"), tables=tables)


def file_link(path: Path) -> Card:
    """Return a file of the incident folder, as a link where the notebook can reach it."""
    href = os.path.relpath(path).replace(os.sep, "/")
    size = format_bytes(path.stat().st_size)
    return Card(lines=(str(path),), link=(href, f"{path.name} ({size})"))
