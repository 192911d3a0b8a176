"""This runbook, registered as the entry point ``runbook`` in pyproject.toml."""

from objectmove.errors import MoveError, PlanError, RefusedError, StoppedError
from runbook_lib.errors import ExitCode
from runbook_lib.runbook import Runbook

from . import commands
from .policy import POLICY
from .sections import SECTIONS
from .settings import Settings

RUNBOOK = Runbook(
    summary="The fulfilment backlog runbook: investigate, plan, change, prove.",
    commands=(
        ("", commands.app),
        ("", commands.ReleaseCommands.make_app()),
        ("chaos", commands.chaos_app),
    ),
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
