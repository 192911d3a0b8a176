"""``report`` and ``verify-report``."""

from __future__ import annotations

from pathlib import Path

from ..errors import UsageError
from ..exit_codes import ExitCode
from ..record.incident import Incident, open_incident
from ..record.log import utc_now
from ..record.manifest import verify_attachment, verify_incident
from ..redact import Redactor
from ..report import write_outputs
from ..section import Sections
from ..settings import Settings
from .documents import ReportDocument


def rebuild_report(settings: Settings, sections: Sections, incident_id: str) -> ReportDocument:
    """Build the report again from the journal."""
    incident = _find(settings, incident_id)
    return ReportDocument(
        schema_name="runbook/report/1",
        at=utc_now(),
        incident=incident.id,
        exit_code=ExitCode.OK,
        report=str(write_outputs(incident, sections)),
    )


def check_report(settings: Settings, incident_or_path: str) -> ReportDocument:
    """Check the journal's chain and the manifest. Only reads.

    ``incident_or_path``: an incident's id, its folder, or the zip that was attached somewhere.
    """
    path = Path(incident_or_path)
    if not path.exists():
        path = _find(settings, incident_or_path).folder
    checked = verify_incident(path) if path.is_dir() else verify_attachment(path)
    return ReportDocument(
        schema_name="runbook/verify-report/1",
        at=utc_now(),
        incident=checked.incident,
        exit_code=ExitCode.OK if checked.ok else ExitCode.NOT_OK,
        report=str(path / "report.html" if path.is_dir() else path),
        problems=tuple(checked.problems),
        newer=tuple(checked.newer),
    )


def _find(settings: Settings, incident_id: str) -> Incident:
    home, redactor = settings.runbook_home.resolve(), Redactor(settings.secrets)
    found = open_incident(home, incident_id, redactor=redactor)
    if found is None:
        raise UsageError(f"no incident is open under {settings.runbook_home}")
    return found
