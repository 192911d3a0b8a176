"""Preflight: what is reachable, with which permissions, which clock skew, which versions."""

from __future__ import annotations

import tempfile
from pathlib import Path

from runbook_lib.exit_codes import ExitCode
from runbook_lib.model import Progress, Status, Verdict, keep_quiet
from runbook_lib.record.log import utc_now

from ..investigation import Investigation
from ..sections import SECTIONS
from ..settings import Settings
from .documents import CheckDocument


def check(settings: Settings, *, progress: Progress = keep_quiet) -> CheckDocument:
    """Carry out section 1's steps without an incident folder.

    Notes
    -----
    Only reads, and leaves no folder behind.

    Returns
    -------
    Exit code 0 when every system that a verdict needs could be read, 4 otherwise.
    """
    progress("section 1")
    with tempfile.TemporaryDirectory() as home:
        inv = Investigation.open(
            section=SECTIONS["01_purpose"],
            settings=settings.model_copy(update={"runbook_home": Path(home)}),
        )
        readings = tuple(inv.read_step(step) for step in inv.section.STEPS)
    is_ok = all(reading.status is Status.OK for reading in readings)
    return CheckDocument(
        schema_name="runbook/check/1",
        at=utc_now(),
        verdict=Verdict.HEALTHY if is_ok else Verdict.UNKNOWN,
        exit_code=ExitCode.OK if is_ok else ExitCode.UNKNOWN,
        readings=readings,
    )
