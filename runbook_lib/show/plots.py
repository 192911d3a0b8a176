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
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ..model import Plot, Reading
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
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "date.converter": "concise",
    "timezone": "UTC",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#dddddd",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "svg.hashsalt": "runbook",
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True, repr=False)
class Picture:
    """An SVG with its text alternative ``alt``. A notebook shows it as an image."""

    svg: bytes
    alt: str

    def to_html(self) -> Markup:
        """Return the picture as an image that holds its own content."""
        content = base64.b64encode(self.svg).decode("ascii")
        html = Markup('<img src="data:image/svg+xml;base64,{}" alt="{}" width="560">')
        return html.format(content, safe(self.alt))

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/html": str(self.to_html()), "text/plain": visible(self.alt)}


def plot_step(inv: Investigation, step_id: str) -> Picture | None:
    """Draw a step's newest reading in this incident, as ``plot_reading`` does.

    Raises
    ------
    KeyError
        When the step was not read in this incident.
    """
    return plot_reading(inv.latest()[step_id])


def plot_reading(reading: Reading) -> Picture | None:
    """Draw a reading's values over time.

    Returns
    -------
    None when the reading has no plot, or samples of one time at most.
    """
    return _draw(reading.plot) if reading.plot else None


@lru_cache(maxsize=64)
def _draw(plot: Plot) -> Picture | None:
    """Draw a plot in the house style."""
    if all(len(line.points) < 2 for line in plot.lines):
        return None  # matplotlib takes half a second to load
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with rc_context(_HOUSE), warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box. The text alternative has the letter.
        warnings.filterwarnings("ignore", "Glyph .* missing|constrained_layout not applied")
        figure = Figure()
        axes = figure.subplots()
        alt = _draw_lines(plot, axes)
        if not alt:
            return None
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(content.getvalue(), alt)


def _draw_lines(plot: Plot, axes: Any) -> str:
    """Draw at most five lines, with threshold, alerts and marks; return the text alternative."""
    times: list[datetime] = []
    words = []
    for line, style in zip(plot.lines, _STYLES, strict=False):
        points = [(at, value) for at, value in line.points if math.isfinite(value)]
        if not points:
            continue
        ats, values = zip(*points, strict=True)
        times += ats
        markers = {"markevery": max(1, len(ats) // 12), "markersize": 9 if len(ats) == 1 else 4}
        axes.plot(ats, values, label=_clean_label(line.name), **markers, **style)
        ends = f"from {values[0]:g} to {values[-1]:g}"
        words.append(f"{line.name}: {ends}, highest {max(values):g} {plot.unit}")
    if len(set(times)) < 2:
        return ""
    axes.set_title(_clean_label(plot.title))
    if plot.threshold is not None:
        label = f"threshold {plot.threshold:g}"
        axes.axhline(plot.threshold, color="#000000", linewidth=1, linestyle=":", label=label)
        words.append(f"the threshold is {plot.threshold:g} {plot.unit}")
    for start, end in plot.windows:
        axes.axvspan(start, end or max(times), color="#999999", alpha=0.25)
        words.append(f"an alert fired from {start:%H:%M:%S}")
    for number, (at, text) in enumerate(plot.marks, start=1):
        label = _clean_label(f"{number}: {text}")
        axes.axvline(at, color="#000000", linewidth=0.8, linestyle="-.", label=label)
        words.append(f"mark {number}: {text}, {at:%H:%M:%S}")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_ylabel(_clean_label(plot.unit))
    axes.set_xlabel("UTC")
    _, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:  # one line alone needs no legend
        axes.figure.legend(loc="outside lower left", ncols=2)
    span = f"{min(times):%Y-%m-%d %H:%M:%S} to {max(times):%H:%M:%S} UTC"
    return f"{plot.title}, {span}. {'; '.join(words)}."


def _clean_label(text: str) -> str:
    """Return a text in one line, cut off, that matplotlib doesn't hide as it hides ``_x``."""
    label = visible(text)[:60].replace("\n", " ")
    return label.lstrip("_")
