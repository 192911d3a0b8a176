"""The object store as the stack's own services use it: bounded waits, errors with a reason."""

from __future__ import annotations

import urllib3
from minio import Minio
from minio.commonconfig import CopySource
from minio.error import MinioAdminException, MinioException, S3Error
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

__all__ = ["STORE_ERRORS", "build_client", "copy_guarded", "find_reason", "user_metadata"]

#: Everything that a call to the store can raise.
STORE_ERRORS = (MinioException, MinioAdminException, HTTPError, OSError)

_META = "x-amz-meta-"
_REASONS = {
    "SignatureDoesNotMatch": "bad_credentials",
    "InvalidAccessKeyId": "bad_credentials",
    "AccessDenied": "access_denied",
    "NoSuchBucket": "no_such_bucket",
    "XMinioStorageFull": "storage_full",
    "XMinioAdminBucketQuotaExceeded": "storage_full",
    "QuotaExceeded": "storage_full",
}


def build_client(endpoint: str, user: str, password: str, region: str = "us-east-1") -> Minio:
    """Build a client that gives up in seconds; minio-py's own defaults wait for minutes."""
    pool = urllib3.PoolManager(
        timeout=Timeout(connect=2, read=10), retries=Retry(1, status=0), maxsize=16
    )
    return Minio(
        endpoint=endpoint,
        access_key=user,
        secret_key=password,
        region=region,
        secure=False,
        http_client=pool,
    )


def find_reason(error: Exception) -> str:
    """Name what went wrong in one of the words of ``fulfillment_artifacts_failed_total``."""
    if isinstance(error, S3Error):
        text = (error.message or "").lower()
        # The JuiceFS gateway reports a full quota as an internal error with this cause.
        if "quota exceeded" in text or "no space left" in text:
            return "storage_full"
        return _REASONS.get(error.code or "", "other")
    if isinstance(error, HTTPError | OSError):
        return "store_unreachable"
    return "other"


def user_metadata(headers: urllib3.HTTPHeaderDict | None) -> dict[str, str]:
    """Return the user metadata, names in lower case and without ``x-amz-meta-``."""
    items = (headers or urllib3.HTTPHeaderDict()).items()
    return {k.lower()[len(_META) :]: v for k, v in items if k.lower().startswith(_META)}


def copy_guarded(
    client: Minio,
    bucket: str,
    source: str,
    destination: str,
    *,
    etag: str,
    metadata: dict[str, str] | None = None,
) -> None:
    """Copy an object only while its ETag is the given one; with new metadata when given.

    Raises
    ------
    S3Error
        ``PreconditionFailed`` when the object is another by now, ``NoSuchKey`` when it went.
    """
    client.copy_object(
        bucket_name=bucket,
        object_name=destination,
        source=CopySource(bucket_name=bucket, object_name=source, match_etag=etag),
        metadata=dict(metadata) if metadata is not None else None,
        metadata_directive="REPLACE" if metadata is not None else None,
    )
