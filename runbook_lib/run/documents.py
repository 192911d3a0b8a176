"""The JSON documents that commands print, and how people see them: answer, next command, tables.

Fields are added, never renamed. Text from outside is never read as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import BaseModel, Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..errors import ExitCode
from ..model import CauseStatus, Finding, Json, Note, Observed, Timestamp, Verdict
from ..record.history import HistoryRow, Trend
from ..record.journal import utc_now
from ..show.tables import Table, get_tone, say_value, tabulate_findings, tabulate_readings
from ..show.text import VERDICT_WORDS, count_of, visible


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
        if self.verdict is None:
            return ""
        return VERDICT_WORDS[self.verdict]

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


def _needs_person(advice: Sequence[str]) -> bool:
    """Tell whether a person acts first, and only a later piece of advice has a command."""
    return "runbook " in " ".join(advice[1:]) and "runbook " not in advice[0]


class InvestigateDocument(Document):
    """``investigate``: readings, causes, the report's path.

    Attributes
    ----------
    unknown : the steps that could not be read, each with the reason
    log : the entry of the incident log
    reason : why the verdict is what it is
    earlier : the steps that only an earlier command read, with the age of each reading. A reading
        counts for the verdict until it is ten minutes old, or something is changed
    advice : what helps, in order
    next : the next command
    unfinished : the commands that finish what was begun before
    became : what became of the incident, such as that it was opened or took up an alert
    """

    readings: tuple[Observed, ...]
    causes: tuple[Finding, ...]
    unknown: tuple[dict[str, str], ...]
    notebooks: tuple[NotebookResult, ...]
    report: str
    log: dict[str, Json] = {}
    reason: str = ""
    earlier: tuple[dict[str, Json], ...] = ()
    advice: tuple[str, ...] = ()
    next: str = ""
    unfinished: tuple[str, ...] = ()
    became: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The verdict, since when, the causes or else the reason, and how much is affected."""
        sentences = [super().answer]
        # The first 19 characters of a time end with its second.
        since = str(self.log.get("since") or "")[:19]
        until = str(self.log.get("until") or "")[:19]
        if since and until:
            sentences[0] += f". Trouble from {since}Z until {until}Z"
        elif since and self.exit_code is ExitCode.NOT_OK:
            sentences[0] += f" since {since}Z"
        causes = self._say_causes()
        sentences += causes or [self.reason]
        affected = self.log.get("affected")
        if affected:
            sentences.append(str(affected))
        return ". ".join(sentences)

    def _say_causes(self) -> list[str]:
        """Return the supported causes, each with its reason."""
        return [
            f"{finding.name}: {finding.reason}"
            for finding in self.causes
            if finding.status is CauseStatus.SUPPORTED
        ]

    @property
    def commands(self) -> tuple[str, ...]:
        """What was begun before comes first; then the next command.

        The next command is left out if the advice says what a person does before it.
        """
        if self.next and not _needs_person(self.advice):
            return (*self.unfinished, self.next)
        return self.unfinished


