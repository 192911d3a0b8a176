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
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from ..model import Line, Plot, Reading
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
# Marks that stand beside each other get numbers at this many heights, so that none hides another.
_HEIGHTS = 3
#: Room between the plot and its title, in points: without marks, and with them.
_PAD = 6
_PAD_OF_MARKS = 42


class Picture(NamedTuple):
    """A PNG with its text alternative; shown by a notebook as an image with ``alt``."""

    png: bytes
    alt: str

    @property
    def data_uri(self) -> str:
        """The picture as a ``data:`` address."""
        content = base64.b64encode(self.png).decode("ascii")
        return f"data:image/png;base64,{content}"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        alt = safe(self.alt)
        image = Markup('<img src="{}" alt="{}" width="760">').format(self.data_uri, alt)
        return {"text/html": str(image), "text/plain": visible(self.alt)}


class _Point(NamedTuple):
    at: datetime
    value: float


class _Drawn(NamedTuple):
    """A line's samples that are finite numbers: one at least."""

    name: str
    points: list[_Point]

    @property
    def first(self) -> _Point:
        return self.points[0]

    @property
    def last(self) -> _Point:
        return self.points[-1]

    @property
    def times(self) -> list[datetime]:
        return [point.at for point in self.points]

    @property
    def values(self) -> list[float]:
        return [point.value for point in self.points]


def plot_lines(plot: Plot) -> Picture:
    """Draw values over time: the five lines that have finite ones for longest."""
    drawn = _choose_lines(plot.lines)
    pad = _PAD_OF_MARKS if plot.marks else _PAD
    # Matplotlib takes times as they are; its types do not say so.
    axes: Any = _make_axes(plot.title, plot.unit, pad=pad)
    descriptions = []
    for line, style in zip(drawn, _STYLES, strict=False):
        _draw_line(axes, line, style)
        descriptions.append(_describe_line(line, plot.unit))
    content = "; ".join(descriptions) or "no samples"
    alt = f"{plot.title}. {content}."
    if plot.threshold is not None:
        _draw_threshold(axes, plot.threshold)
        alt += f" The threshold is {plot.threshold:g} {plot.unit}."
    for start, end in plot.windows:
        newest = max(line.last.at for line in drawn)
        axes.axvspan(
            start,
            end or newest,
            color="#999999",
            alpha=0.25,
            hatch="//",
            linewidth=0,
        )
    if plot.windows:
        alt += f" {len(plot.windows)} shaded span(s): an alert fired."
    for number, (at, text) in enumerate(plot.marks, 1):
        words = f"{number}: {_label(text)}"
        _draw_mark(axes, at, number, words)
        alt += f" Mark {words}."
    _set_time_axis(axes)
    _set_value_axis(axes, plot.threshold)
    if len(drawn) > 1 or plot.marks:
        axes.legend(
            fontsize=8,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            frameon=False,
        )
    return _save(axes, alt)


def _choose_lines(lines: Sequence[Line]) -> list[_Drawn]:
    """Return the lines that span most time, as many as there are styles.

    Lines that stay at zero hide each other, and say nothing beside one that does not: they are
    drawn only where all do.
    """
    filled = []
    moving = []
    for line in lines:
        points = [_Point(at, value) for at, value in line.points if math.isfinite(value)]
        if not points:
            continue
        drawn = _Drawn(line.name, points)
        filled.append(drawn)
        if any(drawn.values):
            moving.append(drawn)
    longest_first = moving or filled
    longest_first.sort(key=lambda line: line.first.at - line.last.at)
    return longest_first[: len(_STYLES)]


