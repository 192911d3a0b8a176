"""Drills, and what runs them weekly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from runbook_lib.cli.edge import Json, carry_out

app = typer.Typer()


@app.command()
def drill(
    scenario: Annotated[str, typer.Option(help="what to inject")] = "pipeline_paused",
    json_: Json = False,
) -> None:
    """Inject a real fault, carry out the runbook, score it, put everything back."""
    from ..drills.drill import run_drill
    from ..drills.scenarios import find_scenario

    carry_out(run_drill, find_scenario(scenario), as_json=json_)


@app.command()
def schedule(
    kind: Annotated[str, typer.Argument(help="cron or systemd")],
    scenario: Annotated[str, typer.Option(help="which drill")] = "pipeline_paused",
) -> None:
    """Print what runs the drill weekly. Installs nothing."""
    from ..drills.schedule import build_schedule

    program = Path(sys.argv[0]).resolve()
    sys.stdout.write(build_schedule(kind, folder=Path.cwd(), program=program, scenario=scenario))