class RunDocument(Document):
    """``run``: how the chosen notebooks ended.

    Attributes
    ----------
    plans : the plans that these notebooks made
    reason : why the verdict is what it is
    advice : what helps, in order, while there is trouble
    next : the next command
    unfinished : the commands that finish what was begun before
    became : what became of the incident, such as that it was opened or closed, or why it stays open
    """

    notebooks: tuple[NotebookResult, ...]
    plans: tuple[dict[str, Json], ...]
    report: str
    reason: str = ""
    advice: tuple[str, ...] = ()
    next: str = ""
    unfinished: tuple[str, ...] = ()
    became: tuple[str, ...] = ()

    @property
    def commands(self) -> tuple[str, ...]:
        """What was begun before comes first; then the next command.

        It is left out if a plan waits, or if the advice says what a person does before it.
        """
        if self.next and not self._stopped_at_plan and not _needs_person(self.advice):
            return (*self.unfinished, self.next)
        return self.unfinished

    @property
    def left_out(self) -> tuple[str, ...]:
        """The advice, if the plans below carry it out."""
        return ("advice",) if self._stopped_at_plan else ()

    @property
    def _stopped_at_plan(self) -> bool:
        """Whether a notebook stopped at a plan that can be approved."""
        has_stopped = any(run.status == "stopped_at_plan" for run in self.notebooks)
        return has_stopped and bool(self.to_paste)

    @property
    def answer(self) -> str:
        """The verdict and its reason, then how each notebook ended.

        With a verdict, notebooks that are done are left out.
        """
        parts = []
        if self.verdict:
            why = f": {self.reason}" if self.reason else ""
            parts.append(f"{super().answer}{why}")
        for run in self.notebooks:
            status = run.status
            if status == "done" and self.verdict:
                continue
            if status == "stopped_at_plan":
                status = "stopped at the plan, nothing was changed"
            parts.append(f"{run.notebook}: {status}")
        return "; ".join(parts)

    @property
    def to_paste(self) -> tuple[tuple[str, str], ...]:
        """Each plan that may be approved: what it does, and the command that approves it."""
        lines = []
        for plan in self.plans:
            if plan["apply"]:
                words = f"{plan['step']} {plan['what']}"
                lines.append((words, plan["apply"]))
        return tuple(lines)


class ReportDocument(Document):
    """What ``report``, ``verify-report`` and ``close`` print.

    The field ``note`` says what a person must know besides. ``late_notes`` are the notes that were
    written after the close. ``problems`` is what was altered, and ``newer`` what came after the
    manifest was written.
    """

    report: str
    note: str = ""
    late_notes: tuple[Note, ...] = ()
    problems: tuple[str, ...] = ()
    newer: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """How many problems there are; without any, that the command is done."""
        if not self.problems:
            return "Done"
        count = count_of(len(self.problems), "problem")
        return f"{count} found"


class CloseDocument(ReportDocument):
    """``close``: the last verdict of the incident. The exit code is that of the verdict.

    ``reason`` says why the verdict is what it is, and as of when. ``unfinished`` are the commands
    that finish what was begun. ``next`` is the command that looks again; empty after a good end.
    """

    reason: str = ""
    unfinished: tuple[str, ...] = ()
    next: str = ""

    @property
    def answer(self) -> str:
        """That the incident is over, the verdict and why."""
        words = VERDICT_WORDS[self.verdict or Verdict.UNKNOWN]
        return f"Closed. {words}: {self.reason}"

    @property
    def commands(self) -> tuple[str, ...]:
        """What was begun before comes first; then the next look."""
        if self.next:
            return (*self.unfinished, self.next)
        return self.unfinished


class IncidentsDocument(Document):
    """``incidents``: the open incidents first; ``note`` says what is not shown."""

    incidents: tuple[HistoryRow, ...]
    note: str = ""

    @property
    def mark(self) -> str:
        """Whether an incident is open."""
        return "incident" if self._count_open() else "ok"

    @property
    def answer(self) -> str:
        """How many incidents are open."""
        count = self._count_open()
        if not count:
            return "No incident is open"
        return f"{count_of(count, 'incident')} open"

    def _count_open(self) -> int:
        return sum(1 for row in self.incidents if row.is_open)


