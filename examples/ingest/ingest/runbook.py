"""The runbook that the command ``runbook`` loads."""

from objectmove.errors import MoveError, PlanError, RefusedError, StoppedError
from runbook_lib.errors import ExitCode
from runbook_lib.runbook import Runbook

from . import drill
from .section import POLICY, SECTIONS, Commands
from .settings import Settings

RUNBOOK = Runbook(
    summary="Batches that a job left half moved: investigate, plan, move, prove.",
    commands=(("", Commands.make_app()), ("", drill.app)),
    errors={
        RefusedError: ExitCode.REFUSED,
        PlanError: ExitCode.USAGE,
        StoppedError: ExitCode.NOT_OK,
        MoveError: ExitCode.RUN_FAILED,
    },
    sections=SECTIONS,
    settings=Settings,
    policy=POLICY,
)
