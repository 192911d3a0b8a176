"""Documents for people: tables on a terminal. Text from outside is never markup."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..model import CauseStatus, Finding, Json, Reading, Status, Verdict, format_time
from .documents import Document

__all__ = ["print_document"]

_MARKS = {
    Status.OK: ("✔ ok", "green"),
    Status.BREACH: ("✖ breach", "bold red"),
    Status.UNKNOWN: ("? unknown", "yellow"),
}
_GOOD = {Verdict.HEALTHY, Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING}
_SKIPPED = {"schema", "at", "exit_code", "verdict", "incident", "detail"}


def print_document(document: Document, console: Console) -> None:
    """Print a document as tables, its verdict and its paths last."""
    values = document.model_dump(by_alias=True)
    for name, value in values.items():
        found = getattr(document, name, None)
        if name == "readings":
            console.print(_readings(found or ()))
        elif name == "causes":
            console.print(_causes(found or ()))
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            console.print(_rows(name, value))
        elif name not in _SKIPPED and value not in (None, "", [], (), {}):
            console.print(Text(f"{name}: {_plain(value)}"), soft_wrap=True)
    if document.incident:
        console.print(Text(f"incident: {document.incident}"))
    if document.verdict is not None:
        style = "bold green" if document.verdict in _GOOD else "bold red"
        if document.verdict is Verdict.UNKNOWN:
            style = "bold yellow"
        console.print(Text(f"verdict: {document.verdict}", style=style))


def _readings(readings: Iterable[Reading]) -> Table:
    table = Table(title="Readings", title_justify="left", expand=False)
    for column in ("step", "status", "what", "value", "why"):
        table.add_column(column, overflow="fold")
    for reading in readings:
        text, style = _MARKS[reading.status]
        value = "" if reading.value is None else f"{reading.value} {reading.unit}".strip()
        table.add_row(
            *(Text(reading.step), Text(text, style=style), Text(reading.name)),
            *(Text(value), Text(reading.reason)),
        )
    return table


def _causes(findings: Iterable[Finding]) -> Table:
    table = Table(title="Causes", title_justify="left")
    for column in ("cause", "status", "score", "why", "next step"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        if finding.status is not CauseStatus.REFUTED:
            table.add_row(
                *(Text(finding.name), Text(finding.status), Text(f"{finding.score:.2f}")),
                *(Text(finding.reason), Text(finding.next_step)),
            )
    return table


def _rows(name: str, rows: Iterable[dict[str, Json]]) -> Table:
    rows = list(rows)
    table = Table(title=name, title_justify="left")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_plain(value)) for value in row.values()))
    return table


def _plain(value: Json) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value)
    return format_time(value) if hasattr(value, "astimezone") else str(value)
