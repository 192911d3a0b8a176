"""One suite for the real stores and for the one in memory; and what reaches them, and what not."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fulfillment.clients import Clients
from fulfillment.clients.object_store import ObjectStore, connect_bucket
from fulfillment.settings import Settings
from objectmove.bucket import Request, S3Bucket, Seen
from runbook_lib.errors import (
    AccessDeniedError,
    BadAnswerError,
    ClientError,
    ClientTimeoutError,
    ConnectionRefusedClientError,
    PreconditionFailedError,
)
from tests.support.gateway import ACCESS_KEY, SECRET_KEY, STORES, StoreServer
from tests.support.memory_store import MemoryStore
from tests.support.network import (
    Act,
    foreign_shell,
    make_answer,
    make_certificates,
    run_proxy,
    run_server,
    run_tls_front,
)

__all__ = ["foreign_shell"]

HOSTILE = [
    "weird <script>alert(1)</script>.pdf",
    "a b+c%20.pdf",
    "né & \"quote'.pdf",
    "q?x#y=%2F.pdf",
]
_REAL = [pytest.param(name, marks=pytest.mark.process) for name in STORES]
REAL = pytest.mark.parametrize("kind", _REAL)


def connect(endpoint: str, **changes: Any) -> S3Bucket:
    given = {"bucket": "fulfillment-artifacts", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    return S3Bucket(endpoint=endpoint, **given | changes)


def settings_of(endpoint: str, **changes: Any) -> Settings:
    given = {"minio_root_user": ACCESS_KEY, "minio_root_password": SECRET_KEY}
    return Settings(minio_endpoint=endpoint, **given | changes)


def empty(bucket: S3Bucket) -> None:
    requests = [Request("delete", seen.key) for seen in bucket.list_objects("")]
    bucket.send(requests, signed_at=bucket.read_clock(), expires_s=20)
    assert list(bucket.list_objects("")) == []


@pytest.fixture(params=["memory", *_REAL])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore()
    bucket = connect(request.getfixturevalue(request.param).endpoint)
    empty(bucket)
    return ObjectStore(bucket)


def put(store: ObjectStore, key: str, content: bytes = b"x", **metadata: str) -> Seen:
    named = {name.replace("_", "-"): value for name, value in metadata.items()}
    store.put_object(key, content, named)
    return store.read_info(key)


def keys_of(store: ObjectStore, prefix: str = "") -> list[str]:
    return sorted(info.key for info in store.list_objects(prefix))


def test_a_listing_holds_what_was_put_under_its_prefix(store: ObjectStore) -> None:
    for name in ("b", "a", "é", "Z", "c/1"):
        put(store, f"pending/{name}", name.encode())
    put(store, "pending2/x")
    listed = {info.key: info for info in store.list_objects("pending/")}
    assert sorted(listed) == sorted(f"pending/{name}" for name in ("b", "a", "é", "Z", "c/1"))
    assert listed["pending/é"].size_bytes == 2
    assert all(len(i.etag) == 32 and i.last_modified.tzinfo is UTC for i in listed.values())
    assert {i.metadata for i in listed.values()} == {None}


def test_metadata_content_type_and_etag_are_read_back(store: ObjectStore) -> None:
    read = put(store, "a.pdf", b"abc", order_id="7", note="two  blanks")
    assert read.metadata == {"order-id": "7", "note": "two  blanks"}
    assert (read.headers["content-type"], read.size_bytes) == ("application/pdf", 3)
    (listed,) = store.list_objects("a.pdf")
    assert (listed.key, listed.etag, listed.size_bytes) == (read.key, read.etag, read.size_bytes)
    assert listed.last_modified.replace(microsecond=0) == read.last_modified


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_put_listed_read_and_deleted(store: ObjectStore, name: str) -> None:
    info = put(store, f"pending/{name}", b"y", order_id="7")
    assert keys_of(store) == keys_of(store, f"pending/{name}") == [f"pending/{name}"]
    assert info.metadata == {"order-id": "7"}
    assert store.read(info.key) == b"y"
    store.delete_object(info)
    assert keys_of(store) == []


@pytest.mark.parametrize("key", ["a/../ready/b", "a//b", "new\nline"])
def test_names_that_no_request_can_name_exactly_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(BadAnswerError):
        store.put_object(key, b"x")
    assert keys_of(store) == []


def test_live_check_clock_and_permissions_change_nothing(store: ObjectStore) -> None:
    put(store, "pending/a")
    assert store.check_live()
    assert abs(store.read_clock() - datetime.now(UTC)) < timedelta(seconds=3)
    assert store.read_free_bytes() is None
    for prefix in ("pending/", "nothing/"):
        assert store.read_rights(prefix) == {"list": (True, ""), "read": (True, "")}
        found = store.read_rights(prefix, write_under=[prefix, "ready/"])
        assert len(found) == 6
        assert set(found.values()) == {(True, "")}
    assert keys_of(store) == ["pending/a"]


@REAL
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
    store = ObjectStore(connect(request.getfixturevalue(kind).endpoint, **changes))
    with pytest.raises(AccessDeniedError, match=says):
        list(store.list_objects(""))
    with pytest.raises(AccessDeniedError, match=says):
        store.put_object("a", b"x")
    with pytest.raises(AccessDeniedError):
        store.read_info("a")
    found = store.read_rights("pending/", write_under=["ready/"])
    # without a listing nobody can tell an absent object from a forbidden one
    delete = False if kind == "juicefs" else None  # may not ask whether it keeps versions
    wanted = {"list": False, "read": None, "write ready/": False, "delete ready/": delete}
    assert {right: allowed for right, (allowed, _) in found.items()} == wanted
    assert says in found["list"][1]


@pytest.mark.process
def test_a_session_token_region_and_addressing_are_sent() -> None:
    at = "last-modified: Tue, 24 Nov 2026 04:00:00 GMT"
    with run_server(lambda _: make_answer(b"", 200, at, 'etag: "e"')) as server:
        settings = settings_of(
            f"localhost:{server.endpoint.partition(':')[2]}",
            minio_session_token="tok/en",
            minio_region="eu-west-3",
        )
        bucket = connect_bucket(settings, for_changes=False)
        assert bucket.look(["a"])["a"] is not None
        virtual = settings.model_copy(update={"minio_addressing": "virtual"})
        assert connect_bucket(virtual, for_changes=True)._host.startswith("fulfillment-artifacts.")
    (sent,) = server.received
    assert sent.target.startswith("/fulfillment-artifacts/a?")
    assert "X-Amz-Security-Token=tok%2Fen" in sent.target
    assert "%2Feu-west-3%2Fs3%2Faws4_request" in sent.target


LISTING = make_answer(
    b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>",
    200,
    "date: Tue, 24 Nov 2026 04:00:00 GMT",
)


def error_of(code: str, message: str = "m", status: int = 500) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return make_answer(body.encode(), status, "content-type: application/xml")


@pytest.mark.process
@pytest.mark.parametrize(
    ("act", "kind", "says"),
    [
        (Act(then="close"), ConnectionRefusedClientError, "whether it was done is not known"),
        (Act(then="hang"), ClientTimeoutError, "no answer.*whether it was done is not known"),
        (error_of("XMinioStorageFull"), BadAnswerError, "^object store: storage full: write a: "),
        (error_of("AccessDenied", "no", 403), AccessDeniedError, "write a: AccessDenied no"),
        (make_answer(b"", 412), PreconditionFailedError, "HTTP 412"),
        (make_answer(b"<html>Log in</html>"), BadAnswerError, "HTTP 200"),
    ],
)
def test_a_change_that_is_not_proven_raises_and_was_sent_once(
    act: Act | bytes, kind: type[ClientError], says: str
) -> None:
    with run_server(lambda r: LISTING if r.method == "GET" else act) as server:
        is_silent = isinstance(act, Act) and act.then == "hang"
        store = ObjectStore(connect(server.endpoint, read_s=1.0 if is_silent else 10.0))
        with pytest.raises(kind, match=says) as caught:
            store.put_object("a", b"x")
        assert isinstance(caught.value, kind)
        if act != make_answer(b"", 412):
            with pytest.raises(kind):
                store.delete_object(Seen("a", "e" * 32, 1, datetime.now(UTC)))
    assert [r.method for r in server.received].count("PUT") == 1


@pytest.mark.process
def test_a_change_is_signed_by_the_stores_clock_and_expires() -> None:
    with run_server(lambda r: LISTING if r.method == "GET" else make_answer()) as server:
        store = ObjectStore(connect(server.endpoint))
        for _ in range(3):
            store.put_object("a", b"x", metadata={"Order-Id": "7"})
    assert [r.method for r in server.received] == ["GET", "PUT"] * 3
    put = server.received[1]
    assert "X-Amz-Date=20261124T040000Z&X-Amz-Expires=20&" in put.target
    assert put.headers["x-amz-meta-order-id"] == "7"


def use_everything(settings: Settings) -> None:
    store = Clients(settings).store
    store.put_object("shell/a", b"x", metadata={"order-id": "7"})
    assert [info.key for info in store.list_objects("shell/")] == ["shell/a"]
    info = store.read_info("shell/a")
    assert info.metadata == {"order-id": "7"}
    assert store.check_live().endswith("/live")
    store.delete_object(info)
    assert list(store.list_objects("shell/")) == []


def test_tls_and_a_proxy_are_what_the_settings_say(
    juicefs: StoreServer, foreign_shell: Callable[[str], None], tmp_path: Path
) -> None:
    ca_file, context = make_certificates(tmp_path)
    with run_proxy() as silent, run_proxy() as proxy:
        foreign_shell(silent.endpoint)
        with run_tls_front(juicefs.endpoint, context) as front:
            secure = settings_of(front.endpoint, minio_secure=True, ca_bundle=ca_file)
            use_everything(secure)
            assert proxy.received == []
            url = f"http://user:word@{proxy.endpoint}"
            use_everything(secure.model_copy(update={"proxy_url": url}))
            untrusted = secure.model_copy(update={"ca_bundle": None})
            with pytest.raises(ConnectionRefusedClientError, match="CA_BUNDLE"):
                list(Clients(untrusted).store.list_objects(""))
        assert {r.method for r in proxy.received} == {"CONNECT"}
        assert {r.target for r in proxy.received} == {front.endpoint}
        use_everything(settings_of(juicefs.endpoint, proxy_url=url))
        plain = [r.target for r in proxy.received if r.method != "CONNECT"]
        assert all(target.startswith(f"http://{juicefs.endpoint}/") for target in plain)
        assert plain
    assert silent.received == []
    assert not Path(os.environ["SSLKEYLOGFILE"]).exists()


@pytest.mark.process
@pytest.mark.parametrize(
    ("act", "is_full"),
    [
        (error_of("XMinioStorageFull", "m", 507), True),
        (error_of("NoSuchKey", "m", 404), False),
        (error_of("AccessDenied", "m", 403), None),
    ],
)
def test_our_own_copy_of_nothing_tells_whether_the_store_is_full(
    act: bytes, is_full: bool | None
) -> None:
    with run_server(lambda r: LISTING if r.method == "GET" else act) as server:
        assert ObjectStore(connect(server.endpoint)).is_full("ready/") is is_full


@pytest.mark.process
@pytest.mark.parametrize(
    ("act", "accepts"),
    [
        (error_of("SignatureDoesNotMatch", "m", 403), False),
        (error_of("InvalidAccessKeyId", "m", 403), False),
        (error_of("AccessDenied", "m", 403), True),
        (LISTING, True),
    ],
)
def test_a_wrong_password_of_ours_is_told_from_a_missing_right(act: bytes, accepts: bool) -> None:
    with run_server(lambda _: act) as server:
        store = ObjectStore(connect(server.endpoint))
        if accepts:
            store.check_key()
            return
        for ask in (store.check_key, lambda: list(store.list_objects("pending/"))):
            with pytest.raises(AccessDeniedError, match="Your own key or password is wrong"):
                ask()
