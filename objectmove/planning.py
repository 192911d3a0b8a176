"""Make the plan of a move."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from .book import Book, Clock
from .bucket import S3Bucket, Seen, is_key_supported
from .errors import ForgottenError, LimitError, StoreError
from .looks import look_surely, make_explain, scan
from .plan import (
    MAX_KEY_BYTES,
    Abilities,
    Plan,
    PlanHeader,
    PlanRow,
    Timing,
    describe_window,
    fetch_plan,
    write_plan,
)
from .probe import probe
from .state import BucketState, read_state

#: The largest object that S3 copies in one request.
MAX_COPY_BYTES = 5 * 1024**3
#: How many objects are judged at a time.
_CHUNK = 1000


class Judgement(NamedTuple):
    """What the caller says of one waiting object.

    Attributes
    ----------
    exclude : why the object must not move, in a word; empty when it may
    age_start : since when the object waits
    facts : what else stands in the approved row
    """

    exclude: str
    age_start: datetime
    facts: Mapping[str, str] = {}


Judge = Callable[[Sequence[Seen]], Sequence[Judgement]]
"""Takes up to a thousand objects, with metadata; returns judgements in the same order."""

Begun = Mapping[str, Callable[[], Plan | None]]
"""The plans of which this machine's log shows an announcement and no end; see ``list_begun``."""


def allow_all(objects: Sequence[Seen]) -> Sequence[Judgement]:
    """Judge that each object may move, and has waited since its LastModified."""
    return [Judgement(exclude="", age_start=seen.last_modified) for seen in objects]


def make_plan(
    bucket: S3Bucket,
    *,
    header: Mapping[str, Any],
    folder: Path,
    judge: Judge = allow_all,
    match: str = "*",
    first: int | None = None,
    begun: Begun,
    memory_removed: bool,
    clock: Clock,
) -> Plan:
    """Write the plan of a move from one prefix to another.

    Parameters
    ----------
    header : ``source``, ``to``, ``step``, ``made_at``, ``made_by``, ``expires_at``,
        ``limit_objects`` and ``others``; if they differ from the default also ``timing``,
        ``undo_s``, ``parts``, ``selection`` and ``parked``: see ``PlanHeader``
    folder : where the plan is written
    match : shell pattern for the key after the prefix; upper and lower case are the same
    first : plan only so many objects, in the order of the listing; None: all
    memory_removed : plan objects although the bucket forgot what became of them: the plan's rows
        name the plan that had them

    Raises
    ------
    PlanError
        When one prefix lies in the other, or the bucket's state cannot be understood.
    ForgottenError
        When this machine announced rows of a plan that the bucket does not know any more.
    NotReadyError
        When the store does not do what a move needs, or the credentials may not delete.
    LimitError
        When more would move than the limit allows.
    StoreError
        When the bucket cannot be read.

    Notes
    -----
    Changes only scratch objects, and removes them. Writes ``.runbook/state.json`` where there is
    none.
    """
    timing = header.get("timing") or Timing()
    abilities = probe(bucket, timing=timing, source=header["source"])
    state = _ensure_state(bucket, timing, abilities, header["made_by"], clock)
    forgotten = _list_forgotten(state, begun)
    if forgotten and not memory_removed:
        raise ForgottenError(
            f"the bucket forgot {', '.join(sorted(set(forgotten.values())))}: .runbook/ was "
            f"removed meanwhile, and {len(forgotten)} of its files may have been taken",
            way_on="plan --memory-removed",
        )
    plan_header = PlanHeader.model_validate(
        {
            **header,
            "timing": timing,
            "id": f"rel-{header['made_at']:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}",
            "endpoint": bucket.endpoint,
            "bucket": bucket.name,
            "bucket_id": state.id,
            "abilities": abilities,
            "window": describe_window(abilities, timing),
        }
    )
    rows, excluded = _choose(
        bucket,
        plan_header,
        judge=judge,
        match=match.lower(),
        first=first,
        explain_held=make_explain(bucket, state),
        forgotten=forgotten,
    )
    return write_plan(folder, plan_header, rows, excluded)


def _ensure_state(
    bucket: S3Bucket, timing: Timing, abilities: Abilities, made_by: str, clock: Clock
) -> BucketState:
    """Return what the bucket knows; where there is nothing, write it, so that there is an id."""
    read = read_state(bucket)
    if read is not None:
        return read.state
    with Book(
        bucket,
        timing,
        clock,
        lambda _: None,
        plan="a plan",
        by=made_by,
        is_conditional=abilities.conditional_put,
    ) as book:
        return book.state


