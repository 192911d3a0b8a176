"""An object store in memory, with the behaviour that the contract suite holds real ones to."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from fulfillment.clients.object_store import Rights
from objectmove.bucket import Seen, is_key_supported
from runbook_lib.errors import BadAnswerError, ClientError, NotFoundError, PreconditionFailedError

__all__ = ["MemoryStore", "Stored"]


def _never(method: str, key: str) -> None:
    """Let every request pass."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One object."""

    info: Seen
    content: bytes


@dataclass
class MemoryStore:
    """A bucket in memory.

    Attributes
    ----------
    clock : gives LastModified; by default a clock of its own, a millisecond per write
    unwell : what it says when it is not well
    full : whether writes are refused for want of room
    knows_key : whether our key is right
    fail : called as ``fail(method, key)`` before each request on one key; raises to make it fail
    objects : what it holds
    writes : every key that was put or deleted, in order
    """

    endpoint: str = "memory:0"
    bucket: str = "fulfillment-artifacts"
    clock: Callable[[], datetime] | None = None
    fail: Callable[[str, str], None] = field(default=_never)
    unwell: str = ""
    full: bool = False
    knows_key: bool = True
    objects: dict[str, Stored] = field(default_factory=dict)
    writes: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tick = datetime(2026, 11, 24, 3, 59, tzinfo=UTC)

    def list_objects(self, prefix: str) -> Iterator[Seen]:
        """Yield the objects under a prefix, sorted by key."""
        self.fail("list", prefix)
        for key in sorted(k for k in self.objects if k.startswith(prefix) and k[-1:] != "/"):
            yield replace(self.objects[key].info, metadata=None, headers={})

    def read_info(self, key: str) -> Seen:
        """Return one object with its metadata."""
        info = self._get("head", key).info
        return replace(info, last_modified=info.last_modified.replace(microsecond=0))

    def read_infos(self, keys: Iterable[str]) -> dict[str, Seen | None]:
        """Return each object with its metadata, None where there is none."""
        found: dict[str, Seen | None] = {}
        for key in keys:
            try:
                found[key] = self.read_info(key)
            except NotFoundError:
                found[key] = None
            except ClientError:
                continue
        return found

    def read(self, key: str) -> bytes | None:
        """Return an object's content, None when there is none."""
        try:
            return self._get("get", key).content
        except NotFoundError:
            return None

    def put_object(
        self, key: str, content: bytes, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write an object."""
        if not is_key_supported(key):
            raise BadAnswerError(f"{key!r} cannot be named", system="object store")
        self.fail("put", key)
        self._tick += timedelta(milliseconds=1)
        at = self.clock() if self.clock else self._tick
        info = Seen(
            key=key,
            etag=hashlib.md5(content, usedforsecurity=False).hexdigest(),
            size_bytes=len(content),
            last_modified=at.replace(microsecond=at.microsecond // 1000 * 1000),
            metadata={name.lower(): value for name, value in (metadata or {}).items()},
            headers={"content-type": mimetypes.guess_type(key)[0] or "application/octet-stream"},
        )
        self.objects[key] = Stored(info, content)
        self.writes.append(("put", key))

    def delete_object(self, info: Seen) -> None:
        """Delete an object that still has its ETag."""
        self.fail("delete", info.key)
        stored = self.objects.get(info.key)
        if stored is None or stored.info.etag != info.etag:
            raise PreconditionFailedError(f"delete {info.key}", system="object store")
        del self.objects[info.key]
        self.writes.append(("delete", info.key))

    def check_live(self) -> str:
        """Say that it is well, unless ``unwell`` says why not."""
        if self.unwell:
            raise BadAnswerError(self.unwell, system="object store")
        return "memory:0"

    def read_clock(self) -> datetime:
        """Return our time: it has our clock."""
        return datetime.now(UTC)

    def read_free_bytes(self) -> int | None:
        """Return None: it does not tell."""
        return None

    def is_full(self, prefix: str) -> bool | None:
        """Say what a copy under a prefix would meet: ``full``."""
        self.fail("put", prefix)
        return self.full

    def accepts_key(self) -> bool:
        """Say whether our key is right, unless the test says that it is not."""
        return self.knows_key

    def read_rights(self, prefix: str, *, write_under: Sequence[str] = ()) -> Rights:  # noqa: ARG002
        """Allow everything."""
        changes = (f"{verb} {under}" for under in write_under for verb in ("write", "delete"))
        return dict.fromkeys(("list", "read", *changes), (True, ""))

    def _get(self, method: str, key: str) -> Stored:
        self.fail(method, key)
        if key not in self.objects:
            raise NotFoundError(f"{method} {key}", system="object store")
        return self.objects[key]
