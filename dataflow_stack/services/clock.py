"""A service's clock, which can be off as a real machine's clock can be."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

__all__ = ["Clock", "format_naive", "format_offset", "format_z", "parse_time"]


@dataclass(frozen=True, slots=True)
class Clock:
    """Tell the time, shifted by the service's offset.

    Parameters
    ----------
    offset_s
        Seconds that this service's clock is ahead (negative: behind).
    """

    offset_s: float = 0.0

    def time(self) -> float:
        """Return the seconds since the epoch."""
        return time.time() + self.offset_s

    def now(self) -> datetime:
        """Return the time with its zone, UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    def http_date(self) -> str:
        """Return the value of a ``Date`` header."""
        return format_datetime(self.now().replace(microsecond=0), usegmt=True)


def format_z(at: datetime) -> str:
    """Write a time as ``2026-11-24T03:14:00.123456Z``."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def format_offset(at: datetime) -> str:
    """Write a time as ``2026-11-24T03:14:00.123456+00:00``."""
    return at.astimezone(UTC).isoformat()


def format_naive(at: datetime) -> str:
    """Write a time without its zone, as DataFlow's databases hand it out; UTC is meant."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat()


def parse_time(text: str) -> datetime:
    """Read any of the three forms; without a zone, UTC is meant.

    Raises
    ------
    ValueError
        When the text is not ISO 8601.
    """
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
