"""Print the pinned packages that an image needs, read from pyproject.toml.

``requirements.py`` prints those of the demo services, ``requirements.py exporter`` the exporter's.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

EXPORTER = ("aiohttp", "certifi", "prometheus-client", "pydantic", "pydantic-settings", "yarl")
SERVICES = (
    *EXPORTER,
    *("aiosmtpd", "fastapi", "fpdf2", "jinja2", "minio", "python-multipart", "requests", "urllib3"),
    "uvicorn",
)


def main() -> None:
    """Write one requirement a line; fail when one is not pinned in pyproject.toml."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["stack"]]
    pinned = {re.split(r"[<>=~!\[; ]", line)[0]: line for line in listed}
    for name in EXPORTER if sys.argv[1:] == ["exporter"] else SERVICES:
        sys.stdout.write(pinned[name] + "\n")


if __name__ == "__main__":
    main()
