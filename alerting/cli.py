"""The commands ``runbook serve`` and ``runbook mcp``."""

from __future__ import annotations

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
    """Let an assistant look: read-only tools, on stdin and stdout. Changes no system."""
    with _require_extra("mcp"):
        from .tools import build_server
    from .settings import ServeSettings

    build_server(ServeSettings.load()).run("stdio")


@contextmanager
def _require_extra(extra: str) -> Iterator[None]:
    """Turn a failed import into an error that names the package extra to install.

    ``extra`` is also the command's name.
    """
    try:
        yield
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        text = f"`runbook {extra}` is not installed ({missing} is missing)"
        raise SettingsError(f"{text}: pip install 'fulfillment-runbook[{extra}]'") from error
