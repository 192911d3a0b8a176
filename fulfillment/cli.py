"""The commands of this runbook, as the command line shows them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from runbook_lib.cli import AsJson, IncidentId, parse_minutes, present
from runbook_lib.run.interrupts import hold_interrupts

if TYPE_CHECKING:
    from runbook_lib.model import Progress
    from runbook_lib.run.documents import Document

app = typer.Typer()
chaos_app = typer.Typer(help="A backlog of fake labels that cannot ship.", no_args_is_help=True)

PlanId = Annotated[str, typer.Argument(help="the plan's id, as `runbook plan` printed it")]
Scenario = Annotated[
    str,
    typer.Option(help="fault; default: pipeline_paused on the local stack, else synthetic"),
]
OlderThan = Annotated[str, typer.Option("--older-than", help="what waits longer: 90s, 10m, 2h")]
Approval = Annotated[str, typer.Option("--approve", help="the plan's SHA-256: your approval")]
StandsStill = Annotated[
    bool, typer.Option(help="your word: nobody takes from ready/ until this is done")
]
SameStore = Annotated[
    bool, typer.Option(help="your word: the plan's endpoint is this store by another name")
]


@app.command()
def check(*, as_json: AsJson = False) -> None:
    """Preflight: what is reachable, with which rights, clock skew and versions. Only reads."""
    with hold_interrupts():
        from .commands import check as work
        from .settings import Settings

    present(lambda progress: work(Settings.load(), progress=progress), as_json=as_json)


@app.command()
def init(
    marker: Annotated[str, typer.Option(help="local or demo: mark the bucket as such")] = "",
    approve: Annotated[str, typer.Option(help="the SHA-256 of what will be written")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Write a commented .env into this folder, if none applies here; --marker allows drills."""
    with hold_interrupts():
        from .commands import init as work
        from .settings import Settings

    present(
        lambda progress: work(Settings.load(), marker=marker, approve=approve, progress=progress),
        as_json=as_json,
    )


@app.command()
def plan(
    *,
    prefix: Annotated[str, typer.Option(help="where labels wait; default PENDING_PREFIX")] = "",
    to: Annotated[str, typer.Option(help="where they go; default READY_PREFIX")] = "",
    match: Annotated[str, typer.Option(help="name pattern; default RELEASE_MATCH")] = "",
    older_than: OlderThan = "",
    limit: Annotated[int, typer.Option(help="the first N; 0: RELEASE_LIMIT_OBJECTS", min=0)] = 0,
    memory_removed: Annotated[
        bool, typer.Option(help="also labels of which the bucket forgot what became")
    ] = False,
    incident_id: IncidentId = "",
    as_json: AsJson = False,
) -> None:
    """List exactly what a release would move, and what not. Moves nothing."""
    older_than_minutes = parse_minutes(older_than)
    with hold_interrupts():
        from .commands import plan_release
        from .settings import Settings

    present(
        lambda progress: plan_release(
            Settings.load(),
            prefix=prefix,
            to=to,
            match=match,
            older_than_minutes=older_than_minutes,
            limit=limit,
            memory_removed=memory_removed,
            incident_id=incident_id,
            progress=progress,
        ),
        as_json=as_json,
    )


@app.command()
def apply(
    plan_id: PlanId,
    approve: Approval = "",
    *,
    strict: Annotated[bool, typer.Option(help="refuse when any planned label changed")] = False,
    consumer_stands_still: StandsStill = False,
    as_json: AsJson = False,
) -> None:
    """Carry out an approved plan. Without --approve it stops at the plan."""
    with hold_interrupts():
        from .commands import apply_release_plan
        from .settings import Settings

    present(
        lambda progress: apply_release_plan(
            Settings.load(),
            plan_id,
            approve=approve,
            strict=strict,
            consumer_stands_still=consumer_stands_still,
            progress=progress,
        ),
        as_json=as_json,
    )


