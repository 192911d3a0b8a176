"""The routes keep their own schema, whatever is sent to them."""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import StoreServer
from tests.support.serving import TOKEN, Service, get_settings, make_service, run_receivers

pytestmark = [pytest.mark.process, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def service(juicefs: StoreServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with run_receivers() as receivers:
        folder = tmp_path_factory.mktemp("schema")
        # A full queue would be 503, as it should.
        limits = {"SERVE_QUEUE_LIMIT": "1000000"}
        running = make_service(folder, receivers, get_settings(juicefs), token=TOKEN, **limits)
        running.start()
        yield running
        running.stop()


def test_every_answer_is_one_of_the_schema(service: Service) -> None:
    program = Path(sysconfig.get_path("scripts")) / "schemathesis"
    command = [program, "run", f"{service.url}/openapi.json", "--max-examples", "20"]
    done = subprocess.run(
        [
            *command,
            "--header",
            f"Authorization: Bearer {TOKEN}",
            "--no-color",
            "--generation-deterministic",
        ],
        cwd=service.folder,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stdout
