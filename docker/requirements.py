"""Print the pinned packages that the demo services need, read from pyproject.toml."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

NEEDED = (
    "aiosmtpd",
    "fastapi",
    "fpdf2",
    "jinja2",
    "minio",
    "prometheus-client",
    "pydantic",
    "pydantic-settings",
    "python-multipart",
    "requests",
    "urllib3",
    "uvicorn",
)


def main() -> None:
    """Write one requirement a line; fail when one is not pinned in pyproject.toml."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["stack"]]
    pinned = {re.split(r"[<>=~!\[; ]", line)[0]: line for line in listed}
    for name in NEEDED:
        sys.stdout.write(pinned[name] + "\n")


if __name__ == "__main__":
    main()
