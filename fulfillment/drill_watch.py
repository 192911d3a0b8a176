"""A drill's watchdog: it takes the fault back if the drill is killed, or cannot do so itself.

It is a process of its own, which outlives the drill: ``python -m fulfillment.drill_watch``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["main", "watch_drill"]

_LOG = "drill-watch.log"
#: How long the watchdog goes on trying, for example while the network is away.
_TRIES_S = 600.0
#: How long a drill waits for its watchdog to end.
_ENDS_S = 10.0


@contextmanager
def watch_drill(home: Path) -> Iterator[None]:
    """Run a watchdog beside a drill.

    Notes
    -----
    The watchdog reads from a pipe whose other end only this process holds. So the pipe closes when
    this process ends, however that happens. The watchdog inherits environment and working folder,
    and reads its settings from them. If the fault is still there at the end, this process does not
    wait for the watchdog, which takes the fault back.
    """
    with (home / _LOG).open("ab") as log:
        command = [sys.executable, "-m", "fulfillment.drill_watch", str(home)]
        read_end, write_end = os.pipe()
        process = subprocess.Popen(
            command,
            stdin=read_end,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        os.close(read_end)
    try:
        yield
    finally:
        os.close(write_end)
        if not _has_drill_record(home):
            with suppress(subprocess.TimeoutExpired):
                process.wait(_ENDS_S)


def _has_drill_record(home: Path) -> bool:
    """Tell whether a drill's record exists. After the drill it means: something may be left.

    This looks for the file itself, since importing the module that reads records would make every
    watchdog start slowly.
    """
    return (home / ".drill.json").exists()


def main() -> None:
    """Wait until the drill ends; then take back what it left."""
    sys.stdin.buffer.read()  # ends when the drill closes the pipe, or its process dies
    if not _has_drill_record(Path(sys.argv[1])):
        return
    # Imported only now, so that the watchdog starts quickly.
    from chainlog import LogError
    from objectmove.errors import MoveError
    from runbook_lib.cli import say_failure
    from runbook_lib.errors import RunbookError

    from .drill_commands import revert_until
    from .settings import Settings

    def say(words: str, _done: int = 0, _total: int = 0, /) -> None:
        sys.stdout.write(f"{words}\n")
        sys.stdout.flush()

    try:
        revert_until(Settings.load(), timeout_s=_TRIES_S, progress=say)
    except (RunbookError, MoveError, LogError, OSError) as error:
        sys.exit(say_failure(error, ("drill", "--revert")))


if __name__ == "__main__":
    main()
