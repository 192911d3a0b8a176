"""One suite for the real stores and for the one in memory."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runbook_lib.change.lookup import Walk, look_up
from runbook_lib.clients.object_store import ObjectStore, is_key_supported, is_same_version
from runbook_lib.clients.object_store_s3 import S3Store
from runbook_lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    ClientError,
    ClientTimeoutError,
    ConnectionRefusedClientError,
    NotFoundError,
    PreconditionFailedError,
)
from runbook_lib.model import ObjectInfo
from tests.support.gateway import (
    ACCESS_KEY,
    SECRET_KEY,
    StoreServer,
    run_juicefs,
    run_seaweedfs,
)
from tests.support.memory_store import MemoryStore

HOSTILE = [
    "weird <script>alert(1)</script>.pdf",
    "emoji-📦.pdf",
    "a b+c%20.pdf",
    "trailing ",
    "né & \"quote'.pdf",
    "q?x#y=%2F.pdf",
    "{c}[d]|^`~.pdf",
]


def connect(server: StoreServer, **changes: str) -> S3Store:
    """Return a client of a running server."""
    return S3Store(
        endpoint=server.endpoint,
        bucket=changes.get("bucket", server.bucket),
        access_key=changes.get("access_key", ACCESS_KEY),
        secret_key=changes.get("secret_key", SECRET_KEY),
    )


@pytest.fixture(scope="module")
def juicefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with run_juicefs(tmp_path_factory.mktemp("juicefs")) as server:
        yield server


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    with run_seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(params=["memory", "juicefs", "seaweedfs"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore(clock=lambda: datetime.now(UTC))
    store = connect(request.getfixturevalue(request.param))
    store.delete_objects(list(store.list_objects("")), guarded=False)
    return store


def put(store: ObjectStore, key: str, content: bytes = b"x", **metadata: str) -> ObjectInfo:
    named = {name.replace("_", "-"): value for name, value in metadata.items()}
    return store.put_object(key, content, content_type="application/pdf", metadata=named)


def keys_of(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list_objects(prefix)]


def test_listing_is_sorted_and_holds_what_was_put(store: ObjectStore) -> None:
    for name in ("b", "a", "é", "Z", "c/1"):
        put(store, f"pending/{name}", name.encode())
    listed = list(store.list_objects("pending/"))
    assert [i.key for i in listed] == sorted((i.key for i in listed), key=str.encode)
    assert {i.key: i.size_bytes for i in listed}["pending/é"] == 2
    assert all(len(i.etag) == 32 and i.last_modified.tzinfo is not None for i in listed)


def test_listing_starts_after_a_key_and_keeps_to_the_prefix(store: ObjectStore) -> None:
    for name in ("one/1", "one/2", "one/3", "two/1"):
        put(store, name)
    assert [i.key for i in store.list_objects("one/", start_after="one/1")] == [
        "one/2",
        "one/3",
    ]


def test_listing_has_empty_objects_but_no_emptied_folders(store: ObjectStore) -> None:
    inner = put(store, "folder/sub/a.pdf")
    put(store, "folder/empty", b"")
    put(store, "folder/full")
    store.delete_objects([inner], guarded=False)
    assert keys_of(store, "folder/") == ["folder/empty", "folder/full"]


def test_listing_pages_over_a_thousand_objects(store: ObjectStore) -> None:
    source = put(store, "source")
    pairs = [(source, f"many/{n:05d}") for n in range(1100)]
    assert [e for _, e in store.copy_objects(pairs) if e] == []
    assert keys_of(store, "many/") == [key for _, key in pairs]
    assert store.delete_objects(list(store.list_objects("many/")), guarded=True) == []
    assert keys_of(store, "many/") == []


def test_metadata_content_type_and_etag_are_read_back(store: ObjectStore) -> None:
    written = put(store, "a", b"abc", order_id="7", pending_since="2026-11-24T03:14:00Z")
    read = store.read_info("a")
    assert read == written
    assert read.metadata == {"order-id": "7", "pending-since": "2026-11-24T03:14:00Z"}
    assert (read.content_type, read.size_bytes) == ("application/pdf", 3)
    (listed,) = store.list_objects("a")
    assert is_same_version(listed, read)


def test_infos_come_in_order_with_what_failed_in_its_place(store: ObjectStore) -> None:
    put(store, "a", order_id="1")
    put(store, "c", order_id="3")
    got = dict(store.read_infos(iter(["a", "b", "c"]), threads=2))
    assert list(got) == ["a", "b", "c"]
    assert isinstance(got["b"], NotFoundError)
    assert [i.metadata for i in (got["a"], got["c"]) if isinstance(i, ObjectInfo)] == [
        {"order-id": "1"},
        {"order-id": "3"},
    ]


def test_keys_in_folders_are_looked_up_whatever_the_order_of_the_listing(
    store: ObjectStore,
) -> None:
    # S3 sorts "n/a!" before "n/a/b", SeaweedFS after it.
    names = ["A.pdf", "a!.pdf", "a-c.pdf", "a.pdf", "a/b.pdf", "a/c.pdf", "a0.pdf", "b/z.pdf"]
    for name in [*names, "a/foreign.pdf", "zz.pdf"]:
        put(store, f"n/{name}")
    listed = [key for key in keys_of(store, "n/") if "foreign" not in key and "zz" not in key]
    for wanted in (listed, listed[:3], listed[2:5], listed[-3:], ["n/a!.pdf", "n/b/gone.pdf"]):
        there = {key for key in wanted if "gone" not in key}
        assert look_up(store, "n/", wanted).keys() == there
    walk = Walk(store, "n/")
    found = [walk.look_up(listed[i : i + 3]).keys() for i in range(0, len(listed), 3)]
    assert set().union(*found) == set(listed)


def test_content_is_read_up_to_a_limit(store: ObjectStore) -> None:
    put(store, "a", b"12345")
    assert store.read_bytes("a") == b"12345"
    with pytest.raises(BadAnswerError, match="larger"):
        store.read_bytes("a", max_bytes=4)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_put_copied_and_deleted(store: ObjectStore, name: str) -> None:
    assert is_key_supported(name)
    info = put(store, f"pending/{name}", b"y", order_id="7")
    assert list(store.copy_objects([(info, f"ready/{name}")])) == [(0, None)]
    assert keys_of(store) == [f"pending/{name}", f"ready/{name}"]
    assert store.read_info(f"ready/{name}").metadata == {"order-id": "7"}
    assert store.delete_objects([info], guarded=True) == []
    assert keys_of(store) == [f"ready/{name}"]


@pytest.mark.parametrize("key", ["a/../b", "./a", "a//b", "/a", "a/", "ctl\x01", "new\nline"])
def test_names_that_cannot_be_named_exactly_are_not_supported(key: str) -> None:
    assert not is_key_supported(key)


@pytest.mark.parametrize("key", ["a/../b", "a/./b"])
def test_dotted_names_are_refused_as_client_errors(store: ObjectStore, key: str) -> None:
    with pytest.raises(ClientError):
        store.put_object(key, b"x")


def test_copy_keeps_metadata_type_and_etag(store: ObjectStore) -> None:
    source = put(store, "pending/a", b"pdf", order_id="7")
    copied = store.copy_object(source, "ready/a")
    assert (copied.etag, copied.metadata) == (source.etag, {"order-id": "7"})
    assert copied.content_type == "application/pdf"
    assert store.read_bytes("ready/a") == b"pdf"


def test_copy_may_replace_the_metadata_and_keeps_the_type(store: ObjectStore) -> None:
    source = put(store, "ready/a", b"pdf", order_id="7")
    metadata = {"order-id": "7", "pending-since": "2026-11-24T03:14:00.000Z"}
    copied = store.copy_object(source, "pending/a", metadata=metadata)
    assert copied.metadata == metadata
    assert copied.content_type == "application/pdf"


def test_copy_of_a_changed_source_is_refused(store: ObjectStore) -> None:
    source = put(store, "a", b"old")
    put(store, "a", b"new")
    with pytest.raises(PreconditionFailedError):
        store.copy_object(source, "b")
    assert keys_of(store) == ["a"]


def test_copy_of_an_absent_source_is_not_found(store: ObjectStore) -> None:
    source = put(store, "a")
    store.delete_object(source)
    with pytest.raises(NotFoundError):
        store.copy_object(source, "b")
    ((_, error),) = store.copy_objects([(source, "b")])
    assert isinstance(error, NotFoundError)


def test_bulk_copy_is_refused_for_what_was_modified_since(store: ObjectStore) -> None:
    source = put(store, "a")
    old = replace(source, last_modified=source.last_modified - timedelta(seconds=5))
    ((_, error),) = store.copy_objects([(old, "b")])
    assert isinstance(error, PreconditionFailedError)
    assert keys_of(store) == ["a"]


def test_guarded_delete_spares_another_version_where_the_probe_says_so(store: ObjectStore) -> None:
    abilities = store.probe_abilities(".runbook/probe/")
    old = put(store, "a", b"old")
    put(store, "a", b"new")
    failed = store.delete_objects([old], guarded=True)
    assert [key for key, _ in failed] == (["a"] if abilities.conditional_delete else [])
    assert keys_of(store) == (["a"] if abilities.conditional_delete else [])


def test_conditional_put_binds_where_the_probe_says_so(store: ObjectStore) -> None:
    abilities = store.probe_abilities(".runbook/probe/")
    first = store.put_object("lease", b"1", if_absent=True)
    if abilities.conditional_put:
        with pytest.raises(PreconditionFailedError):
            store.put_object("lease", b"2", if_absent=True)
        with pytest.raises(PreconditionFailedError):
            store.put_object("lease", b"2", if_match="0" * 32)
    store.put_object("lease", b"3", if_match=first.etag)
    assert store.read_bytes("lease") == b"3"


def test_conditional_put_carries_type_and_metadata(store: ObjectStore) -> None:
    written = store.put_object(
        "lease", b"1", content_type="application/json", metadata={"a-b": "c"}, if_absent=True
    )
    assert (written.content_type, written.metadata) == ("application/json", {"a-b": "c"})


def test_probe_leaves_nothing_behind(store: ObjectStore) -> None:
    put(store, "pending/a")
    store.probe_abilities(".runbook/probe/")
    assert keys_of(store) == ["pending/a"]


def test_the_gateway_tells_writes_and_seaweedfs_does_not(
    juicefs: StoreServer, seaweedfs: StoreServer
) -> None:
    gateway, names = connect(juicefs), ["a.pdf", "a b+c%20.pdf", "emoji-📦.pdf"]
    with gateway.watch_writes("watched/") as watch:
        watch.wait_until_open()
        assert watch.is_watching
        put(gateway, "elsewhere/a.pdf")
        written = [put(gateway, f"watched/{name}", name.encode()) for name in names]
        wanted = {(info.key, info.etag) for info in written}
        watch.flush()
        assert watch.is_watching
        assert wanted <= {(w.key, w.etag) for w in watch.writes}
    assert all(write.key.startswith("watched/") for write in watch.writes)
    with connect(seaweedfs).watch_writes("watched/") as watch:
        watch.wait_until_open()
        assert not watch.is_watching


def test_delete_of_an_absent_object_is_no_failure(store: ObjectStore) -> None:
    info = put(store, "a")
    store.delete_object(info)
    assert store.delete_objects([info], guarded=False) == []


def test_absent_objects_are_not_found(store: ObjectStore) -> None:
    with pytest.raises(NotFoundError):
        store.read_info("absent")
    with pytest.raises(NotFoundError):
        store.read_bytes("absent")


def test_live_check_clock_and_permissions_change_nothing(store: ObjectStore) -> None:
    put(store, "pending/a")
    assert store.check_live().is_live
    assert abs(store.read_clock_skew_s()) < 3
    permissions = store.read_permissions("pending/")
    assert (permissions.list, permissions.read, permissions.write) == (True, True, True)
    assert store.bucket in store.list_buckets()
    assert keys_of(store) == ["pending/a"]


def test_the_gateway_has_a_live_endpoint_and_seaweedfs_needs_a_listing(
    juicefs: StoreServer, seaweedfs: StoreServer
) -> None:
    assert connect(juicefs).check_live().how == "live endpoint"
    assert connect(seaweedfs).check_live().how == "signed listing"


def test_real_stores_honour_what_the_facts_say(
    juicefs: StoreServer, seaweedfs: StoreServer
) -> None:
    gateway = connect(juicefs).probe_abilities(".runbook/probe/")
    weed = connect(seaweedfs).probe_abilities(".runbook/probe/")
    assert (gateway.conditional_delete, gateway.conditional_put) == (False, False)
    assert (weed.conditional_delete, weed.conditional_put) == (True, True)


@pytest.mark.parametrize("kind", ["juicefs", "seaweedfs"])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"secret_key": "wrong-secret"}, "SignatureDoesNotMatch"),
        ({"access_key": "nobody"}, "InvalidAccessKeyId"),
    ],
)
def test_wrong_credentials_are_denied_and_say_which(
    request: pytest.FixtureRequest, kind: str, changes: dict[str, str], says: str
) -> None:
    store = connect(request.getfixturevalue(kind), **changes)
    with pytest.raises(AccessDeniedError, match=says):
        list(store.list_objects(""))
    permissions = store.read_permissions("pending/")
    assert (permissions.list, permissions.read, permissions.write) == (False, False, False)
    ((_, error),) = store.copy_objects([(ObjectInfo("a", "", 0, datetime.now(UTC)), "b")])
    assert isinstance(error, AccessDeniedError)


def test_an_absent_bucket_is_not_found(juicefs: StoreServer) -> None:
    with pytest.raises(NotFoundError, match="NoSuchBucket"):
        list(connect(juicefs, bucket="no-such-bucket").list_objects(""))


def test_a_refused_port_is_a_refused_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{unused.getsockname()[1]}"
        store = S3Store(endpoint=endpoint, bucket="bucket", access_key="a", secret_key="s")
        with pytest.raises(ConnectionRefusedClientError):
            list(store.list_objects(""))
        live = store.check_live()
        ((_, error),) = store.copy_objects([(ObjectInfo("a", "", 0, datetime.now(UTC)), "b")])
    assert not live.is_live
    assert isinstance(error, ConnectionRefusedClientError)


def test_a_silent_server_is_a_timeout() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"127.0.0.1:{silent.getsockname()[1]}"
        store = S3Store(
            endpoint=endpoint, bucket="bucket", access_key="a", secret_key="s", read_s=0.2
        )
        with pytest.raises(ClientTimeoutError):
            list(store.list_objects(""))
        with pytest.raises(ClientTimeoutError):
            list(store.list_objects("a/"))


def test_a_full_store_says_so(tmp_path: Path) -> None:
    with run_juicefs(tmp_path, inodes=3) as server:
        store = connect(server)
        info = put(store, "a")
        errors = [error for _, error in store.copy_objects([(info, f"c{n}") for n in range(10)])]
        assert any("storage full" in str(error) for error in errors)
        with pytest.raises(BadAnswerError, match="storage full"):
            put(store, "b")
