"""What a run leaves behind: notebook exports, the report, the manifest."""

from __future__ import annotations

from pathlib import Path

from ..model import Verdict, format_time
from ..record.incident import Incident
from ..record.log import utc_now

__all__ = ["close_incident", "write_outputs"]


def write_outputs(incident: Incident) -> Path:
    """Export the executed notebooks, write ``report.html`` and the manifest.

    Returns
    -------
    The report's path.
    """
    from ..record.manifest import write_manifest
    from ..report import export_notebooks, write_report

    export_notebooks(incident)
    path = write_report(incident)
    write_manifest(incident)
    return path


def close_incident(incident: Incident, verdict: Verdict) -> None:
    """Close the incident; commands without ``--incident`` no longer choose it."""
    closed_at = format_time(utc_now())
    incident.journal.append("closed", {"section": "", "verdict": str(verdict)})
    incident.update(closed_at=closed_at, verdict=str(verdict))
