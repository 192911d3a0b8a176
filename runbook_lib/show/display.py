"""How a notebook shows readings, conclusions, actions and plans: one card, as text and as HTML."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from .. import investigation
from ..approvals import Plan
from ..frames import to_frame
from ..investigation import C, S
from ..model import ActionEntry, Conclusion, Reading
from .plots import Picture, plot_reading
from .progress import show_lines
from .tables import Table, get_tone, render_html, tabulate_facts, tabulate_findings, tabulate_plans
from .text import VERDICT_WORDS, count_of, format_value, visible

if TYPE_CHECKING:
    from pandas import DataFrame

#: A card shows at most this many rows of a reading or a plan.
_SHOWN_ROWS = 10


@dataclass(frozen=True)
class Card:
    """What is shown of one thing. A card that is the value of a cell shows itself.

    Attributes
    ----------
    status : a word that stands before the heading as a coloured pill; empty: none
    query : a text to copy, such as PromQL or a URL; it stands under the heading
    lines : stand under the query; an empty line is left out
    link : an address, relative to the notebook
    tables : all but the first are behind a fold; a table without rows is left out
    code : a text behind a fold, such as lines to copy
    """

    heading: str
    status: str = ""
    query: str = ""
    lines: tuple[str, ...] = ()
    link: str = ""
    tables: tuple[Table, ...] = ()
    code: str = ""

    def to_text(self) -> str:
        """Return plain text: heading and lines."""
        heading = self.heading
        if self.status:
            _, icon = get_tone(self.status)
            heading = f"{icon} {self.status} · {heading}"
        lines = [f"  {line}" for line in (self.query, *self.lines) if line]
        if self.link:
            lines.append(f"  Go to {self.link}")
        return visible("\n".join([heading, *lines]))

    def to_html(self) -> Markup:
        """Return HTML in which everything is escaped."""
        return render_html("card.html", card=self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": str(self.to_html()), "text/plain": self.to_text()}


def describe(thing: Any) -> Card:
    """Return the card of a reading, a conclusion, an action, a plan or an investigation."""
    return next(make(thing) for kind, make in _CARDS.items() if isinstance(thing, kind))


def plans(inv: investigation.Investigation[Any, Any], *made: Plan) -> Card:
    """Return a table of plans: what each would change, its short hash, and how far it has come."""
    table = tabulate_plans(inv.journal)
    ids = {plan.id for plan in made}
    rows = [row for row in table.rows if row["plan"] in ids]
    counts = Counter(row["status"] for row in rows)
    text = ", ".join(f"{count} {status}" for status, count in counts.items())
    return Card(f"Plans: {text or 'nothing to do'}", tables=(table._replace(rows=rows),))


def overview(inv: investigation.Investigation[Any, Any]) -> Card:
    """Return a card that says where to go next; `runbook incidents` lists the incidents."""
    step = inv.policy.judge(inv.journal, now=inv.now()).next
    link = f"{step.section}.ipynb" if step.section else ""
    return Card(f"{inv.incident.id}: {step.reason}", link=link)


def file_link(path: Path) -> Card:
    """Return a card with a link to a file, relative to the notebook's folder."""
    return Card(str(path), link=os.path.relpath(path))


@dataclass(frozen=True)
class ShownReading:
    """A reading in a notebook: it shows the judgement, the query, and the first rows.

    Attributes
    ----------
    source : the query, URL or listing, as text
    frame : every row, typed as the step declares
    """

    reading: Reading
    source: str
    frame: DataFrame

    def plot(self, threshold: float | None = None) -> Picture | None:
        """Draw the series that was read; None if there are no two samples to draw."""
        return plot_reading(self.reading, threshold)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return _bundle(self.reading)


