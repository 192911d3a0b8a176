"""The command ``runbook stack``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

import typer

from runbook_lib.errors import ExitCode, RunbookError, SettingsError, exit_code_of_error

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The local demo environment.")

_Json = Annotated[bool, typer.Option("--json", help="one JSON document on standard output")]


class _ProfileName(StrEnum):
    DEMO = "demo"
    REHEARSAL = "rehearsal"
    PRODUCTION = "production"


class _Switch(StrEnum):
    ON = "on"
    OFF = "off"


def _print_json(kind: str, code: int, **fields: object) -> None:
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    document = {"schema": f"runbook/stack-{kind}/1", "at": at, "exit_code": code, **fields}
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


@contextmanager
def _stack(kind: str, as_json: bool) -> Iterator[ModuleType]:
    """Yield ``local``; turn an error of ours into a message and its exit code.

    Imported here, so that `runbook --help` stays fast and needs none of the stack's programs.
    """
    try:
        try:
            local = import_module(".local", __package__)
        except ImportError as error:
            raise SettingsError(
                f"the local environment's programs are not installed ({error.name}): "
                "pip install 'fulfillment-runbook[stack]'"
            ) from error
        yield local
    except RunbookError as error:
        code = exit_code_of_error(type(error))
        if as_json:
            _print_json(kind, code, error=str(error))
        typer.secho(str(error), err=True, fg=typer.colors.RED)
        raise typer.Exit(code) from None


def _show(status: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("service", "state", "healthy", "pid", "address", title=status["home"])
    for service in status["services"]:
        table.add_row(
            service["name"],
            service["state"].lower(),
            "yes" if service["healthy"] else "NO",
            str(service["pid"] or ""),
            service["url"],
        )
    console = Console()
    console.print(table)
    if status["faults"]:
        console.print(f"Faults that are on: {', '.join(status['faults'])}")


@app.command()
def up(
    profile: Annotated[
        _ProfileName | None, typer.Option(help="times of rules and routes; demo when new")
    ] = None,
    deadline_s: Annotated[float, typer.Option(min=5, help="longest wait, seconds")] = 60.0,
    as_json: _Json = False,
) -> None:
    """Start everything and wait until it is healthy; harmless when it runs already."""
    with _stack("up", as_json) as local:
        local.up(profile=profile and profile.value, deadline_s=deadline_s)
        status = local.status()
    if as_json:
        _print_json("up", ExitCode.OK, **status)
    else:
        _show(status)
        typer.echo('Healthy. For your shell: eval "$(runbook stack env)"')


@app.command()
def down(as_json: _Json = False) -> None:
    """Stop everything; the data stays."""
    with _stack("down", as_json) as local:
        local.down()
    if as_json:
        _print_json("down", ExitCode.OK)
    else:
        typer.echo("Stopped; no process is left.")


@app.command()
def status(as_json: _Json = False) -> None:
    """Show what runs; exit 3 when a service is not healthy, 1 when the stack is down."""
    with _stack("status", as_json) as local:
        found = local.status()
    code = ExitCode.OK if found["healthy"] else ExitCode.NOT_OK
    if not found["running"]:
        code = ExitCode.RUN_FAILED
    if as_json:
        _print_json("status", code, **found)
    else:
        _show(found)
    raise typer.Exit(code)


@app.command()
def env(as_json: _Json = False) -> None:
    """Print `export NAME=value` for every endpoint and credential."""
    with _stack("env", as_json) as local:
        values = local.env()
    if as_json:
        _print_json("env", ExitCode.OK, env=values)
        return
    for name, value in sorted(values.items()):
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def logs(
    service: Annotated[str, typer.Argument(help="a service's name")],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="how many")] = 100,
    as_json: _Json = False,
) -> None:
    """Show the last lines of a service's log."""
    with _stack("logs", as_json) as local:
        found = local.logs(service, lines=lines)
    if as_json:
        _print_json("logs", ExitCode.OK, service=service, lines=found)
    else:
        typer.echo("\n".join(found))


@app.command()
def restart(
    service: Annotated[str, typer.Argument(help="a service's name")], as_json: _Json = False
) -> None:
    """Restart a service and wait until it is healthy."""
    with _stack("restart", as_json) as local:
        local.restart(service)
    if as_json:
        _print_json("restart", ExitCode.OK, service=service)
    else:
        typer.echo(f"{service} runs again.")


@app.command()
def fault(
    name: Annotated[str, typer.Argument(help="a fault's name; `list` shows them all")],
    switch: Annotated[
        _Switch | None, typer.Argument(help="on or off; without it: show its state")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Cause a real fault in the local stack, or revert it and wait until all is healthy."""
    with _stack("fault", as_json):
        from .faults import FAULTS

        if name == "list":
            if as_json:
                _print_json("fault", ExitCode.OK, faults={n: f.effect for n, f in FAULTS.items()})
            else:
                typer.echo("\n".join(f"{n:18} {f.effect}" for n, f in FAULTS.items()))
            return
        if name not in FAULTS:
            raise SettingsError(f"no fault {name!r}; there are: {', '.join(FAULTS)}")
        chosen = FAULTS[name]
        if switch is _Switch.ON:
            chosen.on()
        elif switch is _Switch.OFF:
            chosen.off()
        is_on, is_noted = chosen.is_on(), chosen.is_noted()
        state = "on" if is_on else "off"
    if as_json:
        fields = {"fault": name, "state": state, "effect": chosen.effect, "noted": is_noted}
        _print_json("fault", ExitCode.OK, **fields)
        return
    typer.echo(f"{name} is {state}" + (f": {chosen.effect}" if is_on else ""))
    if is_on and not is_noted:
        typer.echo(f"It was not turned on here. To revert it: runbook stack fault {name} off")
    if is_noted and not is_on:
        typer.echo(f"It was turned on, but has ended. Clear it: runbook stack fault {name} off")


@app.command()
def orders(
    late: Annotated[int, typer.Option(min=1, max=1000, help="how many orders")] = 6,
    as_json: _Json = False,
) -> None:
    """Hand over orders that were shipped 15 to 40 minutes ago, and open a ticket on the first.

    Their labels are late at once.
    """
    with _stack("orders", as_json) as local:
        from .config import StackError
        from .orders import inject_orders, open_ticket

        addresses = local.env()
        ids = inject_orders(addresses["FULFILLMENT_URL"], late)
        ticket, problem = "", ""
        try:
            ticket = open_ticket(addresses["SUPPORT_URL"], ids[0])
        except StackError as error:  # the fault may be in support itself
            problem = str(error)
    if as_json:
        _print_json("orders", ExitCode.OK, orders=ids, ticket=ticket)
        return
    typer.echo(
        f"{late} late order{'' if late == 1 else 's'} handed over, two labels each. While a fault "
        "keeps them from leaving, the alert fires within seconds."
    )
    if problem:
        typer.echo(f"No ticket was opened: {problem}. Investigate with: runbook investigate")
    else:
        typer.echo(f"The customer of the first one opened a ticket: {ticket}")
        typer.echo(f"Investigate with: runbook investigate --ticket {ticket}")
