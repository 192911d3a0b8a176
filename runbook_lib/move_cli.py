"""The commands of a runbook that moves objects, as the command line shows them.

A runbook adds them to its own with ``make_move_commands``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from .cli import AsJson, IncidentId, declare
from .runbook import find_runbook

if TYPE_CHECKING:
    from .model import Progress
    from .run.move_commands import MoveCommands

_STILL = "--consumer-stands-still"
PlanId = Annotated[str, typer.Argument(help="the plan's id, as `runbook plan` printed it")]
_APPROVE = "the plan's SHA-256, or its first 12 characters: your approval"
Approval = Annotated[str, typer.Option("--approve", help=_APPROVE)]
StandsStill = Annotated[
    str,
    typer.Option(
        _STILL,
        metavar="[=SINCE]",
        help="confirm that nothing consumes from the destination while this runs, or since a time",
    ),
]
Part = Annotated[int, typer.Option(help="only this part of the plan; 0: all")]
Parts = Annotated[int, typer.Option(help="cut the plan into N parts for several machines")]
MemoryRemoved = Annotated[bool, typer.Option(help="also objects whose fate the bucket forgot")]


class _MoveCommand(TyperCommand):
    """A command that reads ``--consumer-stands-still`` without a time, and an old name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments."""
        args = [f"{_STILL}=now" if arg == _STILL else arg for arg in args]
        # `--shards` is the old name of `--parts`, for one release.
        return super().parse_args(ctx, [arg.replace("--shards", "--parts") for arg in args])


def make_move_commands(
    load_commands: Callable[[], type[MoveCommands]], own_plan: Callable[..., None] | None = None
) -> typer.Typer:
    """Return the commands ``plan``, ``apply``, ``resume``, ``undo``, ``settle`` and ``verify``.

    Parameters
    ----------
    load_commands : imports the runbook's ``MoveCommands``; called when a command runs
    own_plan : declares the runbook's own options of ``plan``; None: those of this module
    """
    app = typer.Typer()

    def load(progress: Progress) -> MoveCommands:
        return load_commands()(find_runbook().load_settings(), progress)

    for declaration in (own_plan or plan, apply, resume, undo, verify):
        declare(app, load, cls=_MoveCommand)(declaration)
    declare(app, load, context_settings={"ignore_unknown_options": True})(settle)
    return app


def plan(
    incident_id: IncidentId = "",
    *,
    memory_removed: MemoryRemoved = False,
    parts: Parts = 0,
    as_json: AsJson = False,
) -> None:
    """List exactly what would move, and what not. Moves nothing."""


def apply(
    plan_id: PlanId,
    approve: Approval = "",
    *,
    strict: Annotated[bool, typer.Option(help="refuse when any planned object changed")] = False,
    consumer_stands_still: StandsStill = "",
    part: Part = 0,
    as_json: AsJson = False,
) -> None:
    """Carry out an approved plan, or resume it. Without --approve it stops at the plan."""


def resume(
    plan_id: PlanId,
    approve: Annotated[str, typer.Option(help="the hash that this command asked for")] = "",
    *,
    consumer_stands_still: StandsStill = "",
    stop_here: Annotated[
        bool, typer.Option(help="copy nothing more; finish what has landed")
    ] = False,
    resume_worker: Annotated[
        bool, typer.Option(help="only resume the worker, although objects may ship twice")
    ] = False,
    part: Part = 0,
    as_json: AsJson = False,
) -> None:
    """Resume an unfinished plan, begun here or on another machine."""


def undo(
    plan_id: PlanId,
    approve: Approval = "",
    *,
    consumer_stands_still: StandsStill = "",
    as_json: AsJson = False,
) -> None:
    """Move a plan's objects back, within its window. Without --approve it stops at the plan."""


def settle(
    plan_id: PlanId,
    answers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[--taken [KEY]...] [--not-taken [KEY]...]",
            help="what became of the objects; without a key: of all that the other one lacks",
        ),
    ] = None,
    *,
    from_file: Annotated[
        Path | None,
        typer.Option(exists=True, help="answers, one a line: `taken KEY` or `not-taken KEY`"),
    ] = None,
    approve: Approval = "",
    as_json: AsJson = False,
) -> None:
    """Show objects that may or may not have been taken; carry out your answers.

    Taken: what is left of them stays parked. Not taken: a new plan may move them. After a wrong
    answer, an object is delivered twice, or never.
    """


def verify(plan_id: PlanId, *, as_json: AsJson = False) -> None:
    """Prove by a fresh listing where each planned object is. Moves nothing."""
