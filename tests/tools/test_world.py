"""The simulated store, disk, clock and worker behave as the real ones were measured to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import get_args

import pytest

from tools.explorer.chance import make_abilities
from tools.explorer.engine import bucket as buckets
from tools.explorer.engine import errors, plan, probe
from tools.explorer.process import CHANGE_FATES, COPY_FATES, Killed, Process
from tools.explorer.world import Kind, Machine, World

Request = buckets.Request


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


@pytest.fixture(params=["strict", "loose", "rename"])
def world(request: pytest.FixtureRequest) -> World:
    world = World(request.param)
    world.write("pending/a", "a1", "writer")
    return world


def start(world: World, **fates: str) -> Process:
    return Process(world, Fates(**fates), Machine("one"), "plan")


def send(process: Process, request: Request, *, age_s: int = 0) -> buckets.Answer:
    at = process.bucket.read_clock() - timedelta(seconds=age_s)
    return process.bucket.send([request], signed_at=at, expires_s=20)[0]


def copy(world: World) -> Request:
    etag = world.objects["pending/a"].etag
    return Request("copy", "ready/a", source="pending/a", if_match=etag)


@pytest.mark.parametrize("world", get_args(Kind), indirect=True)
def test_the_probe_finds_what_a_search_takes_for_known(world: World) -> None:
    found = probe.probe(start(world).bucket, timing=plan.Timing(), source="pending/")
    assert found == make_abilities(
        is_strict=world.is_strict,
        has_rename=world.kind == "rename",
        copies=world.kind != "putting",
    )
    assert list(world.objects) == ["pending/a"]


def test_a_listing_has_every_page(world: World) -> None:
    written = [f"pending/{number:04} +" for number in range(2_000)]
    for key in written:
        world.write(key, "b1", "writer")
    keys = [seen.key for seen in start(world).bucket.list_objects("pending/")]
    assert keys == [*written, "pending/a"]


def test_an_expired_request_changes_nothing(world: World) -> None:
    process, before = start(world), dict(world.objects)
    refused = buckets.Answer("none", code="AccessDenied", message="Request has expired")
    assert send(process, copy(world), age_s=30) == refused
    assert send(process, Request("put", "x", body=b"x"), age_s=30) == refused
    assert send(process, Request("delete", "pending/a"), age_s=30) == refused
    bulk = send(process, Request("delete_many", keys={"pending/a": ""}), age_s=30)
    assert (bulk.effect, bulk.failed) == ("done", {"pending/a": "AccessDenied"})
    assert world.objects == before


FATES = [
    ("", ("done", ""), True, 0),
    ("refused", ("none", "NotSent"), False, 0),
    ("dropped", ("unknown", "HTTP 503"), False, 0),
    ("lost", ("unknown", "NoAnswer"), True, 0),
    ("ghost", ("unknown", "NoSuchKey"), True, 0),
    ("slow", ("unknown", "NoAnswer"), False, 10),
    ("late", ("unknown", "NoAnswer"), False, 35),
    ("twice", ("done", ""), True, 0),
    ("slowdown", ("unknown", "SlowDown"), False, 0),
    ("router-200", ("unknown", "HTTP 200"), False, 0),
    ("router-403", ("unknown", "HTTP 403"), False, 0),
    ("router-404", ("unknown", "HTTP 404"), False, 0),
    ("router-412", ("unknown", "HTTP 412"), False, 0),
    ("router-503", ("unknown", "HTTP 503"), False, 0),
    ("router-after", ("unknown", "HTTP 404"), True, 0),
]


@pytest.mark.parametrize(("fate", "wanted", "at_once", "after_s"), FATES)
def test_a_fate_decides_over_answer_and_effect(
    world: World, fate: str, wanted: tuple[str, str], at_once: bool, after_s: int
) -> None:
    process = start(world, copy=fate)
    answer = send(process, copy(world))
    assert (answer.effect, answer.code) == wanted
    assert ("ready/a" in world.objects) == at_once
    if after_s:
        world.advance(after_s * 1000)
    assert ("ready/a" in world.objects) == (at_once or after_s > 0)


def test_each_fate_is_tried() -> None:
    tried = {fate for fate, *_ in FATES}
    assert tried == {"", *CHANGE_FATES, *COPY_FATES} - {"die-late"}


def test_nothing_of_a_dead_process_has_an_effect(world: World) -> None:
    director = Fates()
    director.dies_before = "delete"
    process = Process(world, director, Machine("one"), "plan")
    log = process.log("plan")
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
    assert process.machine.folder.get_disk("plan").entries == [("kept", {})]


def test_the_worker_moves_only_while_it_is_not_paused(world: World) -> None:
    process = start(world, resume="lost")
    with pytest.raises(errors.MoversError):
        process.hold.check()
    world.work("pending/a", "ready/a", delete_after_ms=900)
    process.hold.pause()
    assert "pending/a" in world.objects
    process.hold.check()
    assert "pending/a" not in world.objects, "the pass under way has ended"
    with pytest.raises(errors.MoveError):
        process.hold.resume()
    assert not process.hold.is_paused(), "the answer was lost, not the effect"
