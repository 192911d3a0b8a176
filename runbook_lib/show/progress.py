"""How far a long piece of work is: how much is done, and how long it still takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..model import Progress
from .text import format_duration

#: The least time between two updates: a front end that gets one for every object falls behind.
_GAP_S = 1.0
#: Words without numbers are not shown again sooner: they say nothing new.
_REPEAT_GAP_S = 10.0

#: Called with done, total, and the progress in words; the words of a piece of work come first.
Show = Callable[[str, int, int, str], None]


@dataclass
class _Work:
    started_at: float
    done: int
    shown_at: float = -math.inf


def make_meter(show: Show, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Return a progress function that shows each piece of work once a second, and at its end.

    Calls with equal words are one piece of work. Work whose count falls begins anew.
    """
    works: dict[str, _Work] = {}

    def report(words: str, done: int = 0, total: int = 0) -> None:
        now = clock()
        work = works.get(words)
        if work is None or done < work.done:
            work = _Work(started_at=now, done=done)
            works[words] = work
        work.done = done
        gap_s = _GAP_S if done or total else _REPEAT_GAP_S
        if now - work.shown_at >= gap_s or 0 < done == total:
            work.shown_at = now
            show(words, done, total, say_progress(words, done, total, now - work.started_at))

    return report


def make_bars() -> Progress:
    """Return a progress function that shows a bar in a notebook for each piece of work."""
    bars: dict[str, Any] = {}

    def show(
        words: str,
        done: int,
        total: int,
        text: str,
    ) -> None:
        if words not in bars or done < bars[words].children[0].value:
            bars[words] = _display_bar(words)
        bar, label = bars[words].children
        bar.max = max(total, done, 1)
        bar.value = done
        label.value = text

    return make_meter(show)


def _display_bar(words: str) -> Any:
    """Show an empty bar and a place for words in the notebook, and return both in a box."""
    import ipywidgets as widgets
    from IPython.display import display

    box = widgets.HBox([widgets.IntProgress(min=0, max=1, value=0), widgets.Label()])
    bundle = box._repr_mimebundle_()
    # A page without widgets shows only the words, never the names of widgets.
    bundle["text/plain"] = f"progress: {words}"
    display(bundle, raw=True)  # type: ignore[no-untyped-call]
    return box


def say_progress(
    words: str,
    done: int,
    total: int,
    elapsed_s: float,
) -> str:
    """Return progress in words, with the time left if it is known."""
    if not done and not total:
        return words
    if not total:
        return f"{done:,} {words}"
    text = f"{done:,} of {total:,} {words}"
    if 0 < done < total:
        time_left = timedelta(seconds=(total - done) * elapsed_s / done)
        text += f", {format_duration(time_left)} left"
    return text
