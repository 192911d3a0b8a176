"""Drills, and what runs them weekly."""

from __future__ import annotations

import os
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
    from ..drills.schedule import build_schedule, find_settings_folder
    from ..settings import Settings

    settings, script = Settings.load(), Path(sys.argv[0]).resolve()
    is_script = os.access(script, os.X_OK) and script.is_file()
    text = build_schedule(
        kind,
        folder=find_settings_folder(settings),
        home=settings.runbook_home.resolve(),
        program=[str(script)] if is_script else [sys.executable, "-m", "runbook_lib"],
        scenario=scenario,
    )
    sys.stdout.write(text)
