"""The ``runbook`` command put together: its parts, its plug-ins, its exit codes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from importlib.metadata import entry_points

import typer
from typer.exceptions import TyperException

from chainlog import LogError

from ..errors import RunbookError, UsageError
from ..exit_codes import ExitCode, exit_code_of_error
from ..runbook import Runbook, find_runbook
from . import commands


def build_app(runbook: Runbook) -> typer.Typer:
    """Return the command: what every runbook has, the runbook's own, and the plug-ins'."""
    app = typer.Typer(
        help=runbook.summary,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name, part in (("", commands.app), *runbook.commands):
        app.add_typer(part, name=name or None)
    for entry in entry_points(group="runbook.commands"):
        app.add_typer(entry.load(), name=entry.name)
    return app


def _fail(error: BaseException) -> int:
    from ..redact import Redactor

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
        from ..run.documents import ErrorDocument

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
