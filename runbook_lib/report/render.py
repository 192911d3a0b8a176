"""Lay a report out as one HTML file."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from chainlog import GENESIS, Entry

from ..errors import disk_errors
from ..model import (
    SIGNS,
    CauseStatus,
    Finding,
    Json,
    Lesson,
    Note,
    Reading,
    Role,
)
from ..policy import say_causes
from ..record.actions import ActionRecord
from ..record.incident import Incident, write_file
from ..record.journal import utc_now
from ..record.notes import list_lessons, list_other_notes
from ..record.view import get_content
from ..runbook import find_runbook, name_runbook
from ..show.plots import Picture, plot_reading
from ..show.tables import Table, get_tone, make_environment, pill, sort_findings, tabulate_facts
from ..show.text import clip, format_value, safe
from . import summary
from .model import ReportModel, ReportStep
from .summary import say_reading, shorten

if TYPE_CHECKING:
    from jinja2 import Environment

CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"
"""The content policy of every HTML file that we write: nothing is fetched, nothing is run."""
_PACKAGES = ("papermill", "nbclient", "pandas", "pydantic")
#: A larger page is laid out again, with the next smaller budget.
_LIMIT_BYTES = 2_000_000
#: A tag, or an incident's id in the text between tags, perhaps within the place of its report.
_TAG_OR_ID = re.compile(r"<[^>]*>|(?:\.\./)?(inc-\d{8}T\d{6}Z-[0-9a-f]{4})(?:/report\.html)?")
#: The head of a journal without entries.
_NO_ENTRY = Entry(0, datetime.min.replace(tzinfo=UTC), "", {}, "", GENESIS)
_LESSONS = {
    Lesson.WELL: "What went well",
    Lesson.BADLY: "What went badly",
    Lesson.LUCK: "Where we were lucky",
}
#: A longer field of a journal entry is cut off.
_ENTRY_CHARS = 200
#: Fields of a journal entry that make up its line in the report.
_ENTRY_FIELDS = (
    "step",
    "name",
    "status",
    "value",
    "action",
    "phase",
    "verdict",
    "summary",
    "text",
    "notebook",
    "error",
    "kept_as",
    "event",
    "reason",
)


class _Budget(NamedTuple):
    """How many rows of each reading, and how many lines of the journal, a page shows."""

    table_rows: int
    journal_lines: int


#: From the largest to the smallest. The first that keeps the page small enough counts, else the
#: last.
_BUDGETS = (_Budget(60, 1_500), _Budget(10, 500), _Budget(3, 100))


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
    Changes these two files in the incident's folder, each in one step, the pictures that the folder
    keeps. Every string of the model has passed the incident's
    redactor. The templates escape every string.
    """
    target = incident.folder / "report.html"
    for budget in _BUDGETS:
        page = _Page(model, budget)
        html = _link_reports(page.render(), own_id=incident.id)
        content = html.encode("utf-8", "backslashreplace")
        if len(content) <= _LIMIT_BYTES:
            break
    link = target.resolve().as_uri()
    text = incident.redactor.text(summary.summarise(model, link))
    with disk_errors(f"cannot write {target}"):
        write_file(target.with_name("summary.txt"), text)
        write_file(target, html)
    return target


def _link_reports(html: str, *, own_id: str) -> str:
    """Return a page in which each other incident's id, or report's place, links to its report."""

    def link(match: re.Match[str]) -> str:
        incident_id = match[1]
        if incident_id in (None, own_id):
            return match[0]
        return f'<a href="../{incident_id}/report.html">{match[0]}</a>'

    return _TAG_OR_ID.sub(link, html)


