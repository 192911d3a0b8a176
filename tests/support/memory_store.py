"""An object store in memory, with the behaviour that the contract suite holds real ones to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from fulfillment.clients.object_store import ObjectStore, Rights
from objectmove.bucket import Answer, Request, S3Bucket, Seen
from objectmove.errors import StoreError
from runbook_lib.errors import BadAnswerError, ClientError

_META = "x-amz-meta-"


@dataclass(frozen=True, slots=True)
class Stored:
    info: Seen
    content: bytes


@dataclass
class MemoryBucket:
    """A bucket that honours every condition and refuses what has expired; it cannot rename.

    ``fail`` is called before each request, and may raise; ``fate`` before each change: an answer
    stands instead of what the store would do. ``writes`` are the puts and deletes, in order.
    """

    clock: Callable[[], datetime]
    fail: Callable[[str, str], None] = lambda _method, _key: None
    fate: Callable[[Request], Answer | None] = lambda _request: None
    endpoint: str = "memory:0"
    bucket: str = "fulfillment-artifacts"
    objects: dict[str, Stored] = field(default_factory=dict)
    writes: list[tuple[str, str]] = field(default_factory=list)

    def list_objects(self, prefix: str, *, start: str = "", **_: Any) -> Iterator[Seen]:
        self._fail("list", prefix)
        for key in sorted(self.objects):
            if key >= start and key.startswith(prefix) and not key.endswith("/"):
                yield self.objects[key].info

    def look(
        self, keys: Sequence[str], *, failed: dict[str, StoreError] | None = None
    ) -> dict[str, Seen | None]:
        found: dict[str, Seen | None] = {}
        for key in keys:
            try:
                self._fail("head", key)
            except StoreError as error:
                if failed is not None:
                    failed[key] = error
            else:
                there = self.objects.get(key)
                found[key] = None if there is None else there.info
        return found

    def read_object(self, key: str) -> tuple[bytes, Seen, datetime] | None:
        self._fail("get", key)
        there = self.objects.get(key)
        return None if there is None else (there.content, there.info, self.clock())

    def read_hash(self, key: str, algorithm: str) -> str:
        return hashlib.new(algorithm, self.objects[key].content).hexdigest()

    def read_clock(self) -> datetime:
        return self.clock().replace(microsecond=0)

    def fetch(self, _request: Request, what: str, *_: object) -> Any:
        """Tell nothing of writes, and of versions."""
        raise StoreError(f"{what}: NotImplemented", code="NotImplemented")

    def send(
        self,
        requests: Sequence[Request],
        *,
        signed_at: datetime,
        expires_s: int,
        on_answer: Callable[[int, Answer], Answer] = lambda _index, answer: answer,
    ) -> list[Answer]:
        """Do what the store would, one request after the other."""
        answers = []
        is_late = self.clock() > signed_at + timedelta(seconds=expires_s)
        for index, request in enumerate(requests):
            answer = self._refuse(request) if is_late else self.fate(request)
            answers.append(on_answer(index, answer or self._do(request)))
        return answers

    def _fail(self, method: str, key: str) -> None:
        try:
            self.fail(method, key)
        except ClientError as error:
            raise StoreError(error.message, code="NotSent") from error

    def _refuse(self, request: Request) -> Answer:
        if request.kind == "delete_many":
            return Answer("done", failed=dict.fromkeys(request.keys, "AccessDenied"))
        return Answer("none", code="AccessDenied", message="Request has expired")

    def _do(self, request: Request) -> Answer:  # noqa: PLR0911  # one way out a fate
        try:
            self.fail(request.kind, request.key)
        except ClientError as error:
            return Answer("none", code="NotSent", message=error.message)
        if request.kind == "rename":
            return Answer("unknown", code="NotImplemented")
        is_copy = request.kind == "copy"
        about = self.objects.get(request.source if is_copy else request.key)
        if is_copy and about is None:
            return Answer("unknown", code="NoSuchKey")
        is_other = about is None or request.if_match != about.info.etag
        is_taken = request.if_absent and request.key in self.objects
        if is_taken or (request.if_match and is_other):
            return Answer("unknown", code="PreconditionFailed")
        if request.kind == "put":
            return self._put(request.key, request.body, request.headers)
        if about is not None and is_copy:
            return self._copy(request.key, about)
        for key in request.keys or (request.key,):
            self.objects.pop(key, None)
            self.writes.append(("delete", key))
        return Answer("done")

    def _copy(self, key: str, source: Stored) -> Answer:
        copied = replace(source.info, key=key, last_modified=self.clock())
        self.objects[key] = replace(source, info=copied)
        return Answer("done", etag=copied.etag)

    def _put(self, key: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        metadata = {n[len(_META) :]: v for n, v in headers.items() if n.startswith(_META)}
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        shown = {"content-type": headers.get("content-type", "")}
        at = self.clock()
        info = Seen(key, etag, len(content), at, metadata, shown)
        self.objects[key] = Stored(info, content)
        self.writes.append(("put", key))
        return Answer("done", etag=etag, date=at.isoformat())


class MemoryStore(ObjectStore):
    """The library's store over a bucket in memory, without what only a server answers."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.memory = MemoryBucket(clock)
        super().__init__(cast(S3Bucket, self.memory))
        self.objects = self.memory.objects
        self.unwell = ""
        self.full = False

    def list_objects(self, prefix: str) -> Iterator[Seen]:
        self.memory.fail("list", prefix)
        for seen in self.memory.list_objects(prefix):
            yield replace(seen, metadata=None, headers={})

    def read_info(self, key: str) -> Seen:
        info = super().read_info(key)
        return replace(info, last_modified=info.last_modified.replace(microsecond=0))

    def check_live(self) -> str:
        if self.unwell:
            raise BadAnswerError(self.unwell, system="object store")
        return self.endpoint

    def read_clock(self) -> datetime:
        return self.memory.read_clock()

    def read_free_bytes(self) -> int | None:
        return None

    def is_full(self, prefix: str) -> bool | None:
        self.memory.fail("put", prefix)
        return self.full

    def read_rights(self, prefix: str, *, write_under: Sequence[str] = ()) -> Rights:  # noqa: ARG002
        """Allow everything."""
        changes = (f"{verb} {under}" for under in write_under for verb in ("write", "delete"))
        return dict.fromkeys(("list", "read", *changes), (True, ""))
