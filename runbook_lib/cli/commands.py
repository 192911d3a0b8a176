"""The commands that every runbook has: its sections, and the reports."""

from __future__ import annotations

from typing import Annotated

import typer

from ..runbook import find_runbook
from .call import IncidentId, Json, carry_out, emit, load_settings, parse_parameters

app = typer.Typer()


@app.command()
def investigate(
    ticket: Annotated[str, typer.Option(help="support ticket of an affected order")] = "",
    incident: IncidentId = "",
    window_minutes: Annotated[float, typer.Option(help="how far back to look")] = 60,
    json_: Json = False,
) -> None:
    """Carry out the sections that only look, then write the report. Only reads."""
    from ..run.sections import investigate as run_investigate

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
    from ..run.sections import run_chosen

    given = parse_parameters(parameter or []) | ({"incident_id": incident} if incident else {})
    known = find_runbook().load_sections()
    carry_out(run_chosen, known, sections, parameters=given, as_json=json_)


@app.command()
def report(incident: Annotated[str, typer.Argument()], json_: Json = False) -> None:
    """Build the report again from the incident's journal."""
    from ..run.reports import rebuild_report

    emit(rebuild_report(load_settings(), find_runbook().load_sections(), incident), json_)


@app.command()
def incidents(json_: Json = False) -> None:
    """List the incidents, the open ones first. Only reads."""
    from ..run.reports import list_incidents

    emit(list_incidents(load_settings()), json_)


@app.command()
def close(incident: Annotated[str, typer.Argument()], json_: Json = False) -> None:
    """Close an incident: its report is written a last time, and stays as it is."""
    from ..run.reports import close_incident

    emit(close_incident(load_settings(), find_runbook().load_sections(), incident), json_)


@app.command()
def history(json_: Json = False) -> None:
    """Show what was, how long it took, and the trends; writes the gauges."""
    from ..run.reports import read_history

    emit(read_history(load_settings()), json_)


@app.command(name="verify-report")
def verify_report(
    incident: Annotated[str, typer.Argument(help="incident id, its folder, or a report's zip")],
    json_: Json = False,
) -> None:
    """Check the journal's chain and the manifest: names the first altered file or line."""
    from ..run.reports import check_report

    emit(check_report(load_settings(), incident), json_)
