"""Plots that read in grey, by colour-blind eyes, and by a screen reader.

Inputs are plain series. Every line has its own style and marker beside its colour, and every
picture carries a text that says what it shows.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Sequence
from datetime import UTC
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from ..model import Plot, Reading
from .text import safe, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette without yellow, each with a dash and a marker of its own.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#CC79A7", "linestyle": ":", "marker": "D"},
    {"color": "#555555", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
)
_LINE: dict[str, Any] = {"markersize": 4, "linewidth": 1.8}
_AT_TOP: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}


class Picture(NamedTuple):
    """A PNG with its text alternative; shown by a notebook as an image with ``alt``."""

    png: bytes
    alt: str

    @property
    def data_uri(self) -> str:
        """The picture as a ``data:`` address."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        image = Markup('<img src="{}" alt="{}" width="760">').format(self.data_uri, safe(self.alt))
        return {"text/html": str(image), "text/plain": visible(self.alt)}


def plot_lines(plot: Plot) -> Picture:
    """Draw values over time: the five lines that have finite ones for longest."""
    finite = [(line.name, [p for p in line.points if math.isfinite(p[1])]) for line in plot.lines]
    # lines that stay at zero hide each other, and say nothing beside one that does not
    moving = [line for line in finite if any(value for _, value in line[1])]
    filled = moving or [line for line in finite if line[1]]
    drawn = sorted(filled, key=lambda line: line[1][0][0] - line[1][-1][0])[: len(_STYLES)]
    unit, threshold, told = plot.unit, plot.threshold, []
    axes: Any = _make_axes(plot.title, unit, pad=42 if plot.marks else 6)  # takes times as they are
    for (name, points), style in zip(drawn, _STYLES, strict=False):
        times, values = zip(*points, strict=True)
        every = max(1, len(points) // 12)
        axes.plot(times, values, label=_label(name), markevery=every, **style, **_LINE)
        ends = [f"{value:g} at {at:%H:%M:%S}" for at, value in (points[0], points[-1])]
        told.append(f"{name}: from {' to '.join(ends)} UTC, highest {max(values):g} {unit}")
    alt = f"{plot.title}. {'; '.join(told) or 'no samples'}."
    if threshold is not None:
        axes.axhline(threshold, color="#000000", linewidth=1, linestyle=(0, (1, 1)))
        beside: Any = {"transform": axes.get_yaxis_transform(), "va": "bottom", "fontsize": 8}
        axes.text(0.005, threshold, f"threshold {threshold:g}", **beside)
        alt += f" The threshold is {threshold:g} {unit}."
    for start, end in plot.windows:
        newest = max(points[-1][0] for _, points in drawn)
        axes.axvspan(start, end or newest, color="#999999", alpha=0.25, hatch="//", linewidth=0)
    alt += f" {len(plot.windows)} shaded span(s): an alert fired." * bool(plot.windows)
    # beside each other their words would be printed over each other: numbers at three heights,
    # told at the side
    for number, (at, text) in enumerate(plot.marks, 1):
        said = f"{number}: {_label(text)}"
        axes.axvline(at, color="#000000", linewidth=0.8, linestyle="-.", label=said)
        height = 1.0 + 0.08 * ((number - 1) % 3)
        axes.annotate(str(number), (at, height), fontsize=7.5, **_AT_TOP)
        alt += f" Mark {said}."
    _set_time_axis(axes)
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), max(high if high > 0 else 1.0, 1.25 * (threshold or 0.0)))
    if len(drawn) > 1 or plot.marks:
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return _save(axes, alt)


def plot_ages(bins: Sequence[tuple[float, float | None, int]]) -> Picture:
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
    """Return a text that matplotlib shows as it is: no mathematics, no tofu-prone controls."""
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


def _set_time_axis(axes: Axes) -> None:
    dates: Any = import_module("matplotlib.dates")
    axes.set_xlabel("UTC")
    low, high = axes.get_xlim()
    clock = "%Y-%m-%d" if high - low > 3 else "%H:%M:%S"
    axes.xaxis.set_major_formatter(dates.DateFormatter(clock, tz=UTC))
    axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=3, maxticks=7, tz=UTC))


def _save(axes: Axes, alt: str) -> Picture:
    buffer = io.BytesIO()
    figure: Any = axes.figure
    with warnings.catch_warnings():
        # what the font lacks is drawn as a box, and a glyph of unknown width leaves no room: the
        # picture is poor then, its text is whole
        warnings.filterwarnings("ignore", "Glyph .* missing|constrained_layout not applied")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return Picture(buffer.getvalue(), alt)
