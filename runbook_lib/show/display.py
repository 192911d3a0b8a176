"""How a notebook shows readings, conclusions, actions and plans: one card, as text and as HTML."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from .. import investigation
from ..approvals import Plan
from ..investigation import C, S
from ..model import ActionEntry, ActionPhase, CauseStatus, Conclusion, Json, Reading
from ..record.history import list_history
from ..record.incident import Incident, write_json
from .progress import make_bars
from .tables import Table, get_tone, render_html, tabulate_facts, tabulate_findings, tabulate_plans
from .text import VERDICT_WORDS, clip, count_of, format_bytes, format_value, safe, visible

#: A card shows at most this many rows of a reading, objects of a plan, and events.
_SHOWN_ROWS = 20
_SHOWN_OBJECTS = 100
_SHOWN_EVENTS = 60
_INCIDENT_COLUMNS = ("incident", "scenario", "opened_at", "closed_at", "verdict")
# Fields of an action that its card shows outside the table of facts.
_SHOWN_ABOVE = {"action", "plan", "sha256", "step", "target", "way_back", "reason", "expires_at"}


def record_cells(shell: Any, incident: Incident, section: str) -> Callable[[], None]:
    """Keep the cells that a kernel runs from now on in a notebook's file.

    Each cell is kept with its last value or its error, whatever a front end saves.

    Parameters
    ----------
    shell : IPython's; it reports each cell
    incident : its folder ``notebooks/`` gets the file
    section : the section's name

    Returns
    -------
    A function that stops the recording.

    Notes
    -----
    Writes to the journal once, with the first cell, and writes the file after each cell.
    """
    path = incident.find_free_notebook(section)
    cells: list[dict[str, Json]] = []

    def keep(result: Any) -> None:
        if not result.info.store_history:
            return  # not a person's cell
        cell = {
            "cell_type": "code",
            "execution_count": None,
            "metadata": {},
            "source": result.info.raw_cell,
            "outputs": _list_outputs(shell, result),
        }
        cells.append(cell)
        notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
        with incident.keep_open() as may_write:
            if not may_write:
                return  # the incident is over and gets no more files
            if len(cells) == 1:
                run = {"section": section, "notebook": path.name, "status": "by_hand"}
                incident.journal.append("notebook", run)
            write_json(path, incident.redactor.json(notebook))

    shell.events.register("post_run_cell", keep)
    return partial(shell.events.unregister, "post_run_cell", keep)


def _list_outputs(shell: Any, result: Any) -> list[dict[str, Json]]:
    """Return a cell's error, or its last value, as a notebook's file holds it."""
    error = result.error_before_exec or result.error_in_exec
    if error:
        name = type(error).__name__
        return [{"output_type": "error", "ename": name, "evalue": str(error), "traceback": []}]
    if result.result is None:
        return []
    forms, _ = shell.display_formatter.format(result.result)
    return [{"output_type": "display_data", "data": forms, "metadata": {}}]


class Card(NamedTuple):
    """What is shown of one thing. A card that is the value of a cell shows itself.

    Attributes
    ----------
    heading, text : the first line; the heading is bold
    status : a word that stands before heading and text as a coloured pill; empty: none
    lines : stand under the first line; an empty line is left out
    link : an address and the words to click; None: no link
    tables : a table without rows is left out
    code : lines to copy into a cell; behind a fold in HTML
    long_text : shown in HTML only, behind a fold
    """

    heading: str = ""
    text: str = ""
    status: str = ""
    lines: tuple[str, ...] = ()
    link: tuple[str, str] | None = None
    tables: tuple[Table, ...] = ()
    code: str = ""
    long_text: str = ""

    def to_text(self) -> str:
        """Return plain text, without folded tables and the long text."""
        first_line = f"{self.heading} {self.text}".strip()
        if self.status:
            _, icon = get_tone(self.status)
            first_line = f"{icon} {self.status} · {first_line}"
        parts = [first_line]
        parts += [f"  {line}" for line in self.lines if line]
        if self.link:
            address, words = self.link
            parts.append(f"  {words}: {address}")
        parts += [table.to_text() for table in self.tables if not table.is_folded]
        parts += [f"  {line}" for line in self.code.splitlines()]
        return visible(clip("\n".join(filter(None, parts)), 8_000))

    def to_html(self) -> Markup:
        """Return HTML in which everything is escaped."""
        return render_html("card.html", card=self, long_text=safe(self.long_text, 6_000))

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": str(self.to_html()), "text/plain": self.to_text()}


def describe(thing: Any) -> Card:
    """Return the card of a reading, a conclusion, an action, a plan or an investigation."""
    for kind, make in _CARDS.items():
        if isinstance(thing, kind):
            return make(thing)
    raise TypeError(f"there is no card of a {type(thing).__name__}")


def plans(inv: investigation.Investigation[Any, Any], *made: Plan) -> Card:
    """Return a table of plans: what each would change, its short hash, and how far it has come."""
    table = tabulate_plans(inv.journal)
    ids = {plan.id for plan in made}
    rows = [row for row in table.rows if row["plan"] in ids]
    counts = Counter(row["status"] for row in rows)
    text = ", ".join(f"{count} {status}" for status, count in counts.items())
    return Card("Plans:", text or "nothing to do", tables=(table._replace(rows=rows),))


def overview(inv: investigation.Investigation[Any, Any]) -> Card:
    """Return a card of this incident, the newest ones, and where to go next."""
    rows = list_history(inv.incident.folder.parent, inv.policy)
    newest = [row.model_dump() for row in rows[:5]]
    judgement = inv.policy.judge(inv.journal, now=inv.now())
    section, reason = judgement.next if judgement else inv.policy.first_step
    return Card(
        f"{inv.incident.id}:",
        reason,
        link=(f"{section}.ipynb", f"Go to {section}") if section else None,
        tables=(Table("The newest incidents and drills", newest, _INCIDENT_COLUMNS),),
    )


def file_link(path: Path) -> Card:
    """Return a card with a link to a file, relative to the notebook's folder."""
    href = os.path.relpath(path).replace(os.sep, "/")
    size = format_bytes(path.stat().st_size)
    return Card(lines=(str(path),), link=(href, f"{path.name} ({size})"))


