"""The incident's HTML report, from its journal, and its notebooks as offline HTML."""

from __future__ import annotations

from pathlib import Path

from ..record.incident import Incident
from ..record.manifest import write_attachment, write_manifest
from ..section import Sections
from .export import export_notebooks
from .render import write_report

__all__ = ["export_notebooks", "write_outputs", "write_report"]


def write_outputs(incident: Incident, sections: Sections) -> Path:
    """Export the executed notebooks, write report, summary, manifest, and a zip of it all.

    Returns
    -------
    The report's path.
    """
    export_notebooks(incident, sections)
    path = write_report(incident, sections)
    write_manifest(incident)
    write_attachment(incident)
    return path
