"""How far work is that takes a while: how much, how fast, how long still."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta

from ..model import Progress
from .text import format_duration

_Clock = Callable[[], float]
_Show = Callable[[int, int, str], None]


def make_bars() -> Progress:
    """Return what shows a bar in a notebook for each piece of work."""
    # a front end that is told of every object falls behind
    return _meter(_begin_bar, 0.2, time.monotonic)


def make_meter(say: Callable[[str], None], clock: _Clock = time.monotonic) -> Progress:
    """Return what says the progress of each piece of work in words, once a second at most."""
    return _meter(lambda _: lambda _done, _total, text: say(text), 1, clock)


def _meter(begin: Callable[[str], _Show], least_gap_s: float, clock: _Clock) -> Progress:
    works: dict[str, tuple[int, float, float, _Show]] = {}

    def tell(words: str, done: int = 0, total: int = 0) -> None:
        now = clock()
        if words not in works or done <= works[words][0]:  # it begins anew
            works[words] = (done, now, -math.inf, begin(words))
        _, started_at, shown_at, show = works[words]
        if now - shown_at >= least_gap_s or done == total:
            shown_at = now
            show(done, total, say_progress(words, done, total, now - started_at))
        works[words] = (done, started_at, shown_at, show)

    return tell


def _begin_bar(words: str) -> _Show:
    import ipywidgets as widgets
    from IPython.display import display

    bar, said = widgets.IntProgress(min=0, max=1, value=0), widgets.Label()
    # a page without widgets shows the words alone, never the names of widgets
    bundle = widgets.HBox([bar, said])._repr_mimebundle_() | {"text/plain": f"progress: {words}"}
    display(bundle, raw=True)  # type: ignore[no-untyped-call]

    def show(done: int, total: int, text: str) -> None:
        bar.max, bar.value = max(total, done, 1), done
        said.value = text

    return show


def say_progress(words: str, done: int, total: int, elapsed_s: float) -> str:
    """Return progress in words, with rate and time left where they can be told."""
    if not (done or total):
        return words
    rate = done / elapsed_s if elapsed_s > 0 else 0.0
    text = f"{done:,} of {total:,} {words}" if total else f"{done:,} {words}"
    if rate > 0:
        text += f", {rate:,.0f} per second" if rate >= 1 else f", {rate * 60:,.0f} per minute"
    if rate > 0 and done < total:
        text += f", {format_duration(timedelta(seconds=(total - done) / rate))} left"
    return text
