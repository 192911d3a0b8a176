"""The commands of a runbook that moves objects, as the command line shows them.

A runbook adds them to its own with ``make_move_commands``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli import AsJson, IncidentId, present
from .errors import UsageError
from .run.interrupts import hold_interrupts
from .runbook import find_runbook

if TYPE_CHECKING:
    from .run.move_commands import MoveCommands

PlanId = Annotated[
    str, typer.Argument(help="the plan's id, as `runbook plan` printed it; `ID#2`: its shard 2")
]
Approval = Annotated[str, typer.Option("--approve", help="the plan's SHA-256: your approval")]
StandsStill = Annotated[
    bool, typer.Option(help="your word: nobody takes from the destination until this is done")
]
SameStore = Annotated[
    bool, typer.Option(help="your word: the plan's endpoint is this store by another name")
]
Strict = Annotated[bool, typer.Option(help="refuse when any planned object changed")]
Shards = Annotated[
    int,
    typer.Option(min=0, max=256, help="cut by key range into N plans; 0: one plan"),
]
MemoryRemoved = Annotated[bool, typer.Option(help="also objects whose fate the bucket forgot")]


def make_move_commands(
    load_commands: Callable[[], MoveCommands], *, has_own_plan: bool = False
) -> typer.Typer:
    """Return the commands ``apply``, ``resume``, ``undo``, ``settle``, ``verify``; maybe ``plan``.

    Parameters
    ----------
    load_commands : imports the functions behind the commands; called when a command runs
    has_own_plan : whether the runbook has a ``plan`` of its own; if so, ``plan`` is left out here
    """
    app = typer.Typer()
    if not has_own_plan:
        _add_plan(app, load_commands)
    _add_apply(app, load_commands)
    _add_resume(app, load_commands)
    _add_undo(app, load_commands)
    _add_settle(app, load_commands)
    _add_verify(app, load_commands)
    return app


def _load(load_commands: Callable[[], MoveCommands]) -> tuple[MoveCommands, Any]:
    """Return the functions behind the commands, and this runbook's settings."""
    with hold_interrupts():
        return load_commands(), find_runbook().load_settings()


def _add_plan(app: typer.Typer, load_commands: Callable[[], MoveCommands]) -> None:
    @app.command()
    def plan(
        incident_id: IncidentId = "",
        *,
        memory_removed: MemoryRemoved = False,
        shards: Shards = 0,
        as_json: AsJson = False,
    ) -> None:
        """List exactly what would move, and what not. Moves nothing."""
        commands, settings = _load(load_commands)
        present(
            lambda progress: commands.plan(
                settings,
                incident_id=incident_id,
                memory_removed=memory_removed,
                shards=shards,
                progress=progress,
            ),
            as_json=as_json,
        )


def _add_apply(app: typer.Typer, load_commands: Callable[[], MoveCommands]) -> None:
    @app.command()
    def apply(
        plan_id: PlanId,
        approve: Approval = "",
        *,
        strict: Strict = False,
        consumer_stands_still: StandsStill = False,
        as_json: AsJson = False,
    ) -> None:
        """Carry out an approved plan. Without --approve it stops at the plan."""
        commands, settings = _load(load_commands)
        present(
            lambda progress: commands.apply(
                settings,
                plan_id,
                approve=approve,
                strict=strict,
                consumer_stands_still=consumer_stands_still,
                progress=progress,
            ),
            as_json=as_json,
        )


def _add_resume(app: typer.Typer, load_commands: Callable[[], MoveCommands]) -> None:
    @app.command()
    def resume(
        plan_id: PlanId,
        approve: Annotated[str, typer.Option(help="the hash that this command asked for")] = "",
        *,
        consumer_stands_still: StandsStill = False,
        stop_here: Annotated[
            bool, typer.Option(help="copy nothing more; finish what has landed")
        ] = False,
        worker_goes_on: Annotated[
            bool, typer.Option(help="let the others go on although objects may be taken twice")
        ] = False,
        same_store: SameStore = False,
        as_json: AsJson = False,
    ) -> None:
        """Go on with a plan that was cut off, here or on another machine."""
        commands, settings = _load(load_commands)
        present(
            lambda progress: commands.resume(
                settings,
                plan_id,
                approve=approve,
                consumer_stands_still=consumer_stands_still,
                stop_here=stop_here,
                worker_goes_on=worker_goes_on,
                same_store=same_store,
                progress=progress,
            ),
            as_json=as_json,
        )


def _add_undo(app: typer.Typer, load_commands: Callable[[], MoveCommands]) -> None:
    @app.command()
    def undo(
        plan_id: PlanId,
        approve: Approval = "",
        *,
        consumer_stands_still: StandsStill = False,
        same_store: SameStore = False,
        as_json: AsJson = False,
    ) -> None:
        """Move a plan's objects back, within its window. Without --approve it stops at the plan.

        With the id of a settling, it takes a person's word back. The objects of that settling wait
        for a word again.
        """
        commands, settings = _load(load_commands)
        present(
            lambda progress: commands.undo(
                settings,
                plan_id,
                approve=approve,
                consumer_stands_still=consumer_stands_still,
                same_store=same_store,
                progress=progress,
            ),
            as_json=as_json,
        )


def _add_settle(app: typer.Typer, load_commands: Callable[[], MoveCommands]) -> None:
    @app.command()
    def settle(
        plan_id: PlanId,
        keys: Annotated[list[str] | None, typer.Argument(help="as `settle` shows them")] = None,
        *,
        taken: Annotated[
            bool | None, typer.Option("--taken/--not-taken", help="whether a consumer took them")
        ] = None,
        key: Annotated[
            list[str] | None, typer.Option(help="only this object; may be repeated")
        ] = None,
        from_file: Annotated[
            Path | None, typer.Option(help="only the objects in this file, one key a line")
        ] = None,
        approve: Approval = "",
        same_store: SameStore = False,
        as_json: AsJson = False,
    ) -> None:
        """Show objects that may or may not have been taken; write down your word.

        Taken: what is left of them stays parked. Not taken: a new plan may move them. After a wrong
        word, an object is delivered twice, or never.
        """
        chosen = [*(keys or []), *(key or [])]
        if from_file is not None:
            chosen += _read_lines(from_file)
        commands, settings = _load(load_commands)
        present(
            lambda progress: commands.settle(
                settings,
                plan_id,
                taken=taken,
                keys=chosen,
                approve=approve,
                same_store=same_store,
                progress=progress,
            ),
            as_json=as_json,
        )


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a file, without the empty ones; blanks around a key are kept."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--from-file: {path} cannot be read: {error}") from error
    return [line for line in text.split("\n") if line]


def _add_verify(app: typer.Typer, load_commands: Callable[[], MoveCommands]) -> None:
    @app.command()
    def verify(
        plan_id: PlanId,
        *,
        same_store: SameStore = False,
        as_json: AsJson = False,
    ) -> None:
        """Prove by an independent look where each planned object is. Moves nothing."""
        commands, settings = _load(load_commands)
        present(
            lambda progress: commands.verify(
                settings, plan_id, same_store=same_store, progress=progress
            ),
            as_json=as_json,
        )
