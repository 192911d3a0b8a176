"""Consumers that poll ``ready/``, take what comes, and write down what they took.

They run in a process of their own, each with its own share of the keys, so that no two read the
same copy. ``http.client`` and MinIO's signer; nothing of the package under test.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_plus, urlencode, urlsplit
from xml.etree import ElementTree as ET

from minio.credentials.credentials import Credentials
from minio.signer import sign_v4_s3

from tests.support.gateway import ACCESS_KEY, SECRET_KEY

_ROOT = Path(__file__).parents[2]
_EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Taken:
    at: float
    key: str
    sha256: str
    headers: dict[str, str]


@dataclass
class Consumers:
    path: Path
    process: subprocess.Popen[bytes]

    def read_taken(self) -> list[Taken]:
        """Return what was taken until now; each line is written before its object is deleted."""
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        return [Taken(**json.loads(line)) for line in lines]


@contextmanager
def run_consumers(
    endpoint: str,
    bucket: str,
    path: Path,
    *,
    prefix: str = "ready/",
    count: int = 3,
    pause_s: float = 0.03,
) -> Iterator[Consumers]:
    """Run consumers until the block ends; they end what they have begun.

    Without a pause between two looks they keep a core busy, and the store.
    """
    arguments = [endpoint, bucket, prefix, str(count), str(pause_s), str(path)]
    command = [sys.executable, "-m", __name__, *arguments]
    errors = path.with_suffix(".err")
    with (
        errors.open("wb") as stderr,
        subprocess.Popen(
            command,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            process_group=0,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield Consumers(path, process)
        finally:
            process.stdin.close()
            try:
                code = process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
            assert code == 0, f"the consumers broke: {code} {errors.read_text('utf-8')}"


class _Client:
    def __init__(self, endpoint: str, bucket: str) -> None:
        self._endpoint, self._bucket = endpoint, bucket
        self._connection = http.client.HTTPConnection(endpoint, timeout=30)
        self._credentials = Credentials(ACCESS_KEY, SECRET_KEY)
        self._listings: dict[str, tuple[float, Any]] = {}  # by query: when signed, and the headers

    def ask(
        self, method: str, key: str = "", query: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body; raises OSError or HTTPException, and opens anew then."""
        path = quote(f"/{self._bucket}/{key}" if key else f"/{self._bucket}", safe="/~")
        text = urlencode(query or {}, quote_via=quote)
        signed = self._sign(method, path, text) if key else self._sign_listing(path, text)
        try:
            self._connection.request(method, f"{path}?{text}" if text else path, headers=signed)
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        return response.status, {k.lower(): v for k, v in response.getheaders()}, body

    def _sign_listing(self, path: str, text: str) -> Any:
        """Return signed headers, used for a minute: most looks find nothing, and signing costs."""
        at, signed = self._listings.get(text, (float("-inf"), None))
        if time.monotonic() - at >= 60:
            signed = self._sign("GET", path, text)
            self._listings = {text: (time.monotonic(), signed)}
        return signed

    def _sign(self, method: str, path: str, text: str) -> Any:
        at = datetime.now(UTC)
        headers: Any = {
            "Host": self._endpoint,
            "x-amz-content-sha256": _EMPTY,
            "x-amz-date": at.strftime("%Y%m%dT%H%M%SZ"),
        }
        return sign_v4_s3(
            method=method,
            url=urlsplit(f"http://{self._endpoint}{path}?{text}"),
            region="us-east-1",
            headers=headers,
            credentials=self._credentials,
            content_sha256=_EMPTY,
            date=at,
        )


def _consume(
    client: _Client, prefix: str, share: tuple[int, int], out: int, is_over: Callable[[], bool]
) -> None:
    unanswered: dict[str, str] = {}  # keys whose delete was not answered, with their LastModified
    while not is_over():
        try:
            for key, modified in _list(client, prefix):
                if zlib.crc32(key.encode()) % share[0] != share[1]:
                    continue
                if unanswered.get(key) != modified:
                    _record(client, key, out)
                unanswered[key] = modified
                if client.ask("DELETE", key)[0] in (200, 204, 404):
                    del unanswered[key]
        except PermissionError:
            raise
        except (OSError, http.client.HTTPException, ET.ParseError):
            time.sleep(0.05)  # the store is away


def _list(client: _Client, prefix: str) -> list[tuple[str, str]]:
    listed: list[tuple[str, str]] = []
    query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
    while True:
        status, _, body = client.ask("GET", query=query)
        if status == 403:
            raise PermissionError(body)
        if status != 200:
            return []
        if b"<Contents>" not in body and b"<NextContinuationToken>" not in body:
            return listed  # most looks find nothing, and reading a page costs
        page = ET.fromstring(body)  # noqa: S314  # of our own server
        for item in page.iterfind("{*}Contents"):
            key = unquote_plus(item.findtext("{*}Key") or "")
            if not key.endswith("/"):
                listed.append((key, item.findtext("{*}LastModified") or ""))
        token = page.findtext("{*}NextContinuationToken")
        if not token:
            return listed
        query["continuation-token"] = token


def _record(client: _Client, key: str, out: int) -> None:
    status, headers, body = client.ask("GET", key)
    if status == 200:
        digest = hashlib.sha256(body).hexdigest()
        at = datetime.now(UTC).timestamp()
        line = json.dumps({"at": at, "key": key, "sha256": digest, "headers": headers})
        os.write(out, f"{line}\n".encode())


def _main(endpoint: str, bucket: str, prefix: str, *how: str) -> None:
    count, pause_s, path = how
    os.nice(10)  # they take every moment that nobody else needs
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    end = threading.Event()

    def fail(args: threading.ExceptHookArgs) -> None:
        threading.__excepthook__(args)
        os._exit(1)

    threading.excepthook = fail
    threads = []
    for number in range(int(count)):
        client = _Client(endpoint, bucket)
        share = (int(count), number)
        work = (client, prefix, share, out, partial(end.wait, float(pause_s)))
        threads.append(threading.Thread(target=_consume, args=work))
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()  # ends with the process that started us
    end.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    _main(*sys.argv[1:])