@app.command()
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
    as_json: AsJson = False,
) -> None:
    """Go on with a plan that was cut off, here or on another machine."""
    with hold_interrupts():
        from .commands import resume_release_plan
        from .settings import Settings

    present(
        lambda progress: resume_release_plan(
            Settings.load(),
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


@app.command()
def undo(
    plan_id: PlanId,
    approve: Approval = "",
    *,
    consumer_stands_still: StandsStill = False,
    same_store: SameStore = False,
    as_json: AsJson = False,
) -> None:
    """Move a release's objects back, within its window. Without --approve it stops at the plan.

    Given the id of a settling it takes a person's word back: its labels wait for a word again.
    """
    with hold_interrupts():
        from .commands import undo_release
        from .settings import Settings

    present(
        lambda progress: undo_release(
            Settings.load(),
            plan_id,
            approve=approve,
            consumer_stands_still=consumer_stands_still,
            same_store=same_store,
            progress=progress,
        ),
        as_json=as_json,
    )


@app.command()
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
    as_json: AsJson = False,
) -> None:
    """Show labels of which nobody can know whether they were shipped, and write down your word.

    Taken: what is left of them stays parked. Not taken: a new plan may move them. A wrong word
    ships twice.
    """
    chosen = [*(keys or []), *(key or [])]
    if from_file is not None:
        chosen += _read_lines(from_file)
    with hold_interrupts():
        from .commands import settle_release
        from .settings import Settings

    present(
        lambda progress: settle_release(
            Settings.load(),
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
    from runbook_lib.errors import UsageError

    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--from-file: {path} cannot be read: {error}") from error
    return [line for line in text.split("\n") if line]


@app.command()
def verify(
    plan_id: PlanId,
    *,
    same_store: SameStore = False,
    as_json: AsJson = False,
) -> None:
    """Prove by an independent listing where each planned object is. Only reads."""
    with hold_interrupts():
        from .commands import verify_release_plan
        from .settings import Settings

    present(
        lambda progress: verify_release_plan(
            Settings.load(), plan_id, same_store=same_store, progress=progress
        ),
        as_json=as_json,
    )


@app.command()
def drill(
    scenario: Scenario = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Inject a real fault, carry out the runbook, score it, put everything back."""
    with hold_interrupts():
        from .drills import find_scenario, get_default_scenario, run_drill
        from .settings import Settings

    def work(progress: Progress) -> Document:
        settings = Settings.load()
        chosen = find_scenario(scenario or get_default_scenario(settings))
        return run_drill(settings, chosen, progress=progress)

    present(work, as_json=as_json)


@app.command()
def schedule(
    kind: Annotated[Literal["cron", "systemd"], typer.Argument(help="who starts it")],
    scenario: Scenario = "",
) -> None:
    """Print what runs the drill weekly. Installs nothing."""
    from .change.environment_guard import check_environment
    from .drills import build_schedule, find_settings_folder, get_default_scenario
    from .settings import Settings

    folder = find_settings_folder(Settings.load())
    settings = Settings.load(folder)
    check_environment(settings)
    text = build_schedule(
        kind,
        folder=folder,
        home=settings.runbook_home.resolve(),
        environment=settings.runbook_environment,
        scenario=scenario or get_default_scenario(settings),
    )
    sys.stdout.write(text)


@chaos_app.command("create")
def chaos_create(
    *,
    count: Annotated[int, typer.Option(min=1, max=5000)] = 25,
    hold_minutes: Annotated[float, typer.Option(min=1)] = 30,
    object_size_kb: Annotated[int, typer.Option(min=1, max=10240)] = 128,
    age_minutes: Annotated[float, typer.Option(min=0, help="backdate pending-since")] = 0,
    prefix: Annotated[str, typer.Option(help="default CHAOS_PREFIX")] = "",
    as_json: AsJson = False,
) -> None:
    """Make fake labels that cannot ship; `revert` removes them."""
    with hold_interrupts():
        from .commands import create_chaos
        from .settings import Settings

    present(
        lambda _: create_chaos(
            Settings.load(),
            count=count,
            hold_minutes=hold_minutes,
            object_size_kb=object_size_kb,
            age_minutes=age_minutes,
            prefix=prefix,
        ),
        as_json=as_json,
    )


@chaos_app.command("revert")
def chaos_revert(
    drill_id: Annotated[str, typer.Option(help="only this drill's objects")] = "",
    prefix: Annotated[str, typer.Option(help="default CHAOS_PREFIX and PENDING_PREFIX")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Remove what the metadata proves synthetic; look-alikes stay."""
    with hold_interrupts():
        from .commands import revert_chaos
        from .settings import Settings

    present(
        lambda _: revert_chaos(Settings.load(), prefix=prefix, drill_id=drill_id), as_json=as_json
    )


@chaos_app.command("status")
def chaos_status(*, as_json: AsJson = False) -> None:
    """Count synthetic objects by drill. Only reads."""
    with hold_interrupts():
        from .commands import read_chaos_status
        from .settings import Settings

    present(lambda _: read_chaos_status(Settings.load()), as_json=as_json)


@chaos_app.command("sweep")
def chaos_sweep(*, as_json: AsJson = False) -> None:
    """Remove leftovers of killed drills."""
    with hold_interrupts():
        from .commands import sweep_chaos
        from .settings import Settings

    present(lambda _: sweep_chaos(Settings.load()), as_json=as_json)
