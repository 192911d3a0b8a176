"""Plan a release: exactly which objects would move, which would not, and why not."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from ..analysis.artifacts import compute_age_start, is_incomplete, is_synthetic
from ..clients.object_store import ObjectStore, is_key_supported, is_same_version
from ..errors import ClientError, LimitError, StoreNotReadyError, UsageError
from ..model import ObjectInfo, StoreAbilities
from ..record.log import utc_now
from .lookup import Walk
from .plan_file import PlanHeader, PlanRow, PlanWriter, ReleasePlan

__all__ = ["PROBE_PREFIX", "describe_window", "make_release_plan"]

PROBE_PREFIX = ".runbook/probe/"
_CHUNK = 1000
_SAMPLE = 10
GIB = 1024**3


@dataclass
class _Excluded:
    counts: Counter[str] = field(default_factory=Counter)
    sample: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, reason: str, key: str) -> None:
        self.counts[reason] += 1
        if len(self.sample.get(reason, ())) < _SAMPLE:
            self.sample[reason] = (*self.sample.get(reason, ()), key)


def make_release_plan(
    store: ObjectStore,
    *,
    folder: Path,
    prefix: str,
    to: str,
    made_by: str,
    match: str = "*.pdf",
    older_than_s: float | None = None,
    limit_objects: int = 5000,
    limit_bytes: int = GIB,
    first: int | None = None,
    lifetime_s: float = 900,
    step: str = "6.1",
    only_orders: frozenset[str] | None = None,
    others: str = "not checked",
    now: Callable[[], datetime] = utc_now,
    progress: Callable[[int], None] | None = None,
) -> ReleasePlan:
    """Write the plan of a release from ``prefix`` to ``to``.

    Parameters
    ----------
    folder : the incident's ``plans/``
    match : shell pattern on the key after the prefix
    older_than_s : leave out what waits for less long
    limit_objects, limit_bytes : the most that one plan may hold
    first : take only that many, in the order of the keys; the rest is ``left_for_later``
    only_orders : a drill's own orders; everything else is ``not_of_this_drill``
    others : who else may be moving, in words, for the approver
    progress : called with the number of objects looked at

    Raises
    ------
    UsageError
        When one prefix lies in the other.
    StoreNotReadyError
        When the store is unhealthy, or has no room for the copies.
    LimitError
        When more would move than the limit allows; says how to split.

    Notes
    -----
    Changes scratch objects under ``.runbook/probe/`` only, and removes them. Streams: memory does
    not grow with the number of objects.
    """
    _check_prefixes(prefix, to)
    abilities = _check_store(store)
    made_at = now()
    header = PlanHeader(
        id=f"rel-{made_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}",
        step=step,
        action="release",
        endpoint=store.endpoint,
        bucket=store.bucket,
        source=prefix,
        to=to,
        match=match,
        older_than_s=older_than_s,
        made_at=made_at,
        made_by=made_by,
        expires_at=made_at + timedelta(seconds=lifetime_s),
        limit_objects=limit_objects,
        limit_bytes=limit_bytes,
        abilities=abilities,
        window=describe_window(abilities),
        others=others,
        free_bytes=store.read_free_bytes(),
        only_orders=tuple(sorted(only_orders)) if only_orders is not None else None,
    )
    writer, excluded = PlanWriter(folder, header), _Excluded()
    destinations = Walk(store, to)
    try:
        chunk_bytes = 0
        for candidates in _candidates_by_chunk(store, header, excluded, progress):
            before = writer.size_bytes
            if first is not None and writer.objects >= first:
                for info in candidates:
                    excluded.add("left_for_later", info.key)
                continue
            for row in _make_rows(store, header, candidates, excluded, destinations):
                if first is not None and writer.objects >= first:
                    excluded.add("left_for_later", row.key)
                else:
                    writer.add(row)
            chunk_bytes = max(chunk_bytes, writer.size_bytes - before)
            if writer.objects > limit_objects or writer.size_bytes > limit_bytes:
                raise LimitError(_describe_excess(store, header))
        if header.free_bytes is not None and header.free_bytes < 2 * chunk_bytes:
            raise StoreNotReadyError(
                f"{header.free_bytes} bytes are free and the copies need {2 * chunk_bytes}. "
                "Make room first."
            )
        return writer.finish(excluded.counts, excluded.sample)
    finally:
        writer.discard()


def describe_window(abilities: StoreAbilities) -> str:
    """Say what the store's abilities leave unguarded."""
    parts = []
    if not abilities.conditional_delete:
        parts.append(
            "this store ignores conditional deletes: an object that is rewritten between the last "
            "look at it and its delete, milliseconds to about a second later, loses the newer "
            "version"
        )
    if not abilities.conditional_put:
        parts.append(
            "this store ignores conditional puts: two operators who start within the same "
            "second may both believe to hold the lease"
        )
    return "; ".join(parts) or (
        "none: copies and deletes name the version, and the lease is taken atomically"
    )


