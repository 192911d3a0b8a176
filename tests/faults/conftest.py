"""Two real stores for the fault tests, and a seed that is printed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway import StoreServer, run_juicefs, run_seaweedfs

RUNS = int(os.environ.get("RUNBOOK_FAULT_RUNS", "8"))


@pytest.fixture(scope="session", params=["juicefs", "seaweedfs"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StoreServer]:
    run = run_juicefs if request.param == "juicefs" else run_seaweedfs
    with run(tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def seed(tmp_path: Path) -> int:
    """A fresh seed; a failing test shows it."""
    chosen = random.SystemRandom().getrandbits(32)
    print(f"seed {chosen}")
    return chosen
