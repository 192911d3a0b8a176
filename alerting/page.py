"""The page of incidents, the open ones first, with links to their reports."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, select_autoescape

from runbook_lib.errors import RunbookError, UsageError
from runbook_lib.model import format_time
from runbook_lib.policy import say_causes
from runbook_lib.record.history import HistoryRow, list_history
from runbook_lib.record.incident import Incident, open_incident
from runbook_lib.redact import Redactor
from runbook_lib.report.render import CSP
from runbook_lib.runbook import load_policy
from runbook_lib.show.tables import get_tone
from runbook_lib.show.text import format_duration, visible

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
    """One incident as the page and ``/incidents`` show it.

    Attributes
    ----------
    state : ``open`` or ``closed``
    since : when the trouble began; if no breach was seen, when the incident was opened
    affected : the impact, in words; empty when it is not known
    verdict_at, verdict_age_s : when something was last read or changed, and how long ago; empty
        and None when nothing was, or when the incident cannot be read
    report : the path of the report's address on this server
    """

    incident: str
    is_open: bool
    is_drill: bool
    state: str
    since: str
    cause: str
    affected: str
    verdict: str
    verdict_at: str
    verdict_age_s: float | None
    report: str


class Page:
    """Shows the incidents under RUNBOOK_HOME. Only reads."""

    def __init__(self, settings: ServeSettings) -> None:
        self._home = settings.runbook_home.resolve()
        self._redactor = Redactor(settings.secrets)
        self._environment = Environment(
            loader=PackageLoader("alerting"),
            autoescape=select_autoescape(default=True),
        )

    def list_rows(self, now: datetime) -> list[Row]:
        """Return at most 200 incidents: first the open ones, then the closed ones; newest first."""
        rows = list_history(self._home, load_policy())
        shown = sorted(rows, key=lambda row: not row.is_open)[:_MOST_ROWS]
        return [self._make_row(row, now) for row in shown]

    def _make_row(self, row: HistoryRow, now: datetime) -> Row:
        """Return what an incident's journal says now; if it cannot be read, what the history says.

        If the history knows no cause of a damaged incident, the cause says what is damaged.
        """
        policy = load_policy()
        since = row.opened_at
        verdict = str(row.verdict or "")
        verdict_at: datetime | None = None
        cause = row.cause_found
        affected = ""
        is_drill = bool(row.scenario)
        try:
            incident = open_incident(self._home, row.incident, redactor=self._redactor)
            if incident is not None:
                is_drill = incident.state.drill
                journal = incident.journal.view()
                since = policy.find_ends(journal).since or since
                verdict = str(policy.compute_verdict(journal) or verdict)
                cause = say_causes(policy.list_causes(journal)) or cause
                affected = str(policy.compute_impact(journal))
                verdict_at = journal.last_look_at
        except RunbookError:
            cause = cause or row.damage or "cannot be read"
        age_s = (now - verdict_at).total_seconds() if verdict_at else None
        return Row(
            incident=row.incident,
            is_open=row.is_open,
            is_drill=is_drill,
            state="open" if row.is_open else "closed",
            since=format_time(since),
            cause=_clip(cause),
            affected=_clip(affected),
            verdict=verdict or "unknown",
            verdict_at=format_time(verdict_at) if verdict_at else "",
            verdict_age_s=age_s,
            report=f"/incidents/{row.incident}/report.html",
        )

    def render(self, now: datetime) -> str:
        """Return the page. It has no script, and fetches nothing."""
        template = self._environment.get_template("incidents.html")
        return template.render(
            rows=self.list_rows(now),
            now=now,
            csp=CSP,
            get_tone=get_tone,
            say_age=_say_age,
        )

    def find_report(self, incident_id: str) -> Path | None:
        """Return the path of an incident's report; None when there is none."""
        incident = self._find_incident(incident_id)
        if incident is None:
            return None
        path = incident.folder / "report.html"
        return path if path.is_file() else None

    def find_notebook(self, incident_id: str, name: str) -> Path | None:
        """Return the path of a notebook's page that a report links to; None when there is none.

        Parameters
        ----------
        name : the name of the page without ``.html``
        """
        incident = self._find_incident(incident_id)
        if incident is None:
            return None
        try:
            path = incident.path("notebooks", f"{name}.html")
        except UsageError:
            return None
        return path if path.is_file() else None

    def _find_incident(self, incident_id: str) -> Incident | None:
        try:
            return open_incident(self._home, incident_id, redactor=self._redactor)
        except RunbookError:
            return None


def _say_age(row: Row, now: datetime) -> str:
    """Say how old a verdict is; empty when it has no time."""
    if row.verdict_age_s is None:
        return ""
    return f"{format_duration(now - datetime.fromisoformat(row.verdict_at))} ago"


def _clip(text: str) -> str:
    """Show invisible characters, and cut the text after 300 characters."""
    shown = visible(text)
    return shown if len(shown) <= _MOST_CHARS else f"{shown[:_MOST_CHARS]}…"
