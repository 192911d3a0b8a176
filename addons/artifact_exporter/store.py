"""Reads listings and metadata from the object store. Only reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol
from xml.etree.ElementTree import ParseError

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error

from addons.artifact_exporter.settings import ExporterSettings

__all__ = [
    "FAILURE_REASONS",
    "ArtifactStore",
    "FailureReason",
    "ListedArtifact",
    "MinioStore",
    "StoreReadError",
]

FailureReason = Literal[
    "store_unreachable", "access_denied", "bad_credentials", "no_such_bucket", "other"
]
FAILURE_REASONS: tuple[FailureReason, ...] = (
    "store_unreachable",
    "access_denied",
    "bad_credentials",
    "no_such_bucket",
    "other",
)
_REASON_BY_CODE: Mapping[str, FailureReason] = {
    "AccessDenied": "access_denied",
    "InvalidAccessKeyId": "bad_credentials",
    "NoSuchBucket": "no_such_bucket",
    "SignatureDoesNotMatch": "bad_credentials",
}
_METADATA_PREFIX = "x-amz-meta-"


@dataclass(frozen=True, slots=True)
class ListedArtifact:
    """One row of a listing; equal rows are the same version of the same object."""

    key: str
    etag: str
    last_modified: datetime
    size_bytes: int


class StoreReadError(Exception):
    """The store could not be read; ``reason`` is one of `FAILURE_REASONS`."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class ArtifactStore(Protocol):
    """What the exporter needs of a store."""

    def list_artifacts(self, prefix: str) -> Iterator[ListedArtifact]:
        """List every object under a prefix; raises `StoreReadError`."""

    def read_metadata(self, key: str) -> Mapping[str, str] | None:
        """Read an object's user metadata, None when it is gone; raises `StoreReadError`."""


class MinioStore:
    """The store over S3, with short time-outs: minio-py waits five minutes by itself."""

    def __init__(self, settings: ExporterSettings, *, connections: int = 8) -> None:
        self._bucket = settings.fulfillment_bucket
        self._client = Minio(
            settings.minio_endpoint,
            access_key=settings.minio_root_user,
            secret_key=settings.minio_root_password.get_secret_value(),
            secure=settings.minio_secure,
            # With the region given, minio-py does not ask the store for it first.
            region=settings.minio_region,
            http_client=urllib3.PoolManager(
                maxsize=connections,
                timeout=urllib3.Timeout(connect=2, read=10),
                retries=urllib3.Retry(total=1, backoff_factor=0.1),
            ),
        )

    def list_artifacts(self, prefix: str) -> Iterator[ListedArtifact]:
        """List every object under a prefix, without the placeholders of folders."""
        try:
            for item in self._client.list_objects(self._bucket, prefix=prefix, recursive=True):
                key = item.object_name or ""
                if key and not key.endswith("/"):
                    yield ListedArtifact(
                        key,
                        item.etag or "",
                        item.last_modified or datetime.fromtimestamp(0, UTC),
                        item.size or 0,
                    )
        except _READ_ERRORS as error:
            raise _read_error(error, f"listing {self._bucket}/{prefix}") from error

    def read_metadata(self, key: str) -> Mapping[str, str] | None:
        """Read an object's user metadata: lower-case names without ``x-amz-meta-``."""
        try:
            headers = self._client.stat_object(self._bucket, key).metadata or {}
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            raise _read_error(error, f"reading {self._bucket}/{key}") from error
        except _READ_ERRORS as error:
            raise _read_error(error, f"reading {self._bucket}/{key}") from error
        return {
            name.lower().removeprefix(_METADATA_PREFIX): str(value)
            for name, value in headers.items()
            if name.lower().startswith(_METADATA_PREFIX)
        }


# ValueError: minio-py refuses keys with "." or ".." segments and dates it cannot parse.
_READ_ERRORS = (MinioException, urllib3.exceptions.HTTPError, OSError, ParseError, ValueError)


def _read_error(error: Exception, doing: str) -> StoreReadError:
    reason: FailureReason = "other"
    if isinstance(error, S3Error):
        reason = _REASON_BY_CODE.get(error.code or "", "other")
    elif isinstance(error, urllib3.exceptions.HTTPError | OSError):
        reason = "store_unreachable"
    return StoreReadError(reason, f"{doing}: {error}")
