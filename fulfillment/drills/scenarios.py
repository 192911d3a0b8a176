"""What a drill injects. An environment registers its own through ``runbook.scenarios``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from runbook_lib.errors import UsageError
from runbook_lib.model import Verdict

from ..analysis.causes import Cause

DEFAULT_SCENARIO = "pipeline_paused"


@dataclass(frozen=True)
class Scenario(ABC):
    """One way in which labels come to wait.

    Attributes
    ----------
    cause_expected : the fault's name, and the cause that section 5 must name
    alert : the alert that must fire; empty: none is expected
    exercise_steps : steps of section 4 that the drill approves
    remedy_steps : steps of section 6 that the drill approves; none: the fault is taken back
        after the diagnosis, and the drill measures detection and diagnosis alone
    verdict_expected : after the remedy, or after the fault was taken back
    releases : whether labels are moved, so that a proof is needed
    """

    cause_expected: Cause
    alert: str = "FulfillmentDelay"
    exercise_steps: tuple[str, ...] = ()
    remedy_steps: tuple[str, ...] = ()
    verdict_expected: Verdict = Verdict.FIXED
    releases: bool = False
    steady_timeout_s: float = 30
    detect_timeout_s: float = 45
    notify_timeout_s: float = 20
    clear_timeout_s: float = 45

    @property
    def name(self) -> str:
        """The scenario's name: the cause's."""
        return str(self.cause_expected)

    @abstractmethod
    def inject(self, drill: Any) -> None:
        """Cause the fault for real, with orders of the drill's own in ``drill.order_ids``."""

    @abstractmethod
    def revert(self, drill: Any) -> None:
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
