"""What the exporter makes of the store's answers, recorded on MinIO's gateway."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from addons.artifact_exporter.settings import ExporterSettings
from addons.artifact_exporter.store import ListedArtifact, S3Store, StoreReadError
from tests.support.network import (
    foreign_shell,
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
