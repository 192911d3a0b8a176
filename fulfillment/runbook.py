"""This runbook, as ``runbook_lib`` finds it by the entry point ``runbook`` in pyproject.toml."""

from __future__ import annotations

from pkgutil import resolve_name

from objectmove.errors import MoveError, PlanError, RefusedError, StoppedError
from runbook_lib.errors import ExitCode
from runbook_lib.runbook import Runbook

from .cli import app, chaos_app, release_app

RUNBOOK = Runbook(
    summary="The fulfilment backlog runbook: look, plan, change, prove.",
    commands=(("", app), ("", release_app), ("chaos", chaos_app)),
    errors={
        RefusedError: ExitCode.REFUSED,
        PlanError: ExitCode.USAGE,
        StoppedError: ExitCode.NOT_OK,
        MoveError: ExitCode.RUN_FAILED,
    },
    load_sections=lambda: resolve_name("fulfillment.sections:SECTIONS"),
    load_settings=lambda: resolve_name("fulfillment.settings:Settings").load(),
    load_policy=lambda: resolve_name("fulfillment.policy:POLICY"),
)
