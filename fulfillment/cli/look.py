"""Commands that look: nothing changes."""

from __future__ import annotations

import typer

from runbook_lib.cli.edge import Json, carry_out

app = typer.Typer()


@app.command()
def check(json_: Json = False) -> None:
    """Preflight: what is reachable, with which rights, clock skew and versions. Only reads."""
    from ..commands.check import check as run_check

    carry_out(run_check, as_json=json_)
