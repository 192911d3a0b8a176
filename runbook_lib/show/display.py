"""How a notebook shows readings, conclusions, actions and plans: one card, as text and as HTML."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from .. import investigation
from ..approvals import Plan
from ..frames import to_rows
from ..investigation import C, S
from ..model import ActionEntry, ActionPhase, CauseStatus, Conclusion, Json, Reading
from ..policy import make_log_entry
from ..record.actions import group_actions
from ..record.history import list_history
from ..record.incident import Incident, write_json
from .progress import make_bars
from .tables import Table, get_tone, render_html, tabulate_facts, tabulate_findings, tabulate_plans
from .text import VERDICT_WORDS, clip, count_of, format_bytes, format_value, safe, visible

if TYPE_CHECKING:
    from pandas import DataFrame


def record_cells(shell: Any, incident: Incident, section: str) -> Callable[[], None]:
    """Keep the cells that a kernel runs from now on in a notebook's file.

    Each cell is kept with its last value or its error.

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
    Writes to the journal once, with the first cell, and writes the file after each cell. So the
    file does not depend on what a front end saves.
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
        notebook = {
            "cells": cells,
            "metadata": {},
            "nbformat": 4,
            "nbformat_minor": 4,
        }
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
        output: dict[str, Json] = {
            "output_type": "error",
            "ename": type(error).__name__,
            "evalue": str(error),
            "traceback": [],
        }
        return [output]
    if result.result is None:
        return []
    forms, _ = shell.display_formatter.format(result.result)
    output = {
        "output_type": "display_data",
        "data": forms,
        "metadata": {},
    }
    return [output]


#: A card shows at most this many rows of a reading, objects of a plan, and events.
_SHOWN_ROWS = 20
_SHOWN_OBJECTS = 100
_SHOWN_EVENTS = 60
_INCIDENT_COLUMNS = ("incident", "opened_at", "closed_at", "scenario", "verdict")
# Fields of an action that its card shows outside the table of facts.
_SHOWN_ABOVE = {"action", "plan", "sha256", "step", "target", "way_back", "reason", "expires_at"}
_NEXT = {
    ActionPhase.PLANNED: "To carry it out, approve it above and run this cell again.",
    ActionPhase.APPLIED: "Next: check the effect. The check must say verified.",
    ActionPhase.VERIFIED: "Next: the next plan of the table above. After the last, look again.",
    ActionPhase.FAILED: "Next: read the reason. Do not plan again before you know what changed.",
}


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
            first_line = f"{icon} {self.status} · {self.heading} {self.text}".strip()
        parts = [first_line]
        parts += [f"  {line}" for line in self.lines if line]
        if self.link:
            address, words = self.link
            parts.append(f"  {words}: {address}")
        parts += [table.to_text() for table in self.tables if not table.is_folded]
        parts += [f"  {line}" for line in self.code.splitlines()]
        text = "\n".join(part for part in parts if part)
        return visible(clip(text, 8_000))

    def to_html(self) -> Markup:
        """Return HTML in which everything is escaped."""
        long_text = safe(self.long_text, 6_000)
        return render_html("card.html", card=self, long_text=long_text)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        html = self.to_html()
        return {"text/html": str(html), "text/plain": self.to_text()}


def describe(thing: Any) -> Card:
    """Return the card of a reading, a conclusion, an action, a plan or an investigation."""
    for kind, make in _CARDS.items():
        if isinstance(thing, kind):
            return make(thing)
    raise TypeError(f"there is no card of a {type(thing).__name__}")


def plans(inv: investigation.Investigation[Any, Any], *made: Plan) -> Card:
    """Return a table of plans: what each would change, its short hash, and how far it has come."""
    all_plans = tabulate_plans(inv.journal)
    ids = {plan.id for plan in made}
    rows = [row for row in all_plans.rows if row["plan"] in ids]
    actions = [action for action in group_actions(inv.journal.actions) if action.plan in ids]
    planned = [a for a in actions if a.state == ActionPhase.PLANNED and not a.is_empty]
    done = [action for action in actions if action.applied is not None]
    unproven = [action for action in done if not (action.is_verified or action.is_settled)]
    text = f"{count_of(len(planned), 'plan')} to approve, {len(done)} carried out."
    if unproven:
        text += f" {len(unproven)} not proven."
    if not (done or any(action.is_cut_off for action in actions)):
        text += " Nothing was changed."
    table = all_plans._replace(rows=rows)
    return Card(text=text, tables=(table,))


def overview(inv: investigation.Investigation[Any, Any]) -> Card:
    """Return a card of this incident, the newest ones, and where to go next."""
    rows = list_history(inv.incident.folder.parent, inv.policy)[:5]
    newest = Table("The newest", [row.model_dump() for row in rows], _INCIDENT_COLUMNS)
    log = make_log_entry(inv.policy, inv.journal, now=inv.now())
    this_incident = tabulate_facts(log, "This incident")
    section, reason = inv.policy.choose_next(inv.journal, now=inv.now())
    link = None
    if section:
        link = (f"{section}.ipynb", f"Go to {section}")
    return Card(reason, link=link, tables=(this_incident, newest))


def file_link(path: Path) -> Card:
    """Return a card with a link to a file, relative to the notebook's folder."""
    href = os.path.relpath(path).replace(os.sep, "/")
    size = format_bytes(path.stat().st_size)
    words = f"{path.name} ({size})"
    return Card(lines=(str(path),), link=(href, words))


