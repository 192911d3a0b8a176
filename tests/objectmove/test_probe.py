"""What a probe says of a store that lacks something."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from objectmove.bucket import Answer, S3Bucket
from objectmove.errors import RefusedError
from objectmove.plan import Timing
from objectmove.probe import probe, survey
from tests.support.memory_store import MemoryBucket


class Unfenced(MemoryBucket):
    """A store that accepts requests whose signature has expired."""

    def send(self, requests: Any, *, signed_at: datetime, **options: Any) -> list[Answer]:
        return super().send(requests, signed_at=max(signed_at, self.clock()), **options)


def make_bucket(kind: type[MemoryBucket] = MemoryBucket) -> S3Bucket:
    return cast("S3Bucket", kind(lambda: datetime.now(UTC)))


def list_lacking(bucket: S3Bucket) -> set[str]:
    found = survey(bucket, source="in/")
    assert list(bucket.list_objects("")) == []
    return {name for name, instead in found.items() if instead}


def test_a_store_that_accepts_expired_requests_is_refused_but_can_be_surveyed() -> None:
    assert "expires" in list_lacking(make_bucket(Unfenced))
    with pytest.raises(RefusedError, match="expired"):
        probe(make_bucket(Unfenced), timing=Timing(), source="in/")


def test_a_listing_that_shows_what_was_removed_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = make_bucket()
    up_to_date = bucket.list_objects
    shown: list[Any] = []

    def list_late(prefix: str, **options: Any) -> Any:
        shown.append([*up_to_date(prefix, **options)])
        return iter(shown[-2] if len(shown) > 1 else [])

    monkeypatch.setattr(bucket, "list_objects", list_late)
    found = survey(bucket, source="in/")
    assert found["listing_at_once"]
