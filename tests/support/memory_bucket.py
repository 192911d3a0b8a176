"""The bucket of a ``MemoryStore`` as ``objectmove`` sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from objectmove.bucket import Answer, Request, Seen
from objectmove.errors import StoreError
from runbook_lib.errors import ClientError
from tests.support.memory_store import MemoryStore, Stored

__all__ = ["MemoryBucket"]

_META = "x-amz-meta-"


def _pass(_request: Request) -> Answer | None:
    """Let every request pass."""


@dataclass
class MemoryBucket:
    """A bucket in memory.

    Attributes
    ----------
    store : holds the objects
    is_strict : conditions on copies, puts and deletes are honoured
    is_fenced : expired requests are refused
    fate : called before each request; an answer stands instead of what the store would do
    sent : every request that came
    etag_of_copy : gives a copy another ETag, as of a multipart object
    """

    store: MemoryStore
    is_strict: bool = True
    is_fenced: bool = True
    endpoint: str = "memory:0"
    name: str = "fulfillment-artifacts"
    fate: Callable[[Request], Answer | None] = field(default=_pass)
    sent: list[Request] = field(default_factory=list)
    etag_of_copy: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tick = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)

    def list_objects(
        self,
        prefix: str,
        *,
        start: str = "",
        page_size: int = 0,  # noqa: ARG002
    ) -> Iterator[Seen]:
        self._fail("list", prefix)
        for key in sorted(self.store.objects):
            if key >= start and key.startswith(prefix) and not key.endswith("/"):
                yield self._see(key)

    def look(
        self,
        keys: Sequence[str],
        *,
        failed: dict[str, StoreError] | None = None,  # noqa: ARG002
    ) -> dict[str, Seen | None]:
        return {key: self._see(key) if key in self.store.objects else None for key in keys}

    def read_object(self, key: str) -> tuple[bytes, Seen, datetime] | None:
        self._fail("get", key)
        if key not in self.store.objects:
            return None
        return self.store.objects[key].content, self._see(key), self._now()

    def read(self, key: str) -> bytes | None:
        self._fail("get", key)
        return self.store.objects[key].content if key in self.store.objects else None

    def read_hash(self, key: str, algorithm: str) -> str:
        if (content := self.read(key)) is None:
            raise StoreError(f"read {key}: NoSuchKey", code="NoSuchKey")
        return hashlib.new(algorithm, content).hexdigest()

    def read_clock(self) -> datetime:
        return self._now().replace(microsecond=0)

    def fetch(
        self, _request: Request, what: str, _sink: Callable[[bytes], None] | None = None
    ) -> Any:
        """Tell nothing of writes."""
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
        is_late = self.is_fenced and self._now() > signed_at + timedelta(seconds=expires_s)
        for index, request in enumerate(requests):
            self.sent.append(request)
            answer = self.fate(request) if not is_late else self._refuse(request)
            answers.append(on_answer(index, answer or self._do(request)))
        return answers

    def apply(self, request: Request) -> Answer:
        """Do what a request asks for; for a fate that loses its answer."""
        return self._do(request)

    def _fail(self, method: str, key: str) -> None:
        """Raise what a bucket raises, when the test wants this request to fail."""
        try:
            self.store.fail(method, key)
        except ClientError as error:
            raise StoreError(error.message, code="NotSent") from error

    def _now(self) -> datetime:
        return self.store.clock() if self.store.clock else self._tick

    def _refuse(self, request: Request) -> Answer:
        if request.kind == "delete_many":
            return Answer("done", failed=dict.fromkeys(request.keys, "AccessDenied"))
        return Answer("none", code="AccessDenied", message="Request has expired")

    def _do(self, request: Request) -> Answer:  # noqa: PLR0911  # one way out a fate
        there = self.store.objects.get(request.key)
        if request.kind == "rename":
            return Answer("unknown", code="NotImplemented")
        if self.is_strict and request.if_absent and there is not None:
            return Answer("unknown", code="PreconditionFailed")
        if request.kind == "put":
            etag = there.info.etag if there else ""
            if self.is_strict and request.if_match and request.if_match != etag:
                return Answer("unknown", code="PreconditionFailed")
            return self._put(request.key, request.body, request.headers)
        if request.kind == "copy":
            source = self.store.objects.get(request.source)
            if source is None:
                return Answer("unknown", code="NoSuchKey")
            if request.if_match and request.if_match != source.info.etag:
                return Answer("unknown", code="PreconditionFailed")
            return self._copy(request, source)
        if request.kind == "delete":
            etag = there.info.etag if there else ""
            if self.is_strict and request.if_match and request.if_match != etag:
                return Answer("unknown", code="PreconditionFailed")
        for key in request.keys or (request.key,):
            self.store.objects.pop(key, None)
        return Answer("done")

    def _put(self, key: str, content: bytes, headers: Mapping[str, str]) -> Answer:
        metadata = {n[len(_META) :]: v for n, v in headers.items() if n.startswith(_META)}
        etag = hashlib.md5(content).hexdigest()  # noqa: S324
        self._write(key, content, etag, metadata, headers.get("content-type", ""))
        return Answer("done", etag=etag, date=self._now().isoformat())

    def _copy(self, request: Request, source: Stored) -> Answer:
        metadata = dict(source.info.metadata or {})
        content_type = source.info.headers.get("content-type", "")
        etag = self.etag_of_copy or source.info.etag
        self._write(request.key, source.content, etag, metadata, content_type)
        return Answer("done", etag=etag)

    def _write(
        self, key: str, content: bytes, etag: str, metadata: Mapping[str, str], content_type: str
    ) -> None:
        self._tick += timedelta(milliseconds=1)
        headers = {"content-type": content_type}
        info = Seen(key, etag, len(content), self._now(), metadata, headers)
        self.store.objects[key] = Stored(info, content)

    def _see(self, key: str) -> Seen:
        self._fail("head", key)
        info = self.store.objects[key].info
        headers = {**self.headers, **info.headers}
        at, size = info.last_modified, info.size_bytes
        return Seen(key, info.etag, size, at, dict(info.metadata or {}), headers)
