"""What a drill injects. An environment registers its own through ``runbook.scenarios``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Protocol

from ..errors import UsageError
from ..model import Cause
from .drill import Drill

__all__ = ["DEFAULT_SCENARIO", "Scenario", "find_scenario", "list_scenarios"]

DEFAULT_SCENARIO = "pipeline_paused"


class Scenario(Protocol):
    """One way in which labels come to wait.

    Attributes
    ----------
    name, cause_expected : the fault's name, and the cause that section 5 must name
    alert : the alert that must fire
    exercise_steps : steps of section 4 that the drill approves
    remedy_steps : steps of section 6 that the drill approves
    releases : whether labels are moved, so that a proof is needed
    """

    name: str
    cause_expected: Cause
    alert: str
    exercise_steps: tuple[str, ...]
    remedy_steps: tuple[str, ...]
    releases: bool
    steady_timeout_s: float
    detect_timeout_s: float
    notify_timeout_s: float
    clear_timeout_s: float

    def inject(self, drill: Drill) -> None:
        """Cause the fault for real, with orders of the drill's own in ``drill.order_ids``."""

    def revert(self, drill: Drill) -> None:
        """Take the fault back, whatever state the drill ended in."""


def list_scenarios() -> dict[str, Scenario]:
    """Return every registered scenario by name."""
    found: dict[str, Scenario] = {}
    for entry in entry_points(group="runbook.scenarios"):
        registered: Mapping[str, Scenario] = entry.load()
        found.update(registered)
    return found


def find_scenario(name: str) -> Scenario:
    """Return the scenario with this name.

    Raises
    ------
    UsageError
        When there is none; lists those that exist.
    """
    scenarios = list_scenarios()
    if name not in scenarios:
        known = ", ".join(sorted(scenarios)) or "none (install the extra 'stack')"
        raise UsageError(f"there is no drill scenario {name!r}; there are: {known}")
    return scenarios[name]
