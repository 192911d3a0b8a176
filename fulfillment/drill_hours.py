"""DRILL_HOURS: the days and hours of the week in which a drill may begin."""

from __future__ import annotations

import re
from datetime import datetime, time
from typing import NamedTuple

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY = "|".join(_DAYS)
_FORM = re.compile(rf"({_DAY})(?:-({_DAY}))? (\d\d:\d\d)-(\d\d:\d\d)")
_EXAMPLE = "is days and hours of local time, such as 'Mon-Fri 09:00-17:00'; empty: any time"


class DrillHours(NamedTuple):
    """A span of days, and a span of hours on each day, in local time.

    Attributes
    ----------
    first_day, last_day : 0 is Monday; the span may go over the end of the week
    start, end : a drill may begin at ``start``, and no longer at ``end``
    """

    first_day: int
    last_day: int
    start: time
    end: time

    def holds(self, at: datetime) -> bool:
        """Tell whether a local time lies within these days and hours."""
        days = (self.last_day - self.first_day) % len(_DAYS)
        day = (at.weekday() - self.first_day) % len(_DAYS)
        return day <= days and self.start <= at.time() < self.end


def parse_drill_hours(text: str) -> DrillHours | None:
    """Return the days and hours of a text; None for an empty one: any time will do.

    Raises
    ------
    ValueError
        When it is not days and hours, or the hours end before they begin.
    """
    if not text.strip():
        return None
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(_EXAMPLE)
    first, last, start_text, end_text = match.groups()
    try:
        start = time.fromisoformat(start_text)
        end = time.fromisoformat(end_text)
    except ValueError:
        raise ValueError(_EXAMPLE) from None
    if end <= start:
        raise ValueError(f"{_EXAMPLE}. The hours end after they begin, on the same day")
    return DrillHours(_DAYS.index(first), _DAYS.index(last or first), start, end)


def check_drill_hours(text: str) -> str:
    """Return a text that ``parse_drill_hours`` takes; raises the same errors."""
    parse_drill_hours(text)
    return text.strip()
