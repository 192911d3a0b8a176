"""The ``runbook`` command: parses arguments, calls the package ``run``, prints, and exits.

A command is declared by a function without a body. What it does is a function of the same name, in
``run.commands`` for the commands that every runbook has.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import wraps
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from chainlog import LogError

from .errors import ExitCode, RunbookError, UsageError, exit_code_of_error
from .run.interrupts import Interrupts, hold_interrupts
from .runbook import (
    Runbook,
    find_plugins,
    find_runbook,
    find_version,
    name_runbook,
    start_logging,
    use_runbook,
)

if TYPE_CHECKING:
    from .model import Progress
    from .run.documents import Document

_log = logging.getLogger(__name__)

_DEMO = "Demo and drills"
#: The commands in the groups and in the order of ``runbook --help``.
_GROUPS = {
    "At 3 a.m.": ("check", "investigate", "fix", "note", "close"),
    "A release by hand": ("plan", "apply", "verify"),
    "When something went wrong": ("resume", "undo", "settle"),
    "Afterwards": ("incidents", "report"),
    "Set-up": ("init", "run", "serve", "mcp"),
    _DEMO: ("drill", "chaos", "stack"),
}

AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]
IncidentId = Annotated[str, typer.Option("--incident", help="id, or new; default: the open one")]


def present(work: Callable[[Progress], Document], *, as_json: bool) -> NoReturn:
    """Carry out a command's work, print its document, and end with the document's exit code.

    Parameters
    ----------
    work : does the command's work; it is given a function that shows progress on stderr
    as_json : print one JSON document, and no progress
    """
    from rich.console import Console

    from .run.documents import print_document
    from .show.progress import print_lines

    document = work(print_lines(Console(stderr=True, quiet=as_json)))
    # The work is done. So the first Ctrl-C while its result is printed interrupts nothing.
    with Interrupts():
        if as_json:
            sys.stdout.write(document.to_json() + "\n")
        else:
            print_document(document, Console())
    raise typer.Exit(int(document.exit_code))


def declare(
    app: typer.Typer, load: Callable[[Progress], Any], **options_of_typer: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function that has only options, a docstring and no body.

    Parameters
    ----------
    load : imports, when the command runs, what has a function of the same name that does the work.
        That function gets the options, and ``settings``, ``sections`` and ``progress`` if it has
        such parameters
    """

    def register(declaration: Callable[..., None]) -> Callable[..., None]:
        @wraps(declaration)
        def command(*, as_json: bool, **options: Any) -> None:
            def work(progress: Progress) -> Document:
                with hold_interrupts():
                    function: Callable[..., Document]
                    function = getattr(load(progress), declaration.__name__)
                    runbook = find_runbook()
                    known: dict[str, Callable[[], Any]] = {
                        "settings": runbook.load_settings,
                        "sections": runbook.load_sections,
                        "progress": lambda: progress,
                    }
                    for name in known.keys() & signature(function).parameters:
                        options[name] = known[name]()
                return function(**options)

            present(work, as_json=as_json)

        app.command(**options_of_typer)(command)
        return declaration

    return register


def _load(_progress: Progress) -> Any:
    """Import the commands that every runbook has."""
    return import_module(f"{__package__}.run.commands")


def parse_minutes(text: str) -> float:
    """Return the minutes of ``90s``, ``10m``, ``2h``, ``1d`` or ``1h30m``; 0 for an empty text.

    Raises
    ------
    UsageError
        When the text is not a duration.
    """
    from .http import parse_duration

    try:
        return parse_duration(text or "0") / 60
    except ValueError:
        raise UsageError(f"{text!r} is not a duration; write 90s, 10m, 2h or 1d") from None


class _Group(TyperGroup):
    """All commands; it also takes their old names, for one release."""

    OLD: ClassVar = {"history": ["incidents", "--all"], "verify-report": ["report", "--check"]}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return a command's name, the command, and its arguments."""
        return super().resolve_command(ctx, [*self.OLD.get(args[0], args[:1]), *args[1:]])

    def list_commands(self, _ctx: Any) -> list[str]:
        """Return the names for the help, by groups, and hide what only a demo may do."""
        is_demo = False
        with suppress(UsageError):
            is_demo = find_runbook().load_settings().is_playground
        ordered: dict[str, Any] = {}
        for group, names in _GROUPS.items():
            for name in filter(self.commands.get, names):
                command: Any = self.commands[name]
                command.rich_help_panel = group
                command.hidden = group == _DEMO and not is_demo
                ordered[name] = command
        return list({**ordered, **self.commands})


# The commands that every runbook has.
app = typer.Typer()


