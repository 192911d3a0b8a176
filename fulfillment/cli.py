"""The commands of this runbook, as the command line shows them."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from runbook_lib.cli import IncidentId, Json, carry_out, emit, load_settings, parse_duration

app = typer.Typer()
chaos_app = typer.Typer(
    help="Synthetic backlog: fake labels that cannot ship.", no_args_is_help=True
)

PlanId = Annotated[str, typer.Argument(help="the plan's id, as `runbook plan` printed it")]
Approval = Annotated[str, typer.Option("--approve", help="the plan's SHA-256: your approval")]


@app.command()
def check(json_: Json = False) -> None:
    """Preflight: what is reachable, with which rights, clock skew and versions. Only reads."""
    from .commands import check as run_check

    carry_out(run_check, as_json=json_)


@app.command()
def init(
    marker: Annotated[str, typer.Option(help="local or demo: mark the bucket as such")] = "",
    approve: Annotated[str, typer.Option(help="the SHA-256 of what will be written")] = "",
    json_: Json = False,
) -> None:
    """Write a commented .env where there is none; --marker allows drills on this bucket."""
    from .commands import init as run_init

    carry_out(run_init, marker=marker, approve=approve, as_json=json_)


@app.command()
def plan(
    *,
    prefix: Annotated[str, typer.Option(help="where labels wait; default PENDING_PREFIX")] = "",
    to: Annotated[str, typer.Option(help="where they go; default READY_PREFIX")] = "",
    match: Annotated[str, typer.Option(help="name pattern; default RELEASE_MATCH")] = "",
    older_than: Annotated[str, typer.Option(help="only what waits longer: 90s, 10m, 2h")] = "",
    limit: Annotated[
        int, typer.Option(help="only the first N; 0: all, up to RELEASE_LIMIT_OBJECTS", min=0)
    ] = 0,
    incident: IncidentId = "",
    json_: Json = False,
) -> None:
    """List exactly what a release would move, and what not. Moves nothing."""
    from .commands import plan_release

    minutes = parse_duration(older_than) / 60 if older_than else 0
    carry_out(
        plan_release,
        incident_id=incident,
        prefix=prefix,
        to=to,
        match=match,
        older_than_minutes=minutes,
        limit=limit,
        as_json=json_,
    )


@app.command()
def apply(plan_id: PlanId, approve: Approval = "", json_: Json = False) -> None:
    """Carry out an approved plan. Without --approve it stops at the plan."""
    from .commands import apply_release_plan

    carry_out(apply_release_plan, plan_id, approve=approve, as_json=json_)


@app.command()
def resume(plan_id: PlanId, json_: Json = False) -> None:
    """Go on with a plan that was cut off, here or on another machine."""
    from .commands import resume_release_plan

    carry_out(resume_release_plan, plan_id, as_json=json_)


@app.command()
def undo(plan_id: PlanId, approve: Approval = "", json_: Json = False) -> None:
    """Move a release's objects back, within its window. Without --approve it stops at the plan."""
    from .commands import undo_release

    carry_out(undo_release, plan_id, approve=approve, as_json=json_)


@app.command()
def settle(
    plan_id: PlanId,
    keys: Annotated[
        list[str] | None, typer.Argument(help="keys as `verify` prints them; none: all")
    ] = None,
    *,
    taken: Annotated[bool, typer.Option("--taken/--not-taken", help="whether they were shipped")],
    approve: Approval = "",
    json_: Json = False,
) -> None:
    """Write down your word on objects of which nobody can know whether they were shipped.

    Taken: what is left of them is parked. Not taken: a new plan may move them. A wrong word ships
    twice.
    """
    from .commands import settle_release

    carry_out(
        settle_release, plan_id, taken=taken, keys=tuple(keys or ()), approve=approve, as_json=json_
    )


@app.command()
def verify(plan_id: PlanId, json_: Json = False) -> None:
    """Prove by an independent listing where each planned object is now. Only reads."""
    from .commands import verify_release_plan

    carry_out(verify_release_plan, plan_id, as_json=json_)


@app.command()
def drill(
    scenario: Annotated[str, typer.Option(help="what to inject")] = "pipeline_paused",
    json_: Json = False,
) -> None:
    """Inject a real fault, carry out the runbook, score it, put everything back."""
    from .drills import find_scenario, run_drill

    carry_out(run_drill, find_scenario(scenario), as_json=json_)


@app.command()
def schedule(
    kind: Annotated[Literal["cron", "systemd"], typer.Argument(help="who starts it")],
    scenario: Annotated[str, typer.Option(help="which drill")] = "pipeline_paused",
) -> None:
    """Print what runs the drill weekly. Installs nothing."""
    from .drills import build_schedule, find_settings_folder
    from .settings import Settings

    settings = Settings.load()
    folder, home = find_settings_folder(settings), settings.runbook_home.resolve()
    sys.stdout.write(build_schedule(kind, folder=folder, home=home, scenario=scenario))


@chaos_app.command("create")
def chaos_create(
    *,
    count: Annotated[int, typer.Option(min=1, max=5000)] = 25,
    hold_minutes: Annotated[float, typer.Option(min=1)] = 30,
    object_size_kb: Annotated[int, typer.Option(min=1, max=10240)] = 128,
    age_minutes: Annotated[float, typer.Option(min=0, help="backdate pending-since")] = 0,
    prefix: Annotated[str, typer.Option(help="default CHAOS_PREFIX")] = "",
    json_: Json = False,
) -> None:
    """Make fake labels that cannot ship; `revert` removes them."""
    from .commands import create_chaos

    document = create_chaos(
        load_settings(),
        prefix=prefix,
        count=count,
        hold_minutes=hold_minutes,
        object_size_kb=object_size_kb,
        age_minutes=age_minutes,
    )
    emit(document, json_)


@chaos_app.command("revert")
def chaos_revert(
    drill_id: Annotated[str, typer.Option(help="only this drill's objects")] = "",
    prefix: Annotated[str, typer.Option(help="default CHAOS_PREFIX and PENDING_PREFIX")] = "",
    json_: Json = False,
) -> None:
    """Remove what the metadata proves synthetic; look-alikes stay."""
    from .commands import revert_chaos

    emit(revert_chaos(load_settings(), prefix=prefix, drill_id=drill_id), json_)


@chaos_app.command("status")
def chaos_status(json_: Json = False) -> None:
    """Count synthetic objects by drill. Only reads."""
    from .commands import read_chaos_status

    emit(read_chaos_status(load_settings()), json_)


@chaos_app.command("sweep")
def chaos_sweep(json_: Json = False) -> None:
    """Remove leftovers of killed drills."""
    from .commands import sweep_chaos

    emit(sweep_chaos(load_settings()), json_)
