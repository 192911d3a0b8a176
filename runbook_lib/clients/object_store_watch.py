"""Listen to a bucket's writes, where the server tells them as MinIO does."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self
from urllib.parse import SplitResult, quote, unquote_plus, urlsplit, urlunsplit

import urllib3
from minio.credentials.credentials import Credentials
from minio.signer import sign_v4_s3

from ..model import Json, parse_time
from .object_store import Write
from .object_store_errors import REQUEST_ERRORS

__all__ = ["MinioWriteWatch"]

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_READY_S = 2.0
_SILENCE_S = 3.0  # the server sends a blank twice a second


class MinioWriteWatch:
    """Collect the writes under a prefix while the ``with`` block lasts.

    Parameters
    ----------
    http, url, bucket, region, credentials : of the store
    prefix : what to listen to
    write_scratch : writes an object under the prefix it is given, and removes it: when its
        event arrives, the server is listening for us

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
        write_scratch: Callable[[str], None],
    ) -> None:
        self.is_watching = False
        self.writes: list[Write] = []
        self._http = http
        self._url = urlsplit(f"{url}/{bucket}?events={quote('s3:ObjectCreated:*', safe='')}")
        self._region, self._credentials = region, credentials
        self._prefix, self._write_scratch = prefix, write_scratch
        self._scratch = f".runbook/probe/watch-{secrets.token_hex(8)}"
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True, name="watch")

    def __enter__(self) -> Self:
        """Start to listen; returns when the server does, or it is plain that it will not."""
        self._thread.start()
        end = time.monotonic() + _READY_S
        while not self.is_watching and self._thread.is_alive() and time.monotonic() < end:
            self._write_scratch(self._scratch)
            self._ready.wait(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._stop.set()

    def _listen(self) -> None:
        try:
            with self._open() as answer:
                while answer.status == 200 and not self._stop.is_set():
                    line = answer.readline()
                    if not line:
                        break
                    if line.strip():
                        self._take(json.loads(line))
        except REQUEST_ERRORS:
            pass  # the stream broke: is_watching says so
        finally:
            self.is_watching = False

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
            for key in {told["key"], unquote_plus(told["key"])}:
                if key == self._scratch:
                    self.is_watching = True
                    self._ready.set()
                elif key.startswith(self._prefix):
                    self.writes.append(Write(key, etag, at))
