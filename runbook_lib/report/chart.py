"""Values over time as a chart, which the macro ``draw`` of the templates puts on the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from math import isfinite
from typing import NamedTuple

from ..model import Line, Plot, Reading

#: Where the axes begin and end, on a canvas of 480 by 190.
LEFT = 40
RIGHT = 470
TOP = 54
BOTTOM = 166
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
        share = (at - self.begin) / self.length
        return round(LEFT + (RIGHT - LEFT) * share, 1)

    def lift(self, value: float) -> float:
        """Return the height of a value."""
        share = max(value, 0) / self.top
        return round(BOTTOM - (BOTTOM - TOP) * share, 1)


def gather_lines(readings: Iterable[Reading]) -> Iterator[Line]:
    """Yield the lines of a step's plots over all looks; without any, what the step counted."""
    listed: dict[datetime, float] = {}
    points: dict[str, dict[datetime, float]] = {}
    for reading in readings:
        if isinstance(reading.value, int | float):
            listed[reading.observed_at] = reading.value
        if reading.plot is None:
            continue
        for line in reading.plot.lines:
            own = points.setdefault(line.name, {})
            own.update(line.points)
    points = points or {"by listing": listed}
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
    times = [at for at, _ in plot.marks]
    top = max(1, plot.threshold or 0)
    for line in plot.lines[:_MOST_LINES]:
        points = [
            (at, value)
            for at, value in line.points
            if isfinite(value) and (start is None or at >= start)
        ]
        highest = max((value for _, value in points), default=0)
        if len(points) < 2 or not highest:
            continue
        lines.append(Line(name=line.name, points=tuple(points)))
        times += [at for at, _ in points]
        top = max(top, highest)
    if not lines:
        return None
    begin = min(times)
    length = max(times) - begin
    return Chart(
        plot=plot.model_copy(update={"lines": tuple(lines)}),
        begin=begin,
        length=max(length, timedelta(minutes=1)),
        top=top,
    )
