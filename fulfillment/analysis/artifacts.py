"""Tell by its metadata whether a waiting object is synthetic, and since when it waits. Pure.

Metadata names are lower-case, without ``x-amz-meta-``.
"""

from collections.abc import Mapping
from datetime import UTC, datetime


def is_synthetic(metadata: Mapping[str, str]) -> bool:
    """Tell whether the metadata proves that a chaos script made the object.

    The proof is ``chaos-scenario``, or ``drill-id`` with ``hold-until`` or ``expires-at``. A
    ``drill-id`` alone proves nothing, because a drill also injects real orders with real labels.
    """
    if has_value(metadata, "chaos-scenario"):
        return True
    has_end = has_value(metadata, "hold-until") or has_value(metadata, "expires-at")
    return has_end and has_value(metadata, "drill-id")


def compute_age_start(
    metadata: Mapping[str, str],
    last_modified: datetime,
    now: datetime,
) -> datetime:
    """Return since when it waits: LastModified, or an earlier, past ``pending-since``.

    A time without a zone is UTC.
    """
    written_at = _as_utc(last_modified)
    try:
        pending_since = _as_utc(datetime.fromisoformat(metadata.get("pending-since", "").strip()))
    except (ValueError, OverflowError):  # OverflowError: the time in UTC is not in a year of 1–9999
        return written_at
    return min(pending_since, written_at) if pending_since <= now else written_at


def compute_lag_minutes(since: datetime, now: datetime) -> float:
    """Return how long an object has waited; 0 if the store's clock is ahead."""
    age = now - since
    return max(0.0, age.total_seconds() / 60)


def has_value(metadata: Mapping[str, str], name: str) -> bool:
    """Tell whether a name has a value other than white space."""
    return bool(metadata.get(name, "").strip())


def _as_utc(time: datetime) -> datetime:
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    return time.astimezone(UTC)
