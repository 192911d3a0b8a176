"""What a run finds in the state that earlier ones left."""

from __future__ import annotations

import pytest

from tools.explorer.engine import state
from tools.explorer.person import Desk, Line
from tools.explorer.process import Quiet
from tools.explorer.world import Machine, World


@pytest.mark.parametrize("verb", ["resume", "apply"])
def test_no_part_begins_after_the_plan_was_ended(verb: str) -> None:
    world = World("strict")
    for name in "abcd":
        world.write(f"pending/{name}", f"{name}1", "writer")
    desk = Desk(world, Quiet(), lambda _who, _word: None)
    machine = Machine("one")
    plan = desk.make_plan(desk.begin(machine, "", is_quiet=True), parts=2)
    for line in (
        Line("apply", plan.id, part=1),
        Line("resume", plan.id, flags=frozenset({"--stop-here"})),
        Line(verb, plan.id),
    ):
        desk.type(desk.begin(machine, line.plan, is_quiet=True), line)
    there = sorted(key for key in world.objects if key.startswith(("pending/", "ready/")))
    assert there == ["pending/c", "pending/d", "ready/a", "ready/b"]
    assert not world.paused_by


def test_a_plan_that_begins_when_another_is_forgotten_is_known() -> None:
    world = World("strict")
    desk = Desk(world, Quiet(), lambda _who, _word: None)
    machine = Machine("one")
    for name in "abc":
        world.write(f"pending/{name}", f"{name}1", "writer")
        plan = desk.make_plan(desk.begin(machine, "", is_quiet=True))
        process = desk.begin(machine, plan.id, is_quiet=True)
        desk.type(process, Line("apply", plan.id))
        read = state.read_state(process.bucket)
        assert read is not None
        assert plan.id in read.state.moves
        assert len(read.state.moves) <= 2  # who held the worker last is kept
        world.advance(86_400_000)
