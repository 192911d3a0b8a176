"""Make the plan of a move."""

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, NamedTuple

from .book import OWN_CLOCK, Book, Clock
from .bucket import Look, S3Bucket, Seen, Texts, is_key_supported
from .errors import LimitError, NotNowError, StoreError
from .looks import look_surely, scan
from .plan import (
    MAX_PUT_BYTES,
    ROW,
    Plan,
    PlanHeader,
    PlanRow,
    Rows,
    Timing,
    build_plan,
    fetch_plan,
)
from .probe import probe
from .settling import make_explain
from .state import read_release, read_state

#: The largest object that S3 copies in one request.
MAX_COPY_BYTES = 5 * 1024**3
#: How many objects the caller judges at a time.
_CHUNK = 1000


class Judgement(NamedTuple):
    """What the caller says of one waiting object."""

    exclude: str  # why it must not move, or ""
    age_start: datetime  # since when it waits
    facts: Mapping[str, str] = {}  # for the approver


Judge = Callable[[Sequence[Seen]], Sequence[Judgement]]
"""Takes up to a thousand objects, with metadata; returns judgements in the same order."""


def allow_all(objects: Sequence[Seen]) -> Sequence[Judgement]:
    """Let every object move, and count its wait from its LastModified."""
    return [Judgement(exclude="", age_start=seen.last_modified) for seen in objects]


def make_plan(  # noqa: PLR0912  # one step after the other
    bucket: S3Bucket,
    *,
    header: Mapping[str, Any],
    judge: Judge = allow_all,
    match: str = "*",
    first: int | None = None,
    begun: Iterable[Plan] = (),
    memory_removed: bool = False,
    clock: Clock = OWN_CLOCK,
) -> Plan:
    """Return the plan of a move from one prefix to another.

    Parameters
    ----------
    header : of ``PlanHeader``: ``source``, ``to``, ``step``, ``made_at``, ``made_by``,
        ``expires_at``, ``limit_objects``, ``others``, and optional fields
    judge : gets objects with metadata, which costs a HEAD for each; ``allow_all`` needs none
    match : shell pattern for the key after ``source``; upper and lower case are the same
    first : plan only so many objects
    begun : the plans that this machine's log shows as begun and not ended
    memory_removed : plan objects of ``begun`` plans that the bucket has forgotten, too; their rows
        name that plan

    Raises
    ------
    NotNowError
        When the bucket has forgotten a plan in ``begun``.
    RefusedError
        When the store does not do what a move needs, or the credentials may not delete.
    LimitError
        When more would move than the limit allows.
    PlanError, StoreError
        When a prefix cannot be used, or the bucket cannot be understood or read.

    Notes
    -----
    Changes only scratch objects, and removes them. Writes a missing ``.runbook/state.json``.
    """
    timing = header.get("timing") or Timing()
    abilities = probe(bucket, timing=timing, source=header["source"])
    read = read_state(bucket)
    if read is not None:
        state = read.state
    else:
        with Book(
            bucket,
            timing,
            clock,
            lambda _: None,
            plan="a plan",
            by=header["made_by"],
            is_conditional=abilities.conditional_put,
        ) as book:
            state = book.state
    forgotten: dict[str, Texts] = {}
    for plan in begun:
        if plan.id not in state.moves and plan.header.bucket_id != state.id:
            for row in plan.rows:
                forgotten[row.key] = {"memory_removed": plan.id}
    if forgotten and not memory_removed:
        raise NotNowError(
            f"the bucket forgot what became of {len(forgotten)} files: .runbook/ was removed "
            "meanwhile, and they may have been taken",
            way_on="plan --memory-removed",
        )
    plan_header = PlanHeader.model_validate(
        {
            **header,
            "timing": timing,
            "id": f"rel-{header['made_at']:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}",
            "endpoint": bucket.endpoint,
            "bucket": bucket.bucket,
            "bucket_id": state.id,
            "abilities": abilities,
        }
    )
    explain_reserved = make_explain(bucket, state)
    limit = plan_header.limit_objects * max(1, plan_header.parts)
    # As bytes: 100,000 rows as objects would take 60 MiB more.
    rows: list[bytes] = []
    excluded: Counter[str] = Counter()

    def explain(seen: Seen) -> str:
        if len(rows) == first:
            return "left_for_later"
        return _find_obstacle(plan_header, match, seen) or explain_reserved(seen)

    listing = bucket.list_objects(plan_header.source)
    for chunk in iter(lambda: list(islice(listing, _CHUNK)), []):
        reasons = {seen.key: explain(seen) for seen in chunk}
        looks: Look = {seen.key: seen for seen in chunk if not reasons[seen.key]}
        if judge is not allow_all or not abilities.hash_etags:
            looks = look_surely(bucket, [*looks])
        candidates = [seen for seen in looks.values() if seen is not None]
        found = scan(bucket, plan_header.to, [plan_header.get_to(seen.key) for seen in candidates])
        for seen, judgement in zip(candidates, judge(candidates), strict=True):
            # Ask again: there may be enough rows by now.
            reason = judgement.exclude or explain(seen)
            sha256 = ""
            if not reason and not (seen.has_hash and abilities.hash_etags):
                try:
                    sha256 = bucket.read_hash(seen.key, "sha256")
                except StoreError:
                    reason = "unreadable"
            to = plan_header.get_to(seen.key)
            there = found.get(to)
            # With a SHA-256, a run compares contents: what is there may be the same.
            if there is not None and not (sha256 or there.has_same_content(seen)):
                reason = reason or "destination_taken"
            reasons[seen.key] = reason
            if not reason:
                row = PlanRow(
                    key=seen.key,
                    etag=seen.etag,
                    size_bytes=seen.size_bytes,
                    last_modified=seen.last_modified,
                    to=to,
                    age_start=judgement.age_start,
                    facts={**judgement.facts, **forgotten.get(seen.key, {})},
                    sha256=sha256,
                )
                rows.append(ROW.dump_json(row))
        for key, reason in reasons.items():
            if reason or key not in looks:
                excluded[reason or "unreadable"] += 1
        if len(rows) > limit:
            raise LimitError(
                f"over {limit} objects would move: the plan's limit_objects forbids it"
            )
    return build_plan(plan_header.model_copy(update={"excluded": dict(excluded)}), Rows(rows))


def _find_obstacle(header: PlanHeader, match: str, seen: Seen) -> str:
    """Return a code for why an object isn't wanted or can't be moved, or ""."""
    if not seen.etag:
        return "no_etag"
    if not fnmatchcase(seen.key.removeprefix(header.source).lower(), match.lower()):
        return "no_match"
    if not is_key_supported(seen.key):
        return "key_not_supported"
    most = MAX_COPY_BYTES if header.abilities.copies else MAX_PUT_BYTES
    return "too_large" if seen.size_bytes > most else ""


def find_plan(bucket: S3Bucket, plan_id: str) -> Plan:
    """Return a plan that the bucket knows, by its id or the id of its undo. Only reads.

    Raises as ``read_release`` and ``fetch_plan`` do.
    """
    release, _ = read_release(bucket, plan_id.removesuffix("-undo"))
    return fetch_plan(bucket, release.sha256)
