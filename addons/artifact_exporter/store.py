"""Reads listings and metadata from the object store. Only reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from addons.artifact_exporter.settings import ExporterSettings
from objectmove.bucket import S3Bucket, is_key_supported
from objectmove.errors import StoreError

__all__ = [
    "FAILURE_REASONS",
    "ArtifactStore",
    "FailureReason",
    "ListedArtifact",
    "S3Store",
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
    "HTTP 401": "access_denied",
    "HTTP 403": "access_denied",
    "InvalidAccessKeyId": "bad_credentials",
    "NoAnswer": "store_unreachable",
    "NoSuchBucket": "no_such_bucket",
    "NotSent": "store_unreachable",
    "SignatureDoesNotMatch": "bad_credentials",
}


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


class S3Store:
    """The store over S3. It follows the settings, and reads nothing of the shell."""

    def __init__(self, settings: ExporterSettings) -> None:
        self._bucket = S3Bucket(
            endpoint=settings.minio_endpoint,
            bucket=settings.fulfillment_bucket,
            access_key=settings.minio_root_user,
            secret_key=settings.minio_root_password.get_secret_value(),
            session_token=settings.minio_session_token.get_secret_value(),
            region=settings.minio_region,
            secure=settings.minio_secure,
            ca_file=str(settings.ca_bundle or ""),
            virtual_host=settings.minio_addressing == "virtual",
            proxy_url=settings.proxy_url,
        )

    def list_artifacts(self, prefix: str) -> Iterator[ListedArtifact]:
        """List every object under a prefix, without the placeholders of folders."""
        try:
            for seen in self._bucket.list_objects(prefix):
                yield ListedArtifact(seen.key, seen.etag, seen.last_modified, seen.size_bytes)
        except StoreError as error:
            raise _read_error(error) from error

    def read_metadata(self, key: str) -> Mapping[str, str] | None:
        """Read an object's user metadata: lower-case names without ``x-amz-meta-``."""
        if not is_key_supported(key):
            raise StoreReadError("other", f"{key!r}: no request can name this key exactly")
        failed: dict[str, StoreError] = {}
        found = self._bucket.look([key], failed=failed)
        if key in failed:
            raise _read_error(failed[key])
        seen = found[key]
        return None if seen is None else seen.metadata or {}


def _read_error(error: StoreError) -> StoreReadError:
    return StoreReadError(_REASON_BY_CODE.get(error.code, "other"), str(error))
