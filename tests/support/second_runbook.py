"""A folder that holds the helper and the runbook of ``examples/inbox``, as if installed there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "inbox"
#: What the example needs.
HELPER = ("runbook_lib", "objectmove", "chainlog")
#: What a machine with the example alone does not have.
FIRST = ("fulfillment", "alerting", "dataflow_stack", "addons")
COMMAND = "[console_scripts]\nrunbook = runbook_lib.cli:main\n"
FIRST_RUNBOOK = "[runbook]\nfulfillment = fulfillment.runbook:RUNBOOK\n"
FIRST_RUNBOOK += "[runbook.commands]\nstack = dataflow_stack.cli:app\n"


#: Words of the first runbook, which the second must not say.
_FOREIGN = r"(?i)\b(labels?|orders?|DAGs?|MinIO|workers?|carriers?|shipments?|parcels?|pending)\b"


def read_words(page: str) -> str:
    return re.sub(r"(?s)<style>.*?</style>|<[^>]+>", " ", page)


def list_foreign(text: str) -> list[str]:
    """Return the words of the first runbook; a move has a parameter that is named like one."""
    return re.findall(_FOREIGN, text.replace("resume worker", ""))


def link_packages(site: Path, names: Iterable[str]) -> None:
    """Make packages of this checkout importable from a folder, which is no checkout."""
    for name in names:
        (site / name).symlink_to(ROOT / name)


def register(site: Path, distribution: str, entry_points: str) -> None:
    """Register a distribution in a folder, in place of the one of that name that is installed."""
    folder = site / f"{distribution.replace('-', '_')}-0.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Name: {distribution}\nVersion: 0\n")
    (folder / "entry_points.txt").write_text(entry_points)


def run_command(
    arguments: Iterable[str], *, cwd: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(arguments),
        cwd=cwd,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
