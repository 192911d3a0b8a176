"""The JSON documents that commands print, and how people see them: answer, next command, tables.

Fields are added, never renamed. Text from outside is no markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import BaseModel, Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..errors import ExitCode
from ..model import CauseStatus, Finding, Json, Observed, Status, Timestamp, Verdict
from ..record.history import HistoryRow
from ..record.journal import utc_now
from ..show.tables import Table, get_tone, say_value, tabulate_findings, tabulate_readings
from ..show.text import VERDICT_WORDS, count_of, visible


class Part(BaseModel, frozen=True, extra="forbid"):
    """A part of a document."""


class Document(Part, populate_by_name=True, ser_json_inf_nan="null"):
    """What every document has."""

    schema_name: str = Field(alias="schema")
    at: Timestamp = Field(default_factory=lambda: utc_now())  # noqa: PLW0108 - a test has its own
    incident: str | None = None
    verdict: Verdict | None = None
    exit_code: ExitCode = ExitCode.OK

    @property
    def answer(self) -> str:
        """What a person wants to know first, in one line."""
        return VERDICT_WORDS[self.verdict] if self.verdict else ""

    @property
    def commands(self) -> tuple[str, ...]:
        """What to type next."""
        return ()

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """What each plan would do, and the command that approves it."""
        return ()

    def to_json(self) -> str:
        """Return the document as indented JSON."""
        return self.model_dump_json(by_alias=True, indent=2)


class NotebookResult(Part):
    """How one notebook ended."""

    notebook: str
    status: str
    duration_s: float
    error: str = ""


class ErrorDocument(Document):
    """A command that did not do its work."""

    error: str


class InvestigateDocument(Document):
    """``investigate``: readings, causes, the report's path.

    ``unknown`` are the steps that could not be read, each with the reason, ``log`` is the entry of
    the incident log, ``advice`` what helps, in order, ``next`` a command, ``unfinished`` the
    commands that finish what was begun before.
    """

    readings: tuple[Observed, ...]
    causes: tuple[Finding, ...]
    unknown: tuple[dict[str, str], ...]
    notebooks: tuple[NotebookResult, ...]
    report: str
    log: dict[str, Json] = {}
    advice: tuple[str, ...] = ()
    next: str = ""
    unfinished: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The verdict, since when, the causes or else the first signs, and how many."""
        since, many = str(self.log.get("since") or "")[:16], self.log.get("affected")
        causes = [f for f in self.causes if f.status is CauseStatus.SUPPORTED]
        signs = [f"{r.step} {r.reason}" for r in self.readings if r.status is Status.BREACH]
        why = [f"{f.name}: {f.reason}" for f in causes] or signs[:2]
        first = f"{super().answer} since {since}Z" if since else super().answer
        return ". ".join([first, *why, *([str(many)] if many else [])])

    @property
    def commands(self) -> tuple[str, ...]:
        """What was begun before comes first; then the next one."""
        return (*self.unfinished, *([self.next] if self.next else []))


class RunDocument(Document):
    """``run``: how the chosen notebooks ended.

    ``unfinished`` are the commands that finish what was begun before.
    """

    notebooks: tuple[NotebookResult, ...]
    plans: tuple[dict[str, Json], ...]
    report: str
    unfinished: tuple[str, ...] = ()

    @property
    def commands(self) -> tuple[str, ...]:
        """What was begun before."""
        return self.unfinished

    @property
    def answer(self) -> str:
        """How each notebook ended."""
        words = {"stopped_at_plan": "stopped at the plan, nothing was changed"}
        ended = (f"{n.notebook}: {words.get(n.status, n.status)}" for n in self.notebooks)
        return "; ".join([super().answer, *ended]).removeprefix("; ")

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """Each plan that has something to do."""
        return tuple((f"{p['step']} {p['what']}", p["apply"]) for p in self.plans if p["apply"])


class ReportDocument(Document):
    """``report``, ``verify-report`` and ``close``; ``note`` says what was not done, and why."""

    report: str
    note: str = ""
    problems: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """Whether something was altered."""
        return f"{count_of(len(self.problems), 'problem')} found" if self.problems else "Done"


class IncidentsDocument(Document):
    """``incidents``: the open ones first."""

    incidents: tuple[HistoryRow, ...]


class HistoryDocument(Document):
    """``history``: the newest first; paths of the trends' picture and of the gauges."""

    history: tuple[HistoryRow, ...]
    plot: str = ""
    gauges: str = ""


