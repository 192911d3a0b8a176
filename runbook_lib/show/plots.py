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
from datetime import datetime, timedelta
from textwrap import fill
from typing import Any

from markupsafe import Markup

from ..model import Plot, Reading
from .text import safe, visible

#: The house style, as settings of matplotlib: five colours, of Okabe and Ito's palette, and grey,
#: each with a dash and a marker. On a picture that is shown 350 pixels wide, letters of 9 points
#: are readable.
_HOUSE: Any = {
    "lines.markersize": 4,
    "axes.prop_cycle": "cycler(color=['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#555555'])"
    " + cycler(linestyle=['-', '--', '-.', ':', '-']) + cycler(marker=['o', 's', '^', 'D', 'v'])",
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
#: The time axis is at least so long.
_LEAST_SPAN = timedelta(minutes=1)


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


def plot_reading(reading: Reading, threshold: float | None = None) -> Picture | None:
    """Draw a reading's values over time.

    Parameters
    ----------
    threshold : in place of the one that the reading was judged by

    Returns
    -------
    None when the reading has no plot, or samples of one time at most.
    """
    return _draw(reading.plot, threshold) if reading.plot else None


def _draw(plot: Plot, threshold: float | None) -> Picture | None:
    """Draw a plot in the house style."""
    times: set[datetime] = set()
    for line in plot.lines:
        times.update(at for at, _ in line.points)
    if len(times) < 2:
        return None  # matplotlib takes half a second to load
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with rc_context(_HOUSE), warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box. The text alternative has the letter.
        warnings.filterwarnings("ignore", "Glyph .* missing|constrained_layout not applied")
        figure = Figure()
        limit = plot.threshold if threshold is None else threshold
        alt = _draw_lines(plot, figure.subplots(), min(times), max(times), limit)
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(content.getvalue(), alt)


def _draw_lines(
    plot: Plot, axes: Any, start: datetime, end: datetime, threshold: float | None
) -> str:
    """Draw at most five lines, with threshold, alerts and marks; return the text alternative."""
    words = []
    for line in plot.lines[:5]:
        points = [(at, value) for at, value in line.points if math.isfinite(value)]
        if not points:
            continue
        ats, values = zip(*points, strict=True)
        axes.plot(ats, values, label=_clean_label(line.name), markevery=max(1, len(ats) // 12))
        ends = f"from {values[0]:g} to {values[-1]:g}"
        words.append(f"{line.name}: {ends}, highest {max(values):g} {plot.unit}")
    axes.set_xlim(left=min(start, end - _LEAST_SPAN))
    axes.set_title(_clean_label(plot.title))
    if threshold is not None:
        label = f"threshold {threshold:g}"
        axes.axhline(threshold, color="#000000", linewidth=1, linestyle=":", label=label)
        words.append(f"the threshold is {threshold:g} {plot.unit}")
    for fired_at, ended_at in plot.windows:
        axes.axvspan(fired_at, ended_at or end, color="#999999", alpha=0.25)
        words.append(f"an alert fired from {fired_at:%H:%M:%S}")
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
    span = f"{start:%Y-%m-%d %H:%M:%S} to {end:%H:%M:%S} UTC"
    return f"{plot.title}, {span}. {'; '.join(words)}."


def _clean_label(text: str) -> str:
    """Return a text in lines that fit; matplotlib would hide it if it began with ``_``."""
    return fill(visible(text), 60).lstrip("_")
