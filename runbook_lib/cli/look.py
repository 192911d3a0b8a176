"""Commands that look: nothing but the incident folder changes."""

from __future__ import annotations

from typing import Annotated

import typer

from .edge import IncidentId, Json, carry_out, emit, load_settings

__all__ = ["app"]

app = typer.Typer()


@app.command()
def check(json_: Json = False) -> None:
    """Preflight: what is reachable, with which rights, clock skew and versions. Only reads."""
    from fulfillment.commands.check import check as run_check

    carry_out(run_check, as_json=json_)


@app.command()
def investigate(
    ticket: Annotated[str, typer.Option(help="support ticket of an affected order")] = "",
    incident: IncidentId = "",
    window_minutes: Annotated[float, typer.Option(help="how far back to look")] = 60,
    json_: Json = False,
) -> None:
    """Sections 1, 2, 3, 5 and 8, then the report. Only reads."""
    from ..run.sections import investigate as run_investigate

    carry_out(
        run_investigate,
        incident_id=incident,
        ticket_id=ticket,
        window_minutes=window_minutes,
        as_json=json_,
    )


@app.command()
def report(incident: Annotated[str, typer.Argument()], json_: Json = False) -> None:
    """Build the report again from the incident's journal."""
    from ..run.reports import rebuild_report

    emit(rebuild_report(load_settings(), incident), json_)


@app.command(name="verify-report")
def verify_report(incident: Annotated[str, typer.Argument()], json_: Json = False) -> None:
    """Check the journal's chain and the manifest: names the first altered file or line."""
    from ..run.reports import check_report

    emit(check_report(load_settings(), incident), json_)
