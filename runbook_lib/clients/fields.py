"""Read the small fields that answers have in common: durations, times, ids."""

from __future__ import annotations

import re
from datetime import datetime

from ..errors import UsageError
from ..model import Json, parse_time

__all__ = ["as_list", "check_id", "parse_duration", "parse_when"]

_UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def as_list(value: Json) -> list[Json]:
    """Return a list as it is; an empty object instead of one must not pass for "none found".

    Raises
    ------
    TypeError
        When it is no list.
    """
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} instead of a list")
    return value


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
