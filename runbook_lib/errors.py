"""The exceptions and the one table of exit codes; a runbook adds its own.

::

    RunbookError
      UsageError
        SettingsError
      ClientError
        ClientTimeoutError
        ConnectionRefusedClientError
          NotConfiguredError
        AccessDeniedError
        NotFoundError
        PreconditionFailedError
        BadAnswerError
          WrongSystemError
      NotConnectedError
      RecordError
      SafetyError
        EnvironmentForbidsError
        StoppedAtPlanError
      RunInterruptedError
        ActionInterruptedError
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from textwrap import fill
from typing import ClassVar

from pydantic import ValidationError


class RunbookError(Exception):
    """The base class. A notebook shows ``HEADING`` and the text instead of a traceback."""

    HEADING: ClassVar[str] = "STOPPED."

    def _render_traceback_(self) -> list[str]:
        # A web page would break longer lines inside words.
        lines = [fill(line, 88, break_long_words=False) for line in str(self).splitlines()]
        return ["", f"■ {self.HEADING}", "", *lines, ""]


class UsageError(RunbookError):
    """A parameter, option or id is wrong, or can't be used now."""

    HEADING = "CORRECT THIS FIRST. Nothing was changed."


def list_problems(error: ValidationError) -> dict[str, str]:
    """Return what is wrong with each field, never its value, by name; "" for no single field."""
    problems = error.errors(include_input=False, include_url=False)
    return {
        ".".join(map(str, problem["loc"])): problem["msg"].removeprefix("Value error, ")
        for problem in problems
    }


class SettingsError(UsageError):
    """A setting is missing or malformed. The text names the variable, and never a secret."""


class ClientError(RunbookError):
    """An outside ``system``, such as ``"prometheus"``, could not be read or changed."""

    def __init__(self, message: str, *, system: str = "") -> None:
        super().__init__(f"{system}: {message}" if system else message)
        self.message = message


class ClientTimeoutError(ClientError):
    """The system didn't answer in time."""


class ConnectionRefusedClientError(ClientError):
    """No connection could be made, or it broke."""


class NotConfiguredError(ConnectionRefusedClientError):
    """The system isn't configured, so its steps are left out."""


class AccessDeniedError(ClientError):
    """The credentials are wrong, or lack the right."""


class NotFoundError(ClientError):
    """What was asked for does not exist."""


class PreconditionFailedError(ClientError):
    """The object has changed: its ETag, size or date differs from the one that was named."""


class BadAnswerError(ClientError):
    """The answer can't be parsed, or is a server error."""


class WrongSystemError(BadAnswerError):
    """Another system answers at this address."""


class NotConnectedError(RunbookError):
    """No configured system answers, or there are no credentials: nothing can be judged."""


class RecordError(RunbookError):
    """The incident folder can't be read or written, or its journal was altered."""


@contextmanager
def disk_errors(failure: str, advice: str = "") -> Iterator[None]:
    """Turn an error of the disk into a ``RecordError``; ``advice`` has its own punctuation."""
    try:
        yield
    except OSError as error:
        raise RecordError(f"{failure}: {error.strerror or error}{advice}") from error


class SafetyError(RunbookError):
    """A safety rule refused. Nothing was changed."""

    HEADING = "REFUSED. Nothing was changed."


class EnvironmentForbidsError(SafetyError):
    """Chaos, faults and drills run only in a marked local or demo environment."""


class StoppedAtPlanError(SafetyError):
    """The plan waits for its approval. The notebook did not fail."""

    HEADING = "STOPPED AT THE PLAN. Nothing was changed."


class RunInterruptedError(RunbookError):
    """Ctrl-C or SIGTERM ended a run early."""

    HEADING = "INTERRUPTED."


class ActionInterruptedError(RunInterruptedError):
    """The run ended in the middle of a change. The text names the next command."""


class ExitCode(IntEnum):
    OK = 0
    RUN_FAILED = 1
    USAGE = 2
    NOT_OK = 3
    UNKNOWN = 4
    REFUSED = 5
    INTERRUPTED = 130

    @classmethod
    def of(cls, is_ok: object) -> "ExitCode":
        return cls.OK if is_ok else cls.NOT_OK


# By name, so that `runbook --help` need not import the models.
CODE_OF_VERDICT = {
    "healthy": ExitCode.OK,
    "fixed": ExitCode.OK,
    "fixed_alert_decaying": ExitCode.OK,
    "incident": ExitCode.NOT_OK,
    "mitigated": ExitCode.NOT_OK,
    "not_fixed": ExitCode.NOT_OK,
    "unknown": ExitCode.UNKNOWN,
}

#: The first that fits decides; any other error means ``RUN_FAILED``.
_BY_ERROR: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (RunInterruptedError, ExitCode.INTERRUPTED),
    (UsageError, ExitCode.USAGE),
    (SafetyError, ExitCode.REFUSED),
    (NotConnectedError, ExitCode.UNKNOWN),
)


def exit_code_of_error(
    kind: type[BaseException], runbook_codes: Mapping[type[BaseException], ExitCode] = {}
) -> ExitCode:
    """Return the exit code of an error that ends a command, also of the runbook's own errors."""
    table = (*_BY_ERROR, *runbook_codes.items())
    return next((code for known, code in table if issubclass(kind, known)), ExitCode.RUN_FAILED)
