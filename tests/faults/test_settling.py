"""What nobody can know, and a person's word on it: few rows, parked, settled singly, told apart."""

from __future__ import annotations

import random
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.commands import Lane, Operator, Outcome, open_lane
from tests.faults.printed import (
    CHANGES,
    MOST_AT_ONCE,
    STANDS_STILL,
    Tally,
    answer,
    approve,
    expect_finished,
    expect_nothing_twice,
    follow,
    kill_at,
    list_unfinished,
    paste,
    pick_words,
    plan_release,
    put_foreign,
    release,
    run_worker_pass,
    settle_truthfully,
    ship_the_rest,
    spoil_after,
    start_printed,
    tell,
    where_are,
)
from tests.support.audit import Label
from tests.support.gateway import StoreServer, run_seaweedfs
from tests.support.lossy_proxy import Spoil, Trap

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

LABELS = 60
NOBODY_SAYS: tuple[str, ...] = ()
WORDS = ("--taken", "--not-taken")


def leave_doubts(
    lane: Lane, seed: int, tally: Tally, *, worker: bool = False, labels: int = LABELS
) -> tuple[Operator, Outcome, list[Label]]:
    """Have a release killed among its copies; a consumer takes what landed; it is resumed.

    A store that renames leaves no such doubts, so this one has to copy.

    Returns
    -------
    Who did it, the resumed release, which names what nobody can know, and the labels.
    """
    lane.proxy.has_renames = False
    put = lane.shelf.put_labels(labels, random.Random(seed))
    ann = lane.hire("ann", worker=worker)
    plan = plan_release(ann, labels)
    running = start_printed(ann, plan.document["apply"])
    kill_at(lane, running, ("copy",), 8, "before")
    killed = running.wait()
    assert killed.code < 0, tell(killed)
    tally.take()
    resumed = follow(ann, killed, words=NOBODY_SAYS)
    tally.take()
    assert resumed.get("unproven"), tell(resumed)
    return ann, resumed, put


def leave_one_doubt(
    lane: Lane, ann: Operator, put: list[Label], *, fate: str, act_after: Trap | None = None
) -> Outcome:
    """Release with the answer of the first copy lost; return the outcome of the last command."""
    if act_after is not None:
        lane.proxy.traps.append(act_after)
    lane.proxy.spoils.append(Spoil(("copy",), 1.0, [fate]))
    plan = plan_release(ann, len(put))
    applied = paste(ann, plan.document["apply"])
    return follow(ann, applied, words=NOBODY_SAYS)


@pytest.mark.parametrize(("number", "renames"), [(6, True), (21, False), (42, False)])
def test_a_kill_leaves_few_labels_in_doubt(
    lane: Lane, seed: int, number: int, *, renames: bool
) -> None:
    """G6: kill at copy 6, 21, 42 of 65: 59, 60, 38 unproven; most had never been sent."""
    lane.proxy.has_renames = renames
    put = lane.shelf.put_labels(65, random.Random(seed))
    ann = lane.hire("ann")
    plan = plan_release(ann, 65)
    running = start_printed(ann, plan.document["apply"])
    kill_at(lane, running, ("copy",), number, "before")
    killed = running.wait()
    assert killed.code < 0, tell(killed)
    ended = follow(ann, killed, words=NOBODY_SAYS)
    proof = ann.run("verify", plan.document["plan"])
    assert proof.get("unproven") <= MOST_AT_ONCE, tell(proof)
    assert proof.get("unproven") + proof.get("in_place") == len(put), tell(ended)


