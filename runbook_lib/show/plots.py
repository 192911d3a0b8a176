"""Plots that work in grey, for colour-blind eyes, and with a screen reader.

Every line has its own style and marker in addition to its colour, and every picture carries a text
that says what it shows. A picture is small and its letters are large, so that it fits on a phone's
screen, and two fit side by side on a wide one.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from ..model import Line, Plot, Reading
from .text import safe, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..investigation import Investigation

# Four colours of Okabe and Ito's palette, and grey. Each has a dash and a marker of its own.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#CC79A7", "linestyle": ":", "marker": "D"},
    {"color": "#555555", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
)
# The numbers of neighbouring marks stand at this many heights, so that none hides another.
_HEIGHTS = 3
#: Room between the plot and its title, in points: without marks, and with them.
_PAD = 6
_PAD_OF_MARKS = 42
#: Width and height of a picture in inches; size of letters in points. On a picture that is shown
#: 350 pixels wide, letters of 9 points are readable.
_SIZE = (5.0, 3.1)
_LETTERS = 9
_SMALL_LETTERS = 8
#: How a whole PNG begins and ends.
_PNG_BEGIN = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
#: How many pictures a folder keeps, the newest ones: about as many as ten reports show.
_MOST_KEPT = 60


class Picture(NamedTuple):
    """A PNG with its text alternative ``alt``. A notebook shows it as an image."""

    png: bytes
    alt: str

    @property
    def data_uri(self) -> str:
        """The picture as a ``data:`` address."""
        content = base64.b64encode(self.png).decode("ascii")
        return f"data:image/png;base64,{content}"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        alt = safe(self.alt)
        image = Markup('<img src="{}" alt="{}" width="560">').format(self.data_uri, alt)
        return {"text/html": str(image), "text/plain": visible(self.alt)}

    def _repr_pretty_(self, printer: Any, _is_cycle: bool) -> None:
        """Show the text alternative where there are no pictures: a tuple would show its bytes."""
        printer.text(visible(self.alt))


class _Point(NamedTuple):
    at: datetime
    value: float


class _DrawnLine(NamedTuple):
    """A line that is drawn: its samples that are finite numbers, at least one."""

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


def plot_lines(plot: Plot, *, since: datetime | None = None, folder: Path | None = None) -> Picture:
    """Draw values over time: at most five lines, as ``_choose_lines`` chooses them.

    Parameters
    ----------
    since : when this incident began; what is before it is dimmed. None: it is not known
    folder : as for ``plot_reading``
    """
    content = json.dumps(plot.model_dump(), default=str)
    inputs = f"lines {content} {since}"
    png = _draw_once(folder, inputs, lambda: _draw_lines(plot, since))
    return Picture(png, _describe_plot(plot, since))


@lru_cache(maxsize=64)
def _draw_lines(plot: Plot, since: datetime | None) -> bytes:
    """Return the PNG of values over time, with threshold, shaded windows and marks."""
    drawn = _choose_lines(plot.lines)
    pad = _PAD_OF_MARKS if plot.marks else _PAD
    # ``Any``, because matplotlib accepts times, but its type hints do not say so.
    axes: Any = _make_axes(plot.title, plot.unit, pad=pad)
    for line, style in zip(drawn, _STYLES, strict=False):
        _draw_line(axes, line, style)
    if plot.threshold is not None:
        _draw_threshold(axes, plot.threshold)
    last_at = max((line.last.at for line in drawn), default=None)
    for start, end in plot.windows:
        axes.axvspan(
            start,
            end or last_at,
            color="#999999",
            alpha=0.25,
            hatch="//",
            linewidth=0,
        )
    for number, (at, text) in enumerate(plot.marks, 1):
        _draw_mark(axes, at, number, _name_mark(number, text))
    _set_value_axis(axes, plot.threshold)
    if since and _began_within(drawn, since):
        _dim_before(axes, since)
    _set_time_axis(axes)
    _draw_legend(axes)
    return _render_png(axes)


def warm_up() -> None:
    """Draw a plot that nobody sees, so that fonts and modules are loaded for the next plot."""
    points = ((datetime(2026, 1, 1, tzinfo=UTC), 0.0), (datetime(2026, 1, 2, tzinfo=UTC), 1.0))
    plot = Plot(title="warm", unit="s", lines=[Line(name="a", points=points)], threshold=1.0)
    plot_lines(plot)


def _describe_plot(plot: Plot, since: datetime | None) -> str:
    """Return the text alternative of values over time."""
    drawn = _choose_lines(plot.lines)
    descriptions = [_describe_line(line, plot.unit) for line in drawn]
    values = "; ".join(descriptions) or "no samples"
    alt = f"{plot.title}. {values}."
    if plot.threshold is not None:
        alt += f" The threshold is {plot.threshold:g} {plot.unit}."
    if plot.windows:
        alt += f" {len(plot.windows)} shaded span(s): an alert fired."
    for number, (_, text) in enumerate(plot.marks, 1):
        alt += f" Mark {_name_mark(number, text)}."
    if since and _began_within(drawn, since):
        alt += f" This incident began at {since:%H:%M:%S} UTC; what is before it is dimmed."
    return alt


def _name_mark(number: int, text: str) -> str:
    return f"{number}: {_clean_label(text)}"


def _began_within(drawn: Sequence[_DrawnLine], since: datetime) -> bool:
    """Tell whether an incident began between the first sample and the last one."""
    if not drawn:
        return False
    first_at = min(line.first.at for line in drawn)
    last_at = max(line.last.at for line in drawn)
    return first_at < since < last_at


def _draw_once(folder: Path | None, inputs: str, draw: Callable[[], bytes]) -> bytes:
    """Return the PNG that a folder keeps for these inputs; if it has none, draw and keep one.

    Parameters
    ----------
    folder : keeps the pictures; None: draw the picture and keep none
    inputs : all that the picture is drawn from
    draw : draws the picture. After a change of this module, every picture is drawn anew
    """
    if folder is None:
        return draw()
    content = inputs.encode("utf-8", "backslashreplace")
    name = hashlib.sha256(_read_own_source() + content).hexdigest()
    path = folder / f"{name}.png"
    with suppress(OSError):
        png = path.read_bytes()
        if png.startswith(_PNG_BEGIN) and png.endswith(_PNG_END):  # otherwise a write was cut off
            return png
    png = draw()
    with suppress(OSError):  # a picture that the disk has no room for is drawn again next time
        folder.mkdir(exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(png)
        temporary.replace(path)
        _delete_oldest(folder)
    return png


@cache
def _read_own_source() -> bytes:
    return Path(__file__).read_bytes()


def _delete_oldest(folder: Path) -> None:
    """Delete the oldest pictures of a folder; the newest ``_MOST_KEPT`` stay."""
    oldest_first = sorted(folder.glob("*.png"), key=lambda path: path.stat().st_mtime)
    for path in oldest_first[:-_MOST_KEPT]:
        path.unlink(missing_ok=True)


def _dim_before(axes: Any, since: datetime) -> None:
    """Mark when this incident began, and dim what is before it."""
    dates: Any = import_module("matplotlib.dates")
    low, high = axes.get_xlim()
    axes.axvspan(low, dates.date2num(since), color="#ffffff", alpha=0.7, linewidth=0, zorder=4)
    axes.axvline(
        since,
        color="#000000",
        linewidth=1.4,
        zorder=5,
        label=f"this incident began, {since:%H:%M:%S}",
    )
    axes.set_xlim(low, high)


def _draw_legend(axes: Any) -> None:
    """Put the names of lines and marks under the plot; one line alone needs no legend."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) < 2:
        return
    axes.figure.legend(
        handles,
        labels,
        fontsize=_SMALL_LETTERS,
        loc="outside lower left",
        ncols=2,
        frameon=False,
        handlelength=2.6,
        columnspacing=1.2,
    )


