"""The command ``runbook serve``."""

from __future__ import annotations

import typer

from runbook_lib.errors import SettingsError

app = typer.Typer(help="Take Alertmanager's alerts, investigate, deliver the report.")


@app.callback(invoke_without_command=True)
def serve() -> None:
    """Take Alertmanager's alerts, investigate, deliver the report. Changes nothing."""
    try:
        from .service import serve as work
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        text = f"`runbook serve` is not installed ({missing} is missing)"
        raise SettingsError(f"{text}: pip install 'fulfillment-runbook[serve]'") from error
    from .settings import ServeSettings

    work(ServeSettings.load())
