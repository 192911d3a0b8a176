"""Between minio's types and ours: objects and dates."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from email.utils import format_datetime

from minio.datatypes import Object as MinioObject

from ..errors import BadAnswerError, ClientError
from ..model import ObjectInfo

__all__ = ["format_http_date", "settle", "to_info"]

_META = "x-amz-meta-"


def to_info(item: MinioObject, *, metadata: bool) -> ObjectInfo:
    """Return a listed or looked-up object; ``metadata`` says whether it was read with it."""
    if item.object_name is None or item.last_modified is None:
        raise BadAnswerError(f"{item.object_name} has no LastModified", system="object store")
    return ObjectInfo(
        key=item.object_name,
        etag=(item.etag or "").strip('"'),
        size_bytes=item.size or 0,
        last_modified=item.last_modified,
        metadata=_user_metadata(item.metadata or {}) if metadata else None,
        content_type=item.content_type or "",
    )


def _user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name.lower()[len(_META) :]: value
        for name, value in headers.items()
        if name.lower().startswith(_META)
    }


def format_http_date(at: datetime) -> str:
    """Write a time as HTTP has it, in whole seconds."""
    return format_datetime(at.astimezone(UTC).replace(microsecond=0), usegmt=True)


def settle(key: str, future: Future[ObjectInfo]) -> tuple[str, ObjectInfo | ClientError]:
    """Return a key with what its look-up found, or why it failed."""
    try:
        return key, future.result()
    except ClientError as error:
        return key, error
