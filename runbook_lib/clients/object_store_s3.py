"""A bucket behind any S3-compatible server: minio-py for most, obstore where speed decides."""

from __future__ import annotations

import io
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC
from typing import Any, cast

import urllib3
from minio import Minio
from minio.commonconfig import REPLACE, CopySource
from minio.credentials.credentials import Credentials

from ..errors import BadAnswerError, ClientError, ClientTimeoutError, NotFoundError
from ..model import ObjectInfo, StoreAbilities
from .object_store import LiveCheck, Permissions
from .object_store_delete import delete_guarded, delete_in_bulk
from .object_store_errors import explained
from .object_store_fast import FastBucket
from .object_store_items import settle, to_info
from .object_store_probe import (
    check_live,
    probe_abilities,
    read_clock_skew_s,
    read_free_bytes,
    read_permissions,
)
from .object_store_watch import MinioWriteWatch

__all__ = ["S3Store"]


class S3Store:
    """The ``ObjectStore`` of one bucket.

    Parameters
    ----------
    endpoint : host:port
    bucket : its name
    access_key, secret_key, region : for signatures
    secure : use TLS
    connections : the most that are open at once
    connect_s, read_s : time-outs of each request
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
        connect_s: float = 2.0,
        read_s: float = 10.0,
    ) -> None:
        self.endpoint = endpoint
        self.bucket = bucket
        self.url = f"{'https' if secure else 'http'}://{endpoint}"
        self._ssl_context = ssl.create_default_context() if secure else None
        self._connect_s, self._read_s = connect_s, read_s
        self.http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=connect_s, read=read_s),
            # A 5xx is not retried: its text says why (storage full), and a retry would hide it.
            retries=urllib3.Retry(total=1, backoff_factor=0.1, status=0, redirect=0),
            maxsize=connections,
            ssl_context=self._ssl_context,
        )
        self._credentials = Credentials(access_key, secret_key)
        self._minio = Minio(
            endpoint, access_key, secret_key, secure=secure, region=region, http_client=self.http
        )
        self._region = region
        self._fast = FastBucket(
            url=self.url,
            bucket=bucket,
            access_key=access_key,
            secret_key=secret_key,
            region=region,
            connect_s=connect_s,
            read_s=read_s,
        )

    def list_objects(
        self, prefix: str, *, start_after: str = "", with_metadata: bool = False
    ) -> Iterator[ObjectInfo]:
        """Yield the objects under a prefix, sorted by key."""
        after = start_after
        if prefix.endswith("/") and not with_metadata:
            try:
                with explained(f"list {self.bucket}/{prefix}"):
                    for info in self._fast.list_objects(prefix, start_after):
                        after = info.key
                        if info.size_bytes or self._is_object(info.key):
                            yield info
            except ClientTimeoutError:
                raise
            except ClientError:
                pass  # a key that obstore cannot name, or an error that minio explains better
            else:
                return
        yield from self._list_slowly(prefix, after, with_metadata)

    def _is_object(self, key: str) -> bool:
        """Tell an empty object from a folder marker, whose last ``/`` obstore cuts off."""
        try:
            self.read_info(key)
        except NotFoundError:
            return False
        return True

    def _list_slowly(self, prefix: str, after: str, with_metadata: bool) -> Iterator[ObjectInfo]:
        with explained(f"list {self.bucket}/{prefix}"):
            for item in self._minio.list_objects(
                self.bucket,
                prefix=prefix,
                recursive=True,
                start_after=after or None,
                include_user_meta=with_metadata,
            ):
                # A file-system store lists the folders that a bulk delete emptied.
                if not (item.object_name or "").endswith("/"):
                    yield to_info(item, metadata=bool(item.metadata))

    def read_info(self, key: str) -> ObjectInfo:
        """Return one object with its metadata (HEAD)."""
        with explained(f"read {key}"):
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
                    waiting.append((key, pool.submit(self._read_info_fast, key)))
                    if len(waiting) >= threads * 4:
                        yield settle(*waiting.popleft())
                while waiting:
                    yield settle(*waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _read_info_fast(self, key: str) -> ObjectInfo:
        try:
            return self._fast.read_info(key)
        except NotFoundError:
            raise
        except ClientError:
            return self.read_info(key)  # a key that obstore cannot name, or a better reason

    def read_bytes(self, key: str, *, max_bytes: int = 16 * 1024 * 1024) -> bytes:
        """Return an object's content."""
        with explained(f"read {key}"):
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
        with explained(f"read tags of {key}"):
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
        named = dict(metadata or {})
        if if_absent or if_match:
            self._fast.put_if(
                key, content, content_type=content_type, metadata=named, if_match=if_match
            )
            return self.read_info(key)
        with explained(f"write {key}"):
            self._minio.put_object(
                self.bucket,
                key,
                io.BytesIO(content),
                len(content),
                content_type=content_type,
                metadata=cast("Any", named) or None,
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
        with explained(f"copy {source.key} to {key}"):
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
        self,
        pairs: Sequence[tuple[ObjectInfo, str]],
        *,
        threads: int = 16,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, ClientError | None]]:
        """Copy many, each guarded by the newest LastModified of the pairs."""
        if pairs:
            yield from self._fast.copy_objects(pairs, threads, is_stopped)

    def delete_object(self, info: ObjectInfo, *, guarded: bool = True) -> None:
        """Delete one object."""
        for _, error in self.delete_objects([info], guarded=guarded):
            raise error

    def delete_objects(
        self, infos: Sequence[ObjectInfo], *, guarded: bool
    ) -> list[tuple[str, ClientError]]:
        """Delete many: guarded one by one, else in bulk, in several requests at once."""
        if not guarded:
            return delete_in_bulk(self._minio, self.bucket, infos)
        return delete_guarded(
            infos,
            self._fast.sign_deletes([info.key for info in infos]),
            ssl_context=self._ssl_context,
            connect_s=self._connect_s,
            read_s=self._read_s,
        )

    def watch_writes(self, prefix: str) -> MinioWriteWatch:
        """Listen to writes under a prefix."""
        return MinioWriteWatch(
            self.http,
            url=self.url,
            bucket=self.bucket,
            region=self._region,
            credentials=self._credentials,
            prefix=prefix,
        )

    def check_live(self) -> LiveCheck:
        """Ask the live endpoint, else make a signed listing."""
        return check_live(self, self.http, self.url)

    def read_clock_skew_s(self) -> float:
        """Return the store's clock minus ours in seconds."""
        return read_clock_skew_s(self.http, self.url)

    def read_free_bytes(self) -> int | None:
        """Return the free capacity where the store tells it."""
        return read_free_bytes(self.http, self.url)

    def list_buckets(self) -> list[str]:
        """Return the names of the buckets that the credentials see."""
        with explained("list buckets"):
            return [bucket.name for bucket in self._minio.list_buckets()]

    def read_permissions(self, prefix: str) -> Permissions:
        """Tell what the credentials may do, without changing anything."""
        return read_permissions(self, prefix, self._fast.copy_plainly)

    def probe_abilities(self, prefix: str) -> StoreAbilities:
        """Find out on scratch objects what the store honours."""
        with explained(f"GET {self.url}/"):
            answer = self.http.request("GET", f"{self.url}/", retries=False)
        return probe_abilities(self, prefix, server=answer.headers.get("Server", ""))
