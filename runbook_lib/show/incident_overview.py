"""What is going on: the newest incidents, the last drill, and where to go next."""

from __future__ import annotations

import os
from pathlib import Path

from ..investigation import Investigation
from ..record.history import list_history
from .display import Card
from .tables import Table, tabulate_facts
from .text import format_bytes

_COLUMNS = ("incident", "opened_at", "closed_at", "verdict")


def overview(inv: Investigation) -> Card:
    """Return what is open, how the last drill went, and where to go next. Only reads."""
    rows = list_history(inv.incident.folder.parent)
    drills = [row.model_dump() for row in rows if row.scenario][:1]
    newest = [row.model_dump() for row in rows if not row.scenario][:5]
    notebook, why = inv.journal.way_on(inv.now())
    tables = (
        tabulate_facts(inv.journal.log_entry(inv.now()), "This incident"),
        Table("The newest incidents", newest, _COLUMNS),
        Table("The last drill", drills, _COLUMNS),
    )
    return Card(why, link=(f"{notebook}.ipynb", f"Go to {notebook}"), tables=tables)


def file_link(path: Path) -> Card:
    """Return a file of the incident folder, as a link where the notebook can reach it."""
    href = os.path.relpath(path).replace(os.sep, "/")
    size = format_bytes(path.stat().st_size)
    return Card(lines=(str(path),), link=(href, f"{path.name} ({size})"))
