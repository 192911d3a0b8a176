"""The commands of this runbook, as the command line shows them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from runbook_lib.cli import IncidentId, command, parse_minutes

app = typer.Typer()
chaos_app = typer.Typer(help="A backlog of fake labels that cannot ship.", no_args_is_help=True)

PlanId = Annotated[str, typer.Argument(help="the plan's id, as `runbook plan` printed it")]
Scenario = Annotated[str, typer.Option(help="what to inject")]
OlderThan = Annotated[
    str,
    typer.Option("--older-than", callback=parse_minutes, help="what waits longer: 90s, 10m, 2h"),
]
Approval = Annotated[str, typer.Option("--approve", help="the plan's SHA-256: your approval")]
StandsStill = Annotated[
    bool, typer.Option(help="your word: nobody takes from ready/ until this is done")
]
SameStore = Annotated[
    bool, typer.Option(help="your word: the plan's endpoint is this store by another name")
]


@command(app, "fulfillment.commands:check")
def check() -> None:
    """Preflight: what is reachable, with which rights, clock skew and versions. Only reads."""


@command(app, "fulfillment.commands:init")
def init(
    marker: Annotated[str, typer.Option(help="local or demo: mark the bucket as such")] = "",
    approve: Annotated[str, typer.Option(help="the SHA-256 of what will be written")] = "",
) -> None:
    """Write a commented .env where there is none; --marker allows drills on this bucket."""


@command(app, "fulfillment.commands:plan_release")
def plan(
    *,
    prefix: Annotated[str, typer.Option(help="where labels wait; default PENDING_PREFIX")] = "",
    to: Annotated[str, typer.Option(help="where they go; default READY_PREFIX")] = "",
    match: Annotated[str, typer.Option(help="name pattern; default RELEASE_MATCH")] = "",
    older_than_minutes: OlderThan = "",
    limit: Annotated[int, typer.Option(help="the first N; 0: RELEASE_LIMIT_OBJECTS", min=0)] = 0,
    memory_removed: Annotated[
        bool, typer.Option(help="also labels of which the bucket forgot what became")
    ] = False,
    incident_id: IncidentId = "",
) -> None:
    """List exactly what a release would move, and what not. Moves nothing."""


@command(app, "fulfillment.commands:apply_release_plan")
def apply(
    plan_id: PlanId,
    approve: Approval = "",
    *,
    strict: Annotated[bool, typer.Option(help="refuse when any planned label changed")] = False,
    consumer_stands_still: StandsStill = False,
) -> None:
    """Carry out an approved plan. Without --approve it stops at the plan."""


@command(app, "fulfillment.commands:resume_release_plan")
def resume(
    plan_id: PlanId,
    approve: Annotated[str, typer.Option(help="what this command printed before")] = "",
    *,
    consumer_stands_still: StandsStill = False,
    stop_here: Annotated[
        bool, typer.Option(help="copy nothing more; finish what has landed")
    ] = False,
    worker_goes_on: Annotated[
        bool, typer.Option(help="let the worker go on although labels may ship twice")
    ] = False,
    same_store: SameStore = False,
) -> None:
    """Go on with a plan that was cut off, here or on another machine."""


@command(app, "fulfillment.commands:undo_release")
def undo(
    plan_id: PlanId,
    approve: Approval = "",
    *,
    consumer_stands_still: StandsStill = False,
    same_store: SameStore = False,
) -> None:
    """Move a release's objects back, within its window. Without --approve it stops at the plan.

    Given the id of a settling it takes a person's word back: its labels wait for a word again.
    """


@command(app, "fulfillment.commands:settle_release")
def settle(
    plan_id: PlanId,
    keys: Annotated[list[str] | None, typer.Argument(help="as `settle` shows them")] = None,
    *,
    taken: Annotated[
        bool | None, typer.Option("--taken/--not-taken", help="whether they were shipped")
    ] = None,
    key: Annotated[list[str] | None, typer.Option(help="only this label; may be repeated")] = None,
    from_file: Annotated[
        Path | None, typer.Option(help="only the labels in this file, one key a line")
    ] = None,
    approve: Approval = "",
    same_store: SameStore = False,
) -> dict[str, Any]:
    """Show labels of which nobody can know whether they were shipped, and write down your word.

    Taken: what is left of them stays parked. Not taken: a new plan may move them. A wrong word
    ships twice.
    """
    chosen = [*(keys or []), *(key or [])]
    if from_file is not None:
        chosen += _read_lines(from_file)
    return {
        "plan_id": plan_id,
        "taken": taken,
        "keys": chosen,
        "approve": approve,
        "same_store": same_store,
    }


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a file, without the empty ones; blanks around a key are kept."""
    from runbook_lib.errors import UsageError

    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--from-file: {path} cannot be read: {error}") from error
    return [line for line in text.split("\n") if line]


@command(app, "fulfillment.commands:verify_release_plan")
def verify(plan_id: PlanId, *, same_store: SameStore = False) -> None:
    """Prove by an independent listing where each planned object is. Only reads."""


@command(app, "fulfillment.drills:run_drill")
def drill(scenario: Scenario = "pipeline_paused") -> dict[str, Any]:
    """Inject a real fault, carry out the runbook, score it, put everything back."""
    from .drills import find_scenario

    return {"scenario": find_scenario(scenario)}


@app.command()
def schedule(
    kind: Annotated[Literal["cron", "systemd"], typer.Argument(help="who starts it")],
    scenario: Scenario = "pipeline_paused",
) -> None:
    """Print what runs the drill weekly. Installs nothing."""
    from .drills import build_schedule, find_settings_folder
    from .settings import Settings

    settings = Settings.load()
    folder, home = find_settings_folder(settings), settings.runbook_home.resolve()
    sys.stdout.write(build_schedule(kind, folder=folder, home=home, scenario=scenario))


@command(chaos_app, "fulfillment.commands:create_chaos", "create")
def chaos_create(
    *,
    count: Annotated[int, typer.Option(min=1, max=5000)] = 25,
    hold_minutes: Annotated[float, typer.Option(min=1)] = 30,
    object_size_kb: Annotated[int, typer.Option(min=1, max=10240)] = 128,
    age_minutes: Annotated[float, typer.Option(min=0, help="backdate pending-since")] = 0,
    prefix: Annotated[str, typer.Option(help="default CHAOS_PREFIX")] = "",
) -> None:
    """Make fake labels that cannot ship; `revert` removes them."""


@command(chaos_app, "fulfillment.commands:revert_chaos", "revert")
def chaos_revert(
    drill_id: Annotated[str, typer.Option(help="only this drill's objects")] = "",
    prefix: Annotated[str, typer.Option(help="default CHAOS_PREFIX and PENDING_PREFIX")] = "",
) -> None:
    """Remove what the metadata proves synthetic; look-alikes stay."""


@command(chaos_app, "fulfillment.commands:read_chaos_status", "status")
def chaos_status() -> None:
    """Count synthetic objects by drill. Only reads."""


@command(chaos_app, "fulfillment.commands:sweep_chaos", "sweep")
def chaos_sweep() -> None:
    """Remove leftovers of killed drills."""
