"""How far a long piece of work is: how much is done, how fast, and how long it still takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from ..model import Progress
from .text import format_duration

# The least time between two updates: a front end that gets one for every object falls behind.
_BAR_GAP_S = 0.2
_WORDS_GAP_S = 1.0
#: Progress without numbers is not shown again sooner: the same words say nothing new.
_REPEAT_GAP_S = 10.0

_Clock = Callable[[], float]
_Show = Callable[[int, int, str], None]


@dataclass
class _Work:
    """One piece of work. ``show`` is called with done, total, and the progress in words."""

    show: _Show
    started_at: float
    done: int
    shown_at: float = -math.inf


def make_bars() -> Progress:
    """Return a progress function that shows a bar in a notebook for each piece of work."""
    return _make_progress(_begin_bar, _BAR_GAP_S, time.monotonic)


def make_meter(say: Callable[[str], None], clock: _Clock = time.monotonic) -> Progress:
    """Return a progress function that says how far each piece of work is.

    It says so at most once a second, and at the end of the work.
    """

    def show(_done: int, _total: int, text: str) -> None:
        say(text)

    def begin(_words: str) -> _Show:
        return show

    return _make_progress(begin, _WORDS_GAP_S, clock)


def _make_progress(begin: Callable[[str], _Show], least_gap_s: float, clock: _Clock) -> Progress:
    """Return a progress function that treats calls with equal words as one piece of work.

    Counted work whose count does not grow from one call to the next begins anew.

    Parameters
    ----------
    begin : called when a piece of work begins; returns the function that shows how far it is
    least_gap_s : least time between two showings of one piece of work
    """
    works: dict[str, _Work] = {}

    def report(words: str, done: int = 0, total: int = 0) -> None:
        now = clock()
        work = works.get(words)
        is_counted = bool(done or total)
        if work is not None and not is_counted and now - work.shown_at < _REPEAT_GAP_S:
            return
        # Words without a number are the same work, however often they come.
        if work is None or (is_counted and done <= work.done):
            work = _Work(show=begin(words), started_at=now, done=done)
            works[words] = work
        work.done = done
        # The end is always shown, and so are words without numbers: both counts are 0.
        if now - work.shown_at >= least_gap_s or done == total:
            work.shown_at = now
            work.show(done, total, say_progress(words, done, total, now - work.started_at))

    return report


def _begin_bar(words: str) -> _Show:
    """Show an empty bar in the notebook; return the function that fills it."""
    import ipywidgets as widgets
    from IPython.display import display

    bar = widgets.IntProgress(min=0, max=1, value=0)
    label = widgets.Label()
    # A page without widgets shows only the words, never the names of widgets.
    bundle = widgets.HBox([bar, label])._repr_mimebundle_()
    bundle["text/plain"] = f"progress: {words}"
    display(bundle, raw=True)  # type: ignore[no-untyped-call]

    def show(done: int, total: int, text: str) -> None:
        bar.max = max(total, done, 1)
        bar.value = done
        label.value = text

    return show


def say_progress(words: str, done: int, total: int, elapsed_s: float) -> str:
    """Return progress in words, with rate and time left if they are known."""
    if not done and not total:
        return words
    text = f"{done:,} of {total:,} {words}" if total else f"{done:,} {words}"
    if done <= 0 or elapsed_s <= 0:
        return text
    rate = done / elapsed_s
    if rate >= 1:
        text += f", {rate:,.0f} per second"
    else:
        text += f", {rate * 60:,.0f} per minute"
    if done < total:
        time_left = timedelta(seconds=(total - done) / rate)
        text += f", {format_duration(time_left)} left"
    return text
