"""Commands that plan, change and prove."""

from __future__ import annotations

from typing import Annotated

import typer

from runbook_lib.cli.edge import IncidentId, Json, carry_out, parse_duration
from runbook_lib.errors import UsageError

app = typer.Typer()

PlanId = Annotated[str, typer.Argument(help="the plan's id, as `runbook plan` printed it")]
Approval = Annotated[str, typer.Option("--approve", help="the plan's SHA-256: your approval")]


@app.command()
def init(
    marker: Annotated[str, typer.Option(help="local or demo: mark the bucket as such")] = "",
    approve: Annotated[str, typer.Option(help="the SHA-256 of what will be written")] = "",
    json_: Json = False,
) -> None:
    """Write a commented .env where there is none; --marker allows drills on this bucket."""
    from ..commands.init import init as run_init

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
    from ..commands.release import plan_release

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
    from ..commands.release import apply_release_plan

    carry_out(apply_release_plan, plan_id, approve=approve, as_json=json_)


@app.command()
def resume(plan_id: PlanId, json_: Json = False) -> None:
    """Go on with a plan that was cut off, here or on another machine."""
    from ..commands.release import resume_release_plan

    carry_out(resume_release_plan, plan_id, as_json=json_)


@app.command()
def undo(plan_id: PlanId, approve: Approval = "", json_: Json = False) -> None:
    """Move a release's objects back, within its window. Without --approve it stops at the plan."""
    from ..commands.release import undo_release

    carry_out(undo_release, plan_id, approve=approve, as_json=json_)


@app.command()
def settle(
    plan_id: PlanId,
    keys: Annotated[
        list[str] | None, typer.Argument(help="keys as `verify` prints them; none: all")
    ] = None,
    *,
    taken: Annotated[
        bool | None,
        typer.Option(
            "--taken/--not-taken",
            help="shipped: park what is left; or not shipped: a new plan may move it",
        ),
    ] = None,
    approve: Approval = "",
    json_: Json = False,
) -> None:
    """Write down your word on objects of which nobody can know whether they were shipped."""
    from ..commands.release import settle_release

    if taken is None:
        raise UsageError(
            "say what became of them: --taken, or --not-taken (a wrong word ships twice)"
        )
    carry_out(
        settle_release, plan_id, taken=taken, keys=tuple(keys or ()), approve=approve, as_json=json_
    )


@app.command()
def verify(plan_id: PlanId, json_: Json = False) -> None:
    """Prove by an independent listing where each planned object is now. Only reads."""
    from ..commands.release import verify_release_plan

    carry_out(verify_release_plan, plan_id, as_json=json_)
