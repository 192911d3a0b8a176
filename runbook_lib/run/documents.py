"""The JSON documents that commands print, and how people see them: answer, next command, tables.

Fields are added, never renamed. Text from outside is never read as markup.
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
from ..model import CauseStatus, Finding, Json, Note, Observed, Timestamp, Verdict
from ..record.history import HistoryRow, Trend
from ..record.journal import utc_now
from ..show.tables import EMPTY, Table, get_tone, say_value, tabulate_findings
from ..show.text import VERDICT_WORDS, count_of, format_value, visible


class Part(BaseModel, frozen=True, extra="forbid"):
    """A part of a document."""


class Document(Part, populate_by_name=True, ser_json_inf_nan="null"):
    """The fields of every document, and what a person sees of it."""

    schema_name: str = Field(alias="schema")
    at: Timestamp = Field(default_factory=lambda: utc_now())  # noqa: PLW0108 - tests replace it
    incident: str | None = None
    verdict: Verdict | None = None
    exit_code: ExitCode = ExitCode.OK

    @property
    def answer(self) -> str:
        """What a person wants to know first, in one line."""
        return VERDICT_WORDS[self.verdict] if self.verdict else ""

    @property
    def mark(self) -> str:
        """The status whose icon and colour stand before the answer.

        It is the verdict; without one, it follows from the exit code.
        """
        return self.verdict or _STATUS_OF_CODE.get(self.exit_code, "failed")

    @property
    def standing(self) -> str:
        """The incident's verdict in words, if the answer is about something else; else empty."""
        return ""

    @property
    def commands(self) -> tuple[str, ...]:
        """What to type next."""
        return ()

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """Pairs: a command to paste, after the words that say what it does."""
        return ()

    @property
    def left_out(self) -> tuple[str, ...]:
        """Fields that the terminal output leaves out."""
        return ()

    def to_json(self) -> str:
        """Return the document as indented JSON."""
        return self.model_dump_json(by_alias=True, indent=2)


class NotebookResult(Part):
    """How one notebook ended; ``error`` says what stopped it, and is empty if nothing did."""

    notebook: str
    status: str
    duration_s: float
    error: str = ""


class ErrorDocument(Document):
    """A command that did not do its work."""

    error: str


class SectionsDocument(Document):
    """What ``investigate`` and ``run`` have in common.

    Attributes
    ----------
    reason : why the verdict is what it is
    report : the report's path
    advice : what helps, in order, while there is trouble
    next : the next command
    unfinished : the commands that finish what was begun before
    """

    notebooks: tuple[NotebookResult, ...]
    report: str
    reason: str = ""
    advice: tuple[str, ...] = ()
    next: str = ""
    unfinished: tuple[str, ...] = ()

    @property
    def commands(self) -> tuple[str, ...]:
        """What was begun before comes first; then the next command, unless a plan waits."""
        if self.next and not self.waits:
            return (*self.unfinished, self.next)
        return self.unfinished

    @property
    def waits(self) -> bool:
        """Whether a notebook stopped at a plan that can be approved."""
        return bool(self.to_paste) and "stopped_at_plan" in [run.status for run in self.notebooks]


class InvestigateDocument(SectionsDocument):
    """``investigate``: what was read, the causes, and how much is affected since when."""

    readings: tuple[Observed, ...]
    causes: tuple[Finding, ...]
    since: Timestamp | None = None
    until: Timestamp | None = None
    affected: str = ""

    @property
    def answer(self) -> str:
        """The verdict, since when, the causes or else the reason, and how much is affected."""
        words = super().answer
        if self.since and self.until:
            words += f". Trouble from {format_value(self.since)} until {format_value(self.until)}"
        elif self.since:
            words += f" since {format_value(self.since)}"
        supported = [f for f in self.causes if f.status is CauseStatus.SUPPORTED]
        causes = [f"{finding.name}: {finding.reason}" for finding in supported]
        return ". ".join(filter(None, [words, *(causes or [self.reason]), self.affected]))


