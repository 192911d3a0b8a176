"""The incident's HTML report, from its journal, and its notebooks as offline HTML."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path

from ..errors import RunbookError
from ..record.incident import Incident, lock_file
from ..record.manifest import write_attachment, write_manifest
from ..section import Sections
from ..show.plots import plot_reading
from .export import export_notebooks, export_page, is_newer, load_exporter
from .model import ReportModel
from .render import write_report

__all__ = ["ReportModel", "export_notebooks", "preload", "prepare", "write_outputs", "write_report"]

#: A large report takes a minute.
_LONGEST_WRITE_S = 120


def preload() -> None:
    """Import what a report needs, while a kernel starts."""
    load_exporter()
    import_module("matplotlib.figure")


def prepare(incident: Incident, notebook: Path) -> None:
    """Prepare what a report takes from a notebook's run: its HTML, and pictures of its readings."""
    journal = incident.journal.view().of_runs([notebook.name])
    if notebook.exists():  # a run that ended before its first cell leaves none
        export_page(incident, notebook, journal.runs[-1])
    for reading in journal.readings:
        plot_reading(reading)


def write_outputs(incident: Incident, sections: Sections, *, packs: bool = True) -> Path:
    """Export the executed notebooks, write report, summary, manifest, and a zip of it all.

    If the opening of this incident closed another one, that one gets its last report here.

    Parameters
    ----------
    packs : whether the zip is made. An older zip is removed in any case: it holds an older report

    Returns
    -------
    The report's path.
    """
    path = incident.folder / "report.html"
    with lock_file(path.with_suffix(".html.lock"), timeout_s=_LONGEST_WRITE_S):
        model = ReportModel(incident, sections)
        export_notebooks(incident, model)
        write_report(incident, model)
        write_manifest(incident)
        (incident.folder / f"{incident.id}.zip").unlink(missing_ok=True)
        if packs:
            write_attachment(incident)
    for name in model.neighbours:
        with suppress(RunbookError):  # this report does not depend on the neighbours' reports
            other = Incident(incident.folder.with_name(name), redactor=incident.redactor)
            if other.is_closed and not is_newer(other.folder / path.name, other.journal.path):
                write_outputs(other, sections)
    return path
