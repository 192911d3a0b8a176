"""How a drill's score follows from its journal."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chainlog import Entry
from fulfillment.drills import Scenario, find_scenario, score
from runbook_lib.errors import ExitCode
from runbook_lib.model import Verdict
from runbook_lib.record.view import JournalView
from runbook_lib.run.documents import Document
from tests.support.incidents import START

GOALS = replace(
    find_scenario("synthetic"),
    name="pipeline_paused",
    verdict_expected=Verdict.FIXED,
    releases=True,
    detect_timeout_s=30,
    clear_timeout_s=40,
)
PROOF = {
    "plan": "rel-1", "in_place": 5, "gone_after_landed": 1, "lost": 0, "foreign_changed": 0
}  # fmt: skip


def mark(event: str, reason: str = "", **facts: Any) -> tuple[str, dict[str, Any]]:
    return "mark", {"what": f"drill_{event}", "reason": reason, "facts": facts}


def act(phase: str, **result: Any) -> tuple[str, dict[str, Any]]:
    facts = {"step": "6.1", "action": "release", "phase": phase, "target": "x"}
    action = {**facts, "result": result}
    return "action", {"action": action}


def conclude(section: str, verdict: str, *causes: str) -> tuple[str, dict[str, Any]]:
    findings = [{"name": cause, "status": "supported"} for cause in causes]
    conclusion = {"section": section, "verdict": verdict, "summary": "", "findings": findings}
    return "conclusion", {"conclusion": conclusion}


def diagnose(cause: str) -> tuple[str, dict[str, Any]]:
    return conclude("05_root_cause", "incident", cause)


#: A drill that meets every goal: what was written, by its name here, and at which second.
PERFECT: dict[str, tuple[float, tuple[str, dict[str, Any]]]] = {
    "started": (0, mark("started")),
    "inject": (1, mark("inject")),
    "detect": (8.4, mark("detect")),
    "notify": (9.5, mark("notify", told_s={"slack": 8.0, "email": 8.0, "teams": 8.1})),
    "diagnosis": (10, mark("diagnosis")),
    "cause": (18, diagnose("pipeline_paused")),
    "diagnosed": (19, mark("diagnosed")),
    "remedy": (20, mark("remedy")),
    "applied": (25, act("applied", plan="rel-1")),
    "proof": (28, act("verified", **PROOF)),
    "remedied": (29, mark("remedied")),
    "cleared": (32, mark("cleared")),
    "judged": (33, conclude("06_remediation", "fixed")),
    "revert": (34, mark("revert")),
    "reverted": (35.5, mark("reverted")),
    "steady_again": (36, mark("steady_again")),
}


def score_journal(
    goals: Scenario = GOALS, *, without: str = "", **changed: tuple[float, Any]
) -> Document:
    told = {**PERFECT, **changed}
    kept = sorted((told[name] for name in told if name != without), key=lambda item: item[0])
    entries = [
        Entry(seq, START + timedelta(seconds=after_s), kind, data, "", "")
        for seq, (after_s, (kind, data)) in enumerate(kept, 1)
    ]
    return score(JournalView(entries), goals, incident="inc-1", drill="d1")


def test_a_perfect_drill_meets_every_objective_and_its_times_are_those_of_its_marks() -> None:
    document = score_journal()
    assert (document.missed, document.exit_code, document.verdict) == ((), 0, "fixed")
    assert document.phases == {
        "detect_s": 7.4,
        "notify_s": {"slack": 8.0, "email": 8.0, "teams": 8.1},
        "diagnose_s": 9.0,
        "remediate_s": 9.0,
        "clear_s": 7.0,
        "revert_s": 1.5,
    }
    assert (document.cause_found, document.objects_lost) == (("pipeline_paused",), 0)
    told = json.loads(document.to_json())
    named = {"scenario", "cause_expected", "foreign_touched", "objectives", "reverted", "report"}
    assert named <= told.keys()


_LATE_SLACK = {"slack": 1.0}


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({"notify": (9.5, mark("notify", told_s=_LATE_SLACK))}, {"every channel is notified"}),
        ({"cause": (20, diagnose("pipeline_paused"))}, {"cause is named"}),
        ({"proof": (28, act("failed", **{**PROOF, "lost": 1}))}, {"nothing is lost"}),
        (
            {"proof": (28, act("failed", **{**PROOF, "foreign_changed": 2}))},
            {"nothing outside the plan is written"},
        ),
        (
            {"proof": (28, act("verified", **{**PROOF, "in_place": 0, "gone_after_landed": 0}))},
            {"labels are released"},
        ),
        ({"failed": (34, mark("failed", "it broke"))}, set()),
    ],
)
def test_each_shortfall_misses_its_own_objective(changed: dict[str, Any], missed: set[str]) -> None:
    document = score_journal(**changed)
    assert set(document.missed) == missed
    failed = ExitCode.RUN_FAILED if "failed" in changed else ExitCode.of(not missed)
    assert document.exit_code == failed


def test_what_did_not_happen_misses_its_objective() -> None:
    objectives = {
        "detect": "alert fires",
        "cleared": "alert clears",
        "judged": "verdict",
        "reverted": "the fault is taken back",
        "steady_again": "the fault is taken back",
    }
    missed = {name: score_journal(without=name).missed for name in objectives}
    assert missed == {name: (objective,) for name, objective in objectives.items()}


def test_without_a_proof_nobody_knows_what_was_lost() -> None:
    document = score_journal(without="proof")
    assert document.objects_lost is None
    assert "nothing is lost" in document.missed
    assert score_journal(replace(GOALS, releases=False), without="proof").missed == ()
