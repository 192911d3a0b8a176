"""The runbook that the command ``runbook`` loads."""

from pkgutil import resolve_name

from objectmove.errors import MoveError, PlanError, RefusedError, StoppedError
from runbook_lib.errors import ExitCode
from runbook_lib.move_cli import make_move_commands
from runbook_lib.runbook import Runbook

RUNBOOK = Runbook(
    summary="An inbox that is stuck: look, plan, move, prove.",
    commands=(("", make_move_commands(lambda: resolve_name("inbox.section:Commands"))),),
    errors={
        RefusedError: ExitCode.REFUSED,
        PlanError: ExitCode.USAGE,
        StoppedError: ExitCode.NOT_OK,
        MoveError: ExitCode.RUN_FAILED,
    },
    load_sections=lambda: resolve_name("inbox.section:SECTIONS"),
    load_settings=lambda: resolve_name("inbox.settings:Settings").load(),
    load_policy=lambda: resolve_name("inbox.section:POLICY"),
)
