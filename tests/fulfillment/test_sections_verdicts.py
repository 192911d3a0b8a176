"""What the sections conclude, and the readings whose judgement has many sides."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from fulfillment.sections import (
    detection,
    immediate,
    purpose,
    references,
    root_cause,
)
from runbook_lib.model import Reading, Status, Verdict
from runbook_lib.section import SectionModule
from tests.support.world import World

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
    writes = list(world.store.memory.writes)
    for section in READ_ONLY:
        run(world, section)
    assert world.store.objects == before
    assert world.store.memory.writes == writes
    assert world.calls == []


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


def test_a_muted_alert_is_a_breach_even_if_it_arrived(world: World) -> None:
    world.fire()
    world.hear("slack", "email", "teams")
    world.routed = [replace(world.routed[0], muted_by=("x",))]
    assert deliver(world).status is Status.BREACH
