"""What a drill measured, and which of its objectives it met."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runbook_lib.model import Json, Verdict
from runbook_lib.show.text import VERDICT_WORDS

from ..analysis.causes import CAUSES
from ..commands.documents import Objective, Phases

if TYPE_CHECKING:
    from .scenarios import Scenario


@dataclass
class Scorecard:
    """What a drill measured; None where nothing was.

    ``is_told``: whether anything says what the receivers got (``NOTIFICATIONS_URL``).
    """

    phases: Phases = field(default_factory=Phases)
    cause_found: tuple[str, ...] = ()
    failed_notebooks: list[str] = field(default_factory=list)
    in_place: int = 0
    objects_lost: int | None = None
    foreign_touched: int | None = None
    verdict: Verdict | None = None
    reverted: bool = False
    steady_after: bool = False
    is_told: bool = True

    def add_proof(self, result: dict[str, Json]) -> None:
        """Take over the numbers of a release's proof; other actions' results have none."""
        if "lost" in result and "foreign_changed" in result:
            self.in_place += int(result["in_place"]) + int(result["gone_after_landed"])
            self.objects_lost = (self.objects_lost or 0) + int(result["lost"])
            self.foreign_touched = (self.foreign_touched or 0) + int(result["foreign_changed"])


def compute_objectives(card: Scorecard, scenario: Scenario) -> list[Objective]:
    """Hold what was measured against what the scenario promises."""
    missing = [channel for channel, after_s in card.phases.notify_s if after_s is None]
    notified = f"missing: {', '.join(missing)}" if missing else "all three"
    clears = "alert clears, every channel says so" if card.is_told else "alert clears"
    channels = [_say("every channel is notified", "slack, email, teams", notified, not missing)]
    alerting = [
        _within("alert fires", card.phases.detect_s, scenario.detect_timeout_s),
        *(channels if card.is_told else ()),
        _within(clears, card.phases.clear_s, scenario.clear_timeout_s),
    ]
    cause, verdict = str(scenario.cause_expected), scenario.verdict_expected
    named = " and ".join(CAUSES[name].words for name in card.cause_found)
    judged = VERDICT_WORDS[card.verdict] if card.verdict else "none"
    failed = ", ".join(card.failed_notebooks) or "no failure"
    after = "reverted, " if card.reverted else "not reverted, "
    after += "steady state" if card.steady_after else "not in steady state"
    is_as_before = card.reverted and card.steady_after
    proven = f"{card.in_place} proven in place"
    releasing = [
        _say("labels are released", "at least 1 proven in place", proven, card.in_place > 0),
        _nothing("nothing is lost", card.objects_lost),
        _nothing("nothing foreign is touched", card.foreign_touched),
    ]
    return [
        *(alerting if scenario.alert else ()),
        _say("cause is named", CAUSES[cause].words, named or "none", cause in card.cause_found),
        _say("verdict", VERDICT_WORDS[verdict], judged, card.verdict is verdict),
        _say("notebooks run to their end", "no failure", failed, not card.failed_notebooks),
        _say("everything is as before", "reverted, steady state", after, is_as_before),
        *(releasing if scenario.releases else ()),
    ]


def _say(name: str, target: str, actual: str, met: bool) -> Objective:
    return Objective(name=name, target=target, actual=actual, met=met)


def _within(name: str, actual_s: float | None, limit_s: float) -> Objective:
    text = "not reached" if actual_s is None else f"{actual_s:.1f} s"
    met = actual_s is not None and actual_s <= limit_s
    return _say(name, f"within {limit_s:.0f} s", text, met)


def _nothing(name: str, count: int | None) -> Objective:
    return _say(name, "0", "no proof" if count is None else str(count), count == 0)