@pytest.mark.parametrize("number", [6, 42])
@pytest.mark.parametrize("is_said_before", [True, False])
def test_a_kill_while_the_consumer_stands_still_leaves_none_in_doubt(
    lane: Lane, seed: int, number: int, *, is_said_before: bool
) -> None:
    """G6: with a truthful word since when nobody took from ready/, resume knows where all are."""
    lane.proxy.has_renames = False
    tally = Tally(lane)
    put = lane.shelf.put_labels(65, random.Random(seed))
    ann = lane.hire("ann")
    plan = plan_release(ann, 65)
    since = f"{datetime.now(UTC) - timedelta(seconds=2):%Y-%m-%dT%H:%M:%SZ}"
    words = (STANDS_STILL,) if is_said_before else ()
    running = ann.start("apply", plan.document["plan"], *plan.approval, *words)
    kill_at(lane, running, ("copy",), number, "before")
    killed = running.wait()
    assert killed.code < 0, tell(killed)
    if is_said_before:  # the printed command repeats it, with the time
        resumed = follow(ann, killed)
        assert f"{STANDS_STILL}=" in " ".join(resumed.words)
    else:
        resumed = ann.run("resume", plan.document["plan"], f"{STANDS_STILL}={since}")
        resumed = follow(ann, resumed)
    assert (resumed.code, resumed.get("moved")) == (0, 65), tell(resumed)
    proof = ann.run("verify", plan.document["plan"])
    assert (proof.code, proof.get("in_place")) == (0, 65), tell(proof)
    ship_the_rest(lane, put, tally)


def test_a_busy_store_leaves_no_doubt_while_the_consumer_stands_still(
    lane: Lane, seed: int
) -> None:
    """G6: SlowDown on 15 % of the copies, no consumer: 18 of 130 need a person."""
    tally = Tally(lane)
    put = lane.shelf.put_labels(65, random.Random(seed))
    ann = lane.hire("ann")
    plan = plan_release(ann, 65)
    spoil_after(lane, "copy", 1, Spoil(("copy",), 0.15, ["503"] * 10))
    applied = ann.run("apply", plan.document["plan"], *plan.approval, STANDS_STILL)
    applied = follow(ann, applied)
    assert (applied.code, applied.get("moved")) == (0, 65), tell(applied)
    ship_the_rest(lane, put, tally)


def test_an_unproven_label_is_out_of_the_workers_reach(lane: Lane, seed: int) -> None:
    """G18: an unproven row's source stays in pending/, and our own worker ships it twice."""
    tally = Tally(lane)
    ann, resumed, put = leave_doubts(lane, seed, tally, worker=True)
    plan_id = resumed.document["plan"]
    unproven = {key.partition("/")[2] for key in pick_words(resumed, "unproven")}
    assert not lane.worker.is_paused
    run_worker_pass(lane)
    tally.take()
    expect_nothing_twice(lane, put, tally)
    places = where_are(lane, put)
    assert not places["pending/"] & unproven
    assert places["parked/"] == unproven
    proof = ann.run("verify", plan_id)
    assert proof.get("unproven") == len(unproven)
    assert f"parked/{plan_id}/" in str(proof.document)
    settle_truthfully(ann, plan_id, tally, put)
    assert len(where_are(lane, put)["pending/"]) == len(unproven - tally.names(put))
    ship_the_rest(lane, put, tally)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("number", [2, 5, 12])
def test_a_killed_settling_ends_by_the_printed_commands(
    lane: Lane, seed: int, word: str, number: int
) -> None:
    """G1: a settling that is killed is begun for ever, and offered again for ever."""
    tally = Tally(lane)
    ann, resumed, put = leave_doubts(lane, seed, tally)
    plan_id = resumed.document["plan"]
    _make_true(tally, put, resumed, word)
    running = start_printed(ann, approve(ann, "settle", plan_id, word))
    kill_at(lane, running, CHANGES, number, "after")
    follow(ann, running.wait())
    _say_again(ann, plan_id, word)
    expect_settled(lane, ann, resumed, put=put, tally=tally, word=word)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("fate", ["reset_after", "made-503-html"])
def test_a_settling_with_a_lost_answer_ends_by_the_printed_commands(
    lane: Lane, seed: int, word: str, fate: str
) -> None:
    """G1: so does one whose copy or delete got no answer that proves anything."""
    tally = Tally(lane)
    ann, resumed, put = leave_doubts(lane, seed, tally)
    plan_id = resumed.document["plan"]
    _make_true(tally, put, resumed, word)
    command = approve(ann, "settle", plan_id, word)
    kinds = ("copy", "delete", "bulk", "record")
    lane.proxy.spoils += [Spoil((kind,), 1.0, [fate]) for kind in kinds]
    settled = paste(ann, command)
    follow(ann, settled)
    lane.proxy.calm()
    _say_again(ann, plan_id, word)
    expect_settled(lane, ann, resumed, put=put, tally=tally, word=word)