def _describe_reading(reading: Reading) -> Card:
    heading = f"{reading.step} {reading.name}:"
    value = format_value(reading.value, reading.unit)
    if reading.threshold:
        value += f" (breach when {reading.threshold})"
    caption = f"{heading} {_count_shown(len(reading.rows), _SHOWN_ROWS, 'row')}"
    rows = reading.rows[:_SHOWN_ROWS]
    read_at = f"{reading.observed_at:%Y-%m-%d %H:%M:%SZ}"
    return Card(
        heading,
        value,
        reading.status,
        lines=(reading.reason, f"read {read_at} from {reading.source}"),
        tables=(
            Table(caption, rows, reading.columns, is_folded=not reading.columns),
            tabulate_facts(reading.facts, f"{reading.step}: details", is_folded=True),
        ),
        long_text=reading.text,
    )


def _count_shown(number: int, limit: int, noun: str) -> str:
    """Say how many of some things are shown, such as ``20 of 30 rows``."""
    words = count_of(number, noun)
    return words if number <= limit else f"{limit} of {words}"


def _describe_conclusion(conclusion: Conclusion) -> Card:
    findings = [f for f in conclusion.findings if f.status is not CauseStatus.REFUTED]
    events = [asdict(event) for event in conclusion.timeline[-_SHOWN_EVENTS:]]
    return Card(
        f"{VERDICT_WORDS[conclusion.verdict]}:",
        conclusion.summary,
        conclusion.verdict,
        lines=conclusion.advice,
        tables=(
            tabulate_findings(findings, "Causes, the most supported first"),
            Table(f"The last {count_of(len(events), 'event')}, UTC", events, is_folded=True),
        ),
    )


def _describe_action(entry: ActionEntry) -> Card:
    facts = _leave_out_shown_above(entry.result)
    # A check without facts belongs to a plan with nothing to do, which needs no way back.
    if entry.phase is ActionPhase.VERIFIED and not facts:
        return Card(entry.step, entry.reason, "nothing to do")
    way_back = entry.undo or "there is none"
    return Card(
        entry.step,
        f"{entry.action} on {entry.target}",
        entry.phase,
        lines=(entry.reason, f"Way back: {way_back}"),
        tables=(tabulate_facts(facts, "What came of it", is_folded=True),),
    )


def _leave_out_shown_above(facts: Mapping[str, Json]) -> dict[str, Json]:
    """Return an action's facts without those that its card shows outside the table."""
    return {name: value for name, value in facts.items() if name not in _SHOWN_ABOVE}


def _describe_plan(plan: Plan) -> Card:
    reason = str(plan.summary.get("reason") or "")
    if plan.is_empty:
        return Card(plan.step, reason or plan.target, "nothing to do")
    effect = _leave_out_shown_above(plan.summary)
    effect["way_back"] = plan.way_back or "there is none"
    objects = [row.to_json() for row in plan.rows[:_SHOWN_OBJECTS]]
    shown = _count_shown(len(plan.rows), _SHOWN_OBJECTS, "object")
    state = f"Nothing was changed. The plan may be approved until {plan.expires_at:%H:%M:%SZ}."
    return Card(
        plan.step,
        f"{plan.action} on {plan.target}",
        "planned",
        lines=(reason, state),
        tables=(
            tabulate_facts(effect, "What would happen"),
            Table(f"{shown}; all of them: {plan.path}", objects, is_folded=True),
        ),
        code=f"plan = {plan.id!r}\napprove = {plan.sha256!r}",
    )


def _describe_investigation(inv: investigation.Investigation[Any, Any]) -> Card:
    incident = inv.incident
    facts = {
        "opened": incident.state.opened_at,
        "environment": inv.settings.runbook_environment,
        "ticket": inv.ticket_id,
        "folder": str(incident.folder),
    }
    table = tabulate_facts(facts, "This incident", is_folded=True)
    return Card(inv.section.TITLE, f"on incident {incident.id}", tables=(table,))


_CARDS: dict[type, Callable[[Any], Card]] = {
    Reading: _describe_reading,
    Conclusion: _describe_conclusion,
    ActionEntry: _describe_action,
    Plan: _describe_plan,
    investigation.Investigation: _describe_investigation,
}


def _show(thing: Any) -> dict[str, str]:
    return describe(thing)._repr_mimebundle_()


class Investigation(investigation.Investigation[S, C]):
    """One section at work on one incident; in IPython its values show themselves.

    Attributes
    ----------
    is_by_hand : whether a person runs its cells, one by one
    """

    is_by_hand = False

    def _begin(self) -> None:
        """Journal that the section begins. In IPython, also show values and progress.

        If a person runs the cells, keep them in a notebook's file, too. A headless run keeps its
        own notebook.
        """
        super()._begin()
        ipython = sys.modules.get("IPython")
        shell: Any = ipython.get_ipython() if ipython else None
        if shell is None:
            return
        formatter = shell.display_formatter.mimebundle_formatter
        for kind in _CARDS:
            formatter.for_type(kind, _show)
        self.progress = make_bars()
        if getattr(shell, "keeps_notebook", False):
            return  # a headless run
        if hasattr(shell, "stop_recording"):
            shell.stop_recording()
        shell.stop_recording = record_cells(shell, self.incident, self.section.NAME)
        self.is_by_hand = True
