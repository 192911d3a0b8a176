"""A chart of what waited over time, which the templates' macro ``draw`` puts on the page."""

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
    """A line from ``begin`` to ``end``, up to ``top``; ``annotations`` are times by their words."""

    title: str
    points: Mapping[datetime, float]
    annotations: Mapping[str, datetime]
    begin: datetime
    end: datetime
    top: float

    def find_x(self, at: datetime) -> float:
        share = (at - self.begin) / (self.end - self.begin)
        return round(LEFT + (RIGHT - LEFT) * share, 1)

    def find_y(self, value: float) -> float:
        share = max(value, 0) / self.top
        return round(BOTTOM - (BOTTOM - TOP) * share, 1)


def draw_chart(
    title: str, readings: Iterable[Reading], annotations: Mapping[str, datetime], *, start: datetime
) -> Chart | None:
    """Draw the sum of the readings' plotted lines, or their values if the lines are all 0.

    None if there are no two points since ``start``, or all are 0.
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
    times = [*points, *annotations.values()]
    begin = min(times)
    end = max(*times, begin + timedelta(minutes=1))
    return Chart(title, points, annotations, begin, end, max(1.0, *points.values()))
