"""The one table of exit codes, from verdicts and from errors; a runbook adds its own errors."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING

from . import errors

if TYPE_CHECKING:
    from .model import Verdict


class ExitCode(IntEnum):
    """What the ``runbook`` command returns to the shell."""

    OK = 0
    RUN_FAILED = 1
    USAGE = 2
    NOT_OK = 3
    UNKNOWN = 4
    REFUSED = 5
    INTERRUPTED = 130


# By name: `runbook --help` imports no models.
_VERDICTS = {
    ExitCode.OK: ("healthy", "fixed", "fixed_alert_decaying"),
    ExitCode.NOT_OK: ("incident", "mitigated", "not_fixed"),
    ExitCode.UNKNOWN: ("unknown",),
}

#: Any other error: the run failed.
_BY_ERROR: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (errors.ActionInterruptedError, ExitCode.INTERRUPTED),
    (errors.UsageError, ExitCode.USAGE),
    (errors.SafetyError, ExitCode.REFUSED),
    (errors.NotConnectedError, ExitCode.UNKNOWN),
)


def compute_exit_code(verdict: Verdict) -> ExitCode:
    """Return the exit code of a verdict."""
    return next(code for code, verdicts in _VERDICTS.items() if verdict in verdicts)


def exit_code_of_error(
    error: BaseException | type[BaseException],
    more: Mapping[type[BaseException], ExitCode] | None = None,
) -> ExitCode:
    """Return the exit code of an error, or a kind, that ends a command; ``more``: a runbook's."""
    kind = error if isinstance(error, type) else type(error)
    table = (*_BY_ERROR, *(more or {}).items())
    return next((code for known, code in table if issubclass(kind, known)), ExitCode.RUN_FAILED)
