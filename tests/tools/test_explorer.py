"""The explorer finds an engine that is broken on purpose, and runs as its script says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from tools.explorer import audits
from tools.explorer.chance import without_chance
from tools.explorer.engine import carry, run, state, table
from tools.explorer.explore import compare, list_tasks, main, search_all, shrink
from tools.explorer.person import Line, read_line
from tools.explorer.process import CHANGE_FATES, COPY_FATES, LOOK_FATES, SimHold
from tools.explorer.scenarios import SCENARIOS
from tools.explorer.story import FATES, FATES_LATER, Outcome, Run, parse_script, prepare_start
from tools.explorer.world import World

Mutant = Callable[[], AbstractContextManager[object]]
Direction, Place, State, Act = table.Direction, table.Place, table.State, table.Act


@pytest.fixture(autouse=True)
def fixed_chance() -> Iterator[None]:
    with without_chance():
        yield
    prepare_start.cache_clear()


def play(scenario: str, script: str = "") -> Outcome:
    return Run(SCENARIOS[scenario], parse_script(script)).execute()


# --- mutants ---


def act(
    direction: Direction, state: State, source: Place, destination: Place, wanted: Act
) -> AbstractContextManager[object]:
    """Do something else in one cell of the decision table."""
    cell = (direction, state, source, destination)
    rule = table._BY_CELL[cell]._replace(act=wanted)
    return mock.patch.dict(table._BY_CELL, {cell: rule})


def send_again_after_doubt() -> AbstractContextManager[object]:
    """Take a copy of which nobody knows for one that never came."""
    return act(Direction.THERE, State.DOUBTFUL, Place.SAME, Place.ABSENT, Act.SEND)


@contextmanager
def delete_without_looking() -> Iterator[None]:
    """Delete what an undo takes back, though its copy did not come."""
    with ExitStack() as stack:
        for source in (Place.SAME, Place.AGAIN):
            cell = act(Direction.BACK, State.DOUBTFUL, source, Place.ABSENT, Act.DELETE)
            stack.enter_context(cell)
        yield


@contextmanager
def forget_to_pause() -> Iterator[None]:
    """Move while the worker may move."""
    with mock.patch.object(run.Run, "_hold"), mock.patch.object(SimHold, "check"):
        yield


@contextmanager
def resume_too_early() -> Iterator[None]:
    """Park nothing, and let the worker go whatever it may ship twice."""
    with (
        mock.patch.object(carry.Carrier, "park", return_value=[]),
        mock.patch.object(run, "find_in_reach", return_value={}),
    ):
        yield


@contextmanager
def forget_rows_of_an_undo() -> Iterator[None]:
    """Take back the first row, and say nothing of the others."""
    report, leave_unmoved = run.Run._report, run.Run._leave_unmoved

    def forget(self: Any, release: Any, undo: Any) -> None:
        leave_unmoved(self, release, undo)
        left = dict.fromkeys(range(1, undo.end), state.Row(State.LEFT, state.Way.BACK))
        undo.rows.update(left)

    def leave_out(self: Any) -> Any:
        return replace(report(self), left=0)

    with (
        mock.patch.object(run.Run, "_leave_unmoved", forget),
        mock.patch.object(run.Run, "_report", leave_out),
    ):
        yield


def doubt_too_much() -> AbstractContextManager[object]:
    """Announce so many rows at once that one kill leaves more than 32 in doubt."""
    return mock.patch.object(carry, "WINDOW", 64)


def ask_about_a_stopped_consumer() -> AbstractContextManager[object]:
    """Ask a person about a copy that nobody can have taken."""
    cell = (Direction.STILL, State.DOUBTFUL, Place.SAME, Place.ABSENT)
    rule = table._BY_CELL[cell]._replace(act=State.UNPROVEN)
    return mock.patch.dict(table._BY_CELL, {cell: rule})


def tell_a_copied_row_as_skipped() -> AbstractContextManager[object]:
    """Tell a row as skipped whose copy is there, because its source was rewritten since."""
    cell = (Direction.THERE, State.DOUBTFUL, Place.OTHER, Place.SAME)
    rule = table._BY_CELL[cell]._replace(act=State.SKIPPED)
    return mock.patch.dict(table._BY_CELL, {cell: rule})


def accept_late() -> AbstractContextManager[object]:
    """Let the store accept expired requests."""
    return mock.patch.object(World, "has_expired", return_value=False)


_LATE = "1<delete_many@pending/a=sleep 1<delete_many@pending/a#2=rewrite:a"
_REWRITTEN = "1.copy@ready/a=lost 1<look@pending/a=rewrite:a"
FAILURES: list[tuple[Mutant, str, str, str]] = [
    (send_again_after_doubt, "polled-strict", "1.copy@ready/a=lost", "promise 2: a1 was put"),
    (send_again_after_doubt, "polled-loose", "1.copy@ready/a=lost", "promise 2: a1 was put"),
    (delete_without_looking, "undo-strict", "1.copy@pending/a=dropped", "promise 1: a1 is now"),
    (forget_to_pause, "release-rename", "", "promise 2: rename ready/a while the worker"),
    (resume_too_early, "polled-strict", "1.copy@ready/a=lost", "promise 2: after"),
    (forget_rows_of_an_undo, "undo-two-strict", "", "promise 3:"),
    (doubt_too_much, "many-strict", "1<copy@ready/H=kill", "promise 4: "),
    (ask_about_a_stopped_consumer, "still-strict", "1.put@state#4=die-late", "promise 4: the con"),
    (tell_a_copied_row_as_skipped, "release-strict", _REWRITTEN, "promise 3: "),
    (accept_late, "release-loose", _LATE, "promise 3: we removed a3"),
]


@pytest.mark.parametrize(("mutant", "scenario", "script", "broken"), FAILURES)
def test_an_engine_that_is_broken_on_purpose_is_found(
    mutant: Mutant, scenario: str, script: str, broken: str
) -> None:
    assert play(scenario, script).violations == []
    prepare_start.cache_clear()
    with mutant():
        violations = play(scenario, script).violations
    assert any(violation.startswith(broken) for violation in violations), violations


#: What the explorer found in drafts of the engine.
FOUND = [
    # a plan that began when another was forgotten was not recorded: the worker stayed paused
    ("later-strict", "1<put@state#3=kill"),
    # a state without an answer took effect late, over newer ones: a label was lost
    ("stop-loose", "1.put@state=late"),
    # the worker was resumed for one part, and the next one moved
    ("parts-loose", "1.list@claim#3=router-404"),
    ("parts-strict", "1.put@part1=die-late"),
    # the worker was held for a move that had been dropped, and nothing said so
    ("polled-strict", "1.asked#2=blind 1<resume=kill-bare"),
    ("release-loose", "1.look@state=blind 1<resume=kill"),
    # an object stayed parked after "not taken"
    ("stop-strict", "1.look@state#7=blind"),
    ("stop-strict", "2<copy@pending/b=suspend"),
    # a full disk stopped an undo, and the worker stayed paused
    ("undo-strict", "1.begun@log=fsync-gone"),
    # printed commands that were refused, or led nowhere
    ("undo-strict", "1<put@state#6=interrupt"),
    ("unparked-strict", "1.copy@ready/a=lost"),
    ("split-strict", "1<lock#2=rewrite:a 2.asked#2=blind 3<look@state=again:a"),
    ("undo-cut-loose", "1<put@state=rewrite:b 1<sleep=again:b"),
    ("undo-parts-loose", "2.resume=refused 2.read@state#2=blind"),
    # an undo said that a consumer had taken what it had deleted itself
    ("undo-two-loose", "1.put@state#7=router-503 1.read@state#3=blind 2<put@state#3=rewrite:a"),
    # to wait for a part's lock let the main one lapse
    ("undo-parts-loose", "1.put@claim#2=lost"),
]


@pytest.mark.parametrize(("scenario", "script"), FOUND)
def test_what_the_explorer_found_is_gone(scenario: str, script: str) -> None:
    assert play(scenario, script).violations == []


def test_naive_and_reduced_search_agree_on_what_is_broken() -> None:
    with send_again_after_doubt():
        naive, reduced = compare(SCENARIOS["polled-strict"], 1)
    assert naive == reduced != set()


def test_a_script_is_shrunk_to_what_breaks_a_promise() -> None:
    script = parse_script("1<start=jump 1<begun@log=foreign:a 1.copy@ready/a=lost")
    with send_again_after_doubt():
        kind = "promise 2: a1 was put at ready/a again by us"
        assert shrink(SCENARIOS["polled-strict"], script, kind) == script[2:]


# --- the story of one run ---


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", None),
        ("resume rel-1", Line("resume", "rel-1")),
        ("undo rel-1 --consumer-stands-still", Line("undo", "rel-1", still="now")),
        (
            "resume rel-1 --consumer-stands-still=2026-11-30T17:00:00Z",
            Line("resume", "rel-1", still="2026-11-30T17:00:00Z"),
        ),
        (
            "resume rel-1 --resume-worker --approve abc",
            Line("resume", "rel-1", flags=frozenset(["--resume-worker"]), approval="abc"),
        ),
        ("plan --memory-removed", Line("plan", flags=frozenset(["--memory-removed"]))),
    ],
)
def test_a_printed_command_is_read(text: str, line: Line | None) -> None:
    assert read_line(text) == line


def test_what_is_no_command_is_refused() -> None:
    with pytest.raises(ValueError, match="no command"):
        read_line("please resume rel-1")


def test_every_fate_of_the_simulation_is_offered() -> None:
    assert set(FATES.changes) == set(CHANGE_FATES)
    assert set(FATES.copies) == set(COPY_FATES)
    assert set(FATES.looks) == set(LOOK_FATES)
    for later, first in zip(FATES_LATER, FATES, strict=True):
        assert set(later) <= set(first)


def test_a_run_is_determined_by_its_script(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--scenario", "two-loose", "--choices", "1<begun@log=kill 2.copy@ready/b=late"]
    texts = []
    for _ in range(2):
        assert main(line) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != ""


def test_a_script_that_names_what_never_comes_is_refused() -> None:
    with pytest.raises(ValueError, match="never came to"):
        play("release-strict", "7.copy@ready/a=lost")
    with pytest.raises(ValueError, match="offers"):
        play("release-strict", "1.copy@ready/a=loost")


def test_a_replayed_request_is_counted_and_does_not_fail() -> None:
    outcome = play("polled-loose", "1.copy@ready/a=twice 1<delete_many@pending/a=sleep")
    assert outcome.violations == []
    assert outcome.declared != []


def test_a_run_that_moves_nothing_is_told() -> None:
    assert play("release-strict").has_moved
    assert not play("release-strict", "1.ask@pending/a=cancelled").has_moved


# --- audits ---


def write_history(*events: tuple[str, str, str]) -> World:
    """Return a world in which the object ``a1`` had these events: who, what, where."""
    world = World("strict")
    world.goals["plan"] = {"pending/a": "a1"}
    world.write("pending/a", "a1", "writer")
    for by, verb, side in events:
        key = f"{side}/a"
        if verb == "put":
            world.write(key, "a1", by)
        elif verb == "remove":
            world.remove(key, by)
        elif verb == "take":
            world.take(key)
        elif verb == "known_gone":
            world.write(".runbook/state.json", "", by)
            world.note_saved(".runbook/state.json", by, {key: len(world.history)})
        else:
            world.say(verb, key, "plan")
    return world


SHIPPED = (("1", "put", "ready"), ("consumer", "take", "ready"))


@pytest.mark.parametrize(
    ("between", "is_found"),
    [
        ((), True),
        ((("person", "not_taken", "pending"),), False),
        # The same bytes that are put again are the same object …
        ((("someone", "remove", "pending"), ("writer", "put", "pending")), True),
        # … unless a run has seen that it had gone.
        (
            (
                ("1", "remove", "pending"),
                ("1", "known_gone", "pending"),
                ("writer", "put", "pending"),
            ),
            False,
        ),
        (
            (
                ("1", "remove", "pending"),
                ("writer", "put", "pending"),
                ("1", "known_gone", "pending"),
            ),
            True,
        ),
        # Of what nobody can know, only a person's answer makes another object.
        (
            (
                ("person", "unproven", "pending"),
                ("someone", "remove", "pending"),
                ("1", "known_gone", "pending"),
                ("writer", "put", "pending"),
            ),
            True,
        ),
    ],
)
def test_a_second_copy_is_found(between: tuple[tuple[str, str, str], ...], is_found: bool) -> None:
    world = write_history(*SHIPPED, *between, ("2", "put", "ready"))
    assert bool(list(audits.find_second_copies(world))) == is_found


def test_the_worker_must_not_run_while_it_could_ship_again() -> None:
    world = write_history(*SHIPPED)
    assert [finding.promise for finding in audits.find_reach(world, "a run")] == [2]
    world.paused_by = "us"
    assert list(audits.find_reach(world, "a run")) == []


@pytest.mark.parametrize("by", ["1", "worker"])
def test_content_that_is_nowhere_is_lost_unless_a_consumer_took_it(by: str) -> None:
    lost = write_history(("1", "put", "ready"), (by, "remove", "ready"), (by, "remove", "pending"))
    assert [finding.promise for finding in audits.find_lost(lost)] == [1]
    taken = write_history(*SHIPPED, (by, "remove", "pending"))
    assert list(audits.find_lost(taken)) == []


def test_what_a_run_tells_is_compared_with_what_happened() -> None:
    world = write_history(*SHIPPED)
    told = audits.Told(plan="plan", moved=1, is_complete=True)
    assert len(list(audits.check_told(world, told, "a run"))) == 2
    world = write_history(*SHIPPED, ("1", "remove", "pending"))
    assert list(audits.check_told(world, told, "a run")) == []


def test_a_person_is_not_asked_about_a_stopped_consumer() -> None:
    world = World("strict")
    world.say("plan", "")
    assert list(audits.check_doubts(world, ["pending/a"], is_still=True)) != []
    world.write("pending/a", "a2", "writer")
    assert list(audits.check_doubts(world, ["pending/a"], is_still=True)) == []


@pytest.mark.process
@pytest.mark.timeout(900)
def test_no_interleaving_of_the_small_bound_breaks_a_promise() -> None:
    seed = random.randrange(10**9)
    part = (seed % 3, 3)  # a third of them each time, by chance; `make test-model` has them all
    founds = list(search_all(list_tasks(is_full=False, seed=seed, part=part)))
    text = "\n".join(found.render() for found in founds)
    print(f"seed {seed}, part {part}\n{text}\n{sum(found.runs for found in founds)} executions")
    assert not any(found.failing for found in founds), text
