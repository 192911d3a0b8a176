"""``runbook tickets`` as the command line shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runbook_lib.cli import AsJson, present
from runbook_lib.run.interrupts import hold_interrupts

app = typer.Typer()


@app.command()
def tickets(
    from_file: Annotated[
        Path | None, typer.Option("--from", help="a file with one ticket id a line")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the tickets that are named in alerts, earlier incidents or a file. Only reads."""
    with hold_interrupts():
        from .settings import Settings
        from .tickets import list_tickets

    present(lambda _: list_tickets(Settings.load(), from_file=from_file), as_json=as_json)
