"""Print the progress of long work as lines."""

import time

from rich.console import Console
from rich.text import Text

from ..model import Progress
from .text import visible

_GAP_S = 10.0


def print_lines(console: Console) -> Progress:
    """Return a function that prints when work begins and ends, and every 10 s meanwhile."""
    words_before = ""
    printed_at = 0.0

    def report(words: str, done: int = 0, total: int = 0) -> None:
        """Print a line unless one about this work is less than 10 s old."""
        nonlocal words_before, printed_at
        now = time.monotonic()
        if words != words_before or now - printed_at > _GAP_S or 0 < done == total:
            console.print(Text(f"… {_say_progress(words, done, total)}"))
            words_before = words
            printed_at = now

    return report


def _say_progress(words: str, done: int, total: int) -> str:
    if total:
        return f"{done:,} of {total:,} {visible(words)}"
    return f"{done:,} {visible(words)}" if done else visible(words)
