"""The runbook that this process carries out, found by its entry point.

``--runbook`` names it. The default is the only one installed, or else the one that comes with the
``runbook`` command.
"""

from __future__ import annotations

import logging
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
    """A runbook, as this package sees it.

    ``commands`` are groups, each named by its first word, or "". ``errors`` are exit codes of its
    own errors, the special before the general.
    """

    summary: str
    commands: tuple[tuple[str, typer.Typer], ...]
    errors: Mapping[type[BaseException], ExitCode]
    sections: Sections
    settings: type[Settings]
    policy: Policy


class _Process:
    """Which runbook this process carries out ("": the default), and how it logs, if at all."""

    runbook = ""
    log_format: logging.Formatter | None = None


#: A command of this package in a text.
_COMMAND = re.compile(
    r"\brunbook (?=(apply|close|fix|history|incidents|investigate|note|plan|report|resume|run"
    r"|settle|undo|verify)\b)"
)


def use_runbook(name: str) -> Runbook:
    """Let this process carry out a runbook ("": the default), and return it.

    Raises UsageError when there is no such runbook, or no default.
    """
    runbook = _load(name)
    _Process.runbook = name
    return runbook


def find_runbook() -> Runbook:
    return _load(_Process.runbook)


def get_runbook_name() -> str:
    return _Process.runbook


@cache
def _load(name: str) -> Runbook:
    runbook: Runbook = _find_entry(name).load()
    return runbook


def _find_entry(name: str) -> EntryPoint:
    installed = _list_entries("runbook")
    names = ", ".join(sorted(entry.name for entry in installed))
    if not installed:
        raise UsageError("no runbook is installed: `pip install` one beside this command")
    if not name:
        default = _find_default()
        if default is None:
            raise UsageError(f"several runbooks are installed; choose with --runbook: {names}")
        return default
    for entry in installed:
        if entry.name == name:
            return entry
    raise UsageError(f"there is no runbook {name!r}; installed: {names}")


@cache
def _find_default() -> EntryPoint | None:
    """Return the only runbook, else the one that comes with the command, else None."""
    installed = _list_entries("runbook")
    if len(installed) > 1:
        # Keep the runbooks whose distribution brings the ``runbook`` command.
        scripts = entry_points(group="console_scripts", name="runbook")
        distributions = set(map(_get_distribution, scripts))
        installed = [entry for entry in installed if _get_distribution(entry) in distributions]
    return installed[0] if len(installed) == 1 else None


@cache
def _list_entries(group: str) -> list[EntryPoint]:
    return list(entry_points(group=group))


def _get_distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else ""


def find_plugins() -> list[EntryPoint]:
    distribution = _get_distribution(_find_entry(_Process.runbook))
    plugins = _list_entries("runbook.commands")
    return [entry for entry in plugins if _get_distribution(entry) == distribution]


def find_version() -> str:
    distribution = _find_entry(_Process.runbook).dist
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
    """Add ``--runbook NAME`` to the commands in a text, unless this runbook is the default.

    ``runbook resume X`` becomes ``runbook --runbook inbox resume X``.
    """
    name = _Process.runbook
    if not name:
        return text
    default = _find_default()
    if default is not None and default.name == name:
        return text
    return _COMMAND.sub(f"runbook --runbook {name} ", text)


def load_policy() -> Policy:
    return find_runbook().policy
