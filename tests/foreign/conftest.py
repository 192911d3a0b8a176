"""One foreign system for each store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.foreign.system import IDENTITIES, Foreign, run_foreign
from tests.support.gateway import run_juicefs, run_seaweedfs


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
