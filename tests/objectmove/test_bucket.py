"""The bucket: what is signed and sent, what an answer proves, and names on both real servers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, unquote
from xml.etree import ElementTree as ET

import pytest
from minio import Minio

from objectmove.bucket import (
    Answer,
    Request,
    S3Bucket,
    Seen,
    find_all,
    format_time,
    is_key_supported,
    parse_time,
    read_answer,
)
from objectmove.errors import AbsentError, DeniedError, StoreError
from objectmove.message import Reply
from objectmove.probe import probe
from objectmove.record import find_expiry_rules
from tests.support.gateway import ACCESS_KEY, BUCKET, SECRET_KEY, StoreServer
from tests.support.network import Act, Received, make_answer, run_server

NOW = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
HTTP_NOW = "Tue, 24 Nov 2026 04:00:00 GMT"
NAMES = [
    "plain.pdf",
    "weird <script>alert(1)</script>.pdf",
    "emoji-📦.pdf",
    "a b+c%20.pdf",
    "plus+only.pdf",
    "trailing ",
    " leading",
    "né & \"quote'.pdf",
    "q?x#y=%2F.pdf",
    "{c}[d]|^`~*.pdf",
    "deep/er/ + /a..b/...",
]


def connect(endpoint: str, **changes: Any) -> S3Bucket:
    given = {"bucket": BUCKET, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
    return S3Bucket(endpoint=endpoint, **given | changes)


def send(bucket: S3Bucket, *requests: Request) -> list[Answer]:
    return bucket.send(requests, signed_at=bucket.read_clock(), expires_s=20)


# --- what an answer proves ---

COPY = Request("copy", "b", source="a", if_match="e")
PUT = Request("put", "a", body=b"x")
DELETE = Request("delete", "a", if_match="e")
BULK = Request("delete_many", keys=("a", "b"))


def copied(inner: str) -> str:
    return f'<CopyObjectResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</CopyObjectResult>'


AT = "<LastModified>2026-11-24T04:00:00.123Z</LastModified>"
ETAG = "<ETag>&#34;abc&#34;</ETag>"


@pytest.mark.parametrize(
    ("request_", "status", "body", "wanted"),
    [
        (COPY, 200, copied(AT + ETAG), ("done", "")),
        (COPY, 200, copied(AT), ("unknown", "NoETag")),
        (COPY, 200, copied(AT + "<ETag></ETag>"), ("unknown", "NoETag")),
        (COPY, 200, copied(ETAG), ("unknown", "HTTP 200")),
        (COPY, 200, "", ("unknown", "HTTP 200")),
        (COPY, 200, "<html>Log in</html>", ("unknown", "HTTP 200")),
        (COPY, 200, copied(AT + ETAG)[:-3], ("unknown", "HTTP 200")),
        (COPY, 200, "<Error><Code>InternalError</Code></Error>", ("unknown", "InternalError")),
        (COPY, 200, "<Error><Code>AccessDenied</Code></Error>", ("unknown", "AccessDenied")),
        (COPY, 204, "", ("unknown", "HTTP 204")),
        (COPY, 404, "<Error><Code>NoSuchKey</Code></Error>", ("unknown", "NoSuchKey")),
        (COPY, 412, "<Error><Code>PreconditionFailed</Code></Error>", ("unknown", "Precondition")),
        (COPY, 403, "<Error><Code>AccessDenied</Code></Error>", ("none", "AccessDenied")),
        (COPY, 403, "<Error><Code>RequestTimeTooSkewed</Code></Error>", ("none", "RequestTime")),
        (COPY, 403, "<Error><Code>QuotaExceeded</Code></Error>", ("unknown", "QuotaExceeded")),
        (COPY, 403, "<html>Forbidden by the proxy</html>", ("unknown", "HTTP 403")),
        (COPY, 401, "<Error><Code>AccessDenied</Code></Error>", ("unknown", "AccessDenied")),
        (COPY, 503, "<Error><Code>SlowDown</Code></Error>", ("unknown", "SlowDown")),
        (COPY, 500, "no xml", ("unknown", "HTTP 500")),
        (PUT, 200, "", ("done", "")),
        (PUT, 200, "<html>Log in</html>", ("unknown", "HTTP 200")),
        (PUT, 204, "", ("unknown", "HTTP 204")),
        (PUT, 201, "", ("unknown", "HTTP 201")),
        (DELETE, 204, "", ("done", "")),
        (DELETE, 200, "", ("unknown", "HTTP 200")),
        (DELETE, 200, "<html>Log in</html>", ("unknown", "HTTP 200")),
        (DELETE, 404, "<Error><Code>NoSuchKey</Code></Error>", ("unknown", "NoSuchKey")),
        (BULK, 200, "<DeleteResult></DeleteResult>", ("done", "")),
        (BULK, 200, "", ("unknown", "HTTP 200")),
        (BULK, 204, "", ("unknown", "HTTP 204")),
        (BULK, 200, "<html></html>", ("unknown", "HTTP 200")),
        (BULK, 200, "<DeleteResult>", ("unknown", "HTTP 200")),
        (
            BULK,
            200,
            "<DeleteResult><Error><Code>AccessDenied</Code></Error></DeleteResult>",
            ("unknown", "HTTP 200"),
        ),
        (
            BULK,
            200,
            "<DeleteResult><Error><Key>c</Key><Code>X</Code></Error></DeleteResult>",
            ("unknown", "HTTP 200"),
        ),
    ],
)
def test_only_a_well_formed_answer_proves_an_effect_and_only_a_refusal_that_there_is_none(
    request_: Request, status: int, body: str, wanted: tuple[str, str]
) -> None:
    answer = read_answer(request_, Reply(status, body=body.encode()))
    assert answer.effect == wanted[0]
    assert answer.code.startswith(wanted[1])
    assert bool(answer.code) is bool(wanted[1])


def test_what_was_copied_stands_in_the_answer() -> None:
    answer = read_answer(COPY, Reply(200, body=copied(AT + ETAG).encode()))
    assert (answer.etag, answer.last_modified) == ("abc", NOW.replace(microsecond=123000))
    put = read_answer(PUT, Reply(200, {"etag": '"abc"'}))
    assert put.etag == "abc"


def test_of_a_bulk_delete_each_key_is_told() -> None:
    error = "<Error><Key>{}</Key><Code>{}</Code></Error>"
    body = f"<DeleteResult>{error.format('b', 'AccessDenied')}</DeleteResult>"
    answer = read_answer(BULK, Reply(200, body=body.encode()))
    assert (answer.effect, answer.failed) == ("done", {"b": "AccessDenied"})
    body = "<DeleteResult><Error><Key>a</Key></Error></DeleteResult>"
    assert read_answer(BULK, Reply(200, body=body.encode())).failed == {"a": "Unknown"}


def test_without_an_answer_the_effect_is_unknown_and_unsent_there_is_none() -> None:
    assert read_answer(PUT, Reply(Reply.NO_ANSWER, error="reset")) == Answer(
        "unknown", code="NoAnswer", message="reset"
    )
    assert read_answer(PUT, Reply(Reply.NOT_SENT, error="refused")) == Answer(
        "none", code="NotSent", message="refused"
    )


# --- what is sent ---


def sent_of(*requests: Request, **changes: Any) -> list[Received]:
    with run_server(lambda _: make_answer()) as server:
        bucket = connect(server.endpoint, connections=1, **changes)
        bucket.send(requests, signed_at=NOW, expires_s=17)
    return server.received


@pytest.mark.process
def test_every_change_carries_its_date_its_expiry_and_its_conditions() -> None:
    put, copy, delete, bulk = sent_of(
        Request("put", "a b", body=b"x", if_absent=True, headers={"x-amz-meta-order": "7"}),
        Request("copy", "ready/é", source="pending/é +", if_match="e1", if_absent=True),
        Request("delete", "k", if_match="e2"),
        Request("delete_many", keys=("a&b", "<c>", "d ")),
    )
    for sent in (put, copy, delete, bulk):
        query = parse_qs(sent.target.partition("?")[2])
        assert query["X-Amz-Date"] == ["20261124T040000Z"]
        assert query["X-Amz-Expires"] == ["17"]
        signed = set(query["X-Amz-SignedHeaders"][0].split(";"))
        assert set(sent.headers) - {"content-length"} == signed
    assert (put.method, put.target.partition("?")[0]) == ("PUT", f"/{BUCKET}/a%20b")
    assert (put.headers["if-none-match"], put.headers["x-amz-meta-order"]) == ("*", "7")
    assert copy.headers["x-amz-copy-source"] == f"/{BUCKET}/" + quote("pending/é +")
    assert copy.headers["x-amz-copy-source-if-match"] == '"e1"'
    assert copy.headers["if-none-match"] == "*"
    assert "x-amz-metadata-directive" not in copy.headers
    assert (delete.method, delete.headers["if-match"]) == ("DELETE", '"e2"')
    assert (bulk.method, "delete=&" in bulk.target) == ("POST", True)
    assert [key.text for key in ET.fromstring(bulk.body).iter("Key")] == ["a&b", "<c>", "d "]  # noqa: S314
    digest = hashlib.md5(bulk.body).digest()  # noqa: S324
    assert base64.b64decode(bulk.headers["content-md5"]) == digest


@pytest.mark.process
def test_a_copy_with_headers_replaces_what_the_source_had() -> None:
    (copy,) = sent_of(Request("copy", "b", source="a", headers={"x-amz-meta-pending-since": "t"}))
    assert copy.headers["x-amz-metadata-directive"] == "REPLACE"
    assert copy.headers["x-amz-meta-pending-since"] == "t"


@pytest.mark.process
def test_the_bucket_may_stand_in_the_host_name() -> None:
    bucket = connect("s3.example:9000", virtual_host=True)
    assert bucket._host == f"{BUCKET}.s3.example:9000"
    with run_server(lambda _: make_answer(b"", 204)) as server:
        # no name server here: only the address is another one
        bucket._http = connect(server.endpoint)._http
        bucket.send([Request("delete", "a/b")], signed_at=NOW, expires_s=5)
    (sent,) = server.received
    assert sent.target.startswith("/a/b?")
    assert sent.headers["host"] == f"{BUCKET}.s3.example:9000"


@pytest.mark.process
def test_answers_are_told_as_they_come_each_once() -> None:
    told: list[int] = []
    with run_server(lambda _: make_answer()) as server:
        requests = [Request("put", f"{n}") for n in range(40)]
        answers = connect(server.endpoint).send(
            requests, signed_at=NOW, expires_s=5, on_answer=lambda index, _: told.append(index)
        )
    assert sorted(told) == list(range(40))
    assert {answer.effect for answer in answers} == {"done"}


@pytest.mark.process
def test_a_change_is_sent_once_and_a_read_again() -> None:
    def answer(request: Received) -> Act | bytes:
        is_broken = len(server.received) in (2, 3, 4)
        return Act(then="close") if is_broken else make_answer(b"body")

    with run_server(answer) as server:
        bucket = connect(server.endpoint, connections=1)
        assert bucket.read("a") == b"body"
        (put,) = bucket.send([Request("put", "b")], signed_at=NOW, expires_s=5)
        assert (put.effect, put.code) == ("unknown", "NoAnswer")
        with pytest.raises(StoreError):
            bucket.read("c")
        assert bucket.read("d") == b"body"
    assert [r.method for r in server.received] == ["GET", "PUT", "GET", "GET", "GET"]


# --- what is read ---


def listing_of(*keys: str, token: str = "", truncated: bool = False) -> bytes:
    items = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-11-24T04:00:00.123Z</LastModified>"
        f"<ETag>&#34;e&#34;</ETag><Size>3</Size></Contents>"
        for key in keys
    )
    token = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    more = f"<IsTruncated>{'true' if truncated else 'false'}</IsTruncated>"
    body = f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{more}{token}{items}'
    return make_answer(f"{body}</ListBucketResult>".encode())


def read_all(answer: Callable[[Received], Act | bytes]) -> list[Seen]:
    with run_server(answer) as server:
        return list(connect(server.endpoint).list_objects("p/"))


@pytest.mark.process
def test_a_listing_goes_on_from_page_to_page_and_leaves_folders_out() -> None:
    def answer(request: Received) -> bytes:
        if "continuation-token=t%2F1" in request.target:
            return listing_of("p/b")
        return listing_of("p/a", "p/folder/", token="t/1", truncated=True)

    assert read_all(answer) == [
        Seen(f"p/{name}", "e", 3, NOW.replace(microsecond=123000)) for name in "ab"
    ]


@pytest.mark.process
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (make_answer(b"<html>Log in</html>"), StoreError),
        (make_answer(b""), StoreError),
        (make_answer(b"<ListBucketResult><Contents>"), StoreError),
        (make_answer(b"<Error><Code>InternalError</Code></Error>"), StoreError),
        (listing_of("p/a", truncated=True), StoreError),
        (make_answer(b"<html>nothing here</html>", 404), StoreError),
        (make_answer(b"<Error><Code>NoSuchBucket</Code></Error>", 404), AbsentError),
        (make_answer(b"<Error><Code>SignatureDoesNotMatch</Code></Error>", 403), DeniedError),
        (Act(then="close"), StoreError),
    ],
)
def test_what_is_no_listing_is_never_an_empty_one(
    answer: Act | bytes, kind: type[StoreError]
) -> None:
    with pytest.raises(StoreError, match=r"^list fulfillment-artifacts/p/: ") as caught:
        read_all(lambda _: answer)
    assert type(caught.value) is kind


@pytest.mark.process
def test_a_listing_that_turns_in_a_circle_ends() -> None:
    with pytest.raises(StoreError, match="does not go on"):
        read_all(lambda _: listing_of("p/a", token="t", truncated=True))


LISTED_AT = "<LastModified>2026-11-24T04:00:00Z</LastModified>"


@pytest.mark.process
def test_what_could_not_be_looked_at_is_left_out_with_its_reason() -> None:
    head = {
        "there": make_answer(
            b"",
            200,
            'etag: "e"',
            f"last-modified: {HTTP_NOW}",
            "x-amz-meta-order-id: 7",
            "content-type: application/pdf",
            "x-amz-server-side-encryption: AES256",
        ),
        "gone": make_answer(b"", 404, "x-amz-request-id: 1"),
        "unlisted": make_answer(b"", 404),
        "page": make_answer(b"", 404, "content-type: text/html"),
        "denied": make_answer(b"", 403),
        "broken": Act(then="close"),
        "html": make_answer(b"", 200, "content-type: text/html"),
    }

    def answer(request: Any) -> Any:
        """Answer a HEAD; a listing shows what something before the store calls absent."""
        if "list-type" not in request.target:
            return head[request.target.split("/")[2].partition("?")[0]]
        is_page = "prefix=page" in request.target
        item = f"<Contents><Key>page</Key><ETag>e</ETag>{LISTED_AT}</Contents>" if is_page else ""
        return make_answer(f"<ListBucketResult>{item}</ListBucketResult>".encode(), 200)

    failed: dict[str, StoreError] = {}
    with run_server(answer) as server:
        bucket = connect(server.endpoint)
        assert set(bucket.look(list(head))) == {"there", "gone", "unlisted"}
        found = bucket.look(list(head), failed=failed)
    seen = found.pop("there")
    assert found == {"gone": None, "unlisted": None}
    assert seen is not None
    assert (seen.etag, seen.last_modified, seen.metadata) == ("e", NOW, {"order-id": "7"})
    assert seen.headers["content-type"] == "application/pdf"
    assert {key: (type(e), e.code) for key, e in failed.items()} == {
        "page": (StoreError, ""),
        "html": (StoreError, ""),
        "denied": (DeniedError, ""),
        "broken": (StoreError, "NoAnswer"),
    }


@pytest.mark.process
@pytest.mark.parametrize("day", range(7))
def test_the_clock_is_the_date_of_an_answer_on_every_day_of_the_week(day: int) -> None:
    at = NOW + timedelta(days=day)
    with run_server(lambda _: make_answer(b"", 200, f"date: {at:%a, %d %b %Y %H:%M:%S} GMT")) as s:
        assert connect(s.endpoint).read_clock() == at


@pytest.mark.process
def test_without_a_date_there_is_no_clock() -> None:
    with run_server(lambda _: make_answer()) as server, pytest.raises(StoreError, match="not a t"):
        connect(server.endpoint).read_clock()


def test_a_time_is_utc_to_the_millisecond() -> None:
    at = NOW.replace(microsecond=123456)
    assert format_time(at) == "2026-11-24T04:00:00.123Z"
    assert parse_time("2026-11-24T11:00:00.123+07:00") == NOW.replace(microsecond=123000)
    assert parse_time("2026-11-24T04:00:00") == NOW
    for text in ("", "soon", "Tuesday", "2026-13-01T00:00:00Z"):
        with pytest.raises(StoreError):
            parse_time(text)


@pytest.mark.process
def test_an_object_without_an_etag_gets_the_hash_of_its_content() -> None:
    at = f"last-modified: {HTTP_NOW}"
    mark = "x-amz-request-id: 1"

    def answer(request: Any) -> Any:
        """Answer as the gateway does for such a copy; something before it bears no mark."""
        if "list-type" in request.target:
            item = f"<Contents><Key>p/bare</Key><ETag></ETag><Size>3</Size>{LISTED_AT}</Contents>"
            return make_answer(f"<ListBucketResult>{item}</ListBucketResult>".encode(), 200)
        if "unmarked" in request.target:
            return make_answer(b"abc", 200, at)
        if "half" in request.target and request.method == "GET":
            return make_answer(b"abc", 200, at)
        body = b"" if request.method == "HEAD" else b"abc"
        return make_answer(body, 200, at, mark)

    with run_server(answer) as server:
        bucket = connect(server.endpoint)
        found = bucket.look(["p/bare", "unmarked", "half"])
        listed = find_all(bucket, "p/", ["p/bare"])
    assert set(found) == {"p/bare"}
    seen = found["p/bare"]
    assert seen is not None
    assert (seen.etag, seen.size_bytes) == (hashlib.md5(b"abc").hexdigest(), 3)  # noqa: S324
    assert listed == found


@pytest.mark.process
def test_content_is_read_whole_or_as_its_hash() -> None:
    body = bytes(range(256)) * 4000
    with run_server(lambda _: make_answer(body)) as server:
        bucket = connect(server.endpoint)
        assert bucket.read("a") == body
        assert bucket.read_sha256("a") == hashlib.sha256(body).hexdigest()


@pytest.mark.process
def test_half_a_body_has_no_hash_also_on_an_old_connection() -> None:
    cut = Act(make_answer(b"whole body")[:-4], "close")
    with run_server(lambda r: cut if "half" in r.target else make_answer(b"x")) as server:
        bucket = connect(server.endpoint)
        assert bucket.read("a") == b"x"
        with pytest.raises(StoreError):
            bucket.read_sha256("half")


@pytest.mark.process
def test_own_pages_are_asked_for_without_a_signature() -> None:
    with run_server(lambda _: make_answer(b"no", 503)) as server:
        reply = connect(server.endpoint).ask("/minio/health/live")
    assert (reply.status, server.targets) == (503, ["/minio/health/live"])
    with pytest.raises(StoreError, match=f"GET http://{server.endpoint}/minio"):
        connect(server.endpoint).ask("/minio/health/live")


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        *((f"pending/{name}", True) for name in NAMES),
        ("a/../b", False),
        ("./a", False),
        ("a//b", False),
        ("/a", False),
        ("a/", False),
        ("", False),
        ("ctl\x01", False),
        ("new\nline", False),
        ("\x85", False),
        ("\ud800", False),
        ("\uffff", False),
    ],
)
def test_keys_that_every_request_can_name(key: str, wanted: bool) -> None:
    assert is_key_supported(key) is wanted


def test_two_looks_at_one_version_are_the_same_to_the_second() -> None:
    one = Seen("k", "e", 1, NOW.replace(microsecond=5000))
    assert one.is_same(Seen("k", "e", 1, NOW))
    assert not one.is_same(Seen("k", "e", 1, NOW.replace(microsecond=6000)))
    assert not one.is_same(Seen("k", "e", 1, NOW + timedelta(seconds=1)))
    assert not one.is_same(Seen("k", "f", 1, NOW))
    assert one.has_same_content(Seen("k", "e", 1, NOW + timedelta(days=1)))


@pytest.mark.parametrize(
    ("etag", "headers", "wanted"),
    [
        ("d41d8cd98f00b204e9800998ecf8427e", {}, True),
        ("d41d8cd98f00b204e9800998ecf8427e-2", {}, False),
        ("", {}, False),
        ("d41d8cd98f00b204e9800998ecf8427g", {}, False),
        ("d41d8cd98f00b204e9800998ecf8427e", {"x-amz-server-side-encryption": "aws:kms"}, False),
    ],
)
def test_an_etag_is_a_hash_only_of_plain_objects(
    etag: str, headers: dict[str, str], wanted: bool
) -> None:
    assert Seen("k", etag, 0, NOW, {}, headers).has_hash is wanted


# --- on real servers ---


@pytest.fixture(params=["juicefs", "seaweedfs"])
def bucket(request: pytest.FixtureRequest) -> S3Bucket:
    server: StoreServer = request.getfixturevalue(request.param)
    bucket = connect(server.endpoint)
    send(bucket, *(Request("delete", seen.key) for seen in bucket.list_objects("")))
    return bucket


def independent(bucket: S3Bucket) -> Minio:
    return Minio(bucket.endpoint, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")


@pytest.mark.process
def test_odd_names_go_round(bucket: S3Bucket) -> None:
    pending, ready = ([f"{prefix}/{name}" for name in NAMES] for prefix in ("pending", "ready"))
    headers = {"content-type": "application/pdf", "x-amz-meta-order-id": "7"}
    puts = [Request("put", key, body=key.encode(), headers=headers) for key in pending]
    etags = [answer.etag for answer in send(bucket, *puts)]
    assert etags == [hashlib.md5(key.encode()).hexdigest() for key in pending]  # noqa: S324
    pairs = zip(pending, ready, etags, strict=True)
    copies = [Request("copy", to, source=key, if_match=etag) for key, to, etag in pairs]
    assert [(a.effect, a.etag) for a in send(bucket, *copies)] == [("done", e) for e in etags]
    assert {seen.key for seen in bucket.list_objects("")} == {*pending, *ready}
    others = independent(bucket).list_objects(BUCKET, recursive=True)
    assert {item.object_name for item in others} == {*pending, *ready}
    found = bucket.look(ready)
    assert [s.metadata if s else None for s in found.values()] == [{"order-id": "7"}] * len(NAMES)
    assert [bucket.read(key) for key in ready] == [key.encode() for key in pending]
    assert [bucket.read_sha256(key) for key in ready[:2]] == [
        hashlib.sha256(key.encode()).hexdigest() for key in pending[:2]
    ]
    assert {answer.effect for answer in send(bucket, *(Request("delete", k) for k in ready))} == {
        "done"
    }
    (bulk,) = send(bucket, Request("delete_many", keys=tuple(pending)))
    assert (bulk.effect, bulk.failed) == ("done", {})
    assert list(bucket.list_objects("")) == []


@pytest.mark.process
def test_a_listing_has_every_page(bucket: S3Bucket) -> None:
    keys = [f"many/{number:05d} +" for number in range(1100)]
    answers = send(bucket, *(Request("put", key, body=b"x") for key in keys))
    assert {answer.effect for answer in answers} == {"done"}
    assert sorted(seen.key for seen in bucket.list_objects("many/")) == keys
    found = find_all(bucket, "many/", [*keys[::100], "many/absent"])
    assert [key for key, seen in found.items() if seen is None] == ["many/absent"]
    for start in range(0, len(keys), 500):
        (bulk,) = send(bucket, Request("delete_many", keys=tuple(keys[start : start + 500])))
        assert (bulk.effect, bulk.failed) == ("done", {})
    assert list(bucket.list_objects("many/")) == []


@pytest.mark.process
def test_what_is_late_is_refused_and_changes_nothing(bucket: S3Bucket) -> None:
    (put,) = send(bucket, Request("put", "a", body=b"x"))
    requests = [
        Request("put", "b", body=b"x"),
        Request("copy", "c", source="a", if_match=put.etag),
        Request("delete", "a"),
    ]
    late = bucket.read_clock() - timedelta(minutes=10)
    for answer in bucket.send(requests, signed_at=late, expires_s=20):
        assert (answer.effect, answer.code) == ("none", "AccessDenied")
    assert [seen.key for seen in bucket.list_objects("")] == ["a"]


@pytest.mark.process
def test_a_wrong_etag_copies_nothing(bucket: S3Bucket) -> None:
    send(bucket, Request("put", "a", body=b"x"))
    (answer,) = send(bucket, Request("copy", "b", source="a", if_match="0" * 32))
    assert (answer.effect, answer.code) == ("unknown", "PreconditionFailed")
    assert [seen.key for seen in bucket.list_objects("")] == ["a"]


@pytest.mark.process
def test_absent_objects_are_none(bucket: S3Bucket) -> None:
    assert bucket.look(["absent"]) == {"absent": None}
    assert bucket.read("absent") is None
    with pytest.raises(AbsentError):
        bucket.read_sha256("absent")


@pytest.mark.process
def test_the_clock_is_about_ours(bucket: S3Bucket) -> None:
    assert abs((bucket.read_clock() - datetime.now(UTC)).total_seconds()) < 3


@pytest.mark.process
def test_names_are_quoted_as_others_read_them() -> None:
    with run_server(lambda _: make_answer(b"", 204)) as server:
        requests = [Request("delete", name) for name in NAMES]
        connect(server.endpoint).send(requests, signed_at=NOW, expires_s=5)
    paths = {unquote(target.partition("?")[0]) for target in server.targets}
    assert paths == {f"/{BUCKET}/{name}" for name in NAMES}


@pytest.mark.process
def test_no_request_of_a_probe_meets_another(
    bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy whose source was written at once was refused by chance: taken for a condition."""
    batches, plain = [], S3Bucket.send

    def record(self: S3Bucket, requests: Any, **how: Any) -> list[Answer]:
        batches.extend([requests] * (how["expires_s"] > 1))  # what is late is refused anyway
        return plain(self, requests, **how)

    monkeypatch.setattr(S3Bucket, "send", record)
    probe(bucket)
    assert len(batches) >= 4
    for batch in batches:
        written = [key for one in batch for key in one.keys or [one.key]]
        assert len(set(written)) == len(written)
        assert not {one.source for one in batch} & set(written)


def test_only_lifecycle_rules_that_reach_the_memory_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules = (
        "<Rule><ID>all</ID><Status>Enabled</Status><Expiration/><Filter/></Rule>"
        "<Rule><ID>tagged</ID><Status>Enabled</Status><Expiration/>"
        "<Filter><And><Prefix>tmp/</Prefix><Tag/></And></Filter></Rule>"
        "<Rule><ID>old</ID><Status>Enabled</Status><Expiration/><Prefix>.runbook/</Prefix></Rule>"
        "<Rule><ID>off</ID><Status>Disabled</Status><Expiration/></Rule>"
    )
    body = f"<LifecycleConfiguration>{rules}</LifecycleConfiguration>".encode()
    monkeypatch.setattr(S3Bucket, "fetch", lambda *_: Reply(200, {}, body))
    assert find_expiry_rules(connect("127.0.0.1:9")) == ["all", "old"]
