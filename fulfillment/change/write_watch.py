"""Hear of writes while a release runs, where the store tells them as MinIO does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from urllib.parse import unquote_plus

from objectmove.bucket import Request, S3Bucket, parse_time
from objectmove.errors import StoreError

_OPEN_S = 2.0
_BLANK_S = 1.5  # the server sends a blank twice a second


class _EndError(Exception):
    """The watch is over."""


@contextmanager
def watch_writes(
    bucket: S3Bucket, prefix: str
) -> Iterator[Callable[[Mapping[str, datetime]], set[str]]]:
    """Yield what returns the keys that were written later than the times that it is given.

    Notes
    -----
    Only reads. Where the store tells nothing, or the stream breaks, the answer is empty.
    """
    writes: list[tuple[str, datetime]] = []
    opened, blank, is_over = (threading.Event() for _ in range(3))
    rest = b""

    def take(part: bytes) -> None:
        nonlocal rest
        if is_over.is_set():
            raise _EndError
        opened.set()
        *lines, rest = (rest + part).split(b"\n")
        for line in filter(bytes.strip, lines):
            for record in json.loads(line).get("Records") or ():
                at = parse_time(str(record["eventTime"]))
                writes.append((unquote_plus(str(record["s3"]["object"]["key"])), at))
        if not rest.strip():
            blank.set()

    def listen() -> None:
        with suppress(StoreError):
            query = {"events": "s3:ObjectCreated:*", "prefix": prefix, "suffix": ""}
            bucket.fetch(Request("get", query=query), "listen to writes", take)
        opened.set()
        blank.set()

    def find_newer(than: Mapping[str, datetime]) -> set[str]:
        blank.clear()
        if thread.is_alive():
            blank.wait(_BLANK_S)  # what comes before it has been told
        return {key for key, at in writes if key in than and at > than[key]}

    thread = threading.Thread(target=listen, daemon=True, name="watch")
    thread.start()
    opened.wait(_OPEN_S)
    try:
        yield find_newer
    finally:
        is_over.set()
