"""What waits under a prefix, with metadata that is read once per object."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from minio import Minio
from minio.error import S3Error

from dataflow_stack.store_client import user_metadata
from fulfillment.analysis.artifacts import compute_age_start, has_value, is_synthetic

__all__ = ["Waiting", "WaitingObject"]


@dataclass(frozen=True, slots=True)
class WaitingObject:
    """One object that waits."""

    key: str
    etag: str
    last_modified: datetime
    metadata: dict[str, str] = field(hash=False)

    @property
    def is_synthetic(self) -> bool:
        """Whether a chaos script made it."""
        return is_synthetic(self.metadata)

    @property
    def is_incomplete(self) -> bool:
        """Whether the carrier's number is still missing."""
        return not has_value(self.metadata, "tracking-number")


class Waiting:
    """List a prefix, the longest wait first."""

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client, self._bucket = client, bucket
        self._known: dict[tuple[str, str, datetime], dict[str, str]] = {}

    def list(self, prefix: str, now: datetime) -> list[WaitingObject]:
        """Return what waits under the prefix.

        Raises
        ------
        S3Error, HTTPError, OSError
            When the store refuses or does not answer.
        """
        found = list(self._read(prefix))
        self._known = {(o.key, o.etag, o.last_modified): o.metadata for o in found}
        return sorted(
            found, key=lambda o: (compute_age_start(o.metadata, o.last_modified, now), o.key)
        )

    def _read(self, prefix: str) -> Iterator[WaitingObject]:
        listed = self._client.list_objects(bucket_name=self._bucket, prefix=prefix, recursive=True)
        for item in listed:
            key, etag, at = item.object_name, item.etag, item.last_modified
            if key is None or etag is None or at is None or key.endswith("/"):
                continue
            metadata = self._known.get((key, etag, at))
            # An incomplete object is read anew: its metadata changes while its ETag stays.
            if metadata is None or not has_value(metadata, "tracking-number"):
                try:
                    stat = self._client.stat_object(bucket_name=self._bucket, object_name=key)
                except S3Error as error:
                    if error.code in ("NoSuchKey", "NoSuchObject"):
                        continue  # taken by someone else since the listing
                    raise
                metadata = user_metadata(stat.metadata)  # type: ignore[arg-type]
            yield WaitingObject(key, etag, at, metadata)
