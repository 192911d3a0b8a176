"""The commands ``runbook serve`` and ``runbook mcp``."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from runbook_lib.errors import SettingsError

app = typer.Typer()
assistant_app = typer.Typer()


@app.callback(invoke_without_command=True)
def serve() -> None:
    """Take Alertmanager's alerts, investigate, deliver the report. Changes nothing else."""
    with _require_extra("serve"):
        from . import service
    from .settings import ServeSettings

    service.serve(ServeSettings.load())


@assistant_app.callback(invoke_without_command=True)
def mcp() -> None:
    """Serve tools for an AI assistant on stdin and stdout.

    They change no system; `investigate` writes an incident.
    """
    with _require_extra("mcp"):
        from .tools import build_server
    from .settings import ServeSettings

    build_server(ServeSettings.load()).run("stdio")


@contextmanager
def _require_extra(extra: str) -> Iterator[None]:
    """Name the package extra (also the command's name) to install after a failed import."""
    try:
        yield
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        text = f"`runbook {extra}` is not installed ({missing} is missing)"
        raise SettingsError(f"{text}: pip install 'fulfillment-runbook[{extra}]'") from error
