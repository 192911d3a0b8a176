"""A runbook as the helper sees it: one object, found by one entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, NamedTuple

from .errors import ExitCode, UsageError

if TYPE_CHECKING:
    import typer

    from .section import Sections
    from .settings import Settings


class Runbook(NamedTuple):
    """What ``runbook`` and ``python -m runbook_lib`` carry out.

    Attributes
    ----------
    summary : what it is, in a sentence
    commands : its own, beside those that every runbook has; each under a name of its own, or
        beside the others where the name is empty
    errors : the exit codes of errors that are not the helper's, the special before the general
    load_sections, load_settings : imported and read when a command needs them, so that
        ``runbook --help`` waits for neither
    """

    summary: str
    commands: tuple[tuple[str, typer.Typer], ...]
    errors: Mapping[type[BaseException], ExitCode]
    load_sections: Callable[[], Sections]
    load_settings: Callable[[], Settings]


@cache
def find_runbook() -> Runbook:
    """Return the installed runbook: the one entry point of the group ``runbook``.

    Raises
    ------
    UsageError
        When none is installed, or more than one.
    """
    found = list(entry_points(group="runbook"))
    if len(found) != 1:
        names = ", ".join(entry.value for entry in found) or "none"
        raise UsageError(f"one runbook must be installed; there is: {names}")
    runbook: Runbook = found[0].load()
    return runbook
