"""One foreign system for each store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.foreign.system import IDENTITIES, Foreign, run_foreign
from tests.support.gateway import run_juicefs, run_seaweedfs

#: Tests that take a minute on each store: `make test` runs them on the other store.
_ON_SECOND_STORE = (
    "test_a_backlog_is_released_beside_a_consumer_and_a_worker[seaweedfs]",
    "test_a_release_is_taken_back_while_the_consumer_stands_still[juicefs]",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` leaves to `make test-long`."""
    for item in items:
        if item.name in _ON_SECOND_STORE:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session", params=["seaweedfs", "juicefs"])
def foreign(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Foreign]:
    folder = tmp_path_factory.mktemp(request.param)
    store = folder / "store"
    run = (
        run_juicefs(store)
        if request.param == "juicefs"
        else run_seaweedfs(store, identities=IDENTITIES)
    )
    with run as server, run_foreign(server, folder) as system:
        yield system
