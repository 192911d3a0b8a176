"""The object store: what the rest of the package may ask of a bucket.

The only modules that import minio and obstore are this one's ``object_store_*`` siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ..errors import AccessDeniedError, ClientError
from ..model import ObjectInfo, StoreAbilities
from ..settings import Settings

__all__ = [
    "LiveCheck",
    "ObjectStore",
    "Permissions",
    "Write",
    "WriteWatch",
    "connect_store",
    "is_key_supported",
    "is_same_version",
]


@dataclass(frozen=True, slots=True)
class LiveCheck:
    """Whether the store answers, and how that was found out.

    Attributes
    ----------
    is_live : it answered and said that it is well
    how : ``live endpoint`` or ``signed listing``
    source : the URL that was asked
    reason : what it said, when it is not well
    """

    is_live: bool
    how: str
    source: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the credentials may do; None where it cannot be told without changing something."""

    list: bool | None
    read: bool | None
    write: bool | None
    delete: bool | None
    reasons: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Write:
    """One write that the store told of."""

    key: str
    etag: str
    at: datetime


class WriteWatch(Protocol):
    """What was written since it was opened; ``is_watching`` is false where nobody tells."""

    is_watching: bool
    writes: list[Write]

    def wait_until_open(self) -> None:
        """Return when what is written from now on will be told, or it is plain that it will not."""

    def flush(self) -> None:
        """Wait until all that was written before is told."""


class ObjectStore(Protocol):
    """One bucket of an S3 store. Every method raises ``ClientError`` subclasses only.

    ETags are without quotes. Listings are sorted by key (UTF-8 bytes), stream, and leave out
    folder markers (keys that end with ``/``).
    """

    @property
    def endpoint(self) -> str:
        """host:port."""

    @property
    def bucket(self) -> str:
        """The bucket's name."""

    def list_objects(
        self, prefix: str, *, start_after: str = "", with_metadata: bool = False
    ) -> Iterator[ObjectInfo]:
        """Yield the objects under a prefix; metadata only where the store lists it."""

    def read_info(self, key: str) -> ObjectInfo:
        """Return one object with its metadata; LastModified in whole seconds."""

    def read_infos(
        self, keys: Iterable[str], *, threads: int = 16
    ) -> Iterator[tuple[str, ObjectInfo | ClientError]]:
        """Yield, in the order of ``keys``, each object with its metadata, or why not."""

    def read_bytes(self, key: str, *, max_bytes: int = 16 * 1024 * 1024) -> bytes:
        """Return an object's content; a larger one is a ``BadAnswerError``."""

    def read_tags(self, key: str) -> dict[str, str]:
        """Return an object's tags."""

    def put_object(
        self,
        key: str,
        content: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        if_absent: bool = False,
        if_match: str = "",
    ) -> ObjectInfo:
        """Write an object; the conditions bind only where the store has conditional puts."""

    def copy_object(
        self, source: ObjectInfo, key: str, *, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Copy one object if it is still the one named: its ETag, and not modified since.

        Metadata, content type and tags come along; ``metadata`` replaces all user metadata.
        """

    def copy_objects(
        self,
        pairs: Sequence[tuple[ObjectInfo, str]],
        *,
        threads: int = 16,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, ClientError | None]]:
        """Copy many; yields, in any order, the index of a pair and why it failed.

        What was not tried, since ``is_stopped`` said so, is not yielded. Each copy is refused when
        its source was modified after the newest LastModified of the pairs. The ETag is not
        checked: read the copies back.
        """

    def delete_object(self, info: ObjectInfo, *, guarded: bool = True) -> None:
        """Delete one object; ``guarded`` sends its ETag along, which not every store minds."""

    def delete_objects(
        self, infos: Sequence[ObjectInfo], *, guarded: bool
    ) -> list[tuple[str, ClientError]]:
        """Delete in bulk; returns what failed. ``guarded`` sends each ETag along."""

    def watch_writes(self, prefix: str) -> AbstractContextManager[WriteWatch]:
        """Listen to writes under a prefix, on servers that tell them."""

    def check_live(self) -> LiveCheck:
        """Ask the live endpoint, and where there is none, make a signed listing."""

    def read_clock_skew_s(self) -> float:
        """Return the store's clock minus ours in seconds, to about a second."""

    def read_free_bytes(self) -> int | None:
        """Return the free capacity where the store tells it."""

    def list_buckets(self) -> list[str]:
        """Return the names of the buckets that the credentials see."""

    def read_permissions(self, prefix: str) -> Permissions:
        """Tell what the credentials may do, without changing anything."""

    def probe_abilities(self, prefix: str) -> StoreAbilities:
        """Find out on scratch objects under ``prefix`` what the store honours; removes them."""


def connect_store(settings: Settings) -> ObjectStore:
    """Return the bucket that the settings name; connects with the first request.

    Raises
    ------
    AccessDeniedError
        When there are no credentials.
    """
    from .object_store_s3 import S3Store

    if not settings.minio_root_user or not settings.minio_root_password.get_secret_value():
        raise AccessDeniedError(
            "no credentials: set MINIO_ROOT_USER and MINIO_ROOT_PASSWORD, or for the local stack "
            'eval "$(runbook stack env)"',
            system="store",
        )

    return S3Store(
        endpoint=settings.minio_endpoint,
        bucket=settings.fulfillment_bucket,
        access_key=settings.minio_root_user,
        secret_key=settings.minio_root_password.get_secret_value(),
        region=settings.minio_region,
        secure=settings.minio_secure,
    )


def is_key_supported(key: str) -> bool:
    """Tell whether every request (copy, bulk delete, listing) can name the key exactly.

    Segments ``.``, ``..`` and empty ones are folded by clients and servers; control characters
    cannot stand in the XML of a bulk delete.
    """
    return all(part not in ("", ".", "..") for part in key.split("/")) and not any(
        ch < " " or "\x7f" <= ch < "\xa0" or "\ud800" <= ch <= "\udfff" or ch in "\ufffe\uffff"
        for ch in key
    )


def is_same_version(planned: ObjectInfo, found: ObjectInfo) -> bool:
    """Tell whether two looks at a key saw the same object.

    Compares ETag, size and LastModified. A HEAD tells whole seconds only, so that a time
    without a fraction equals any time within its second.
    """
    return (planned.etag, planned.size_bytes) == (found.etag, found.size_bytes) and _is_same_time(
        planned.last_modified, found.last_modified
    )


def _is_same_time(one: datetime, other: datetime) -> bool:
    if one.microsecond and other.microsecond:
        return one == other
    return one.replace(microsecond=0) == other.replace(microsecond=0)
