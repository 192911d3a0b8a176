"""The page of incidents, the open ones first, with links to their reports."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, select_autoescape

from runbook_lib.errors import RunbookError
from runbook_lib.model import format_time
from runbook_lib.record.history import HistoryRow, list_history
from runbook_lib.record.incident import open_incident
from runbook_lib.redact import Redactor
from runbook_lib.report.render import CSP
from runbook_lib.runbook import load_policy
from runbook_lib.show.tables import get_tone
from runbook_lib.show.text import visible

from .settings import ServeSettings

_MOST_ROWS = 200
_MOST_CHARS = 300
#: The headers of every answer. The first holds a report's content policy, and forbids other pages
#: to embed ours. By the others, a browser guesses no content type, tells no other site our address,
#: and keeps no copy.
HEADERS = {
    "Content-Security-Policy": f"{CSP} frame-ancestors 'none'; form-action 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Row(NamedTuple):
    """One incident as the page and ``/incidents`` show it; what is not known is empty.

    ``report`` is the path of the report's address on this server.
    """

    incident: str
    is_open: bool
    is_drill: bool
    since: str
    cause: str
    verdict: str
    report: str


class Page:
    """Shows the incidents under RUNBOOK_HOME, as ``runbook incidents`` does. Only reads."""

    def __init__(self, settings: ServeSettings) -> None:
        self._home = settings.runbook_home.resolve()
        self._redactor = Redactor(settings.secrets)
        self._environment = Environment(
            loader=PackageLoader("alerting"),
            autoescape=select_autoescape(default=True),
        )

    def list_rows(self) -> list[Row]:
        """Return at most 200 incidents: first the open ones, then the closed ones; newest first."""
        rows = list_history(self._home, load_policy())
        shown = sorted(rows, key=lambda row: not row.is_open)[:_MOST_ROWS]
        return [_make_row(row) for row in shown]

    def render(self, now: datetime) -> str:
        """Return the page. It has no script, and fetches nothing."""
        template = self._environment.get_template("incidents.html")
        return template.render(rows=self.list_rows(), now=now, csp=CSP, get_tone=get_tone)

    def find_page(self, incident_id: str, notebook: str = "") -> Path | None:
        """Return the path of an incident's report, or of a notebook's page; None without one.

        Parameters
        ----------
        notebook : the name of the notebook's page without ``.html``; empty: the report
        """
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


def _make_row(row: HistoryRow) -> Row:
    return Row(
        incident=row.incident,
        is_open=row.is_open,
        is_drill=bool(row.exercise),
        since=format_time(row.opened_at),
        cause=visible(row.cause_found or row.damage)[:_MOST_CHARS],
        verdict=str(row.verdict or "unknown"),
        report=f"/incidents/{row.incident}/report.html",
    )
