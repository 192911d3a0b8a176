"""Create, look at or revert a synthetic fulfilment backlog: the path that the runbook names.

Flags, ``FULFILLMENT_DELAY_*`` variables, JSON and exit codes are DataFlow's; ``--help`` lists them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runbook_lib.change.chaos_script import run_chaos_script

if __name__ == "__main__":
    sys.exit(run_chaos_script())