def _choose_lines(lines: Sequence[Line]) -> list[_DrawnLine]:
    """Return the lines to draw, at most as many as there are styles.

    Lines of one point come last, and are not left out for longer lines. Of the longer lines, those
    that span the most time are chosen. Longer lines that stay at zero hide each other, so they are
    drawn only when all longer lines stay at zero.
    """
    all_lines = []
    not_at_zero = []
    single_points = []
    for line in lines:
        points = [_Point(at, value) for at, value in line.points if math.isfinite(value)]
        if not points:
            continue
        drawn = _DrawnLine(line.name, points)
        if len(points) == 1:
            single_points.append(drawn)
            continue
        all_lines.append(drawn)
        if any(drawn.values):
            not_at_zero.append(drawn)
    longest_first = not_at_zero or all_lines
    longest_first.sort(key=lambda line: line.last.at - line.first.at, reverse=True)
    room = max(0, len(_STYLES) - len(single_points))
    chosen = longest_first[:room] + single_points
    return chosen[: len(_STYLES)]


def _draw_line(axes: Any, line: _DrawnLine, style: dict[str, Any]) -> None:
    """Draw a line with about twelve markers; a single point becomes a large empty marker."""
    is_single_point = len(line.points) == 1
    axes.plot(
        line.times,
        line.values,
        label=_clean_label(line.name),
        markevery=max(1, len(line.points) // 12),
        markersize=9 if is_single_point else 4,
        markerfacecolor="none" if is_single_point else None,
        markeredgewidth=2 if is_single_point else None,
        linewidth=0 if is_single_point else 1.8,
        zorder=6 if is_single_point else None,
        **style,
    )


def _describe_line(line: _DrawnLine, unit: str) -> str:
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
        fontsize=_SMALL_LETTERS,
        zorder=5,
        bbox={"facecolor": "#ffffff", "alpha": 0.7, "linewidth": 0, "pad": 1},
    )


