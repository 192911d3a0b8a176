"""What the exporter makes of the store's answers, recorded on MinIO's gateway."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from addons.artifact_exporter.settings import ExporterSettings
from addons.artifact_exporter.store import ListedArtifact, S3Store, StoreReadError
from tests.support.network import (
    Received,
    foreign_shell,
    make_answer,
    make_certificates,
    run_proxy,
    run_server,
)

pytestmark = pytest.mark.process

__all__ = ["foreign_shell"]

BUCKET = "/fulfillment-artifacts"
ETAG = "aed563ecafb4bcc5654c597a421547b2"
LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>fulfillment-artifacts</Name>\
<Prefix>pending/</Prefix><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><Delimiter></Delimiter>\
<IsTruncated>{truncated}</IsTruncated>{token}{contents}<EncodingType>url</EncodingType>\
</ListBucketResult>"""
CONTENTS = """<Contents><Key>{key}</Key><LastModified>2026-11-24T15:05:39.059Z</LastModified>\
<ETag>&#34;aed563ecafb4bcc5654c597a421547b2&#34;</ETag><Size>100</Size>\
<StorageClass>STANDARD</StorageClass></Contents>"""
ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>m</Message><BucketName>fulfillment-artifacts</BucketName>\
<Resource>/fulfillment-artifacts</Resource><RequestId>18EB040F4B1AA1DE</RequestId><HostId></HostId>\
</Error>"""


def listing(*keys: str, token: str = "") -> Response:
    contents = "".join(CONTENTS.format(key=key) for key in keys)
    element = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    truncated = "true" if token else "false"
    body = LISTING.format(contents=contents, token=element, truncated=truncated)
    return Response(body, content_type="application/xml")


def make_store(endpoint: str, **changes: Any) -> S3Store:
    given = {"minio_root_user": "admin", "minio_root_password": "admin12345"}
    return S3Store(ExporterSettings(minio_endpoint=endpoint, **given | changes))


@pytest.fixture
def store(httpserver: HTTPServer) -> S3Store:
    return make_store(f"{httpserver.host}:{httpserver.port}")


def artifact(key: str) -> ListedArtifact:
    return ListedArtifact(
        key, ETAG, datetime(2026, 11, 24, 15, 5, 39, 59000, tzinfo=UTC), size_bytes=100
    )


def test_keys_are_decoded_and_folder_placeholders_left_out(
    httpserver: HTTPServer, store: S3Store
) -> None:
    httpserver.expect_request(BUCKET).respond_with_response(
        listing("pending/", "pending/emoji-%F0%9F%93%A6+%3Cx%3E.pdf", "pending/sub/")
    )
    assert list(store.list_artifacts("pending/")) == [artifact("pending/emoji-📦 <x>.pdf")]


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (403, "AccessDenied", "access_denied"),
        (403, "SignatureDoesNotMatch", "bad_credentials"),
        (503, "SlowDown", "other"),
    ],
)
def test_the_store_s_errors_have_a_reason(
    httpserver: HTTPServer, store: S3Store, status: int, code: str, reason: str
) -> None:
    httpserver.expect_request(BUCKET).respond_with_data(
        ERROR.format(code=code), status=status, content_type="application/xml"
    )
    with pytest.raises(StoreReadError, match=f"{reason}: list fulfillment-artifacts/pending/"):
        list(store.list_artifacts("pending/"))


def answer_listing(_: Received) -> bytes:
    body = LISTING.format(truncated="false", token="", contents=CONTENTS.format(key="pending/1"))
    return make_answer(body.encode(), 200, "content-type: application/xml")


def test_tls_token_and_proxy_are_what_the_settings_say_and_nothing_is_the_shells(
    foreign_shell: Callable[[str], None], tmp_path: Path
) -> None:
    ca_file, context = make_certificates(tmp_path)
    with (
        run_server(answer_listing, tls=context) as server,
        run_proxy() as proxy,
        run_proxy() as silent,
    ):
        foreign_shell(silent.endpoint)
        known = {"minio_secure": True, "ca_bundle": ca_file, "minio_session_token": "tok"}
        assert list(make_store(server.endpoint, **known).list_artifacts("pending/"))
        through = make_store(server.endpoint, proxy_url=f"http://{proxy.endpoint}", **known)
        assert list(through.list_artifacts("pending/"))
        with pytest.raises(StoreReadError, match=r"store_unreachable.*certificate"):
            list(make_store(server.endpoint, minio_secure=True).list_artifacts("pending/"))
    assert [(r.method, r.target) for r in proxy.received] == [("CONNECT", server.endpoint)]
    assert all("X-Amz-Security-Token=tok" in target for target in server.targets)
    assert silent.received == []