class _Page:
    """The report's parts, each laid out: every table is one of ``show.tables``.

    A reference into the journal is ``#`` with an entry's number, or the id of a step.
    """

    def __init__(self, model: ReportModel, budget: _Budget) -> None:
        self._model = model
        self._budget = budget
        self._shown_entries = model.journal.entries[: budget.journal_lines]
        # The anchor and the reading of each reference.
        self._anchors = {f"#{entry.seq}": f"entry-{entry.seq}" for entry in self._shown_entries}
        self._readings = {f"#{reading.seq}": reading for reading in model.journal.readings}
        for step in model.steps.values():
            self._anchors[step.id] = f"step-{step.id}"
            if step.worst:
                self._readings[step.id] = step.worst

    def render(self) -> str:
        """Return the whole page."""
        model = self._model
        whole_journal = model.journal
        outcome = self._name_outcome()
        tone, _ = get_tone(outcome or "unknown")
        return render_page(
            "report.html",
            page=self,
            model=model,
            tone=tone,
            outcome=outcome,
            summary=summary,
            describe_action=model.policy.describe_action,
            name_runbook=name_runbook,
            notes=shorten(list_other_notes(whole_journal), self._budget.journal_lines),
            lessons=_LESSONS,
            delivery=self._list_deliveries(),
            diagnosis=model.section_with(Role.CAUSE),
            checklist=self._list_checklist(),
            effect=self._find_effect(),
            follow_ups=self._list_follow_ups(),
            journal=self._shown_entries,
            head=whole_journal.entries[-1] if whole_journal.entries else _NO_ENTRY,
            versions=read_versions(),
            made_at=utc_now(),
            table=_tabulate_rows,
            describe_entry=_describe_entry,
        )

    def _name_outcome(self) -> str:
        """Return what decides the page's colour: whether a drill passed, else the verdict."""
        has_passed = self._model.has_passed
        if has_passed is None:
            return str(self._model.verdict or "")
        return "passed" if has_passed else "failed"

    def _list_deliveries(self) -> list[Reading]:
        """Return the newest reading with rows of each step that reads deliveries.

        Once the alert is over, a step has no rows any more.
        """
        deliveries: list[Reading] = []
        for step in self._model.of(Role.DELIVERY):
            with_rows = [reading for reading in step.readings if reading.rows]
            deliveries += with_rows[-1:]
        return deliveries

    def list_lessons(self, lesson: Lesson) -> list[Note]:
        """Return the notes of one lesson: what went well, what went badly, or where luck helped."""
        notes = list_lessons(self._model.journal, lesson)
        return shorten(notes, self._budget.journal_lines)

    def _list_checklist(self) -> list[tuple[ReportStep, str]]:
        """Return the points of the checklist, each with the number of its section."""
        points = []
        for step in self._model.of(Role.CLEARED, Role.CHECKLIST):
            section = self._model.find_section_of(step.id)
            points.append((step, section.number))
        return points

    def _find_effect(self) -> Reading | None:
        """Return the newest reading of the effect that a plan would have; None without any."""
        readings = self._model.journal.readings
        effects = [reading for reading in readings if reading.role is Role.EFFECT and reading.rows]
        return effects[-1] if effects else None

    def _list_follow_ups(self) -> tuple[str, ...]:
        """Return what is to be done after the incident, by the last conclusion that says so."""
        for conclusion in reversed(self._model.journal.conclusions):
            if conclusion.follow_ups:
                return conclusion.follow_ups
        return ()

    def tabulate_signals(self) -> Markup:
        """Return a table of the worst and the newest reading of each step that can show trouble."""
        roles = SIGNS - {Role.LOG}
        rows = []
        for step in self._model.of(*roles):
            is_read_again = step.latest is not step.worst
            row = {
                "step": self.link(step.id),
                "what": step.title,
                "worst reading": _say_status(step.worst),
                "read again": _say_status(step.latest) if is_read_again else "",
                "why": step.worst.reason if step.worst else "",
            }
            rows.append(row)
        return scroll(Table("What was seen, and who was told", rows))

    def tabulate_causes(self) -> list[tuple[int, Markup]]:
        """Return two tables, each with its number of rows: open causes, and refuted ones.

        A cause has the last finding that supports it; if none does, its newest one. The tables are
        empty without a diagnosis.
        """
        findings: dict[str, Finding] = {}
        for conclusion in self._model.journal.conclusions:
            for finding in conclusion.findings:
                known = findings.get(finding.name)
                is_supported = finding.status is CauseStatus.SUPPORTED
                if is_supported or known is None or known.status is not CauseStatus.SUPPORTED:
                    findings[finding.name] = finding
        shown = sort_findings(findings.values())
        refuted = [finding for finding in shown if finding.status is CauseStatus.REFUTED]
        open_causes = [finding for finding in shown if finding not in refuted]
        return [
            self._tabulate_findings(open_causes, "Causes, the most supported first"),
            self._tabulate_findings(refuted, "Causes that the evidence refutes"),
        ]

    def _tabulate_findings(self, findings: list[Finding], caption: str) -> tuple[int, Markup]:
        """Return how many findings there are, and a table of them with their evidence."""
        rows = []
        for finding in findings:
            row = {"cause": say_causes([finding]), "what was found": self._say_finding(finding)}
            rows.append(row)
        return len(rows), scroll(Table(caption, rows))

    def _say_finding(self, finding: Finding) -> Markup:
        """Return a finding's status and reason, and below them the evidence, a line each."""
        lines = [Markup("{} {}").format(pill(str(finding.status)), safe(finding.reason))]
        for evidence in finding.evidence:
            line = Markup('<span class="soft small">{}</span>').format(self._cite(evidence))
            lines.append(line)
        return Markup("<br>").join(lines)

    def _cite(self, evidence: str) -> Markup:
        """Return a link to a finding's evidence; if the evidence is a reading, also its words.

        Parameters
        ----------
        evidence : a reference into the journal
        """
        reading = self._readings.get(evidence)
        if reading is None:
            return self.link(evidence)
        link = self.link(evidence, reading.step)
        words = safe(f"{reading.name}: {say_reading(reading)}", 200)
        return Markup("{} {}").format(link, words)

    def link(self, evidence: str, text: str = "") -> Markup:
        """Return a reference into the journal as a link; as text if the page has no such anchor.

        Parameters
        ----------
        evidence : the reference
        text : stands in place of the reference; empty: the reference itself
        """
        words = safe(text or evidence, 60)
        anchor = self._anchors.get(evidence)
        if anchor is None:
            return words
        return Markup('<a href="#{}">{}</a>').format(anchor, words)

    def tabulate_phases(self, action: ActionRecord) -> Markup:
        """Return an action's phases as a table: a row for each entry of the journal."""
        rows = []
        for entry in action.phases:
            row = {
                "phase": str(entry.phase),
                "when": f"{entry.at:%H:%M:%SZ}",
                "by": entry.operator or "–",
                "what": entry.reason,
                "entry": self.link(f"#{entry.seq}"),
            }
            rows.append(row)
        first = action.first
        caption = f"{first.step}: from plan to proof, {first.at:%Y-%m-%d}"
        return scroll(Table(caption, rows))

    def draw(self) -> dict[str, list[Picture]]:
        """Return the report's pictures, one for each step: the keys are the parts of the report."""
        pictures: dict[str, list[Picture]] = {}
        for step in self._model.steps.values():
            for reading in _list_drawable(step):
                since = self._model.since
                picture = plot_reading(reading, since=since, folder=self._model.pictures)
                if reading.plot and picture:
                    part = pictures.setdefault(reading.plot.part, [])
                    part.append(picture)
                    break  # one picture for each step
        return pictures

    def details(self, reading: Reading) -> Markup:
        """Return what a reading holds beside its value: rows, text and facts. May be empty."""
        parts = []
        rows = reading.rows[: self._budget.table_rows]
        if rows:
            caption = f"{reading.step}: {len(rows)} of {len(reading.rows)} rows that were kept"
            table = Table(caption, rows, reading.columns)
            parts.append(scroll(table))
        if reading.text:
            text = safe(reading.text, 6_000)
            parts.append(Markup("<pre>{}</pre>").format(text))
        facts = tabulate_facts(reading.facts, f"{reading.step}: details")
        if facts.rows:
            parts.append(scroll(facts))
        return Markup("").join(parts)


