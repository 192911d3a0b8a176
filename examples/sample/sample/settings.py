"""Where files wait, and when that is too long."""

from pathlib import Path

from pydantic import Field

from runbook_lib import settings


class Settings(settings.Settings):
    """The settings of ``runbook_lib``, and those of this runbook.

    Each is an environment variable of the same name in capitals. Only ``runbook_home`` has another
    name: ``SAMPLE_HOME``.
    """

    runbook_home: Path = Field(Path("reports"), validation_alias="SAMPLE_HOME")
    sample_folder: Path = Path("inbox")
    sample_late_minutes: float = Field(10, gt=0)
    sample_free_gb: float = Field(1, ge=0)
