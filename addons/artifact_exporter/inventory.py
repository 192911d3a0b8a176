"""Turns listings and metadata into the numbers of one refresh."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from addons.artifact_exporter.ages import compute_lag_minutes, find_age_start, is_synthetic
from addons.artifact_exporter.store import ArtifactStore, ListedArtifact, StoreReadError

__all__ = ["ArtifactInventory", "Backlog", "Origin", "ReadyCount", "Snapshot"]

Origin = Literal["real", "synthetic"]
_ORIGINS: tuple[Origin, ...] = ("real", "synthetic")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Backlog:
    """How much lies under one prefix."""

    objects: int = 0
    size_bytes: int = 0

    def add(self, item: ListedArtifact) -> None:
        """Count one more object."""
        self.objects += 1
        self.size_bytes += item.size_bytes


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one complete refresh saw.

    Attributes
    ----------
    started_at
        When its first request was sent: anything that happened later may be missing from it.
    backlog
        By waiting prefix and origin.
    lag_minutes
        By origin, 0 when nothing waits.
    future_pending_since
        Waiting objects whose ``pending-since`` lies in the future and was ignored.
    unread_metadata
        Waiting objects whose metadata is not read yet; they count as real and are as old as
        their LastModified, so with any the lag may be higher than shown.
    """

    started_at: datetime
    backlog: Mapping[tuple[str, Origin], Backlog]
    lag_minutes: Mapping[Origin, float]
    future_pending_since: int
    unread_metadata: int


@dataclass(frozen=True, slots=True)
class _Facts:
    """The part of an object's metadata that the exporter keeps."""

    synthetic: bool
    metadata: Mapping[str, str]


_UNREAD = _Facts(synthetic=False, metadata={})


@dataclass(frozen=True, slots=True)
class ReadyCount:
    """What lay under the ready prefix when it was last counted, which began ``started_at``."""

    started_at: datetime
    prefix: str
    backlog: Backlog


class ArtifactInventory:
    """Reads the waiting objects and counts the ready ones; remembers metadata between refreshes.

    Parameters
    ----------
    store
        Where to read.
    waiting_prefixes, ready_prefix
        Objects count under the longest prefix that they match, so nested prefixes are counted
        once.
    clock
        Gives the time, UTC.
    metadata_reads, threads
        At most so many objects' metadata per refresh, so many at once; the rest is read by
        the next refreshes.
    """

    def __init__(
        self,
        store: ArtifactStore,
        *,
        waiting_prefixes: Iterable[str],
        ready_prefix: str,
        clock: Callable[[], datetime],
        metadata_reads: int = 500,
        threads: int = 8,
    ) -> None:
        self._store = store
        self._waiting_prefixes = tuple(dict.fromkeys(waiting_prefixes))
        self._ready_prefix = ready_prefix
        self._clock = clock
        self._metadata_reads = metadata_reads
        self._threads = threads
        self._facts: dict[ListedArtifact, _Facts] = {}
        self._refused: set[ListedArtifact] = set()

    def read_snapshot(self) -> Snapshot:
        """List what waits anew and read the metadata of objects not seen before. Only reads.

        Raises
        ------
        StoreReadError
            When a listing, or the store while metadata is read, fails: no part of the numbers
            is given out then.
        """
        started_at = self._clock()
        waiting: list[tuple[str, ListedArtifact]] = []
        for prefix in self._waiting_prefixes:
            waiting.extend((prefix, item) for item in self._list_artifacts(prefix))
        gone = self._read_new_metadata([item for _, item in waiting])
        now = self._clock()

        backlog: dict[tuple[str, Origin], Backlog] = {}
        for prefix in self._waiting_prefixes:
            backlog[prefix, "real"] = Backlog()
            backlog[prefix, "synthetic"] = Backlog()
        starts: dict[Origin, list[datetime]] = {origin: [] for origin in _ORIGINS}
        unread = 0
        in_the_future = 0
        for prefix, item in waiting:
            if item in gone:
                continue
            if item not in self._facts:
                unread += 1
            facts = self._facts.get(item, _UNREAD)
            origin: Origin = "synthetic" if facts.synthetic else "real"
            backlog[prefix, origin].add(item)
            start = find_age_start(facts.metadata, item.last_modified, now)
            starts[origin].append(start.at)
            if start.is_future_ignored:
                in_the_future += 1
        return Snapshot(
            started_at=started_at,
            backlog=backlog,
            lag_minutes={origin: compute_lag_minutes(starts[origin], now) for origin in _ORIGINS},
            future_pending_since=in_the_future,
            unread_metadata=unread,
        )

    def count_ready(self) -> ReadyCount:
        """Count the ready objects; may take long, since they become ever more. Only reads.

        Synthetic objects can never reach the ready prefix, so no metadata is read there.

        Raises
        ------
        StoreReadError
            When the listing fails.
        """
        started_at = self._clock()
        ready = Backlog()
        for item in self._list_artifacts(self._ready_prefix):
            ready.add(item)
        return ReadyCount(started_at, self._ready_prefix, ready)

    def _list_artifacts(self, prefix: str) -> Iterator[ListedArtifact]:
        """List a prefix's own objects: each belongs to the longest prefix that it matches."""
        prefixes = {*self._waiting_prefixes, self._ready_prefix}
        longer = tuple(other for other in prefixes if len(other) > len(prefix))
        for item in self._store.list_artifacts(prefix):
            if not item.key.startswith(longer):
                yield item

    def _read_new_metadata(self, waiting: list[ListedArtifact]) -> set[ListedArtifact]:
        """Read metadata of some objects that are new; return those that are gone meanwhile."""
        present = set(waiting)
        self._facts = {item: facts for item, facts in self._facts.items() if item in present}
        self._refused &= present
        # Refused ones come last, or the first 500 of them would keep all others unread.
        new = sorted(
            (item for item in waiting if item not in self._facts),
            key=lambda item: (item in self._refused, item.last_modified),
        )[: self._metadata_reads]
        gone = set()
        refusals: list[StoreReadError] = []
        with ThreadPoolExecutor(self._threads) as pool:
            for item, facts in zip(new, pool.map(self._read_facts, new), strict=True):
                if isinstance(facts, _Facts):
                    self._facts[item] = facts
                    self._refused.discard(item)
                elif facts is None:
                    gone.add(item)
                else:
                    self._refused.add(item)
                    refusals.append(facts)
        if refusals:
            _log.warning("metadata of %d objects not read, first: %s", len(refusals), refusals[0])
        return gone

    def _read_facts(self, item: ListedArtifact) -> _Facts | StoreReadError | None:
        try:
            metadata = self._store.read_metadata(item.key)
        except StoreReadError as error:
            if error.reason == "store_unreachable":
                raise
            # Shown as unread: one object that may not be read must not blind the rest.
            return error
        if metadata is None:
            return None
        kept = {name: metadata[name] for name in ("pending-since",) if name in metadata}
        return _Facts(synthetic=is_synthetic(metadata), metadata=kept)
