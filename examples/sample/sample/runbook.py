"""The runbook that the command ``runbook`` loads."""

from runbook_lib.errors import ExitCode
from runbook_lib.runbook import Runbook

from .section import POLICY, SECTIONS
from .settings import Settings

RUNBOOK = Runbook(
    summary="A folder in which files should not stay: read and report.",
    commands=(),
    errors={OSError: ExitCode.UNKNOWN},
    sections=SECTIONS,
    settings=Settings,
    policy=POLICY,
)
