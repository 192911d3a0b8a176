"""Preflight: what is reachable, with which rights, which clock skew, which versions."""

from __future__ import annotations

import tempfile
from pathlib import Path

from runbook_lib.exit_codes import ExitCode
from runbook_lib.model import Progress, keep_quiet
from runbook_lib.record.incident import create_incident
from runbook_lib.redact import Redactor

from ..investigation import Investigation
from ..sections import SECTIONS
from ..sections.purpose import find_closed, read_rights
from ..settings import Settings
from .documents import CheckDocument, SystemRights


def check(settings: Settings, *, progress: Progress = keep_quiet) -> CheckDocument:
    """Carry out section 1's steps without an incident folder.

    Notes
    -----
    Only reads, and leaves no folder behind.

    Returns
    -------
    Exit code 0 when looking is possible: store and Prometheus, where there is one, answer and
    may be read; else 4.
    """
    progress("section 1")
    with tempfile.TemporaryDirectory() as home:
        redactor, environment = Redactor(settings.secrets), settings.runbook_environment
        section = SECTIONS["01_purpose"]
        inv = Investigation(
            create_incident(Path(home), redactor=redactor, environment=environment),
            section=section,
            parameters=section.Parameters(),
            settings=settings,
        )
        readings = {step: inv.read_step(step) for step in inv.section.STEPS}
    rights = readings[read_rights.id]
    closed = find_closed(rights.rows)
    summary = f"looking is possible: {rights.reason}"
    if closed:
        is_connected = any(row["reachable"] for row in rights.rows)
        what = "looking is not possible" if is_connected else "you are not connected"
        summary = f"{what}: " + "; ".join(f"{r['name']}: {r['reason']}" for r in closed)
    return CheckDocument(
        schema_name="runbook/check/1",
        exit_code=ExitCode.UNKNOWN if closed else ExitCode.OK,
        summary=summary,
        systems=tuple(SystemRights.model_validate(row) for row in rights.rows),
        readings=tuple(readings.values()),
    )
