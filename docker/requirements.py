"""Print the exact versions of the packages that an image needs, read from requirements.lock.

``requirements.py`` prints those of the demo services, ``requirements.py exporter`` the exporter's,
``requirements.py addons`` those of the exporter and of the add-ons' commands, and
``requirements.py all`` every locked version, as a constraints file for pip.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# What `python -m addons.render` needs beside the exporter.
RENDER = ("jinja2",)
EXPORTER = ("certifi", "prometheus-client", "pydantic", "pydantic-settings")
SERVICES = (
    *EXPORTER,
    *("aiosmtpd", "fastapi", "fpdf2", "jinja2", "minio", "python-multipart", "requests", "urllib3"),
    "uvicorn",
)


def read_lock() -> dict[str, list[str]]:
    """Return the locked requirements by name; one with markers may have several versions."""
    locked: dict[str, list[str]] = {}
    for line in Path("requirements.lock").read_text("utf-8").splitlines():
        if re.match(r"[a-z0-9]", line):
            requirement = line.removesuffix("\\").rstrip()
            locked.setdefault(requirement.partition("==")[0], []).append(requirement)
    return locked


def main(arguments: list[str]) -> None:
    """Write one requirement a line; fail when one is not locked."""
    locked = read_lock()
    lists = {"exporter": EXPORTER, "addons": (*EXPORTER, *RENDER), "all": tuple(locked)}
    names = lists.get("".join(arguments), SERVICES)
    for name in names:
        for requirement in locked[name]:
            sys.stdout.write(requirement + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