def _say_again(ann: Operator, plan_id: str, word: str) -> None:
    """Say the word once more of what is still in doubt.

    The disturbance may have come before anything was begun; and where nobody holds the worker, a
    label that may be back may have been taken, too.
    """
    if ann.run("settle", plan_id).code != 0:
        follow(ann, paste(ann, approve(ann, "settle", plan_id, word)))


def _make_true(tally: Tally, put: list[Label], resumed: Outcome, word: str) -> None:
    """Count as if the word were true of every row: only what comes after it is judged."""
    unproven = {key.partition("/")[2] for key in pick_words(resumed, "unproven")}
    for label in put:
        if label.name in unproven:
            tally.shipped[label.sha256] = 1 if word == "--taken" else 0


def expect_settled(
    lane: Lane, ann: Operator, resumed: Outcome, *, put: list[Label], tally: Tally, word: str
) -> None:
    """Check that a word on all unproven rows was carried out, whole, and is told as a word."""
    plan_id = resumed.document["plan"]
    unproven = {key.partition("/")[2] for key in pick_words(resumed, "unproven")}
    places = where_are(lane, put)
    pending, parked = places["pending/"], places["parked/"]
    assert pending & unproven == (set() if word == "--taken" else unproven)
    assert parked & unproven == (unproven if word == "--taken" else set())
    assert ann.run("settle", plan_id).code == 0
    proof = ann.run("verify", plan_id)
    assert proof.code == 3, tell(proof)
    if word == "--taken":
        assert proof.get("settled_by_word") == len(unproven)
    assert not list_unfinished(ann)
    ship_the_rest(lane, put, tally)


def test_a_word_is_not_proof(lane: Lane, seed: int) -> None:
    """G7: verify after --taken says proven, exit 0, of labels that were parked, never shipped."""
    tally = Tally(lane)
    ann, resumed, put = leave_doubts(lane, seed, tally)
    plan_id = resumed.document["plan"]
    unproven = resumed.get("unproven")
    settled = paste(ann, approve(ann, "settle", plan_id, "--taken"))
    assert settled.code == 0, tell(settled)
    proof = ann.run("verify", plan_id)
    assert proof.code == 3, tell(proof)
    assert proof.document["settled_by_word"] == unproven
    assert proof.get("in_place") + proof.get("gone_after_landed") == len(put) - unproven


@pytest.mark.parametrize("is_same", [False, True], ids=["corrected", "same"])
def test_a_label_that_is_put_again_while_its_copy_is_in_doubt_ships_as_it_should(
    lane: Lane, seed: int, *, is_same: bool
) -> None:
    """G3: a corrected label is parked by a truthful --taken; the same one ships twice by it."""
    tally = Tally(lane)
    ann = lane.hire("ann")
    put = lane.shelf.put_labels(12, random.Random(seed))
    again: list[Label] = []

    def take_and_put_again() -> None:
        name = lane.shelf.list_keys("ready/")[0].partition("/")[2]
        with lane.shelf.client.get_object(lane.shelf.bucket, f"ready/{name}") as response:
            body = response.read()
        tally.take(name)
        new = body if is_same else b"%PDF corrected " + name.encode()
        again.append(put_foreign(lane, f"pending/{name}", new))

    trap = Trap(("copy",), 1, "after", take_and_put_again)
    ended = leave_one_doubt(lane, ann, put, fate="reset_after", act_after=trap)
    plan_id = ended.document["plan"]
    assert ended.get("unproven") == 1, tell(ended)
    rows = ann.run("settle", plan_id).document["rows"]
    if is_same:
        assert [row["key"] for row in rows] == [f"pending/{again[0].name}"]
        settled = paste(ann, approve(ann, "settle", plan_id, "--taken"))
        assert settled.code == 0, tell(settled)
        assert where_are(lane, again)["parked/"] == {again[0].name}
        assert lane.hire("bob").run("plan").document["objects"] == 0
        tally.take()
        ship_the_rest(lane, put, tally)
        return
    assert not rows, "the label that it was about lies nowhere: there is nothing to decide"
    plan = plan_release(lane.hire("bob"), 1)
    assert again[0].name in str(plan.document["rows"])
    tally.take()
    ship_the_rest(lane, [*put, *again], tally)
    assert tally.shipped[again[0].sha256] == 1


