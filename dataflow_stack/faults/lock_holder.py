"""Holds a lock until told to end: ``python -m dataflow_stack.faults.lock_holder LOCK HELD``."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from pathlib import Path

__all__ = ["main"]


def main() -> None:
    """Take the lock of the first file, note it in the second, and wait."""
    with Path(sys.argv[1]).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        Path(sys.argv[2]).write_text(f"{os.getpid()}\n")
        signal.pause()


if __name__ == "__main__":
    main()
