"""A bar for work that takes a while: how much, how fast, how long still."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from .text import format_duration

__all__ = ["make_bar", "make_meter", "say_progress"]

_LEAST_GAP_S = 0.2


def make_bar(
    words: str, *, clock: Callable[[], float] = time.monotonic
) -> Callable[[int, int], None]:
    """Show a bar and return what moves it: called with done and total (0: not known)."""
    import ipywidgets as widgets
    from IPython.display import display

    bar = widgets.IntProgress(min=0, max=1, value=0)
    said = widgets.Label()
    # a page without widgets shows the words alone, never the names of widgets
    bundle = dict(widgets.HBox([bar, said])._repr_mimebundle_() or {})
    display({**bundle, "text/plain": f"progress: {words}"}, raw=True)  # type: ignore[no-untyped-call]
    started_at, shown_at = clock(), float("-inf")

    def move(done: int, total: int) -> None:
        nonlocal shown_at
        now = clock()
        # a front end that is told of every object falls behind
        if now - shown_at < _LEAST_GAP_S and done != total:
            return
        shown_at = now
        bar.max, bar.value = max(total, done, 1), done
        said.value = say_progress(words, done, total, now - started_at)

    return move


def make_meter(
    say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
) -> Callable[[str], Callable[[int, int], None]]:
    """Return what makes bars for a terminal: each says its progress once a second at most."""

    def make(words: str) -> Callable[[int, int], None]:
        started_at, said_at = clock(), float("-inf")

        def move(done: int, total: int) -> None:
            nonlocal said_at
            now = clock()
            if now - said_at >= 1 or done == total:
                said_at = now
                say(say_progress(words, done, total, now - started_at))

        return move

    return make


def say_progress(words: str, done: int, total: int, elapsed_s: float) -> str:
    """Return progress in words, with rate and time left where they can be told."""
    rate = done / elapsed_s if elapsed_s > 0 else 0.0
    text = f"{done:,} of {total:,} {words}" if total else f"{done:,} {words}"
    if rate > 0:
        text += f", {rate:,.0f} per second" if rate >= 1 else f", {rate * 60:,.0f} per minute"
    if rate > 0 and done < total:
        text += f", {format_duration(timedelta(seconds=(total - done) / rate))} left"
    return text