def _list_drawable(step: ReportStep) -> list[Reading]:
    """Return the readings of a step that may be drawn, the best first.

    The worst reading comes first if its plot shows ages. Then come the readings whose plot has a
    line of two points or more, the newest first.
    """
    readings = []
    worst = step.worst
    if worst and worst.plot and worst.plot.ages:
        readings.append(worst)
    for reading in reversed(step.readings):
        if reading.plot is None:
            continue
        lengths = [len(line.points) for line in reading.plot.lines]
        if max(lengths, default=0) > 1:
            readings.append(reading)
    return readings


def render_page(template: str, **values: Any) -> str:
    """Render a template. Each value is escaped, and its control characters are made visible."""
    page = _load_templates().get_template(template)
    return page.render(csp=CSP, **values)


@cache
def _load_templates() -> Environment:
    """Return the report's templates, with the filters that they use."""
    finalize = partial(safe, limit=6_000)
    templates = make_environment("runbook_lib.report", finalize)
    templates.filters["pill"] = pill
    templates.filters["value"] = format_value
    templates.filters["trusted"] = Markup
    templates.filters["facts"] = tabulate
    return templates


def tabulate(facts: Mapping[str, Json], caption: str) -> Markup:
    """Return facts as a table of name and value."""
    return scroll(tabulate_facts(facts, caption))


def scroll(table: Table) -> Markup:
    """Return a table that scrolls by itself when it is wider than the page."""
    frame = Markup('<div class="scroll" tabindex="0" role="region" aria-label="{}">{}</div>')
    label = safe(table.caption, 100)
    return frame.format(label, table.to_html())


def _tabulate_rows(rows: Sequence[Mapping[str, Json]], caption: str, *names: str) -> Markup:
    return scroll(Table(caption, rows, names))


def read_versions() -> dict[str, str]:
    """Return the versions of Python and of packages, and the commit that this runs from.

    The keys are ``Python``, the packages' names, and ``commit``.
    """
    versions = {"Python": platform.python_version()}
    for package in (*find_runbook().packages, *_PACKAGES):
        versions[package] = version(package)
    versions["commit"] = _read_commit()
    return versions


def _read_commit() -> str:
    """Return the commit of the checkout that this runs from, or why it is not known."""
    folder = str(Path(__file__).parent)
    command = ["git", "-C", folder, "describe", "--always", "--dirty", "--abbrev=40"]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        return done.stdout.strip() or "not a git checkout"
    return "not known: git did not answer"


def _say_status(reading: Reading | None) -> Markup:
    """Return a reading's status, value and time."""
    if reading is None:
        return pill("not run")
    status = pill(str(reading.status))
    value = safe(say_reading(reading), 200)
    return Markup("{} {} at {}").format(status, value, f"{reading.observed_at:%H:%M:%SZ}")


def _describe_entry(entry: Entry) -> str:
    """Return the fields of a journal entry that say most, in one line."""
    content = get_content(entry)
    parts = []
    for name in _ENTRY_FIELDS:
        value = content.get(name)
        if value not in (None, "", {}, []):
            parts.append(clip(str(value), _ENTRY_CHARS))
    return " · ".join(parts)
