"""Real stores for the fault tests, and a seed that is printed."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.faults.commands import Lane, open_lane
from tests.support.gateway import STORES, StoreServer, run_juicefs, run_seaweedfs
from tests.support.rgw import run_rgw

_RUN = {
    "juicefs": run_juicefs,
    "seaweedfs": run_seaweedfs,
    "rgw": run_rgw,
    "rgw-encrypted": partial(run_rgw, is_encrypted=True),
}
RUNS = int(os.environ.get("RUNBOOK_FAULT_RUNS", "5"))

#: For a test that needs conditions, or renames.
ON_SEAWEEDFS = pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run one case of each test, on the stores in turn; `make test-faults` runs them all."""
    if RUNS >= 100 or any("::" in argument for argument in config.args):
        return
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    chosen = []
    for number, own in enumerate(cases.values()):
        if own[0].path.is_relative_to(Path(__file__).parent):
            chosen.append(own[number % len(own)])
        else:
            chosen += own
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.fixture(scope="session", params=STORES)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StoreServer]:
    with _RUN[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def seed(tmp_path: Path) -> int:
    """A fresh seed; a failing test shows it."""
    chosen = random.SystemRandom().getrandbits(32)
    print(f"seed {chosen}")
    return chosen


@pytest.fixture
def lane(server: StoreServer, tmp_path: Path, seed: int) -> Iterator[Lane]:
    """One bucket, in which consumers take only when they are told to."""
    with open_lane(server, tmp_path / "lane", seed=seed, consumers=0) as opened:
        yield opened
