"""The runbook's policy: verdict, causes, next step and impact, by the journal alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fulfillment.policy import POLICY
from runbook_lib.model import (
    ActionPhase,
    CauseStatus,
    ClearTime,
    Finding,
    Verdict,
)
from runbook_lib.record.folds import ActionRecord, group_actions
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


def list_records(tell: Teller) -> list[ActionRecord]:
    return group_actions(view_of(tell).actions)


def get_record(tell: Teller, plan: str) -> ActionRecord:
    return next(record for record in list_records(tell) if record.plan == plan)


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


QUIET = {"FulfillmentDelay": "resolved", "FulfillmentUploadFailing": "resolved"}
FIRING = {**QUIET, "FulfillmentDelay": "firing"}
LOW = {"lag_is_over": False, "lag_is_low": True, "uploads": "succeeding"}
GONE = {"dag_paused": False, "dag_failed_runs": 0, "dag_import_errors": False}


def play(tell: Teller, story: str) -> None:
    """Take the readings of a story, word by word."""
    for word in story.split():
        read(tell, word)


def read(tell: Teller, word: str) -> None:
    """Take the readings that a word stands for, as sections 2, 3 and 5 do."""
    if word == "well":
        since = tell.clock.at
        tell.read("2.1", "lag", "ok", value=0, alerts=QUIET, observations=LOW, well_since=since)
        read(tell, "calm")
    elif word == "calm":
        tell.read("2.3", "backlog", "ok", value=0, observations={"waiting": "usual"})
        tell.read("3.3", "store", "ok")
    elif word == "late":
        over = {"lag_is_over": True, "lag_is_low": False}
        tell.read("2.1", "lag", "breach", value=12, alerts=FIRING, observations=over)
        tell.read("2.3", "backlog", "breach", value=3, observations={"waiting": "overdue"})
        tell.read("3.3", "store", "ok")
    elif word == "alert":
        tell.read("2.1", "lag", "breach", value=0, alerts=FIRING, observations=LOW)
        read(tell, "calm")
    elif word == "uploads":
        failing = {**LOW, "uploads": "failing"}
        tell.read("2.1", "lag", "ok", value=0, alerts=QUIET, observations=failing)
        read(tell, "calm")
    elif word == "more":
        tell.read("6.5", "recovery", "breach", value=6, observations={"waiting": "above"})
    elif word == "blind":
        tell.read("2.1", "lag", "unknown", reason="refused")
    elif word == "paused":
        tell.read("5.3", "pipeline", "breach", observations={**GONE, "dag_paused": True})
        tell.section = "05_root_cause"
        tell.conclude(Verdict.INCIDENT, "why", findings=(finding("pipeline_paused"),))
    elif word == "runs":
        tell.read("5.3", "pipeline", "ok", observations=GONE)
    elif word == "clears":
        later = tell.clock.at + timedelta(minutes=9)
        clear = ClearTime(later)
        tell.read("6.5", "recovery", "ok", value=0, clear=clear)
    elif word == "act":
        tell.act(ActionPhase.APPLIED)
        tell.act(ActionPhase.VERIFIED)
    elif word == "try":
        tell.act(ActionPhase.APPLIED)
    elif word == "wait":
        tell.clock.at += timedelta(minutes=11)
    elif word.startswith("closed:"):
        tell.record("closed", {"verdict": word.removeprefix("closed:")})
    else:
        raise ValueError(word)


@pytest.mark.parametrize(
    ("story", "verdict", "section"),
    [
        ("", None, "02"),
        ("well", "healthy", "08"),
        ("well blind", "unknown", ""),
        ("late", "incident", "05"),
        ("late blind", "incident", ""),
        ("alert", "incident", ""),
        ("uploads", "incident", ""),
        ("well paused", "incident", ""),
        ("late wait", "unknown", ""),
        ("well wait", "unknown", ""),
        ("late paused well runs", "fixed", ""),
        ("late paused well", "unknown", ""),
        ("late paused well paused", "mitigated", ""),
        ("late well", "unknown", ""),
        ("late paused act", "unknown", ""),
        ("late paused act late", "not_fixed", ""),
        ("late paused act well", "unknown", ""),
        ("late paused act well runs", "fixed", "07"),
        ("late paused try well runs", "unknown", ""),
        ("late paused act well paused", "mitigated", ""),
        ("late paused act well runs more", "not_fixed", "06"),
        ("late paused act alert runs", "unknown", ""),
        ("late paused act alert runs clears", "fixed_alert_decaying", ""),
        ("late paused act alert paused clears", "not_fixed", ""),
        ("late paused act alert runs clears wait alert runs", "not_fixed", ""),
        ("late paused act uploads runs", "not_fixed", ""),
        ("late paused act well runs late", "not_fixed", ""),
        ("late paused", "incident", "06"),
        ("late paused wait", "unknown", "02"),
        ("closed:unknown", "unknown", "02"),
        ("late closed:fixed", "fixed", ""),
        ("late well closed:unknown", "unknown", ""),
    ],
)
def test_verdict_and_next_section_follow_from_the_readings_of_now(
    tell: Teller, story: str, verdict: str | None, section: str
) -> None:
    play(tell, story)
    judgement = POLICY.judge(view_of(tell), now=tell.clock.at)
    assert judgement.verdict == verdict
    assert judgement.next.section.startswith(section)


def test_an_alert_that_was_not_read_since_its_time_to_clear_is_read_again(tell: Teller) -> None:
    play(tell, "late paused act alert runs clears")
    clear = view_of(tell).readings[-1].clear
    assert clear is not None
    later = clear.deadline + timedelta(seconds=1)
    judgement = POLICY.judge(view_of(tell), now=later)
    assert judgement.verdict is Verdict.UNKNOWN
    assert judgement.next.section.startswith("02")


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
    word = {"plan": f"{PLAN}-settle-1", "settled": settled}
    tell.act(ActionPhase.APPLIED, action="settle", step="6.1.2", result=word)
    known = {"lost": 0, "settled_by_word": settled, "unproven": 0}
    tell.act(
        ActionPhase.FAILED, action="settle", step="6.1.2", result={"plan": word["plan"], **known}
    )
    tell.act(ActionPhase.FAILED, result={**known, "unproven": unproven})
    assert get_record(tell, PLAN).is_proven is (unproven == 0)
