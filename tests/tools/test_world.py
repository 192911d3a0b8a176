"""The simulated store, disk, clock and worker behave as the real ones were measured to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from chainlog import LogError
from tools.explorer.chance import make_abilities
from tools.explorer.engine import bucket as buckets
from tools.explorer.engine import errors, http, plan, probe
from tools.explorer.process import CHANGE_FATES, COPY_FATES, Killed, Process
from tools.explorer.world import Machine, World

Request = buckets.Request


class Fates:
    """A director that deals out prepared fates, by verb."""

    def __init__(self, **fates: str) -> None:
        self.fates = fates
        self.dies_before = ""
        self.interrupts = ""

    def before(self, process: Process, verb: str, keys: Sequence[str]) -> None:  # noqa: ARG002
        if verb == self.dies_before:
            process.kill(power=True)
        if verb == self.interrupts:
            raise KeyboardInterrupt

    def choose(self, process: Process, verb: str, keys: Sequence[str], options: str) -> str:  # noqa: ARG002
        return self.fates.pop(verb.partition(":")[0], "")


@pytest.fixture(params=["strict", "loose", "rename"])
def world(request: pytest.FixtureRequest) -> World:
    world = World(request.param)
    world.write("pending/a", "a1", "writer")
    return world


@pytest.fixture
def renaming() -> World:
    world = World("rename")
    world.write("pending/a", "a1", "writer")
    return world


def start(world: World, **fates: str) -> Process:
    return Process(world, Fates(**fates), Machine("one"), "plan")


def send(process: Process, request: Request, *, age_s: int = 0) -> buckets.Answer:
    at = process.bucket.read_clock() - timedelta(seconds=age_s)
    return process.bucket.send([request], signed_at=at, expires_s=20)[0]


def ask(process: Process, request: Request) -> http.Reply:
    """Return the raw answer to a request."""
    bucket = process.bucket
    (reply,) = bucket._http.exchange(
        [lambda: bucket._make_message(request, bucket.read_clock(), 20)],
        resend=request.kind == "get",
    )
    return reply


def copy(world: World, *, if_absent: bool = False) -> Request:
    etag = world.objects["pending/a"].etag
    return Request("copy", "ready/a", source="pending/a", if_match=etag, if_absent=if_absent)


def rename(world: World, **conditions: str) -> Request:
    etag = conditions.get("if_match", world.objects["pending/a"].etag)
    return Request("rename", "ready/a", source="pending/a", if_match=etag, if_absent=True)


def test_the_probe_finds_what_a_search_takes_for_known(world: World) -> None:
    found = probe.probe(start(world).bucket, timing=plan.Timing(), source="pending/")
    assert found == make_abilities(is_strict=world.is_strict, has_rename=world.kind == "rename")
    assert list(world.objects) == ["pending/a"]


@pytest.mark.parametrize("key", ["pending/a b+c%20.pdf", "pending/<é> & \"q'.pdf", "pending/📦"])
def test_odd_names_go_round(world: World, key: str) -> None:
    process = start(world)
    request = Request("put", key, body=b"x", headers={"x-amz-meta-order": "7"})
    assert send(process, request).effect == "done"
    assert key in {seen.key for seen in process.bucket.list_objects("pending/")}
    to = key.replace("pending/", "ready/")
    assert send(process, Request("copy", to, source=key)).effect == "done"
    seen = process.bucket.look([to])[to]
    assert seen is not None
    assert seen.metadata == {"order": "7"}
    assert process.bucket.read_object(to)[0] == b"x"
    assert send(process, Request("delete_many", keys={key: "", to: ""})).failed == {}
    assert list(world.objects) == ["pending/a"]


def test_a_listing_has_every_page(world: World) -> None:
    world.page = 2
    for name in "bcde":
        world.write(f"pending/{name} +", name, "writer")
    keys = [seen.key for seen in start(world).bucket.list_objects("pending/")]
    assert keys == ["pending/a", *(f"pending/{name} +" for name in "bcde")]


def test_every_answer_of_the_store_bears_its_mark_and_no_other_does(world: World) -> None:
    for request in (
        Request("head", "pending/a"),
        Request("head", "nothing"),
        Request("get", "nothing"),
        Request("get", query={"list-type": "2", "prefix": "pending/"}),
        copy(world),
        Request("delete", "nothing"),
    ):
        assert "x-amz-request-id" in ask(start(world), request).headers
    for fate in ("router-404", "router-200", "router-503", "blind"):
        reply = ask(start(world, look=fate), Request("head", "pending/a"))
        assert "x-amz-request-id" not in reply.headers


def test_a_copy_is_a_new_object_with_the_same_content(world: World) -> None:
    process = start(world)
    world.advance(345)
    answer = send(process, copy(world))
    made = world.objects["ready/a"]
    assert (answer.effect, answer.etag, made.label) == ("done", made.etag, "a1")
    assert made.metadata == {"order-id": "7"}
    assert made.at_ms > world.objects["pending/a"].at_ms


@pytest.mark.parametrize(("key", "code"), [("pending/a", "PreconditionFailed"), ("x", "NoSuchKey")])
def test_a_copy_of_what_is_not_there_has_no_effect(world: World, key: str, code: str) -> None:
    request = Request("copy", "ready/a", source=key, if_match="0" * 32)
    answer = send(start(world), request)
    assert (answer.effect, answer.code) == ("unknown", code)
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


def test_a_put_names_the_version_that_it_replaces(world: World) -> None:
    process = start(world)
    first = send(process, Request("put", "x", body=b"1", if_absent=True))
    assert first.date != ""
    stale = Request("put", "x", body=b"2", if_match="0" * 32)
    for request in (stale, Request("put", "x", body=b"2", if_absent=True)):
        assert (send(process, request).code == "PreconditionFailed") == world.is_strict
    assert (world.objects["x"].body == b"1") == world.is_strict
    again = Request("put", "x", body=b"3", if_match=world.objects["x"].etag)
    assert send(process, again).effect == "done"
    gone = send(process, Request("put", "y", body=b"4", if_match=first.etag))
    assert gone.code == ("NoSuchKey" if world.is_strict else "")


def test_a_bulk_delete_honours_the_etag_of_each_key(world: World) -> None:
    world.write("pending/b", "b1", "writer")
    keys = {"pending/a": world.objects["pending/a"].etag, "pending/b": "0" * 32}
    answer = send(start(world), Request("delete_many", keys=keys))
    left = {"pending/b": "PreconditionFailed"} if world.is_strict else {}
    assert (answer.effect, answer.failed) == ("done", left)
    assert list(world.objects) == list(left)


def test_a_rename_moves_an_object_as_it_is(renaming: World) -> None:
    renaming.advance(5_000)
    before = renaming.objects["pending/a"]
    assert send(start(renaming), rename(renaming)).effect == "done"
    after = renaming.objects["ready/a"]
    assert "pending/a" not in renaming.objects
    assert (after.etag, after.at_ms, after.metadata) == (
        before.etag,
        before.at_ms,
        before.metadata,
    )


def test_a_rename_does_nothing_unless_both_conditions_are_met(renaming: World) -> None:
    process = start(renaming)
    request = rename(renaming)
    assert send(process, rename(renaming, if_match="0" * 32)).code == "PreconditionFailed"
    renaming.write("ready/a", "x1", "someone")
    assert send(process, request).code == "PreconditionFailed"
    renaming.remove("ready/a", "someone")
    assert send(process, request, age_s=30).code == "AccessDenied"
    renaming.remove("pending/a", "someone")
    assert send(process, request).code == "NoSuchKey"
    assert renaming.objects == {}


def test_a_consumer_that_polls_takes_what_a_rename_brings(renaming: World) -> None:
    renaming.polls = True
    assert send(start(renaming), rename(renaming)).effect == "done"
    assert renaming.objects == {}
    verbs = [event.verb for event in renaming.history]
    assert verbs == ["put", "put", "delete", "read", "remove"]


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


@pytest.mark.parametrize("fate", ["slow", "late"])
def test_a_rename_that_comes_late_moves_what_is_there_by_then(renaming: World, fate: str) -> None:
    send(start(renaming, rename=fate), rename(renaming))
    renaming.write("pending/a", "a2", "writer")
    renaming.advance(40_000)
    assert renaming.objects["pending/a"].label == "a2"
    assert "ready/a" not in renaming.objects, "its ETag is another one"


def test_a_late_request_of_a_process_that_dies_takes_effect(world: World) -> None:
    with pytest.raises(Killed):
        send(start(world, copy="die-late"), copy(world))
    world.advance(35_000)
    assert world.objects["ready/a"].label == "a1"


def test_what_comes_twice_takes_effect_twice_unless_it_expired(world: World) -> None:
    for age_s, copies in ((0, 2), (19, 1)):
        world.remove("ready/a", "someone")
        world.history.clear()
        send(start(world, copy="twice"), copy(world), age_s=age_s)
        world.take("ready/a")
        world.advance(3_000)
        assert [event.verb for event in world.history].count("put") == copies


@pytest.mark.parametrize(
    ("count", "order", "wanted"),
    [
        (2, "", "ab"),
        (2, "order:1-0", "ba"),
        (3, "order:0-2-1", "acb"),
        (3, "order:2-0-1", "cab"),
        (4, "order:reversed", "dcba"),
        (4, "order:rotated", "bcda"),
    ],
)
def test_the_director_orders_the_requests_of_a_batch(
    world: World, count: int, order: str, wanted: str
) -> None:
    process, answered = start(world, order=order), list[int]()
    requests = [Request("put", name, body=name.encode()) for name in "abcd"[:count]]
    at = process.bucket.read_clock()

    def note(index: int, answer: buckets.Answer) -> buckets.Answer:
        answered.append(index)
        return answer

    answers = process.bucket.send(requests, signed_at=at, expires_s=20, on_answer=note)
    assert "".join("abcd"[index] for index in answered) == wanted
    assert [answer.etag for answer in answers] == [
        world.objects[name].etag for name in "abcd"[:count]
    ]


def test_after_an_interrupt_nothing_more_of_a_batch_is_sent(world: World) -> None:
    director = Fates()
    process = Process(world, director, Machine("one"), "plan")
    requests = [Request("put", "x"), Request("delete", "pending/a"), Request("put", "y")]
    at = process.bucket.read_clock()
    answered: dict[int, str] = {}

    def note(index: int, answer: buckets.Answer) -> buckets.Answer:
        answered[index] = answer.effect
        return answer

    director.interrupts = "delete"
    with pytest.raises(KeyboardInterrupt):
        process.bucket.send(requests, signed_at=at, expires_s=20, on_answer=note)
    assert answered == {0: "done", 1: "none", 2: "none"}
    assert sorted(world.objects) == ["pending/a", "x"]


def test_a_slow_copy_carries_what_was_there_when_it_was_accepted(world: World) -> None:
    send(start(world, copy="slow"), copy(world))
    world.write("pending/a", "a2", "writer")
    world.advance(10_000)
    assert world.objects["ready/a"].label == "a1"


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
    assert [entry.kind for entry in process.machine.folder.get_disk("plan").entries] == ["kept"]


@pytest.mark.parametrize(("fate", "kinds"), [("fsync-gone", []), ("fsync-kept", ["one"])])
def test_a_log_writes_no_more_after_a_failed_fsync(
    world: World, fate: str, kinds: list[str]
) -> None:
    log = start(world, append=fate).log("plan")
    for _ in range(2):
        with pytest.raises(LogError):
            log.append("one", {})
    assert [entry.kind for entry in log.read()] == kinds


def test_a_log_chains_its_lines_and_locks_others_out(world: World) -> None:
    process = start(world)
    log, other = process.log("plan"), process.log("plan")
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


def test_two_machines_describe_the_same_worker_in_their_own_words(world: World) -> None:
    one, two = (Process(world, Fates(), Machine(name), "plan").hold for name in ("one", "two"))
    assert one.name == two.name
    assert one.words != two.words


def test_clocks_jump_and_stand_still_by_themselves(world: World) -> None:
    process = start(world)
    now, mono, store = process.clock.now(), process.clock.monotonic(), process.bucket.read_clock()
    process.machine.offset_ms += 3_600_000
    world.advance(70_000)
    process.lag_ms += 70_000
    assert process.clock.now() - now == timedelta(hours=1, milliseconds=2)
    assert process.clock.monotonic() - mono == pytest.approx(0.002)
    assert process.bucket.read_clock() - store == timedelta(seconds=70)


def test_damage_is_declared_only_within_the_window(world: World) -> None:
    process = start(world)
    bulk = Request("delete_many", keys={"pending/a": ""})
    for wait_ms, is_declared in ((1_000, not world.is_strict), (3_000, False)):
        world.write("pending/a", "a1", "writer")
        process.bucket.look(["pending/a"])
        world.write("pending/a", "a2", "writer")
        world.advance(wait_ms)
        send(process, bulk)
        assert world.history[-1].is_declared == is_declared


def test_reads_that_nobody_answers_raise_or_leave_out(world: World) -> None:
    for fate in ("blind", "silent", "router-503"):
        assert start(world, look=fate).bucket.look(["pending/a"]) == {}
    for fate in ("blind", "silent", "router-200", "router-404", "router-503"):
        with pytest.raises(errors.StoreError):
            list(start(world, list=fate).bucket.list_objects("pending/"))
    for fate in ("blind", "silent", "router-404", "router-503"):
        with pytest.raises(errors.StoreError):
            start(world, read=fate).bucket.read_object("pending/a")


def test_a_silent_store_is_not_asked_again_and_a_blind_look_is_the_only_one(world: World) -> None:
    keys = ["pending/a", "ready/a"]
    assert start(world, look="blind").bucket.look(keys) == {"ready/a": None}
    assert start(world, look="silent").bucket.look(keys) == {}


def test_a_consumer_that_deletes_seconds_later_deletes_what_is_there_by_then(world: World) -> None:
    world.write("ready/a", "a1", "worker")
    world.take("ready/a", 6_000)
    world.advance(5_000)
    world.write("ready/a", "a2", "worker")
    world.advance(1_000)
    assert "ready/a" not in world.objects


def test_the_worker_copies_only_where_nothing_is_and_deletes_only_what_it_copied(
    world: World,
) -> None:
    world.write("ready/a", "a1", "someone")
    puts = len(world.history)
    world.work("pending/a", "ready/a")
    assert [event.verb for event in world.history[puts:]] == ["remove"]
    world.write("pending/a", "a2", "writer")
    world.work("pending/a", "ready/a")
    assert world.objects["ready/a"].label == "a1"
    assert world.objects["pending/a"].label == "a2"
    world.work("pending/a", "ready/b", delete_after_ms=900)
    world.write("pending/a", "a3", "writer")
    world.advance(900)
    assert world.objects["pending/a"].label == "a3"
    world.work("nothing", "ready/c")
    assert "ready/c" not in world.objects


def test_a_copied_folder_has_a_life_of_its_own(world: World) -> None:
    process = start(world)
    log = process.log("plan")
    log.append("one", {}, sync=False)
    copied = Machine("copied", process.machine.folder.copy())
    log.append("two", {})
    other = Process(world, Fates(), copied, "plan").log("plan")
    assert [entry.kind for entry in other.read()] == ["one"]
    with log.locked():
        other.append("three", {})
    copied.folder.cut_power()
    assert [entry.kind for entry in other.read()] == ["one", "three"]
    assert [entry.kind for entry in log.read()] == ["one", "two"]


@pytest.mark.parametrize(
    ("fate", "is_saved"), [("", True), ("lost", True), ("dropped", False), ("late", True)]
)
def test_what_a_process_has_seen_counts_once_it_has_saved(
    world: World, fate: str, is_saved: bool
) -> None:
    world.goals["plan"] = {"pending/a": "a1"}
    process = start(world, put=fate)
    send(process, Request("delete", "pending/a"))
    seen_at = len(world.history)
    world.write("pending/a", "a1", "writer")
    send(process, Request("put", ".runbook/state.json", body=b"x"))
    world.advance(40_000)
    known = [event.index for event in world.history if event.verb == "known_gone"]
    assert known == ([seen_at] if is_saved else [])


@pytest.mark.parametrize("kind", ["strict", "loose"])
def test_a_store_without_renames_moves_nothing(kind: Any) -> None:
    world = World(kind)
    world.write("pending/a", "a1", "writer")
    answer = send(start(world), rename(world))
    assert world.objects["pending/a"].label == "a1"
    if kind == "strict":
        assert answer.code == "NotImplemented"
    else:
        assert world.objects["ready/a"].body == b"", "it was taken for a put"
