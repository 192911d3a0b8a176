"""Plots that read in grey, by colour-blind eyes, and by a screen reader.

Inputs are plain series. Every line has its own style and marker beside its colour, and every
picture carries a text that says what it shows.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from itertools import cycle
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..model import Plot, Reading
from .text import safe, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AgeBin = tuple[float, float | None, int]
"""From and to, in minutes (None: open), and how many objects."""

# Okabe and Ito's palette without yellow, each with a dash and a marker of its own.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#CC79A7", "linestyle": ":", "marker": "D"},
    {"color": "#555555", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
)
_LINE: dict[str, Any] = {"markersize": 4, "linewidth": 1.8}
_SPAN: dict[str, Any] = {"color": "#999999", "alpha": 0.25, "hatch": "//", "linewidth": 0}
_AT_TOP: dict[str, Any] = {
    "xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom", "fontsize": 7.5
}  # fmt: skip
_BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False}
_MAX_LINES = 5
_MARK_HEIGHTS = 3


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG with its text alternative; shown by a notebook as an image with ``alt``."""

    png: bytes
    alt: str

    @property
    def data_uri(self) -> str:
        """The picture as a ``data:`` address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")

    def to_html(self) -> Markup:
        """Return the picture as an ``img`` with its text alternative."""
        return Markup('<img src="{}" alt="{}" width="760">').format(self.data_uri, safe(self.alt))

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": str(self.to_html()), "text/plain": visible(self.alt)}


def plot_lines(plot: Plot) -> Picture:
    """Draw values over time: the five longest lines that have any finite one."""
    filled = [
        (line.name, points)
        for line in plot.lines
        if (points := [(at, value) for at, value in line.points if math.isfinite(value)])
    ]
    # lines that stay at zero hide each other, and say nothing beside one that does not
    moving = [(name, points) for name, points in filled if any(value for _, value in points)]
    drawn = sorted(moving or filled, key=lambda item: -len(item[1]))[:_MAX_LINES]
    title, unit, threshold = plot.title, plot.unit, plot.threshold
    from matplotlib.lines import Line2D

    axes = _make_axes(title, unit, pad=42 if plot.marks else 6)
    for (_, points), style in zip(drawn, cycle(_STYLES), strict=False):
        times, values = zip(*points, strict=True)
        every = max(1, len(points) // 12)
        axes.plot([*map(_day, times)], values, markevery=every, **style, **_LINE)
    ends = [points[-1][0] for _, points in drawn]
    if threshold is not None:
        axes.axhline(threshold, color="#000000", linewidth=1, linestyle=(0, (1, 1)))
        where: Any = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        words = f"threshold {threshold:g}"
        axes.annotate(words, (0.005, threshold), xytext=(0, 3), fontsize=8, **where)
    for start, end in plot.windows if ends else ():
        axes.axvspan(_day(start), _day(end or max(ends)), **_SPAN)
    # beside each other their words would be printed over each other: numbers, told at the side
    said = [f"{number}: {_label(text)}" for number, (_, text) in enumerate(plot.marks, 1) if ends]
    for number, (at, _) in enumerate(plot.marks if ends else (), 1):
        axes.axvline(_day(at), color="#000000", linewidth=0.8, linestyle="-.")
        height = 1.0 + 0.08 * ((number - 1) % _MARK_HEIGHTS)
        axes.annotate(str(number), (_day(at), height), **_AT_TOP)
    _set_time_axis(axes)
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), max(high, 1.25 * (threshold or 0.0), 1.0 if high <= 0 else high))
    if len(drawn) > 1 or said:
        names = [*(_label(name) for name, _ in drawn), *said]
        lines = [*axes.get_lines()[: len(drawn)], *(Line2D([], [], linestyle="") for _ in said)]
        axes.legend(lines, names, fontsize=8, **_BESIDE)
    parts = [
        f"{name}: from {points[0][1]:g} at {points[0][0]:%H:%M:%S} to {points[-1][1]:g} at "
        f"{points[-1][0]:%H:%M:%S} UTC, highest {max(v for _, v in points):g} {unit}"
        for name, points in drawn
    ]
    alt = f"{title}. {'; '.join(parts) or 'no samples'}."
    alt += f" The threshold is {threshold:g} {unit}." if threshold is not None else ""
    alt += f" {len(plot.windows)} shaded span(s): an alert fired." * bool(plot.windows)
    return _save(axes, " ".join([alt, *(f"Mark {text}." for text in said)]))


def plot_ages(bins: Sequence[AgeBin]) -> Picture:
    """Draw how many objects have waited how long.

    Parameters
    ----------
    bins : (from, to, objects), in minutes; the last may be open (None)
    """
    title = "Objects by how long they have waited"
    axes = _make_axes(title, "objects")
    names = [f"{low:g}–{high:g}" if high is not None else f"over {low:g}" for low, high, _ in bins]
    counts = [count for _, _, count in bins]
    bars = axes.bar(names, counts, color="#56B4E9", edgecolor="#000000", linewidth=0.6)
    axes.bar_label(bars, fontsize=8)
    axes.set_xlabel("minutes waited")
    told = (f"{count} for {name} minutes" for name, count in zip(names, counts, strict=True))
    return _save(axes, f"{title}: {', '.join(told)}.")


def plot_reading(reading: Reading) -> Picture | None:
    """Draw a reading's plot; None when it has none, or no finite sample."""
    plot = reading.plot
    if plot is None or plot.ages:
        return plot_ages(plot.ages) if plot else None
    values = (value for line in plot.lines for _, value in line.points)
    return plot_lines(plot) if any(map(math.isfinite, values)) else None


def _label(text: str, limit: int = 28) -> str:
    """Return a label that matplotlib shows as it is: no mathematics, no tofu-prone controls."""
    return visible(text)[:limit].replace("$", r"\$").replace("\n", " ").lstrip("_")


def _make_axes(title: str, unit: str, *, pad: float = 6) -> Axes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 2.9), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.set_title(_label(title, 60), loc="left", fontsize=10, fontweight="bold", pad=pad)
    axes.set_ylabel(_label(unit), fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _day(at: datetime) -> float:
    """Return a time as matplotlib counts it: in days since 1970."""
    return at.timestamp() / 86_400


def _set_time_axis(axes: Axes) -> None:
    dates: Any = import_module("matplotlib.dates")
    axes.set_xlabel("UTC")
    low, high = axes.get_xlim()
    clock = "%Y-%m-%d" if high - low > 3 else "%H:%M:%S"
    axes.xaxis.set_major_formatter(dates.DateFormatter(clock, tz=UTC))
    axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=3, maxticks=7, tz=UTC))


def _save(axes: Axes, alt: str) -> Picture:
    import warnings

    buffer = io.BytesIO()
    figure: Any = axes.figure
    with warnings.catch_warnings():
        # a label in a script that the font lacks is drawn as a box; the alt text holds the letters
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # glyphs of unknown width leave no room: the picture is poor, its text is whole
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return Picture(buffer.getvalue(), alt)
