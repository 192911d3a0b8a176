"""Cards: how a notebook shows readings, conclusions, actions and plans, as text and HTML."""

import json
import os
import sys
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from rich.console import Console

from .. import investigation
from ..approvals import Plan
from ..frames import TEXT, to_frame
from ..investigation import C, S
from ..language import gettext
from ..model import ActionEntry, Conclusion, Reading, count_of
from ..runbook import load_policy
from .plots import Picture, plot_reading
from .progress import print_lines
from .tables import Table, get_tone, render_html, tabulate_facts, tabulate_findings, tabulate_plans
from .text import format_value, visible

if TYPE_CHECKING:
    from pandas import DataFrame

_SHOWN_ROWS = 10


@dataclass(frozen=True)
class Card:
    """What a cell shows of one thing. Empty lines, and tables without rows, are left out.

    Attributes
    ----------
    status : a coloured pill before the heading
    query : to be copied, such as PromQL or a URL
    link : relative to the notebook
    tables : all but the first are folded
    text : folded, such as a log
    """

    heading: str
    status: str = ""
    query: str = ""
    lines: tuple[str, ...] = ()
    link: str = ""
    tables: tuple[Table, ...] = ()
    text: str = ""

    def to_text(self) -> str:
        """Return heading, query, lines and link as plain text."""
        lines = [self.heading, self.query, *self.lines]
        if self.status:
            _, icon = get_tone(self.status)
            lines[0] = f"{icon} {self.status} · {self.heading}"
        if self.link:
            lines.append(f"Go to {self.link}")
        return visible("\n  ".join(filter(None, lines)))

    def to_html(self) -> Markup:
        return render_html("card.html", card=self)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": str(self.to_html()), "text/plain": self.to_text()}


@singledispatch
def describe(thing: object) -> Card:
    """Return the card of a reading, conclusion, action, plan, file or investigation."""
    return Card(str(thing))


@dataclass(frozen=True)
class ShownReading:
    """A reading in a notebook: judgement, query, and first rows.

    ``frame`` has every row, typed as the step declares.
    """

    reading: Reading
    frame: "DataFrame"

    def plot(self, threshold: float | None = None) -> Picture | Card:
        """Draw the reading's series, with a ``threshold`` in place of the reading's own."""
        return plot_reading(self.reading, threshold) or Card("There are no two samples to draw.")

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return _bundle(self.reading)


@describe.register
def _describe_reading(reading: Reading) -> Card:
    judgement = reading.reason
    # If the value is a word, the reason says as much.
    if isinstance(reading.value, int | float):
        judgement = f"{format_value(reading.value, reading.unit)}; {judgement}"
    shown = reading.rows[:_SHOWN_ROWS]
    caption = (
        f"{len(shown)} of {count_of(len(reading.rows), 'row')}, read {reading.observed_at:%TZ}"
    )
    return Card(
        f"{reading.step} {reading.name}: {judgement}",
        reading.status,
        query=reading.source,
        tables=(Table(caption, shown, reading.columns), tabulate_facts(reading.facts, "Details")),
        text=reading.text,
    )


@describe.register
def _describe_conclusion(conclusion: Conclusion) -> Card:
    return Card(
        conclusion.summary,
        conclusion.verdict,
        lines=conclusion.advice,
        tables=(tabulate_findings(conclusion.findings),),
    )


@describe.register
def _describe_action(entry: ActionEntry) -> Card:
    if entry.action == "none":
        return Card(f"{entry.step} {entry.reason}", "nothing to do")
    keys = entry.result.get("keys")
    return Card(
        f"{entry.step} {entry.action} on {entry.target}",
        entry.phase,
        lines=(entry.reason, f"Way back: {entry.undo or 'there is none'}"),
        tables=(tabulate_facts({**entry.result, "keys": None}, "Result"),),
        text=json.dumps(keys, indent=2) if keys else "",
    )


@describe.register
def _describe_plan(plan: Plan) -> Card:
    reason = str(plan.summary.get("reason", ""))
    if plan.is_empty:
        return Card(f"{plan.step} {reason or plan.target}", "nothing to do")
    rows = [row.to_json() for row in plan.rows[:_SHOWN_ROWS]]
    files = count_of(len(plan.rows), load_policy().noun)
    caption = f"The first of {files}; all of them: {plan.path}"
    return Card(
        f"{plan.step} {plan.action} on {plan.target}",
        "planned",
        lines=(
            reason,
            f"Nothing was changed. The plan may be approved until {plan.expires_at:%H:%M:%SZ}.",
            f"Way back: {plan.way_back or 'there is none'}",
        ),
        tables=(tabulate_facts(plan.summary, "What would happen"), Table(caption, rows)),
    )


@describe.register(investigation.Investigation)
def _describe_investigation(inv: investigation.Investigation[Any, Any]) -> Card:
    advised = inv.policy.judge(inv.journal, now=inv.now()).next
    return Card(
        f"{inv.section.TITLE} on incident {inv.incident.id}",
        lines=(
            f"{inv.settings.runbook_environment}, in {inv.incident.folder}",
            gettext(advised.reason),
        ),
        link="" if advised.section in ("", inv.section.NAME) else f"{advised.section}.ipynb",
    )


@describe.register
def _describe_file(path: Path) -> Card:
    return Card(str(path), link=os.path.relpath(path))


def _bundle(thing: Any) -> dict[str, str]:
    return describe(thing)._repr_mimebundle_()


class Investigation(investigation.Investigation[S, C]):
    """One section at work on one incident; in IPython, its values show themselves.

    ``is_by_hand``: a person runs the cells one by one.
    """

    is_by_hand = False

    def read(self, step_id: str) -> ShownReading:
        """Carry out one step, journal its reading, and return it with all its rows."""
        reading = self.read_step(step_id)
        columns = self.section.STEPS[step_id].columns
        return ShownReading(reading, to_frame(reading.rows, columns))

    def read_all(self, *step_ids: str, **reuse: Any) -> Card:
        """Read these steps, and return a table of the readings; ``reuse`` goes to ``read_step``."""
        readings = [vars(self.read_step(step_id, **reuse)) for step_id in step_ids]
        columns = ("step", "status", "name", "value", "unit", "reason")
        return Card(
            f"Readings: {len(readings)}",
            tables=(Table("Newest reading of each step", readings, columns),),
        )

    def read_plans(self) -> "DataFrame":
        """Return the incident's plans: what each would change, and its state."""
        table = tabulate_plans(self.journal)
        columns = [*table.columns, "plan"]
        return to_frame(table.rows, dict.fromkeys(columns, TEXT))[columns]

    def _begin(self) -> None:
        """In IPython, let cells show values as cards, and print progress."""
        ipython = sys.modules.get("IPython")
        shell: Any = ipython.get_ipython() if ipython else None
        if shell is None:
            return
        for kind in describe.registry.keys() - {object}:
            shell.display_formatter.mimebundle_formatter.for_type(kind, _bundle)
        from pandas import set_option  # commands that show no frame start without it

        set_option("display.max_colwidth", None)  # keys and errors are shown whole
        self.progress = print_lines(Console(force_jupyter=False))
        # The kernel of a headless run has this attribute; see `_FRESH_START`.
        self.is_by_hand = not hasattr(shell, "keeps_notebook")