class HistoryDocument(Document):
    """``history``: incidents and drills, the newest first; ``drills``: a trend for each scenario.

    ``plot`` is the path of a picture of the trends, ``gauges`` that of a file for Prometheus. Both
    are empty when there was no incident and no drill yet.
    """

    history: tuple[HistoryRow, ...]
    drills: tuple[Trend, ...] = ()
    plot: str = ""
    gauges: str = ""

    @property
    def answer(self) -> str:
        """Which scenarios of drills are overdue; or that there is nothing to list.

        Empty if there are incidents, but no drill.
        """
        if not self.history:
            return "There was no incident and no drill yet."
        if not self.drills:
            return ""
        overdue = [trend.scenario for trend in self.drills if trend.is_overdue]
        if overdue:
            return f"Drills that are overdue: {', '.join(overdue)}"
        return f"{count_of(len(self.drills), 'scenario')} drilled, none overdue"

    @property
    def mark(self) -> str:
        """Whether a drill is overdue."""
        is_overdue = any(trend.is_overdue for trend in self.drills)
        return "unknown" if is_overdue else "ok"


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
    "unknown",
    "detail",
    "apply",
    "next",
    "objects",
    "bytes",
    "log",
    "summary",
    "reason",
    "entry",
    "late",
}
#: Statuses whose rows need no line of their own: the answer says so already.
_SAID_BY_THE_ANSWER = ("done", "stopped_at_plan")
#: The columns of a field's table; a field that is not listed shows all columns.
_COLUMNS = {
    "earlier": ("step", "status", "age_minutes", "reason"),
    "incidents": ("incident", "is_open", "verdict", "cause_found", "damage"),
    "history": ("incident", "scenario", "cause_found", "lost", "verdict", "took_s", "damage"),
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
    "late_notes": ("text", "lesson", "owner", "due", "ticket", "operator"),
    "plans": ("step", "status", "what", "how_many", "why"),
}
#: Readings that need no line of their own.
_QUIET = ("ok", "left_out")
#: The place of fields before the tables (0) and after them (2); tables and other fields have 1.
_ORDER = {"advice": 0, "path": 2, "report": 2, "incident": 2}
#: Columns that people copy: the others wrap first.
_COPIED_WHOLE = ("incident", "plan", "scenario")
_HASH = re.compile(r"\b[0-9a-f]{64}$")
#: A command is wrapped where its line gets longer than this.
_WIDTH = 76
#: A table breaks words of more letters than this first.
_WHOLE_WORD = 20
#: What a table puts between two columns, in characters.
_GAP = 3


def print_document(document: Document, console: Console) -> None:
    """Print a document: answer, what to type next, what is new, tables, paths, lines to paste.

    Notes
    -----
    Hashes get their own line; commands are wrapped only with ``\\``.
    """
    tone, icon = get_tone(document.mark)
    if document.answer:
        _print(console, f"{icon} {document.answer}", style=_STYLES[tone], is_prose=True)
    if document.standing:
        tone, icon = get_tone(document.verdict or Verdict.UNKNOWN)
        _print(console, f"{icon} {document.standing}", style=_STYLES[tone], is_prose=True)
    for command in document.commands:
        _print(console, f"\n  {_wrap(command)}\n")
    values = document.model_dump(by_alias=True)
    for name in sorted(values, key=lambda name: _ORDER.get(name, 1)):
        value = values[name]
        # A field that holds the commands is printed above already.
        if name in _SKIPPED or name in document.left_out or value == document.commands:
            continue
        for part in _lay_out(document, name, value):
            if isinstance(part, Table):
                if part.rows:
                    console.print(_to_rich(part, console.width))
            else:
                # A value of one word, such as a path, is not broken; all else is prose.
                _, colon, content = part.partition(": ")
                is_one_word = bool(colon) and " " not in content
                _print(console, part, is_prose=not is_one_word)
    for words, command in document.to_paste:
        _print(console, f"\n{words}\n\n  {_wrap(command)}")


