"""Lay a report out as one HTML file."""

from __future__ import annotations

import platform
import re
from datetime import datetime
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..errors import disk_errors
from ..model import SIGNS, CauseStatus, Finding, Lesson, Reading, Role
from ..policy import say_causes
from ..record.actions import ActionRecord
from ..record.incident import Incident, write_file
from ..record.journal import utc_now
from ..record.notes import list_follow_ups, list_lessons, list_other_notes
from ..runbook import find_runbook, name_runbook
from ..show.plots import Picture, plot_reading
from ..show.tables import Table, get_tone, make_environment, pill, sort_findings, tabulate_facts
from ..show.text import count_of, format_duration, format_value, safe, visible
from . import summary
from .model import ReportModel, ReportStep

if TYPE_CHECKING:
    from jinja2 import Environment

CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"
"""The content policy of every HTML file that we write: nothing is fetched, nothing is run."""
_PACKAGES = ("papermill", "nbclient", "pandas", "pydantic")
#: How many rows of a reading, readings of a step, and notes a page shows.
_MOST_ROWS = 40
_MOST_NOTES = 500
#: A tag, or an incident's id in the text between tags, perhaps within the place of its report.
_TAG_OR_ID = re.compile(r"<[^>]*>|(?:\.\./)?(inc-\d{8}T\d{6}Z-[0-9a-f]{4})(?:/report\.html)?")
_LESSONS = {
    Lesson.WELL: "What went well",
    Lesson.BADLY: "What went badly",
    Lesson.LUCK: "Where we were lucky",
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
    html = _link_reports(render_report(model), own_id=incident.id)
    text = incident.redactor.text(write_summary(model, target.resolve().as_uri()))
    with disk_errors(f"cannot write {target}"):
        write_file(target.with_name("summary.txt"), text)
        write_file(target, html)
    return target


def write_summary(model: ReportModel, link: str) -> str:
    """Return the incident in a few lines, for a chat or a ticket."""
    told = summary.summarise(model)
    since = format_value(told.since)
    until = format_value(told.until)
    fields = {
        "Verdict": f"{told.headline} ({model.incident_id})",
        "Cause": "; ".join(f"{say_causes([cause])}: {cause.reason}" for cause in told.causes),
        "Trigger": told.trigger.text if told.trigger else "",
        "Detected": f"{told.detected.name}, {format_value(told.detected.at)}"
        if told.detected
        else "",
        "Numbers": f"{told.affected}; since {since}; until {until}",
        "Action": "; ".join(f"{done.text} ({done.proof})" for done in told.done),
        "To do": "; ".join(note.text for note in list_follow_ups(model.journal)),
        "Report": link,
    }
    lines = [
        f"{name}: {' '.join(visible(text).split())}\n" for name, text in fields.items() if text
    ]
    return "".join(lines)


def _link_reports(html: str, *, own_id: str) -> str:
    """Return a page in which each other incident's id, or report's place, links to its report."""

    def link(match: re.Match[str]) -> str:
        if match[1] in (None, own_id):
            return match[0]
        return f'<a href="../{match[1]}/report.html">{match[0]}</a>'

    return _TAG_OR_ID.sub(link, html)


def render_report(model: ReportModel) -> str:
    """Return the whole page."""
    outcome = model.verdict or ""
    if model.has_passed is not None:
        outcome = "passed" if model.has_passed else "failed"
    follow_ups = [c.follow_ups for c in model.journal.conclusions if c.follow_ups]
    journal = model.journal
    return render_page(
        "report.html",
        page=_Page(model),
        model=model,
        tone=get_tone(outcome or "unknown")[0],
        outcome=outcome,
        told=summary.summarise(model),
        open_items=summary.list_open(model),
        rows=summary.list_events(model),
        describe_action=model.policy.describe_action,
        name_runbook=name_runbook,
        notes=summary.shorten(list_other_notes(journal), _MOST_NOTES),
        owned=list_follow_ups(journal),
        lessons={heading: list_lessons(journal, lesson) for lesson, heading in _LESSONS.items()},
        checklist=model.of(Role.CLEARED, Role.CHECKLIST),
        follow_ups=follow_ups[-1] if follow_ups else (),
        versions=read_versions(),
        made_at=utc_now(),
    )


class _Page:
    """The parts of the report that are tables, links and pictures.

    A reference into the journal is ``#`` with an entry's number, or the id of a step.
    """

    def __init__(self, model: ReportModel) -> None:
        self._model = model
        self._readings = {f"#{reading.seq}": reading for reading in model.journal.readings}
        self._readings |= {step.id: step.worst for step in model.steps.values() if step.worst}

    def link(self, step: str) -> Markup:
        """Return a step's id as a link to what the page shows of the step."""
        return Markup('<a href="#step-{}">{}</a>').format(step, step)

    def tabulate_signals(self) -> Markup:
        """Return a table of the worst and the newest reading of each step that can show trouble."""
        rows = []
        for step in self._model.of(*(SIGNS - {Role.LOG})):
            row = {
                "step": self.link(step.id),
                "what": step.title,
                "worst reading": _say_reading(step.worst),
                "read again": "" if step.latest is step.worst else _say_reading(step.latest),
                "why": step.worst.reason if step.worst else "",
            }
            rows.append(row)
        return scroll(Table("What was seen, and who was told", rows))

    def list_causes(self, *, refuted: bool) -> list[Finding]:
        """Return the causes that the evidence refutes, or the others, the most supported first.

        What an earlier diagnosis supported stays supported here.
        """
        findings = {finding.name: finding for finding in self._model.journal.findings()}
        findings |= {cause.name: cause for cause in self._model.causes}
        return [
            finding
            for finding in sort_findings(findings.values())
            if (finding.status is CauseStatus.REFUTED) is refuted
        ]

    def tabulate_causes(self, findings: list[Finding], caption: str) -> Markup:
        """Return a table of findings with their evidence."""
        rows = []
        for finding in findings:
            row = {
                "cause": say_causes([finding]),
                "status": str(finding.status),
                "why": finding.reason,
                "evidence": Markup("<br>").join(map(self._cite, finding.evidence)),
            }
            rows.append(row)
        return scroll(Table(caption, rows))

    def _cite(self, reference: str) -> Markup:
        """Return a finding's evidence: a reading and its words, or the reference as it is."""
        reading = self._readings.get(reference)
        if reading is None:
            return safe(reference, 60)
        words = f"{reading.name}: {format_value(reading.value, reading.unit)}"
        return Markup("{} {}").format(self.link(reading.step), safe(words, 200))

    def tabulate_phases(self, action: ActionRecord) -> Markup:
        """Return an action's phases as a table: a row for each entry of the journal."""
        rows = []
        for entry in action.phases:
            row = {
                "phase": str(entry.phase),
                "when": f"{entry.at:%H:%M:%SZ}",
                "by": entry.operator or "–",
                "what": entry.reason,
            }
            rows.append(row)
        first = action.first
        return scroll(Table(f"{first.step}: from plan to proof, {first.at:%Y-%m-%d}", rows))

    def tabulate_follow_ups(self) -> Markup:
        """Return a table of the follow-ups that people wrote down, sorted by due day."""
        rows = [note.model_dump(mode="json") for note in list_follow_ups(self._model.journal)]
        columns = ("text", "owner", "due", "ticket")
        return scroll(Table("Follow-ups, sorted by due day", rows, columns))

    def draw(self) -> dict[str, list[Picture]]:
        """Return the newest picture of each step that has one: the keys are the report's parts."""
        pictures: dict[str, list[Picture]] = {}
        for step in self._model.steps.values():
            for reading in reversed(step.readings):
                picture = plot_reading(reading, since=self._model.since)
                if reading.plot and picture:
                    pictures.setdefault(reading.plot.part, []).append(picture)
                    break
        return pictures

    def details(self, step: ReportStep) -> Markup:
        """Return every reading of a step, and rows, text and facts of the newest."""
        reading = step.readings[-1]
        history = [
            {"reading": _say_reading(each), "why": each.reason}
            for each in step.readings[-_MOST_ROWS:]
        ]
        parts = [scroll(Table(f"{step.id}: {count_of(len(step.readings), 'reading')}", history))]
        rows = reading.rows[:_MOST_ROWS]
        if rows:
            caption = f"{reading.step}: {len(rows)} of {count_of(len(reading.rows), 'row')}"
            parts.append(scroll(Table(caption, rows, reading.columns)))
        if reading.text:
            box = Markup('<pre tabindex="0">{}</pre>')
            parts.append(box.format(safe(reading.text, 6_000)))
        facts = tabulate_facts(reading.facts, f"{reading.step}: details")
        if facts.rows:
            parts.append(scroll(facts))
        return Markup("").join(parts)


def render_page(template: str, **values: Any) -> str:
    """Render a template. Each value is escaped, and its control characters are made visible."""
    return _load_templates().get_template(template).render(csp=CSP, **values)


@cache
def _load_templates() -> Environment:
    """Return the report's templates, with the filters that they use."""
    templates = make_environment("runbook_lib.report", partial(safe, limit=6_000))
    templates.filters["pill"] = pill
    templates.filters["value"] = format_value
    templates.filters["trusted"] = Markup
    templates.filters["facts"] = lambda facts, caption: scroll(tabulate_facts(facts, caption))
    templates.filters["duration"] = format_duration
    templates.filters["causes"] = say_causes
    templates.filters["local"] = _format_local
    templates.filters["sentence"] = summary.capitalise
    templates.globals["table"] = lambda rows, caption, *names: scroll(Table(caption, rows, names))
    return templates


def _format_local(at: datetime) -> str:
    """Write a time of day as this machine's clock shows it, with its zone."""
    local = at.astimezone()
    zone = f"{local:%z}"
    return f"{local:%H:%M:%S} local time (UTC{zone[:3]}:{zone[3:]})"


def scroll(table: Table) -> Markup:
    """Return a table that scrolls by itself when it is wider than the page."""
    frame = Markup('<div class="scroll" tabindex="0" role="region" aria-label="{}">{}</div>')
    return frame.format(safe(table.caption, 100), table.to_html())


def read_versions() -> dict[str, str]:
    """Return the versions of Python and of packages, by name."""
    versions = {"Python": platform.python_version()}
    for package in (*find_runbook().packages, *_PACKAGES):
        versions[package] = version(package)
    return versions


def _say_reading(reading: Reading | None) -> Markup:
    """Return a reading's status, value and time."""
    if reading is None:
        return pill("not run")
    value = safe(format_value(reading.value, reading.unit), 200)
    status = pill(str(reading.status))
    return Markup("{} {} at {}").format(status, value, f"{reading.observed_at:%H:%M:%SZ}")
