"""The runbook's policy: verdict, causes, next step and impact, by the journal alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fulfillment.analysis.causes import Cause
from fulfillment.policy import POLICY, Affected, count_affected
from runbook_lib.model import ActionPhase, CauseStatus, ClearTime, Finding, Verdict
from runbook_lib.policy import make_log_entry
from runbook_lib.record.actions import ActionRecord, group_actions
from runbook_lib.record.view import JournalView
from tests.support.incidents import PLAN, Teller, make_incident

SECTIONS = {
    "02": "02_signals_detection",
    "03": "03_immediate_actions",
    "05": "05_root_cause",
    "06": "06_remediation",
}


@pytest.fixture
def tell(tmp_path: Path) -> Teller:
    """Return an incident of which nothing was said yet."""
    return make_incident(tmp_path)


def view_of(tell: Teller) -> JournalView:
    return tell.incident.journal.view()


def finding(name: str, status: str = "supported", score: float = 0.9) -> Finding:
    return Finding(name=Cause(name), status=CauseStatus(status), score=score)


def diagnose(tell: Teller, *findings: Finding) -> None:
    tell.start("05_root_cause")
    tell.conclude(Verdict.INCIDENT, "why", findings=findings)


def list_records(tell: Teller) -> list[ActionRecord]:
    return group_actions(view_of(tell).actions)


class TestCauses:
    def test_a_cause_stays_after_its_remedy_with_its_strongest_sign(self, tell: Teller) -> None:
        diagnose(tell, finding("pipeline_paused", score=0.6))
        diagnose(tell, finding("pipeline_paused", score=0.9))
        tell.act(ActionPhase.APPLIED)
        diagnose(tell, finding("pipeline_paused", "refuted", -0.6), finding("surge", score=0.5))

        found = [(f.name, f.score) for f in POLICY.list_causes(view_of(tell))]
        assert found == [("pipeline_paused", 0.9), ("surge", 0.5)]

    def test_a_fault_that_ended_by_itself_was_the_cause(self, tell: Teller) -> None:
        diagnose(tell, finding("store_down"))
        diagnose(tell, finding("store_down", "refuted", -0.6))

        assert [f.name for f in POLICY.list_causes(view_of(tell))] == ["store_down"]
        assert [f.status for f in view_of(tell).findings()] == ["refuted"]

    def test_a_diagnosis_that_was_revised_is_none(self, tell: Teller) -> None:
        diagnose(tell, finding("metrics_blind"))
        diagnose(tell, finding("metrics_blind", "refuted", -0.6), finding("bad_prefix"))

        assert [f.name for f in POLICY.list_causes(view_of(tell))] == ["bad_prefix"]


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("", None),
        ("01:healthy", "unknown"),
        ("01:healthy 03:healthy", "healthy"),
        ("02:healthy 03:healthy 01:incident", "incident"),
        ("02:healthy", "unknown"),
        ("02:healthy 03:healthy", "healthy"),
        ("05:healthy", "healthy"),
        ("02:unknown 05:healthy", "unknown"),
        ("02:healthy 03:healthy 05:incident", "incident"),
        ("02:unknown 03:incident", "incident"),
        ("02:incident 03:incident 02:healthy 03:healthy", "healthy"),
        ("06:incident", "incident"),
        ("06:incident 02:healthy 03:healthy", "healthy"),
        ("02:incident act", "incident"),
        ("02:incident act 02:healthy 03:healthy", "healthy"),
        ("act 06:fixed act", "unknown"),
        ("02:incident act 06:fixed", "fixed"),
        ("act 06:fixed 07:unknown 08:healthy", "fixed"),
        ("act 06:fixed_alert_decaying 02:healthy 03:healthy", "fixed"),
        ("act 06:fixed_alert_decaying 02:fixed_alert_decaying", "fixed_alert_decaying"),
        ("act 06:fixed_alert_decaying 02:not_fixed 03:not_fixed", "not_fixed"),
        ("act 06:not_fixed 02:healthy", "not_fixed"),
        ("act 06:mitigated 02:healthy 03:healthy", "mitigated"),
        ("act 06:mitigated 02:healthy 03:healthy 05:healthy", "healthy"),
        ("act 06:fixed 05:mitigated", "mitigated"),
        ("act 06:fixed 02:unknown", "unknown"),
        ("act 06:fixed 02:incident", "incident"),
        ("act 06:fixed 02:incident 06:not_fixed", "not_fixed"),
        ("02:incident closed:fixed", "fixed"),
        ("closed:fixed 02:incident", "incident"),
    ],
)
def test_the_verdict_is_what_the_newest_conclusions_say(
    tell: Teller, said: str, verdict: str | None
) -> None:
    for word in said.split():
        section, _, told = word.partition(":")
        if section == "act":
            tell.act(ActionPhase.APPLIED)
        elif section == "closed":
            tell.record("closed", {"verdict": told})
        else:
            tell.section = SECTIONS.get(section, f"{section}_other")
            tell.conclude(Verdict(told), "said")

    assert POLICY.compute_verdict(view_of(tell)) == verdict


def test_what_waited_and_what_was_released_do_not_contradict_each_other(tell: Teller) -> None:
    assert count_affected(view_of(tell)) == Affected(None, None, 0, None)
    assert str(POLICY.compute_impact(view_of(tell))) == "not counted"
    tell.start("02_signals_detection", ticket_id="t-1")
    tell.read("2.3", "backlog", "breach", value=270, orders=130)
    for plan, moved in (("rel-1", 100), ("rel-1", 264), ("rel-2", 30)):  # rel-1 was resumed
        tell.act(ActionPhase.APPLIED, result={"plan": plan, "moved": moved})
    tell.read("2.3", "backlog", "ok", value=1, orders=0)
    tell.read("2.5", "ticket", "ok", ticket="t-2")
    assert count_affected(view_of(tell)) == Affected(294, 1, 294, 130)
    assert view_of(tell).tickets() == ("t-1", "t-2")
    impact = POLICY.compute_impact(view_of(tell))
    assert impact.affected == 294
    for count in ("294 affected", "294 released", "1 waiting", "130 late orders", "2 tickets"):
        assert count in str(impact)


def test_what_was_taken_back_was_not_released(tell: Teller) -> None:
    tell.act(ActionPhase.APPLIED, result={"plan": "rel-1", "moved": 7})
    tell.act(ActionPhase.APPLIED, action="undo", result={"plan": "rel-1-undo", "moved": 7})
    assert count_affected(view_of(tell)).released == 0


def test_who_had_something_done_is_told_once_each(tell: Teller) -> None:
    for operator in ("ana@box", "ana@box", "bo@box"):
        tell.act(ActionPhase.APPLIED, operator=operator)
    tell.act(ActionPhase.REFUSED, operator="cy@box")
    entry = make_log_entry(POLICY, view_of(tell), now=tell.clock.at)
    assert entry["by"] == ["ana@box", "bo@box"]


def test_where_to_go_next_follows_what_helps_while_that_is_of_now(tell: Teller) -> None:
    tell.conclude(Verdict.INCIDENT, "labels wait")
    now = view_of(tell).entries[-1].at
    section, sentence = POLICY.choose_next(view_of(tell), now=now)
    assert section == "05_root_cause"
    assert "03:14:06 UTC" in sentence
    tell.section = SECTIONS["05"]
    named = (finding("pipeline_paused"),)
    tell.conclude(Verdict.INCIDENT, "why", findings=named, advice=("1. 6.1 release",))
    tell.section = SECTIONS["02"]
    tell.conclude(Verdict.INCIDENT, "labels wait")
    now = view_of(tell).entries[-1].at
    assert POLICY.choose_next(view_of(tell), now=now).section == "06_remediation"
    assert (
        POLICY.choose_next(view_of(tell), now=now + timedelta(minutes=11)).section
        == "02_signals_detection"
    )


def test_an_incident_that_was_closed_before_any_conclusion_has_a_next_step(tell: Teller) -> None:
    tell.record("closed", {"verdict": "unknown"})
    step = POLICY.choose_next(view_of(tell), now=tell.clock.at)
    assert step.section == "03_immediate_actions"


def test_what_was_said_ten_minutes_ago_says_nothing_of_now(tell: Teller) -> None:
    for section in ("02", "03"):
        tell.section = SECTIONS[section]
        tell.conclude(Verdict.HEALTHY, "said")
    at = view_of(tell).entries[-1].at
    assert POLICY.compute_verdict(view_of(tell), now=at + timedelta(minutes=9)) is Verdict.HEALTHY
    assert POLICY.compute_verdict(view_of(tell), now=at + timedelta(minutes=11)) is None
    tell.clock.at += timedelta(minutes=11)
    tell.section = SECTIONS["03"]
    tell.conclude(Verdict.HEALTHY, "said")
    assert POLICY.compute_verdict(view_of(tell)) is Verdict.UNKNOWN


def test_what_section_6_saw_before_anything_was_changed_gets_old_too(tell: Teller) -> None:
    tell.section = SECTIONS["06"]
    tell.conclude(Verdict.INCIDENT, "nothing was changed")
    at = view_of(tell).entries[-1].at
    assert POLICY.compute_verdict(view_of(tell), now=at) is Verdict.INCIDENT
    assert POLICY.compute_verdict(view_of(tell), now=at + timedelta(hours=1)) is None


def test_an_alert_that_should_have_cleared_by_now_is_looked_at_again(tell: Teller) -> None:
    tell.act(ActionPhase.APPLIED)
    tell.section, at = SECTIONS["06"], tell.clock.at
    late = at + timedelta(minutes=2)
    clear = ClearTime(at, late, late, late, {})
    tell.conclude(Verdict.FIXED_ALERT_DECAYING, "said", clear=clear)
    assert POLICY.compute_verdict(view_of(tell), now=late) is Verdict.FIXED_ALERT_DECAYING
    assert POLICY.compute_verdict(view_of(tell), now=late + timedelta(seconds=1)) is Verdict.UNKNOWN
    for section in ("02", "03"):
        tell.section = SECTIONS[section]
        tell.conclude(Verdict.HEALTHY, "said")
    assert POLICY.compute_verdict(view_of(tell), now=late + timedelta(seconds=1)) is Verdict.FIXED


def test_a_run_may_ask_for_its_own_verdict(tell: Teller) -> None:
    tell.conclude(Verdict.INCIDENT, "labels wait")
    after = view_of(tell).last_seq
    assert POLICY.compute_verdict(view_of(tell), after=after) is None
    for section in ("02_signals_detection", "03_immediate_actions"):
        tell.section = section
        tell.conclude(Verdict.HEALTHY, "nothing waits")

    assert POLICY.compute_verdict(view_of(tell), after=after) is Verdict.HEALTHY


@pytest.mark.parametrize(
    ("action", "result", "words"),
    [
        ("release", {"moved": 1}, "released 1 label "),
        ("release", {"moved": 1204}, "released 1,204 labels "),
        ("release", {}, "released labels "),
        ("undo", {"moved": 2}, "took 2 labels "),
        ("create_synthetic", {"created": 3}, "made 3 synthetic "),
        ("unpause", {}, "unpaused "),
        ("something_new", {}, "something new"),
    ],
)
def test_what_was_done_is_told_in_the_past_tense(
    tell: Teller, action: str, result: dict[str, int], words: str
) -> None:
    tell.act(ActionPhase.APPLIED, action=action, target="{objects}", result=result)
    (record,) = list_records(tell)
    text = POLICY.describe_action(record)
    assert text.startswith(words)
    assert ("{objects}" in text) is not bool({"release", "undo", "create_synthetic"} & {action})


def test_what_was_only_planned_is_told_by_its_name(tell: Teller) -> None:
    tell.act(ActionPhase.PLANNED, target="x" * 80)
    (record,) = list_records(tell)
    assert POLICY.describe_action(record) == f"release: {'x' * 70}…"
    assert POLICY.describe_proof(record) == "planned"


@pytest.mark.parametrize(("action", "proof"), [("release", "proven"), ("restart", "verified")])
def test_only_a_check_of_every_object_is_a_proof(tell: Teller, action: str, proof: str) -> None:
    tell.act(ActionPhase.APPLIED, action=action)
    assert POLICY.describe_proof(list_records(tell)[0]) == "not verified"
    tell.act(ActionPhase.VERIFIED, action=action)
    assert POLICY.describe_proof(list_records(tell)[0]) == proof
    tell.act(ActionPhase.FAILED, action=action)
    assert POLICY.describe_proof(list_records(tell)[0]).endswith("failed")


def test_a_release_that_left_something_names_the_commands_that_finish_it(tell: Teller) -> None:
    tell.act(ActionPhase.APPLIED, result={"unproven": ["a"], "waiting": ["b"]})
    records = list_records(tell)
    settle, resume = POLICY.list_unfinished(records[0], records)
    assert f"runbook settle {PLAN} " in settle
    assert resume.endswith(f"runbook resume {PLAN}")

    plan = f"{PLAN}-settle-1"
    tell.act(ActionPhase.APPLIED, step="6.1.2", result={"plan": plan})
    records = list_records(tell)
    assert POLICY.list_unfinished(records[0], records) == [resume]
