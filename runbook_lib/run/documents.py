"""The JSON documents that commands print, and how people see them: answer, next command, tables.

Fields are added, never renamed. Text from outside is never read as markup.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import BaseModel, Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..errors import ExitCode
from ..model import CauseStatus, Finding, Json, Note, Observed, Timestamp, Verdict
from ..record.history import HistoryRow
from ..record.journal import utc_now
from ..runbook import name_runbook
from ..show.tables import Table, get_tone, say_value, tabulate_findings
from ..show.text import VERDICT_WORDS, count_of, format_value, visible
from .notebooks import NotebookRun


class Part(BaseModel, frozen=True, extra="forbid"):
    """A part of a document."""


class Document(Part, populate_by_name=True, ser_json_inf_nan="null"):
    """The fields of every document, and what a person sees of it.

    ``HIDDEN`` are fields that only programs read.
    """

    HIDDEN: ClassVar[tuple[str, ...]] = ()

    schema_name: str = Field(alias="schema")
    at: Timestamp = Field(default_factory=lambda: utc_now())  # noqa: PLW0108 - tests replace it
    incident: str | None = None
    verdict: Verdict | None = None
    exit_code: ExitCode = ExitCode.OK

    @property
    def answer(self) -> str:
        """What a person wants to know first."""
        return VERDICT_WORDS[self.verdict] if self.verdict else ""

    @property
    def mark(self) -> str:
        """The status whose icon and colour stand before the answer."""
        return _STATUS_OF_CODE.get(self.exit_code, "failed")

    @property
    def commands(self) -> tuple[str, ...]:
        """What to type next."""
        return ()

    def to_json(self) -> str:
        """Return the document as indented JSON."""
        return name_runbook(self.model_dump_json(by_alias=True, indent=2))


class ErrorDocument(Document):
    """A command that did not do its work."""

    error: str


class IncidentDocument(Document):
    """A document about the incident that a command worked on.

    Attributes
    ----------
    reason : why the verdict is what it is
    report : the report's path
    unfinished : the commands that finish what was begun before
    next : the next command
    """

    report: str = ""
    reason: str = ""
    unfinished: tuple[str, ...] = ()
    next: str = ""

    @property
    def commands(self) -> tuple[str, ...]:
        """What was begun before comes first; then the next command."""
        return tuple(filter(None, dict.fromkeys((*self.unfinished, self.next))))


class SectionsDocument(IncidentDocument):
    """``investigate`` and ``run``: how the notebooks ended, what was read, and what to do.

    Attributes
    ----------
    readings, causes, since, until, affected : of ``investigate``
    plans : what ``run`` planned; ``apply`` is the command that approves a plan
    advice : what helps, in order, while there is trouble
    """

    notebooks: tuple[NotebookRun, ...] = ()
    readings: tuple[Observed, ...] = ()
    causes: tuple[Finding, ...] = ()
    since: Timestamp | None = None
    until: Timestamp | None = None
    affected: str = ""
    plans: tuple[dict[str, Json], ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The verdict and since when, why, and how much is affected."""
        words = super().answer
        if self.until:
            words += f". Trouble from {format_value(self.since)} to {format_value(self.until)}"
        elif self.since:
            words += f" since {format_value(self.since)}"
        causes = [
            f"{finding.name}: {finding.reason}"
            for finding in self.causes
            if finding.status is CauseStatus.SUPPORTED
        ]
        parts = [words, *(causes or [self.reason]), self.affected]
        return ". ".join(filter(None, parts))


class ReportDocument(Document):
    """``report``, also with ``--check``: what was altered, and what came after the manifest."""

    report: str
    problems: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """How many problems there are; without any, that the command is done."""
        return f"{count_of(len(self.problems), 'problem')} found" if self.problems else "Done"


