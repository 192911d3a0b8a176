"""What a store is able to do, and what its credentials may do."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import urllib3

from ..errors import AccessDeniedError, ClientError, NotFoundError, PreconditionFailedError
from ..model import StoreAbilities
from .object_store import LiveCheck, Permissions
from .object_store_errors import REQUEST_ERRORS, explain_error, explained

if TYPE_CHECKING:
    from .object_store import ObjectStore

__all__ = [
    "check_live",
    "probe_abilities",
    "read_clock_skew_s",
    "read_free_bytes",
    "read_permissions",
]

_FREE = ("minio_cluster_capacity_usable_free_bytes", "minio_cluster_capacity_free_bytes")


def check_live(store: ObjectStore, http: urllib3.PoolManager, url: str) -> LiveCheck:
    """Ask ``/minio/health/live``; where there is none, make a signed listing.

    Raises
    ------
    AccessDeniedError
        When only the listing can tell, and the credentials may not list.
    """
    source = f"{url}/minio/health/live"
    try:
        answer = http.request("GET", source)
    except REQUEST_ERRORS as error:
        return LiveCheck(False, "live endpoint", source, str(explain_error(error, f"GET {source}")))
    if answer.status == 200:
        return LiveCheck(True, "live endpoint", source)
    if answer.status >= 500:
        return LiveCheck(False, "live endpoint", source, f"answered {answer.status}")
    source = f"{url}/{store.bucket}"
    try:
        next(iter(store.list_objects(".runbook/")), None)
    except AccessDeniedError:
        raise
    except ClientError as error:
        return LiveCheck(False, "signed listing", source, str(error))
    return LiveCheck(True, "signed listing", source)


def read_free_bytes(http: urllib3.PoolManager, url: str) -> int | None:
    """Return the free capacity from MinIO's cluster metrics; None where it is not told."""
    try:
        answer = http.request("GET", f"{url}/minio/v2/metrics/cluster", retries=False)
    except REQUEST_ERRORS:
        return None
    if answer.status != 200:
        return None
    for line in answer.data.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(" ")
        if name.partition("{")[0] in _FREE:
            try:
                free = float(value)
            except ValueError:
                continue
            # The gateway always says 0 or NaN: it does not know.
            if math.isfinite(free) and free > 0:
                return int(free)
    return None


def probe_abilities(store: ObjectStore, prefix: str, *, server: str = "") -> StoreAbilities:
    """Find out what the store honours, on scratch objects under ``prefix``.

    Notes
    -----
    Changes two scratch objects, and removes them.
    """
    name = f"{prefix}{secrets.token_hex(8)}"
    first = store.put_object(f"{name}-a", b"a", metadata={"probe": "1"})
    try:
        try:
            store.put_object(first.key, b"b", if_absent=True)
            conditional_put = False
        except PreconditionFailedError:
            conditional_put = True
        listed = list(store.list_objects(first.key, with_metadata=True))
        has_metadata = any((item.metadata or {}).get("probe") == "1" for item in listed)
        # On an object of its own: where the condition is ignored it is gone now.
        other = store.put_object(f"{name}-b", b"b")
        failed = store.delete_objects([replace(other, etag="0" * 32)], guarded=True)
        conditional_delete = bool(failed) and any(True for _ in store.list_objects(other.key))
    finally:
        gone = [replace(first, key=f"{name}-{end}") for end in "ab"]
        store.delete_objects(gone, guarded=False)
    return StoreAbilities(
        conditional_delete=conditional_delete,
        conditional_put=conditional_put,
        metadata_in_listing=has_metadata,
        server=server,
    )


def read_permissions(
    store: ObjectStore, prefix: str, copy_nothing: Callable[[str, str], None]
) -> Permissions:
    """Tell what the credentials may do, without changing anything.

    Notes
    -----
    Only reads. Write is asked by a copy of an object that does not exist: the store refuses it
    as absent or as forbidden. Delete cannot be asked without deleting.
    """
    reasons = {"delete": "cannot be told without deleting; a plan's probe tells"}
    found: dict[str, bool | None] = {"list": None, "read": None, "write": None}
    key = ""
    try:
        first = next(iter(store.list_objects(prefix)), None)
        found["list"], key = True, first.key if first else ""
    except AccessDeniedError as error:
        found["list"], reasons["list"] = False, str(error)
    except ClientError as error:
        reasons["list"] = str(error)
    absent = f".runbook/absent-{secrets.token_hex(8)}"
    asked: tuple[tuple[str, Callable[[], object]], ...] = (
        ("read", lambda: store.read_info(key or absent)),
        ("write", lambda: copy_nothing(absent, f"{absent}-copy")),
    )
    for name, ask in asked:
        try:
            ask()
            found[name] = True
        except NotFoundError:
            found[name] = True
        except AccessDeniedError as error:
            found[name], reasons[name] = False, str(error)
        except ClientError as error:
            reasons[name] = str(error)
    return Permissions(**found, delete=None, reasons=reasons)


def read_clock_skew_s(http: urllib3.PoolManager, url: str) -> float:
    """Return the store's clock minus ours in seconds, by its ``Date`` header.

    Raises
    ------
    ClientError
        When the store does not answer, or tells no date.
    """
    with explained(f"GET {url}/"):
        before = datetime.now(UTC)
        answer = http.request("GET", f"{url}/", retries=False)
        middle = before + (datetime.now(UTC) - before) / 2
        told = parsedate_to_datetime(answer.headers.get("Date", ""))
    # The header has whole seconds: its middle is half a second later.
    return round((told - middle).total_seconds() + 0.5, 1)
