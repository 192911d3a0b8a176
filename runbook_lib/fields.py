"""The small fields that answers have in common: durations, times, labels, ids.

Shapes of answers are dataclasses whose fields say how they are read; see ``HttpClient.get``.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel

from .errors import UsageError
from .model import parse_time

#: Of shapes whose names are written likeThis.
CAMEL = ConfigDict(alias_generator=to_camel, coerce_numbers_to_str=True)
_UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def parse_duration(text: str) -> float:
    """Parse a duration as Prometheus and Go write it (``1m30s``, ``500ms``, ``5m``).

    Returns
    -------
    Seconds.

    Raises
    ------
    ValueError
        When the text is not a duration.
    """
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|[smhdwy]))+|0", text):
        raise ValueError(f"{text!r} is not a duration")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdwy])", text)
    return float(sum(float(number) * _UNIT_S[unit] for number, unit in parts))


def parse_when(text: str | None) -> datetime | None:
    """Parse a time; None for no text and for Go's zero time, both of which mean never.

    Raises
    ------
    ValueError
        When the text is not a time.
    """
    return None if not text or text.startswith("0001-01-01") else parse_time(text)


def check_id(text: str, what: str) -> str:
    """Return an id that may stand in a path.

    Raises
    ------
    UsageError
        When it has anything but letters, digits and dashes.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", text):
        raise UsageError(f"{text[:80]!r} is not {what}: letters, digits and dashes only")
    return text


At = Annotated[datetime, BeforeValidator(parse_time)]
When = Annotated[datetime | None, BeforeValidator(parse_when)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
# null is nothing; an empty list instead of labels is another shape.
Labels = Annotated[dict[str, str], BeforeValidator(lambda value: {} if value is None else value)]
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
