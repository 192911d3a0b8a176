"""How errors end a cell and a command."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from chainlog import LogError
from fulfillment.runbook import RUNBOOK
from objectmove.errors import MoveError, NotNowError, PlanError, RefusedError, StoppedError
from runbook_lib.errors import (
    ActionInterruptedError,
    ClientTimeoutError,
    RunbookError,
    SafetyError,
    StoppedAtPlanError,
    UsageError,
    exit_code_of_error,
)


@pytest.mark.parametrize(
    ("error", "heading"),
    [
        (ActionInterruptedError("Run this cell again."), "INTERRUPTED."),
        (StoppedAtPlanError("Approve it."), "STOPPED AT THE PLAN. Nothing was changed."),
        (NotNowError("Plan again."), "REFUSED. Nothing was changed."),
        (UsageError("Correct it."), "CORRECT THIS FIRST. Nothing was changed."),
        (ClientTimeoutError("no answer", system="store"), "STOPPED."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_use_ends_a_cell_with_its_words_and_no_traceback(
    error: Exception, heading: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = InteractiveShell()
    shell.user_ns["error"] = error
    shell.run_cell("raise error")
    shown = capsys.readouterr().out
    assert shown.strip().split("\n\n") == [f"■ {heading}", str(error)]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (ActionInterruptedError("x"), 130),
        (UsageError("x"), 2),
        (PlanError("x"), 2),
        (SafetyError("x"), 5),
        (RefusedError("x"), 5),
        (StoppedError("x"), 3),
        (MoveError("x"), 1),
        (LogError("x"), 1),
        (RunbookError("x"), 1),
        (OSError("x"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert exit_code_of_error(type(error), RUNBOOK.errors) == code
