"""How a drill is scored."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fulfillment.analysis.causes import Cause
from fulfillment.commands import CHANNELS, DrillRevertDocument, Phases
from fulfillment.drills import Scorecard, compute_objectives, list_accepted
from runbook_lib.model import Verdict


def scenario(*, releases: bool = True, alert: str = "FulfillmentDelay") -> Any:
    return SimpleNamespace(
        name="pipeline_paused",
        cause_expected=Cause.PIPELINE_PAUSED,
        alert=alert,
        verdict_expected=Verdict.FIXED,
        releases=releases,
        detect_timeout_s=30.0,
        clear_timeout_s=40.0,
    )


def perfect() -> Scorecard:
    card = Scorecard(
        phases=Phases(
            detect_s=7.0,
            notify_s={"slack": 8.0, "email": 8.0, "teams": 8.1},
            diagnose_s=9.0,
            remediate_s=9.0,
            clear_s=3.0,
        ),
        cause_found=("pipeline_paused",),
        verdict=Verdict.FIXED,
        reverted=True,
        steady_after=True,
    )
    card.add_proof({"in_place": 6, "gone_after_landed": 0, "lost": 0, "foreign_changed": 0})
    return card


def unmet(card: Scorecard, *, releases: bool = True) -> set[str]:
    return {o.name for o in compute_objectives(card, scenario(releases=releases)) if not o.met}


def test_a_perfect_drill_meets_every_objective() -> None:
    assert unmet(perfect()) == set()


def test_where_healthy_is_expected_a_trouble_that_passed_is_no_miss() -> None:
    assert list_accepted(Verdict.HEALTHY) == (Verdict.HEALTHY, Verdict.FIXED)
    assert list_accepted(Verdict.FIXED) == (Verdict.FIXED,)


def test_an_empty_drill_meets_nothing_but_running_no_failing_notebook() -> None:
    objectives = compute_objectives(Scorecard(), scenario())
    assert {o.name for o in objectives if o.met} == {"no notebook fails"}


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"detect_s": None}, "alert fires"),
        ({"detect_s": 31.0}, "alert fires"),
        ({"notify_s": {**dict.fromkeys(CHANNELS), "slack": 1.0}}, "every channel is notified"),
        ({"cause_found": ("surge",)}, "cause is named"),
        ({"clear_s": None}, "alert clears, every channel says so"),
        ({"objects_lost": 1}, "nothing is lost"),
        ({"objects_lost": None}, "nothing is lost"),
        ({"foreign_touched": 2}, "nothing outside the plan is written"),
        ({"in_place": 0}, "labels are released"),
        ({"verdict": Verdict.FIXED_ALERT_DECAYING}, "verdict"),
        ({"failed_notebooks": ["05_root_cause"]}, "no notebook fails"),
        ({"reverted": False}, "the fault is taken back"),
        ({"steady_after": False}, "the fault is taken back"),
    ],
)
def test_each_shortfall_misses_its_own_objective(change: dict[str, Any], missed: str) -> None:
    card = perfect()
    for name, value in change.items():
        setattr(card.phases if name in Phases.model_fields else card, name, value)
    assert unmet(card) == {missed}


def test_a_scenario_without_a_release_needs_no_proof() -> None:
    card = perfect()
    card.objects_lost = card.foreign_touched = None
    card.in_place = 0
    assert unmet(card, releases=False) == set()


def test_results_of_other_actions_are_no_proof() -> None:
    card = Scorecard()
    card.add_proof({"paused": False})
    assert card.objects_lost is None


def test_a_scenario_without_an_alert_is_not_scored_on_alerting() -> None:
    card = perfect()
    card.phases = Phases()
    objectives = list(compute_objectives(card, scenario(alert="")))
    assert all(o.met for o in objectives)
    assert not [o.name for o in objectives if "alert" in o.name or "channel" in o.name]


def test_without_a_killed_drill_nothing_is_said_of_a_revert() -> None:
    nothing = DrillRevertDocument(schema_name="runbook/drill-revert/1")
    assert set(nothing.left_out) == {"reverted", "steady"}
    killed = nothing.model_copy(update={"drill": "d1"})
    assert killed.left_out == ()
