"""A chart of what waited over time, which the templates' macro ``draw`` puts on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from math import isfinite
from typing import NamedTuple

from ..model import Reading

#: Where the axes begin and end on a canvas of 480 by 190.
LEFT = 40
RIGHT = 470
TOP = 84
BOTTOM = 166


class Chart(NamedTuple):
    """A line from ``begin`` to ``end``, up to ``top``; ``marks`` are annotated times."""

    title: str
    points: Mapping[datetime, float]
    marks: Mapping[str, datetime]
    begin: datetime
    end: datetime
    top: float

    def find_x(self, at: datetime) -> float:
        """Return the x of a time."""
        share = (at - self.begin) / (self.end - self.begin)
        return round(LEFT + (RIGHT - LEFT) * share, 1)

    def find_y(self, value: float) -> float:
        """Return the y of a value."""
        share = max(value, 0) / self.top
        return round(BOTTOM - (BOTTOM - TOP) * share, 1)


def draw_chart(
    title: str, readings: Iterable[Reading], marks: Mapping[str, datetime], *, start: datetime
) -> Chart | None:
    """Draw the sum of the readings' plotted lines, or their values if the lines are all 0.

    None if there are no two points since ``start``, or all are 0. The time axis is at least a
    minute long.
    """
    plotted: dict[datetime, float] = {}
    counted: dict[datetime, float] = {}
    for reading in readings:
        if isinstance(reading.value, int | float):
            counted[reading.observed_at] = reading.value
        sums: dict[datetime, float] = {}
        for line in reading.plot.lines if reading.plot else ():
            for at, value in line.points:
                if isfinite(value):
                    sums[at] = sums.get(at, 0) + value
        plotted |= sums
    found = plotted if any(plotted.values()) else counted
    points = {at: value for at, value in sorted(found.items()) if at >= start}
    if len(points) < 2 or not any(points.values()):
        return None
    times = [*points, *marks.values()]
    begin = min(times)
    end = max(*times, begin + timedelta(minutes=1))
    return Chart(title, points, marks, begin, end, max(1.0, *points.values()))
