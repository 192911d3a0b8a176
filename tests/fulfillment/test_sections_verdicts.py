"""What the sections conclude, and the readings whose judgement has many sides."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fulfillment.analysis.causes import CAUSES
from fulfillment.sections import (
    detection,
    immediate,
    postmortem,
    purpose,
    references,
    root_cause,
)
from runbook_lib.model import CauseStatus, Reading, Status, Verdict
from runbook_lib.section import SectionModule
from tests.support.world import TICKET, World

READ_ONLY: tuple[SectionModule, ...] = (purpose, detection, immediate, root_cause, references)


def run(world: World, section: SectionModule) -> Verdict:
    inv = world.open(section)
    for step in section.STEPS:
        inv.read_step(step)
    return inv.conclude().verdict


def deliver(world: World) -> Reading:
    return world.take(immediate, "3.1")


def test_a_healthy_world_is_healthy_everywhere(world: World) -> None:
    world.settings = world.settings.model_copy(update={"dataflow_home": None})
    run(world, detection)  # notebook 01 shows its readings
    assert {s.NAME: run(world, s) for s in READ_ONLY} == dict.fromkeys(
        [s.NAME for s in READ_ONLY], Verdict.HEALTHY
    )


def test_the_read_only_sections_change_nothing(world: World) -> None:
    world.put_label(25)
    world.fire()
    before = dict(world.store.objects)
    writes = list(world.store.writes)
    for section in READ_ONLY:
        run(world, section)
    assert world.store.objects == before
    assert world.store.writes == writes
    assert world.calls == []


def test_a_dead_prometheus_hides_no_incident(world: World) -> None:
    world.down.add("prometheus")
    assert run(world, detection) is Verdict.UNKNOWN
    world.put_label(25)
    assert run(world, detection) is Verdict.INCIDENT


def test_a_store_that_is_down_is_an_incident_of_section_3(world: World) -> None:
    world.down.add("store")
    assert run(world, detection) is Verdict.UNKNOWN
    assert run(world, immediate) is Verdict.INCIDENT


def test_synthetic_objects_over_the_threshold_are_told_but_are_no_incident(world: World) -> None:
    since = (world.now - timedelta(minutes=30)).isoformat()
    world.put(
        "chaos/fulfillment-delay/x.pdf", chaos_scenario="fulfillment-delay", pending_since=since
    )
    reading = world.take(detection, "2.3")
    assert reading.status is Status.OK
    assert "1 synthetic" in reading.reason
    assert reading.observations["overdue_real"] == 0
    assert run(world, root_cause) is Verdict.HEALTHY
    assert world.open(root_cause).conclude().findings[0].name == "synthetic"


def test_a_real_object_under_the_chaos_prefix_counts_as_real(world: World) -> None:
    since = (world.now - timedelta(minutes=30)).isoformat()
    world.put("chaos/fulfillment-delay/x.pdf", order_id="1", pending_since=since)
    world.now += timedelta(seconds=11)
    assert world.take(detection, "2.3").status is Status.BREACH


def test_delivery_needs_the_evidence_of_every_channel(world: World) -> None:
    world.fire()
    world.hear("slack", "email")
    assert deliver(world).status is Status.UNKNOWN
    assert "teams" in deliver(world).reason
    world.hear("teams")
    assert deliver(world).status is Status.OK


def test_an_old_notification_or_one_of_a_drill_is_no_evidence(world: World) -> None:
    world.fire()
    world.hear("slack", "email", minutes_ago=30)
    world.hear("teams")
    world.heard[-1] = replace(world.heard[-1], is_drill=True)
    assert deliver(world).status is Status.UNKNOWN


def test_failures_since_the_alert_are_a_breach(world: World) -> None:
    world.fire()
    name = "alertmanager_notification_requests_failed_total"
    world.series[name] = [world.line([0.0, 3.0], integration="slack")]
    assert deliver(world).status is Status.BREACH


@pytest.mark.parametrize("field", ["silenced_by", "inhibited_by", "muted_by"])
def test_a_muted_alert_is_a_breach_even_if_it_arrived(world: World, field: str) -> None:
    world.fire()
    world.hear("slack", "email", "teams")
    world.routed = [replace(world.routed[0], **{field: ("x",)})]  # type: ignore[arg-type]
    assert deliver(world).status is Status.BREACH


@pytest.mark.parametrize("name", ["FulfillmentDelay", "FulfillmentUploadFailing"])
def test_an_alert_that_alertmanager_does_not_have_is_a_breach(world: World, name: str) -> None:
    world.fire(name)
    world.routed.clear()
    assert deliver(world).status is Status.BREACH


def test_no_alert_is_ok_only_when_prometheus_says_so_too(world: World) -> None:
    assert deliver(world).status is Status.OK
    world.down.add("prometheus")
    assert deliver(world).status is Status.UNKNOWN


def take_ticket(world: World) -> Reading:
    return world.take(detection, "2.5", ticket_id=TICKET)


def test_a_fault_that_lets_some_requests_through_goes_on(world: World) -> None:
    world.count(
        "fulfillment_carrier_request_seconds_count", "outcome",
        {"ok": [9.0, 12.0, 15.0, 17.0], "timeout": [2.0, 6.0, 9.0, 9.0]},
    )  # fmt: skip
    world.series["fulfillment_artifacts_failed_total"] = [
        world.line([2.0, 6.0, 9.0, 9.0], stage="carrier", reason="carrier_timeout")
    ]
    run(world, root_cause)
    finding = world.open(root_cause).conclude().findings[0]
    assert (finding.name, finding.status) == ("carrier_timeout", CauseStatus.SUPPORTED)


def test_a_worker_that_begins_no_pass_is_stuck_by_its_own_clock(world: World) -> None:
    assert world.worker is not None
    world.worker = replace(world.worker, last_run_at=world.now - timedelta(seconds=60))
    assert world.take(root_cause, "5.1").status is Status.BREACH
    world.skew_s["fulfillment"] = -60
    assert world.take(root_cause, "5.1").status is Status.OK


def test_a_doubtful_worker_is_watched_until_it_runs_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.worker is not None
    world.worker = replace(world.worker, last_run_at=world.now - timedelta(seconds=9))

    def runs_again(_seconds: float) -> None:
        assert world.worker is not None
        world.worker = replace(world.worker, last_run_at=world.now)

    monkeypatch.setattr(world, "sleep", runs_again)
    assert world.take(root_cause, "5.1").status is Status.OK


def test_a_note_answers_a_point_and_its_follow_ups_stay(world: World) -> None:
    world.dag = replace(world.dag, is_paused=True)
    run(world, root_cause)
    world.take(postmortem, "7.3")
    before = world.open(postmortem).conclude().follow_ups
    world.open(postmortem).note("we will see to it", checklist="7.3")

    reading = world.take(postmortem, "7.3")
    after = world.open(postmortem).conclude().follow_ups

    assert reading.status is Status.OK
    assert reading.reason.endswith("we will see to it")
    assert before == after == CAUSES["pipeline_paused"].follow_ups


def test_the_alert_is_not_cleared_while_a_channel_was_not_told(world: World) -> None:
    world.hear("slack", "email", "teams", minutes_ago=3)
    world.hear("slack", "email", status="resolved")
    reading = world.take(postmortem, "7.1")
    assert reading.status is Status.BREACH
    assert "teams" in reading.reason


def test_a_run_of_notebooks_lists_what_waits_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fulfillment.waiting.get_run", lambda: "a run")
    world.put_label(25)
    assert world.take(detection, "2.3").value == 1
    counts = []
    for number in (2, 3):
        world.put_label(25, number)
        counts.append(len(world.take(immediate, "3.2").rows))
        world.now += timedelta(seconds=31)
    assert counts == [1, 3]
