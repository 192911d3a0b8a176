"""What a drill measured, and which of its objectives it met."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..model import Json, Verdict
from .documents import NotifyTimes, Objective, Phases

if TYPE_CHECKING:
    from .scenarios import Scenario

__all__ = ["Scorecard", "compute_objectives"]


@dataclass
class Scorecard:
    """What a drill measured; None where a phase was not reached. Durations in seconds."""

    detect_s: float | None = None
    notify_s: dict[str, float] = field(default_factory=dict)
    diagnose_s: float | None = None
    remediate_s: float | None = None
    clear_s: float | None = None
    causes: list[str] = field(default_factory=list)
    failed_notebooks: list[str] = field(default_factory=list)
    in_place: int = 0
    objects_lost: int | None = None
    foreign_touched: int | None = None
    verdict: Verdict | None = None
    reverted: bool = False
    steady_after: bool = False

    def add_proof(self, result: dict[str, Json]) -> None:
        """Take over the numbers of a release's proof; other actions' results have none."""
        if "lost" in result and "foreign_changed" in result:
            self.in_place += int(result["in_place"]) + int(result["gone_after_landed"])
            self.objects_lost = (self.objects_lost or 0) + int(result["lost"])
            self.foreign_touched = (self.foreign_touched or 0) + int(result["foreign_changed"])

    def phases(self) -> Phases:
        """Return the durations as the document has them."""
        return Phases(
            detect_s=self.detect_s,
            notify_s=NotifyTimes(**{c: self.notify_s.get(c) for c in NotifyTimes.model_fields}),
            diagnose_s=self.diagnose_s,
            remediate_s=self.remediate_s,
            clear_s=self.clear_s,
        )


def compute_objectives(card: Scorecard, scenario: Scenario) -> list[Objective]:
    """Hold what was measured against what the scenario promises."""

    def within(name: str, actual: float | None, limit_s: float) -> Objective:
        met = actual is not None and actual <= limit_s
        text = "not reached" if actual is None else f"{actual:.1f} s"
        return Objective(name=name, target=f"within {limit_s:.0f} s", actual=text, met=met)

    missing = [c for c in NotifyTimes.model_fields if c not in card.notify_s]
    found = ", ".join(card.causes) or "none"
    alerting = [
        within("alert fires", card.detect_s, scenario.detect_timeout_s),
        Objective(
            name="every channel is notified",
            target="slack, email, teams",
            actual=f"missing: {', '.join(missing)}" if missing else "all three",
            met=not missing,
        ),
        within("alert clears, every channel says so", card.clear_s, scenario.clear_timeout_s),
    ]
    objectives = [
        *(alerting if scenario.alert else ()),
        Objective(
            name="cause is named",
            target=str(scenario.cause_expected),
            actual=found,
            met=str(scenario.cause_expected) in card.causes,
        ),
        Objective(
            name="verdict",
            target=str(scenario.verdict_expected),
            actual=str(card.verdict or "none"),
            met=card.verdict is scenario.verdict_expected,
        ),
        Objective(
            name="notebooks run to their end",
            target="no failure",
            actual=", ".join(card.failed_notebooks) or "no failure",
            met=not card.failed_notebooks,
        ),
        Objective(
            name="everything is as before",
            target="reverted, steady state",
            actual=f"{'reverted' if card.reverted else 'not reverted'}, "
            f"{'steady state' if card.steady_after else 'not in steady state'}",
            met=card.reverted and card.steady_after,
        ),
    ]
    if scenario.releases:
        objectives += [
            Objective(
                name="labels are released",
                target="at least 1 proven in place",
                actual=f"{card.in_place} proven in place",
                met=card.in_place > 0,
            ),
            _nothing("nothing is lost", card.objects_lost),
            _nothing("nothing foreign is touched", card.foreign_touched),
        ]
    return objectives


def _nothing(name: str, count: int | None) -> Objective:
    actual = "no proof" if count is None else str(count)
    return Objective(name=name, target="0", actual=actual, met=count == 0)
