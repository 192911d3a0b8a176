"""How severe an incident is, for a runbook that brings no policy of its own."""

from __future__ import annotations

import pytest

from runbook_lib.policy import Impact, Policy
from runbook_lib.record.folds import Quantities

POLICY = Policy(quantities=Quantities(meanings={}, needed=frozenset()))


@pytest.mark.parametrize(
    ("orders", "minutes", "severity"),
    [(500, 1, 1), (1, 240, 1), (20, 1, 2), (1, 60, 2), (1, 1, 3), (0, 0, 4), (None, 0, 3)],
)
def test_the_severity_follows_from_how_many_waited_and_how_long(
    orders: int | None, minutes: float, severity: int
) -> None:
    impact = Impact(requests={}, affected=orders, files=0, longest_minutes=minutes or None)
    assert POLICY.compute_severity(impact) == severity
