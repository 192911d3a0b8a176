"""Real object stores for tests: a JuiceFS gateway (MinIO's code) and SeaweedFS.

Each is a context manager over a temporary folder and a free port, on loopback only, stopped by its
own process id. The two differ where it matters: the gateway ignores conditional puts and deletes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
from minio import Minio

from dataflow_stack.programs import find_binary

T = TypeVar("T")
ACCESS_KEY = "admin"
SECRET_KEY = "admin12345"
BUCKET = "fulfillment-artifacts"
#: The stores of the tests that run on each store; `make test-rgw` names another one.
STORES = os.environ.get("TEST_STORES", "juicefs seaweedfs").split()
_FIRST_PORT, _LAST_PORT = 22000, 22399
_PARTS = 5
#: SeaweedFS listens on each of its ports plus this, too.
_GRPC = 10000


def connect(endpoint: str) -> Minio:
    """Return MinIO's own client of a store, which shares nothing with the library's."""
    return Minio(endpoint, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")


@dataclass
class StoreServer:
    kind: str
    endpoint: str
    command: list[str]
    log: Path
    environment: dict[str, str]
    bucket: str = BUCKET
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start the process and wait until it answers a signed listing."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        client = connect(self.endpoint)
        wait_until(lambda: self._is_ready(client), what=f"{self.kind} at {self.endpoint}")

    def kill(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=20)
            self.process = None

    def _is_ready(self, client: Minio) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"{self.kind} ended: {self.log.read_text('utf-8')[-2000:]}")
        host, port = self.endpoint.split(":")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, int(port))) != 0:
                return False
        if self.kind == "juicefs" and not is_answered(f"http://{self.endpoint}/minio/health/live"):
            return False
        return _make_bucket(client, self.bucket)


def _make_bucket(client: Minio, bucket: str) -> bool:
    from minio.error import MinioException
    from urllib3.exceptions import HTTPError

    try:
        if not client.bucket_exists(bucket):
            client.make_bucket(bucket)
    except (MinioException, HTTPError):
        return False
    return True


def wait_until(
    read: Callable[[], T],
    *,
    what: str,
    deadline_s: float = 60.0,
    longest_pause_s: float = 0.4,
) -> T:
    """Poll until the value is true, and return it; fail with its name after the deadline.

    At first 20 times a second, then ever less often, up to ``longest_pause_s`` apart: a condition
    may ask servers, and there are other tests beside this one.
    """
    end = time.monotonic() + deadline_s
    pause_s = 0.05
    while not (value := read()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {deadline_s:.0f} s: {what}")
        time.sleep(pause_s)
        pause_s = min(longest_pause_s, 1.3 * pause_s)
    return value


def find_free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on, from this suite's own range."""
    found: list[int] = []
    # Each of the processes that run tests side by side looks in a part of its own.
    lane = int(os.environ.get("TEST_LANE", "0"))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    span = (_LAST_PORT - _FIRST_PORT + 1) // _PARTS
    first = _FIRST_PORT + (lane + worker) % _PARTS * span
    for offset in range(span):
        port = first + (os.getpid() % 60 + offset) % span
        if not is_free(port) or not is_free(port + _GRPC):
            continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"no {count} free ports between {_FIRST_PORT} and {_LAST_PORT}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def is_answered(url: str, **options: Any) -> bool:
    try:
        return requests.get(url, timeout=5, **options).ok
    except requests.RequestException:
        return False


@contextmanager
def run_juicefs(folder: Path) -> Iterator[StoreServer]:
    juicefs = find_binary("juicefs")
    folder.mkdir(parents=True, exist_ok=True)
    (port,) = find_free_ports(1)
    meta = f"badger://{folder / 'meta'}"
    base = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    format_ = [juicefs, "format", "--storage", "file", "--bucket", f"{folder / 'blobs'}/"]
    format_ += ["--trash-days", "0", meta, "tests"]
    subprocess.run(format_, check=True, capture_output=True, timeout=60)
    command = [juicefs, "gateway", "--no-banner", "--multi-buckets", "--keep-etag"]
    command += ["--object-meta", "--object-tag", "--no-usage-report", "--cache-dir"]
    command += [str(folder / "cache"), "--log", str(folder / "gateway.log")]
    command += [meta, f"127.0.0.1:{port}"]
    server = StoreServer(
        "juicefs",
        f"127.0.0.1:{port}",
        command,
        folder / "output.log",
        {**base, "HOME": str(folder), "MINIO_PROMETHEUS_AUTH_TYPE": "public"},
    )
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def run_seaweedfs(folder: Path, *, identities: Sequence[object] = ()) -> Iterator[StoreServer]:
    """Run SeaweedFS in one process; ``identities`` have fewer rights than the tests' own."""
    weed = find_binary("weed")
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    s3, master, volume, filer = find_free_ports(4)
    config = folder / "s3.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "tests", "credentials": credentials, "actions": actions}
    config.write_text(json.dumps({"identities": [identity, *identities]}), "utf-8")
    grpc = {name: port + 10000 for name, port in (("m", master), ("v", volume), ("f", filer))}
    command = [weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-volume.max=200", "-master.volumeSizeLimitMB=64", f"-master.port={master}"]
    command += [f"-master.port.grpc={grpc['m']}", f"-volume.port={volume}"]
    command += [f"-volume.port.grpc={grpc['v']}", "-filer", f"-filer.port={filer}"]
    command += [f"-filer.port.grpc={grpc['f']}", "-s3", f"-s3.port={s3}", f"-s3.config={config}"]
    command += [f"-s3.port.grpc={s3 + 10000}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-master.telemetry=false"]
    server = StoreServer("seaweedfs", f"127.0.0.1:{s3}", command, folder / "output.log", {})
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def run_alertmanager(config: Path, address: str = "") -> Iterator[str]:
    """Run Alertmanager with its data beside its configuration; yield its URL."""
    address = address or f"127.0.0.1:{find_free_ports(1)[0]}"
    command = [find_binary("prometheus-alertmanager", "alertmanager"), f"--config.file={config}"]
    command += [f"--storage.path={config.parent / 'data'}", f"--web.listen-address={address}"]
    command += ["--cluster.listen-address="]
    with (
        config.with_suffix(".log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process,
    ):
        try:
            url = f"http://{address}"
            wait_until(lambda: is_answered(f"{url}/-/ready"), what="Alertmanager")
            yield url
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def juicefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with run_juicefs(tmp_path_factory.mktemp("juicefs")) as server:
        yield server


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with run_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server