def _describe_reading(reading: Reading) -> Card:
    heading = f"{reading.step} {reading.name}:"
    value = format_value(reading.value, reading.unit)
    if reading.threshold:
        value += f" (breach when {reading.threshold})"
    shown_rows = reading.rows[:_SHOWN_ROWS]
    how_many = count_of(len(reading.rows), "row")
    if len(shown_rows) < len(reading.rows):
        how_many = f"{len(shown_rows)} of {how_many}"
    caption = f"{heading} {how_many}"
    table = Table(caption, shown_rows, reading.columns, is_folded=not reading.columns)
    details = tabulate_facts(reading.facts, f"{reading.step}: details", is_folded=True)
    read_at = f"{reading.observed_at:%Y-%m-%d %H:%M:%SZ}"
    return Card(
        heading,
        value,
        reading.status,
        lines=(reading.reason, f"read {read_at} from {reading.source}"),
        tables=(table, details),
        long_text=reading.text,
    )


def describe_frame(frame: DataFrame) -> Card:
    """Return a frame's first rows as a table; its content is escaped."""
    rows = to_rows(frame.head(_SHOWN_ROWS))
    caption = count_of(len(frame), "row")
    if not rows:
        return Card(text=caption)
    if len(rows) < len(frame):
        caption = f"{len(rows)} of {caption}"
    names = [str(name) for name in frame.columns]
    table = Table(caption, rows, names)
    return Card(tables=(table,))


def _describe_conclusion(conclusion: Conclusion) -> Card:
    refuted = []
    others = []
    for finding in conclusion.findings:
        if finding.status is CauseStatus.REFUTED:
            refuted.append(finding)
        else:
            others.append(finding)
    events = [asdict(event) for event in conclusion.timeline[-_SHOWN_EVENTS:]]
    happened = f"What happened, UTC: the last {len(events)} of {len(conclusion.timeline)}"
    lines = list(conclusion.advice)
    if conclusion.unknown_steps:
        unknown = ", ".join(conclusion.unknown_steps)
        lines.append(f"Steps that were not read, or are unknown: {unknown}")
    verdict = VERDICT_WORDS[conclusion.verdict]
    return Card(
        f"{verdict}:",
        conclusion.summary,
        conclusion.verdict,
        lines=tuple(lines),
        tables=(
            tabulate_findings(others, "Causes, the most supported first"),
            tabulate_findings(refuted, count_of(len(refuted), "refuted cause"), is_folded=True),
            Table(happened, events, is_folded=True),
        ),
    )


def _describe_action(entry: ActionEntry) -> Card:
    facts = _leave_out_shown_above(entry.result)
    # A check without facts belongs to a plan with nothing to do, which needs no way back.
    if entry.phase is ActionPhase.VERIFIED and not facts:
        return Card(entry.step, entry.reason, "nothing to do")
    lines = [entry.reason]
    if entry.undo:
        lines.append(f"Way back: {entry.undo}")
    lines.append(_NEXT.get(entry.phase, ""))
    table = tabulate_facts(facts, "What came of it", is_folded=True)
    return Card(
        entry.step,
        f"{entry.action} on {entry.target}",
        entry.phase,
        lines=tuple(lines),
        tables=(table,),
    )


def _leave_out_shown_above(facts: Mapping[str, Json]) -> dict[str, Json]:
    """Return an action's facts without those that its card shows outside the table."""
    return {name: value for name, value in facts.items() if name not in _SHOWN_ABOVE}


def _describe_plan(plan: Plan) -> Card:
    reason = str(plan.summary.get("reason") or "")
    if plan.is_empty:
        return Card(plan.step, reason or plan.target, "nothing to do")
    effect = {}
    details = {}
    for name, value in _leave_out_shown_above(plan.summary).items():
        # An approver must see at once what is excluded.
        is_unfolded = name == "excluded" or not isinstance(value, list | dict)
        if is_unfolded:
            effect[name] = value
        else:
            details[name] = value
    effect["way_back"] = plan.way_back or "there is none"
    objects = [row.to_json() for row in plan.rows[:_SHOWN_OBJECTS]]
    total = count_of(len(plan.rows), "object")
    caption = f"{len(objects)} of {total}; all of them: {plan.path}"
    state = f"Nothing was changed. The plan may be approved until {plan.expires_at:%H:%M:%SZ}."
    return Card(
        plan.step,
        f"{plan.action} on {plan.target}",
        "planned",
        lines=(reason, state),
        tables=(
            tabulate_facts(effect, "What would happen"),
            tabulate_facts(details, "More about the plan", is_folded=True),
            Table(caption, objects, is_folded=True),
        ),
        code=f"plan = {plan.id!r}\napprove = {plan.sha256!r}",
    )


def _describe_investigation(inv: investigation.Investigation[Any, Any]) -> Card:
    incident = inv.incident
    facts = {
        "opened": incident.state.opened_at,
        "journal entries": inv.journal.last_seq,
        "environment": inv.settings.runbook_environment,
        "ticket": inv.ticket_id or "none",
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
    card = describe(thing)
    return card._repr_mimebundle_()


def _show_frame(frame: DataFrame) -> dict[str, str]:
    card = describe_frame(frame)
    return card._repr_mimebundle_()


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
        formatter.for_type_by_name("pandas", "DataFrame", _show_frame)
        self.progress = make_bars()
        if getattr(shell, "keeps_notebook", False):
            return  # a headless run
        if hasattr(shell, "stop_recording"):
            shell.stop_recording()
        shell.stop_recording = record_cells(shell, self.incident, self.section.NAME)
        self.is_by_hand = True
