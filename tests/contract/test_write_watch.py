"""What the stores tell of writes while a release runs."""

from __future__ import annotations

from datetime import timedelta

from fulfillment.change.other_movers import watch_writes
from objectmove.bucket import Request, S3Bucket
from tests.support.gateway import ACCESS_KEY, SECRET_KEY, StoreServer


def connect(server: StoreServer) -> S3Bucket:
    return S3Bucket(
        endpoint=server.endpoint, bucket=server.bucket, access_key=ACCESS_KEY, secret_key=SECRET_KEY
    )


def write(bucket: S3Bucket, key: str) -> None:
    put = Request("put", key, body=b"newer")
    (answer,) = bucket.send([put], signed_at=bucket.read_clock(), expires_s=20)
    assert answer.effect == "done"


def test_the_gateway_tells_what_was_written_later(juicefs: StoreServer) -> None:
    bucket = connect(juicefs)
    since = bucket.read_clock() - timedelta(seconds=5)
    with watch_writes(bucket, "pending/") as find_newer:
        write(bucket, "pending/a b.pdf")
        write(bucket, "other/c.pdf")
        asked = {"pending/a b.pdf": since, "pending/d.pdf": since}
        assert find_newer(asked) == {"pending/a b.pdf"}
        assert find_newer({"pending/a b.pdf": since + timedelta(hours=1)}) == set()


def test_seaweedfs_tells_nothing_and_is_not_waited_for(seaweedfs: StoreServer) -> None:
    bucket = connect(seaweedfs)
    with watch_writes(bucket, "pending/") as find_newer:
        write(bucket, "pending/a.pdf")
        assert find_newer({"pending/a.pdf": bucket.read_clock() - timedelta(1)}) == set()
