"""The simulated store, disk, clock and worker behave as the real ones were measured to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from chainlog import LogError
from objectmove.bucket import Answer, Request
from objectmove.errors import MoveError, MoversError, StoreError
from objectmove.probe import probe

from .simulation import Killed, Machine, Process, World, to_datetime


class Fates:
    """A director that deals out prepared fates, by verb."""

    def __init__(self, **fates: str) -> None:
        self.fates = fates
        self.dies_before = ""

    def before(self, process: Process, verb: str, keys: Sequence[str]) -> None:  # noqa: ARG002
        if verb == self.dies_before:
            process.kill(power=True)

    def choose(self, process: Process, verb: str, keys: Sequence[str], options: str) -> str:  # noqa: ARG002
        return self.fates.pop(verb.partition(":")[0], "")


@pytest.fixture(params=["strict", "loose"])
def world(request: pytest.FixtureRequest) -> World:
    world = World(is_strict=request.param == "strict")
    world.write("pending/a", "a1", "writer")
    return world


def start(world: World, **fates: str) -> Process:
    return Process(world, Fates(**fates), Machine("one"), "plan")


def send(process: Process, request: Request, *, age_s: int = 0) -> Answer:
    at = process.bucket.read_clock() - timedelta(seconds=age_s)
    return process.bucket.send([request], signed_at=at, expires_s=20)[0]


def copy(world: World, *, if_absent: bool = False) -> Request:
    etag = world.objects["pending/a"].etag
    return Request("copy", "ready/a", source="pending/a", if_match=etag, if_absent=if_absent)


def test_the_probe_finds_the_abilities(world: World) -> None:
    found = probe(start(world).bucket)
    assert found.fence
    assert {found.conditional_copy, found.conditional_put, found.conditional_delete} == {
        world.is_strict
    }
    assert list(world.objects) == ["pending/a"]


def test_a_copy_tells_what_it_made_and_keeps_the_metadata(world: World) -> None:
    process = start(world)
    world.advance(345)
    answer = send(process, copy(world))
    made = world.objects["ready/a"]
    assert (answer.effect, answer.etag, made.label) == ("done", made.etag, "a1")
    assert answer.last_modified == to_datetime(made.at_ms)
    assert made.metadata == {"order-id": "7"}
    (listed,) = process.bucket.list_objects("ready/")
    seen = process.bucket.look(["ready/a"])["ready/a"]
    assert seen is not None
    assert listed.last_modified == answer.last_modified
    assert seen.last_modified == listed.last_modified.replace(microsecond=0) != listed.last_modified


@pytest.mark.parametrize(("key", "code"), [("pending/a", "PreconditionFailed"), ("x", "NoSuchKey")])
def test_a_copy_of_what_is_not_there_has_no_effect(world: World, key: str, code: str) -> None:
    request = Request("copy", "ready/a", source=key, if_match="0" * 32)
    assert send(start(world), request) == Answer("unknown", code=code)
    assert "ready/a" not in world.objects


def test_conditions_on_the_target_hold_where_they_are_honoured(world: World) -> None:
    world.write("ready/a", "x1", "someone")
    process = start(world)
    answer = send(process, copy(world, if_absent=True))
    assert answer.code == ("PreconditionFailed" if world.is_strict else "")
    assert world.objects["ready/a"].label == ("x1" if world.is_strict else "a1")
    for key in ("pending/a", "nothing"):
        answer = send(process, Request("delete", key, if_match="0" * 32))
        assert answer.effect == ("unknown" if world.is_strict else "done")
    assert ("pending/a" in world.objects) == world.is_strict


def test_an_expired_request_changes_nothing(world: World) -> None:
    process, before = start(world), dict(world.objects)
    refused = Answer("none", code="AccessDenied")
    assert send(process, copy(world), age_s=30) == refused
    assert send(process, Request("put", "x", body=b"x"), age_s=30) == refused
    assert send(process, Request("delete", "pending/a"), age_s=30) == refused
    bulk = send(process, Request("delete_many", keys=("pending/a",)), age_s=30)
    assert (bulk.effect, bulk.failed) == ("done", {"pending/a": "AccessDenied"})
    assert world.objects == before


@pytest.mark.parametrize(
    ("fate", "effect", "at_once", "after_s"),
    [
        ("", "done", True, 0),
        ("refused", "none", False, 0),
        ("dropped", "unknown", False, 0),
        ("lost", "unknown", True, 0),
        ("ghost", "unknown", True, 0),
        ("slow", "unknown", False, 10),
        ("late", "unknown", False, 35),
    ],
)
def test_a_fate_decides_over_answer_and_effect(
    world: World, fate: str, effect: str, at_once: bool, after_s: int
) -> None:
    process = start(world, copy=fate)
    assert send(process, copy(world)).effect == effect
    assert ("ready/a" in world.objects) == at_once
    if after_s:
        world.advance(after_s * 1000)
    assert ("ready/a" in world.objects) == (at_once or after_s > 0)


def test_a_slow_copy_carries_what_was_there_when_it_was_accepted(world: World) -> None:
    send(start(world, copy="slow"), copy(world))
    world.write("pending/a", "a2", "writer")
    world.advance(10_000)
    assert world.objects["ready/a"].label == "a1"


def test_nothing_of_a_dead_process_has_an_effect(world: World) -> None:
    director = Fates()
    director.dies_before = "delete"
    process = Process(world, director, Machine("one"), "plan")
    log = process.logs("plan")
    log.append("kept", {})
    log.append("gone", {}, sync=False)
    with pytest.raises(Killed):
        send(process, Request("delete", "pending/a"))
    dead = (
        lambda: log.append("late", {}),
        lambda: send(process, Request("put", "x")),
        process.hold.pause,
        lambda: process.clock.sleep(1),
    )
    for act in dead:
        with pytest.raises(Killed):
            act()
    assert list(world.objects) == ["pending/a"]
    assert [entry.kind for entry in process.machine.folder.get_disk("plan").entries] == ["kept"]


@pytest.mark.parametrize(("fate", "kinds"), [("fsync-gone", []), ("fsync-kept", ["one"])])
def test_a_log_writes_no_more_after_a_failed_fsync(
    world: World, fate: str, kinds: list[str]
) -> None:
    log = start(world, append=fate).logs("plan")
    for _ in range(2):
        with pytest.raises(LogError):
            log.append("one", {})
    assert [entry.kind for entry in log.read()] == kinds


def test_a_log_chains_its_lines_and_locks_others_out(world: World) -> None:
    process = start(world)
    log, other = process.logs("plan"), process.logs("plan")
    with log.locked():
        first, second = log.append("one", {"rows": (1, 2)}), log.append("two", {})
        with pytest.raises(LogError, match="in use"):
            other.append("three", {})
    assert (first.data, second.prev, second.seq) == ({"rows": [1, 2]}, first.hash, 2)
    assert [entry.kind for entry in other.read()] == ["one", "two"]
    older = process.machine.folder.copy_first("plan", 1)
    assert [entry.kind for entry in older.get_disk("plan").entries] == ["one"]


def test_the_worker_moves_only_while_it_is_not_paused(world: World) -> None:
    process = start(world, resume="lost")
    with pytest.raises(MoversError):
        process.hold.check()
    world.work("pending/a", "ready/a", delete_after_ms=900)
    process.hold.pause()
    assert "pending/a" in world.objects
    process.hold.check()
    assert "pending/a" not in world.objects, "the pass under way has ended"
    with pytest.raises(MoveError):
        process.hold.resume()
    assert not process.hold.is_paused(), "the answer was lost, not the effect"


def test_clocks_jump_and_stand_still_by_themselves(world: World) -> None:
    process = start(world)
    now, mono, store = process.clock.now(), process.clock.monotonic(), process.bucket.read_clock()
    process.machine.offset_ms += 3_600_000
    world.advance(70_000)
    process.lag_ms += 70_000
    assert process.clock.now() - now == timedelta(hours=1, milliseconds=2)
    assert process.clock.monotonic() - mono == pytest.approx(0.002)
    assert process.bucket.read_clock() - store == timedelta(seconds=70)


def test_a_consumer_that_polls_takes_at_once(world: World) -> None:
    world.polls = True
    assert send(start(world), copy(world)).effect == "done"
    assert "ready/a" not in world.objects
    assert [event.verb for event in world.history] == ["put", "put", "read", "remove"]


def test_damage_is_declared_only_within_the_window(world: World) -> None:
    process = start(world)
    bulk = Request("delete_many", keys=("pending/a",))
    for wait_ms, is_declared in ((1_000, not world.is_strict), (3_000, False)):
        world.write("pending/a", "a1", "writer")
        process.bucket.look(["pending/a"])
        world.write("pending/a", "a2", "writer")
        world.advance(wait_ms)
        send(process, bulk)
        assert world.history[-1].is_declared == is_declared


def test_reads_that_nobody_answers_raise_or_leave_out(world: World) -> None:
    assert start(world, look="blind").bucket.look(["pending/a"]) == {}
    with pytest.raises(StoreError):
        list(start(world, list="blind").bucket.list_objects("pending/"))
