"""The incident's HTML report, from its journal, and its notebooks as offline HTML."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path

from ..errors import RunbookError
from ..record.incident import Incident, open_incident
from ..record.manifest import is_frozen, write_attachment, write_manifest
from ..section import Sections
from .export import convert, export_notebooks, load_exporter
from .model import ReportModel
from .render import write_report

__all__ = ["ReportModel", "convert", "export_notebooks", "preload", "write_outputs", "write_report"]


def preload() -> None:
    """Import what writing a report needs, while something else is waited for."""
    load_exporter()
    import_module("matplotlib.figure")


def write_outputs(incident: Incident, sections: Sections, *, packs: bool = True) -> Path:
    """Export the executed notebooks, write report, summary, manifest, and a zip of it all.

    What a closed incident was last written as stays, byte for byte; one that this incident's
    opening closed gets its last report here.

    Parameters
    ----------
    packs : whether the zip is made; an older one goes in any case: it is of another report

    Returns
    -------
    The report's path.
    """
    if is_frozen(incident):
        return incident.folder / "report.html"
    with suppress(RunbookError):  # it is another incident's report
        name, home = str(incident.facts.get("previous") or ""), incident.folder.parent
        before = open_incident(home, name, redactor=incident.redactor) if name else None
        if before is not None and before.is_closed:  # else it is damaged, and stays as it is
            write_outputs(before, sections)
    model = ReportModel(incident, sections)
    export_notebooks(incident, model)
    path = write_report(incident, model)
    write_manifest(incident)
    (incident.folder / f"{incident.id}.zip").unlink(missing_ok=True)
    if packs:
        write_attachment(incident)
    return path
