"""Create, look at or revert a synthetic fulfilment backlog: the path that the runbook names.

Flags, ``FULFILLMENT_DELAY_*`` variables, JSON and exit codes are DataFlow's; ``--help`` lists them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runbook_lib.change.chaos_script import run_chaos_script
from runbook_lib.settings import find_root


def adopt_local_stack() -> None:
    """Take the local stack's settings when it runs here and nothing else is set."""
    from dataflow_stack import local

    root = find_root(Path.cwd())
    home = root / os.environ.get("RUNBOOK_STACK_HOME", ".stack")
    if (home / "supervisor.sock").exists() and not (root / ".env").exists():
        os.environ.update(local.env())


if __name__ == "__main__":
    if not os.environ.get("MINIO_ENDPOINT"):
        adopt_local_stack()
    sys.exit(run_chaos_script())
