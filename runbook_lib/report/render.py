"""Lay a report out as one HTML file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

from markupsafe import Markup

from ..errors import RecordError
from ..model import SYMPTOMS, CauseStatus, Finding, Reading, Role, Verdict
from ..record.incident import Incident
from ..record.log import GENESIS, Entry, utc_now
from ..section import Sections
from ..show.plots import Picture, plot_reading
from ..show.tables import Table, tabulate_facts
from ..show.text import VERDICT_WORDS, safe
from .export import notebook_fragment
from .model import (
    ReportModel,
    format_clock,
    list_facts,
    list_open,
    list_timeline,
    read_report_model,
    write_headline,
)
from .page import render_page
from .versions import read_versions

T = TypeVar("T")

_CONTENTS = (
    ("timeline", "Timeline"),
    ("impact", "Impact"),
    ("detection", "Detection"),
    ("diagnosis", "Diagnosis"),
    ("actions", "Actions"),
    ("physics", "Backlog physics"),
    ("checklist", "Checklist"),
    ("follow-ups", "Follow-ups"),
    ("sections", "Every step"),
    ("record", "Record"),
)
#: In which part of the report a picture stands, by its kind.
_PLACES = {"lag": "detection", "backlog": "impact", "ages": "impact", "carrier": "diagnosis",
           "flow": "physics", "bytes": "physics", "recovery": "physics"}  # fmt: skip
# Facts of an action that its heading and its last line say already.
_SAID_ONCE = {"action", "plan", "sha256", "step", "target", "way_back"}
_TONES = {"healthy": "good", "fixed": "good", "fixed_alert_decaying": "good",
          "incident": "bad", "not_fixed": "bad"}  # fmt: skip
_LIMIT_BYTES = 2_000_000
_MAX_PICTURES = 8
_MAX_NOTEBOOK_CHARACTERS = 120_000


@dataclass(frozen=True, slots=True)
class _Budget:
    """How much a report holds: rows of a table, lines of timeline and journal, outputs."""

    rows: int
    lines: int
    has_notebooks: bool


_BUDGETS = (_Budget(60, 1_500, True), _Budget(10, 500, False), _Budget(3, 100, False))


def write_report(incident: Incident, sections: Sections) -> Path:
    """Write ``report.html`` from the journal and return its path.

    Parameters
    ----------
    incident : the folder; its journal may be empty, cut short or damaged: the report says so
    sections : the runbook's sections

    Raises
    ------
    RecordError
        When the file cannot be written.

    Notes
    -----
    Changes only ``report.html`` in the incident's folder, from one moment to the next. Every
    string passes the incident's redactor before it is escaped.
    """
    model = read_report_model(incident, sections)
    target = incident.folder / "report.html"
    for budget in _BUDGETS:
        html = _render(model, incident, budget)
        if len(html) <= _LIMIT_BYTES:
            break
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(html)
        temporary.replace(target)
    except OSError as error:
        raise RecordError(f"cannot write {target}: {error.strerror}") from error
    return target


def _render(model: ReportModel, incident: Incident, budget: _Budget) -> bytes:
    events, journal = list_timeline(model), model.journal
    made_at = utc_now()
    today = made_at.date()
    concluded = [c for _, c in journal.conclusions]
    about = [c for c in concluded if c.findings]
    forecasts = [c.forecast for c in concluded if c.forecast]
    follow_ups = [c.follow_ups for c in concluded if c.follow_ups]
    page = render_page(
        "report.html",
        incident.redactor,
        model=model,
        headline=write_headline(model),
        tone=_TONES.get(str(model.verdict), "unsure"),
        clear=_clear_words(model, today) if model.verdict is Verdict.FIXED_ALERT_DECAYING else "",
        facts=list_facts(model, today=today),
        open_items=list_open(model),
        contents=_CONTENTS,
        events=_shorten(events, budget.lines),
        events_in_all=len(events),
        notes=_shorten(journal.notes, budget.lines),
        impact=model.of(Role.BACKLOG, Role.TICKET, Role.IMPACT),
        detection=model.of(*SYMPTOMS, Role.DELIVERY),
        delivery=[s.latest for s in model.of(Role.DELIVERY) if s.latest and s.latest.rows],
        checklist=model.of(Role.CLEARED, Role.CHECKLIST),
        findings=sorted(about[-1].findings, key=_rank) if about else [],
        findings_from=about[-1].section if about else "",
        physics=forecasts[-1].model_dump() if forecasts else {},
        effect=_find_effect(model),
        follow_ups=follow_ups[-1] if follow_ups else (),
        pictures=_draw(model),
        notebooks=dict(_fragments(model, incident)) if budget.has_notebooks else {},
        journal=journal.entries[: budget.lines],
        head=(model.journal.entries[-1].seq, model.journal.entries[-1].hash)
        if model.journal.entries
        else (0, GENESIS),
        versions=read_versions(),
        made_at=f"{made_at:%Y-%m-%d %H:%M:%SZ}",
        verdict_words=VERDICT_WORDS,
        details=lambda reading: _details(reading, budget.rows),
        rows_table=lambda rows, caption, names=(): _scroll(Table(caption, rows, names)),
        fact_table=lambda facts, caption: _scroll(tabulate_facts(facts, caption)),
        result_table=lambda result, caption: _scroll(
            tabulate_facts({k: v for k, v in result.items() if k not in _SAID_ONCE}, caption)
        ),
        summary_of=_summarise,
        links=lambda evidence: _link(evidence, model, budget.lines),
    )
    return page.encode("utf-8", "backslashreplace")


def _draw(model: ReportModel) -> dict[str, list[Picture]]:
    """Return the newest picture of each step that has one, by its place in the report."""
    pictures: dict[str, list[Picture]] = {place: [] for place in _PLACES.values()}
    for step in model.steps.values():
        drawn = sum(map(len, pictures.values()))
        found = ((r.plot, plot_reading(r)) for _, r in reversed(step.readings) if r.plot)
        for plot, picture in found:
            if picture is not None and drawn < _MAX_PICTURES:
                pictures[_PLACES[plot.kind]].append(picture)
                break
    return pictures


def _fragments(model: ReportModel, incident: Incident) -> Iterator[tuple[str, Markup]]:
    for section in model.sections:
        if not section.page:
            continue
        source = incident.folder / "notebooks" / section.runs[-1].notebook
        if source.is_file():
            fragment = notebook_fragment(source, incident, for_report=True)
            if len(fragment) <= _MAX_NOTEBOOK_CHARACTERS:
                yield section.name, fragment


def _details(reading: Reading, rows: int) -> Markup:
    parts = []
    if table := reading.rows:
        caption = f"{reading.step}: {min(len(table), rows)} of {len(table)} rows"
        parts.append(_scroll(Table(caption, table[:rows], reading.columns)))
    if reading.text:
        parts.append(Markup("<pre>{}</pre>").format(safe(reading.text, 6_000)))
    if (facts := tabulate_facts(reading.facts, f"{reading.step}: details")).rows:
        parts.append(_scroll(facts))
    return Markup("").join(parts)


def _scroll(table: Table) -> Markup:
    """Return a table that scrolls by itself when it is wider than the page."""
    return Markup('<div class="scroll" tabindex="0" role="region" aria-label="{}">{}</div>').format(
        safe(table.caption, 100), table.to_html()
    )


def _summarise(entry: Entry) -> str:
    """Return one line about a journal entry."""
    data = entry.data.get(entry.kind)
    inner = data if isinstance(data, dict) else entry.data
    names = ("step", "name", "status", "value", "action", "phase", "verdict", "summary", "text",
             "notebook", "error", "kept_as", "reason")  # fmt: skip
    return " · ".join(str(inner[n])[:200] for n in names if inner.get(n) not in (None, "", {}, []))


def _link(evidence: str, model: ReportModel, lines: int) -> Markup:
    """Return a reference into the journal as a link to its anchor, when there is one."""
    if evidence.startswith("#") and evidence[1:].isdigit():
        anchor = f"entry-{evidence[1:]}"
        known = int(evidence[1:]) <= min(len(model.journal.entries), lines)
    else:
        anchor, known = f"step-{evidence}", evidence in model.steps
    link = Markup('<a href="#{}">{}</a>')
    return link.format(anchor, safe(evidence, 60)) if known else safe(evidence, 60)


def _shorten(items: Sequence[T], limit: int) -> list[T]:
    """Return the first and the last items, ``limit`` at most."""
    half = limit // 2
    return list(items) if len(items) <= limit else [*items[:half], *items[-half:]]


def _rank(finding: Finding) -> tuple[int, float]:
    return list(CauseStatus).index(finding.status), -finding.score


def _find_effect(model: ReportModel) -> Reading | None:
    """Return the newest reading of what a release would change that had a plan to look at."""
    found = [r for step in model.of(Role.EFFECT) for _, r in step.readings if r.rows]
    return found[-1] if found else None


def _clear_words(model: ReportModel, today: date) -> str:
    """Say when the alert and the channels will be clear, when section 6 predicted it."""
    clears = [c.clear for _, c in model.journal.conclusions if c.clear]
    if not clears:
        return ""
    alert, channels = clears[-1].latest, clears[-1].channels_latest
    return (
        f"alert clear by {format_clock(alert, today)}, "
        f"channels told by {format_clock(channels, today)}"
    )
