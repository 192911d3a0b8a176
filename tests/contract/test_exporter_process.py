"""The exporter as a process against a real store: start, numbers, store down, stop."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from minio import Minio

from tests.support.gateway import ACCESS_KEY, SECRET_KEY, StoreServer, run_juicefs, wait_until

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
LAG = re.compile(r'^fulfillment_lag_minutes\{origin="(\w+)"\} (\S+)$', re.MULTILINE)


class Exporter:
    """A running exporter and its address, read from its own log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def url(self) -> str:
        found = re.search(r"serving (http://\S+)/metrics", self._log.read_text("utf-8"))
        return found.group(1) if found else ""

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return str(answer.read().decode())

    def is_healthy(self) -> bool:
        try:
            return bool(self.url) and json.loads(self.get("/health"))["status"] == "ok"
        except urllib.error.URLError:
            return False

    def lag_minutes(self) -> dict[str, float]:
        return {origin: float(value) for origin, value in LAG.findall(self.get("/metrics"))}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with run_juicefs(tmp_path_factory.mktemp("gateway")) as server:
        yield server


@pytest.fixture
def exporter(gateway: StoreServer, tmp_path: Path) -> Iterator[Exporter]:
    log = tmp_path / "exporter.log"
    environment = {
        **os.environ,
        "EXPORTER_PORT": "0",
        "EXPORTER_REFRESH_S": "0.2",
        "MINIO_ENDPOINT": gateway.endpoint,
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "addons.artifact_exporter"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
        )
    exporter = Exporter(process, log)
    try:
        wait_until(exporter.is_healthy, what="the exporter", deadline_s=30)
        yield exporter
    finally:
        process.kill()
        process.wait(timeout=10)


def test_numbers_follow_the_store_and_vanish_with_it(
    exporter: Exporter, gateway: StoreServer
) -> None:
    assert exporter.lag_minutes() == {"real": 0.0, "synthetic": 0.0}
    shipped_at = datetime.now(UTC) - timedelta(minutes=25)
    put(gateway, "pending/4242-0123456789ab.pdf", {"pending-since": shipped_at.isoformat()})
    put(
        gateway,
        "chaos/fulfillment-delay/chaos-d1-1-0123456789ab.pdf",
        {"chaos-scenario": "fulfillment-delay", "pending-since": "2026-11-01T00:00:00Z"},
    )
    wait_until(
        lambda: exporter.lag_minutes()["real"] > 0 and exporter.lag_minutes()["synthetic"] > 0,
        what="a lag",
        deadline_s=30,
    )
    assert exporter.lag_minutes()["real"] == pytest.approx(25, abs=2)

    gateway.kill()
    wait_until(lambda: exporter.lag_minutes() == {}, what="vanished series", deadline_s=30)
    assert json.loads(exporter.get("/health"))["lastFailure"] == "store_unreachable"
    gateway.start()
    wait_until(lambda: exporter.lag_minutes() != {}, what="a lag again", deadline_s=30)


def test_sigterm_ends_it_with_0(exporter: Exporter) -> None:
    exporter.process.send_signal(signal.SIGTERM)
    assert exporter.process.wait(timeout=30) == 0


def test_a_missing_credential_is_named_and_the_exit_code_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "addons.artifact_exporter"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "MINIO_ROOT_USER": "admin"},
    )
    assert done.returncode == 2
    assert "setting MINIO_ROOT_PASSWORD: Field required" in done.stderr


def put(gateway: StoreServer, key: str, metadata: dict[str, str | list[str] | tuple[str]]) -> None:
    client = Minio(gateway.endpoint, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")
    client.put_object(gateway.bucket, key, io.BytesIO(b"%PDF-"), 5, metadata=metadata)