_STYLES = {"good": "green", "bad": "bold red", "unsure": "yellow", "plain": ""}
_SKIPPED = {"schema", "at", "exit_code", "verdict", "unknown", "detail", "apply", "next"}
_SKIPPED |= {"objects", "bytes", "log", "summary"}  # an answer holds them
_COLUMNS = {
    "notebooks": ("notebook", "status", "error"),
    "incidents": ("incident", "is_open", "verdict", "cause_found", "damage"),
    "history": ("incident", "scenario", "cause_found", "lost", "verdict", "took_s", "damage"),
    "plans": ("step", "status", "what", "how_many", "why"),
}
#: Readings that need no line of their own.
_QUIET = ("ok", "left_out")
#: What stands before and after the tables.
_ORDER = {"advice": 0, "path": 2, "report": 2, "incident": 2}
_HASH = re.compile(r"\b[0-9a-f]{64}$")
_WIDTH = 76


def print_document(document: Document, console: Console) -> None:
    """Print a document: its answer, what to type next, tables, paths; a plan's line to paste last.

    Notes
    -----
    A hash has a line of its own, and what is to be pasted is never broken but by a backslash.
    """
    by_code = {ExitCode.OK: "ok", ExitCode.REFUSED: "refused"}
    tone, icon = get_tone(document.verdict or by_code.get(document.exit_code, "failed"))
    if document.answer:
        _print(console, f"{icon} {document.answer}", style=_STYLES[tone], is_prose=True)
    for command in document.commands:
        _print(console, f"\n  {_wrap(command)}\n")
    dumped = document.model_dump(by_alias=True)
    values = {n: v for n, v in dumped.items() if n not in _SKIPPED and v != document.commands}
    for name, value in sorted(values.items(), key=lambda item: _ORDER.get(item[0], 1)):
        for part in _lay_out(document, name, value):
            if not isinstance(part, Table):
                _print(console, part, is_prose=" " in part.partition(": ")[2])
            elif part.rows:
                console.print(_to_rich(part))
    for words, command in document.to_paste:
        _print(console, f"\n{words}\n\n  {_wrap(command)}")


def _lay_out(document: Document, name: str, value: Json) -> Iterator[Table | str]:
    """Yield a field as tables and lines."""
    label = name.replace("_", " ")
    if name == "readings":
        readings: tuple[Observed, ...] = getattr(document, name)
        yield tabulate_readings(r for r in readings if r.status not in _QUIET)
        for word in _QUIET:
            if steps := ", ".join(r.step for r in readings if r.status == word):
                yield f"{word.replace('_', ' ')}: {steps}"
    elif name == "causes":
        found = (f for f in getattr(document, name) if f.status is not CauseStatus.REFUTED)
        yield tabulate_findings(found, "Causes")
    elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        # how most notebooks end: the answer says it
        rows = [row for row in value if row.get("status") not in ("done", "stopped_at_plan")]
        yield Table(label, rows, _COLUMNS.get(name, ()))
    elif isinstance(value, list | tuple) and len(value) > 1:
        yield "\n".join([f"{label}:", *map(str, value)])
    elif value not in (None, "", [], (), {}):
        text = say_value(value, name)
        yield f"{label}:\n{text}" if _HASH.search(text) else f"{label}: {text}"


def _print(console: Console, text: str, *, style: str = "", is_prose: bool = False) -> None:
    """Print a text; only prose is broken at the edge: a path or a command is copied whole."""
    console.print(Text(visible(text), style=style), soft_wrap=not is_prose)


def _wrap(command: str) -> str:
    """Return a command as lines that a shell takes as one; a hash stands on its own."""
    lines = [""]
    for part in re.split(r" (?=-)", command):
        if _HASH.search(part) or len(lines[-1]) + len(part) > _WIDTH:
            lines.append(part)
        else:
            lines[-1] = f"{lines[-1]} {part}".strip()
    return " \\\n  ".join(lines)


def _to_rich(table: Table) -> RichTable:
    """Return a table for a terminal; a column without anything in it is left out."""
    shown = RichTable(title=table.caption, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    rows = list(table.iter_cells())
    kept = [n for n, _ in enumerate(table.names) if any(cells[n] for cells in rows)]
    for n in kept:
        shown.add_column(table.names[n].replace("_", " "), overflow="fold")
    for cells in rows:
        shown.add_row(*(_to_cell(table.names[n], cells[n]) for n in kept))
    return shown


def _to_cell(name: str, text: str) -> Text:
    if name != "status":
        return Text(visible(text))
    tone, icon = get_tone(text)
    return Text(f"{icon} {text}", style=_STYLES[tone])
