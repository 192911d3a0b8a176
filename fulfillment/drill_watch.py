"""A drill's watchdog: a process that reverts the fault if the drill can't, or is killed."""

from __future__ import annotations

import sys

#: How long the watchdog retries, for example while the network is down.
_TRIES_S = 600.0


def main() -> None:
    """Wait until the drill ends, then revert what it left."""
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