def test_a_word_without_keys_is_about_unproven_rows_only(lane: Lane, seed: int) -> None:
    """G3: without keys, conflicts and unproven rows go together."""
    ended, _, _ = leave_one_doubt_and_one_conflict(lane, seed)
    shown = ended.operator.run("settle", ended.plan_id, "--taken")
    assert (shown.code, shown.document.get("objects")) == (5, 1), tell(shown)


@dataclass(frozen=True)
class Ended:
    """A release that has ended, and who carried it out."""

    operator: Operator
    plan_id: str
    outcome: Outcome


def leave_one_doubt_and_one_conflict(lane: Lane, seed: int) -> tuple[Ended, Label, list[Label]]:
    """Release with one copy in doubt, and one whose destination somebody else has taken."""
    lane.proxy.has_renames = False
    tally = Tally(lane)
    ann = lane.hire("ann")
    put = lane.shelf.put_labels(12, random.Random(seed))
    last = put[-1].name
    foreign: list[Label] = []

    def take_one_and_occupy() -> None:
        tally.take(lane.shelf.list_keys("ready/")[0].partition("/")[2])
        foreign.append(put_foreign(lane, f"ready/{last}", b"%PDF foreign " + last.encode()))

    trap = Trap(("copy",), 1, "after", take_one_and_occupy)
    outcome = leave_one_doubt(lane, ann, put, fate="reset_after", act_after=trap)
    return Ended(ann, outcome.document["plan"], outcome), foreign[0], put


def test_a_conflict_is_told_apart_and_ends_once_its_cause_is_gone(lane: Lane, seed: int) -> None:
    """G3: a conflict is not "nobody can know"; a new plan moves it once its destination is free."""
    ended, foreign, _ = leave_one_doubt_and_one_conflict(lane, seed)
    ann, outcome = ended.operator, ended.outcome
    assert (outcome.get("conflicts"), outcome.get("skipped")) == (1, 1), tell(outcome)
    assert f"pending/{foreign.name}" in pick_words(outcome, "reasons")
    assert f"pending/{foreign.name}" not in pick_words(outcome, "unproven")
    plan = ann.run("plan")
    assert (plan.code, plan.document["excluded"].get("destination_taken")) == (3, 1), tell(plan)
    lane.shelf.client.remove_object(lane.shelf.bucket, f"ready/{foreign.name}")
    assert release(ann, 1).code == 0
    assert f"ready/{foreign.name}" in lane.shelf.list_keys("ready/")


def test_settle_shows_each_open_row_with_what_each_word_would_do(lane: Lane, seed: int) -> None:
    """G16: a person settles in a minute: one table, evidence for every row, exit 3 while open."""
    tally = Tally(lane)
    ann, resumed, _ = leave_doubts(lane, seed, tally)
    table = ann.run("settle", resumed.document["plan"])
    assert table.code == 3, tell(table)
    rows = table.document["rows"]
    assert {row["key"] for row in rows} == set(pick_words(resumed, "unproven"))
    for row in rows:
        assert row.keys() >= {"key", "order", "evidence", "why", "taken_does", "not_taken_does"}
        assert row["taken_does"] != row["not_taken_does"]


NAMES = (
    "1,2-comma.pdf",
    " outer blanks .pdf",
    'quote\'s "both" $HOME.pdf',
    "plain-a.pdf",
    "plain-b.pdf",
    "plain-c.pdf",
)


