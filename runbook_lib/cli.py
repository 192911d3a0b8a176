"""The ``runbook`` command: a thin edge. Parses, calls ``run``, prints, exits."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import click
import typer

from .errors import DriftError, RunbookError, UsageError
from .exit_codes import ExitCode, exit_code_of_error
from .record.log import utc_now
from .redact import Redactor
from .settings import Settings, load_settings

if TYPE_CHECKING:
    from .run.documents import Document

__all__ = ["app", "main"]

app = typer.Typer(
    help="The fulfilment backlog runbook: look, plan, change, prove.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
chaos_app = typer.Typer(
    help="Synthetic backlog: fake labels that cannot ship.", no_args_is_help=True
)
app.add_typer(chaos_app, name="chaos")

Json = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]
IncidentId = Annotated[str, typer.Option("--incident", help="incident id; default: newest open")]
PlanId = Annotated[str, typer.Argument(help="the plan's id, as `runbook plan` printed it")]


def _emit(document: Document, as_json: bool) -> NoReturn:
    if as_json:
        sys.stdout.write(document.to_json() + "\n")
    else:
        from rich.console import Console

        from .run.terminal import print_document

        print_document(document, Console())
    raise typer.Exit(int(document.exit_code))


@contextmanager
def _status(as_json: bool) -> Iterator[Callable[[str], None]]:
    """Yield a callback that says what is going on, on stderr; silent with ``--json``."""
    if as_json:
        yield lambda _: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                console.print(f"… {text}", markup=False, highlight=False)

        yield say


def _parse_parameters(given: list[str]) -> dict[str, str]:
    pairs = {}
    for item in given:
        name, sign, value = item.partition("=")
        if not sign or not name.isidentifier():
            raise UsageError(f"-p wants name=value, not {item!r}")
        pairs[name] = value
    return pairs


def _parse_duration(text: str) -> timedelta:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    try:
        return timedelta(**{units[text[-1:]]: float(text[:-1])})
    except (KeyError, ValueError, OverflowError):
        raise UsageError(f"{text!r} is not a duration; write 90s, 10m, 2h or 1d") from None


@app.command()
def check(json_: Json = False) -> None:
    """Preflight: what is reachable, with which rights, clock skew and versions. Only reads."""
    from .run.check import check as run_check

    with _status(json_) as say:
        say("section 1")
        document = run_check(load_settings())
    _emit(document, json_)


@app.command()
def investigate(
    ticket: Annotated[str, typer.Option(help="support ticket of an affected order")] = "",
    incident: IncidentId = "",
    window_minutes: Annotated[float, typer.Option(help="how far back to look")] = 60,
    json_: Json = False,
) -> None:
    """Sections 1, 2, 3, 5 and 8, then the report. Only reads."""
    from .run.investigate import investigate as run_investigate

    with _status(json_) as say:
        document = run_investigate(
            load_settings(),
            incident_id=incident,
            ticket_id=ticket,
            window_minutes=window_minutes,
            progress=say,
        )
    _emit(document, json_)


@app.command()
def run(
    sections: Annotated[list[str], typer.Argument(help="such as 06, or remediation")],
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="name=value; repeatable")
    ] = None,
    incident: IncidentId = "",
    json_: Json = False,
) -> None:
    """Run chosen notebooks headless. Section 6 stops at its plans unless -p approve=SHA256."""
    from .run.sections import run_chosen

    with _status(json_) as say:
        document = run_chosen(
            load_settings(),
            sections,
            incident_id=incident,
            parameters=_parse_parameters(parameter or []),
            progress=say,
        )
    _emit(document, json_)


@app.command()
def plan(
    *,
    prefix: Annotated[str, typer.Option(help="where labels wait; default PENDING_PREFIX")] = "",
    to: Annotated[str, typer.Option(help="where they go; default READY_PREFIX")] = "",
    match: Annotated[str, typer.Option(help="file name pattern")] = "*.pdf",
    older_than: Annotated[str, typer.Option(help="only what waits longer: 90s, 10m, 2h")] = "",
    limit: Annotated[int, typer.Option(help="only the first N; 0: all, up to 5,000", min=0)] = 0,
    incident: IncidentId = "",
    json_: Json = False,
) -> None:
    """List exactly what a release would move, and what not. Moves nothing."""
    from .run.release import plan_release

    minutes = _parse_duration(older_than).total_seconds() / 60 if older_than else 0
    with _status(json_) as say:
        document = plan_release(
            load_settings(),
            incident_id=incident,
            prefix=prefix,
            to=to,
            match=match,
            older_than_minutes=minutes,
            limit=limit,
            progress=say,
        )
    _emit(document, json_)


@app.command()
def apply(
    plan_id: PlanId,
    approve: Annotated[str, typer.Option(help="the plan's SHA-256: your approval")] = "",
    json_: Json = False,
) -> None:
    """Carry out an approved plan. Without --approve it stops at the plan."""
    from .run.release import apply_release

    with _status(json_) as say:
        document = apply_release(load_settings(), plan_id, approve=approve, progress=say)
    _emit(document, json_)


@app.command()
def resume(plan_id: PlanId, json_: Json = False) -> None:
    """Go on with an apply or undo that was interrupted."""
    from .run.release import resume_release

    with _status(json_) as say:
        document = resume_release(load_settings(), plan_id, progress=say)
    _emit(document, json_)


@app.command()
def undo(plan_id: PlanId, json_: Json = False) -> None:
    """Move a plan's objects back, within its undo window."""
    from .run.release import undo_release

    with _status(json_) as say:
        document = undo_release(load_settings(), plan_id, progress=say)
    _emit(document, json_)


