"""The proof tells what became of each planned object, from store and ledger alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runbook_lib.change.ledger import read_ledger
from tests.support.memory_store import MemoryStore
from tests.support.releases import Release, put_label, put_labels


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def done(store: MemoryStore, tmp_path: Path) -> tuple[Release, list[str]]:
    names = sorted(put_labels(store, 4))
    release = Release(store, tmp_path)
    release.make()
    release.apply()
    return release, names


def test_in_place_and_written_as_evidence(done: tuple[Release, list[str]]) -> None:
    release, _ = done
    proof = release.verify()
    assert proof.counts["in_place"] == 4
    assert proof.is_complete
    evidence = json.loads(proof.evidence.read_text("utf-8"))
    assert evidence["in_place"] == 4
    assert evidence["sha256"] == release.made.sha256


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ("taken", "gone_after_done"),
        ("overwritten", "changed_by_others"),
        ("retagged", "changed_by_others"),
        ("back", "changed_by_others"),
    ],
)
def test_what_others_did_later_is_told_apart_from_loss(
    store: MemoryStore, done: tuple[Release, list[str]], change: str, outcome: str
) -> None:
    release, names = done
    key = f"ready/{names[0]}"
    if change == "taken":
        store.objects.pop(key)
    elif change == "overwritten":
        store.put_object(key, b"other")
    elif change == "retagged":
        store.put_object(key, store.objects[key].content, metadata={"printed": "yes"})
    else:
        put_label(store, names[0], b"a newer label")
    proof = release.verify()
    assert proof.counts["in_place"] == 3
    assert proof.counts[outcome] == 1
    assert proof.keys[outcome] == (f"pending/{names[0]}",)
    assert proof.is_proven


def test_planned_objects_in_both_places_are_duplicated(store: MemoryStore, tmp_path: Path) -> None:
    names = sorted(put_labels(store, 4))
    release = Release(store, tmp_path)
    release.make()

    def stop(boundary: str) -> None:
        if boundary == "looked":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        release.apply(checkpoint=stop)
    proof = release.verify()
    assert proof.counts["duplicated"] == 4
    assert not proof.is_proven
    release.resume()
    assert release.verify().counts["in_place"] == len(names)


def test_not_started_objects_are_not_moved(store: MemoryStore, tmp_path: Path) -> None:
    put_labels(store, 4)
    release = Release(store, tmp_path)
    release.make()
    proof = release.verify()
    assert proof.counts["not_moved"] == 4
    assert proof.is_proven
    assert not proof.is_complete


def test_an_object_that_is_nowhere_and_was_never_proven_is_lost(
    store: MemoryStore, tmp_path: Path
) -> None:
    names = sorted(put_labels(store, 4))
    release = Release(store, tmp_path)
    release.make()

    def stop(boundary: str) -> None:
        if boundary == "copied":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        release.apply(checkpoint=stop)
    store.objects.pop(f"ready/{names[0]}")
    store.objects.pop(f"pending/{names[0]}")
    proof = release.verify()
    assert (proof.counts["lost"], proof.keys["lost"]) == (1, (f"pending/{names[0]}",))


def test_planned_content_at_a_key_that_no_row_names_is_foreign(
    store: MemoryStore, done: tuple[Release, list[str]]
) -> None:
    release, names = done
    content = store.objects[f"ready/{names[0]}"].content
    release.now = lambda: read_ledger(release.ledger_path).last_at  # type: ignore[assignment,return-value]
    store.put_object("ready/wrong.pdf", content)
    store.change("ready/wrong.pdf", last_modified=release.now())
    proof = release.verify()
    assert proof.counts["foreign_changed"] == 1
    assert proof.keys["foreign_changed"] == ("ready/wrong.pdf",)
    assert not proof.is_proven
