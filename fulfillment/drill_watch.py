"""A drill's watchdog: it takes the fault back if the drill is killed, or cannot do so itself.

It is a process of its own, which outlives the drill: ``python -m fulfillment.drill_watch``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["main", "watch_drill"]

_LOG = "drill-watch.log"
#: How long the watchdog goes on trying, for example while the network is away.
_TRIES_S = 600.0


@contextmanager
def watch_drill(home: Path) -> Iterator[Callable[[], None]]:
    """Run a watchdog beside a drill; yield what ends it, for a drill that left nothing.

    The watchdog reads from a pipe whose other end only this process holds. So it wakes when this
    process ends, however that happens, or leaves the context. It inherits environment and working
    folder, and reads its settings from them.
    """
    with (home / _LOG).open("ab") as log:
        command = [sys.executable, "-m", "fulfillment.drill_watch", str(home)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )

    def dismiss() -> None:
        process.kill()
        process.wait()

    try:
        yield dismiss
    finally:
        if process.stdin is not None:
            process.stdin.close()


def main() -> None:
    """Wait until the drill ends; then take back what it left."""
    sys.stdin.buffer.read()  # ends when the drill closes the pipe, or its process dies
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
