"""A command that is ready to begin: the slow part is done before its arguments are known.

``python -m runbook_lib.prepared [--runbook NAME]`` imports what a run of notebooks needs and starts
their kernel. Then it waits for one line on standard input, the words of a command as a JSON list,
carries the command out and ends as ``runbook`` ends. Without a line it ends at once.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

from .cli import main as run_main
from .cli import read_runbook_name
from .report import warm_up
from .run.notebooks import SharedKernel, prepare_kernel
from .runbook import find_runbook, use_runbook


def main() -> None:
    """Get ready, wait for the words of a command, and carry it out."""
    use_runbook(read_runbook_name(sys.argv[1:]))
    prepare_kernel()
    _import_run_modules()
    line = sys.stdin.readline()
    if not line.strip():
        with SharedKernel() as kernel:
            kernel.begin()  # takes over the kernel started above; the ``with`` block ends it
        return
    sys.argv += json.loads(line)  # the words stand after --runbook NAME, if it was given
    run_main()


def _import_run_modules() -> None:
    """Import what the command would import later: sections, plots, and what runs notebooks."""
    find_runbook().load_sections()
    warm_up()
    for name in ("commands", "engine", "kernel"):
        import_module(f"{__package__}.run.{name}")


if __name__ == "__main__":
    main()
