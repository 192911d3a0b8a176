"""What a run finds in the state that earlier ones left."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from objectmove.result import MoveResult
from tools.explorer.person import Desk, Line
from tools.explorer.process import Process, Quiet
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


class LateSave(Quiet):
    """The first process is killed while it saves; the store carries that save out later."""

    def before(self, process: Process, verb: str, keys: Sequence[str]) -> None:  # noqa: ARG002
        if process.name == "1" and process.world.agenda:
            process.kill(power=False)

    def choose(self, process: Process, verb: str, keys: Sequence[str], options: str) -> str:  # noqa: ARG002
        is_late = process.name == "1" and verb == "put" and process.world.paused_by
        return "slow" if is_late else ""


def test_a_late_save_of_a_killed_run_is_not_taken_for_a_run_that_works() -> None:
    world = World("strict")
    world.write("pending/a", "a1", "writer")
    desk = Desk(world, LateSave(), lambda _who, _word: None)
    machine = Machine("one")
    plan = desk.make_plan(desk.begin(machine, "", is_quiet=True))
    for verb in ("apply", "resume"):
        word = desk.type(desk.begin(machine, plan.id), Line(verb, plan.id))
    assert isinstance(word, MoveResult)
    assert (word.moved, word.stopped) == (1, "")
