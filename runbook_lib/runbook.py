"""A runbook as the helper sees it: one object, found by one entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, NamedTuple

from .errors import ExitCode, UsageError

if TYPE_CHECKING:
    import typer

    from .policy import Policy
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
    packages : names of distributions whose versions stand in the report
    load_sections, load_settings, load_policy : import what a command needs when it runs, so that
        ``runbook --help`` stays fast. Without a policy the helper's neutral one holds
    """

    summary: str
    commands: tuple[tuple[str, typer.Typer], ...]
    errors: Mapping[type[BaseException], ExitCode]
    load_sections: Callable[[], Sections]
    load_settings: Callable[[], Settings]
    load_policy: Callable[[], Policy] | None = None
    packages: tuple[str, ...] = ()


@cache
def find_runbook() -> Runbook:
    """Return the installed runbook: the one entry point of the group ``runbook``.

    Raises
    ------
    UsageError
        When none is installed, or more than one.
    """
    installed = list(entry_points(group="runbook"))
    if len(installed) != 1:
        names = ", ".join(entry.value for entry in installed) or "none"
        raise UsageError(f"one runbook must be installed; there is: {names}")
    runbook: Runbook = installed[0].load()
    return runbook


def load_policy() -> Policy:
    """Return the policy of the installed runbook; the neutral one when it brings none."""
    runbook = find_runbook()
    if runbook.load_policy is not None:
        return runbook.load_policy()
    from .policy import Policy

    return Policy(needed=runbook.load_sections().list_needed())