def _list_forgotten(state: BucketState, begun: Begun) -> dict[str, str]:
    """Return the keys whose fate the bucket forgot, each with the plan that had it."""
    forgotten: dict[str, str] = {}
    for plan_id, read in begun.items():
        plan = read()
        is_known = plan_id in state.moves or (plan and plan.header.bucket_id == state.id)
        if plan is not None and not is_known:
            forgotten.update(dict.fromkeys((row.key for row in plan.rows), plan_id))
    return forgotten


def _choose(
    bucket: S3Bucket,
    header: PlanHeader,
    *,
    judge: Judge,
    match: str,
    first: int | None,
    explain_held: Callable[[Seen], str],
    forgotten: Mapping[str, str],
) -> tuple[list[PlanRow], dict[str, list[str]]]:
    """Return the rows of a move, and for each reason the keys of the objects that stay."""
    limit = header.limit_objects * max(1, header.parts)
    rows: list[PlanRow] = []
    excluded: defaultdict[str, list[str]] = defaultdict(list)

    def explain(seen: Seen) -> str:
        """Return, in a word, the rule by which an object stays; empty when no rule applies."""
        if not seen.etag:
            return "no_etag"
        if not fnmatchcase(seen.key.removeprefix(header.source).lower(), match):
            return "no_match"
        parked = header.get_parked_key(seen.key)
        if not is_key_supported(seen.key) or len(parked.encode()) > MAX_KEY_BYTES:
            return "key_not_supported"
        if seen.size_bytes > MAX_COPY_BYTES:
            return "too_large"
        if len(rows) == first:
            return "left_for_later"
        return explain_held(seen)

    def list_candidates(listed: Sequence[Seen]) -> list[Seen]:
        """Return the objects that no rule leaves out, with their metadata."""
        keys = []
        for seen in listed:
            reason = explain(seen)
            if reason:
                excluded[reason].append(seen.key)
            else:
                keys.append(seen.key)
        looks = look_surely(bucket, keys)
        for key in keys:
            if key not in looks:
                excluded["unreadable"].append(key)
        return [seen for seen in looks.values() if seen is not None]

    listing = bucket.list_objects(header.source)
    for chunk in iter(lambda: list(islice(listing, _CHUNK)), []):
        candidates = list_candidates(chunk)
        for seen, judgement in zip(candidates, judge(candidates), strict=True):
            # Ask again: enough rows may be chosen by now.
            reason = judgement.exclude or explain(seen)
            sha256 = ""
            if not reason and not (seen.has_hash and header.abilities.hash_etags):
                try:
                    sha256 = bucket.read_hash(seen.key, "sha256")
                except StoreError:
                    reason = "unreadable"
            if reason:
                excluded[reason].append(seen.key)
                continue
            facts = dict(judgement.facts)
            if seen.key in forgotten:
                facts["memory_removed"] = forgotten[seen.key]
            rows.append(
                PlanRow(
                    key=seen.key,
                    etag=seen.etag,
                    size_bytes=seen.size_bytes,
                    last_modified=seen.last_modified,
                    to=header.to + seen.key.removeprefix(header.source),
                    age_start=judgement.age_start,
                    facts=facts,
                    sha256=sha256,
                )
            )
        if len(rows) > limit:
            raise LimitError(f"more would move than one plan may hold: {limit} objects")
    # A destination is free, too, if the same content lies there, or if a run has to compare it.
    found = scan(bucket, header.to, [row.to for row in rows])
    free = []
    for row in rows:
        there = found.get(row.to)
        if row.to not in found:
            excluded["unreadable"].append(row.key)
        elif there is None or row.sha256 or there.has_same_content(row):
            free.append(row)
        else:
            excluded["destination_taken"].append(row.key)
    return free, excluded


def find_plan(bucket: S3Bucket, plan_id: str) -> Plan | None:
    """Return a plan that the bucket knows, without a folder; None when it does not. Only reads.

    Raises
    ------
    PlanError, StoreError
        When the bucket cannot be read or understood.
    """
    read = read_state(bucket)
    for move in read.state.moves.values() if read is not None else ():
        if plan_id in (move.id, move.plan):
            return fetch_plan(bucket, move.plan, move.sha256)
    return None
