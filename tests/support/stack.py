"""The whole local stack for tests: on free ports, in a folder of its own, stopped at the end.

Use it with ``from tests.support.stack import stack``; it is shared by the whole session.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from minio import Minio

from dataflow_stack import local, reporter
from dataflow_stack.config import Profile
from dataflow_stack.store_client import build_client
from dataflow_stack.topology import SERVICES
from tests.support.gateway import is_free, wait_until

__all__ = ["Runbook", "RunningStack", "find_port_base", "run_stack", "stack", "wait_until"]

# With these the ports stay below those of the other test servers (tests/support/gateway.py), which
# start and stop meanwhile.
_FIRST_BASE, _LAST_BASE = 10_000, 12_800

_shared: list[RunningStack] = []


@dataclass(frozen=True)
class RunningStack:
    """A stack that runs; ``env`` has every endpoint and credential, by the name of its setting."""

    env: dict[str, str]
    home: Path
    port_base: int

    @property
    def store(self) -> Minio:
        env = self.env
        return build_client(
            env["MINIO_ENDPOINT"], env["MINIO_ROOT_USER"], env["MINIO_ROOT_PASSWORD"]
        )

    def list_keys(self, prefix: str) -> list[str]:
        bucket = self.env["FULFILLMENT_BUCKET"]
        found = self.store.list_objects(bucket_name=bucket, prefix=prefix, recursive=True)
        return [item.object_name for item in found if item.object_name]

    def get(self, setting: str, path: str) -> Any:
        answer = requests.get(self.env[setting] + path, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def list_alerts(self) -> set[tuple[str, str]]:
        try:
            alerts = self.get("PROMETHEUS_URL", "/api/v1/alerts")["data"]["alerts"]
        except requests.HTTPError:
            return set()
        return {(alert["labels"]["alertname"], alert["state"]) for alert in alerts}

    def is_firing(self) -> bool:
        return ("FulfillmentDelay", "firing") in self.list_alerts()


class Runbook:
    def __init__(self, stack: RunningStack, home: Path) -> None:
        self.home = home
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", str(home)),
            **stack.env,
            "RUNBOOK_HOME": str(home),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }

    def run(self, *words: str, **changes: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "runbook_lib", *words, "--json"],
            env=self.environment | changes,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.stdout.strip(), done.stderr
        return done.returncode, json.loads(done.stdout)


def find_port_base() -> int:
    """Return a port base at which every port of the stack is free."""
    ports = [reporter.PORT, *(port for service in SERVICES.values() for port in service.ports)]
    start = _FIRST_BASE + (os.getpid() * 37) % (_LAST_BASE - _FIRST_BASE)
    for step in range(200):
        base = _FIRST_BASE + (start + step * 211 - _FIRST_BASE) % (_LAST_BASE - _FIRST_BASE)
        if all(is_free(base + port) for port in ports):
            return base
    raise RuntimeError("no free port base found")


@contextmanager
def run_stack(
    home: Path, *, profile: Profile = "demo", serves: bool = False
) -> Iterator[RunningStack]:
    """Run a stack in a folder; it ends with this process, however that ends.

    ``serves``: with `runbook serve`, which looks whenever an alert fires.
    """
    base = find_port_base()
    try:
        env = local.up(
            home=home,
            port_base=base,
            profile=profile,
            owner_pid=os.getpid(),
            deadline_s=120,
            serves=serves,
        )
        yield RunningStack(env, home.resolve(), base)
    finally:
        local.down(home=home)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Run one stack for the whole session, whichever modules ask for it."""
    # Each module that imports this fixture gets one of its own; the first starts the stack
    # and, since session fixtures end in reverse order, is the last to end.
    if _shared:
        yield _shared[0]
        return
    with run_stack(tmp_path_factory.mktemp("stack")) as running:
        _shared.append(running)
        yield running
        _shared.clear()
