"""Undo restores the listing and the ages; what others did meanwhile is left alone."""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbook_lib.analysis.artifacts import compute_age_start
from runbook_lib.change.ledger import read_ledger
from runbook_lib.clients.object_store import is_key_supported
from runbook_lib.errors import NotApprovedError, PlanExpiredError, UsageError
from runbook_lib.model import format_time
from tests.support.memory_store import MemoryStore
from tests.support.releases import NOW, Release, get_contents, put_label, put_labels


@pytest.fixture(params=["conditional", "blind"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    ability = request.param == "conditional"
    return MemoryStore(conditional_delete=ability, conditional_put=ability)


@pytest.fixture
def release(store: MemoryStore, tmp_path: Path) -> Release:
    return Release(store, tmp_path)


def get_ages(store: MemoryStore, prefix: str) -> dict[str, datetime]:
    return {
        key: compute_age_start(stored.info.metadata or {}, stored.info.last_modified, NOW).at
        for key, stored in store.objects.items()
        if key.startswith(prefix)
    }


def test_undo_restores_the_listing_and_the_ages(store: MemoryStore, release: Release) -> None:
    put_labels(store, 10)
    put_label(store, "no-age.pdf", pending_since=None)
    before, ages = get_contents(store), get_ages(store, "pending/")
    release.make()
    release.apply()
    result = release.undo()
    assert (result.moved, result.is_clean) == (11, True)
    assert get_contents(store) == before
    assert get_ages(store, "pending/") == ages


def test_undo_works_within_its_window_only(store: MemoryStore, release: Release) -> None:
    put_labels(store, 3)
    release.make()
    release.apply()
    moved = get_contents(store)
    with pytest.raises(PlanExpiredError, match="could be taken back until"):
        release.undo(now=lambda: NOW + timedelta(seconds=901))
    assert get_contents(store) == moved
    assert release.undo(now=lambda: NOW + timedelta(seconds=899)).moved == 3


def test_undo_needs_a_release(store: MemoryStore, release: Release) -> None:
    put_labels(store, 3)
    release.make()
    with pytest.raises(NotApprovedError, match="never begun"):
        release.undo()


def test_undo_leaves_what_is_not_ours_any_more(store: MemoryStore, release: Release) -> None:
    names = sorted(put_labels(store, 4))
    release.make()
    release.apply()
    store.objects.pop(f"ready/{names[0]}")  # a consumer took it
    put_label(store, names[1], b"someone else's", prefix="ready/")
    put_label(store, names[2], b"came anew")
    result = release.undo()
    assert result.moved == 1
    assert get_contents(store).keys() == {
        f"ready/{names[1]}",
        f"ready/{names[2]}",
        f"pending/{names[2]}",
        f"pending/{names[3]}",
    }
    undone = release.folder / "plans" / f"{release.made.id}-undo.jsonl"
    for reason in ("gone_after_done", "not_ours", "destination_taken"):
        assert f'"{reason}":1' in undone.read_text("utf-8")


def test_undo_does_not_touch_conflicts(store: MemoryStore, release: Release) -> None:
    names = sorted(put_labels(store, 3))
    release.make()
    put_label(store, names[0], b"taken", prefix="ready/")
    release.apply()
    assert release.undo().moved == 2
    assert store.objects[f"ready/{names[0]}"].content == b"taken"


def test_a_release_that_was_cut_off_is_resumed_first(store: MemoryStore, release: Release) -> None:
    put_labels(store, 6)
    release.make()

    def kill(boundary: str) -> None:
        if boundary == "landed":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        release.apply(batch_size=3, checkpoint=kill)
    with pytest.raises(UsageError, match="resume it"):
        release.undo()
    release.resume()
    assert release.undo().moved == 6


def test_an_undo_that_was_cut_off_goes_on_when_called_again(
    store: MemoryStore, release: Release
) -> None:
    put_labels(store, 6)
    before = get_contents(store)
    release.make()
    release.apply()

    def kill(boundary: str) -> None:
        if boundary == "deleted":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        release.undo(batch_size=3, checkpoint=kill)
    result = release.undo(now=lambda: NOW + timedelta(hours=1))
    assert (result.moved + result.already, result.is_clean) == (6, True)
    assert get_contents(store) == before
    with pytest.raises(PlanExpiredError, match="carried out"):
        release.undo()


def test_an_undo_cannot_be_undone(store: MemoryStore, release: Release) -> None:
    put_labels(store, 2)
    release.make()
    release.apply()
    release.undo()
    from runbook_lib.change.plan_file import load_plan

    inverted = load_plan(release.folder / "plans" / f"{release.made.id}-undo.jsonl")
    assert not inverted.reversible
    release.plan = inverted
    with pytest.raises(UsageError, match="undo itself"):
        release.undo()


def test_interrupting_leaves_a_ledger_that_can_be_resumed(
    store: MemoryStore, release: Release
) -> None:
    put_labels(store, 20)
    release.make()

    def interrupt(boundary: str) -> None:
        if boundary == "copied":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        release.apply(batch_size=5, checkpoint=interrupt)
    assert read_ledger(release.ledger_path).done is None
    assert release.resume().is_clean
    assert release.verify().counts["in_place"] == 20


NAMES = st.text(
    st.one_of(
        st.sampled_from(list(" %+&?#=<>\"'\\;:@,~^`|{}[]()*!$/.é📦\u2028\xa0\x01\n-")),
        st.characters(codec="utf-8"),
    ),
    min_size=1,
    max_size=12,
).map(lambda name: f"{name}.pdf")
STATES = st.sampled_from(["finished", "no_age", "incomplete", "synthetic", "taken", "there"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    objects=st.dictionaries(NAMES, STATES, max_size=25),
    batch_size=st.integers(1, 9),
    conditional=st.booleans(),
    minutes=st.integers(0, 3000),
)
def test_plan_apply_undo_restores_everything(
    objects: dict[str, str], batch_size: int, conditional: bool, minutes: int
) -> None:
    """Whatever the names and states: undo restores the listing, the ages, and all else stays."""
    store = MemoryStore(conditional_delete=conditional, conditional_put=conditional)
    changes: dict[str, dict[str, Any]] = {
        "no_age": {"pending_since": None},
        "incomplete": {"tracking_number": None},
        "synthetic": {"chaos_scenario": "x"},
    }
    since = format_time(NOW - timedelta(minutes=minutes))
    # A file-system store, and a listing, cannot hold a name that is a folder of another.
    names = [n for n in objects if all(part not in ("", ".", "..") for part in n.split("/"))]
    for name in names:
        state = objects[name]
        options: dict[str, Any] = {"pending_since": since, **changes.get(state, {})}
        put_label(store, name, **options)
        if state == "taken":
            put_label(store, name, b"other", prefix="ready/")
        if state == "there":
            put_label(store, name, prefix="ready/", pending_since=since)
    before, ages = get_contents(store), get_ages(store, "pending/")
    with tempfile.TemporaryDirectory() as folder:
        release = Release(store, Path(folder))
        plan = release.make()
        movable = {
            name
            for name in names
            if is_key_supported(name) and objects[name] in ("finished", "no_age")
        }
        there = {n for n in names if is_key_supported(n) and objects[n] == "there"}
        assert {row.key for row in plan.iter_rows()} == {f"pending/{n}" for n in movable | there}
        assert sum(plan.trailer.excluded.values()) + plan.trailer.objects == len(names)
        assert release.apply(batch_size=batch_size).is_clean
        proof = release.verify()
        assert proof.is_complete
        assert proof.counts["in_place"] == plan.trailer.objects
        after = get_contents(store)
        untouched = before.keys() - {row.key for row in plan.iter_rows()}
        assert after == {
            **{key: before[key] for key in untouched},
            **{f"ready/{n}": before[f"pending/{n}"] for n in movable | there},
        }
        if plan.is_empty:
            return
        assert release.undo(batch_size=batch_size).is_clean
    # What was at both places already was not ours to put back: it stays where consumers read.
    assert get_contents(store) == {
        key: value for key, value in before.items() if key not in {f"pending/{n}" for n in there}
    }
    restored = get_ages(store, "pending/")
    assert restored == {key: ages[key] for key in restored}
