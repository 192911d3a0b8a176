"""What a drill injects. An environment registers its own through ``runbook.scenarios``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from runbook_lib.errors import RevertError, UsageError
from runbook_lib.model import Verdict
from runbook_lib.record.log import utc_now

from ..analysis.causes import Cause
from ..change.synthetic import create_backlog, revert_backlog

_LABELS, _LABEL_KIB = 25, 4


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
    needs : in words, what only some environments have; empty: it runs on every DataFlow
    """

    cause_expected: Cause
    alert: str = "FulfillmentDelay"
    exercise_steps: tuple[str, ...] = ()
    remedy_steps: tuple[str, ...] = ()
    verdict_expected: Verdict = Verdict.FIXED
    releases: bool = False
    needs: str = ""
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


@dataclass(frozen=True)
class _SyntheticLabels(Scenario):
    """Labels that cannot ship: all it needs is the store, Prometheus and the add-ons."""

    def inject(self, drill: Any) -> None:
        """Make labels that seem to wait twice as long as the threshold."""
        create_backlog(
            drill.clients.store,
            settings=drill.settings,
            prefix=drill.settings.chaos_prefix,
            count=_LABELS,
            now=utc_now(),
            object_size_kb=_LABEL_KIB,
            age_minutes=2 * drill.settings.lag_threshold_minutes,
            drill_id=drill.id,
        )

    def revert(self, drill: Any) -> None:
        """Remove this drill's labels, if the remedy did not."""
        prefix = drill.settings.chaos_prefix
        removal = revert_backlog(drill.clients.store, prefix, drill_id=drill.id)
        if removal.failed:
            raise RevertError(f"{len(removal.failed)} labels of {drill.id} are left: {prefix}")


_SYNTHETIC = _SyntheticLabels(Cause.SYNTHETIC, remedy_steps=("6.3",))


def list_scenarios() -> dict[str, Scenario]:
    """Return every registered scenario by name, and the one that every DataFlow can run."""
    found: dict[str, Scenario] = {}
    for entry in entry_points(group="runbook.scenarios"):
        registered: Mapping[str, Scenario] = entry.load()
        found.update(registered)
    return found | {_SYNTHETIC.name: _SYNTHETIC}


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
