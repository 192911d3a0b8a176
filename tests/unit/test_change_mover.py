"""A release moves exactly the approved versions, whatever happens around it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.change.batch import Mover
from runbook_lib.change.lease import LEASE_KEY, Lease
from runbook_lib.change.ledger import Batch, LedgerState, MoveLedger, read_ledger
from runbook_lib.change.losses import find_lost
from runbook_lib.change.plan_file import load_plan
from runbook_lib.clients.object_store import LiveCheck, Write
from runbook_lib.errors import (
    BadAnswerError,
    ClientTimeoutError,
    DriftError,
    LeaseHeldError,
    LogDamagedError,
    NotApprovedError,
    PlanAlteredError,
    PlanExpiredError,
    RecordError,
    StoreNotReadyError,
)
from runbook_lib.record.log import read_entries
from tests.support.memory_store import MemoryStore, MemoryWatch
from tests.support.releases import NOW, Release, get_contents, list_ages, put_label, put_labels


@pytest.fixture(params=["conditional", "blind"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    if request.param == "conditional":
        return MemoryStore()
    return MemoryStore(conditional_delete=False, conditional_put=False, tells_writes=True)


@pytest.fixture
def release(store: MemoryStore, tmp_path: Path) -> Release:
    return Release(store, tmp_path)


def at_first(name: str, act: Callable[[], object]) -> Callable[[str], None]:
    """Return a checkpoint that acts once, at the first boundary of that name."""
    waiting = [act]

    def checkpoint(boundary: str) -> None:
        if boundary == name and waiting:
            waiting.pop()()

    return checkpoint


def moved(contents: dict[str, tuple[str, int]]) -> dict[str, tuple[str, int]]:
    return {key.replace("pending/", "ready/", 1): value for key, value in contents.items()}


def test_every_planned_object_moves_and_nothing_else(store: MemoryStore, release: Release) -> None:
    put_labels(store, 25)
    before = get_contents(store)
    put_label(store, "drill.pdf", chaos_scenario="x")
    put_label(store, "other.pdf", prefix="elsewhere/")
    release.make()
    put_label(store, "later.pdf")
    stay = {"pending/drill.pdf", "elsewhere/other.pdf", "pending/later.pdf"}
    result = release.apply(batch_size=4)
    assert (result.moved, result.is_clean) == (25, True)
    after = get_contents(store)
    assert {key: value for key, value in after.items() if key not in stay} == moved(before)
    assert stay <= after.keys()


def test_metadata_type_and_tags_survive(store: MemoryStore, release: Release) -> None:
    put_label(store, "a.pdf", artifact_id="77")
    store.set_tags("pending/a.pdf", {"team": "ship"})
    before = store.objects["pending/a.pdf"]
    release.make()
    release.apply()
    after = store.objects["ready/a.pdf"]
    assert (after.info.metadata, after.info.content_type) == (
        before.info.metadata,
        "application/pdf",
    )
    assert (after.content, after.tags) == (before.content, {"team": "ship"})


def test_an_age_known_from_last_modified_alone_survives(
    store: MemoryStore, release: Release
) -> None:
    put_label(store, "a.pdf", pending_since=None)
    (row,) = release.make().iter_rows()
    release.apply()
    ages = list_ages(store, ["ready/a.pdf"])
    assert ages == {"ready/a.pdf": row.age_start.isoformat(timespec="milliseconds")[:-6] + "Z"}


def test_nothing_moves_without_the_right_approval(store: MemoryStore, release: Release) -> None:
    put_labels(store, 3)
    release.make()
    before = get_contents(store)
    for approval in ("", "0" * 64, release.made.sha256[:12]):
        with pytest.raises(NotApprovedError):
            release.apply(approve_sha256=approval)
    assert get_contents(store) == before
    assert not release.ledger_path.exists()


def test_an_altered_plan_is_refused(store: MemoryStore, release: Release) -> None:
    put_labels(store, 3)
    plan = release.make()
    text = plan.path.read_text("utf-8")
    plan.path.write_text(text.replace('"made_by":"test"', '"made_by":"tset"'), "utf-8")
    with pytest.raises(PlanAlteredError):
        release.apply()
    release.plan = load_plan(plan.path)
    with pytest.raises(NotApprovedError):
        release.apply(approve_sha256=plan.sha256)


def test_an_expired_plan_is_refused(store: MemoryStore, release: Release) -> None:
    put_labels(store, 3)
    release.make(lifetime_s=60)
    with pytest.raises(PlanExpiredError, match="expired"):
        release.apply(now=lambda: NOW + timedelta(seconds=60))


def test_a_done_plan_is_refused(store: MemoryStore, release: Release) -> None:
    put_labels(store, 3)
    release.make()
    release.apply()
    with pytest.raises(PlanExpiredError, match="carried out"):
        release.apply()
    with pytest.raises(PlanExpiredError, match="carried out"):
        release.resume()


def test_a_plan_of_another_bucket_is_refused(store: MemoryStore, release: Release) -> None:
    put_labels(store, 3)
    release.make()
    with pytest.raises(NotApprovedError, match="settings say"):
        release.apply(store=MemoryStore(bucket="another"))


@pytest.mark.parametrize("change", ["rewritten", "touched", "vanished"])
def test_drift_is_refused_and_named(store: MemoryStore, release: Release, change: str) -> None:
    names = put_labels(store, 3)
    release.make()
    key = f"pending/{names[1]}"
    old = store.objects[key]
    if change == "rewritten":
        store.put_object(key, b"other")
    elif change == "touched":
        store.put_object(key, old.content, metadata={"new": "metadata"})
    else:
        store.delete_object(old.info)
    before = get_contents(store)
    with pytest.raises(DriftError) as caught:
        release.apply()
    assert caught.value.keys == (key,)
    assert get_contents(store) == before


def test_a_sick_store_is_refused(store: MemoryStore, release: Release) -> None:
    put_labels(store, 3)
    release.make()
    store.live = LiveCheck(False, "live endpoint", "url", "answered 503")
    with pytest.raises(StoreNotReadyError):
        release.apply()


def test_a_drill_moves_only_orders_that_the_plan_names_as_its_own(
    store: MemoryStore, release: Release
) -> None:
    put_label(store, "1.pdf", order_id="1")
    release.make()
    with pytest.raises(NotApprovedError, match="own orders"):
        release.apply(approved_by="drill:d1")
    plan = release.make(only_orders=frozenset({"1"}))
    text = plan.path.read_text("utf-8").replace('"order_id":"1"', '"order_id":"2"')
    plan.path.write_text(text, "utf-8")
    release.plan = load_plan(plan.path)
    with pytest.raises(NotApprovedError, match="other orders"):
        release.apply(approved_by="drill:d1")
    release.make(only_orders=frozenset({"1"}))
    assert release.apply(approved_by="drill:d1").moved == 1


def test_the_hold_is_entered_before_and_left_after(store: MemoryStore, release: Release) -> None:
    put_labels(store, 3)
    release.make()
    order: list[str] = []

    @contextmanager
    def hold() -> Any:
        order.append("held")
        yield
        order.append("let go")

    release.apply(hold=hold(), checkpoint=order.append)
    assert (order[0], order[-1]) == ("held", "let go")


def test_the_ledger_has_the_approval_first_and_each_boundary_in_order(
    store: MemoryStore, release: Release
) -> None:
    put_labels(store, 5)
    release.make()
    release.apply(batch_size=5)
    kinds = [entry.kind for entry in read_entries(release.ledger_path)]
    expected = ["approved", "intent", "landed", "outcomes", "window", "done"]
    assert kinds == [k for k in expected if k != "window" or not store.conditional_delete]
    first = next(iter(read_entries(release.ledger_path)))
    assert (first.data["sha256"], first.data["by"]) == (release.made.sha256, "test")


def test_the_intent_is_on_disk_before_the_first_request(
    store: MemoryStore, release: Release
) -> None:
    put_labels(store, 3)
    release.make()

    def check(method: str, key: str) -> None:
        if method == "copy":
            assert len(read_ledger(release.ledger_path).begun) == 3

    store.fail = check
    assert release.apply().moved == 3


def test_no_source_is_deleted_before_its_copy_is_on_record(
    store: MemoryStore, release: Release
) -> None:
    put_labels(store, 3)
    release.make()

    def check(method: str, key: str) -> None:
        if method == "delete" and key.startswith("pending/"):
            assert len(read_ledger(release.ledger_path).landed) == 3

    store.fail = check
    assert release.apply().moved == 3


def test_a_copy_that_someone_overwrote_is_no_proof(store: MemoryStore, release: Release) -> None:
    names = put_labels(store, 3)
    release.make()
    key, taken = f"pending/{names[1]}", f"ready/{names[1]}"
    result = release.apply(
        checkpoint=at_first("copied", lambda: store.put_object(taken, b"another label"))
    )
    assert [conflict.key for conflict in result.conflicts] == [key]
    assert result.moved == 2
    assert key in store.objects
    assert store.objects[taken].content == b"another label"


def test_a_stop_between_the_last_look_and_the_delete_deletes_nothing(
    store: MemoryStore, release: Release
) -> None:
    put_labels(store, 3)
    plan, before, seen = release.make(), get_contents(store), list[str]()
    mover = Mover(
        store,
        header=plan.header,
        ledger=MoveLedger(release.ledger_path, redactor=release.redactor, now=release.now),
        state=LedgerState(),
        now=release.now,
        checkpoint=seen.append,
        is_stopped=lambda: "looked" in seen,
        tell_copied=lambda: None,
    )
    rows = dict(enumerate(plan.iter_rows()))
    work = mover.finish(mover.begin(Batch(0, tuple(rows)), rows))
    assert work.moved == set()
    assert "outcomes" not in seen
    assert before.items() <= get_contents(store).items()


def test_nothing_is_deleted_before_writes_are_told(tmp_path: Path) -> None:
    store = MemoryStore(conditional_delete=False, tells_writes=True)
    release = Release(store, tmp_path)
    put_labels(store, 3)
    release.make()

    def check(method: str, key: str) -> None:
        if method == "delete" and key.startswith("pending/"):
            assert store.watches[-1].is_awaited

    store.fail = check
    assert release.apply().moved == 3


def test_progress_ends_at_the_total(store: MemoryStore, release: Release) -> None:
    put_labels(store, 10)
    release.make()
    seen: list[tuple[int, int]] = []
    release.apply(batch_size=4, progress=lambda done, total: seen.append((done, total)))
    assert (seen[0], seen[-1], seen) == ((0, 10), (10, 10), sorted(seen))
    assert {done for done, _ in seen} == set(range(11))


@pytest.mark.parametrize("method", ["copy", "delete"])
def test_a_bad_object_never_stops_the_others(
    store: MemoryStore, release: Release, method: str
) -> None:
    names = put_labels(store, 10)
    bad = f"pending/{sorted(names)[3]}"
    release.make()

    def fail(called: str, key: str) -> None:
        if (called, key) == (method, bad):
            raise BadAnswerError("500", system="object store")

    store.fail = fail
    result = release.apply(batch_size=4)
    assert (result.moved, [t.key for t in result.failed]) == (9, [bad])
    assert bad in store.objects
    assert read_ledger(release.ledger_path).done is None
    store.fail = lambda *_: None
    result = release.resume()
    assert (result.moved + result.already, result.is_clean) == (10, True)
    assert release.verify().counts["in_place"] == 10


def test_a_delete_whose_answer_was_lost_is_found_out(store: MemoryStore, release: Release) -> None:
    put_labels(store, 4)
    release.make()
    real = store.delete_objects

    def lose_answer(infos: Any, *, guarded: bool) -> Any:
        real(infos, guarded=guarded)
        store.delete_objects = real  # type: ignore[method-assign]
        raise ClientTimeoutError("no answer", system="object store")

    store.delete_objects = lose_answer  # type: ignore[method-assign]
    result = release.apply()
    assert (result.moved, result.is_clean) == (4, True)


def test_copies_that_fail_once_are_tried_again_with_all_guards(
    store: MemoryStore, release: Release
) -> None:
    put_labels(store, 4)
    release.make()
    real = store.copy_objects

    def fail_all(pairs: Any, **_: Any) -> Any:
        for index in range(len(pairs)):
            yield index, BadAnswerError("503", system="object store")

    store.copy_objects = fail_all  # type: ignore[method-assign]
    assert release.apply().moved == 4
    store.copy_objects = real  # type: ignore[method-assign]


@pytest.mark.parametrize("boundary", ["intent", "copied", "landed"])
def test_an_object_rewritten_meanwhile_stays_and_its_stale_copy_goes(
    store: MemoryStore, release: Release, boundary: str
) -> None:
    names = put_labels(store, 4)
    key = f"pending/{names[1]}"
    release.make()
    # A full second later, as the copy's guard counts whole seconds.
    store.advance(2)
    rewrite = at_first(boundary, lambda: store.put_object(key, b"newer", metadata={"v": "2"}))
    result = release.apply(checkpoint=rewrite)
    assert [t.key for t in result.conflicts] == [key]
    assert store.objects[key].content == b"newer"
    assert f"ready/{names[1]}" not in store.objects
    assert result.moved == 3
    assert release.verify().counts["changed_by_others"] == 1


def test_an_object_rewritten_within_its_second_stays_too(
    store: MemoryStore, release: Release
) -> None:
    names = put_labels(store, 4)
    key = f"pending/{names[1]}"
    release.make()
    rewrite = at_first("intent", lambda: store.put_object(key, b"newer", metadata={"v": "2"}))
    result = release.apply(checkpoint=rewrite)
    assert [t.key for t in result.conflicts] == [key]
    assert store.objects[key].content == b"newer"
    assert f"ready/{names[1]}" not in store.objects


def test_in_the_last_moment_only_the_declared_window_is_left(
    store: MemoryStore, release: Release
) -> None:
    names = put_labels(store, 4)
    key = f"pending/{names[1]}"
    release.make()
    rewrite = at_first("looked", lambda: store.put_object(key, b"newer"))
    result = release.apply(checkpoint=rewrite)
    if store.conditional_delete:
        assert [t.key for t in result.conflicts] == [key]
        assert store.objects[key].content == b"newer"
        assert f"ready/{names[1]}" not in store.objects
    else:
        assert result.lost_in_window == (key,)
        assert not result.is_clean
        proof = json.loads(release.verify().evidence.read_text("utf-8"))
        assert proof["ledger"]["lost_in_window"] == [key]


def test_a_source_that_someone_removed_is_a_conflict_and_nothing_is_lost(
    store: MemoryStore, release: Release
) -> None:
    names = put_labels(store, 4)
    key = f"pending/{names[1]}"
    release.make()
    vanish = at_first("copied", lambda: store.objects.pop(key))
    result = release.apply(checkpoint=vanish)
    assert [t.key for t in result.conflicts] == [key]
    assert f"ready/{names[1]}" in store.objects
    assert (release.verify().counts["in_place"], release.verify().counts["lost"]) == (4, 0)


def test_a_destination_taken_meanwhile_is_left_alone(store: MemoryStore, release: Release) -> None:
    names = put_labels(store, 4)
    release.make()
    put_label(store, names[1], b"someone else's", prefix="ready/")
    result = release.apply()
    assert [t.key for t in result.conflicts] == [f"pending/{names[1]}"]
    assert store.objects[f"ready/{names[1]}"].content == b"someone else's"
    assert f"pending/{names[1]}" in store.objects


def test_a_destination_that_someone_filled_with_the_same_content_is_left_alone_too(
    store: MemoryStore, release: Release
) -> None:
    names = put_labels(store, 4)
    release.make()
    content = store.objects[f"pending/{names[1]}"].content
    put_label(store, names[1], content, prefix="ready/", order_id="another")
    there = store.objects[f"ready/{names[1]}"]
    result = release.apply()
    assert [t.key for t in result.conflicts] == [f"pending/{names[1]}"]
    assert store.objects[f"ready/{names[1]}"] == there
    assert f"pending/{names[1]}" in store.objects


def test_what_is_nowhere_after_a_crash_and_was_never_proven_is_said_to_be_lost(
    store: MemoryStore, release: Release
) -> None:
    names = put_labels(store, 3)
    release.make()

    def kill() -> None:
        raise _Killed

    with pytest.raises(_Killed):
        release.apply(checkpoint=at_first("copied", kill))
    store.objects.pop(f"ready/{names[0]}")
    store.objects.pop(f"pending/{names[0]}")
    result = release.resume()
    assert [t.reason.split(":")[0] for t in result.conflicts] == ["lost"]
    assert release.verify().counts["lost"] == 1


def test_only_writes_after_the_planned_version_count_as_newer(
    store: MemoryStore, release: Release
) -> None:
    put_labels(store, 2)
    old, new = list(store.list_objects("pending/"))
    plan = release.make()
    deleted = {info.key: info.last_modified for info in (old, new)}
    watch = MemoryWatch(
        True,
        [
            Write(old.key, old.etag, old.last_modified),
            Write(new.key, "e", new.last_modified + timedelta(milliseconds=1)),
        ],
        "pending/",
    )
    assert find_lost(store, plan, watch, deleted) == []  # both are still there
    store.objects.clear()
    assert find_lost(store, plan, watch, deleted) == [new.key]
    watch.is_watching = False
    assert find_lost(store, plan, watch, deleted) == []


def test_a_copy_taken_by_a_consumer_at_once_keeps_its_source(
    store: MemoryStore, release: Release
) -> None:
    names = put_labels(store, 4)
    release.make()
    take = at_first("copied", lambda: store.objects.pop(f"ready/{names[1]}"))
    result = release.apply(checkpoint=take)
    assert [t.reason.split(":")[0] for t in result.conflicts] == ["unproven"]
    assert f"pending/{names[1]}" in store.objects
    assert f"ready/{names[1]}" not in store.objects


def test_a_move_that_was_cut_off_earlier_is_completed(store: MemoryStore, release: Release) -> None:
    put_label(store, "a.pdf", b"same")
    put_label(store, "a.pdf", b"same", prefix="ready/")
    there = store.objects["ready/a.pdf"]
    release.make()
    assert release.apply().moved == 1
    assert store.objects == {"ready/a.pdf": there, **_runbook(store)}


def _runbook(store: MemoryStore) -> dict[str, Any]:
    return {k: v for k, v in store.objects.items() if k.startswith(".runbook/")}


class _Killed(BaseException):
    """What a kill is in one process: nothing after it runs but the clean-up."""


@pytest.mark.parametrize(
    "boundary", ["approved", "intent", "copied", "landed", "looked", "deleted", "outcomes", "done"]
)
def test_resume_goes_on_from_every_boundary(
    store: MemoryStore, release: Release, boundary: str
) -> None:
    put_labels(store, 9)
    before = get_contents(store)
    release.make()

    def kill() -> None:
        raise _Killed

    with pytest.raises(_Killed):
        release.apply(batch_size=4, checkpoint=at_first(boundary, kill))
    if boundary == "done":
        with pytest.raises(PlanExpiredError):
            release.resume()
    else:
        later = NOW + timedelta(days=1)  # the lifetime does not count any more
        release.now = lambda: later
        result = release.resume(batch_size=4)
        assert (result.moved + result.already, result.is_clean) == (9, True)
    assert get_contents(store) == moved(before)
    counts = release.verify().counts
    assert (counts["in_place"], counts["lost"], counts["duplicated"]) == (9, 0, 0)


def test_resume_needs_a_begun_ledger(store: MemoryStore, release: Release) -> None:
    put_labels(store, 3)
    release.make()
    with pytest.raises(NotApprovedError, match="never begun"):
        release.resume()


def test_what_a_consumer_took_before_the_resume_is_not_copied_again(
    store: MemoryStore, release: Release
) -> None:
    names = put_labels(store, 3)
    release.make()

    def kill() -> None:
        raise _Killed

    with pytest.raises(_Killed):
        release.apply(checkpoint=at_first("deleted", kill))
    store.objects.pop(f"ready/{names[0]}")
    result = release.resume()
    assert result.is_clean
    assert f"ready/{names[0]}" not in store.objects
    assert release.verify().counts["gone_after_done"] == 1


def test_a_torn_last_line_is_kept_aside_and_any_other_damage_is_refused(
    store: MemoryStore, release: Release
) -> None:
    put_labels(store, 6)
    release.make()

    def kill() -> None:
        raise _Killed

    with pytest.raises(_Killed):
        release.apply(batch_size=3, checkpoint=at_first("outcomes", kill))
    whole = release.ledger_path.read_bytes()
    release.ledger_path.write_bytes(whole.replace(b'"moved":3', b'"moved":2', 1))
    with pytest.raises(LogDamagedError):
        release.resume()
    release.ledger_path.write_bytes(whole + b'{"at":"2026-')
    assert release.resume().is_clean
    assert release.ledger_path.with_name(f"{release.ledger_path.name}.torn-1").exists()
    kinds = [entry.kind for entry in read_entries(release.ledger_path)]
    assert "torn_tail" in kinds


def test_a_ledger_that_cannot_be_written_stops_before_the_store_is_touched(
    store: MemoryStore, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = put_labels(store, 6)
    release.make()
    from runbook_lib.record.log import ChainedLog

    real = ChainedLog.append

    def full(self: ChainedLog, kind: str, data: dict[str, Any]) -> Any:
        if kind == "intent":
            raise RecordError("No space left on device. Nothing was appended.")
        return real(self, kind, data)

    with monkeypatch.context() as patch:
        patch.setattr(ChainedLog, "append", full)
        with pytest.raises(RecordError):
            release.apply()
    assert get_contents(store).keys() == {f"pending/{name}" for name in names}
    assert release.resume().is_clean


def test_a_store_that_dies_stops_the_run_and_names_what_is_left(
    store: MemoryStore, release: Release
) -> None:
    put_labels(store, 40)
    release.make()

    def die() -> None:
        def fail(method: str, key: str) -> None:
            raise ClientTimeoutError("no answer", system="object store")

        store.fail = fail
        store.live = LiveCheck(False, "live endpoint", "url", "no answer")

    result = release.apply(batch_size=4, checkpoint=at_first("outcomes", die))
    assert result.stopped
    assert result.left > 0
    store.fail, store.live = (lambda *_: None), LiveCheck(True, "live endpoint", "url")
    result = release.resume(batch_size=4)
    assert (result.moved + result.already, result.is_clean) == (40, True)


def test_a_lease_keeps_overlapping_plans_apart(store: MemoryStore, release: Release) -> None:
    put_labels(store, 3)
    release.make()
    other: dict[str, Any] = {"plan_id": "rel-other", "by": "someone", "now": release.now}
    with Lease(store, prefixes=("pending/sub/", "x/"), **other):
        with pytest.raises(LeaseHeldError, match="someone is applying rel-other"):
            release.apply()
        with Lease(store, prefixes=("apart/",), plan_id="rel-3", by="third", now=release.now):
            pass
    assert release.apply().moved == 3
    assert json.loads(store.objects[LEASE_KEY].content) == {"leases": []}


def test_a_lapsed_lease_does_not_count(store: MemoryStore, release: Release) -> None:
    put_labels(store, 3)
    release.make()
    old = Lease(
        store,
        plan_id="rel-other",
        by="someone",
        prefixes=("pending/",),
        now=lambda: NOW - timedelta(minutes=2),
    )
    old.__enter__()
    assert release.apply().moved == 3


def test_a_lease_that_someone_else_took_stops_the_run(tmp_path: Path) -> None:
    store = MemoryStore()
    put_labels(store, 9)
    clock = [NOW]
    release = Release(store, tmp_path, now=lambda: clock[0])
    release.make()

    def lose_it() -> None:
        clock[0] += timedelta(seconds=61)
        other = Lease(
            store, plan_id="rel-2", by="someone", prefixes=("ready/",), now=lambda: clock[0]
        )
        other.__enter__()

    result = release.apply(batch_size=3, checkpoint=at_first("intent", lose_it))
    assert "someone is applying rel-2" in result.stopped
    assert result.left > 0
    clock[0] += timedelta(seconds=61)
    assert release.resume().is_clean


def test_two_applies_of_one_plan_in_one_folder_exclude_each_other(
    store: MemoryStore, release: Release
) -> None:
    put_labels(store, 3)
    release.make()
    refused: list[Exception] = []

    def again() -> None:
        try:
            release.apply()
        except LeaseHeldError as error:
            refused.append(error)

    assert release.apply(checkpoint=at_first("intent", again)).moved == 3
    assert len(refused) == 1


def test_conflicts_do_not_keep_a_plan_open(store: MemoryStore, release: Release) -> None:
    names = put_labels(store, 3)
    release.make()
    put_label(store, names[0], b"taken", prefix="ready/")
    result = release.apply()
    assert not result.is_clean
    assert read_ledger(release.ledger_path).done == {"moved": 2, "already": 0}
    assert replace(result, conflicts=()).is_clean
