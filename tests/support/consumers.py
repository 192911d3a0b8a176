"""Consumers that poll ``ready/``, take what comes, and write down what they took.

They run in a process of their own, each with its own share of the keys, so that no two read the
same copy. MinIO's own client; nothing of the package under test.
"""

from __future__ import annotations

import hashlib
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

from minio import Minio
from minio.error import MinioException
from urllib3.exceptions import HTTPError

from tests.support.gateway import connect

_ROOT = Path(__file__).parents[2]


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


def _consume(
    store: Minio,
    place: tuple[str, str],
    share: tuple[int, int],
    out: int,
    is_over: Callable[[], bool],
) -> None:
    bucket, prefix = place
    unanswered: dict[str, object] = {}  # keys whose delete was not answered, with LastModified
    while not is_over():
        try:
            for found in store.list_objects(bucket, prefix, recursive=True):
                key = found.object_name
                if key.endswith("/") or zlib.crc32(key.encode()) % share[0] != share[1]:
                    continue
                if unanswered.get(key) != found.last_modified:
                    _record(store, bucket, key, out)
                unanswered[key] = found.last_modified
                store.remove_object(bucket, key)
                del unanswered[key]
        except (HTTPError, MinioException) as error:
            if getattr(error, "code", "") == "AccessDenied":
                raise
            time.sleep(0.05)  # the store is away, or the key


def _record(store: Minio, bucket: str, key: str, out: int) -> None:
    with store.get_object(bucket, key) as response:
        digest = hashlib.sha256(response.read()).hexdigest()
        headers = {name.lower(): text for name, text in response.headers.items()}
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
        share = (int(count), number)
        place = (bucket, prefix)
        work = (connect(endpoint), place, share, out, partial(end.wait, float(pause_s)))
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
