"""How errors end a cell and a command."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from chainlog import LogError
from fulfillment.runbook import RUNBOOK
from objectmove.errors import MoveError, PlanError, RefusedError, StoppedError
from runbook_lib.errors import ActionInterruptedError, RunbookError, SafetyError, UsageError
from runbook_lib.exit_codes import exit_code_of_error


def test_an_interrupted_change_ends_a_cell_with_its_words_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shell = InteractiveShell()
    shell.user_ns["error"] = ActionInterruptedError("Interrupted. Run this cell again to go on.")
    shell.run_cell("raise error")
    shown = capsys.readouterr().out
    assert shown.strip() == "Interrupted. Run this cell again to go on."


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
    assert exit_code_of_error(error, RUNBOOK.errors) == code
