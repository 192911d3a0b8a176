"""Listen to a bucket's writes, where the server tells them as MinIO does."""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import UTC, datetime
from typing import Self
from urllib.parse import SplitResult, quote, unquote_plus, urlencode, urlsplit, urlunsplit

import urllib3
from minio.credentials.credentials import Credentials
from minio.signer import sign_v4_s3

from ..model import Json, parse_time
from .object_store import Write
from .object_store_errors import REQUEST_ERRORS

__all__ = ["MinioWriteWatch"]

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_READY_S = 2.0
_CHUNK = 65536
_SILENCE_S = 3.0  # the server sends a blank twice a second


class MinioWriteWatch:
    """Collect the writes under a prefix while the ``with`` block lasts.

    Parameters
    ----------
    http, url, bucket, region, credentials : of the store
    prefix : what to listen to

    Attributes
    ----------
    is_watching : the server tells its writes, and the stream is not broken
    writes : what was written, in the order of the events
    """

    def __init__(
        self,
        http: urllib3.PoolManager,
        *,
        url: str,
        bucket: str,
        region: str,
        credentials: Credentials,
        prefix: str,
    ) -> None:
        self.is_watching = False
        self.writes: list[Write] = []
        self._http = http
        query = urlencode({"events": "s3:ObjectCreated:*", "prefix": prefix}, quote_via=quote)
        self._url = urlsplit(f"{url}/{bucket}?{query}")
        self._region, self._credentials = region, credentials
        self._opened, self._blank, self._stop = (threading.Event() for _ in range(3))
        self._thread = threading.Thread(target=self._listen, daemon=True, name="watch")

    def __enter__(self) -> Self:
        """Start to listen; ``wait_until_open`` tells when the server does."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._stop.set()

    def wait_until_open(self) -> None:
        """Return when the server listens, or it is plain that it will not."""
        self._opened.wait(_READY_S)

    def flush(self) -> None:
        """Wait for the next blank, which comes after what happened before it."""
        self._blank.clear()
        if self.is_watching and not self._blank.wait(_READY_S):
            self.is_watching = False

    def _listen(self) -> None:
        try:
            with self._open() as answer:
                # The server subscribes before it sends the first byte.
                self.is_watching = answer.status == 200
                self._opened.set()
                rest = b""
                for chunk in answer.stream(_CHUNK):
                    if self._stop.is_set() or not self.is_watching:
                        break
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in filter(bytes.strip, lines):
                        self._take(json.loads(line))
                    if not rest.strip():
                        self._blank.set()
        except REQUEST_ERRORS:
            pass  # the stream broke: is_watching says so
        finally:
            self.is_watching = False
            self._opened.set()

    def _open(self) -> urllib3.BaseHTTPResponse:
        at = datetime.now(UTC)
        headers: dict[str, str | list[str] | tuple[str]] = {
            "Host": self._url.netloc,
            "x-amz-content-sha256": _EMPTY_SHA256,
            "x-amz-date": at.strftime("%Y%m%dT%H%M%SZ"),
        }
        signed = sign_v4_s3(
            method="GET",
            url=SplitResult(*self._url),
            region=self._region,
            headers=headers,
            credentials=self._credentials,
            content_sha256=_EMPTY_SHA256,
            date=at,
        )
        return self._http.request(
            "GET",
            urlunsplit(self._url),
            headers={name: str(value) for name, value in signed.items()},
            preload_content=False,
            retries=False,
            timeout=urllib3.Timeout(connect=2, read=_SILENCE_S),
        )

    def _take(self, event: dict[str, Json]) -> None:
        for record in event.get("Records") or ():
            told = record["s3"]["object"]
            at, etag = parse_time(record["eventTime"]), str(told.get("eTag", ""))
            # Servers differ in whether the key is quoted: both readings are kept.
            keys = {str(told["key"]), unquote_plus(told["key"])}
            self.writes += [Write(key, etag, at) for key in keys]
