"""An incident to tell of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.incidents import Teller, make_incident


@pytest.fixture
def tell(tmp_path: Path) -> Teller:
    return make_incident(tmp_path)
