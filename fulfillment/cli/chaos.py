"""Synthetic backlog: fake labels that cannot ship."""

from __future__ import annotations

from typing import Annotated

import typer

from runbook_lib.cli.edge import Json, emit, load_settings

app = typer.Typer(help="Synthetic backlog: fake labels that cannot ship.", no_args_is_help=True)


@app.command("create")
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
    from ..commands.chaos import create_chaos

    document = create_chaos(
        load_settings(),
        prefix=prefix,
        count=count,
        hold_minutes=hold_minutes,
        object_size_kb=object_size_kb,
        age_minutes=age_minutes,
    )
    emit(document, json_)


@app.command("revert")
def chaos_revert(
    drill_id: Annotated[str, typer.Option(help="only this drill's objects")] = "",
    prefix: Annotated[str, typer.Option(help="default CHAOS_PREFIX and PENDING_PREFIX")] = "",
    json_: Json = False,
) -> None:
    """Remove what the metadata proves synthetic; look-alikes stay."""
    from ..commands.chaos import revert_chaos

    emit(revert_chaos(load_settings(), prefix=prefix, drill_id=drill_id), json_)


@app.command("status")
def chaos_status(json_: Json = False) -> None:
    """Count synthetic objects by drill. Only reads."""
    from ..commands.chaos import read_chaos_status

    emit(read_chaos_status(load_settings()), json_)


@app.command("sweep")
def chaos_sweep(json_: Json = False) -> None:
    """Remove leftovers of killed drills."""
    from ..commands.chaos import sweep_chaos

    emit(sweep_chaos(load_settings()), json_)
