"""``report`` and ``verify-report``, ``incidents`` and ``close``, and what was: ``history``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from ..exit_codes import ExitCode
from ..model import Line, Plot
from ..record.history import PHASES, HistoryRow, list_history, write_gauges
from ..record.incident import Incident, open_incident
from ..record.manifest import is_frozen, verify_attachment, verify_incident
from ..redact import Redactor
from ..report import write_outputs
from ..section import Sections
from ..settings import Settings
from ..show.plots import Picture, plot_lines
from .documents import HistoryDocument, IncidentsDocument, ReportDocument


def rebuild_report(settings: Settings, sections: Sections, incident_id: str) -> ReportDocument:
    """Build the report again from the journal; that of a closed incident stays as it is."""
    incident = _find(settings, incident_id)
    note = "closed: its report stays as it was written then" if is_frozen(incident) else ""
    path = str(write_outputs(incident, sections))
    return ReportDocument(
        schema_name="runbook/report/1", incident=incident.id, note=note, report=path
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
        exit_code=ExitCode.NOT_OK if checked.problems else ExitCode.OK,
        incident=checked.incident,
        report=str(path / "report.html" if path.is_dir() else path),
        problems=checked.problems,
        newer=checked.newer,
    )


def close_incident(settings: Settings, sections: Sections, incident_id: str) -> ReportDocument:
    """Close an incident by hand and write its report a last time.

    Raises
    ------
    UsageError
        When it is closed already.
    """
    incident = _find(settings, incident_id)
    if incident.is_closed:
        raise UsageError(f"{incident.id} was closed at {incident.facts['closed_at']}")
    verdict = incident.close()
    path = str(write_outputs(incident, sections))
    return ReportDocument(
        schema_name="runbook/close/1", incident=incident.id, verdict=verdict, report=path
    )


def list_incidents(settings: Settings) -> IncidentsDocument:
    """Return the incidents, the open ones first; a drill only while it is open."""
    rows = [row for row in list_history(settings.runbook_home) if row.is_open or not row.scenario]
    found = tuple(sorted(rows, key=lambda row: not row.is_open))
    return IncidentsDocument(schema_name="runbook/incidents/1", incidents=found)


def read_history(settings: Settings) -> HistoryDocument:
    """Return every incident and drill; writes the trends' picture and the gauges anew."""
    home = settings.runbook_home
    rows, plot, gauges = tuple(list_history(home)), "", ""
    if rows:
        (home / "history.png").write_bytes(draw_trends(rows).png)
        plot, gauges = str(home / "history.png"), str(write_gauges(home, rows))
    return HistoryDocument(schema_name="runbook/history/1", history=rows, plot=plot, gauges=gauges)


def draw_trends(rows: Sequence[HistoryRow]) -> Picture:
    """Draw how long the phases of drills took, drill by drill."""
    drills = [row for row in reversed(rows) if row.scenario]
    lines = []
    for phase in PHASES:
        known = ((row.opened_at, getattr(row, phase)) for row in drills)
        points = tuple((at, value) for at, value in known if value is not None)
        lines.append(Line(name=phase.removesuffix("_s"), points=points))
    return plot_lines(Plot(title="Phases of the drills", unit="seconds", lines=tuple(lines)))


def _find(settings: Settings, incident_id: str) -> Incident:
    home, redactor = settings.runbook_home.resolve(), Redactor(settings.secrets)
    found = open_incident(home, incident_id, redactor=redactor)
    if found is None:
        raise UsageError(f"no incident is open under {settings.runbook_home}")
    return found
