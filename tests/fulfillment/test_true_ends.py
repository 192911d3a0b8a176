"""What is said when it does not go as planned: no verdict contradicts a reading beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from fulfillment.clients.http_systems import Target
from fulfillment.policy import POLICY
from fulfillment.quantities import Backlog, Uploads
from fulfillment.sections import detection, immediate, postmortem, remediation, root_cause
from fulfillment.sections.recovery import read_uploads
from runbook_lib.model import (
    ActionPhase,
    Conclusion,
    Status,
    Verdict,
    format_time,
)
from runbook_lib.policy import Judgement
from runbook_lib.section import SectionModule
from tests.support.world import FIRING, LAG, PEAKS, World

FAILED = 'fulfillment_artifacts_failed_total{stage="upload"}'


ARRIVED = "fulfillment_artifacts_arrived_total"


ORDERS = "fulfillment_orders_received_total"


REASONS = "fulfillment_artifacts_failed_total"


LOOK = (detection, immediate, root_cause)


def look(world: World, *sections: SectionModule) -> Conclusion:
    """Read every step of some sections, and return the last conclusion."""
    for section in sections or LOOK:
        inv = world.open(section)
        for step in section.STEPS:
            inv.read_step(step)
        conclusion = inv.conclude()
    return conclusion


def judge(world: World) -> Judgement:
    """Judge the journal as of now."""
    return POLICY.judge(world.incident.journal.view(), now=world.now)


def count(world: World, failed: Iterable[float], arrived: Iterable[float]) -> None:
    """Set the counters of uploads, ten seconds apart, newest now."""
    failures = list(failed)
    world.series[FAILED] = [world.line(failures, stage="upload", reason="bad_credentials")]
    world.series[REASONS] = [world.line(failures, stage="upload", reason="bad_credentials")]
    world.series[ARRIVED] = [world.line(list(arrived), kind="label")]


def reject_the_key(world: World) -> None:
    """Let no label get into the store: nothing waits, so the lag is 0."""
    count(world, [5, 9, 14, 20, 25], [7.0] * 5)
    world.effective = {"MINIO_ROOT_PASSWORD": "not the store's"}
    world.fire("FulfillmentUploadFailing")


def accept_the_key(world: World) -> None:
    """Let labels get in again for a minute and more."""
    world.now += timedelta(minutes=2)
    count(world, [25.0] * 8, [7, 7, 9, 12, 14, 17, 19, 22])
    world.effective = {"MINIO_ROOT_PASSWORD": "equal to the store's"}
    world.alerts.clear()
    world.routed.clear()
    world.put_lag(*[0.0] * 8)
    assert world.worker is not None
    world.worker = replace(world.worker, last_run_at=world.now, last_move_at=world.now)
    world.series["fulfillment_worker_last_run_timestamp_seconds"] = [
        world.line([(world.now - timedelta(seconds=s)).timestamp() for s in (3, 2, 1)])
    ]


class TestUploads:
    def test_failures_without_a_success_go_on(self, world: World) -> None:
        count(world, [5, 9, 14], [7, 7, 7])
        assert read_uploads(world.open(detection)) is Uploads.FAILING

    def test_failures_go_on_after_the_worker_was_restarted(self, world: World) -> None:
        count(world, [5, 9, 14, 0, 0], [7, 7, 7, 0, 0])
        assert read_uploads(world.open(detection)) is Uploads.FAILING

    def test_successes_in_a_row_end_failures(self, world: World) -> None:
        count(world, [5, 9, 14, 14, 14, 14], [7, 7, 7, 9, 12, 15])
        assert read_uploads(world.open(detection)) is Uploads.SUCCEEDING

    def test_a_few_successes_after_a_failure_may_be_chance(self, world: World) -> None:
        count(world, [5, 9, 14, 14, 14, 14], [7, 7, 7, 9, 12, 13])
        assert read_uploads(world.open(detection)) is Uploads.FAILING

    def test_orders_without_a_label_for_a_minute_want_one(self, world: World) -> None:
        count(world, [0.0] * 9, [7.0] * 9)
        world.series[ORDERS] = [world.line([1, 2, 3, 4, 5, 6, 7, 8, 9])]
        assert read_uploads(world.open(detection)) is Uploads.NONE

    def test_an_order_of_just_now_is_no_wish_yet(self, world: World) -> None:
        count(world, [0.0] * 3, [7.0] * 3)
        world.series[ORDERS] = [world.line([1, 1, 2])]
        assert read_uploads(world.open(detection)) is Uploads.UNASKED

    def test_where_nobody_counts_nobody_asks(self, world: World) -> None:
        world.series.pop(ARRIVED)
        assert read_uploads(world.open(detection)) is Uploads.UNASKED


def test_what_was_healed_by_hand_is_fixed_until_a_sample(world: World) -> None:
    reject_the_key(world)
    look(world)
    accept_the_key(world)
    fired = world.line([1.0] * 5, step_s=20)
    world.series[FIRING] = [replace(fired, samples=fired.samples[:2])]
    assert look(world).verdict is Verdict.FIXED
    judgement = judge(world)
    samples = [sample.at for sample in world.series[LAG][0].samples]
    assert judgement.until in samples
    assert judgement.since is not None
    assert judgement.since < judgement.until < world.now


def test_section_7_sees_by_itself_that_it_is_fixed_and_closes(world: World) -> None:
    reject_the_key(world)
    look(world)
    accept_the_key(world)
    world.hear("slack", "email", "teams", status="resolved", minutes_ago=0)
    assert look(world, postmortem).verdict is Verdict.FIXED
    assert world.incident.state.verdict is Verdict.FIXED
    assert world.incident.is_closed


def test_section_7_closes_nothing_while_a_cause_stands(world: World) -> None:
    world.put_label(25)
    world.fire()
    world.dag = replace(world.dag, is_paused=True)
    look(world)
    world.store.objects.clear()
    world.alerts.clear()
    world.routed.clear()
    world.now += timedelta(minutes=1)
    world.put_lag(0.0, 0.0, 0.0)
    count(world, [5.0] * 5, [7, 9, 12, 14, 17])
    world.hear("slack", "email", "teams", status="resolved", minutes_ago=0)
    assert look(world, postmortem).verdict is Verdict.MITIGATED
    assert not world.incident.is_closed


def test_all_is_well_from_the_first_sample_after_the_alert(world: World) -> None:
    world.put_label(25)
    look(world)
    world.store.objects.clear()
    world.series[PEAKS] = [world.line([2.0] * 100, step_s=30)]
    world.now += timedelta(seconds=50)
    world.put_lag(0.0, 0.0, 0.0, 0.0, step_s=10)
    world.series[FIRING] = [world.line([1.0] + [0.0] * 3, step_s=10)]
    reading = world.take(remediation, "6.5", wait_s=0)
    assert reading.status is Status.OK
    assert {each.since for each in reading.measurements} == {world.now - timedelta(seconds=20)}


def test_a_lag_that_6_5_saw_fall_is_not_held_against_the_fix(world: World) -> None:
    world.put_label(25)
    world.dag = replace(world.dag, is_paused=True)
    world.put_lag(*[12.0] * 5)
    world.fire()
    look(world)
    world.store.objects.clear()
    world.dag = replace(world.dag, is_paused=False)
    look(world)
    assert judge(world).verdict is Verdict.INCIDENT
    world.series["fulfillment_exporter_refresh_interval_seconds"] = [world.line([15.0])]
    world.put_lag(0.0, 0.0, 0.0)
    world.now += timedelta(seconds=1)
    world.incident.update(opened_at=format_time(world.now - timedelta(seconds=40)))
    assert world.take(remediation, "6.5", wait_s=0).status is Status.OK
    assert judge(world).verdict is Verdict.FIXED_ALERT_DECAYING


def test_young_labels_are_normal_and_many_are_not(world: World) -> None:
    world.put_label(25)
    look(world)
    world.store.objects.clear()
    world.series[PEAKS] = [world.line([4.0] * 60 + [5.0] * 40, step_s=30)]
    world.now += timedelta(minutes=2)
    world.put_lag(0.0, 0.0, 0.0)
    for number in range(8):
        world.put_label(1, number)
    reading = world.take(remediation, "6.5", wait_s=0)
    assert reading.measured["usual_backlog"] == Backlog.USUAL
    for number in range(20):
        world.put_label(1, number)
    reading = world.take(remediation, "6.5", wait_s=0)
    assert (reading.status, reading.measured["usual_backlog"]) == (Status.BREACH, Backlog.ABOVE)


class TestWithoutExporter:
    def test_a_listing_says_what_the_lag_is(self, world: World) -> None:
        world.leave_out_exporter()
        world.put_label(4)
        reading = world.take(detection, "2.1")
        assert (reading.status, reading.value) == (Status.OK, 4.0)
        world.put_label(30, 2)
        reading = world.take(detection, "2.1")
        assert (reading.status, reading.value) == (Status.BREACH, 30.0)
        assert reading.since == world.now - timedelta(minutes=20)

    def test_a_release_that_is_proven_ends_fixed_by_listings(self, world: World) -> None:
        world.leave_out_exporter()
        world.put_label(30)
        world.fire()
        assert look(world).verdict is Verdict.INCIDENT
        inv = world.open(remediation, way="release")
        plan = inv.plan("6.1")
        inv.apply(plan, approve=plan.sha256)
        assert inv.verify(plan).phase is ActionPhase.VERIFIED
        look(world, remediation)
        assert judge(world).verdict is Verdict.UNKNOWN
        world.alerts.clear()
        world.routed.clear()
        look(world)
        assert judge(world).verdict is Verdict.FIXED
        world.hear("slack", "email", "teams", status="resolved", minutes_ago=0)
        assert world.take(postmortem, "7.1").status is Status.OK

    def test_where_the_exporter_does_not_answer_the_next_step_says_what_is_blind(
        self, world: World
    ) -> None:
        world.series[LAG].clear()
        world.series['up{job="artifact-exporter"}'] = [world.line([0.0])]
        sections = []
        for section in (detection, root_cause):
            look(world, immediate, section)
            judgement = judge(world)
            assert judgement.verdict is Verdict.UNKNOWN
            sections.append(judgement.next.section)
        assert sections == ["05_root_cause", "06_remediation"]

    def test_an_exporter_that_is_down_is_not_missing(self, world: World) -> None:
        world.leave_out_exporter()
        world.targets.append(Target("artifact-exporter", 15))
        assert world.take(detection, "2.1").status is Status.UNKNOWN


def test_what_was_a_breach_is_read_anew_where_only_ok_may_be_reused(world: World) -> None:
    world.fire()
    inv = world.open(postmortem)
    breach = inv.read_step("2.1", max_age_s=90, only_ok=True)
    assert breach.status is Status.BREACH
    assert inv.read_step("2.1", max_age_s=90).seq == breach.seq
    world.alerts.clear()
    well = inv.read_step("2.1", max_age_s=90, only_ok=True)
    assert (well.status, well.seq > breach.seq) == (Status.OK, True)
    assert inv.read_step("2.1", max_age_s=90, only_ok=True).seq == well.seq


def test_a_cause_of_before_the_uploads_succeed_is_not_there_now(world: World) -> None:
    reject_the_key(world)
    look(world)
    view = world.incident.journal.view()
    assert POLICY.judge(view, now=world.now).advice
    accept_the_key(world)
    world.fire("FulfillmentUploadFailing")
    assert world.take(postmortem, "6.5").measured["uploads"] == Uploads.SUCCEEDING
    view = world.incident.journal.view()
    judgement = judge(world)
    assert judgement.verdict is Verdict.INCIDENT
    assert "its cause is there" not in judgement.reason
    assert judgement.next.section == "05_root_cause"
    assert POLICY.judge(view, now=world.now).advice == ()


def test_a_worker_that_somebody_paused_is_resumed_before_it_is_re_triggered(world: World) -> None:
    world.put_label(25)
    assert world.worker is not None
    world.worker = replace(world.worker, paused=True)
    resume, retrigger = look(world).advice
    assert "6.2 resume" in resume
    assert "6.1 re-trigger" in retrigger
