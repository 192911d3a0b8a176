"""How far a long piece of work is: on a terminal by rich, elsewhere as lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from ..model import Progress
from .text import visible

#: Between two lines about the same piece of work.
_GAP_S = 10.0


@contextmanager
def show_progress(console: Console) -> Iterator[Progress]:
    """Show the work at hand: on a terminal in one place, elsewhere as ``print_lines`` does."""
    if not console.is_terminal:
        yield print_lines(console)
        return
    with console.status("starting") as status:

        def report(words: str, done: int = 0, total: int = 0) -> None:
            status.update(Text(_say_progress(words, done, total)))

        yield report


def print_lines(console: Console) -> Progress:
    """Return a function that prints a line for each piece of work, and for a long one more."""
    words_before = ""
    printed_at = 0.0

    def report(words: str, done: int = 0, total: int = 0) -> None:
        nonlocal words_before, printed_at
        now = time.monotonic()
        if words != words_before or now - printed_at > _GAP_S:
            console.print(Text(f"… {_say_progress(words, done, total)}"))
            words_before = words
            printed_at = now

    return report


def _say_progress(words: str, done: int, total: int) -> str:
    if total:
        return f"{done:,} of {total:,} {visible(words)}"
    return f"{done:,} {visible(words)}" if done else visible(words)
