"""The page of incidents, the open ones first, with links to their reports."""

from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from runbook_lib.errors import RunbookError
from runbook_lib.model import Json, format_time
from runbook_lib.record.history import list_history
from runbook_lib.record.incident import open_incident
from runbook_lib.redact import Redactor
from runbook_lib.report.render import CSP
from runbook_lib.runbook import load_policy
from runbook_lib.show.tables import get_tone
from runbook_lib.show.text import visible

from .settings import ServeSettings

_MOST_ROWS = 200
#: The headers of every answer: no other page embeds ours, and a browser keeps no copy.
HEADERS = {
    "Content-Security-Policy": f"{CSP} frame-ancestors 'none'; form-action 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Page:
    """Shows the incidents under RUNBOOK_HOME, as ``runbook incidents`` does. Only reads."""

    def __init__(self, settings: ServeSettings) -> None:
        self._home = settings.runbook_home.resolve()
        self._redactor = Redactor(settings.secrets)
        self._environment = Environment(
            loader=PackageLoader("alerting"), autoescape=select_autoescape(default=True)
        )

    def list_rows(self) -> list[dict[str, Json]]:
        """Return at most 200 incidents, the open ones first."""
        history = list_history(self._home, load_policy())
        rows = []
        for incident in sorted(history, key=lambda row: not row.is_open)[:_MOST_ROWS]:
            row = {
                "incident": incident.incident,
                "is_open": incident.is_open,
                "is_drill": bool(incident.exercise),
                "since": format_time(incident.opened_at),
                "cause": visible(incident.cause_found or incident.damage),
                "verdict": str(incident.verdict or "unknown"),
                "report": f"/incidents/{incident.incident}/report.html",
            }
            rows.append(row)
        return rows

    def render(self, now: datetime) -> str:
        """Return the page. It has no script, and fetches nothing."""
        template = self._environment.get_template("incidents.html")
        return template.render(rows=self.list_rows(), now=now, csp=CSP, get_tone=get_tone)

    def find_page(self, incident_id: str, notebook: str = "") -> Path | None:
        """Return the path of an incident's report, or of a notebook's page, if it is there."""
        try:
            incident = open_incident(self._home, incident_id, redactor=self._redactor)
            if incident is None:
                return None
            path = incident.folder / "report.html"
            if notebook:
                path = incident.path("notebooks", f"{notebook}.html")
        except RunbookError:
            return None
        return path if path.is_file() else None