def _draw_mark(axes: Any, at: datetime, number: int, words: str) -> None:
    """Draw a moment as a vertical line with its number above; the legend shows ``words``."""
    axes.axvline(at, color="#000000", linewidth=0.8, linestyle="-.", label=words)
    level = (number - 1) % _HEIGHTS
    height = 1.0 + 0.08 * level
    axes.annotate(
        str(number),
        (at, height),
        fontsize=_SMALL_LETTERS,
        zorder=5,
        xycoords=("data", "axes fraction"),
        ha="center",
        va="bottom",
    )


def _set_value_axis(axes: Any, threshold: float | None) -> None:
    """Let the value axis show zero, and the threshold with room above it."""
    low, high = axes.get_ylim()
    if high <= 0:
        high = 1.0
    if low > 0:
        high *= 1.05  # Matplotlib left too little room above the line: the axis now begins at zero
    if threshold is not None:
        high = max(high, 1.25 * threshold)
    axes.set_ylim(min(0.0, low), high)


def plot_ages(
    bins: Sequence[tuple[float, float | None, int]], *, folder: Path | None = None
) -> Picture:
    """Draw how many objects have waited how long.

    Parameters
    ----------
    bins : start and end of a range in minutes (an end of None: no limit), and how many objects have
        waited that long
    folder : as for ``plot_reading``
    """
    title = "Objects by how long they have waited"
    words = []
    for low, high, count in bins:
        words.append(f"{count} for {_name_bin(low, high)} minutes")
    png = _draw_once(folder, f"ages {bins}", lambda: _draw_ages(title, bins))
    return Picture(png, f"{title}: {', '.join(words)}.")


