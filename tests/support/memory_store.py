"""An object store in memory, with the behaviour that the contract suite holds real ones to."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from runbook_lib.clients.object_store import LiveCheck, Permissions, Write, is_key_supported
from runbook_lib.clients.object_store_probe import probe_abilities
from runbook_lib.errors import (
    BadAnswerError,
    ClientError,
    NotFoundError,
    PreconditionFailedError,
)
from runbook_lib.model import ObjectInfo, StoreAbilities

__all__ = ["EndlessStore", "MemoryStore", "MemoryWatch", "Stored"]


def _never(method: str, key: str) -> None:
    """Let every request pass."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One object."""

    info: ObjectInfo
    content: bytes
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass
class MemoryWatch:
    """What was written under a prefix."""

    is_watching: bool
    writes: list[Write]
    prefix: str
    is_awaited: bool = False

    def wait_until_open(self) -> None:
        """Note that it was waited for; it is open at once."""
        self.is_awaited = True

    def flush(self) -> None:
        """Do nothing: every write is told at once."""


@dataclass
class MemoryStore:
    """A bucket in memory.

    Attributes
    ----------
    conditional_delete, conditional_put, metadata_in_listing : what it honours
    whole_seconds : LastModified without a fraction, as SeaweedFS has it
    clock : gives LastModified; by default a clock of its own, a millisecond per write
    tells_writes : it tells its writes, as MinIO does
    fail : called as ``fail(method, key)`` before each request on one key; raises to make it fail
    objects : what it holds
    writes : every key that was put, copied to or deleted, in order
    """

    conditional_delete: bool = True
    conditional_put: bool = True
    metadata_in_listing: bool = False
    whole_seconds: bool = False
    endpoint: str = "memory:0"
    bucket: str = "fulfillment-artifacts"
    clock: Callable[[], datetime] | None = None
    fail: Callable[[str, str], None] = field(default=_never)
    live: LiveCheck = field(default=LiveCheck(True, "live endpoint", "memory:0"))
    free_bytes: int | None = None
    tells_writes: bool = False
    objects: dict[str, Stored] = field(default_factory=dict)
    writes: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tick = datetime(2026, 11, 24, 3, 59, tzinfo=UTC)
        self._lock = threading.RLock()
        self.watches: list[MemoryWatch] = []

    def list_objects(
        self, prefix: str, *, start_after: str = "", with_metadata: bool = False
    ) -> Iterator[ObjectInfo]:
        """Yield the objects under a prefix, a page of a thousand at a time."""
        after = start_after
        while True:
            self.fail("list", prefix)
            with self._lock:
                keys = sorted(
                    (k for k in self.objects if k.startswith(prefix) and k[-1:] != "/"), key=_bytes
                )
                start = bisect_right(keys, _bytes(after), key=_bytes) if after else 0
                page = [self.objects[k].info for k in keys[start : start + 1000]]
            with_it = with_metadata and self.metadata_in_listing
            for info in page:
                yield info if with_it else replace(info, metadata=None, content_type="")
            if len(page) < 1000:
                return
            after = page[-1].key

    def read_info(self, key: str) -> ObjectInfo:
        """Return one object with its metadata."""
        info = self._get("head", key).info
        return replace(info, last_modified=info.last_modified.replace(microsecond=0))

    def read_infos(
        self,
        keys: Iterable[str],
        *,
        threads: int = 16,  # noqa: ARG002
    ) -> Iterator[tuple[str, ObjectInfo | ClientError]]:
        """Yield each object with its metadata, or why not."""
        for key in keys:
            try:
                yield key, self.read_info(key)
            except ClientError as error:
                yield key, error

    def read_bytes(self, key: str, *, max_bytes: int = 16 * 1024 * 1024) -> bytes:
        """Return an object's content."""
        content = self._get("get", key).content
        if len(content) > max_bytes:
            raise BadAnswerError(f"{key} is larger than {max_bytes} bytes", system="object store")
        return content

    def read_tags(self, key: str) -> dict[str, str]:
        """Return an object's tags."""
        return dict(self._get("tags", key).tags)

    def put_object(
        self,
        key: str,
        content: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str = "",
    ) -> ObjectInfo:
        """Write an object."""
        _check_key(key)
        self.fail("put", key)
        with self._lock:
            old = self.objects.get(key)
            clash = (if_absent and old is not None) or (
                bool(if_match) and (old is None or old.info.etag != if_match)
            )
            if clash and self.conditional_put:
                raise PreconditionFailedError(f"write {key}", system="object store")
            self._store(key, content, dict(metadata or {}), content_type, {})
            self.writes.append(("put", key))
        return self.read_info(key)

    def copy_object(
        self, source: ObjectInfo, key: str, *, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Copy one object, guarded by ETag and LastModified."""
        with self._lock:
            if self._get("copy", source.key).info.etag != source.etag:
                raise PreconditionFailedError(f"copy {source.key}", system="object store")
            self._copy(source.key, key, source.last_modified, metadata)
        return self.read_info(key)

    def copy_objects(
        self,
        pairs: Sequence[tuple[ObjectInfo, str]],
        *,
        threads: int = 16,  # noqa: ARG002
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, ClientError | None]]:
        """Copy many, guarded by the newest LastModified."""
        newest = max((source.last_modified for source, _ in pairs), default=None)
        for i, (source, key) in enumerate(pairs):
            assert newest is not None
            if is_stopped():
                return
            try:
                self._copy(source.key, key, newest, None)
            except ClientError as error:
                yield i, error
            else:
                yield i, None

    def delete_object(self, info: ObjectInfo, *, guarded: bool = True) -> None:
        """Delete one object."""
        for _, error in self.delete_objects([info], guarded=guarded):
            raise error

    def delete_objects(
        self, infos: Sequence[ObjectInfo], *, guarded: bool
    ) -> list[tuple[str, ClientError]]:
        """Delete in bulk."""
        failed: list[tuple[str, ClientError]] = []
        for info in infos:
            try:
                self.fail("delete", info.key)
            except ClientError as error:
                failed.append((info.key, error))
                continue
            with self._lock:
                old = self.objects.get(info.key)
                if old is None:
                    continue
                if guarded and self.conditional_delete and old.info.etag != info.etag:
                    why = PreconditionFailedError(f"delete {info.key}", system="object store")
                    failed.append((info.key, why))
                    continue
                del self.objects[info.key]
                self.writes.append(("delete", info.key))
        return failed

    @contextmanager
    def watch_writes(self, prefix: str) -> Iterator[MemoryWatch]:
        """Collect the writes under a prefix, when ``tells_writes``."""
        watch = MemoryWatch(self.tells_writes, [], prefix)
        self.watches.append(watch)
        yield watch
        self.watches.remove(watch)

    def check_live(self) -> LiveCheck:
        """Return what ``live`` says."""
        return self.live

    def read_clock_skew_s(self) -> float:
        """Return 0: it has our clock."""
        return 0.0

    def read_free_bytes(self) -> int | None:
        """Return what ``free_bytes`` says."""
        return self.free_bytes

    def list_buckets(self) -> list[str]:
        """Return its one bucket."""
        return [self.bucket]

    def read_permissions(self, prefix: str) -> Permissions:  # noqa: ARG002
        """Allow everything."""
        return Permissions(list=True, read=True, write=True, delete=None, reasons={})

    def probe_abilities(self, prefix: str) -> StoreAbilities:
        """Probe as on any other store."""
        return probe_abilities(self, prefix, server="memory")

    def change(self, key: str, **fields: object) -> None:
        """Change what the store says of an object, such as its ETag."""
        old = self.objects[key]
        self.objects[key] = replace(old, info=replace(old.info, **fields))  # type: ignore[arg-type]

    def advance(self, seconds: float) -> None:
        """Let its own clock go on."""
        self._tick += timedelta(seconds=seconds)

    def set_tags(self, key: str, tags: Mapping[str, str]) -> None:
        """Tag an object."""
        self.objects[key] = replace(self.objects[key], tags=dict(tags))

    def _get(self, method: str, key: str) -> Stored:
        _check_key(key)
        self.fail(method, key)
        with self._lock:
            if key not in self.objects:
                raise NotFoundError(f"{method} {key}", system="object store")
            return self.objects[key]

    def _copy(
        self,
        source: str,
        key: str,
        unmodified_since: datetime,
        metadata: Mapping[str, str] | None,
    ) -> None:
        _check_key(key)
        with self._lock:
            old = self._get("copy", source)
            # Servers compare whole seconds.
            if old.info.last_modified.replace(microsecond=0) > unmodified_since:
                raise PreconditionFailedError(f"copy {source}", system="object store")
            kept = dict(old.info.metadata or {}) if metadata is None else dict(metadata)
            self._store(key, old.content, kept, old.info.content_type, old.tags)
            self.writes.append(("copy", key))

    def _store(
        self,
        key: str,
        content: bytes,
        metadata: dict[str, str],
        content_type: str,
        tags: Mapping[str, str],
    ) -> None:
        if self.clock is None:
            self._tick += timedelta(milliseconds=1)
            at = self._tick
        else:
            at = self.clock()
        at = at.replace(microsecond=0 if self.whole_seconds else at.microsecond // 1000 * 1000)
        info = ObjectInfo(
            key=key,
            etag=hashlib.md5(content, usedforsecurity=False).hexdigest(),
            size_bytes=len(content),
            last_modified=at,
            metadata={name.lower(): value for name, value in metadata.items()},
            content_type=content_type,
        )
        self.objects[key] = Stored(info, content, dict(tags))
        for watch in self.watches:
            if watch.is_watching and key.startswith(watch.prefix):
                watch.writes.append(Write(key, info.etag, info.last_modified))


def _check_key(key: str) -> None:
    if not is_key_supported(key) and any(part in (".", "..") for part in key.split("/")):
        raise BadAnswerError(f"{key!r} cannot be named", system="object store")


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


class EndlessStore(MemoryStore):
    """A bucket whose listing of ``pending/`` is generated: as many labels as one likes."""

    def __init__(self, count: int) -> None:
        super().__init__(metadata_in_listing=True)
        self.count = count

    def list_objects(
        self, prefix: str, *, start_after: str = "", with_metadata: bool = False
    ) -> Iterator[ObjectInfo]:
        """Yield labels that nobody stored; what lies elsewhere as ever."""
        if prefix != "pending/":
            yield from super().list_objects(
                prefix, start_after=start_after, with_metadata=with_metadata
            )
            return
        metadata = {"order-id": "1", "tracking-number": "T"} if with_metadata else None
        written_at = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
        for n in range(self.count):
            yield ObjectInfo(f"pending/{n:08d}.pdf", "0" * 32, 1000, written_at, metadata)
