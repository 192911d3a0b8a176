"""Since when an object waits, and whether a chaos script made it, by its metadata.

These are the rules of ``fulfillment.analysis.artifacts``. The exporter has its own few lines, so
that it runs beside a DataFlow without the runbook; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

__all__ = ["AgeStart", "compute_lag_minutes", "find_age_start", "is_synthetic"]


class AgeStart(NamedTuple):
    """Since when an object waits, and whether its ``pending-since`` lies in the future."""

    at: datetime
    is_future_ignored: bool = False


def is_synthetic(metadata: Mapping[str, str]) -> bool:
    """Tell whether the metadata proves that a chaos script made the object.

    The proof is ``chaos-scenario``, or ``drill-id`` together with ``hold-until`` or
    ``expires-at``.
    """
    if _has_value(metadata, "chaos-scenario"):
        return True
    has_end = _has_value(metadata, "hold-until") or _has_value(metadata, "expires-at")
    return has_end and _has_value(metadata, "drill-id")


def find_age_start(metadata: Mapping[str, str], last_modified: datetime, now: datetime) -> AgeStart:
    """Return the earlier of ``pending-since`` and LastModified.

    A ``pending-since`` in the future, or unreadable, is ignored.
    """
    text = metadata.get("pending-since", "").strip()
    try:
        pending_since = _as_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return AgeStart(last_modified)
    if pending_since > now:
        return AgeStart(last_modified, is_future_ignored=True)
    return AgeStart(min(pending_since, last_modified))


def compute_lag_minutes(starts: Iterable[datetime], now: datetime) -> float:
    """Return the minutes since the oldest start; 0 when nothing waits, and never negative."""
    oldest = min(starts, default=now)
    return max(0.0, (now - oldest).total_seconds() / 60)


def _has_value(metadata: Mapping[str, str], name: str) -> bool:
    return bool(metadata.get(name, "").strip())


def _as_utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
