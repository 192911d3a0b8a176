"""Ends a stack whose owner is gone, so that a killed test run leaves no process behind."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import psutil

__all__ = ["main"]


def main() -> None:
    """Wait for the owner named in the file to end, then stop the supervisor, our parent."""
    owner = json.loads(Path(sys.argv[1]).read_text())
    try:
        process = psutil.Process(owner["pid"])
        # Another start time means that the number was given to another process since.
        if process.create_time() == owner["started"]:
            process.wait()
    except psutil.NoSuchProcess:
        pass
    os.kill(os.getppid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
