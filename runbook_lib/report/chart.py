"""Values over time as a chart, which the macro ``draw`` of the templates puts on the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import chain
from math import isfinite
from typing import NamedTuple

from ..model import Line, Plot, Reading

#: Where the axes begin and end, on a canvas of 480 by 190.
LEFT, RIGHT, TOP, BOTTOM = 40, 470, 54, 166
_MOST_LINES = 5


class Chart(NamedTuple):
    """A plot with its axes: the time at the left and the length of the axis, the highest value."""

    plot: Plot
    begin: datetime
    length: timedelta
    top: float

    @property
    def end(self) -> datetime:
        """The time at the right."""
        return self.begin + self.length

    def place(self, at: datetime) -> float:
        """Return where a time stands."""
        return round(LEFT + (RIGHT - LEFT) * ((at - self.begin) / self.length), 1)

    def lift(self, value: float) -> float:
        """Return the height of a value."""
        return round(BOTTOM - (BOTTOM - TOP) * (max(value, 0) / self.top), 1)


def gather_lines(readings: Iterable[Reading]) -> Iterator[Line]:
    """Yield the lines of a step's plots, and what the step itself counted, each over all looks."""
    points: dict[str, dict[datetime, float]] = {"by listing": {}}
    for reading in readings:
        if isinstance(reading.value, int | float):
            points["by listing"][reading.observed_at] = reading.value
        for line in reading.plot.lines if reading.plot else ():
            points.setdefault(line.name, {}).update(line.points)
    for name, own in points.items():
        yield Line(name=name, points=tuple(sorted(own.items())))


def draw_chart(plot: Plot, start: datetime | None = None) -> Chart | None:
    """Choose the axes; None when no line has two points. The time's axis is at least a minute long.

    A line that is always 0 is left out.

    Parameters
    ----------
    start : what was before is left out; None: nothing is
    """
    lines = []
    for line in plot.lines:
        points = [(at, value) for at, value in line.points if isfinite(value)]
        points = [point for point in points if start is None or point[0] >= start]
        if len(points) > 1 and any(value for _, value in points):
            lines.append(line.model_copy(update={"points": tuple(points)}))
    if not lines:
        return None
    shown = plot.model_copy(update={"lines": tuple(lines[:_MOST_LINES])})
    points = list(chain.from_iterable(line.points for line in shown.lines))
    times = [at for at, _ in (*points, *plot.marks)]
    length = max(max(times) - min(times), timedelta(minutes=1))
    top = max(1, plot.threshold or 0, *(value for _, value in points))
    return Chart(shown, min(times), length, top)
