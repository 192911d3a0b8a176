"""Plots in one house style: good in grey, for colour-blind eyes, and with a screen reader."""

import base64
import io
import math
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from ..model import Reading
from .text import safe, visible

#: matplotlib's settings: Okabe and Ito's colours and grey, and letters that a phone shows well.
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
_ANNOTATION: Any = {"color": "#000000", "linewidth": 0.8, "linestyle": ":"}


@dataclass(frozen=True, slots=True, repr=False)
class Picture:
    """An SVG image with its text alternative ``alt``."""

    svg: bytes
    alt: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        content = base64.b64encode(self.svg).decode("ascii")
        image = (
            f'<img src="data:image/svg+xml;base64,{content}" alt="{safe(self.alt)}" width="560">'
        )
        return {"text/html": image, "text/plain": visible(self.alt)}


def plot_reading(reading: Reading, threshold: float | None = None) -> Picture | None:
    """Draw a reading's values over time, with a ``threshold`` in place of the reading's own.

    None if the reading has no plot, or no two samples of different times.
    """
    plot = reading.plot
    lines: dict[str, dict[datetime, float]] = {}
    for line in plot.lines[:5] if plot else ():
        points = {at: value for at, value in line.points if math.isfinite(value)}
        if points:
            lines[line.name] = points
    times = sorted(chain.from_iterable(lines.values()))
    if plot is None or not times or times[0] == times[-1]:
        return None  # matplotlib takes half a second to load
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    content = io.BytesIO()
    sentences = []
    with rc_context(_HOUSE), warnings.catch_warnings():
        # A letter that the font lacks becomes a box; the text alternative has it.
        warnings.filterwarnings("ignore", "Glyph .* missing|constrained_layout not applied")
        figure = Figure()
        axes: Any = figure.subplots()
        for name, points in lines.items():
            values = list(points.values())
            # A marker on every sample would hide the line.
            every = len(values) // 12 or 1
            axes.plot(list(points), values, label=visible(name), markevery=every)
            sentences.append(
                f"{name}: from {values[0]:g} to {values[-1]:g}, highest {max(values):g} {plot.unit}"
            )
        limit = plot.threshold if threshold is None else threshold
        if limit is not None:
            axes.axhline(limit, **_ANNOTATION | {"linestyle": "--"}, label=f"threshold {limit:g}")
            sentences.append(f"the threshold is {limit:g} {plot.unit}")
        for at, text in plot.annotations:
            axes.axvline(at, **_ANNOTATION, label=visible(text))
            sentences.append(f"{text} at {at:%H:%M:%S}")
        axes.axvline(times[-1] - timedelta(minutes=1), alpha=0)  # the axis is never shorter
        axes.set(title=visible(plot.title), xlabel="UTC", ylabel=plot.unit)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        figure.legend(loc="outside lower left", ncols=2)
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    period = f"{times[0]:%Y-%m-%d %H:%M:%S} to {times[-1]:%H:%M:%S} UTC"
    return Picture(content.getvalue(), f"{plot.title}, {period}. {'; '.join(sentences)}.")