def _draw_line(axes: Any, line: _Drawn, style: dict[str, Any]) -> None:
    axes.plot(
        line.times,
        line.values,
        label=_label(line.name),
        markevery=max(1, len(line.points) // 12),
        markersize=4,
        linewidth=1.8,
        **style,
    )


def _describe_line(line: _Drawn, unit: str) -> str:
    first = _describe_point(line.first)
    last = _describe_point(line.last)
    highest = max(line.values)
    return f"{line.name}: from {first} to {last} UTC, highest {highest:g} {unit}"


def _describe_point(point: _Point) -> str:
    return f"{point.value:g} at {point.at:%H:%M:%S}"


def _draw_threshold(axes: Any, threshold: float) -> None:
    axes.axhline(threshold, color="#000000", linewidth=1, linestyle=(0, (1, 1)))
    axes.text(
        0.005,
        threshold,
        f"threshold {threshold:g}",
        transform=axes.get_yaxis_transform(),
        va="bottom",
        fontsize=8,
    )


def _draw_mark(axes: Any, at: datetime, number: int, words: str) -> None:
    """Draw a moment as a line with its number above; the legend has the words."""
    axes.axvline(at, color="#000000", linewidth=0.8, linestyle="-.", label=words)
    level = (number - 1) % _HEIGHTS
    height = 1.0 + 0.08 * level
    axes.annotate(
        str(number),
        (at, height),
        fontsize=7.5,
        xycoords=("data", "axes fraction"),
        ha="center",
        va="bottom",
    )


def _set_value_axis(axes: Any, threshold: float | None) -> None:
    """Show zero, and the threshold with room above it."""
    low, high = axes.get_ylim()
    if high <= 0:
        high = 1.0
    if threshold is not None:
        high = max(high, 1.25 * threshold)
    axes.set_ylim(min(0.0, low), high)


def plot_ages(bins: Sequence[tuple[float, float | None, int]]) -> Picture:
    """Draw how many objects have waited how long.

    Parameters
    ----------
    bins : (from, to, objects), in minutes; the last may be open (None)
    """
    title = "Objects by how long they have waited"
    axes = _make_axes(title, "objects")
    names = [_name_bin(low, high) for low, high, _ in bins]
    counts = [count for _, _, count in bins]
    bars = axes.bar(names, counts, color="#56B4E9", edgecolor="#000000", linewidth=0.6)
    axes.bar_label(bars, fontsize=8)
    axes.set_xlabel("minutes waited")
    words = []
    for name, count in zip(names, counts, strict=True):
        words.append(f"{count} for {name} minutes")
    return _save(axes, f"{title}: {', '.join(words)}.")


def _name_bin(low: float, high: float | None) -> str:
    if high is None:
        return f"over {low:g}"
    return f"{low:g}–{high:g}"


def plot_reading(reading: Reading) -> Picture | None:
    """Draw a reading's plot; None when it has none, or no finite sample."""
    plot = reading.plot
    if plot is None:
        return None
    if plot.ages:
        return plot_ages(plot.ages)
    if not _choose_lines(plot.lines):
        return None
    return plot_lines(plot)


def _label(text: str, limit: int = 28) -> str:
    """Return a text that matplotlib shows as it is: no mathematics, no tofu-prone controls."""
    label = visible(text)[:limit]
    label = label.replace("$", r"\$")
    label = label.replace("\n", " ")
    return label.lstrip("_")


def _make_axes(title: str, unit: str, *, pad: float = _PAD) -> Axes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 2.9), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.set_title(
        _label(title, 60),
        loc="left",
        fontsize=10,
        fontweight="bold",
        pad=pad,
    )
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
    days = high - low
    clock = "%Y-%m-%d" if days > 3 else "%H:%M:%S"
    formatter = dates.DateFormatter(clock, tz=UTC)
    axes.xaxis.set_major_formatter(formatter)
    locator = dates.AutoDateLocator(minticks=3, maxticks=7, tz=UTC)
    axes.xaxis.set_major_locator(locator)


def _save(axes: Axes, alt: str) -> Picture:
    buffer = io.BytesIO()
    figure: Any = axes.figure
    with warnings.catch_warnings():
        # A glyph that the font lacks is drawn as a box, and one of unknown width leaves no room.
        # The picture is poor then; its text alternative is whole.
        warnings.filterwarnings("ignore", "Glyph .* missing|constrained_layout not applied")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return Picture(buffer.getvalue(), alt)
