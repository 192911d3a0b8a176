"""Values over time as a chart, which the macro ``draw`` of the templates puts on the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from math import isfinite
from typing import NamedTuple

from ..model import Line, Reading

#: Where the axes begin and end, on a canvas of 480 by 190.
LEFT = 40
RIGHT = 470
TOP = 54
BOTTOM = 166
_MOST_LINES = 5


class Chart(NamedTuple):
    """Lines with their axes: the times at the left and at the right, the highest value.

    ``marks`` are moments to annotate, by their words.
    """

    title: str
    lines: list[Line]
    marks: Mapping[str, datetime]
    begin: datetime
    end: datetime
    top: float

    def place(self, at: datetime) -> float:
        """Return where a time stands."""
        share = (at - self.begin) / (self.end - self.begin)
        return round(LEFT + (RIGHT - LEFT) * share, 1)

    def lift(self, value: float) -> float:
        """Return the height of a value."""
        share = max(value, 0) / self.top
        return round(BOTTOM - (BOTTOM - TOP) * share, 1)


def gather_lines(readings: Iterable[Reading], start: datetime) -> Iterator[Line]:
    """Yield the lines of a step's plots over all looks; without any, what the step counted.

    Left out are times before ``start``, and lines with one point, or which are always 0.
    """
    listed: dict[datetime, float] = {}
    points: dict[str, dict[datetime, float]] = {}
    for reading in readings:
        if isinstance(reading.value, int | float):
            listed[reading.observed_at] = reading.value
        for line in reading.plot.lines if reading.plot else ():
            own = points.setdefault(line.name, {})
            own.update(line.points)
    points = points or {"by listing": listed}
    for name, own in points.items():
        shown = [
            (at, value) for at, value in sorted(own.items()) if at >= start and isfinite(value)
        ]
        if len(shown) > 1 and any(value for _, value in shown):
            yield Line(name=name, points=tuple(shown))


def draw_chart(
    title: str, readings: Iterable[Reading], marks: Mapping[str, datetime], *, start: datetime
) -> Chart | None:
    """Draw what a step counted; None without a line. The time's axis is at least a minute long."""
    lines = list(gather_lines(readings, start))[:_MOST_LINES]
    if not lines:
        return None
    times = [*marks.values()]
    values = [1.0]
    for line in lines:
        times += [at for at, _ in line.points]
        values += [value for _, value in line.points]
    begin = min(times)
    end = max(*times, begin + timedelta(minutes=1))
    return Chart(title, lines, marks, begin, end, max(values))
