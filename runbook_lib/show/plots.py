"""Plots in one house style, which works in grey, for colour-blind eyes, and with a screen reader.

Every line has its own dash and marker in addition to its colour, and every picture carries a text
that says what it shows. A picture is small and its letters are large, so that it fits on a phone's
screen, and two fit side by side on a wide one.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..model import Line, Plot, Reading
from .text import safe, visible

if TYPE_CHECKING:
    from ..investigation import Investigation

# Four colours of Okabe and Ito's palette, and grey. Each has a dash and a marker of its own.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    {"color": "#D55E00", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    {"color": "#CC79A7", "linestyle": ":", "marker": "D"},
    {"color": "#555555", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
)
#: The house style, as settings of matplotlib. On a picture that is shown 350 pixels wide, letters
#: of 9 points are readable.
_HOUSE: Any = {
    "figure.figsize": (5.0, 3.1),
    "figure.dpi": 190,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.parse_math": False,
}
#: Room between the plot and its title, in points, where numbers of marks stand there.
_PAD_OF_MARKS = 42


@dataclass(frozen=True, slots=True, repr=False)
class Picture:
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


def plot_step(inv: Investigation, step_id: str, *, ages: bool = True) -> Picture | None:
    """Draw a step's newest reading in this incident, as ``plot_reading`` does.

    Raises
    ------
    KeyError
        When the step was not read in this incident.
    """
    return plot_reading(inv.latest()[step_id], since=inv.since, ages=ages)


def plot_reading(
    reading: Reading, *, since: datetime | None = None, ages: bool = True
) -> Picture | None:
    """Draw a reading's plot: ages where it has them, else values over time.

    Parameters
    ----------
    since : when this incident began; None: it is not known
    ages : whether ages are drawn where the reading has them

    Returns
    -------
    None when the reading has no plot, no object waits, or no sample is finite.
    """
    plot = reading.plot
    if plot is None:
        return None
    if plot.ages and ages:
        has_objects = any(count for _, _, count in plot.ages)
        return plot_ages(plot.ages) if has_objects else None
    return plot_lines(plot, since=since) if _choose_lines(plot.lines) else None


@lru_cache(maxsize=64)
def plot_lines(plot: Plot, *, since: datetime | None = None) -> Picture:
    """Draw values over time: at most five lines, with threshold, alerts and marks.

    Parameters
    ----------
    since : when this incident began, which is marked, too; None: it is not known
    """
    lines = _choose_lines(plot.lines)
    times = [at for line in lines for at, _ in line.points]
    marks = list(plot.marks)
    if since and times and min(times) < since < max(times):
        marks.insert(0, (since, "this incident began"))
    png = _draw(plot.title, partial(_draw_plot, plot, lines, marks))
    return Picture(png, _describe_plot(plot, lines, marks))


def _draw_plot(
    plot: Plot,
    lines: Sequence[Line],
    marks: Sequence[tuple[datetime, str]],
    axes: Any,
) -> None:
    if marks:  # their numbers stand between plot and title
        axes.set_title(axes.get_title(loc="left"), pad=_PAD_OF_MARKS)
    for line, style in zip(lines, _STYLES, strict=False):
        _draw_line(axes, line, style)
    if plot.threshold is not None:
        label = f"threshold {plot.threshold:g}"
        axes.axhline(plot.threshold, color="#000000", linewidth=1, linestyle=":", label=label)
    last_at = max((line.points[-1][0] for line in lines), default=None)
    for start, end in plot.windows:
        axes.axvspan(start, end or last_at, color="#999999", alpha=0.25)
    for number, (at, text) in enumerate(marks):
        _draw_mark(axes, at, number, text)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_ylabel(_clean_label(plot.unit))
    axes.set_xlabel("UTC")
    _format_times(axes)
    _, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:  # one line alone needs no legend
        axes.figure.legend(loc="outside lower left", ncols=2)


def _choose_lines(lines: Sequence[Line]) -> list[Line]:
    """Return the lines to draw, with their finite samples; at most as many as there are styles.

    Lines that stay at zero hide each other. They are left out beside lines that move, except a
    single point, which is a look of its own.
    """
    finite = []
    for line in lines:
        points = tuple((at, value) for at, value in line.points if math.isfinite(value))
        if points:
            finite.append(line.model_copy(update={"points": points}))
    moving = [line for line in finite if any(value for _, value in line.points)]
    if moving:
        finite = [line for line in finite if line in moving or len(line.points) == 1]
    finite.sort(key=lambda line: len(line.points) > 1)
    return finite[: len(_STYLES)]


def _draw_line(axes: Any, line: Line, style: dict[str, Any]) -> None:
    """Draw a line with about twelve markers; a single point has a large one."""
    axes.plot(
        [at for at, _ in line.points],
        [value for _, value in line.points],
        label=_clean_label(line.name),
        markevery=max(1, len(line.points) // 12),
        markersize=9 if len(line.points) == 1 else 4,
        **style,
    )


def _draw_mark(
    axes: Any,
    at: datetime,
    number: int,
    text: str,
) -> None:
    """Draw a moment as a vertical line with its number above; the legend has the words."""
    words = _clean_label(f"{number + 1}: {text}")
    axes.axvline(at, color="#000000", linewidth=0.8, linestyle="-.", label=words)
    axes.annotate(
        str(number + 1),
        (at, 1.0 + 0.08 * (number % 3)),  # so that no number hides its neighbour
        fontsize=8,
        xycoords=("data", "axes fraction"),
        ha="center",
        va="bottom",
    )


def _describe_plot(plot: Plot, lines: Sequence[Line], marks: Sequence[tuple[datetime, str]]) -> str:
    """Return the text alternative of values over time."""
    parts = [_describe_line(line, plot.unit) for line in lines] or ["no samples"]
    alt = f"{plot.title}. {'; '.join(parts)}."
    if plot.threshold is not None:
        alt += f" The threshold is {plot.threshold:g} {plot.unit}."
    if plot.windows:
        alt += f" An alert fired {len(plot.windows)} times (shaded)."
    for number, (at, text) in enumerate(marks, 1):
        alt += f" Mark {number}: {text}, {at:%H:%M:%S}."
    return alt


def _describe_line(line: Line, unit: str) -> str:
    first_at, first = line.points[0]
    last_at, last = line.points[-1]
    highest = max(value for _, value in line.points)
    text = f"{line.name}: from {first:g} at {first_at:%H:%M:%S} to {last:g} at {last_at:%H:%M:%S}"
    return f"{text} UTC, highest {highest:g} {unit}"


@lru_cache(maxsize=64)
def plot_ages(bins: tuple[tuple[float, float | None, int], ...]) -> Picture:
    """Draw how many objects have waited how long.

    Parameters
    ----------
    bins : start and end of a range in minutes (an end of None: no limit), and how many objects have
        waited that long
    """
    title = "Objects by how long they have waited"
    names = []
    words = []
    counts = []
    for low, high, count in bins:
        name = f"over {low:g}" if high is None else f"{low:g}–{high:g}"
        names.append(name)
        counts.append(count)
        words.append(f"{count} for {name} minutes")
    png = _draw(title, partial(_draw_ages, names, counts))
    return Picture(png, f"{title}: {', '.join(words)}.")


def _draw_ages(names: Sequence[str], counts: Sequence[int], axes: Any) -> None:
    bars = axes.barh(names, counts, color="#56B4E9", edgecolor="#000000", linewidth=0.6)
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("objects")
    axes.set_ylabel("minutes waited")
    axes.set_xlim(0, 1.12 * max(1, *counts))
    axes.grid(visible=False)


def _clean_label(text: str, limit: int = 40) -> str:
    """Return a text in one line, cut off, that matplotlib doesn't hide as it hides ``_x``."""
    label = visible(text)[:limit].replace("\n", " ")
    return label.lstrip("_")


def _draw(title: str, draw: Callable[[Any], None]) -> bytes:
    """Return a PNG in the house style; ``draw`` is given the axes under the title."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with rc_context(_HOUSE), warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box. The text alternative has the letter.
        warnings.filterwarnings("ignore", "Glyph .* missing|constrained_layout not applied")
        figure = Figure()
        axes = figure.subplots()
        axes.set_title(_clean_label(title, 60))
        draw(axes)
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _format_times(axes: Any) -> None:
    dates: Any = import_module("matplotlib.dates")
    locator = dates.AutoDateLocator(minticks=2, maxticks=5, tz=UTC)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC))
