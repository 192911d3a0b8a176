"""A plan in parts that somebody ended: whatever is typed later, no part begins."""

from __future__ import annotations

import pytest

from tools.explorer.person import Desk, Line
from tools.explorer.process import Quiet
from tools.explorer.world import Machine, World

NAMES = "abcd"


@pytest.mark.parametrize("verb", ["resume", "apply"])
def test_a_part_that_never_began_does_not_begin_after_the_plan_was_ended(verb: str) -> None:
    world = World("strict")
    for name in NAMES:
        world.write(f"pending/{name}", f"{name}1", "writer")
    desk = Desk(world, Quiet(), lambda _who, _word: None)
    machine = Machine("one")

    def run(line: Line) -> object:
        return desk.type(desk.begin(machine, line.plan, is_quiet=True), line)

    plan = desk.make_plan(desk.begin(machine, "", is_quiet=True), parts=2)
    run(Line("apply", plan.id, part=1))
    ended = run(Line("resume", plan.id, flags=frozenset({"--stop-here"})))
    again = run(Line(verb, plan.id))
    there = sorted(key for key in world.objects if key.startswith(("pending/", "ready/")))
    assert there == ["pending/c", "pending/d", "ready/a", "ready/b"], (ended, again)
    assert not world.paused_by