class RunDocument(SectionsDocument):
    """``run``: how the chosen notebooks ended, and the plans that they made."""

    plans: tuple[dict[str, Json], ...]

    @property
    def left_out(self) -> tuple[str, ...]:
        """The advice, if the plans below carry it out."""
        return ("advice",) if self.waits else ()

    @property
    def answer(self) -> str:
        """The verdict and its reason, then how each notebook ended that is not simply done."""
        parts = []
        if self.verdict:
            parts.append(": ".join(filter(None, (super().answer, self.reason))))
        for run in self.notebooks:
            if run.status == "stopped_at_plan":
                parts.append(f"{run.notebook}: stopped at the plan, nothing was changed")
            elif run.status != "done" or not self.verdict:
                parts.append(f"{run.notebook}: {run.status}")
        return "; ".join(parts)

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """Each plan that may be approved: what it does, and the command that approves it."""
        plans = [plan for plan in self.plans if plan["apply"]]
        return tuple((f"{plan['step']} {plan['what']}", plan["apply"]) for plan in plans)


class ReportDocument(Document):
    """``report``, also with ``--check``: what was altered, and what came after the manifest."""

    report: str
    problems: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """How many problems there are; without any, that the command is done."""
        return f"{count_of(len(self.problems), 'problem')} found" if self.problems else "Done"


class CloseDocument(Document):
    """``close``: the last verdict of the incident, and why. The exit code is that of the verdict.

    ``unfinished`` are the commands that finish what was begun. ``next`` is the command that looks
    again; empty after a good end.
    """

    report: str
    reason: str = ""
    unfinished: tuple[str, ...] = ()
    next: str = ""

    @property
    def answer(self) -> str:
        """That the incident is over, the verdict and why."""
        return f"Closed. {super().answer}: {self.reason}"

    @property
    def commands(self) -> tuple[str, ...]:
        """What was begun before comes first; then the next look."""
        return (*self.unfinished, self.next) if self.next else self.unfinished


class NoteDocument(Document):
    """``note``: the number of the journal's entry, and all follow-ups of the incident.

    ``late`` says that the incident was closed before the note.
    """

    entry: int
    late: bool
    report: str
    follow_ups: tuple[Note, ...] = ()

    @property
    def answer(self) -> str:
        """Where the note was written."""
        late = ", marked as after the close" if self.late else ""
        return f"Noted in {self.incident}{late}. The report shows it."


class IncidentsDocument(Document):
    """``incidents``: the open incidents first; with ``--all`` drills, too, and their trends.

    ``gauges`` is the path of a file for Prometheus.
    """

    incidents: tuple[HistoryRow, ...]
    drills: tuple[Trend, ...] = ()
    gauges: str = ""

    @property
    def mark(self) -> str:
        """Whether an incident is open."""
        return "incident" if any(row.is_open for row in self.incidents) else "ok"

    @property
    def answer(self) -> str:
        """How many incidents are open, and which scenarios of drills are overdue."""
        count = sum(1 for row in self.incidents if row.is_open)
        answer = f"{count_of(count, 'incident')} open" if count else "No incident is open"
        overdue = [trend.scenario for trend in self.drills if trend.is_overdue]
        return f"{answer}. Drills that are overdue: {', '.join(overdue)}" if overdue else answer


_STYLES = {"good": "green", "bad": "bold red", "unsure": "yellow", "plain": ""}
_STATUS_OF_CODE = {ExitCode.OK: "ok", ExitCode.REFUSED: "refused"}
#: Fields that need no line of their own: the answer, a command or a line to paste holds them, or
#: only programs read them.
_SKIPPED = {
    "schema",
    "unfinished",
    "at",
    "exit_code",
    "verdict",
    "detail",
    "apply",
    "next",
    "objects",
    "bytes",
    "summary",
    "reason",
    "entry",
    "late",
    "since",
    "until",
    "affected",
    "gauges",
}
#: The columns of a field's table; a field that is not listed shows all columns.
_COLUMNS = {
    "incidents": (
        "incident",
        "is_open",
        "scenario",
        "cause_found",
        "verdict",
        "lost",
        "detect_s",
        "clear_s",
        "damage",
    ),
    "drills": (
        "scenario",
        "runs",
        "passed",
        "detect_s",
        "diagnose_s",
        "remediate_s",
        "clear_s",
    ),
    "follow_ups": ("text", "owner", "due", "ticket"),
    "plans": ("step", "status", "what", "how_many", "why"),
}
#: The place of fields before the tables (0) and after them (2); tables and other fields have 1.
_ORDER = {"advice": 0, "path": 2, "report": 2, "incident": 2}
#: Columns that people copy, and short ones: the others wrap.
_WHOLE = ("incident", "plan", "scenario", "status", "step")
_HASH = re.compile(r"\b[0-9a-f]{64}$")
#: A command is wrapped where its line gets longer than this.
_WIDTH = 76


