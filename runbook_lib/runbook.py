"""A runbook as this package, the helper, sees it: one object, found by one entry point.

Several may be installed; none of them knows the others. A process carries out one of them: the one
that ``--runbook`` names, else the one that ``RUNBOOK_NAME`` names, else the only one installed.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, NamedTuple

from .errors import ExitCode, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import typer

    from .policy import Policy
    from .section import Sections
    from .settings import Settings


class Runbook(NamedTuple):
    """What ``runbook`` and ``python -m runbook_lib`` carry out.

    Attributes
    ----------
    summary : what the runbook is, in a sentence
    commands : its own commands, in groups, in addition to those that every runbook has. The name of
        a group is typed before its commands; with an empty name, only the command is typed
    errors : the exit codes of errors that are not the helper's, the special before the general
    settings : the class of its settings
    """

    summary: str
    commands: tuple[tuple[str, typer.Typer], ...]
    errors: Mapping[type[BaseException], ExitCode]
    sections: Sections
    settings: type[Settings]
    policy: Policy


class _Process:
    """How this process logs.

    Attributes
    ----------
    log_format : how a line of the log looks; None: nothing is logged
    """

    log_format: logging.Formatter | None = None


#: The environment variable that names the runbook.
_NAME = "RUNBOOK_NAME"
#: A command of the helper, or of the engine, as it stands in texts.
_COMMAND = re.compile(
    r"\brunbook (?=(apply|chaos|check|close|drill|fix|history|incidents|init|investigate|note|plan"
    r"|report|resume|run|settle|stack|undo|verify)\b)"
)


def use_runbook(name: str) -> Runbook:
    """Let this process, and those that it starts, carry out a runbook, and return it.

    Parameters
    ----------
    name : of its entry point; empty: as ``RUNBOOK_NAME`` says

    Raises
    ------
    UsageError
        When there is no such runbook, or several and nobody chose.
    """
    if name:
        os.environ[_NAME] = name
    return find_runbook()


def find_runbook() -> Runbook:
    """Return the runbook that this process carries out; raises what ``use_runbook`` raises."""
    return _load(get_runbook_name())


def get_runbook_name() -> str:
    """Return the name of the runbook that was chosen; empty: the only one installed."""
    return os.environ.get(_NAME, "")


@cache
def _load(name: str) -> Runbook:
    """Import the runbook of a name; an empty name means the only one installed."""
    runbook: Runbook = _find_entry(name).load()
    return runbook


def _find_entry(name: str) -> EntryPoint:
    """Return the entry point of a runbook; without a name, of the only one installed."""
    installed = _list_entries("runbook")
    names = ", ".join(sorted(entry.name for entry in installed))
    if not installed:
        raise UsageError("no runbook is installed: `pip install` one beside this command")
    if not name and len(installed) > 1:
        raise UsageError(
            f"several runbooks are installed; choose with --runbook or RUNBOOK_NAME: {names}"
        )
    for entry in installed:
        if entry.name == name or not name:
            return entry
    raise UsageError(f"there is no runbook {name!r}; installed: {names}")


@cache
def _list_entries(group: str) -> list[EntryPoint]:
    """Return a group's entry points. Only once: that takes 30 ms."""
    return list(entry_points(group=group))


def _get_distribution(entry: EntryPoint) -> str:
    """Return the name of the distribution that an entry point is from; empty: not known."""
    return entry.dist.name if entry.dist is not None else ""


def find_plugins() -> list[EntryPoint]:
    """Return the entry points of the commands that this process's runbook brings as plug-ins."""
    distribution = _get_distribution(_find_entry(get_runbook_name()))
    plugins = _list_entries("runbook.commands")
    return [entry for entry in plugins if _get_distribution(entry) == distribution]


def find_version() -> str:
    """Return the name and the version of the distribution that has this process's runbook."""
    distribution = _find_entry(get_runbook_name()).dist
    return f"{distribution.name} {distribution.version}" if distribution else ""


def start_logging() -> None:
    """Log each request and each command that is run, without secrets, on stderr."""
    from .redact import Redactor

    redactor = Redactor(find_runbook().settings.load().secrets)

    class Format(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return redactor.text(super().format(record))

    log_format = Format("%(asctime)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    log_format.converter = time.gmtime
    _Process.log_format = log_format
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.DEBUG)
    # In a kernel, ``sys.stderr`` is the output of a cell.
    _add_log(logging.StreamHandler(sys.__stderr__))


def is_logging() -> bool:
    """Tell whether ``start_logging`` was called."""
    return _Process.log_format is not None


@cache
def keep_log(folder: Path) -> None:
    """Write the log, if there is one, into an incident's folder, too."""
    if is_logging():
        _add_log(logging.FileHandler(folder / "runbook.log"))


def _add_log(handler: logging.Handler) -> None:
    handler.setFormatter(_Process.log_format)
    logging.getLogger().addHandler(handler)


def name_runbook(text: str) -> str:
    """Return a text whose commands name this process's runbook, if that is needed.

    The only one installed needs no name: ``runbook resume X``. One of several does:
    ``runbook --runbook inbox resume X``.
    """
    name = get_runbook_name()
    installed = [entry.name for entry in _list_entries("runbook")]
    if not name or installed == [name]:
        return text
    return _COMMAND.sub(f"runbook --runbook {name} ", text)


def load_policy() -> Policy:
    """Return the policy of this process's runbook."""
    return find_runbook().policy
