"""The ``runbook`` command: a thin edge. Parses, calls ``run``, prints, exits."""

from __future__ import annotations

import atexit
import gc
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from importlib.metadata import entry_points
from inspect import Parameter, signature
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from chainlog import LogError

from .errors import ExitCode, RunbookError, UsageError, exit_code_of_error
from .run.interrupts import hold_interrupts
from .runbook import Runbook, find_runbook

if TYPE_CHECKING:
    from .run.documents import Document

_Json = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]
_JSON = Parameter("json_", Parameter.KEYWORD_ONLY, default=False, annotation=_Json)
IncidentId = Annotated[str, typer.Option("--incident", help="id, or new; default: the open one")]
Incident = Annotated[str, typer.Argument(metavar="incident")]


def command(
    app: typer.Typer, work: str, name: str | None = None
) -> Callable[[Callable[..., dict[str, Any] | None]], object]:
    """Make a command of the function below, with its parameters, and its docstring for a help.

    It does its work, prints the document, as JSON or as tables, and ends with its exit code.
    Progress is on stderr; with ``--json`` there is none.

    Parameters
    ----------
    work : ``module:function``, imported when the command runs: ``--help`` needs it not. It is
        given the settings, ``sections`` and ``progress`` where it has such parameters, and what
        the function below returns, or else what that one was given
    """

    def decorate(shape: Callable[..., dict[str, Any] | None]) -> object:
        @wraps(shape)
        def run(*, json_: bool, **typed: Any) -> NoReturn:
            given = shape(**typed)
            with hold_interrupts():
                function = resolve_name(work)
            _carry_out(function, typed if given is None else given, as_json=json_)

        own = signature(shape, eval_str=True)
        vars(run)["__signature__"] = own.replace(parameters=[*own.parameters.values(), _JSON])
        return app.command(name)(run)

    return decorate


def _carry_out(work: Callable[..., Document], given: dict[str, Any], *, as_json: bool) -> NoReturn:
    from rich.console import Console

    from .run.documents import print_document
    from .show.progress import make_meter

    runbook, console = find_runbook(), Console(stderr=True, quiet=as_json)
    with console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                console.print(f"… {text}", markup=False, highlight=False)

        settings, wanted = runbook.load_settings(), signature(work).parameters
        if "sections" in wanted:
            with hold_interrupts():
                given["sections"] = runbook.load_sections()
        if "progress" in wanted:
            given["progress"] = make_meter(say)
        document = work(settings, **given)
    if as_json:
        sys.stdout.write(document.to_json() + "\n")
    else:
        print_document(document, Console())
    raise typer.Exit(int(document.exit_code))


def parse_minutes(text: str) -> float:
    """Return the minutes of ``90s``, ``10m``, ``2h``, ``1d`` or ``1h30m``; 0 of no text.

    Raises
    ------
    UsageError
        When it is not a duration.
    """
    from .http import parse_duration

    try:
        return parse_duration(text or "0") / 60
    except ValueError:
        raise UsageError(f"{text!r} is not a duration; write 90s, 10m, 2h or 1d") from None


app = typer.Typer()


@command(app, "runbook_lib.run.commands:investigate")
def investigate(
    ticket_id: Annotated[str, typer.Option("--ticket", help="ticket of an affected order")] = "",
    incident_id: IncidentId = "",
    window_minutes: Annotated[float, typer.Option(help="how far back to look")] = 60,
) -> None:
    """Carry out the sections that only look, then write the report. Only reads."""


@command(app, "runbook_lib.run.commands:run_chosen")
def run(
    sections: Annotated[list[str], typer.Argument(help="such as 06, or remediation")],
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="name=value; repeatable")
    ] = None,
    incident: IncidentId = "",
) -> dict[str, Any]:
    """Run chosen notebooks headless; changes stop at their plans without -p approve=SHA256."""
    given = dict[str, str]()
    for item in parameter or ():
        name, equals, given[name] = item.partition("=")
        if not (equals and name.isidentifier()):
            raise UsageError(f"-p wants name=value, not {item!r}")
    named = {"incident_id": incident} if incident else {}
    return {"names": sections, "parameters": given | named}


@command(app, "runbook_lib.run.commands:rebuild_report")
def report(incident_id: Incident) -> None:
    """Build the report again from the incident's journal."""


@command(app, "runbook_lib.run.commands:list_incidents")
def incidents() -> None:
    """List the incidents, the open ones first. Only reads."""


@command(app, "runbook_lib.run.commands:close_incident")
def close(incident_id: Incident) -> None:
    """Close an incident: its report is written a last time, and stays as it is."""


@command(app, "runbook_lib.run.commands:read_history")
def history() -> None:
    """Show what was, how long it took, and the trends; writes the gauges."""


@command(app, "runbook_lib.run.commands:check_report", "verify-report")
def verify_report(
    incident_or_path: Annotated[
        str, typer.Argument(metavar="incident", help="incident id, its folder, or a report's zip")
    ],
) -> None:
    """Check the journal's chain and the manifest: names the first altered file or line."""


def build_app(runbook: Runbook) -> typer.Typer:
    """Return the command: what every runbook has, the runbook's own, and the plug-ins'."""
    whole = typer.Typer(
        help=runbook.summary,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    plugged = ((one.name, one.load()) for one in entry_points(group="runbook.commands"))
    for name, part in (("", app), *runbook.commands, *plugged):
        whole.add_typer(part, name=name or None)
    return whole


def _fail(error: BaseException) -> int:
    from .redact import Redactor

    more, secrets = dict[type[BaseException], ExitCode](), tuple[str, ...]()
    with suppress(UsageError):
        more |= find_runbook().errors
        secrets = find_runbook().load_settings().secrets
    code = exit_code_of_error(error, more)
    if code is ExitCode.INTERRUPTED:
        for number in (signal.SIGINT, signal.SIGTERM):  # it ends now: another one has no use
            signal.signal(number, signal.SIG_IGN)
    stopped = f"Interrupted. Do it again with: runbook {shlex.join(sys.argv[1:])}"
    text = str(error) or (stopped if code is ExitCode.INTERRUPTED else type(error).__name__)
    text = Redactor(secrets).text(text)
    if "--json" in sys.argv:
        from .run.documents import ErrorDocument

        document = ErrorDocument(schema_name="runbook/error/1", exit_code=code, error=text)
        sys.stdout.write(document.to_json() + "\n")
    sys.stderr.write(f"runbook: {text}\n")
    others = {t for t in threading.enumerate() if not t.daemon} - {threading.main_thread()}
    if code is ExitCode.INTERRUPTED and others:
        # one that waits for a store that hangs would be waited for
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return int(code)


def main() -> None:
    """Run the command; every exit code comes from the one table."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # a long journal is many objects, and none of them is garbage, not at the end either
    gc.set_threshold(1_000_000)
    atexit.register(gc.freeze)
    ours: tuple[type[BaseException], ...] = (RunbookError, LogError, KeyboardInterrupt, OSError)
    try:
        with hold_interrupts():
            runbook = find_runbook()
        ours += tuple(runbook.errors)
        code = int(build_app(runbook)(standalone_mode=False) or 0)
        # typer turns Ctrl-C into this code and says nothing.
        sys.exit(_fail(KeyboardInterrupt()) if code == ExitCode.INTERRUPTED else code)
    except TyperException as error:
        show = getattr(error, "show", partial(sys.stderr.write, f"runbook: {error}\n"))
        show()
        sys.exit(int(ExitCode.USAGE))
    except ours as error:
        sys.exit(_fail(error))