def print_document(document: Document, console: Console) -> None:
    """Print a document: answer, what to type next, tables, paths, lines to paste.

    Notes
    -----
    Hashes get their own line; commands are wrapped only with ``\\``.
    """
    for text, status in ((document.answer, document.mark), (document.standing, document.verdict)):
        if text:
            tone, icon = get_tone(status or Verdict.UNKNOWN)
            console.print(Text(visible(f"{icon} {text}"), style=_STYLES[tone]))
    for command in document.commands:
        _print_whole(console, f"\n  {_wrap(command)}\n")
    values = document.model_dump(by_alias=True)
    for name in sorted(values, key=lambda name: _ORDER.get(name, 1)):
        # A field that holds the commands is printed above already.
        if name in (*_SKIPPED, *document.left_out) or values[name] == document.commands:
            continue
        for part in _lay_out(document, name, values[name]):
            if isinstance(part, str):
                is_prose = " " in part.partition(": ")[2]
                console.print(Text(visible(part)), soft_wrap=not is_prose)
            elif part.rows:
                console.print(_to_rich(part))
    for words, command in document.to_paste:
        _print_whole(console, f"\n{words}\n\n  {_wrap(command)}")


def _lay_out(document: Document, name: str, value: Json) -> Iterator[Table | str]:
    """Yield a field as tables and lines.

    Parameters
    ----------
    value : the field as JSON; the document itself has it as types
    """
    label = name.replace("_", " ")
    is_list = isinstance(value, list | tuple) and bool(value)
    if name == "readings":
        readings = getattr(document, name)
        rows = [vars(reading) for reading in readings if reading.status.is_open]
        yield Table("Readings", rows, ("step", "status", "name", "value", "unit", "reason"))
        well = sum(1 for reading in readings if not reading.status.is_open)
        yield f"ok: {count_of(well, 'reading')}"
    elif name == "causes":
        yield tabulate_findings(getattr(document, name))
    elif name == "notebooks":
        yield from (f"{run['notebook']}: {run['error']}" for run in value if run["error"])
    elif is_list and isinstance(value[0], dict):
        total = getattr(document, "objects", 0)
        caption = f"{len(value)} of {total:,} rows" if name == "rows" and total else label
        yield Table(caption, value, _COLUMNS.get(name, ()))
    elif is_list and len(value) > 1:
        yield "\n".join([f"{label}:", *map(str, value)])
    elif value not in EMPTY and not (type(value) is int and value == 0):
        text = say_value(value, name)
        between = "\n" if _HASH.search(text) else " "
        yield f"{label}:{between}{text}"


def _print_whole(console: Console, text: str) -> None:
    """Print a text that is not broken at the edge, since people copy paths and commands."""
    console.print(Text(visible(text)), soft_wrap=True)


def _wrap(command: str) -> str:
    """Return a command in lines that a shell reads as one; a hash with its option begins a line."""
    lines = [""]
    for part in re.split(r" (?=-)", command):
        width = len(lines[-1]) + len(part)
        if width > _WIDTH or _HASH.search(part):
            lines.append(part)
        else:
            lines[-1] = f"{lines[-1]} {part}".strip()
    return " \\\n  ".join(lines)


def _to_rich(table: Table) -> RichTable:
    """Return a table for a terminal; a column without anything in it is left out."""
    shown = RichTable(title=table.caption, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    shown.collapse_padding = True
    names = table.names
    rows = [{name: say_value(row.get(name), name) for name in names} for row in table.rows]
    filled = [name for name in names if any(row[name] not in ("", "–") for row in rows)]
    for name in filled:
        shown.add_column(name.replace("_", " "), overflow="fold", no_wrap=name in _WHOLE)
    for row in rows:
        shown.add_row(*(_to_cell(name, row[name]) for name in filled))
    return shown


def _to_cell(name: str, text: str) -> Text:
    """Return a cell of a terminal's table; a status has an icon and a colour."""
    if name != "status":
        return Text(visible(text))
    tone, icon = get_tone(text)
    return Text(f"{icon} {text}", style=_STYLES[tone])