@pytest.mark.parametrize("way", ["words", "--from-file"])
def test_keys_of_every_shape_are_settled_singly(
    lane: Lane, seed: int, tmp_path: Path, way: str
) -> None:
    """G16: keys with a comma, outer blanks or quotes cannot be settled singly."""
    lane.proxy.has_renames = False
    tally, ann = Tally(lane), lane.hire("ann", RELEASE_MATCH="*")
    for name in NAMES:
        put_foreign(lane, f"pending/{name}", f"%PDF {seed} {name}".encode())
    plan = plan_release(ann, len(NAMES))
    plan_id = plan.document["plan"]
    running = start_printed(ann, plan.document["apply"])
    kill_at(lane, running, ("copy",), 2, "before")
    killed = running.wait()
    tally.take()
    resumed = follow(ann, killed, words=NOBODY_SAYS)
    unproven = pick_words(resumed, "unproven")
    odd = [key for key in unproven if key.partition("/")[2] in NAMES[:3]]
    assert len(unproven) > len(odd) > 1, unproven
    one = random.Random(seed).choice(odd)
    words = ["--not-taken", one]
    if way == "--from-file":
        (tmp_path / "answers.txt").write_text(f"not-taken {one}\n", "utf-8")
        words = ["--from-file", str(tmp_path / "answers.txt")]
    settled = paste(ann, approve(ann, "settle", plan_id, *words))
    assert settled.get("not_taken") == 1, tell(settled)
    assert (settled.code, settled.get("left")) == (3, len(unproven) - 1), tell(settled)
    left = {row["key"] for row in ann.run("settle", plan_id).document["rows"]}
    assert left == set(unproven) - {one}
    assert one in lane.shelf.list_keys("pending/")


def test_what_was_not_taken_waits_for_a_new_plan(lane: Lane, seed: int) -> None:
    tally = Tally(lane)
    ann, resumed, _ = leave_doubts(lane, seed, tally)
    plan_id = resumed.document["plan"]
    unproven = pick_words(resumed, "unproven")
    settled = paste(ann, approve(ann, "settle", plan_id, "--not-taken"))
    assert (settled.code, settled.document["way_on"]) == (0, ["runbook plan"]), tell(settled)
    for command in ("resume", "verify"):
        said = ann.run(command, plan_id)
        assert (said.code, said.document["way_on"]) == (3, ["runbook plan"]), tell(said)
    assert ann.run("resume", plan_id).document["left"] == len(unproven)
    again = ann.run("plan").document
    assert again["objects"] == len(unproven)
    assert ann.run(*shlex.split(again["apply"])[1:]).code == 0
    for command in ("resume", "verify"):
        said = ann.run(command, plan_id)
        assert (said.code, said.document["way_on"]) == (3, []), tell(said)
    assert said.document["settled_by_word"] == len(unproven)


def test_an_approval_of_answers_is_refused_once_others_were_given(lane: Lane, seed: int) -> None:
    """G16: --taken, then an older --not-taken: both exit 0."""
    tally = Tally(lane)
    ann, resumed, put = leave_doubts(lane, seed, tally)
    plan_id = resumed.document["plan"]
    older = approve(ann, "settle", plan_id, "--not-taken")
    settled = paste(ann, approve(ann, "settle", plan_id, "--taken"))
    assert settled.code == 0, tell(settled)
    refused = paste(ann, older)
    assert refused.code == 5, tell(refused)
    unproven = {key.partition("/")[2] for key in pick_words(resumed, "unproven")}
    assert not where_are(lane, put)["pending/"] & unproven


def test_the_other_answer_given_later_overrules(lane: Lane, seed: int) -> None:
    """G1: a wrong --taken is mended by the true answer: the labels are where they were."""
    tally = Tally(lane)
    ann, resumed, put = leave_doubts(lane, seed, tally)
    plan_id = resumed.document["plan"]
    unproven = pick_words(resumed, "unproven")
    names = {key.partition("/")[2] for key in unproven}
    settled = paste(ann, approve(ann, "settle", plan_id, "--taken"))
    assert settled.code == 0, tell(settled)
    taken = {key for key in unproven if key.partition("/")[2] in tally.names(put)}
    mended = paste(ann, approve(ann, "settle", plan_id, *answer(unproven, taken)))
    assert (mended.code, mended.get("taken") + mended.get("not_taken")) == (0, len(unproven))
    places = where_are(lane, put)
    assert places["pending/"] & names == names - tally.names(put)
    assert places["parked/"] == names & tally.names(put)
    ship_the_rest(lane, put, tally)