def _describe_reading(reading: Reading) -> Card:
    judgement = reading.reason
    if reading.value is not None:
        judgement = f"{format_value(reading.value, reading.unit)}; {judgement}"
    shown = reading.rows[:_SHOWN_ROWS]
    caption = (
        f"{len(shown)} of {count_of(len(reading.rows), 'row')}, read {reading.observed_at:%TZ}"
    )
    return Card(
        f"{reading.step} {reading.name}: {judgement}",
        reading.status,
        query=reading.source,
        tables=(
            Table(caption, shown, reading.columns),
            tabulate_facts(reading.facts, "Details"),
        ),
        code=reading.text,
    )


def _describe_conclusion(conclusion: Conclusion) -> Card:
    return Card(
        f"{VERDICT_WORDS[conclusion.verdict]}: {conclusion.summary}",
        conclusion.verdict,
        lines=conclusion.advice,
        tables=(tabulate_findings(conclusion.findings),),
    )


def _describe_action(entry: ActionEntry) -> Card:
    return Card(
        f"{entry.step} {entry.action} on {entry.target}",
        entry.phase,
        lines=(entry.reason, f"Way back: {entry.undo or 'there is none'}"),
        tables=(tabulate_facts(entry.result, f"{entry.step}: what came of it"),),
    )


def _describe_plan(plan: Plan) -> Card:
    reason = str(plan.summary.get("reason", ""))
    if plan.is_empty:
        return Card(f"{plan.step} {reason or plan.target}", "nothing to do")
    rows = [row.to_json() for row in plan.rows[:_SHOWN_ROWS]]
    caption = f"The first of {count_of(len(plan.rows), 'object')}; all of them: {plan.path}"
    return Card(
        f"{plan.step} {plan.action} on {plan.target}",
        "planned",
        lines=(
            reason,
            f"Nothing was changed. The plan may be approved until {plan.expires_at:%H:%M:%SZ}.",
            f"Way back: {plan.way_back or 'there is none'}",
        ),
        tables=(
            tabulate_facts(plan.summary, f"{plan.step}: what would happen"),
            Table(caption, rows),
        ),
        code=f"plan = {plan.id!r}\napprove = {plan.sha256!r}",
    )


def _describe_investigation(inv: investigation.Investigation[Any, Any]) -> Card:
    folder = f"{inv.settings.runbook_environment}, in {inv.incident.folder}"
    return Card(f"{inv.section.TITLE} on incident {inv.incident.id}", lines=(folder,))


_CARDS: dict[type, Callable[[Any], Card]] = {
    Reading: _describe_reading,
    Conclusion: _describe_conclusion,
    ActionEntry: _describe_action,
    Plan: _describe_plan,
    investigation.Investigation: _describe_investigation,
}


def _bundle(thing: Any) -> dict[str, str]:
    return describe(thing)._repr_mimebundle_()


class Investigation(investigation.Investigation[S, C]):
    """One section at work on one incident; in IPython its values show themselves.

    Attributes
    ----------
    is_by_hand : whether a person runs its cells, one by one
    """

    is_by_hand = False

    def read(self, step_id: str) -> ShownReading:
        """Carry out one step, journal its reading, and return it with its whole frame."""
        reading = self.read_step(step_id)
        columns = self.section.STEPS[step_id].columns
        return ShownReading(reading, reading.source, to_frame(reading.rows, columns))

    def read_all(self, *step_ids: str, **reuse: Any) -> Card:
        """Carry out some steps as ``read_step`` does, and return a table of the readings."""
        readings = [vars(self.read_step(step_id, **reuse)) for step_id in step_ids]
        columns = ("step", "status", "name", "value", "unit", "reason")
        return Card(f"Readings: {len(readings)}", tables=(Table("Readings", readings, columns),))

    def _begin(self) -> None:
        """In IPython, show values and progress."""
        ipython = sys.modules.get("IPython")
        shell: Any = ipython.get_ipython() if ipython else None
        if shell is not None:
            for kind in _CARDS:
                shell.display_formatter.mimebundle_formatter.for_type(kind, _bundle)
            self.progress = show_lines()
            self.is_by_hand = not hasattr(shell, "keeps_notebook")
