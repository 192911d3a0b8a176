"""What a run finds in the state that earlier ones left."""

from __future__ import annotations

import pytest

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
