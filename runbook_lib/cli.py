"""The ``runbook`` command: its groups, its options, its exit codes."""

import logging
import os
import shlex
import signal
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import suppress
from tempfile import NamedTemporaryFile
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from chainlog import LogError

from .errors import ExitCode, RunbookError, UsageError, exit_code_of_error
from .run.interrupts import delay_interrupts
from .runbook import (
    find_plugins,
    find_runbook,
    find_version,
    name_runbook,
    start_logging,
    use_runbook,
)

_log = logging.getLogger(__name__)

_DEMO = "Demo and drills"
#: The commands by group, in the order of ``runbook --help``.
_GROUPS = {
    "At 3 a.m.": ("check", "investigate", "fix", "note", "close"),
    "A release by hand": ("plan", "apply", "verify"),
    "When something went wrong": ("resume", "undo", "settle"),
    "Afterwards": ("incidents", "report"),
    "Set-up": ("init", "run", "serve", "mcp", "new"),
    _DEMO: ("drill", "chaos", "stack"),
}


class _Group(TyperGroup):
    """All commands; old names work for one release."""

    OLD: ClassVar = {"history": ["incidents", "--all"], "verify-report": ["report", "--check"]}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        return super().resolve_command(ctx, [*self.OLD.get(args[0], args[:1]), *args[1:]])

    def list_commands(self, _ctx: Any) -> list[str]:
        """Return the names for the help, by group; hide the demo's where it may not run."""
        is_demo = False
        with suppress(UsageError):
            is_demo = find_runbook().settings.load().is_playground
        ordered: dict[str, Any] = {}
        for group, names in _GROUPS.items():
            for name in filter(self.commands.get, names):
                command: Any = self.commands[name]
                command.rich_help_panel = group
                command.hidden = group == _DEMO and not is_demo
                ordered[name] = command
        return list({**ordered, **self.commands})


def _show_version(*, is_asked: bool) -> None:
    if is_asked:
        sys.stdout.write(f"{find_version()}\n")
        raise typer.Exit


def _read_options(
    _runbook: Annotated[
        str, typer.Option("--runbook", metavar="NAME", help="which runbook; default: RUNBOOK_NAME")
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
    """Read the options before the command; ``build_app`` has read ``--runbook`` already."""
    if verbose:
        start_logging()


def read_runbook_name(arguments: Sequence[str]) -> str:
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--runbook", default="")
    known, _ = parser.parse_known_args(arguments)
    return str(known.runbook)


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """Return the command with all subcommands, or only ``runbook new``, which needs no runbook."""
    from .run import commands, new  # slow to import, and must not be cut off

    whole = typer.Typer(cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False)
    whole.add_typer(new.app)
    if arguments[:1] == ["new"]:
        whole.callback()(lambda: None)
        return whole
    runbook = use_runbook(read_runbook_name(arguments))
    whole.callback(help=runbook.summary)(_read_options)
    whole.add_typer(commands.app)
    for name, own in runbook.commands:
        whole.add_typer(own, name=name or None)
    for plugin in find_plugins():
        whole.add_typer(plugin.load(), name=plugin.name)
    return whole


def run_command(arguments: Sequence[str]) -> int:
    try:
        with delay_interrupts():
            app = build_app(arguments)
        code = int(app(arguments, standalone_mode=False) or 0)
        if code == ExitCode.INTERRUPTED:  # typer turns Ctrl-C into this code and says nothing
            raise KeyboardInterrupt
    except TyperException as error:
        wrong_usage: Any = error
        wrong_usage.show()
        code = ExitCode.USAGE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - nobody reads tracebacks at night
        code = say_failure(error, arguments)
    _log.info("runbook %s: exit code %d", shlex.join(arguments), code)
    return code


def say_failure(error: BaseException, arguments: Sequence[str]) -> int:
    """Say what stopped a command, without secrets; return its exit code.

    An unexpected error is one line, and the path of its traceback.
    """
    from .redact import Redactor

    codes: dict[type[BaseException], ExitCode] = {}
    secrets: tuple[str, ...] = ()
    with suppress(UsageError):  # the error is shown even without settings
        codes.update(find_runbook().errors)
        secrets = find_runbook().settings.load().secrets
    redactor = Redactor(secrets)
    code = exit_code_of_error(type(error), codes)
    text = redactor.text(str(error))
    if not text and code is ExitCode.INTERRUPTED:
        text = f"Interrupted. Run it again: runbook {shlex.join(arguments)}"
    if not isinstance(error, (RunbookError, LogError, OSError, KeyboardInterrupt, *codes)):
        trace = "".join(traceback.format_exception(error))
        with NamedTemporaryFile("w", prefix="runbook-", suffix=".log", delete=False) as file:
            file.write(redactor.text(trace))
        text = f"a bug in this tool: {type(error).__name__}: {text}. Traceback: {file.name}"
    text = text or type(error).__name__
    if "--json" in arguments:
        from .run.documents import Document

        document = Document(schema_name="runbook/error/1", exit_code=code, error=text)
        sys.stdout.write(document.to_json() + "\n")
    sys.stderr.write(f"runbook: {name_runbook(text)}\n")
    return code


def main() -> None:
    """Run the command with this process's arguments, and exit with its code.

    SIGTERM interrupts as Ctrl-C does. Once the command has ended, both could only print a
    traceback. After an interrupt, don't wait for threads, which may hang.
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
