"""The ``runbook`` command put together: its parts, its plug-ins, its exit codes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, NoReturn

import typer
from typer.exceptions import TyperException

from chainlog import LogError
from fulfillment.cli import change, chaos, drills
from objectmove.errors import MoveError

from ..errors import RunbookError, UsageError
from ..exit_codes import ExitCode, exit_code_of_error
from . import look
from .edge import load_settings

if TYPE_CHECKING:
    from ..settings import Settings

__all__ = ["app", "main"]

_INTERRUPTED = int(ExitCode.INTERRUPTED)

app = typer.Typer(
    help="The fulfilment backlog runbook: look, plan, change, prove.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_PARTS = (look.app, change.app, drills.app)
for _part in _PARTS:
    app.add_typer(_part)
app.add_typer(chaos.app, name="chaos")


def _mount_plugins(arguments: Sequence[str]) -> None:
    """Load the commands of other packages, unless the command is one of ours."""
    ours = {
        c.name or getattr(c.callback, "__name__", "") for p in _PARTS for c in p.registered_commands
    }
    if arguments and arguments[0] in ours | {"chaos"}:
        return
    for entry in entry_points(group="runbook.commands"):
        if entry.name not in {group.name for group in app.registered_groups}:
            app.add_typer(entry.load(), name=entry.name)


def _fail(error: BaseException, settings: Settings | None, as_json: bool) -> int:
    from ..redact import Redactor

    code = exit_code_of_error(error)
    text = str(error) or type(error).__name__
    if code is ExitCode.INTERRUPTED and not isinstance(error, RunbookError):
        text = "interrupted; what was done is in the journal and the ledger"
    text = Redactor(settings.secrets if settings else ()).text(text)
    if as_json:
        from ..record.log import utc_now
        from ..run.documents import ErrorDocument

        document = ErrorDocument(
            schema_name="runbook/error/1", at=utc_now(), exit_code=code, error=text
        )
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


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command; every exit code comes from the one table."""
    signal.signal(signal.SIGTERM, _interrupt)
    as_json = "--json" in sys.argv
    settings: Settings | None = None
    try:
        _mount_plugins(sys.argv[1:])
        code = int(app(standalone_mode=False) or 0)
        # typer turns Ctrl-C into this code and says nothing.
        sys.exit(_fail(KeyboardInterrupt(), settings, as_json) if code == _INTERRUPTED else code)
    except typer.Abort:
        sys.exit(_fail(KeyboardInterrupt(), settings, as_json))
    except TyperException as error:
        _show_usage(error)
        sys.exit(int(ExitCode.USAGE))
    except (RunbookError, MoveError, LogError, KeyboardInterrupt, OSError) as error:
        if not isinstance(error, UsageError):
            settings = _settings_or_none()
        sys.exit(_fail(error, settings, as_json))


def _show_usage(error: TyperException) -> None:
    show = getattr(error, "show", None)
    if show is None:
        sys.stderr.write(f"runbook: {error}\n")
    else:
        show()


def _settings_or_none() -> Settings | None:
    try:
        return load_settings()
    except UsageError:
        return None
