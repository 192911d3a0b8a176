"""The commands of a runbook that moves objects: ``plan``, ``apply``, ``resume`` and ``verify``.

A runbook adds them to its own with ``make_move_commands(section, step)``.
"""

from __future__ import annotations

from typing import Annotated

import typer

from .cli import AsJson, IncidentId, present
from .run.interrupts import hold_interrupts
from .runbook import find_runbook

PlanId = Annotated[str, typer.Argument(metavar="plan", help="the plan's id, as `plan` printed it")]
Approval = Annotated[str, typer.Option("--approve", help="the plan's SHA-256: your approval")]


def make_move_commands(section: str, step: str) -> typer.Typer:
    """Return the four commands for the step of a section that moves.

    Parameters
    ----------
    section : its name, such as ``01_inbox``
    step : id of one of its actions, whose plans a ``MoveGate`` admits
    """
    app = typer.Typer()

    @app.command()
    def plan(incident_id: IncidentId = "", *, as_json: AsJson = False) -> None:
        """List exactly what would move, and what not. Moves nothing."""
        with hold_interrupts():
            from .run.move_commands import MoveStep, plan_move

            runbook = find_runbook()
        present(
            lambda progress: plan_move(
                runbook.load_settings(),
                runbook.load_sections(),
                MoveStep(section, step),
                incident_id=incident_id,
                progress=progress,
            ),
            as_json=as_json,
        )

    @app.command()
    def apply(plan_id: PlanId, approve: Approval = "", *, as_json: AsJson = False) -> None:
        """Carry out an approved plan. Without --approve it stops at the plan."""
        with hold_interrupts():
            from .run.move_commands import MoveStep, apply_move

            runbook = find_runbook()
        present(
            lambda progress: apply_move(
                runbook.load_settings(),
                runbook.load_sections(),
                MoveStep(section, step),
                plan_id,
                approve=approve,
                progress=progress,
            ),
            as_json=as_json,
        )

    @app.command()
    def resume(plan_id: PlanId, *, as_json: AsJson = False) -> None:
        """Go on with a plan that was cut off."""
        with hold_interrupts():
            from .run.move_commands import MoveStep, resume_move

            runbook = find_runbook()
        present(
            lambda progress: resume_move(
                runbook.load_settings(),
                runbook.load_sections(),
                MoveStep(section, step),
                plan_id,
                progress=progress,
            ),
            as_json=as_json,
        )

    @app.command()
    def verify(plan_id: PlanId, *, as_json: AsJson = False) -> None:
        """Prove by an independent look where each planned object is. Only reads."""
        with hold_interrupts():
            from .run.move_commands import MoveStep, verify_move

            runbook = find_runbook()
        present(
            lambda progress: verify_move(
                runbook.load_settings(),
                runbook.load_sections(),
                MoveStep(section, step),
                plan_id,
                progress=progress,
            ),
            as_json=as_json,
        )

    return app
