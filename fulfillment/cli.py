"""The commands of this runbook, as the command line shows them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from runbook_lib.cli import AsJson, IncidentId, declare, parse_minutes, present
from runbook_lib.errors import UsageError
from runbook_lib.move_cli import Approval, MemoryRemoved, Parts, make_move_commands
from runbook_lib.run.interrupts import hold_interrupts

if TYPE_CHECKING:
    from runbook_lib.model import Progress
    from runbook_lib.run.documents import Document

app = typer.Typer()
chaos_app = typer.Typer(help="A backlog of fake labels that cannot ship.", no_args_is_help=True)

Scenario = Annotated[
    str,
    typer.Argument(help="fault; default: pipeline_paused on the local stack, else synthetic"),
]


def _load(_progress: Progress | None = None) -> Any:
    """Import ``commands`` only when a command runs, so that ``--help`` is quick."""
    from . import commands

    return commands


def plan(
    *,
    prefix: Annotated[str, typer.Option(help="where labels wait; default PENDING_PREFIX")] = "",
    to: Annotated[str, typer.Option(help="where the labels go; default READY_PREFIX")] = "",
    match: Annotated[str, typer.Option(help="name pattern; default RELEASE_MATCH")] = "",
    older_than_minutes: Annotated[
        float,
        typer.Option(
            "--older-than",
            parser=parse_minutes,
            metavar="AGE",
            help="only labels that waited longer than this: 90s, 10m, 2h",
        ),
    ] = 0,
    limit: Annotated[
        int, typer.Option(help="the first N; 0: all, refused over RELEASE_LIMIT_OBJECTS", min=0)
    ] = 0,
    only_orders: Annotated[str, typer.Option(help="only these orders, comma-separated")] = "",
    park_unwanted: Annotated[
        bool, typer.Option("--park-unwanted", help="park what nobody wants; release nothing")
    ] = False,
    memory_removed: MemoryRemoved = False,
    parts: Parts = 0,
    incident_id: IncidentId = "",
    as_json: AsJson = False,
) -> None:
    """List exactly what a release would move, and what not. Moves nothing."""


release_app = make_move_commands(lambda: _load().ReleaseCommands, plan)


@declare(app, _load)
def fix(
    approve: Approval = "",
    *,
    incident_id: IncidentId = "",
    as_json: AsJson = False,
) -> None:
    """Plan the next action that section 5 advises, and show it; approved, carry it out."""


@declare(app, _load)
def check(*, as_json: AsJson = False) -> None:
    """Preflight: what is reachable, with which rights, clock skew and versions. Only reads."""


@declare(app, _load)
def init(
    marker: Annotated[str, typer.Option(help="local or demo: mark the bucket as such")] = "",
    approve: Annotated[str, typer.Option(help="the SHA-256 of what will be written")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Write a commented .env into this folder, if none applies here; --marker allows drills."""


@app.command()
def drill(
    scenario: Scenario = "",
    *,
    old_scenario: Annotated[
        str, typer.Option("--scenario", hidden=True, help="the same as the argument")
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="every scenario that fits, in turn")] = False,
    revert: Annotated[
        bool, typer.Option("--revert", help="only take back what a killed drill left")
    ] = False,
    print_cron: Annotated[
        bool, typer.Option("--print-cron", help="only print a crontab line for a weekly drill")
    ] = False,
    print_systemd: Annotated[
        bool, typer.Option("--print-systemd", help="only print systemd units for a weekly drill")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Inject a real fault, carry out the runbook, score it, put everything back."""
    if [bool(scenario), bool(old_scenario), every, revert].count(True) > 1:
        raise UsageError("choose one scenario, or --all, or --revert")
    scenario = scenario or old_scenario
    with hold_interrupts():
        from .drill_commands import drill_all, drill_one, make_schedule, revert_killed_drill
        from .drills import choose_scenario
        from .settings import Settings

    def work(progress: Progress) -> Document:
        """Do what the options choose: take back a killed drill, run every scenario, or run one."""
        settings = Settings.load()
        if revert:
            return revert_killed_drill(settings, progress=progress)
        if every:
            return drill_all(settings, progress=progress)
        chosen = choose_scenario(settings, scenario)
        return drill_one(settings, chosen, progress=progress)

    if print_cron or print_systemd:
        kind: Literal["cron", "systemd"] = "cron" if print_cron else "systemd"
        sys.stdout.write(make_schedule(kind, scenario, every=every))
    else:
        present(work, as_json=as_json)


@declare(chaos_app, _load, name="create")
def create_chaos(
    *,
    count: Annotated[int, typer.Option(min=1, max=5000)] = 25,
    hold_minutes: Annotated[float, typer.Option(min=1)] = 30,
    object_size_kb: Annotated[int, typer.Option(min=1, max=10240)] = 128,
    age_minutes: Annotated[float, typer.Option(min=0, help="backdate pending-since")] = 0,
    prefix: Annotated[str, typer.Option(help="default CHAOS_PREFIX")] = "",
    as_json: AsJson = False,
) -> None:
    """Make fake labels that cannot ship, and expire by themselves; `revert` removes them."""


@declare(chaos_app, _load, name="revert")
def revert_chaos(
    drill_id: Annotated[str, typer.Option(help="only this drill's objects")] = "",
    prefix: Annotated[str, typer.Option(help="default CHAOS_PREFIX and PENDING_PREFIX")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Remove what the metadata proves synthetic; look-alikes stay."""


@declare(chaos_app, _load, name="status")
def read_chaos_status(*, as_json: AsJson = False) -> None:
    """Count synthetic objects by drill. Only reads."""
