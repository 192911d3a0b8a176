"""Which versions wrote a report: Python, packages, and the commit of the checkout."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("fulfillment-runbook", "minio", "papermill", "nbclient", "pandas", "pydantic")


def read_versions() -> dict[str, str]:
    """Return versions by name; what is not known says so."""
    found = {"Python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    here = str(Path(__file__).parent)
    command = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return found | {"commit": "not known: git did not answer"}
    return found | {"commit": done.stdout.strip() or "not a git checkout"}
