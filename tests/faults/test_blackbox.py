"""The ``runbook`` command on real stores, from outside: faults, kills, pauses, and who counts."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.commands import (
    Lane,
    Operator,
    Outcome,
    Round,
    go_on,
    make_plan,
    open_lane,
    read_planned,
    run_many,
)
from tests.faults.conftest import RUNS
from tests.faults.printed import answer
from tests.support.audit import Label
from tests.support.consumers import run_consumers
from tests.support.gateway import StoreServer
from tests.support.lossy_proxy import FATES, Spoil, Trap

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300 + 60 * RUNS)]

LABELS = 30
STILL = "--consumer-stands-still"


@pytest.fixture
def lane(server: StoreServer, tmp_path: Path, seed: int) -> Iterator[Lane]:
    with open_lane(server, tmp_path / "lane", seed=seed) as opened:
        yield opened


@pytest.fixture
def busy_lane(server: StoreServer, tmp_path: Path, seed: int) -> Iterator[Lane]:
    """One whose consumers never pause."""
    with open_lane(server, tmp_path / "lane", seed=seed, pause_s=0) as opened:
        yield opened


@pytest.fixture
def quiet_lane(server: StoreServer, tmp_path: Path, seed: int) -> Iterator[Lane]:
    """One whose consumers stand still."""
    with open_lane(server, tmp_path / "lane", seed=seed, consumers=0) as opened:
        yield opened


def prepare(lane: Lane, seed: int, labels: int = LABELS) -> tuple[Operator, Outcome, list[Label]]:
    """Put labels and have someone plan their release."""
    put, ann = lane.shelf.put_labels(labels, random.Random(seed)), lane.hire("ann")
    plan = make_plan(ann)
    assert plan.document["objects"] == labels, plan
    return ann, plan, put


def begin(plan: Outcome) -> tuple[str, ...]:
    """Return the words that carry out a plan."""
    return ("apply", plan.document["plan"], *plan.approval)


def show(operator: Operator, *words: str) -> tuple[str, ...]:
    """Have an undo or a settling shown, where it stops; return the words that carry it out."""
    shown = operator.run(*words)
    assert shown.code == 5, shown
    return (*words, *shown.approval)


def end_well(
    round_: Round,
    operator: Operator,
    plan: Outcome,
    put: list[Label],
    *,
    is_counted_only: bool = False,
) -> None:
    """Bring a release to its end, and count."""
    round_.end(operator, plan)
    totals = round_.judge(put)
    print(totals, *round_.said)
    assert totals.is_clean or is_counted_only, round_.said


def test_each_label_ships_once_under_consumers_that_never_pause(busy_lane: Lane, seed: int) -> None:
    ann, plan, put = prepare(busy_lane, seed, 20 * RUNS)
    applied = ann.run(*begin(plan))
    print(f"apply: exit {applied.code}, {applied.get('unproven')} of {len(put)} unproven")
    end_well(Round(busy_lane, random.Random(seed)), ann, plan, put)
    assert applied.get("moved") + applied.get("unproven") + applied.get("waiting") == len(put)


def test_answers_about_labels_are_spoiled(lane: Lane, seed: int) -> None:
    rng = random.Random(seed)
    ann, plan, put = prepare(lane, seed)

    def spoil() -> None:  # once the first object is on its way: what happens to it ends the run
        copies = Spoil(("copy",), 0.5, rng.sample(FATES, len(FATES)))
        lane.proxy.spoils = [copies, Spoil(("delete", "bulk"), 1.0, rng.sample(FATES, 3))]

    lane.proxy.traps.append(Trap(("copy",), 1, "after", spoil))
    ann.run(*begin(plan))
    end_well(Round(lane, rng), ann, plan, put)
    print({key: times for key, times in lane.proxy.seen.items() if key[1] != "passed"})


def test_reads_and_answers_about_our_own_objects_are_spoiled(lane: Lane, seed: int) -> None:
    rng = random.Random(seed)
    ann, plan, put = prepare(lane, seed)
    kinds = ("claim", "record"), ("own",), ("list", "head", "get")
    lane.proxy.spoils = [Spoil(some, 0.2, rng.sample(FATES, 4)) for some in kinds]
    ann.run(*begin(plan))
    end_well(Round(lane, rng), ann, plan, put)
    print({key: times for key, times in lane.proxy.seen.items() if key[1] != "passed"})


def test_many_rounds_of_kills_and_stops(server: StoreServer, tmp_path: Path, seed: int) -> None:
    kills, stops, lanes = 2 * RUNS, RUNS // 2, 4
    if RUNS < 100:
        kills, stops, lanes = max(2, RUNS // 2), max(1, RUNS // 6), 2
    totals = run_many(server, tmp_path, seed=seed, kills=kills, stops=stops, lanes=lanes)
    print(f"{server.kind}: {totals}, seed {seed}")
    assert totals.is_clean


def test_what_another_plan_left_in_doubt_is_not_copied_again(lane: Lane, seed: int) -> None:
    lane.proxy.has_renames = False
    ann, plan, put = prepare(lane, seed, labels=2 * LABELS)
    running = ann.start(*begin(plan))
    kill = Trap(("delete", "bulk"), 2, "after", lambda: running.send(signal.SIGKILL))
    lane.proxy.traps.append(kill)
    assert running.wait().code == -signal.SIGKILL
    bob = lane.hire("bob")
    round_ = Round(lane, random.Random(seed))
    refused = bob.run("plan")
    if refused.code == 0:
        assert go_on(bob, refused).code == 5, "a second plan began beside an unfinished one"
    stopped = bob.run("resume", plan.document["plan"], "--stop-here")
    assert stopped.code == 3, stopped
    round_.outcomes.append((read_planned(plan), stopped))
    theirs = bob.run("plan")  # what she had not begun
    if theirs.code == 0:
        spoils = [Spoil(("copy",), 1.0, ["reset_after"] * 3)]
        late = Trap(("copy",), 1, "after", lambda: lane.proxy.spoils.extend(spoils))
        lane.proxy.traps.append(late)
        round_.outcomes.append((read_planned(theirs), go_on(bob, theirs)))
    end_well(round_, ann, plan, put)


@pytest.mark.parametrize("kinds", [(), ("copy", "delete", "bulk")])
def test_undo_with_the_consumer_stopped_is_exact(
    quiet_lane: Lane, seed: int, kinds: tuple[str, ...]
) -> None:
    lane, rng = quiet_lane, random.Random(seed)
    ann, plan, put = prepare(lane, seed)
    names = {label.name for label in put}
    assert ann.run(*begin(plan)).code == 0
    moved = lane.count(put)
    assert moved.ready == names
    assert not moved.pending | moved.unkept
    undo = show(ann, "undo", plan.document["plan"], STILL)
    running = ann.start(*undo)
    if kinds:
        kill = Trap(kinds, rng.randint(1, 30), rng.choice(("before", "after")),
                    lambda: running.send(signal.SIGKILL))  # fmt: skip
        lane.proxy.traps.append(kill)
    first = running.wait()
    last = first
    if kinds:
        # The printed command says since when the consumer stands still: since before the kill.
        printed = [row["way_on"] for row in ann.run("check").document["unfinished"]]
        still = printed[0].split()[-1] if printed else STILL
        last = go_on(ann, plan, still, begin=undo)
    back = lane.count(put)
    print(f"exit {first.code}, then {last.code}: {len(back.pending)} back")
    assert last.code == 0, last
    assert back.pending == names
    assert not back.ready | back.unkept
    proof = ann.run("verify", plan.document["plan"])
    assert (proof.code, proof.document["taken_back"]) == (3, len(names))
    assert proof.document["taken_back_by"] == f"{plan.document['plan']}-undo"


def test_undo_under_live_consumers_loses_nothing(
    quiet_lane: Lane, server: StoreServer, tmp_path: Path, seed: int
) -> None:
    ann, plan, put = prepare(quiet_lane, seed)
    assert ann.run(*begin(plan)).code == 0
    undo, bucket = show(ann, "undo", plan.document["plan"], STILL), quiet_lane.shelf.bucket
    with ExitStack() as stack:

        def consume() -> None:
            consumers = run_consumers(server.endpoint, bucket, tmp_path / "taken")
            quiet_lane.consumers = stack.enter_context(consumers)

        quiet_lane.proxy.traps.append(Trap(("copy",), 5, "before", consume))
        outcome = ann.run(*undo)
        go_on(ann, plan, STILL, begin=undo)
        counted = quiet_lane.count(put)
    both = counted.taken & counted.pending
    print(
        f"{server.kind}: exit {outcome.code}, {len(counted.taken)} taken, {len(counted.pending)} "
        f"back, {len(both)} both"
    )
    assert not counted.lost


def test_a_person_settles_what_nobody_can_know(lane: Lane, seed: int) -> None:
    ann, plan, put = prepare(lane, seed)
    running = ann.start(*begin(plan))
    kill = Trap(("copy",), 12, "after", lambda: running.send(signal.SIGKILL))
    lane.proxy.traps.append(kill)
    assert running.wait().code == -signal.SIGKILL
    resumed = go_on(ann, plan)
    assert (resumed.code, resumed.get("unproven") > 0) == (3, True), resumed
    taken = lane.count(put).taken
    open_keys = [row["key"] for row in ann.run("settle", plan.document["plan"]).document["rows"]]
    answers = answer(open_keys, {key for key in open_keys if key.partition("/")[2] in taken})
    if answers:
        settled = ann.run(*show(ann, "settle", plan.document["plan"], *answers))
        assert settled.code == 0, settled
    bob = lane.hire("bob")
    more = bob.run("plan")
    go_on(bob, more)
    counted = lane.count(put)
    assert not counted.lost | counted.twice | counted.pending
    assert counted.taken == {label.name for label in put}


def test_a_full_disk_under_the_ledger(lane: Lane, seed: int) -> None:
    rng = random.Random(seed)
    ann, plan, put = prepare(lane, seed)
    running = ann.start(*begin(plan))

    def fill() -> None:
        (ledger,) = ann.home.rglob(f"ledger/{plan.document['plan']}.jsonl")
        most = ledger.stat().st_size + rng.randrange(200)
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (most, most))

    full = Trap(("copy",), rng.randint(1, LABELS), "before", fill)
    lane.proxy.traps.append(full)
    outcome = running.wait()
    assert full.sprung.is_set()
    assert outcome.code in (0, 1, 3), outcome
    end_well(Round(lane, rng), ann, plan, put)


_BEYOND = pytest.mark.skipif(RUNS < 100, reason="by `make test-faults`: it only counts")


@pytest.mark.parametrize(("still_s", "effect_s"), [(3, 5), pytest.param(6, 1, marks=_BEYOND)])
def test_the_store_stands_still(
    server: StoreServer, lane: Lane, seed: int, still_s: int, effect_s: int
) -> None:
    """Within RELEASE_EFFECT_S all promises hold; beyond it, what happens is only counted."""
    rng = random.Random(seed)
    put = lane.shelf.put_labels(LABELS, rng)
    ann = lane.hire("ann", RELEASE_LEASE_S="12", RELEASE_EFFECT_S=str(effect_s))
    plan = make_plan(ann)
    assert server.process is not None
    group = server.process.pid

    def stand_still() -> None:
        os.killpg(group, signal.SIGSTOP)
        threading.Timer(still_s, os.killpg, (group, signal.SIGCONT)).start()

    kinds = rng.choice((("copy",), ("delete", "bulk")))
    still = Trap(kinds, rng.randint(1, 2), rng.choice(("before", "after")), stand_still)
    lane.proxy.traps.append(still)
    ann.run(*begin(plan))
    assert still.sprung.is_set()
    print(f"{server.kind} stood still for {still_s} s, G = {effect_s} s")
    end_well(Round(lane, rng), ann, plan, put, is_counted_only=still_s > effect_s)
