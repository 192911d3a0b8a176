"""The runbook that this process carries out, found by its entry point.

``--runbook`` names it, else ``RUNBOOK_NAME``. If only one is installed, it needs no name.
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
    """A runbook. ``commands`` are groups, each named by its first word, or "".

    ``errors`` are exit codes of its own errors, the special before the general.
    """

    summary: str
    commands: tuple[tuple[str, typer.Typer], ...]
    errors: Mapping[type[BaseException], ExitCode]
    sections: Sections
    settings: type[Settings]
    policy: Policy


class _Process:
    """How this process logs, if at all."""

    log_format: logging.Formatter | None = None


_NAME = "RUNBOOK_NAME"
#: A command of this package in a text.
_COMMAND = re.compile(
    r"\brunbook (?=(apply|chaos|check|close|drill|fix|history|incidents|init|investigate|note|plan"
    r"|report|resume|run|settle|stack|undo|verify)\b)"
)


def use_runbook(name: str) -> Runbook:
    """Let this process, and those that it starts, carry out a runbook, and return it.

    Raises UsageError when there is no such runbook, or several and nobody chose.
    """
    if name:
        os.environ[_NAME] = name
    return find_runbook()


def find_runbook() -> Runbook:
    return _load(get_runbook_name())


def get_runbook_name() -> str:
    """Return the name of the chosen runbook, or "" for the only one installed."""
    return os.environ.get(_NAME, "")


@cache
def _load(name: str) -> Runbook:
    runbook: Runbook = _find_entry(name).load()
    return runbook


def _find_entry(name: str) -> EntryPoint:
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


@cache  # reading them takes 30 ms
def _list_entries(group: str) -> list[EntryPoint]:
    return list(entry_points(group=group))


def _get_distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else ""


def find_plugins() -> list[EntryPoint]:
    """Return the plug-in commands from the distribution of this process's runbook."""
    distribution = _get_distribution(_find_entry(get_runbook_name()))
    plugins = _list_entries("runbook.commands")
    return [entry for entry in plugins if _get_distribution(entry) == distribution]


def find_version() -> str:
    distribution = _find_entry(get_runbook_name()).dist
    return f"{distribution.name} {distribution.version}" if distribution else ""


def start_logging() -> None:
    """Log each request and each command on stderr, without secrets."""
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
    return _Process.log_format is not None


@cache
def keep_log(folder: Path) -> None:
    if is_logging():
        _add_log(logging.FileHandler(folder / "runbook.log"))


def _add_log(handler: logging.Handler) -> None:
    handler.setFormatter(_Process.log_format)
    logging.getLogger().addHandler(handler)


def name_runbook(text: str) -> str:
    """Add ``--runbook NAME`` to the commands in a text, if several runbooks are installed.

    ``runbook resume X`` becomes ``runbook --runbook inbox resume X``.
    """
    name = get_runbook_name()
    installed = [entry.name for entry in _list_entries("runbook")]
    if not name or installed == [name]:
        return text
    return _COMMAND.sub(f"runbook --runbook {name} ", text)


def load_policy() -> Policy:
    return find_runbook().policy
