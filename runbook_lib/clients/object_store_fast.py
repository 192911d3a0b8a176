"""The requests of a release that come by the thousand, through obstore: less work for us each.

Client and server often share the machine; what a request costs here decides the speed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import chain
from queue import SimpleQueue
from typing import TYPE_CHECKING

import obstore
from obstore.store import S3Store

from ..errors import BadAnswerError, ClientError
from ..model import ObjectInfo
from .object_store_errors import REQUEST_ERRORS, explain_error, explained
from .object_store_items import format_http_date

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

__all__ = ["FastBucket"]


class FastBucket:
    """Copies, listings, HEADs and conditional writes in one bucket.

    Parameters
    ----------
    url, bucket, access_key, secret_key, region : of the store
    connect_s, read_s : time-outs
    """

    def __init__(
        self,
        *,
        url: str,
        bucket: str,
        access_key: str,
        secret_key: str,
        region: str,
        connect_s: float,
        read_s: float,
    ) -> None:
        self._bucket = bucket
        self._config: S3Config = {
            "endpoint": url,
            "access_key_id": access_key,
            "secret_access_key": secret_key,
            "region": region,
            "virtual_hosted_style_request": False,
        }
        self._options: ClientConfig = {
            "allow_http": True,
            "connect_timeout": f"{connect_s}s",
            "timeout": f"{read_s}s",
        }
        self._plain = self._connect({})

    def list_objects(self, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        """Yield the objects under a prefix that ends with ``/``; stops at a key it cannot name.

        Raises
        ------
        ValueError
            At a key with control characters or dots: list on with minio from the last one.
        """
        pages = obstore.list(self._plain, prefix, offset=start_after or None, chunk_size=1000)
        for item in chain.from_iterable(pages):
            yield ObjectInfo(
                key=item["path"],
                etag=(item["e_tag"] or "").strip('"'),
                size_bytes=item["size"],
                last_modified=item["last_modified"],
            )

    def read_info(self, key: str) -> ObjectInfo:
        """Return one object with its metadata (HEAD).

        Raises
        ------
        NotFoundError
            When there is none.
        ClientError
            On anything else: minio-py asks again and explains it better.
        """
        try:
            found = obstore.get(self._plain, key, options={"head": True})
            meta, attributes = found.meta, found.attributes
        except REQUEST_ERRORS as error:
            raise explain_error(error, f"read {key}") from error
        if meta["path"] != key:
            raise BadAnswerError(f"{key} was asked for as {meta['path']}", system="object store")
        return ObjectInfo(
            key=key,
            etag=(meta["e_tag"] or "").strip('"'),
            size_bytes=meta["size"],
            last_modified=meta["last_modified"],
            # user metadata comes in small letters, the standard headers do not
            metadata={str(n): v for n, v in attributes.items() if str(n).islower()},
            content_type=str(attributes.get("Content-Type", "")),
        )

    def copy_objects(
        self,
        pairs: Sequence[tuple[ObjectInfo, str]],
        threads: int,
        is_stopped: Callable[[], bool],
    ) -> Iterator[tuple[int, ClientError | None]]:
        """Copy many, each refused when its source is newer than all of the pairs are."""
        newest = max(source.last_modified for source, _ in pairs)
        guard = {"x-amz-copy-source-if-unmodified-since": format_http_date(newest)}
        bucket = self._connect(guard)

        waiting = deque(enumerate(pairs))
        ended: SimpleQueue[tuple[int, ClientError | None] | None] = SimpleQueue()

        def copy() -> None:
            while waiting and not is_stopped():
                try:
                    index, (source, key) = waiting.popleft()
                except IndexError:
                    break  # another thread took the last one
                try:
                    obstore.copy(bucket, source.key, key)
                except REQUEST_ERRORS as error:
                    ended.put((index, explain_error(error, f"copy {source.key} to {key}")))
                else:
                    ended.put((index, None))

        def work() -> None:
            try:
                copy()
            finally:
                ended.put(None)

        pool = ThreadPoolExecutor(threads, thread_name_prefix="copy")
        try:
            workers = [pool.submit(work) for _ in range(min(threads, len(pairs)))]
            for _ in workers:
                while (copied := ended.get()) is not None:
                    yield copied
            for worker in workers:
                worker.result()  # nothing that is no answer of the store is swallowed
        finally:
            waiting.clear()  # an interrupt waits for nobody
            pool.shutdown(wait=False)

    def sign_deletes(self, keys: Sequence[str]) -> list[str]:
        """Return a signed URL for the delete of each key; good for as long as a plan."""
        with explained("sign deletes"):
            return list(obstore.sign(self._plain, "DELETE", list(keys), timedelta(minutes=15)))

    def put_if(
        self,
        key: str,
        content: bytes,
        *,
        content_type: str,
        metadata: Mapping[str, str],
        if_match: str,
    ) -> None:
        """Write an object if it has an ETag, or with an empty one if it is absent."""
        with explained(f"write {key}"):
            obstore.put(
                self._plain,
                key,
                content,
                attributes={"Content-Type": content_type, **metadata},
                mode={"e_tag": f'"{if_match}"'} if if_match else "create",
                use_multipart=False,
            )

    def copy_plainly(self, source: str, key: str) -> None:
        """Copy one object without any guard."""
        with explained(f"copy {source} to {key}"):
            obstore.copy(self._plain, source, key)

    def _connect(self, headers: Mapping[str, str]) -> S3Store:
        # obstore has no copy conditions, but it signs and sends default headers.
        return S3Store(
            self._bucket,
            config=self._config,
            client_options={**self._options, "default_headers": dict(headers)},
            retry_config={"max_retries": 0},
        )
