"""Documents for people: tables on a terminal. Text from outside is never markup."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..model import CauseStatus, Finding, Observed
from ..show.tables import Table, get_tone, say_value, tabulate_findings
from ..show.text import format_value
from .documents import Document

_STYLES = {"good": "green", "bad": "bold red", "unsure": "yellow", "plain": ""}
_SKIPPED = {"schema", "at", "exit_code", "verdict", "incident", "detail"}


def print_document(document: Document, console: Console) -> None:
    """Print a document as tables, its verdict and its paths last."""
    values = document.model_dump(by_alias=True)
    for name, value in values.items():
        if name == "readings":
            console.print(_to_rich(_tabulate_readings(getattr(document, name))))
        elif name == "causes":
            open_ = (f for f in getattr(document, name) if _is_open(f))
            console.print(_to_rich(tabulate_findings(open_, "Causes")))
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            console.print(_to_rich(Table(name, value)))
        elif name not in _SKIPPED and value not in (None, "", [], (), {}):
            console.print(Text(f"{name}: {say_value(value)}"), soft_wrap=True)
    if document.incident:
        console.print(Text(f"incident: {document.incident}"))
    if document.verdict is not None:
        style = _STYLES[get_tone(document.verdict)[0]]
        console.print(Text(f"verdict: {document.verdict}", style=f"bold {style}"))


def _is_open(finding: Finding) -> bool:
    return finding.status is not CauseStatus.REFUTED


def _tabulate_readings(readings: Iterable[Observed]) -> Table:
    rows = [
        {
            "step": r.step,
            "status": str(r.status),
            "what": r.name,
            "value": "" if r.value is None else format_value(r.value, r.unit),
            "why": r.reason,
        }
        for r in readings
    ]
    return Table("Readings", rows, ("step", "status", "what", "value", "why"))


def _to_rich(table: Table) -> RichTable:
    shown = RichTable(title=table.caption, title_justify="left")
    for name in table.names:
        shown.add_column(name.replace("_", " "), overflow="fold")
    for cells in table.iter_cells():
        shown.add_row(
            *(_to_cell(name, text) for name, text in zip(table.names, cells, strict=True))
        )
    return shown


def _to_cell(name: str, text: str) -> Text:
    if name != "status":
        return Text(text)
    tone, icon = get_tone(text)
    return Text(f"{icon} {text}", style=_STYLES[tone])
