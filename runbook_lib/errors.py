"""The exception tree, and the one table of exit codes; a runbook adds its own errors.

::

    RunbookError
    ├── UsageError                    a parameter, option or id is wrong
    │   └── SettingsError             a setting is missing or malformed
    ├── ClientError                   an outside system could not be read or changed
    │   ├── ClientTimeoutError        no answer in time
    │   ├── ConnectionRefusedClientError   no connection could be made, or it broke
    │   │   └── NotConfiguredError    the settings say that there is no such system
    │   ├── AccessDeniedError         wrong credentials or no right
    │   ├── NotFoundError             the thing asked for does not exist
    │   ├── PreconditionFailedError   the object is not the one that was named
    │   └── BadAnswerError            an answer that cannot be understood, or a 5xx
    │       └── WrongSystemError      another system answers at this address
    ├── NotConnectedError             no credentials, or nothing answers: nothing can be judged
    ├── RecordError                   the incident folder cannot be used, or was altered
    ├── SafetyError                   refused by a safety rule; nothing was changed
    │   ├── EnvironmentForbidsError   chaos, faults or drills outside local/demo
    │   ├── PlanNotApprovedError      no approval, or an approval of something else
    │   │   └── StoppedAtPlanError    planned, and waiting for its approval
    │   ├── PlanExpiredError          the plan is too old
    │   ├── PlanAlteredError          the plan's bytes are not those that were approved
    │   ├── PlanUsedError             the plan was carried out before
    │   └── StoreNotReadyError        the store is unhealthy or has no room for the copies
    └── RunInterruptedError           Ctrl-C, SIGTERM or the incident's close ended a run
        └── ActionInterruptedError    in the middle of a change
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from enum import IntEnum
from textwrap import fill
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import ValidationError


class RunbookError(Exception):
    """The base of this package's own errors.

    A notebook shows ``HEADING`` and the text, and no traceback.
    """

    HEADING: ClassVar[str] = "STOPPED."

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows instead of a traceback."""
        # A page would break longer lines in the middle of a word.
        lines = [fill(line, 88, break_long_words=False) for line in str(self).splitlines()]
        return ["", f"■ {self.HEADING}", "", *lines, ""]


class UsageError(RunbookError):
    """A parameter, option or id is wrong, or does not fit now. The text says which, and why."""

    HEADING = "CORRECT THIS FIRST. Nothing was changed."


def list_problems(error: ValidationError) -> dict[str, str]:
    """Return a mapping from the name of each wrong field to what is wrong with it.

    A problem of no single field has the name ``""``. The values themselves are left out, because
    they may be secret.
    """
    problems = error.errors(include_input=False, include_url=False)
    return {
        ".".join(map(str, problem["loc"])): problem["msg"].removeprefix("Value error, ")
        for problem in problems
    }


class SettingsError(UsageError):
    """A setting is missing or malformed. The text names the variable, and never a secret."""


class ClientError(RunbookError):
    """An outside system could not be read or changed.

    Parameters
    ----------
    message : what failed, and what to look at next
    system : the system's name, such as ``"prometheus"``
    """

    def __init__(self, message: str, *, system: str = "") -> None:
        super().__init__(f"{system}: {message}" if system else message)
        self.message = message


class ClientTimeoutError(ClientError):
    """No answer within the time-out."""


class ConnectionRefusedClientError(ClientError):
    """No connection could be made, or it broke."""


class NotConfiguredError(ConnectionRefusedClientError):
    """The settings say that there is no such system. Its steps are left out."""


class AccessDeniedError(ClientError):
    """The credentials are wrong, or lack the right."""


class NotFoundError(ClientError):
    """What was asked for does not exist."""


class PreconditionFailedError(ClientError):
    """The object is not the one that was named (ETag, size or LastModified differ)."""


class BadAnswerError(ClientError):
    """The answer cannot be understood, or is a server error."""


class WrongSystemError(BadAnswerError):
    """Another system answers at this address."""


class NotConnectedError(RunbookError):
    """There are no credentials, or no configured system answers. So nothing can be judged."""


class RecordError(RunbookError):
    """The incident folder cannot be read or written, or its journal was altered."""


@contextmanager
def disk_errors(failure: str, advice: str = "") -> Iterator[None]:
    """Turn an error of the disk into a ``RecordError``, whose text says what failed, and why.

    ``advice`` ends the text as it is, so it begins with the punctuation that it needs.
    """
    try:
        yield
    except OSError as error:
        raise RecordError(f"{failure}: {error.strerror or error}{advice}") from error


class SafetyError(RunbookError):
    """Refused by a safety rule; nothing was changed."""

    HEADING = "REFUSED. Nothing was changed."


class EnvironmentForbidsError(SafetyError):
    """Chaos, faults and drills run only in a marked local or demo environment."""


class PlanNotApprovedError(SafetyError):
    """There is no approval, or it is for something else."""


class StoppedAtPlanError(PlanNotApprovedError):
    """The plan waits for its approval. Nothing was changed, and the notebook did not fail."""

    HEADING = "STOPPED AT THE PLAN. Nothing was changed."


class PlanExpiredError(SafetyError):
    """The plan is older than its lifetime."""


class PlanAlteredError(SafetyError):
    """The plan's bytes are not those that were approved."""


class PlanUsedError(SafetyError):
    """The plan was carried out before: a plan is carried out once."""


class StoreNotReadyError(SafetyError):
    """The store is unhealthy, or has no room for the copies."""


class RunInterruptedError(RunbookError):
    """A run ended early, by a signal.

    The text says how far the run came. Mostly it also names the next command.
    """

    HEADING = "INTERRUPTED."


class ActionInterruptedError(RunInterruptedError):
    """The run ended in the middle of a change. The text names the command that comes next."""


class ExitCode(IntEnum):
    """What the ``runbook`` command returns to the shell."""

    OK = 0
    RUN_FAILED = 1
    USAGE = 2
    NOT_OK = 3
    UNKNOWN = 4
    REFUSED = 5
    INTERRUPTED = 130

    @classmethod
    def of(cls, is_ok: object) -> ExitCode:
        """Return the code of finished work: ``OK`` if ``is_ok`` is true, else ``NOT_OK``."""
        return cls.OK if is_ok else cls.NOT_OK


# The verdicts by name, so that `runbook --help` need not import the models.
_BY_VERDICT = {
    "healthy": ExitCode.OK,
    "fixed": ExitCode.OK,
    "fixed_alert_decaying": ExitCode.OK,
    "incident": ExitCode.NOT_OK,
    "mitigated": ExitCode.NOT_OK,
    "not_fixed": ExitCode.NOT_OK,
    "unknown": ExitCode.UNKNOWN,
}

#: The first kind that fits decides; any other error means ``RUN_FAILED``.
_BY_ERROR: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (RunInterruptedError, ExitCode.INTERRUPTED),
    (UsageError, ExitCode.USAGE),
    (SafetyError, ExitCode.REFUSED),
    (NotConnectedError, ExitCode.UNKNOWN),
)


def compute_exit_code(verdict: str) -> ExitCode:
    """Return the exit code of a verdict."""
    return _BY_VERDICT[verdict]


def exit_code_of_error(
    kind: type[BaseException], runbook_codes: Mapping[type[BaseException], ExitCode] = {}
) -> ExitCode:
    """Return the exit code of a kind of error that ends a command.

    ``runbook_codes`` holds the runbook's own errors and their codes.
    """
    table = (*_BY_ERROR, *runbook_codes.items())
    return next((code for known, code in table if issubclass(kind, known)), ExitCode.RUN_FAILED)
