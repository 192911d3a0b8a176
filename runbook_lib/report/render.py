"""Lay out a report as one HTML file, and the files beside it."""

import csv
import io
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from ..errors import disk_errors
from ..language import gettext
from ..model import Role, format_time
from ..record.incident import Incident, write_file, write_json
from ..record.journal import utc_now
from ..show.tables import get_tone, render_html
from ..show.text import format_value, visible
from .model import ReportModel, Summary, draw_waiting, list_signals, summarise

CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"
"""The content policy of every HTML file that we write: fetch and run nothing."""


def write_report(incident: Incident, model: ReportModel) -> Path:
    """Write ``report.html``, and its summary in the forms that other systems take.

    Raises RecordError if a file can't be written. The model's strings have passed the incident's
    redactor.
    """
    target = incident.folder / "report.html"
    summary = summarise(model)
    request = model.policy.request
    page = render_html(
        "report.html",
        csp=CSP,
        model=model,
        summary=summary,
        tone=get_tone(model.outcome),
        waiting=draw_waiting(model),
        backlog=model.of(Role.BACKLOG),
        signals=list(list_signals(model)),
        findings=model.journal.diagnosis.findings,
        evidence={f"#{reading.seq}": reading for reading in model.journal.readings},
        checklist=model.of(Role.CLEARED, Role.CHECKLIST),
        made_at=utc_now(),
    )
    files = {
        "summary.txt": incident.redactor.text(write_summary(summary, target.resolve().as_uri())),
        "report.md": render_html("report.md", summary=summary, noun=request),
        f"affected_{request}s.csv": _write_requests(request, model.impact.requests),
        target.name: page,
    }
    with disk_errors(f"cannot write {target}"):
        facts = summary.model_dump(mode="json", by_alias=True)
        write_json(target.with_suffix(".json"), facts)
        for name, text in files.items():
            write_file(target.with_name(name), text)
    return target


def write_summary(summary: Summary, link: str) -> str:
    """Return a few lines for a chat or a ticket."""
    tasks = [f"{task.text} ({task.owner or gettext('nobody yet')})" for task in summary.do_next]
    numbers = [number for number in summary.numbers if number.value is not None]
    fields = {
        "Verdict": f"{summary.state}, SEV-{summary.severity}: {summary.title} ({summary.incident})",
        "Time": f"{gettext('since')} {format_value(summary.since)}; "
        f"{gettext('until')} {format_value(summary.until)}",
        "What happened": " ".join(summary.story),
        "Numbers": "; ".join(
            f"{format_value(each.value, each.unit)} {each.words}" for each in numbers
        ),
        "Do next": "; ".join(tasks),
        "Report": link,
    }
    lines = [
        f"{gettext(name)}: {' '.join(visible(text).split())}"
        for name, text in fields.items()
        if text
    ]
    return "\n".join([*lines, ""])


def _write_requests(name: str, requests: Mapping[str, tuple[datetime, datetime]]) -> str:
    """Return a CSV of the requests held back, and when each was first and last seen late."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow((name, "first_seen", "last_seen"))
    for request_id, (first, last) in requests.items():
        writer.writerow((request_id, format_time(first), format_time(last)))
    return file.getvalue()