def _lay_out(document: Document, name: str, value: Json) -> Iterator[Table | str]:
    """Yield a field as tables and lines.

    Parameters
    ----------
    value : the field as JSON; the document itself has it as types
    """
    label = name.replace("_", " ")
    is_list = isinstance(value, list | tuple) and bool(value)
    if name == "readings":
        earlier = {row["step"] for row in getattr(document, "earlier", ())}
        read_now = [r for r in getattr(document, name) if r.step not in earlier]
        yield from _lay_out_readings(read_now)
    elif name == "earlier":
        rows = [row for row in value if row["status"] not in _QUIET]
        yield Table("Readings from before this command", rows, _COLUMNS[name])
    elif name == "causes":
        causes = [f for f in getattr(document, name) if f.status is not CauseStatus.REFUTED]
        yield tabulate_findings(causes, "Causes")
    elif name == "became":
        yield from value
    elif name == "notebooks":
        for row in value:
            if row["status"] not in _SAID_BY_THE_ANSWER:
                yield f"{row['notebook']}: {row['error'] or row['status']}"
    elif name == "rows" and is_list:
        # A plan's document has only some rows, and counts all of them in `objects`.
        total = getattr(document, "objects", 0)
        yield Table(f"{len(value)} of {total:,} rows" if len(value) < total else "rows", value)
    elif is_list and isinstance(value[0], dict):
        rows = [row for row in value if row.get("status") not in _SAID_BY_THE_ANSWER]
        yield Table(label, rows, _COLUMNS.get(name, ()))
    elif is_list and len(value) > 1:
        lines = [str(item) for item in value]
        yield "\n".join([f"{label}:", *lines])
    elif value not in (None, "", [], (), {}):
        text = say_value(value, name)
        between = "\n" if _HASH.search(text) else " "
        yield f"{label}:{between}{text}"


def _lay_out_readings(readings: Sequence[Observed]) -> Iterator[Table | str]:
    """Yield a table of the readings to look at, and a line with the other steps of each status."""
    to_look_at = [reading for reading in readings if reading.status not in _QUIET]
    yield tabulate_readings(to_look_at)
    for status in _QUIET:
        steps = [reading.step for reading in readings if reading.status == status]
        if steps:
            label = status.replace("_", " ")
            yield f"{label}: {', '.join(steps)}"


def _print(console: Console, text: str, *, style: str = "", is_prose: bool = False) -> None:
    """Print a text. Only prose is broken at the edge, since people copy paths and commands."""
    printed = Text(visible(text), style=style)
    console.print(printed, soft_wrap=not is_prose)


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


def _to_rich(table: Table, width: int) -> RichTable:
    """Return a table for a terminal of a width; a column without anything in it is left out."""
    shown = RichTable(
        title=table.caption,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    names = table.names
    rows = [dict(zip(names, cells, strict=True)) for cells in table.iter_cells()]
    filled = [name for name in names if any(row[name] for row in rows)]
    columns = {name: [_to_cell(name, row[name]) for row in rows] for name in filled}
    # For n columns: n - 1 gaps of 3, and a character at each edge of the table. That is 3n - 1.
    gaps = _GAP * len(filled) - 1
    widths = _compute_widths(columns, width - gaps)
    for name in filled:
        heading = name.replace("_", " ")
        shown.add_column(heading, overflow="fold", width=widths[name])
    for cells in zip(*columns.values(), strict=True):
        shown.add_row(*cells)
    return shown


def _compute_widths(columns: Mapping[str, Sequence[Text]], room: int) -> dict[str, int]:
    """Return how wide each column may be, so that the table fits: rich cuts off what does not fit.

    The widest column shrinks first, down to its longest word. If the table is still too wide,
    columns shrink further, except those that people copy.
    """
    widths = {}
    floors = {}
    for name, cells in columns.items():
        texts = [cell.plain for cell in cells]
        widths[name] = max(len(text) for text in [name, *texts])
        is_whole = name in (*_COPIED_WHOLE, "status")
        floors[name] = widths[name] if is_whole else _find_longest_word([name, *texts])
    while sum(widths.values()) > room:
        shrinkable = [name for name in widths if widths[name] > floors[name]]
        if not shrinkable:
            shrinkable = [name for name in widths if name not in _COPIED_WHOLE and widths[name] > 1]
        if not shrinkable:
            break
        widest = max(shrinkable, key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _find_longest_word(texts: Iterable[str]) -> int:
    """Return how long the longest word is that a column does not break; 1 without any."""
    longest = 1
    for text in texts:
        for word in text.split():
            if longest < len(word) <= _WHOLE_WORD:
                longest = len(word)
    return longest


def _to_cell(name: str, text: str) -> Text:
    """Return a cell of a terminal's table; a status has an icon and a colour."""
    if name != "status":
        return Text(visible(text))
    tone, icon = get_tone(text)
    return Text(f"{icon} {text}", style=_STYLES[tone])