@declare(app, _load)
def investigate(
    ticket_id: Annotated[str, typer.Option("--ticket", help="ticket of an affected customer")] = "",
    incident_id: IncidentId = "",
    alerts_file: Annotated[
        Path | None,
        typer.Option("--alerts", hidden=True, help="JSON file of alerts to show in the report"),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Carry out the sections that only look, then write the report. Changes no system."""


@declare(app, _load)
def run(
    names: Annotated[
        list[str], typer.Argument(metavar="sections", help="such as 06, or remediation")
    ],
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="name=value; repeatable")
    ] = None,
    incident_id: IncidentId = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Run chosen notebooks headless; changes stop at their plans without -p approve=SHA256."""


@declare(app, _load)
def report(
    incident: Annotated[
        str, typer.Argument(help="id; with --check also its folder, or its zip")
    ] = "",
    *,
    check: Annotated[bool, typer.Option("--check", help="name what was altered")] = False,
    as_json: AsJson = False,
) -> None:
    """Build the report again from the journal; --check compares journal and files instead."""


@declare(app, _load)
def incidents(
    *,
    every: Annotated[bool, typer.Option("--all", help="drills, too, and their trends")] = False,
    as_json: AsJson = False,
) -> None:
    """List the incidents, the open ones first."""


@declare(app, _load)
def close(
    incident_id: Annotated[
        str, typer.Argument(metavar="incident", help="default: the open one")
    ] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Close an incident: read what its verdict needs, and write its report a last time."""


@declare(app, _load)
def note(
    text: Annotated[str, typer.Argument(help="the remark, or what is to be done")] = "",
    *,
    lead: Annotated[str, typer.Option(help="who leads from now on")] = "",
    summary: Annotated[str, typer.Option(help="what happened, for the first screen")] = "",
    severity: Annotated[
        int | None, typer.Option(min=1, max=4, help="1 is the worst; default: by the impact")
    ] = None,
    owner: Annotated[str, typer.Option(help="who does it; makes the note a follow-up")] = "",
    due: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="by which day, such as 2026-12-04")
    ] = None,
    ticket: Annotated[str, typer.Option(help="where the follow-up is tracked")] = "",
    lesson: Annotated[
        Literal["well", "badly", "luck"] | None,
        typer.Option("--went", help="makes the note a lesson: how it went"),
    ] = None,
    incident_id: IncidentId = "",
    as_json: AsJson = False,
) -> None:
    """Write what a person knows: a remark, a lesson, a follow-up, who leads, what happened."""


def _show_version(*, is_asked: bool) -> None:
    """Show the version, if it is asked for, and end."""
    if is_asked:
        sys.stdout.write(f"{find_version()}\n")
        raise typer.Exit


def _read_options(
    _runbook: Annotated[
        str, typer.Option("--runbook", metavar="NAME", help="another installed runbook")
    ] = "",
    *,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="log each request and each command")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="show the version"),
    ] = False,
) -> None:
    """Read what stands before the command. ``run_command`` has read ``--runbook`` already."""
    if verbose:
        start_logging()


def read_runbook_name(arguments: Sequence[str]) -> str:
    """Return the name that ``--runbook NAME`` gives; else an empty text."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--runbook", default="")
    known, _ = parser.parse_known_args(arguments)
    return str(known.runbook)


def build_app(runbook: Runbook) -> typer.Typer:
    """Return the command with the common subcommands, this runbook's own, and those of plug-ins."""
    whole = typer.Typer(
        cls=_Group,
        help=runbook.summary,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    whole.callback()(_read_options)
    whole.add_typer(app)
    for name, commands in runbook.commands:
        whole.add_typer(commands, name=name or None)
    for plugin in find_plugins():
        whole.add_typer(plugin.load(), name=plugin.name)
    return whole


def run_command(arguments: Sequence[str]) -> int:
    """Run the command with these arguments; return its exit code, also after a known error."""
    known: tuple[type[BaseException], ...] = (RunbookError, LogError, KeyboardInterrupt, OSError)
    try:
        with hold_interrupts():
            runbook = use_runbook(read_runbook_name(arguments))
        known += tuple(runbook.errors)  # for the ``except`` below
        code = int(build_app(runbook)(arguments, standalone_mode=False) or 0)
        if code == ExitCode.INTERRUPTED:  # typer turns Ctrl-C into this code and says nothing
            raise KeyboardInterrupt
    except TyperException as error:
        wrong_usage: Any = error
        wrong_usage.show()
        code = ExitCode.USAGE
    except known as error:
        code = say_failure(error, arguments)
    _log.info("runbook %s: exit code %d", shlex.join(arguments), code)
    return code


def say_failure(error: BaseException, arguments: Sequence[str]) -> int:
    """Say what stopped a command, without secrets; return the command's exit code."""
    from .redact import Redactor

    codes: dict[type[BaseException], ExitCode] = {}
    secrets: tuple[str, ...] = ()
    with suppress(UsageError):  # without a runbook or its settings, the error is shown all the same
        codes.update(find_runbook().errors)
        secrets = find_runbook().load_settings().secrets
    code = exit_code_of_error(type(error), codes)
    text = str(error)
    if not text and code is ExitCode.INTERRUPTED:
        text = f"Interrupted. Do it again with: runbook {shlex.join(arguments)}"
    text = Redactor(secrets).text(name_runbook(text) or type(error).__name__)
    if "--json" in arguments:
        from .run.documents import ErrorDocument

        document = ErrorDocument(schema_name="runbook/error/1", exit_code=code, error=text)
        sys.stdout.write(document.to_json() + "\n")
    sys.stderr.write(f"runbook: {text}\n")
    return code


def main() -> None:
    """Run the command with the arguments of this process, and exit with its code.

    SIGTERM interrupts the command as Ctrl-C does. Once the command has ended, both are ignored: an
    interrupt could only break the end of this process, and print a traceback. An interrupted one
    does not wait for its threads, which may wait for a hung store.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    exit_code = run_command(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if exit_code == ExitCode.INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
