"""What sections 4 and 6 change, when they refuse, and how section 6 judges the outcome."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from fulfillment.analysis.causes import CAUSES
from fulfillment.change.release import MOVE
from fulfillment.investigation import Investigation
from fulfillment.policy import POLICY
from fulfillment.quantities import Backlog
from fulfillment.sections import chaos, detection, immediate, remediation, root_cause
from objectmove.errors import NotNowError
from runbook_lib.errors import (
    PlanExpiredError,
    PlanNotApprovedError,
    PlanUsedError,
    SafetyError,
    StoppedAtPlanError,
    UsageError,
)
from runbook_lib.model import ActionPhase, CauseStatus, Conclusion, Status, Verdict
from runbook_lib.section import SectionModule
from tests.support.world import ORDER, PEAKS, TICKET, World


def carry_out(inv: Investigation, step: str) -> Any:
    plan = inv.plan(step)
    inv.apply(plan, approve=plan.sha256)
    return inv.verify(plan)


def keys(world: World, prefix: str) -> list[str]:
    return [k for k in world.store.objects if k.startswith(prefix)]


def test_a_paused_pipeline_is_released_by_move_then_unpaused(world: World) -> None:
    key = world.put_label(25)
    world.dag = replace(world.dag, is_paused=True)
    inv = world.open(remediation)
    plan = inv.plan("6.1")
    assert plan.kind is MOVE
    with pytest.raises(StoppedAtPlanError):
        inv.apply(plan)
    assert keys(world, "pending/") == [key]
    entry = inv.apply(plan, approve=plan.sha256)
    assert entry.phase is ActionPhase.APPLIED
    assert entry.result["moved"] == 1
    assert world.calls == ["pause", "resume"]
    proof = inv.verify(plan)
    assert proof.phase is ActionPhase.VERIFIED
    assert (proof.result["in_place"], proof.result["lost"]) == (1, 0)
    assert keys(world, "ready/") == [key.replace("pending/", "ready/")]
    assert carry_out(inv, "6.2").phase is ActionPhase.VERIFIED
    assert not world.dag.is_paused


def test_a_stopped_worker_is_started_then_re_triggered(world: World) -> None:
    world.put_label(25)
    own = world.settings.worker_service
    world.services[own] = replace(world.services[own], running=False, state="STOPPED")
    world.down.add("fulfillment")
    inv = world.open(remediation)
    first, second = remediation.put_in_order(inv.plan("6.1"), inv.plan("6.2"))
    assert [(p.step, p.action) for p in (first, second)] == [("6.2", "start"), ("6.1", "retrigger")]
    told = inv.conclude()
    first_advice, second_advice = told.advice
    assert f"6.2 start {own}" in first_advice
    assert "6.1 " in second_advice
    assert all("runbook run 06" in text for text in told.advice)
    assert told.advice == world.open(root_cause).conclude().advice
    inv.apply(first, approve=first.sha256)
    world.down.clear()
    assert inv.verify(first).phase is ActionPhase.VERIFIED
    inv.apply(second, approve=second.sha256)
    assert inv.verify(second).phase is ActionPhase.VERIFIED
    assert world.calls == [f"start {own}", "trigger"]


def test_a_release_is_taken_back_through_the_same_gate(world: World) -> None:
    key = world.put_label(25)
    inv = world.open(remediation, way="release")
    release = inv.plan("6.1")
    inv.apply(release, approve=release.sha256)
    assert keys(world, "pending/") == []
    back = inv.plan("6.1.1", undo=release.id)
    assert (back.action, back.step, back.summary["objects"]) == ("undo", "6.1.1", 1)
    with pytest.raises(StoppedAtPlanError):
        inv.apply(back)
    # an approval of the release is none of its way back
    assert inv.apply(back, approve=release.sha256).phase is ActionPhase.PLANNED
    assert keys(world, "pending/") == []
    again = world.open(remediation, undo=release.id)
    assert again.plan("6.1.1").sha256 == back.sha256
    with pytest.raises(NotNowError, match="consumer-stands-still"):
        again.apply(back, approve=back.sha256)
    again = world.open(remediation, undo=release.id, consumer_stands_still="now")
    again.plan("6.1.1")
    assert again.apply(back, approve=back.sha256).result["moved"] == 1
    assert keys(world, "pending/") == [key]
    proof = again.verify(back)
    assert (proof.phase, proof.result["taken_back"]) == (ActionPhase.VERIFIED, 1)
    assert world.calls[-1] == "pause"  # an undo keeps the worker paused
    assert again.read_step("1.5").ways_on == (f"runbook resume {release.id} --resume-worker",)
    world.open(remediation, plan=release.id, resume_worker=True).resume(release)
    assert world.calls[-1] == "resume"
    assert again.read_step("1.5").status is Status.OK


def test_only_a_release_can_be_taken_back(world: World) -> None:
    world.dag = replace(world.dag, is_paused=True)
    inv = world.open(remediation)
    repair = inv.plan("6.2")
    with pytest.raises(UsageError, match=repair.id):
        inv.plan("6.1.1", undo=repair.id)


def test_a_re_trigger_that_moved_nothing_is_not_offered_again(world: World) -> None:
    world.put_label(25)
    assert world.worker is not None
    world.worker = replace(world.worker, last_move_at=world.now - timedelta(minutes=30))
    inv = world.open(remediation)
    assert carry_out(inv, "6.1").phase is ActionPhase.VERIFIED
    assert world.calls == ["trigger"]
    plan = inv.plan("6.1")
    assert plan.kind is MOVE
    assert "moved nothing" in plan.content.header.others


def test_nothing_to_do_is_an_empty_plan_for_every_action(world: World) -> None:
    inv = world.open(remediation)
    for step in inv.section.ACTIONS:
        plan = inv.plan(step)
        assert plan.is_empty, step
        assert inv.apply(plan).phase is ActionPhase.PLANNED
        assert inv.verify(plan).phase is ActionPhase.PLANNED
    assert inv.journal.actions == []
    assert world.calls == []


def test_a_store_that_is_down_forbids_the_release(world: World) -> None:
    world.put_label(25)
    world.store.unwell = "503"
    plan = world.open(remediation).plan("6.1")
    assert plan.is_empty
    assert CAUSES["store_down"].words in str(plan.summary["reason"])
    assert "6.2" in str(plan.summary["reason"])


def test_everything_else_is_planned_while_the_store_is_down(world: World) -> None:
    world.down.add("store")
    world.services["minio"] = replace(world.services["minio"], running=False)
    inv = world.open(remediation, ticket_id=TICKET)
    plans = {step: inv.plan(step) for step in inv.section.ACTIONS}
    assert [step for step, plan in plans.items() if plan.is_empty] == [
        *("6.1", "6.1.1", "6.1.2", "6.3")
    ]
    assert (plans["6.2"].action, plans["6.2"].target) == ("start", "minio")
    assert "object store" in str(plans["6.3"].summary["reason"])
    assert inv.journal.actions[0].step == "6.2"  # what has nothing to do is not journalled


@pytest.mark.parametrize("way", ["auto", "release", "retrigger"])
@pytest.mark.parametrize("rule", ["shipment", "metadata:tracking-number"])
def test_6_1_plans_nothing_and_says_why_when_a_client_fails(
    world: World, way: str, rule: str
) -> None:
    world.put_label(25)
    world.dag = replace(world.dag, is_paused=True)
    world.settings = world.settings.model_copy(update={"label_finished": rule})
    world.down.add("fulfillment")
    if rule != "shipment":
        world.store.unwell = "503"
    plan = world.open(remediation, way=way).plan("6.1")
    assert plan.is_empty
    expected = f"fulfillment: |503|{CAUSES['store_down'].words}"
    assert re.search(expected, str(plan.summary["reason"]))


@pytest.mark.parametrize("right", ["delete pending/", "write ready/"])
def test_a_key_without_a_right_that_a_move_needs_plans_and_applies_nothing(
    world: World, right: str
) -> None:
    key = world.put_label(25)
    inv = world.open(remediation, way="release")
    plan = inv.plan("6.1")
    world.rights = {**world.rights, right: (False, "AccessDenied")}
    with pytest.raises(SafetyError, match=f"lacks {right}: AccessDenied"):
        inv.apply(plan, approve=plan.sha256)
    assert keys(world, "pending/") == [key]
    assert keys(world, "ready/") == []
    refused = world.open(remediation, way="release").plan("6.1")
    assert refused.is_empty
    assert right in str(refused.summary["reason"])


def test_a_refresh_that_failed_is_planned_again(world: World) -> None:
    inv = world.open(remediation, ticket_id=TICKET)
    plan = inv.plan("6.4")
    inv.apply(plan, approve=plan.sha256)
    world.collection_failures = {"shipments": 1.0}
    assert inv.verify(plan).phase is ActionPhase.FAILED
    case = world.case
    world.case = None
    assert world.open(remediation, ticket_id=TICKET).plan("6.4").is_empty
    world.case = case
    assert not world.open(remediation, ticket_id=TICKET).plan("6.4").is_empty


def test_a_drill_moves_only_its_own_orders(world: World) -> None:
    world.put_label(25)
    since = (world.now - timedelta(minutes=25)).isoformat()
    world.put(
        "pending/77-0123456789ab.pdf", order_id="77", tracking_number="T", pending_since=since
    )
    world.dag = replace(world.dag, is_paused=True)
    world.incident.update(approver="drill:d1")
    world.incident.mark("drill_injected", orders=[ORDER])
    inv = world.open(remediation, only_orders=f"{ORDER},77")
    plan = inv.plan("6.1")
    assert plan.kind is MOVE
    assert plan.content.header.excluded == {"not_of_this_drill": 1}
    inv.apply(plan, approve=plan.sha256)
    assert keys(world, "pending/") == ["pending/77-0123456789ab.pdf"]


def test_an_approved_clean_up_of_proven_synthetic_objects_works_in_production(world: World) -> None:
    inv = world.open(chaos, count=2, object_size_kb=1, prefix="pending/")
    carry_out(inv, "4.1")
    world.put("pending/9000001-0123456789ab.pdf", chaos_scenario="fulfillment-delay")  # DataFlow's
    real = world.put_label(25)
    del world.store.objects[".runbook/environment.json"]
    world.settings = world.settings.model_copy(update={"runbook_environment": "production"})
    inv = world.open(remediation)
    plan = inv.plan("6.3")
    with pytest.raises(StoppedAtPlanError):
        inv.apply(plan)
    assert len(keys(world, "pending/")) == 4
    assert inv.apply(plan, approve=plan.sha256).result["removed"] == 3
    assert inv.verify(plan).phase is ActionPhase.VERIFIED
    assert keys(world, "pending/") == [real]


def test_a_synthetic_plan_is_carried_out_once_and_in_time(world: World) -> None:
    inv = world.open(chaos, count=1, object_size_kb=1)
    plan = inv.plan("4.1")
    typo = plan.sha256[:-1] + ("0" if plan.sha256[-1] != "0" else "1")
    with pytest.raises(PlanNotApprovedError, match=f"{typo} is the hash of no plan"):
        inv.apply(plan, approve=typo)
    with pytest.raises(PlanNotApprovedError, match="hash of no plan"):
        inv.apply(plan, approve=plan.sha256[:11])
    inv.apply(plan, approve=plan.sha256[:12])
    with pytest.raises(PlanUsedError, match="applied before"):
        inv.apply(plan, approve=plan.sha256)
    late = inv.plan("4.1")
    world.now += timedelta(minutes=16)
    with pytest.raises(PlanExpiredError):
        inv.apply(late, approve=late.sha256)
    assert len(keys(world, "chaos/")) == 1


def remedy(world: World) -> Investigation:
    """Take an incident through section 5 and 6 up to the last action."""
    world.put_label(25)
    world.put_lag(*[25.0] * 40)
    world.fire()
    world.dag = replace(world.dag, is_paused=True)
    for section in (root_cause, remediation):
        inv = world.open(section)
        for step in root_cause.STEPS:
            inv.read_step(step)
        inv.conclude()
    for step in ("6.1", "6.2"):
        carry_out(inv, step)
    world.now += timedelta(seconds=30)
    return world.open(remediation, wait_s=0)


def conclude(world: World, inv: Investigation) -> Verdict:
    assert world.worker is not None
    world.worker = replace(world.worker, last_run_at=world.now)
    world.count(
        "fulfillment_artifacts_failed_total", "reason", {r: [5.0] * 3 for r in ("storage_full",)}
    )
    runs = [(world.now - timedelta(seconds=s)).timestamp() for s in (3, 2, 1)]
    world.series["fulfillment_worker_last_run_timestamp_seconds"] = [world.line(runs)]
    world.runs = [replace(r, state="success") for r in world.runs]
    for step in inv.section.STEPS:
        inv.read_step(step)
    return inv.conclude().verdict


def test_a_recovery_is_as_new_as_the_reading_that_found_it(world: World) -> None:
    inv = remedy(world)
    world.series["fulfillment_exporter_refresh_interval_seconds"] = [world.line([15.0])]
    for step in inv.section.STEPS:
        inv.read_step(step)
    world.now += timedelta(seconds=4)
    world.put_lag(0.0, 0.0, 0.0)
    inv.read_step("6.5")
    conclusion = inv.conclude()
    assert conclusion.verdict is Verdict.FIXED_ALERT_DECAYING


def test_an_alert_that_looks_back_is_given_its_window_to_clear(world: World) -> None:
    def read_deadline() -> datetime:
        world.series["fulfillment_exporter_refresh_interval_seconds"] = [world.line([15.0])]
        clear = world.take(remediation, "6.5", wait_s=0).clear
        assert clear is not None
        return clear.deadline

    query = 'sum(increase(fulfillment_artifacts_failed_total{stage="upload"}[5m])) > 0'
    world.rules[1] = replace(world.rules[1], query=query)
    before = read_deadline()
    world.fire("FulfillmentUploadFailing")
    assert read_deadline() == before + timedelta(minutes=5)


def look(world: World, section: SectionModule) -> Conclusion:
    inv = world.open(section)
    for step in section.STEPS:
        inv.read_step(step)
    return inv.conclude()


def test_an_alert_that_fires_on_after_a_proven_fix_is_no_new_incident(world: World) -> None:
    inv = remedy(world)
    world.series["fulfillment_exporter_refresh_interval_seconds"] = [world.line([15.0])]
    world.put_lag(0.0, 0.0, 0.0)
    assert conclude(world, inv) is Verdict.FIXED_ALERT_DECAYING
    for section in (detection, immediate, root_cause):
        assert look(world, section).verdict is Verdict.FIXED_ALERT_DECAYING
    assert POLICY.judge(world.incident.journal.view()).verdict is Verdict.FIXED_ALERT_DECAYING
    world.now += timedelta(minutes=5)
    world.put_lag(0.0, 0.0, 0.0)
    late = look(world, detection)
    assert late.verdict is Verdict.NOT_FIXED
    assert "the alert should have cleared by now: FulfillmentDelay: firing" in late.summary
    assert POLICY.judge(world.incident.journal.view()).verdict is Verdict.NOT_FIXED


def test_a_cause_that_stays_after_the_symptom_is_gone_stays_mitigated(world: World) -> None:
    inv = remedy(world)
    world.alerts.clear()
    world.put_lag(0.0, 0.0, 0.0)
    world.dag = replace(world.dag, is_paused=True)
    assert conclude(world, inv) is Verdict.MITIGATED
    look(world, detection)
    look(world, immediate)
    assert POLICY.judge(world.incident.journal.view()).verdict is Verdict.MITIGATED
    assert look(world, root_cause).verdict is Verdict.MITIGATED


def test_what_was_mended_is_past_and_shown_so(world: World) -> None:
    inv = remedy(world)
    world.alerts.clear()
    world.put_lag(0.0, 0.0, 0.0)
    assert conclude(world, inv) is Verdict.FIXED
    found = {f.name: f.status for f in world.incident.journal.view().diagnosis.findings}
    assert found["pipeline_paused"] is CauseStatus.PAST
    assert [f.name for f in POLICY.list_causes(world.incident.journal.view())] == [
        "pipeline_paused"
    ]


def test_what_others_mended_stays_a_cause_when_a_later_one_is_named(world: World) -> None:
    world.put_label(25)
    world.put_lag(*[25.0] * 40)
    world.dag = replace(world.dag, is_paused=True)
    look(world, root_cause)
    world.dag = replace(world.dag, is_paused=False)
    world.now += timedelta(seconds=30)
    assert world.worker is not None
    world.worker = replace(world.worker, last_run_at=world.now, last_move_at=world.now)
    look(world, root_cause)
    world.worker = replace(world.worker, paused=True)
    world.now += timedelta(seconds=30)
    found = {f.name: f.status for f in look(world, root_cause).findings}
    assert found["worker_stopped"] is CauseStatus.SUPPORTED
    assert found["pipeline_paused"] is CauseStatus.PAST
    named = [f.name for f in POLICY.list_causes(world.incident.journal.view())]
    assert named == ["pipeline_paused", "worker_stopped"]


def climb(world: World) -> None:
    """Let nothing wait until half an hour ago, and ever more since; metrics are 35 min old."""
    waited = [0.0] * 10 + [7.1 * n for n in range(61)]
    world.series[PEAKS] = [world.line(waited, step_s=30)]


def test_the_baseline_is_of_the_hour_before_the_first_label_came_to_wait(world: World) -> None:
    climb(world)
    world.put_lag(*[0.0] * 5, *[float(n) for n in range(31)], step_s=60)
    world.take(detection, "2.1", window_minutes=60)
    world.now += timedelta(seconds=60)
    world.put_lag(*[0.1] * 40)
    for number in range(56):
        world.put_label(1, number)
    reading = world.take(remediation, "6.5", wait_s=0)
    assert (reading.status, reading.measured["usual_backlog"]) == (Status.BREACH, Backlog.ABOVE)
    assert "56 files waiting" in reading.reason


def test_without_a_sample_of_before_the_incident_the_age_alone_decides(world: World) -> None:
    climb(world)
    (line,) = world.series.popitem()[1]
    world.series[PEAKS] = [replace(line, samples=line.samples[-40:])]
    world.put_lag(*[float(n) for n in range(31)], step_s=60)
    world.take(detection, "2.1", window_minutes=60)
    world.put_lag(*[0.1] * 40)
    for number in range(56):
        world.put_label(1, number)
    reading = world.take(remediation, "6.5", wait_s=0)
    assert (reading.status, reading.measured["usual_backlog"]) == (Status.OK, Backlog.USUAL)
    world.put_label(7, 99)
    reading = world.take(remediation, "6.5", wait_s=0)
    assert (reading.status, reading.measured["usual_backlog"]) == (Status.BREACH, Backlog.ABOVE)


def test_what_nobody_wants_is_parked_by_a_plan_and_taken_back(world: World) -> None:
    world.settings = world.settings.model_copy(update={"label_finished": "shipment"})
    key = world.put_label(25)
    world.shipments = [{"orderId": ORDER, "status": "cancelled"}]
    refused = world.open(remediation, way="release").plan("6.1")
    assert "runbook plan --park-unwanted" in str(refused.summary["reason"])
    inv = world.open(remediation, way="release", park_unwanted=True)
    plan = inv.plan("6.1")
    assert (plan.action, plan.summary["by_status"]) == ("park", {"not_wanted": 1})
    assert inv.apply(plan, approve=plan.sha256).result["moved"] == 1
    assert inv.verify(plan).phase is ActionPhase.VERIFIED
    assert keys(world, "parked/") == [key.replace("pending/", "parked/not_wanted/")]
    again = world.open(remediation, undo=plan.id, consumer_stands_still="now")
    back = again.plan("6.1.1")
    assert "releases it again" in str(back.summary["who else moves"])
    assert again.apply(back, approve=back.sha256).result["moved"] == 1
    assert keys(world, "pending/") == [key]


def test_a_worker_without_an_interface_is_not_re_triggered(
    world: World,
) -> None:
    world.put_label(25)
    world.worker = None
    plan = world.open(remediation, way="retrigger").plan("6.1")
    assert plan.is_empty
    assert re.search("404|no such path", str(plan.summary["reason"]))


def test_a_label_that_an_order_wants_is_never_parked(world: World) -> None:
    world.settings = world.settings.model_copy(update={"label_finished": "shipment"})
    key = world.put_label(25)
    world.shipments = [{"orderId": ORDER, "status": "cancelled"}]
    inv = world.open(remediation, way="release", park_unwanted=True)
    plan = inv.plan("6.1")
    world.shipments = [{"orderId": ORDER, "status": "packed"}]
    assert inv.apply(plan, approve=plan.sha256).result["moved"] == 0  # asked once more
    assert keys(world, "pending/") == [key]
    wanted = world.open(remediation, way="release", park_unwanted=True).plan("6.1")
    assert wanted.content.header.excluded == {"wanted": 1}
    world.settings = world.settings.model_copy(update={"label_finished": "always"})
    with pytest.raises(UsageError, match="LABEL_FINISHED"):
        world.open(remediation, way="release", park_unwanted=True).plan("6.1")
