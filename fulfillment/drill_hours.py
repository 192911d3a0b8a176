"""DRILL_HOURS: the days and hours of the week in which a drill may begin."""

from __future__ import annotations

import re
from datetime import datetime, time
from typing import NamedTuple

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY = "|".join(_DAYS)
_FORM = re.compile(rf"({_DAY})(?:-({_DAY}))? (\d\d:\d\d)-(\d\d:\d\d)")
_RULE = "is days and hours of local time, such as 'Mon-Fri 09:00-17:00'; empty: any time"


class DrillHours(NamedTuple):
    """A span of days, and a span of hours on each day, in local time.

    Attributes
    ----------
    first_day, last_day : 0 is Monday; the span may include the end of the week, such as Sat-Mon
    start, end : a drill may begin at ``start``, but not at ``end`` any more
    """

    first_day: int
    last_day: int
    start: time
    end: time

    def contains(self, at: datetime) -> bool:
        """Tell whether a local time lies within these days and hours."""
        last_offset = (self.last_day - self.first_day) % len(_DAYS)
        offset = (at.weekday() - self.first_day) % len(_DAYS)
        return offset <= last_offset and self.start <= at.time() < self.end


def parse_drill_hours(text: str) -> DrillHours | None:
    """Return the days and hours of a text; None for an empty one: any time will do.

    Raises
    ------
    ValueError
        When the text is not days and hours, or the hours end before they begin.
    """
    if not text.strip():
        return None
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(_RULE)
    first, last, start_text, end_text = match.groups()
    try:
        start = time.fromisoformat(start_text)
        end = time.fromisoformat(end_text)
    except ValueError:
        raise ValueError(_RULE) from None
    if end <= start:
        raise ValueError(f"{_RULE}. The hours must end after they begin, on the same day")
    return DrillHours(_DAYS.index(first), _DAYS.index(last or first), start, end)


def check_drill_hours(text: str) -> str:
    """Return the text without outer blanks; raise the errors of ``parse_drill_hours``."""
    parse_drill_hours(text)
    return text.strip()
