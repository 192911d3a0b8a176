"""What waits in the bucket, by a listing of our own: no metric is believed here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from objectmove.bucket import Seen
from runbook_lib.errors import NotFoundError
from runbook_lib.model import Json, format_time
from runbook_lib.show.text import count_of

from ..analysis.artifacts import compute_age_start, is_synthetic
from ..analysis.labels import is_finished, read_order_id
from ..change.synthetic import iter_with_metadata
from ..clients.object_store import ObjectStore
from ..investigation import Investigation
from ..settings import Settings

#: Where a listing looks, as the source of a step.
LISTING = "listing of $fulfillment_bucket/{$pending_prefix,$chaos_prefix} at $minio_endpoint"

Origin = Literal["real", "synthetic"]
_SETTLE_S = 4
_JUST_WRITTEN = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class WaitingObject:
    """One object that waits.

    Attributes
    ----------
    since : its age start
    is_complete : whether LABEL_FINISHED says that it may move; None when only shipments can say
    order_id : by ORDER_ID_FROM; empty when it cannot be told
    """

    info: Seen
    prefix: str
    since: datetime
    origin: Origin
    is_complete: bool | None
    has_future_since: bool
    order_id: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Everything that waits, at one time."""

    at: datetime
    objects: tuple[WaitingObject, ...]

    def of(self, origin: Origin) -> list[WaitingObject]:
        """Return the real or the synthetic ones."""
        return [o for o in self.objects if o.origin == origin]

    def minutes(self, item: WaitingObject) -> float:
        """Return how long an object waits, in minutes."""
        return max(0.0, (self.at - item.since).total_seconds() / 60)

    def oldest(self, origin: Origin) -> WaitingObject | None:
        """Return the one that waits longest."""
        return min(self.of(origin), key=lambda o: o.since, default=None)

    def lag_minutes(self, origin: Origin) -> float:
        """Return the longest wait in minutes; 0 when none waits."""
        oldest = self.oldest(origin)
        return self.minutes(oldest) if oldest else 0.0

    def overdue(self, origin: Origin, minutes: float) -> list[WaitingObject]:
        """Return those that wait longer than ``minutes``."""
        return [o for o in self.of(origin) if self.minutes(o) > minutes]

    def observations(self, threshold_minutes: float) -> dict[str, Json]:
        """Return the counts by their names for the hypotheses."""
        real = self.of("real")
        told = [o.is_complete for o in real]
        return {
            "waiting_real": len(real),
            "waiting_synthetic": len(self.objects) - len(real),
            "waiting_finished": None if None in told else told.count(True),
            "waiting_incomplete": None if None in told else told.count(False),
            "overdue_real": len(self.overdue("real", threshold_minutes)),
            "overdue_synthetic": len(self.overdue("synthetic", threshold_minutes)),
            "oldest_real_minutes": round(self.lag_minutes("real"), 2),
            "future_pending_since": sum(o.has_future_since for o in self.objects),
        }

    def describe(self, limit_minutes: float) -> str:
        """Say in words what waits and for how long."""
        real, synthetic = self.of("real"), self.of("synthetic")
        overdue = len(self.overdue("real", limit_minutes))
        text = (
            f"{say_waiting(len(real), 'real object')}, {overdue} of them over {limit_minutes:g} min"
        )
        if real:
            text += f" (longest {self.lag_minutes('real'):.1f} min)"
        if synthetic:
            late = f"{len(self.overdue('synthetic', limit_minutes))} over the threshold (a drill)"
            text += f"; {len(synthetic)} synthetic ones wait too, {late}"
        return text

    def rows(self, limit: int = 200) -> list[dict[str, Json]]:
        """Return a table of the objects that wait longest."""
        return [
            {
                "key": o.info.key,
                "waits_minutes": round(self.minutes(o), 1),
                "size_bytes": o.info.size_bytes,
                "origin": o.origin,
                "finished": o.is_complete,
                "order": o.order_id,
                "last_modified": format_time(o.info.last_modified),
            }
            for o in sorted(self.objects, key=lambda o: o.since)[:limit]
        ]


def say_waiting(number: int, noun: str) -> str:
    """Say that so many wait, such as ``1 object waits``."""
    return f"{count_of(number, noun)} wait{'s' * (number == 1)}"


def list_prefixes(inv: Investigation) -> list[str]:
    """Return the prefixes under which objects wait."""
    return list(dict.fromkeys([inv.settings.pending_prefix, inv.settings.chaos_prefix]))


def read_waiting(inv: Investigation, prefixes: Iterable[str] = ()) -> Waiting:
    """List what waits under some prefixes (default: ``list_prefixes``), with its metadata.

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
        _classify(info, prefix, now, inv.settings)
        for prefix in prefixes or list_prefixes(inv)
        for info in iter_with_metadata(store, prefix)
        if not info.key.endswith("/")
    ]
    limit = timedelta(minutes=inv.settings.lag_threshold_minutes)
    doubtful = {
        o.info.key
        for o in objects
        if o.origin == "real"
        and now - o.since > limit
        and now - o.info.last_modified < _JUST_WRITTEN
    }
    gone: set[str] = set()
    for _ in range(_SETTLE_S):
        if doubtful > gone:
            inv.sleep(1.0)
            gone |= _find_gone(store, sorted(doubtful - gone))
    objects = [o for o in objects if o.info.key not in gone]
    return Waiting(inv.now(), tuple(objects))


def _find_gone(store: ObjectStore, keys: Iterable[str]) -> set[str]:
    return {key for key, found in store.read_infos(keys) if isinstance(found, NotFoundError)}


def _classify(info: Seen, prefix: str, now: datetime, settings: Settings) -> WaitingObject:
    metadata = info.metadata or {}
    start = compute_age_start(metadata, info.last_modified, now)
    return WaitingObject(
        info=info,
        prefix=prefix,
        since=start.at,
        origin="synthetic" if is_synthetic(metadata) else "real",
        is_complete=is_finished(metadata, settings.label_finished),
        has_future_since=start.ignored_reason == "in_the_future",
        order_id=read_order_id(info.key, metadata, settings.order_id_from),
    )
