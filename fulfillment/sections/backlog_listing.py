"""What waits in the bucket, by a listing of our own: no metric is believed here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from runbook_lib.model import Json
from runbook_lib.show.text import count_of

from ..analysis.labels import Label, read_label
from ..change.synthetic import iter_with_metadata, list_prefixes
from ..investigation import Investigation

#: Where a listing looks, as the source of a step.
LISTING = "listing of $fulfillment_bucket/{$pending_prefix,$chaos_prefix} at $minio_endpoint"

_SETTLE_S = 4
_JUST_WRITTEN = timedelta(seconds=10)


class Waiting:
    """Everything that waits, what waits longest first.

    Attributes
    ----------
    real, synthetic : the objects of each origin
    overdue, overdue_synthetic : the real ones that wait longer than LAG_THRESHOLD_MINUTES, and how
        many synthetic ones do
    since : since when the oldest of these waits
    longest_minutes : how long the oldest real one waits; 0 when none does
    """

    def __init__(self, objects: Iterable[Label], limit_minutes: float) -> None:
        self.objects = sorted(objects, key=lambda o: o.start.at)
        self.limit_minutes = limit_minutes
        self.real = [o for o in self.objects if o.origin == "real"]
        self.synthetic = [o for o in self.objects if o.origin == "synthetic"]
        self.overdue = [o for o in self.real if o.minutes > limit_minutes]
        self.overdue_synthetic = sum(o.minutes > limit_minutes for o in self.synthetic)
        self.since = self.overdue[0].start.at if self.overdue else None
        self.longest_minutes = self.real[0].minutes if self.real else 0.0

    @property
    def observations(self) -> dict[str, Json]:
        """The counts by their names for the hypotheses."""
        told = [o.is_complete for o in self.real]
        return {
            "waiting_real": len(self.real),
            "waiting_finished": None if None in told else told.count(True),
            "waiting_incomplete": None if None in told else told.count(False),
            "overdue_real": len(self.overdue),
            "overdue_synthetic": self.overdue_synthetic,
            "future_pending_since": sum(
                o.start.ignored_reason == "in_the_future" for o in self.objects
            ),
        }

    def describe(self) -> str:
        """Say in words what waits and for how long."""
        text = f"{say_waiting(len(self.real), 'real object')}, "
        text += f"{len(self.overdue)} of them over {self.limit_minutes:g} min"
        if self.real:
            text += f" (longest {self.longest_minutes:.1f} min)"
        if self.synthetic:
            late = f"{self.overdue_synthetic} over the threshold (a drill)"
            text += f"; {len(self.synthetic)} synthetic ones wait too, {late}"
        return text

    def rows(self, limit: int) -> list[dict[str, Json]]:
        """Return a table of the objects that wait longest."""
        return [
            {
                "key": o.info.key,
                "waits_minutes": round(o.minutes, 1),
                "size_bytes": o.info.size_bytes,
                "origin": o.origin,
                "finished": o.is_complete,
                "order": o.order_id,
                "last_modified": o.info.last_modified,
            }
            for o in self.objects[:limit]
        ]


def say_waiting(number: int, noun: str) -> str:
    """Say that so many wait, such as ``1 object waits``."""
    return f"{count_of(number, noun)} wait{'s' * (number == 1)}"


def read_waiting(inv: Investigation, prefixes: Iterable[str] = ()) -> Waiting:
    """List what waits under some prefixes (default: where objects wait), with its metadata.

    A late hand-over is old when it arrives and leaves within seconds: an object over the lag
    threshold that was written less than 10 s ago counts only if it is still there 4 s later.

    Raises
    ------
    ClientError
        When the store cannot be listed.

    Notes
    -----
    Only reads.
    """
    store, now = inv.clients.store, inv.now()
    objects = [
        read_label(info, inv.settings, now)
        for prefix in prefixes or list_prefixes(inv.settings)
        for info in iter_with_metadata(store, prefix)
        if not info.key.endswith("/")
    ]
    limit = inv.settings.lag_threshold_minutes
    doubtful = {
        o.info.key
        for o in Waiting(objects, limit).overdue
        if now - o.info.last_modified < _JUST_WRITTEN
    }
    gone: set[str] = set()
    for _ in range(_SETTLE_S):
        if doubtful > gone:
            inv.sleep(1.0)
            found = store.look(sorted(doubtful - gone))
            gone |= {key for key, seen in found.items() if seen is None}
    return Waiting((o for o in objects if o.info.key not in gone), limit)
