"""The runbook's policy: verdict, causes, next step and impact, by the journal alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulfillment.policy import _RULES, POLICY
from fulfillment.sections import SECTIONS
from runbook_lib.model import ActionPhase, CauseStatus, Finding, Verdict
from runbook_lib.record.folds import group_actions
from runbook_lib.record.view import JournalView
from tests.support.incidents import PLAN, Teller, make_incident


@pytest.fixture
def tell(tmp_path: Path) -> Teller:
    return make_incident(tmp_path)


def view_of(tell: Teller) -> JournalView:
    return tell.incident.journal.view()


def finding(name: str, status: str = "supported") -> Finding:
    return Finding(name=name, status=CauseStatus(status))


def diagnose(tell: Teller, *findings: Finding) -> None:
    tell.start("05_root_cause")
    tell.conclude(Verdict.INCIDENT, "why", findings=findings)


class TestCauses:
    def test_a_cause_stays_after_its_remedy(self, tell: Teller) -> None:
        diagnose(tell, finding("pipeline_paused"))
        tell.act(ActionPhase.APPLIED)
        diagnose(tell, finding("pipeline_paused", "refuted"), finding("surge"))

        found = [finding.name for finding in POLICY.list_causes(view_of(tell))]
        assert found == ["pipeline_paused", "surge"]

    def test_a_fault_that_ended_by_itself_was_the_cause(self, tell: Teller) -> None:
        diagnose(tell, finding("store_down"))
        diagnose(tell, finding("store_down", "refuted"))

        assert [f.name for f in POLICY.list_causes(view_of(tell))] == ["store_down"]
        assert [f.status for f in view_of(tell).diagnosis.findings] == ["refuted"]

    def test_a_diagnosis_that_was_revised_is_none(self, tell: Teller) -> None:
        diagnose(tell, finding("metrics_blind"))
        diagnose(tell, finding("metrics_blind", "refuted"), finding("bad_prefix"))

        assert [f.name for f in POLICY.list_causes(view_of(tell))] == ["bad_prefix"]


def test_each_rule_leads_to_a_section_that_there_is() -> None:
    assert {step.section for _, step in _RULES.values()} <= {"", *SECTIONS}


def test_a_section_alone_needs_only_what_it_reads(tell: Teller) -> None:
    tell.read("3.3", "store", "ok")
    now = tell.clock.at
    alone = POLICY.judge(view_of(tell), now=now, steps=["3.3"])
    whole = POLICY.judge(view_of(tell), now=now)
    assert (alone.verdict, whole.verdict) == (Verdict.HEALTHY, Verdict.UNKNOWN)


def test_each_order_that_a_look_found_late_is_counted_once(tell: Teller) -> None:
    assert str(POLICY.compute_impact(view_of(tell))) == "orders not counted"
    tell.start("02_signals_detection", ticket_id="t-1")
    for orders in (("1", "2"), ("2", "3"), ()):
        tell.read("2.3", "backlog", "ok", order_ids=orders, longest_minutes=37.0)
    tell.read("2.5", "ticket", "ok", ticket="t-2")
    impact = POLICY.compute_impact(view_of(tell))
    assert list(impact.requests) == ["1", "2", "3"]
    assert str(impact) == "3 orders affected; longest wait 37.0 min"
    first, last = impact.requests["2"]
    assert first < last


@pytest.mark.parametrize(("unproven", "settled"), [(0, 2), (1, 1)])
def test_a_word_on_some_labels_proves_nothing_of_the_others(
    tell: Teller, unproven: int, settled: int
) -> None:
    tell.act(ActionPhase.APPLIED, result={"moved": 4, "unproven": ["a", "b"]})
    word = {"plan": f"{PLAN}-settle-1", "about": PLAN, "settled": settled}
    tell.act(ActionPhase.APPLIED, action="settle", step="6.1.2", result=word)
    known = {"lost": 0, "settled_by_word": settled, "unproven": 0}
    tell.act(ActionPhase.FAILED, action="settle", step="6.1.2", result={**word, **known})
    tell.act(ActionPhase.FAILED, result={**known, "unproven": unproven})
    records = {record.plan: record for record in group_actions(view_of(tell).actions)}
    assert records[PLAN].is_proven is (unproven == 0)
