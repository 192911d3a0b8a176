"""What every call of a command needs: options, progress on stderr, one way to end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ..errors import UsageError
from ..runbook import find_runbook

if TYPE_CHECKING:
    from ..run.documents import Document

Json = Annotated[bool, typer.Option("--json", help="one JSON document on stdout")]
IncidentId = Annotated[
    str, typer.Option("--incident", help="incident id, or new; default: the open one")
]


def emit(document: Document, as_json: bool) -> NoReturn:
    """Print the document, as JSON or as tables, and end with its exit code."""
    if as_json:
        sys.stdout.write(document.to_json() + "\n")
    else:
        from rich.console import Console

        from ..run.terminal import print_document

        print_document(document, Console())
    raise typer.Exit(int(document.exit_code))


def carry_out(
    work: Callable[..., Document], *given: object, as_json: bool, **options: object
) -> NoReturn:
    """Do a command's work, print its document, end with its exit code.

    Progress is on stderr; with ``--json`` there is none.

    Parameters
    ----------
    work : takes the settings, then ``given``, ``options`` and ``progress``
    """
    from rich.console import Console

    from ..show.progress import make_meter

    console = Console(stderr=True, quiet=as_json)
    with console.status("starting") as status:

        def say(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                console.print(f"… {text}", markup=False, highlight=False)

        document = work(load_settings(), *given, progress=make_meter(say), **options)
    emit(document, as_json)


def load_settings() -> Any:
    """Read the settings: of the class that the runbook's commands know."""
    return find_runbook().load_settings()


def parse_parameters(given: list[str]) -> dict[str, str]:
    """Read ``name=value`` pairs.

    Raises
    ------
    UsageError
        When one is not such a pair.
    """
    pairs = {}
    for item in given:
        name, sign, value = item.partition("=")
        if not sign or not name.isidentifier():
            raise UsageError(f"-p wants name=value, not {item!r}")
        pairs[name] = value
    return pairs


def parse_duration(text: str) -> float:
    """Return the seconds of ``90s``, ``10m``, ``2h``, ``1d`` or ``1h30m``.

    Raises
    ------
    UsageError
        When it is not a duration.
    """
    from .. import fields

    try:
        return fields.parse_duration(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a duration; write 90s, 10m, 2h or 1d") from None
