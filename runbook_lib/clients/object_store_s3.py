"""A bucket behind any S3-compatible server: minio-py for most, obstore where speed decides."""

from __future__ import annotations

import io
import ssl
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import obstore
import urllib3
from minio import Minio
from minio.commonconfig import REPLACE, CopySource
from obstore.store import S3Store as FastStore

from ..errors import BadAnswerError, ClientError
from ..model import ObjectInfo, StoreAbilities
from .object_store import LiveCheck, Permissions
from .object_store_errors import REQUEST_ERRORS, explain_code, explain_error
from .object_store_items import GuardedDelete, format_http_date, to_info
from .object_store_probe import check_live, probe_abilities, read_free_bytes, read_permissions

__all__ = ["S3Store"]

_CONNECT_S, _READ_S = 2.0, 10.0
_BULK = 1000


class S3Store:
    """The ``ObjectStore`` of one bucket.

    Parameters
    ----------
    endpoint : host:port
    bucket : its name
    access_key, secret_key, region : for signatures
    secure : use TLS
    connections : the most that are open at once
    """

    def __init__(
        self,
        *,
        endpoint: str,
        bucket: str,
        access_key: str,
        secret_key: str,
        region: str = "us-east-1",
        secure: bool = False,
        connections: int = 64,
    ) -> None:
        self.endpoint = endpoint
        self.bucket = bucket
        self.url = f"{'https' if secure else 'http'}://{endpoint}"
        self.http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=_CONNECT_S, read=_READ_S),
            # A 5xx is not retried: its text says why (storage full), and a retry would hide it.
            retries=urllib3.Retry(total=1, backoff_factor=0.1, status=0, redirect=0),
            maxsize=connections,
            ssl_context=ssl.create_default_context() if secure else None,
        )
        self._minio = Minio(
            endpoint, access_key, secret_key, secure=secure, region=region, http_client=self.http
        )
        self._fast_config: dict[str, Any] = {
            "endpoint": self.url,
            "access_key_id": access_key,
            "secret_access_key": secret_key,
            "region": region,
            "virtual_hosted_style_request": False,
        }

    def list_objects(
        self, prefix: str, *, start_after: str = "", with_metadata: bool = False
    ) -> Iterator[ObjectInfo]:
        """Yield the objects under a prefix, sorted by key."""
        with _explained(f"list {self.bucket}/{prefix}"):
            for item in self._minio.list_objects(
                self.bucket,
                prefix=prefix,
                recursive=True,
                start_after=start_after or None,
                include_user_meta=with_metadata,
            ):
                # A file-system store lists the folders that a bulk delete emptied.
                if not (item.object_name or "").endswith("/"):
                    yield to_info(item, metadata=bool(item.metadata))

    def read_info(self, key: str) -> ObjectInfo:
        """Return one object with its metadata (HEAD)."""
        with _explained(f"read {key}"):
            item = self._minio.stat_object(self.bucket, key)
        return to_info(item, metadata=True)

    def read_infos(
        self, keys: Iterable[str], *, threads: int = 16
    ) -> Iterator[tuple[str, ObjectInfo | ClientError]]:
        """Yield each object with its metadata, in order, a bounded number ahead."""
        waiting: deque[tuple[str, Future[ObjectInfo]]] = deque()
        with ThreadPoolExecutor(threads, thread_name_prefix="head") as pool:
            try:
                for key in keys:
                    waiting.append((key, pool.submit(self.read_info, key)))
                    if len(waiting) >= threads * 4:
                        yield _settle(*waiting.popleft())
                while waiting:
                    yield _settle(*waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def read_bytes(self, key: str, *, max_bytes: int = 16 * 1024 * 1024) -> bytes:
        """Return an object's content."""
        with _explained(f"read {key}"):
            answer = self._minio.get_object(self.bucket, key)
            try:
                content = answer.read(max_bytes + 1)
            finally:
                answer.close()
                answer.release_conn()
        if len(content) > max_bytes:
            raise BadAnswerError(f"{key} is larger than {max_bytes} bytes", system="object store")
        return content

    def read_tags(self, key: str) -> dict[str, str]:
        """Return an object's tags."""
        with _explained(f"read tags of {key}"):
            return dict(self._minio.get_object_tags(self.bucket, key) or {})

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
        with _explained(f"write {key}"):
            if if_absent or if_match:
                obstore.put(
                    self._connect_fast(),
                    key,
                    content,
                    attributes={"Content-Type": content_type, **dict(metadata or {})},
                    mode={"e_tag": f'"{if_match}"'} if if_match else "create",
                    use_multipart=False,
                )
            else:
                self._minio.put_object(
                    self.bucket,
                    key,
                    io.BytesIO(content),
                    len(content),
                    content_type=content_type,
                    metadata=cast("Any", dict(metadata or {})) or None,
                )
        return self.read_info(key)

    def copy_object(
        self, source: ObjectInfo, key: str, *, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Copy one object, guarded by its ETag and LastModified."""
        origin = CopySource(
            self.bucket,
            source.key,
            match_etag=source.etag,
            unmodified_since=source.last_modified.astimezone(UTC),
        )
        with _explained(f"copy {source.key} to {key}"):
            if metadata is None:
                self._minio.copy_object(self.bucket, key, origin)
            else:
                content_type = source.content_type or self.read_info(source.key).content_type
                headers = {**metadata, "Content-Type": content_type}
                self._minio.copy_object(
                    self.bucket,
                    key,
                    origin,
                    metadata=cast("Any", headers),
                    metadata_directive=REPLACE,
                )
        return self.read_info(key)

    def copy_objects(
        self, pairs: Sequence[tuple[ObjectInfo, str]], *, threads: int = 32
    ) -> Iterator[tuple[int, ClientError | None]]:
        """Copy many, each guarded by the newest LastModified of the pairs."""
        if not pairs:
            return
        # One guard for all: whatever was changed after the listing is newer than all of them.
        fast = self._connect_fast(max(source.last_modified for source, _ in pairs))

        def copy(source: ObjectInfo, key: str) -> ClientError | None:
            try:
                obstore.copy(fast, source.key, key)
            except REQUEST_ERRORS as error:
                return explain_error(error, f"copy {source.key} to {key}")
            return None

        with ThreadPoolExecutor(threads, thread_name_prefix="copy") as pool:
            try:
                futures = {pool.submit(copy, *pair): i for i, pair in enumerate(pairs)}
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def delete_object(self, info: ObjectInfo, *, guarded: bool = True) -> None:
        """Delete one object."""
        for _, error in self.delete_objects([info], guarded=guarded):
            raise error

    def delete_objects(
        self, infos: Sequence[ObjectInfo], *, guarded: bool
    ) -> list[tuple[str, ClientError]]:
        """Delete in bulk, a thousand at a time."""
        failed: list[tuple[str, ClientError]] = []
        for start in range(0, len(infos), _BULK):
            chunk = infos[start : start + _BULK]
            wanted = [GuardedDelete(i.key, i.etag if guarded else "") for i in chunk]
            with _explained(f"delete {len(chunk)} objects"):
                for item in self._minio.remove_objects(self.bucket, wanted):
                    error = explain_code(item.code, item.message or "", f"delete {item.name}")
                    failed.append((item.name or "", error))
        return failed

    def check_live(self) -> LiveCheck:
        """Ask the live endpoint, else make a signed listing."""
        return check_live(self, self.http, self.url)

    def read_clock_skew_s(self) -> float:
        """Return the store's clock minus ours in seconds."""
        with _explained(f"GET {self.url}/"):
            before = datetime.now(UTC)
            answer = self.http.request("GET", f"{self.url}/", retries=False)
            middle = before + (datetime.now(UTC) - before) / 2
            told = parsedate_to_datetime(answer.headers.get("Date", ""))
        # The header has whole seconds: its middle is half a second later.
        return round((told - middle).total_seconds() + 0.5, 1)

    def read_free_bytes(self) -> int | None:
        """Return the free capacity where the store tells it."""
        return read_free_bytes(self.http, self.url)

    def list_buckets(self) -> list[str]:
        """Return the names of the buckets that the credentials see."""
        with _explained("list buckets"):
            return [bucket.name for bucket in self._minio.list_buckets()]

    def read_permissions(self, prefix: str) -> Permissions:
        """Tell what the credentials may do, without changing anything."""
        return read_permissions(self, prefix, self._copy_nothing)

    def probe_abilities(self, prefix: str) -> StoreAbilities:
        """Find out on scratch objects what the store honours."""
        with _explained(f"GET {self.url}/"):
            answer = self.http.request("GET", f"{self.url}/", retries=False)
        return probe_abilities(self, prefix, server=answer.headers.get("Server", ""))

    def _copy_nothing(self, source: str, key: str) -> None:
        """Ask for a copy of an absent object: refused before anything is written."""
        with _explained(f"copy {source} to {key}"):
            obstore.copy(self._connect_fast(), source, key)

    def _connect_fast(self, unmodified_since: datetime | None = None) -> FastStore:
        # obstore has no copy conditions, but it signs and sends default headers.
        guard = (
            {"x-amz-copy-source-if-unmodified-since": format_http_date(unmodified_since)}
            if unmodified_since
            else {}
        )
        return FastStore(
            self.bucket,
            **self._fast_config,
            client_options={
                "allow_http": True,
                "connect_timeout": f"{_CONNECT_S:.0f}s",
                "timeout": f"{_READ_S:.0f}s",
                "default_headers": guard,
            },
            retry_config={"max_retries": 0},
        )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except REQUEST_ERRORS as error:
        raise explain_error(error, what) from error


def _settle(key: str, future: Future[ObjectInfo]) -> tuple[str, ObjectInfo | ClientError]:
    try:
        return key, future.result()
    except ClientError as error:
        return key, error
