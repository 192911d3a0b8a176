"""This runbook as the helper finds it, by the entry point ``runbook`` in ``pyproject.toml``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from objectmove.errors import MoveError, PlanError, RefusedError, StoppedError
from runbook_lib.exit_codes import ExitCode
from runbook_lib.runbook import Runbook

from .cli import app, chaos_app

if TYPE_CHECKING:
    from runbook_lib.section import Sections

    from .settings import Settings


def _load_sections() -> Sections:
    from .sections import SECTIONS

    return SECTIONS


def _load_settings() -> Settings:
    from .settings import Settings

    return Settings.load()


RUNBOOK = Runbook(
    summary="The fulfilment backlog runbook: look, plan, change, prove.",
    commands=(("", app), ("chaos", chaos_app)),
    errors={
        RefusedError: ExitCode.REFUSED,
        PlanError: ExitCode.USAGE,
        StoppedError: ExitCode.NOT_OK,
        MoveError: ExitCode.RUN_FAILED,
    },
    load_sections=_load_sections,
    load_settings=_load_settings,
)
