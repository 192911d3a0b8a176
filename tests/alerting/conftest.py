"""The receivers of each test, and the store that its service looks at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.serving import Receivers, run_receivers


@pytest.fixture
def receivers() -> Iterator[Receivers]:
    with run_receivers() as running:
        yield running
