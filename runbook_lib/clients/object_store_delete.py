"""Deletes by the thousand: in bulk, or guarded, each on its own and signed beforehand.

An ETag inside a bulk delete is looked at and then forgotten: SeaweedFS deletes what was written in
between. A conditional delete of its own holds the object.
"""

from __future__ import annotations

import http.client
import ssl
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from urllib.parse import urlsplit

from minio import Minio
from minio.deleteobjects import DeleteObject

from ..errors import ClientError
from ..model import ObjectInfo
from .object_store_errors import (
    REQUEST_ERRORS,
    explain_answer,
    explain_code,
    explain_error,
    explained,
)

__all__ = ["delete_guarded", "delete_in_bulk"]

_CONNECTIONS = 12
_BULK = 64
_BULKS_AT_ONCE = 8


def delete_guarded(
    infos: Sequence[ObjectInfo],
    signed: Sequence[str],
    *,
    ssl_context: ssl.SSLContext | None,
    connect_s: float,
    read_s: float,
) -> list[tuple[str, ClientError]]:
    """Delete each object if it still has its ETag; return what failed. One that is gone is fine.

    Parameters
    ----------
    signed : the signed URL of each delete
    ssl_context : for https
    connect_s, read_s : time-outs. After the first one, what is left is not tried.
    """
    waiting = deque(zip(infos, signed, strict=True))
    failed: list[tuple[str, ClientError]] = []
    broken: list[ClientError] = []

    def work() -> None:
        connection: http.client.HTTPConnection | None = None
        while waiting:
            try:
                info, url = waiting.popleft()
            except IndexError:
                break  # another thread took the last one
            what, is_new = f"delete {info.key}", connection is None
            try:
                if broken:
                    raise broken[0]
                connection = connection or _connect(url, ssl_context, connect_s, read_s)
                try:
                    status, content = _send(connection, url, info.etag)
                except (http.client.HTTPException, ConnectionError):
                    if is_new:
                        raise
                    # The server closed a connection that rested: ask once more, on a new one.
                    connection = _connect(url, ssl_context, connect_s, read_s)
                    status, content = _send(connection, url, info.etag)
            except (ClientError, http.client.HTTPException, *REQUEST_ERRORS) as error:
                broken.append(explain_error(error, what))
                failed.append((info.key, broken[-1]))
            else:
                if (
                    status >= http.HTTPStatus.MULTIPLE_CHOICES
                    and status != http.HTTPStatus.NOT_FOUND
                ):
                    failed.append((info.key, explain_answer(status, content, what)))
        if connection is not None:
            connection.close()

    with ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="delete") as pool:
        for worker in [pool.submit(work) for _ in range(min(_CONNECTIONS, len(infos)))]:
            worker.result()
    return failed


def delete_in_bulk(
    minio: Minio, bucket: str, infos: Sequence[ObjectInfo]
) -> list[tuple[str, ClientError]]:
    """Delete without a guard, in several requests at once: stores work through each key by key.

    Raises
    ------
    ClientError
        When a request fails as a whole, after the others have ended.
    """

    def delete(start: int) -> list[tuple[str, ClientError]]:
        chunk = [DeleteObject(info.key) for info in infos[start : start + _BULK]]
        with explained(f"delete {len(chunk)} objects"):
            return [
                (
                    item.name or "",
                    explain_code(item.code, item.message or "", f"delete {item.name}"),
                )
                for item in minio.remove_objects(bucket, chunk)
            ]

    starts = range(0, len(infos), _BULK)
    if len(starts) < 2:
        return [failure for start in starts for failure in delete(start)]
    with ThreadPoolExecutor(_BULKS_AT_ONCE, thread_name_prefix="delete") as pool:
        return list(chain.from_iterable(pool.map(delete, starts)))


def _connect(
    url: str, ssl_context: ssl.SSLContext | None, connect_s: float, read_s: float
) -> http.client.HTTPConnection:
    address = urlsplit(url).netloc
    connection = (
        http.client.HTTPSConnection(address, timeout=connect_s, context=ssl_context)
        if ssl_context
        else http.client.HTTPConnection(address, timeout=connect_s)
    )
    connection.connect()
    connection.sock.settimeout(read_s)
    return connection


def _send(connection: http.client.HTTPConnection, url: str, etag: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection.request("DELETE", f"{parts.path}?{parts.query}", headers={"If-Match": f'"{etag}"'})
    answer = connection.getresponse()
    return answer.status, answer.read()