@app.command()
def verify(plan_id: PlanId, json_: Json = False) -> None:
    """Prove by an independent listing where each planned object is now. Only reads."""
    from .run.release import verify_release

    with _status(json_) as say:
        say("list the bucket")
        document = verify_release(load_settings(), plan_id)
    _emit(document, json_)


@app.command()
def drill(
    scenario: Annotated[str, typer.Option(help="what to inject")] = "pipeline_paused",
    json_: Json = False,
) -> None:
    """Inject a real fault, carry out the runbook, score it, put everything back."""
    from .run.drill import run_drill
    from .run.scenarios import find_scenario

    with _status(json_) as say:
        document = run_drill(load_settings(), find_scenario(scenario), progress=say)
    _emit(document, json_)


@app.command()
def schedule(
    kind: Annotated[str, typer.Argument(help="cron or systemd")],
    scenario: Annotated[str, typer.Option(help="which drill")] = "pipeline_paused",
) -> None:
    """Print what runs the drill weekly. Installs nothing."""
    from .run.schedule import build_schedule

    program = Path(sys.argv[0]).resolve()
    sys.stdout.write(build_schedule(kind, folder=Path.cwd(), program=program, scenario=scenario))


@app.command()
def report(incident: Annotated[str, typer.Argument()], json_: Json = False) -> None:
    """Build the report again from the incident's journal."""
    from .run.reports import rebuild_report

    _emit(rebuild_report(load_settings(), incident), json_)


@app.command(name="verify-report")
def verify_report(incident: Annotated[str, typer.Argument()], json_: Json = False) -> None:
    """Check the journal's chain and the manifest: names the first altered file or line."""
    from .run.reports import check_report

    _emit(check_report(load_settings(), incident), json_)


@chaos_app.callback(invoke_without_command=False)
def _chaos() -> None:
    """Synthetic backlog; only in a marked local or demo environment."""


def _mount_plugins() -> None:
    for entry in entry_points(group="runbook.commands"):
        if entry.name not in {group.name for group in app.registered_groups}:
            app.add_typer(entry.load(), name=entry.name)


def _fail(error: BaseException, settings: Settings | None, as_json: bool) -> int:
    code = exit_code_of_error(error)
    text = str(error) or type(error).__name__
    if code is ExitCode.INTERRUPTED:
        text = "interrupted; what was done is in the journal and the ledger"
    text = Redactor(settings.secrets if settings else ()).text(text)
    if as_json:
        from .run.documents import ErrorDocument

        keys = error.keys if isinstance(error, DriftError) else ()
        document = ErrorDocument(
            schema_name="runbook/error/1", at=utc_now(), exit_code=code, error=text, keys=keys
        )
        sys.stdout.write(document.to_json() + "\n")
    sys.stderr.write(f"runbook: {text}\n")
    return int(code)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command; every exit code comes from the one table."""
    signal.signal(signal.SIGTERM, _interrupt)
    as_json = "--json" in sys.argv
    settings: Settings | None = None
    try:
        _mount_plugins()
        code = app(standalone_mode=False)
        sys.exit(int(code or 0))
    except click.exceptions.Abort:
        sys.exit(_fail(KeyboardInterrupt(), settings, as_json))
    except click.ClickException as error:
        error.show()
        sys.exit(int(ExitCode.USAGE))
    except (RunbookError, KeyboardInterrupt, OSError) as error:
        if not isinstance(error, UsageError):
            settings = _settings_or_none()
        sys.exit(_fail(error, settings, as_json))


def _settings_or_none() -> Settings | None:
    try:
        return load_settings()
    except UsageError:
        return None