class CloseDocument(IncidentDocument):
    """``close``: the last verdict of the incident, and why."""

    @property
    def answer(self) -> str:
        """That the incident is over, the verdict and why."""
        return f"Closed. {super().answer}: {self.reason}"


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
    """``incidents``: the open ones first; with ``--all`` exercises, too, and their trends."""

    incidents: tuple[HistoryRow, ...]
    trends: tuple[dict[str, Json], ...] = Field((), alias="drills")

    @property
    def mark(self) -> str:
        """Whether an incident is open."""
        return "incident" if any(row.is_open for row in self.incidents) else "ok"

    @property
    def answer(self) -> str:
        """How many incidents are open."""
        count = sum(1 for row in self.incidents if row.is_open)
        return f"{count_of(count, 'incident')} open" if count else "No incident is open"


_STYLES = {"good": "green", "bad": "bold red", "unsure": "yellow", "plain": ""}
_STATUS_OF_CODE = {
    ExitCode.OK: "ok",
    ExitCode.UNKNOWN: "unknown",
    ExitCode.REFUSED: "planned",
}
#: The values that have a line of their own. The answer says what the others are.
_LINES = (
    "incident",
    "report",
    "path",
    "expires_at",
    "others",
    "window",
    "parts",
    "stopped",
    "error",
)
#: Lists that are shown as commands.
_COMMANDS = ("unfinished", "way_on")
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
    "follow_ups": ("text", "owner", "due", "ticket"),
    "plans": ("step", "status", "what", "how_many", "why"),
}
#: Columns that people copy, and short ones: the others wrap.
_WHOLE = ("incident", "plan", "scenario", "status", "step")


def print_document(document: Document, console: Console) -> None:
    """Print a document: answer, what to type next, tables, paths, lines to paste."""
    tone, icon = get_tone(document.mark)
    if document.answer:
        console.print(Text(visible(f"{icon} {document.answer}"), style=_STYLES[tone]))
    for command in document.commands:
        _print_whole(console, f"\n  {command}\n")
    values = document.model_dump(by_alias=True)
    for name, value in values.items():
        is_shown = name in _LINES or isinstance(value, list | tuple | dict)
        if not value or not is_shown or name in (*_COMMANDS, *document.HIDDEN):
            continue
        for part in _lay_out(document, name, value):
            if isinstance(part, str):
                _print_whole(console, part)
            elif part.rows:
                console.print(_to_rich(part))
    pastes = {f"{plan['step']} {plan['what']}": plan["apply"] for plan in values.get("plans", ())}
    pastes["To carry it out, paste:"] = values.get("apply", "")
    for words, command in pastes.items():
        if command:
            _print_whole(console, f"\n{words}\n\n  {command}")


def _lay_out(document: Document, name: str, value: Json) -> Iterator[Table | str]:
    """Yield a field as tables and lines.

    Parameters
    ----------
    value : the field as JSON; the document itself has it as types
    """
    label = name.replace("_", " ")
    if name == "readings":
        readings = getattr(document, name)
        rows = [vars(reading) for reading in readings if reading.status.is_open]
        yield Table("Readings", rows, ("step", "status", "name", "value", "unit", "reason"))
    elif name == "causes":
        yield tabulate_findings(getattr(document, name))
    elif name == "notebooks":
        failed = [run for run in value if run["status"] not in ("done", "stopped_at_plan")]
        yield from (f"{run['notebook']}: {run['error']}" for run in failed)
    elif isinstance(value, list | tuple) and isinstance(value[0], dict):
        yield Table(label, value, _COLUMNS.get(name, ()))
    elif isinstance(value, list | tuple) and len(value) > 1:
        yield "\n".join([f"{label}:", *map(str, value)])
    else:
        yield f"{label}: {say_value(value, name)}"


def _print_whole(console: Console, text: str) -> None:
    """Print a text that is not broken at the edge, since people copy paths and commands."""
    console.print(Text(visible(text)), soft_wrap=True)


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
        shown.add_row(*(Text(visible(row[name])) for name in filled))
    return shown
