"""The incident's report, made from its journal, and its notebooks as offline HTML."""

from contextlib import suppress
from pathlib import Path

from ..errors import RunbookError
from ..record.incident import Incident, lock_file
from ..record.manifest import write_attachment, write_manifest
from ..section import Sections
from .export import export_notebooks, is_newer
from .model import ReportModel
from .render import write_report

_LONGEST_WRITE_S = 120


def write_outputs(incident: Incident, sections: Sections) -> Path:
    """Export the executed notebooks, and write report, summary, manifest, and a zip of it all.

    Closed neighbours with an outdated report get a new one, too.
    """
    with lock_file(incident.folder / "report.html.lock", timeout_s=_LONGEST_WRITE_S):
        model = ReportModel(incident, sections)
        export_notebooks(incident)
        path = write_report(incident, model)
        write_manifest(incident)
        write_attachment(incident)
    for name in model.neighbours:
        with suppress(RunbookError):  # this report doesn't depend on its neighbours'
            other = Incident(incident.folder.with_name(name), redactor=incident.redactor)
            if other.is_closed and not is_newer(other.folder / path.name, other.journal.path):
                write_outputs(other, sections)
    return path