def _draw_ages(title: str, bins: Sequence[tuple[float, float | None, int]]) -> bytes:
    axes: Any = _make_axes(title, "minutes waited")
    names = [_name_bin(low, high) for low, high, _ in bins]
    counts = [count for _, _, count in bins]
    bars = axes.barh(names, counts, color="#56B4E9", edgecolor="#000000", linewidth=0.6)
    axes.bar_label(bars, fontsize=_LETTERS, padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("objects", fontsize=_LETTERS)
    axes.set_xlim(0, 1.12 * max(1, *counts))
    axes.grid(visible=False)
    return _render_png(axes)


def _name_bin(low: float, high: float | None) -> str:
    if high is None:
        return f"over {low:g}"
    return f"{low:g}–{high:g}"


def plot_step(inv: Investigation, step_id: str, *, ages: bool = True) -> Picture | None:
    """Draw a step's newest reading in this incident, in the style of the report.

    Parameters
    ----------
    ages : whether ages are drawn where the step has them, instead of values over time

    Returns
    -------
    None when the step has nothing to draw.

    Raises
    ------
    KeyError
        When the step was not read in this incident.
    """
    draw = plot_reading if ages else plot_history
    reading = inv.latest()[step_id]
    return draw(reading, since=inv.journal.since(), folder=inv.incident.pictures)


def plot_reading(
    reading: Reading, *, since: datetime | None = None, folder: Path | None = None
) -> Picture | None:
    """Draw a reading's plot: ages where it has them, else values over time.

    Parameters
    ----------
    since : when this incident began; what is before it is dimmed. None: it is not known
    folder : keeps the pictures, so that no picture is drawn twice; None: none is kept

    Returns
    -------
    None when the reading has no plot, no object waits, or no sample is finite.
    """
    plot = reading.plot
    if plot is None:
        return None
    if plot.ages:
        has_objects = any(count for _, _, count in plot.ages)
        return plot_ages(plot.ages, folder=folder) if has_objects else None
    return plot_history(reading, since=since, folder=folder)


def plot_history(
    reading: Reading, *, since: datetime | None = None, folder: Path | None = None
) -> Picture | None:
    """Draw a reading's values over time; None when the reading has no finite sample.

    Parameters
    ----------
    since, folder : as for ``plot_reading``
    """
    if reading.plot is None or not _choose_lines(reading.plot.lines):
        return None
    return plot_lines(reading.plot, since=since, folder=folder)


def _clean_label(text: str, limit: int = 28) -> str:
    """Return a text, cut to ``limit`` characters, that matplotlib shows as it is.

    Matplotlib would read ``$`` as mathematics, and hides a text that begins with ``_``.
    """
    label = visible(text)[:limit]
    label = label.replace("$", r"\$")
    label = label.replace("\n", " ")
    return label.lstrip("_")


def _make_axes(title: str, unit: str, *, pad: float = _PAD) -> Axes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=190, layout="constrained")
    axes = figure.subplots()
    axes.set_title(
        _clean_label(title, 60),
        loc="left",
        fontsize=10,
        fontweight="bold",
        pad=pad,
    )
    axes.set_ylabel(_clean_label(unit), fontsize=_LETTERS)
    axes.tick_params(labelsize=_LETTERS)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _set_time_axis(axes: Axes) -> None:
    dates: Any = import_module("matplotlib.dates")
    axes.set_xlabel("UTC", fontsize=_LETTERS)
    low, high = axes.get_xlim()
    days = high - low  # matplotlib counts time in days
    time_format = "%Y-%m-%d" if days > 3 else "%H:%M:%S"
    formatter = dates.DateFormatter(time_format, tz=UTC)
    axes.xaxis.set_major_formatter(formatter)
    locator = dates.AutoDateLocator(minticks=2, maxticks=5, tz=UTC)
    axes.xaxis.set_major_locator(locator)


def _render_png(axes: Axes) -> bytes:
    """Return the figure of some axes as a PNG."""
    buffer = io.BytesIO()
    figure: Any = axes.figure
    with warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box. The text alternative has the letter.
        warnings.filterwarnings("ignore", "Glyph .* missing|constrained_layout not applied")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
