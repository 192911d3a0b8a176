"""The ``runbook`` command: a thin edge. Parses, calls ``run``, prints, exits."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from chainlog import LogError

from .errors import ExitCode, RunbookError, UsageError, exit_code_of_error
from .runbook import Runbook, find_runbook

if TYPE_CHECKING:
    from .run.documents import Document

Json = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]
IncidentId = Annotated[
    str, typer.Option("--incident", help="incident id, or new; default: the open one")
]


def emit(document: Document, as_json: bool) -> NoReturn:
    """Print the document, as JSON or as tables, and end with its exit code."""
    if as_json:
        sys.stdout.write(document.to_json() + "\n")
    else:
        from rich.console import Console

        from .run.documents import print_document

        print_document(document, Console())
    raise typer.Exit(int(document.exit_code))


def carry_out(
    work: Callable[..., Document], *given: object, as_json: bool, **options: object
) -> NoReturn:
    """Do a command's work, print its document, end with its exit code.

    Progress is on stderr; with ``--json`` there is none.

    Parameters
    ----------
    work : takes the settings, then ``given``, ``options`` and ``progress``
    """
    from rich.console import Console

    from .show.progress import make_meter

    console = Console(stderr=True, quiet=as_json)
    with console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                console.print(f"… {text}", markup=False, highlight=False)

        document = work(load_settings(), *given, progress=make_meter(say), **options)
    emit(document, as_json)


def load_settings() -> Any:
    """Read the settings: of the class that the runbook's commands know."""
    return find_runbook().load_settings()


def parse_parameters(given: list[str]) -> dict[str, str]:
    """Read ``name=value`` pairs.

    Raises
    ------
    UsageError
        When one is not such a pair.
    """
    pairs = {}
    for item in given:
        name, sign, value = item.partition("=")
        if not sign or not name.isidentifier():
            raise UsageError(f"-p wants name=value, not {item!r}")
        pairs[name] = value
    return pairs


def parse_duration(text: str) -> float:
    """Return the seconds of ``90s``, ``10m``, ``2h``, ``1d`` or ``1h30m``.

    Raises
    ------
    UsageError
        When it is not a duration.
    """
    from . import http

    try:
        return http.parse_duration(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a duration; write 90s, 10m, 2h or 1d") from None


app = typer.Typer()


@app.command()
def investigate(
    ticket: Annotated[str, typer.Option(help="support ticket of an affected order")] = "",
    incident: IncidentId = "",
    window_minutes: Annotated[float, typer.Option(help="how far back to look")] = 60,
    json_: Json = False,
) -> None:
    """Carry out the sections that only look, then write the report. Only reads."""
    from .run.commands import investigate as run_investigate

    given = {"incident_id": incident, "ticket_id": ticket, "window_minutes": window_minutes}
    carry_out(run_investigate, find_runbook().load_sections(), as_json=json_, **given)


@app.command()
def run(
    sections: Annotated[list[str], typer.Argument(help="such as 06, or remediation")],
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="name=value; repeatable")
    ] = None,
    incident: IncidentId = "",
    json_: Json = False,
) -> None:
    """Run chosen notebooks headless; changes stop at their plans without -p approve=SHA256."""
    from .run.commands import run_chosen

    given = parse_parameters(parameter or []) | ({"incident_id": incident} if incident else {})
    known = find_runbook().load_sections()
    carry_out(run_chosen, known, sections, parameters=given, as_json=json_)


@app.command()
def report(incident: Annotated[str, typer.Argument()], json_: Json = False) -> None:
    """Build the report again from the incident's journal."""
    from .run.commands import rebuild_report

    emit(rebuild_report(load_settings(), find_runbook().load_sections(), incident), json_)


@app.command()
def incidents(json_: Json = False) -> None:
    """List the incidents, the open ones first. Only reads."""
    from .run.commands import list_incidents

    emit(list_incidents(load_settings()), json_)


@app.command()
def close(incident: Annotated[str, typer.Argument()], json_: Json = False) -> None:
    """Close an incident: its report is written a last time, and stays as it is."""
    from .run.commands import close_incident

    emit(close_incident(load_settings(), find_runbook().load_sections(), incident), json_)


@app.command()
def history(json_: Json = False) -> None:
    """Show what was, how long it took, and the trends; writes the gauges."""
    from .run.commands import read_history

    emit(read_history(load_settings()), json_)


@app.command(name="verify-report")
def verify_report(
    incident: Annotated[str, typer.Argument(help="incident id, its folder, or a report's zip")],
    json_: Json = False,
) -> None:
    """Check the journal's chain and the manifest: names the first altered file or line."""
    from .run.commands import check_report

    emit(check_report(load_settings(), incident), json_)


def build_app(runbook: Runbook) -> typer.Typer:
    """Return the command: what every runbook has, the runbook's own, and the plug-ins'."""
    whole = typer.Typer(
        help=runbook.summary,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name, part in (("", app), *runbook.commands):
        whole.add_typer(part, name=name or None)
    for entry in entry_points(group="runbook.commands"):
        whole.add_typer(entry.load(), name=entry.name)
    return whole


def _fail(error: BaseException) -> int:
    from .redact import Redactor

    more, secrets = dict[type[BaseException], ExitCode](), tuple[str, ...]()
    with suppress(UsageError):
        more |= find_runbook().errors
        secrets = find_runbook().load_settings().secrets
    code = exit_code_of_error(error, more)
    text = str(error) or type(error).__name__
    if code is ExitCode.INTERRUPTED and not isinstance(error, RunbookError):
        text = "interrupted; what was done is in the journal and the ledger"
    text = Redactor(secrets).text(text)
    if "--json" in sys.argv:
        from .run.documents import ErrorDocument

        document = ErrorDocument(schema_name="runbook/error/1", exit_code=code, error=text)
        sys.stdout.write(document.to_json() + "\n")
    sys.stderr.write(f"runbook: {text}\n")
    if code is ExitCode.INTERRUPTED:
        _leave(int(code))
    return int(code)


def _leave(code: int) -> None:
    """End at once when a thread still waits for a store that hangs: it would be waited for."""
    if any(not t.daemon for t in threading.enumerate() if t is not threading.main_thread()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Run the command; every exit code comes from the one table."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ours: tuple[type[BaseException], ...] = (RunbookError, LogError, KeyboardInterrupt, OSError)
    try:
        runbook = find_runbook()
        ours += tuple(runbook.errors)
        code = int(build_app(runbook)(standalone_mode=False) or 0)
        # typer turns Ctrl-C into this code and says nothing.
        sys.exit(_fail(KeyboardInterrupt()) if code == ExitCode.INTERRUPTED else code)
    except typer.Abort:
        sys.exit(_fail(KeyboardInterrupt()))
    except TyperException as error:
        show = getattr(error, "show", partial(sys.stderr.write, f"runbook: {error}\n"))
        show()
        sys.exit(int(ExitCode.USAGE))
    except ours as error:
        sys.exit(_fail(error))