@pytest.mark.parametrize("number", [4, 20])
def test_a_kill_on_a_versioned_bucket_is_settled_like_any_other(
    tmp_path: Path, seed: int, number: int
) -> None:
    """Delete markers and older versions change nothing, and nobody reads them."""
    from minio.commonconfig import ENABLED
    from minio.versioningconfig import VersioningConfig

    with (
        run_seaweedfs(tmp_path / "store") as server,
        open_lane(server, tmp_path / "lane", seed=seed, consumers=0) as lane,
    ):
        lane.shelf.client.set_bucket_versioning(lane.shelf.bucket, VersioningConfig(ENABLED))
        tally = Tally(lane)
        put = lane.shelf.put_labels(40, random.Random(seed))
        ann = lane.hire("ann")
        plan = plan_release(ann, 40)
        running = start_printed(ann, plan.document["apply"])
        kill_at(lane, running, ("copy",), number, "after")
        assert running.wait().code < 0
        tally.take()
        resumed = follow(ann, ann.run("resume", plan.document["plan"]), words=NOBODY_SAYS)
        assert resumed.get("unproven") <= MOST_AT_ONCE, tell(resumed)
        tally.take()
        settle_truthfully(ann, plan.document["plan"], tally, put)
        ship_the_rest(lane, put, tally)


def test_a_kill_on_a_store_that_renames_asks_about_no_label_that_is_there(
    server: StoreServer, tmp_path: Path, seed: int
) -> None:
    """A rename moves a label in one step: it is waiting, at its destination, or taken."""
    if server.kind != "seaweedfs":
        pytest.skip("this store cannot rename")
    with open_lane(server, tmp_path / "lane", seed=seed) as lane:  # its consumers poll
        put = lane.shelf.put_labels(LABELS, random.Random(seed))
        ann = lane.hire("ann", worker=True)
        plan = plan_release(ann, LABELS)
        plan_id = plan.document["plan"]
        running = start_printed(ann, plan.document["apply"])
        number = random.Random(seed).randint(3, LABELS)
        kill_at(lane, running, ("copy",), number, "before")
        killed = running.wait()
        assert killed.code < 0, tell(killed)
        resumed = follow(ann, killed, words=NOBODY_SAYS)
        shown = ann.run("settle", plan_id)
        assert (shown.code, shown.document["rows"]) == (0, []), tell(shown)
        assert not lane.worker.is_paused
        unproven = {key.partition("/")[2] for key in pick_words(resumed, "unproven")}
        counted = lane.count(put)
        print(f"killed at {number}: {len(unproven)} of {LABELS} unproven, none to decide")
        assert not lane.shelf.list_keys("parked/")
        assert unproven <= counted.taken
        assert counted.taken == {label.name for label in put}
        assert not counted.lost | counted.twice
        proof = ann.run("verify", plan_id)
        assert proof.get("gone_after_landed") == LABELS - len(unproven), tell(proof)
        expect_finished(lane, lane.hire("bob", worker=True))


def test_a_slash_at_the_end_of_a_key_is_counted(lane: Lane, seed: int) -> None:
    """G16: keys that end in / are not in the plan, and not among what it excludes."""
    lane.shelf.put_labels(2, random.Random(seed))
    before = plan_release(lane.hire("ann"), 2).document["excluded"]
    put_foreign(lane, "pending/folder.pdf/", b"")
    after = plan_release(lane.hire("bob"), 2).document["excluded"]
    assert sum(after.values()) == sum(before.values()) + 1, (before, after)


def test_an_undamaged_release_needs_no_word(lane: Lane, seed: int) -> None:
    """G7: nothing open: the table is empty, exit 0."""
    ann = lane.hire("ann")
    put = lane.shelf.put_labels(4, random.Random(seed))
    plan = release(ann, 4)
    table = ann.run("settle", plan.document["plan"])
    assert (table.code, table.document.get("rows")) == (0, []), tell(table)
    assert len(put) == 4
