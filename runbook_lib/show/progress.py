"""How far a long piece of work is: on a terminal by rich, in a notebook as a line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.text import Text

from ..model import Progress
from .text import visible

#: The least time between two updates: a front end that gets one for every object falls behind.
_GAP_S = 1.0


@contextmanager
def show_progress(console: Console) -> Iterator[Progress]:
    """Show the work at hand on a terminal; elsewhere, a line for each piece of work."""
    words_before = ""
    with console.status("starting") as status:

        def report(words: str, done: int = 0, total: int = 0) -> None:
            nonlocal words_before
            if console.is_terminal:
                status.update(Text(_say_progress(words, done, total)))
            elif words != words_before:
                console.print(Text(f"… {visible(words)}"))
            words_before = words

        yield report


def show_lines() -> Progress:
    """Return a progress function that shows a line in a notebook for each piece of work.

    The line changes once a second at most, and at the end.
    """
    from IPython.display import display

    words_before = ""
    shown_at = 0.0
    handle: Any = None

    def report(words: str, done: int = 0, total: int = 0) -> None:
        nonlocal words_before, shown_at, handle
        is_new = words != words_before
        is_end = 0 < done == total
        if not (is_new or is_end) and time.monotonic() - shown_at < _GAP_S:
            return
        words_before = words
        shown_at = time.monotonic()
        line = {"text/plain": _say_progress(words, done, total)}
        if is_new:
            handle = display(line, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            handle.update(line, raw=True)

    return report


def _say_progress(words: str, done: int, total: int) -> str:
    if total:
        return f"{done:,} of {total:,} {visible(words)}"
    return f"{done:,} {visible(words)}" if done else visible(words)
