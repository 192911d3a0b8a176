"""What is going on: the newest incidents, the last drill, and where to go next."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from markupsafe import Markup

from ..errors import RunbookError
from ..investigation import Investigation
from ..model import CauseStatus, Json, Verdict
from ..record.incident import Incident, list_incidents
from .tables import Table
from .text import safe, visible

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


@dataclass(frozen=True, slots=True)
class Overview:
    """What is open, and where to go."""

    incidents: tuple[Mapping[str, Json], ...]
    last_drill: Mapping[str, Json]
    next_notebook: str
    why: str

    def _repr_html_(self) -> str:
        link = Markup('<p><b>{}</b> Go to <a href="{}.ipynb">{}</a>.</p>').format(
            safe(self.why), self.next_notebook, self.next_notebook
        )
        return str(Markup("").join([link, *(table.to_html() for table in self._tables)]))

    def __repr__(self) -> str:
        first = f"{self.why} Go to {self.next_notebook}."
        return visible("\n".join([first, *(table.to_text() for table in self._tables)]))

    @property
    def _tables(self) -> tuple[Table, Table]:
        drill = [self.last_drill] if self.last_drill else []
        return Table("The newest incidents", self.incidents), Table("The last drill", drill)


def overview(inv: Investigation) -> Overview:
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
    drills = [row for row in found if row["drill"]]
    notebook, why = _NEXT.get(_read_state(inv), _NEXT[""])
    incidents = tuple(row for row in found if not row["drill"])[:5]
    return Overview(incidents, drills[0] if drills else {}, notebook, why)


def _read_state(inv: Investigation) -> str:
    """Return the verdict of this incident; ``caused`` when a cause stands supported."""
    verdict = inv.journal.verdict()
    supported = any(f.status is CauseStatus.SUPPORTED for f in inv.journal.findings())
    return "caused" if verdict is Verdict.INCIDENT and supported else str(verdict or "")


@dataclass(frozen=True, slots=True)
class FileLink:
    """A file of the incident folder, as a link where the notebook can reach it."""

    path: Path

    def _repr_html_(self) -> str:
        href = os.path.relpath(self.path).replace(os.sep, "/")
        return str(
            Markup(
                '<p><a href="{}" target="_blank">{}</a> ({} bytes)</p><p><code>{}</code></p>'
            ).format(safe(href), self.path.name, self.path.stat().st_size, safe(self.path))
        )

    def __repr__(self) -> str:
        return visible(f"{self.path} ({self.path.stat().st_size} bytes)")
