"""The JSON documents that commands print, and how people see them.

Fields are added, never renamed. Text from outside is never read as markup.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..errors import ExitCode
from ..language import gettext
from ..model import Json, Timestamp, Verdict
from ..record.journal import utc_now
from ..runbook import name_runbook
from ..show.tables import Table, get_tone, say_value, tabulate_findings
from ..show.text import visible


class Document(BaseModel, populate_by_name=True, extra="allow", ser_json_inf_nan="null"):
    """What a command found or did. Each command adds fields of its own.

    Attributes
    ----------
    answer : what a person wants to know first
    commands : what to type next, unless ``way_on``, ``unfinished`` or ``next`` says it
    status : decides icon and colour of the answer; by default the exit code does
    hidden : fields that only programs read
    """

    schema_name: str = Field(alias="schema")
    at: Timestamp = Field(default_factory=lambda: utc_now())  # noqa: PLW0108 - tests replace it
    incident: str | None = None
    verdict: Verdict | None = None
    exit_code: ExitCode = ExitCode.OK
    answer: str = Field("", exclude=True)
    commands: tuple[str, ...] = Field((), exclude=True)
    status: str = Field("", exclude=True)
    hidden: tuple[str, ...] = Field((), exclude=True)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # a field of its command

    def to_json(self) -> str:
        return name_runbook(self.model_dump_json(by_alias=True, indent=2))


_STYLES = {"good": "green", "bad": "bold red", "unsure": "yellow", "plain": ""}
_STATUS_OF_CODE = {ExitCode.OK: "ok", ExitCode.UNKNOWN: "unknown", ExitCode.REFUSED: "planned"}
#: Values with a line of their own; the answer has the rest.
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
_COMMANDS = ("unfinished", "way_on")
#: The columns of a field's table; all columns by default.
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
#: Columns that don't wrap: short ones, and those that people copy.
_WHOLE = ("incident", "plan", "scenario", "status", "step")


def print_document(document: Document, console: Console) -> None:
    """Print a document for people: answer, commands, values and tables, commands that approve."""
    tone, icon = get_tone(document.status or _STATUS_OF_CODE.get(document.exit_code, "failed"))
    if document.answer:
        console.print(Text(visible(f"{icon} {document.answer}"), style=_STYLES[tone]))
    values = document.model_dump(by_alias=True)
    following = values.get("way_on") or values.get("unfinished") or [values.get("next")]
    for command in filter(None, document.commands or following):
        _print_whole(console, f"\n  {command}\n")
    for name, value in values.items():
        is_shown = name in _LINES or isinstance(value, list | tuple | dict)
        if not value or not is_shown or name in (*_COMMANDS, *document.hidden):
            continue
        for shown in _lay_out(document, name, value):
            if isinstance(shown, str):
                _print_whole(console, shown)
            elif shown.rows:
                console.print(_to_rich(shown))
    pastes = {f"{plan['step']} {plan['what']}": plan["apply"] for plan in values.get("plans", ())}
    pastes["To carry it out, paste:"] = values.get("apply", "")
    for words, command in pastes.items():
        if command:
            _print_whole(console, f"\n{words}\n\n  {command}")


def _lay_out(document: Document, name: str, value: Json) -> Iterator[Table | str]:
    """Yield the lines and tables that show one field of a document."""
    words = name.replace("_", " ")
    if name == "readings":
        rows = [reading for reading in value if reading["status"].is_open]
        yield Table("Readings", rows, ("step", "status", "name", "value", "unit", "reason"))
    elif name == "causes":
        yield tabulate_findings(document.causes)
    elif name == "notebooks":
        failed = [run for run in value if run["status"] not in ("done", "stopped_at_plan")]
        yield from (f"{run['notebook']}: {run['error']}" for run in failed)
    elif isinstance(value, list | tuple) and isinstance(value[0], dict):
        yield Table(words, value, _COLUMNS.get(name, ()))
    elif isinstance(value, list | tuple) and len(value) > 1:
        yield "\n".join([f"{gettext(words)}:", *map(str, value)])
    else:
        yield f"{gettext(words)}: {say_value(value, name)}"


def _print_whole(console: Console, text: str) -> None:
    """Print a text without line breaks, because people copy paths and commands."""
    console.print(Text(visible(text)), soft_wrap=True)


def _to_rich(table: Table) -> RichTable:
    """Return a table for the terminal, without empty columns."""
    shown = RichTable(
        title=gettext(table.caption), title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    shown.collapse_padding = True
    names = table.names
    rows = [{name: gettext(say_value(row.get(name), name)) for name in names} for row in table.rows]
    filled = [name for name in names if any(row[name] not in ("", "–") for row in rows)]
    for name in filled:
        shown.add_column(gettext(name.replace("_", " ")), overflow="fold", no_wrap=name in _WHOLE)
    for row in rows:
        shown.add_row(*(Text(visible(row[name])) for name in filled))
    return shown
