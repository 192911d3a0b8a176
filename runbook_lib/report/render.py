"""Lay a report out as one HTML file."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from chainlog import GENESIS, Entry

from ..errors import disk_errors
from ..model import SIGNS, ActionPhase, CauseStatus, Finding, Json, Reading, Role, Status
from ..record.history import PHASES, HistoryRow, describe_last_drill, list_history
from ..record.incident import Incident, write_file
from ..record.journal import ActionRecord, get_told, number_of, utc_now
from ..section import to_rows
from ..show.plots import Picture, plot_reading
from ..show.tables import Table, get_tone, make_environment, pill, sort_findings, tabulate_facts
from ..show.text import format_value, safe
from . import summary
from .model import ReportModel
from .summary import say_causes, say_reading, shorten

if TYPE_CHECKING:
    from jinja2 import Environment

CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:"
"""The policy of every HTML file that we write: nothing is fetched, nothing is run."""
_PACKAGES = ("fulfillment-runbook", "minio", "papermill", "nbclient", "pandas", "pydantic")
_LIMIT_BYTES = 2_000_000
#: Rows of a table and lines of the journal: what fits first.
_BUDGETS = ((60, 1_500), (10, 500), (3, 100))


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
    Changes only these two files in the incident's folder, each from one moment to the next.
    Every string of the model has passed the incident's redactor; here it is escaped.
    """
    target = incident.folder / "report.html"
    for rows, lines in _BUDGETS:
        html = _Page(model, incident, rows, lines).render()
        if len(html.encode("utf-8", "backslashreplace")) <= _LIMIT_BYTES:
            break
    told = incident.redactor.text(summary.summarise(model, target.resolve().as_uri()))
    with disk_errors(f"cannot write {target}"):
        write_file(target.with_name("summary.txt"), told)
        write_file(target, html)
    return target


class _Page:
    """The report's parts, each laid out: every table is one of ``show.tables``."""

    def __init__(self, model: ReportModel, incident: Incident, rows: int, lines: int) -> None:
        self._model, self._incident, self._rows, self._lines = model, incident, rows, lines
        shown, steps = model.journal.entries[:lines], model.steps.values()
        self._anchors = {f"#{e.seq}": f"entry-{e.seq}" for e in shown}
        self._anchors |= {step.id: f"step-{step.id}" for step in steps}
        self._cited = {f"#{r.seq}": r for r in model.journal.readings}
        self._cited |= {step.id: step.worst for step in steps if step.worst}

    def render(self) -> str:
        """Return the whole page."""
        model, journal = self._model, self._model.journal
        outcome = {True: "passed", False: "failed", None: str(model.verdict or "")}
        concluded = journal.conclusions
        judged = (c.summary for c in concluded[::-1] if c.verdict is model.verdict and c.findings)
        effects = [r for r in journal.readings if r.role is Role.EFFECT and r.rows]
        return render_page(
            "report.html",
            page=self,
            model=model,
            tone=get_tone(outcome[model.has_passed] or "unknown")[0],
            outcome=outcome[model.has_passed],
            judged=next(judged, ""),
            summary=summary,
            notes=shorten(journal.notes, self._lines),
            delivery=[s.latest for s in model.of(Role.DELIVERY) if s.latest],
            checklist=model.of(Role.CLEARED, Role.CHECKLIST),
            forecast=next((c.forecast.model_dump() for c in concluded if c.forecast), {}),
            effect=max(effects, key=lambda r: number_of(r.value) or 0, default=None),
            follow_ups=next((c.follow_ups for c in concluded[::-1] if c.follow_ups), ()),
            journal=journal.entries[: self._lines],
            head=(journal.entries or [Entry(0, utc_now(), "", {}, "", GENESIS)])[-1],
            versions=read_versions(),
            last_drill=describe_last_drill(self._incident.folder.parent, utc_now()),
            made_at=utc_now(),
            table=lambda rows, caption, *names: scroll(Table(caption, rows, names)),
            summary_of=_summarise,
        )

    def tabulate_signals(self) -> Markup:
        names, values = ("step", "what", "at its worst", "at the end", "why"), []
        for step in self._model.of(*SIGNS - {Role.LOG}):
            worst, end = _say_status(step.worst), _say_status(step.latest, step.worst)
            why = step.worst.reason if step.worst else "the journal has no entry for this"
            values.append((self.link(step.id), step.title, worst, end, why))
        return scroll(Table("What was seen, and who was told", to_rows(names, values)))

    def tabulate_trend(self) -> Markup:
        found = {row.incident: row for row in list_history(self._incident.folder.parent)}
        now = found.get(self._incident.id)
        same = [row for row in found.values() if now and row.scenario == now.scenario]
        before = next((row for row in same if row.incident < self._incident.id), None)
        names = ("what", "this drill", f"the drill before: {before.incident if before else 'none'}")
        values = [(p.removesuffix("_s"), _say_time(now, p), _say_time(before, p)) for p in PHASES]
        return scroll(Table("How long it took, beside the drill before", to_rows(names, values)))

    def tabulate_causes(self) -> list[tuple[int, Markup]]:
        """Return the causes that stood open, and the refuted: when it mattered, and at the end.

        It mattered before the first change, when most spoke for what was the cause.
        """
        told = [c for c in self._model.journal.conclusions if c.findings]
        if not told:
            return []
        applied = self._model.journal.list_actions(ActionPhase.APPLIED)
        before = [c for c in told if not applied or c.seq < applied[0].seq] or told
        named = {cause.name for cause in self._model.causes}
        weight = {c.seq: sum(f.score for f in c.findings if f.name in named) for c in before}
        then = max(before, key=lambda c: (weight[c.seq], c.seq))
        end, newest = told[-1], {f.name: f for f in told[-1].findings}
        groups: tuple[list[dict[str, Json]], list[dict[str, Json]]] = ([], [])
        for first in sort_findings(then.findings):
            last = newest.get(first.name, first)
            row: dict[str, Json] = {"cause": say_causes([first])}
            row[f"when it mattered, {then.at:%H:%M:%SZ}"] = _say_finding(first)
            if end is not then:
                row[f"at the end, {end.at:%H:%M:%SZ}"] = _say_finding(last)
            row["evidence"] = Markup("<br>").join(map(self._cite, first.evidence))
            groups[{first.status, last.status} == {CauseStatus.REFUTED}].append(row)
        captions = ("Causes, the most supported first", "Causes that the evidence refutes")
        return [(len(rows), scroll(Table(captions[i], rows))) for i, rows in enumerate(groups)]

    def _cite(self, evidence: str) -> Markup:
        """Return what a reference into the journal says, with a link to it."""
        if (reading := self._cited.get(evidence)) is None:
            return self.link(evidence)
        words = safe(f"{reading.name}: {say_reading(reading)}", 200)
        return Markup("{} {}").format(self.link(evidence, reading.step), words)

    def link(self, evidence: str, text: str = "") -> Markup:
        """Return a reference into the journal as a link to its anchor, when there is one."""
        words, anchor = safe(text or evidence, 60), self._anchors.get(evidence)
        return Markup('<a href="#{}">{}</a>').format(anchor, words) if anchor else words

    def tabulate_phases(self, action: ActionRecord) -> Markup:
        values = [
            (str(a.phase), f"{a.at:%H:%M:%SZ}", a.operator or "–", a.reason, self.link(f"#{a.seq}"))
            for a in action.phases
            if a is action.get(a.phase)  # planned twice, it is one plan
        ]
        rows = to_rows(("phase", "when", "by", "what", "entry"), values)
        caption = f"{action.first.step}: from plan to proof, {action.first.at:%Y-%m-%d}"
        return scroll(Table(caption, rows))

    def draw(self) -> dict[str, list[Picture]]:
        """Return a picture of each step that has one: ages as of the worst, lines to the end."""
        pictures: dict[str, list[Picture]] = {}
        for step in self._model.steps.values():
            ages = [r for r in (step.worst,) if r and r.plot and r.plot.ages]
            for reading in (*ages, *reversed(step.readings)):
                lines = reading.plot.lines if reading.plot else ()
                is_drawable = any(len(line.points) > 1 for line in lines) or reading in ages
                if reading.plot and is_drawable and (picture := plot_reading(reading)):
                    pictures.setdefault(reading.plot.part, []).append(picture)
                    break
        return pictures

    def details(self, reading: Reading) -> Markup:
        shown = reading.rows[: self._rows]
        caption = f"{reading.step}: {len(shown)} of {len(reading.rows)} rows"
        facts = tabulate_facts(reading.facts, f"{reading.step}: details")
        text = Markup("<pre>{}</pre>").format(safe(reading.text, 6_000))
        rows = scroll(Table(caption, shown, reading.columns)) if shown else ""
        return Markup("").join((rows, text * bool(reading.text), scroll(facts) * bool(facts.rows)))