def _check_prefixes(prefix: str, to: str) -> None:
    if not prefix.endswith("/") or not to.endswith("/"):
        raise UsageError(f"prefixes end with '/': {prefix!r}, {to!r}")
    if prefix.startswith(to) or to.startswith(prefix):
        raise UsageError(f"{prefix!r} and {to!r} lie in each other: a move onto itself deletes")


def _check_store(store: ObjectStore) -> StoreAbilities:
    live = store.check_live()
    if not live.is_live:
        raise StoreNotReadyError(f"the store is not well ({live.source}: {live.reason}).")
    try:
        return store.probe_abilities(PROBE_PREFIX)
    except ClientError as error:
        raise StoreNotReadyError(f"the store does not take a scratch object: {error}") from error


def _candidates_by_chunk(
    store: ObjectStore,
    header: PlanHeader,
    excluded: _Excluded,
    progress: Callable[[int], None] | None,
) -> Iterator[list[ObjectInfo]]:
    """Yield what matches and can be named, from a thousand objects at a time, in key order."""
    seen = 0
    listing = store.list_objects(header.source, with_metadata=header.abilities.metadata_in_listing)
    while chunk := list(islice(listing, _CHUNK)):
        candidates = []
        for info in chunk:
            rest = info.key[len(header.source) :]
            if not fnmatchcase(rest, header.match):
                excluded.add("no_match", info.key)
            elif not is_key_supported(info.key) or not is_key_supported(header.to + rest):
                excluded.add("key_not_supported", info.key)
            else:
                candidates.append(info)
        yield candidates
        seen += len(chunk)
        if progress is not None:
            progress(seen)


def _make_rows(
    store: ObjectStore,
    header: PlanHeader,
    candidates: list[ObjectInfo],
    excluded: _Excluded,
    destinations: Walk,
) -> Iterator[PlanRow]:
    unread = [info.key for info in candidates if info.metadata is None]
    read = dict(store.read_infos(unread))
    to = {info.key: header.to + info.key[len(header.source) :] for info in candidates}
    taken = destinations.look_up(list(to.values()))
    for info in candidates:
        found = info if info.metadata is not None else read[info.key]
        if isinstance(found, ClientError) or not is_same_version(info, found):
            excluded.add("unreadable", info.key)
            continue
        metadata = found.metadata or {}
        age = compute_age_start(metadata, info.last_modified, header.made_at)
        row = PlanRow(
            key=info.key,
            etag=info.etag,
            size_bytes=info.size_bytes,
            last_modified=info.last_modified,
            to=to[info.key],
            age_start=age.at,
            age_source=age.source,
            order_id=metadata.get("order-id", ""),
            is_there=_is_there(store, found, taken.get(to[info.key])),
        )
        reason = _find_reason(header, found, row)
        if not reason and row.to in taken and not row.is_there:
            reason = "destination_taken"
        if reason:
            excluded.add(reason, info.key)
        else:
            yield row


def _find_reason(header: PlanHeader, info: ObjectInfo, row: PlanRow) -> str:
    """Return why an object stays, or an empty text."""
    metadata = info.metadata or {}
    orders, older = header.only_orders, header.older_than_s
    checks = (
        ("synthetic", is_synthetic(metadata)),
        ("incomplete", is_incomplete(metadata)),
        # A multipart ETag ("…-3") or an encrypted one is no hash of the content, and a copy
        # gets another one.
        ("etag_not_comparable", len(info.etag) != 32 or not _is_hex(info.etag)),
        ("not_of_this_drill", orders is not None and row.order_id not in orders),
        (
            "too_young",
            older is not None and (header.made_at - row.age_start).total_seconds() < older,
        ),
    )
    return next((reason for reason, applies in checks if applies), "")


def _is_there(store: ObjectStore, planned: ObjectInfo, taken: ObjectInfo | None) -> bool:
    """Tell whether the destination holds the same object: a move that was cut off."""
    if taken is None or (taken.etag, taken.size_bytes) != (planned.etag, planned.size_bytes):
        return False
    try:
        return store.read_info(taken.key).metadata == planned.metadata
    except ClientError:
        return False


def _is_hex(text: str) -> bool:
    return all(ch in "0123456789abcdef" for ch in text.lower())


def _describe_excess(store: ObjectStore, header: PlanHeader) -> str:
    count = size = 0
    for info in store.list_objects(header.source):
        if fnmatchcase(info.key[len(header.source) :], header.match):
            count, size = count + 1, size + info.size_bytes
    older = "a larger --older-than" if header.older_than_s else "--older-than 30m"
    return (
        f"{count} objects of {size} bytes match; one plan may hold {header.limit_objects} of "
        f"{header.limit_bytes} bytes. Split it: --limit {header.limit_objects} takes the first "
        f"ones now, {older} the longest waiting, --match '1*.pdf' a part of the names."
    )
