"""Lay a report out as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import disk_errors
from ..model import SIGNS, CauseStatus, Lesson, Reading, Role
from ..policy import say_causes
from ..record.incident import Incident, write_file
from ..record.journal import utc_now
from ..record.notes import list_follow_ups
from ..show.plots import Picture, plot_reading
from ..show.tables import get_tone, render_html, sort_findings
from ..show.text import format_value, visible
from .model import (
    ReportModel,
    list_events,
    list_open,
    summarise,
)

if TYPE_CHECKING:
    pass

CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"
"""The content policy of every HTML file that we write: nothing is fetched, nothing is run."""
_LESSONS = {
    "What went well": Lesson.WELL,
    "What went badly": Lesson.BADLY,
    "Where we were lucky": Lesson.LUCK,
}


def write_report(incident: Incident, model: ReportModel) -> Path:
    """Write ``report.html`` and ``summary.txt`` from the journal; return the report's path.

    Parameters
    ----------
    incident : the folder; its journal may be empty, cut short or damaged: the report says so
    model : what its journal holds

    Raises
    ------
    RecordError
        When a file cannot be written.

    Notes
    -----
    Changes these two files in the incident's folder, each in one step. Every string of the model
    has passed the incident's redactor. The templates escape every string.
    """
    target = incident.folder / "report.html"
    html = render_report(model)
    text = incident.redactor.text(write_summary(model, target.resolve().as_uri()))
    with disk_errors(f"cannot write {target}"):
        write_file(target.with_name("summary.txt"), text)
        write_file(target, html)
    return target


def write_summary(model: ReportModel, link: str) -> str:
    """Return the incident in a few lines, for a chat or a ticket."""
    told = summarise(model)
    detected = ""
    if told.detected:
        detected = f"{told.detected.name}, {format_value(told.detected.at)}"
    times = f"since {format_value(model.since)}; until {format_value(model.until)}"
    fields = {
        "Verdict": f"{told.headline} ({model.incident_id})",
        "Cause": "; ".join(f"{say_causes([cause])}: {cause.reason}" for cause in model.causes),
        "Trigger": told.trigger.text if told.trigger else "",
        "Detected": detected,
        "Numbers": f"{model.impact}; {times}",
        "Action": "; ".join(f"{done.text} ({done.proof})" for done in told.done),
        "To do": "; ".join(note.text for note in list_follow_ups(model.journal)),
        "Report": link,
    }
    lines = [f"{name}: {' '.join(visible(text).split())}" for name, text in fields.items() if text]
    return "\n".join([*lines, ""])


def render_report(model: ReportModel) -> str:
    """Return the whole page."""
    outcome = model.verdict or ""
    if model.score is not None:
        outcome = "passed" if model.score.is_good else "failed"
    journal = model.journal
    findings = {finding.name: finding for finding in journal.findings()}
    # What an earlier diagnosis supported stays supported here.
    findings |= {cause.name: cause for cause in model.causes}
    ordered = sort_findings(findings.values())
    evidence: dict[str, Reading] = {f"#{reading.seq}": reading for reading in journal.readings}
    evidence |= {step.id: step.worst for step in model.steps.values() if step.worst}
    return render_html(
        "report.html",
        csp=CSP,
        model=model,
        tone=get_tone(outcome or "unknown")[0],
        outcome=outcome,
        told=summarise(model),
        open_items=list(list_open(model)),
        rows=list_events(model),
        signals=model.of(*(SIGNS - {Role.LOG})),
        causes=[finding for finding in ordered if finding.status is not CauseStatus.REFUTED],
        refuted=[finding for finding in ordered if finding.status is CauseStatus.REFUTED],
        evidence=evidence,
        pictures=_draw(model),
        owned=list_follow_ups(journal),
        lessons=_LESSONS,
        checklist=model.of(Role.CLEARED, Role.CHECKLIST),
        follow_ups=next((c.follow_ups for c in journal.conclusions[::-1] if c.follow_ups), ()),
        made_at=utc_now(),
    )


def _draw(model: ReportModel) -> dict[str, list[Picture]]:
    """Return the newest picture of each step that has one: the keys are the report's parts."""
    pictures: dict[str, list[Picture]] = {}
    for step in model.steps.values():
        for reading in reversed(step.readings):
            picture = plot_reading(reading)
            if reading.plot and picture:
                pictures.setdefault(reading.plot.part, []).append(picture)
                break
    return pictures
