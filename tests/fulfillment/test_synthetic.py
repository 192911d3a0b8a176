"""Synthetic objects: made only in a playground, proven by metadata, taken back without harm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulfillment.analysis.artifacts import is_synthetic
from fulfillment.change.exercises import MARKER_KEY, check_playground, read_marker
from fulfillment.change.synthetic import (
    Backlog,
    create_backlog,
    revert_backlog,
)
from fulfillment.waiting import list_prefixes
from runbook_lib.errors import (
    ConnectionRefusedClientError,
    EnvironmentForbidsError,
    UsageError,
)
from runbook_lib.model import parse_time
from tests.support.memory_store import MemoryStore
from tests.support.world import make_settings

NOW = datetime(2026, 11, 24, 4, tzinfo=UTC)
PREFIX = "chaos/fulfillment-delay/"
SETTINGS = make_settings(Path("unused"))


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.put_object(MARKER_KEY, b'{"environment": "local"}')
    return store


def create(store: MemoryStore, **changes: Any) -> list[dict[str, Any]]:
    given = {"prefix": PREFIX, "count": 3, "object_size_kb": 1, "drill_id": "d1"} | changes
    made = create_backlog(store, Backlog.model_validate(given), settings=SETTINGS, now=NOW)
    return [{"key": label.key} for label in made]


def keys(store: MemoryStore, prefix: str = PREFIX) -> list[str]:
    return sorted(k for k in store.objects if k.startswith(prefix))


def test_metadata_proves_what_was_made(store: MemoryStore) -> None:
    made = create(store, age_minutes=20, hold_minutes=30)
    assert sorted(label["key"] for label in made) == keys(store)
    assert len(made) == 3
    for key in keys(store):
        metadata = store.objects[key].info.metadata or {}
        assert is_synthetic(metadata)
        assert metadata["chaos-scenario"] == "fulfillment-delay"
        assert metadata["drill-id"] == "d1"
        assert parse_time(metadata["pending-since"]) == NOW - timedelta(minutes=20)
        assert parse_time(metadata["hold-until"]) == NOW + timedelta(minutes=30)
        assert parse_time(metadata["expires-at"]) == NOW + timedelta(minutes=30)
        assert key == f"{PREFIX}chaos-d1-{metadata['order-id']}-{metadata['artifact-id']}.pdf"


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ("ready/", "under ready/"),
        (".runbook/", "under "),
        ("chaos/../ready/", "not a prefix"),
    ],
)
def test_some_prefixes_are_refused(store: MemoryStore, prefix: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        create(store, prefix=prefix)
    assert list(store.objects) == [MARKER_KEY]


@pytest.mark.parametrize(
    ("environment", "marker"),
    [
        ("production", b'{"environment": "production"}'),
        ("production", b'{"environment": "local"}'),
        ("local", b'{"environment": "demo"}'),
        ("local", b"not json"),
        ("local", None),
    ],
)
def test_only_a_marked_playground_may_be_changed(environment: str, marker: bytes | None) -> None:
    store = MemoryStore()
    if marker is not None:
        store.put_object(MARKER_KEY, marker)
    settings = SETTINGS.model_copy(update={"runbook_environment": environment})
    with pytest.raises(EnvironmentForbidsError):
        check_playground(settings, store)
    with pytest.raises(EnvironmentForbidsError):
        create_backlog(store, Backlog(count=1, drill_id="d"), settings=settings, now=NOW)
    assert keys(store) == []


def test_a_store_that_cannot_be_read_is_not_taken_for_unmarked(store: MemoryStore) -> None:
    def refuse(_method: str, _key: str) -> None:
        raise ConnectionRefusedClientError("refused", system="store")

    store.memory.fail = refuse
    with pytest.raises(ConnectionRefusedClientError):
        read_marker(store)


def test_a_revert_leaves_real_objects_and_other_drills(store: MemoryStore) -> None:
    create(store)
    create(store, drill_id="d2")
    look_alike = f"{PREFIX}chaos-d1-9000001-0123456789ab.pdf"
    store.put_object(look_alike, b"x", metadata={"order-id": "9000001", "drill-id": "d1"})
    removal = revert_backlog(store, PREFIX, drill_id="d1")
    assert (removal.removed, len(removal.objects), removal.kept) == (3, 3, 4)
    assert len(keys(store)) == 4
    assert revert_backlog(store, PREFIX).removed == 3
    assert keys(store) == [look_alike]


def test_an_object_that_became_real_meanwhile_stays(store: MemoryStore) -> None:
    create(store)
    victim, heads = keys(store)[0], [0]

    def replace_before_second_look(method: str, key: str) -> None:
        heads[0] += (method, key) == ("head", victim)
        if heads[0] == 2:
            heads[0] += 1
            store.put_object(victim, b"real", metadata={"order-id": "1"})

    store.memory.fail = replace_before_second_look
    removal = revert_backlog(store, PREFIX)
    assert keys(store) == [victim]
    assert store.objects[victim].content == b"real"
    assert "real object" in removal.failed[victim]


@given(
    st.dictionaries(
        st.sampled_from(["order-id", "drill-id", "hold-until", "expires-at", "chaos-scenario"]),
        st.sampled_from(["", "  ", "x", "d1"]),
    )
)
def test_a_revert_removes_exactly_what_is_proven_synthetic(metadata: dict[str, str]) -> None:
    store = MemoryStore()
    store.put_object(f"{PREFIX}a.pdf", b"x", metadata=metadata)
    revert_backlog(store, PREFIX)
    assert bool(keys(store)) is not is_synthetic(metadata)


def test_a_prefix_inside_the_other_is_listed_once(tmp_path: Path) -> None:
    nested = make_settings(tmp_path, chaos_prefix="pending/chaos/")
    assert list_prefixes(nested) == ["pending/"]
    assert list_prefixes(make_settings(tmp_path)) == ["chaos/fulfillment-delay/", "pending/"]