def render_page(template: str, **values: Any) -> str:
    """Render a template: each value is made visible and escaped, in this order."""
    return _load_templates().get_template(template).render(csp=CSP, **values)


@cache
def _load_templates() -> Environment:
    templates = make_environment("runbook_lib.report", partial(safe, limit=6_000))
    templates.filters |= {"pill": pill, "value": format_value, "trusted": Markup, "facts": tabulate}
    return templates


def tabulate(facts: Mapping[str, Json], caption: str) -> Markup:
    """Return facts as a table of name and value."""
    return scroll(tabulate_facts(facts, caption))


def scroll(table: Table) -> Markup:
    """Return a table that scrolls by itself when it is wider than the page."""
    frame = Markup('<div class="scroll" tabindex="0" role="region" aria-label="{}">{}</div>')
    return frame.format(safe(table.caption, 100), table.to_html())


def read_versions() -> dict[str, str]:
    """Return versions by name; what is not known says so."""
    found = {"Python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    here = str(Path(__file__).parent)
    command = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"]
    commit = "not known: git did not answer"
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        commit = done.stdout.strip() or "not a git checkout"
    return found | {"commit": commit}


def _say_time(drill: HistoryRow | None, phase: str) -> str:
    seconds = getattr(drill, phase, None)
    return "–" if seconds is None else f"{seconds:g} s"


def _say_finding(finding: Finding) -> Markup:
    return Markup("{} {}").format(pill(str(finding.status)), safe(finding.reason))


def _say_status(reading: Reading | None, earlier: Reading | None = None) -> Markup:
    if reading is None:
        return pill("not run")
    if reading is earlier and reading.status in (Status.BREACH, Status.UNKNOWN):
        return Markup("not read again")
    return Markup("{} {}").format(pill(str(reading.status)), safe(say_reading(reading), 200))


def _summarise(entry: Entry) -> str:
    """Return one line about a journal entry."""
    told = get_told(entry)
    names = ("step", "name", "status", "value", "action", "phase", "verdict", "summary", "text",
             "notebook", "error", "kept_as", "event", "reason")  # fmt: skip
    return " · ".join(str(told[n])[:200] for n in names if told.get(n) not in (None, "", {}, []))
