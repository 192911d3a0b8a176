"""Make the plan of a move."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

from .book import Book, Clock
from .bucket import S3Bucket, Seen, is_key_supported
from .errors import ForgottenError, LimitError, StoreError
from .looks import look_surely, scan
from .owned import Owned
from .plan import (
    MAX_KEY_BYTES,
    Abilities,
    Plan,
    PlanHeader,
    PlanRow,
    Timing,
    check_prefixes,
    describe_window,
    fetch_plan,
    write_plan,
)
from .probe import SCRATCH_NAME, check_right_to_delete, probe
from .state import PLANS, BucketState, read_state

GIB = 1024**3
#: The largest object that S3 copies in one request.
MAX_COPY_BYTES = 5 * GIB
#: How many objects are judged at a time.
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the caller says of one waiting object.

    Attributes
    ----------
    exclude : why the object must not move, in a word; empty when it may
    age_start : since when the object waits
    facts : what else stands in the approved row
    """

    exclude: str
    age_start: datetime
    facts: Mapping[str, str] = field(default_factory=dict)


Judge = Callable[[Sequence[Seen]], Sequence[Judgement]]
"""Takes up to a thousand objects; returns judgements in the same order. The objects have metadata
if ``needs_metadata`` says so."""

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
    needs_metadata: bool = False,
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
    needs_metadata : whether ``judge`` reads metadata; then each object is looked at
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
    source = header["source"]
    timing = header.get("timing") or Timing()
    parked = header.get("parked", "parked/")
    parts = header.get("parts", 0)
    limit = header["limit_objects"] * max(1, parts)
    check_prefixes(source, header["to"], parked)
    abilities = probe(bucket, timing=timing, parked=parked)
    check_right_to_delete(bucket, source, timing)
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
            "window": describe_window(abilities, timing, parked),
        }
    )
    selection = _Selection(
        bucket=bucket,
        header=plan_header,
        judge=judge,
        # Without hashes as ETags, or with an object that has none, the content is read.
        needs_head=needs_metadata or not abilities.hash_etags,
        match=match.lower(),
        first=first,
        owned=Owned(bucket, state),
        forgotten=forgotten,
    )
    for chunk in _list_chunks(bucket, source):
        selection.add(chunk)
        if len(selection.rows) > limit:
            raise LimitError(f"more would move than one plan may hold: {limit} objects")
    selection.leave_out_occupied()
    return write_plan(folder, plan_header, selection.rows, selection.excluded)


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


def _list_chunks(bucket: S3Bucket, source: str) -> Iterator[list[Seen]]:
    """Yield the objects under a prefix, a thousand at a time.

    Left out are our scratch objects, and the object that some tools put at the prefix itself.
    """
    listing = bucket.list_objects(source, with_folders=True)
    for chunk in iter(lambda: list(islice(listing, _CHUNK)), []):
        yield [seen for seen in chunk if seen.key != source and SCRATCH_NAME not in seen.key]


@dataclass(kw_only=True)
class _Selection:
    """Chooses the rows of a move, and keeps for each reason the keys of the objects that stay."""

    bucket: S3Bucket
    header: PlanHeader
    judge: Judge
    needs_head: bool
    match: str
    first: int | None
    owned: Owned
    forgotten: Mapping[str, str]
    rows: list[PlanRow] = field(default_factory=list)
    excluded: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    hashed_bytes: int = 0

    def add(self, listed: Sequence[Seen]) -> None:
        """Choose rows among listed objects."""
        candidates = []
        for seen in listed:
            reason = self._explain(seen)
            if reason:
                self.excluded[reason].append(seen.key)
            else:
                candidates.append(seen)
        candidates = self._look(candidates)
        for seen, judgement in zip(candidates, self.judge(candidates), strict=True):
            # Ask again: enough rows may be chosen by now.
            reason = judgement.exclude or self._explain(seen)
            sha256 = ""
            if not reason and not (seen.has_hash and self.header.abilities.hash_etags):
                sha256, reason = self._hash(seen)
            if reason:
                self.excluded[reason].append(seen.key)
                continue
            facts = dict(judgement.facts)
            if seen.key in self.forgotten:
                facts["memory_removed"] = self.forgotten[seen.key]
            row = PlanRow(
                key=seen.key,
                etag=seen.etag,
                size_bytes=seen.size_bytes,
                last_modified=seen.last_modified,
                to=self.header.to + seen.key.removeprefix(self.header.source),
                age_start=judgement.age_start,
                facts=facts,
                sha256=sha256,
            )
            self.rows.append(row)

    def leave_out_occupied(self) -> None:
        """Leave out the rows whose destination is not free.

        It is free, too, if the same content lies there, or if a run has to compare contents.
        """
        looks = scan(self.bucket, self.header.to, [row.to for row in self.rows])
        free = []
        for row in self.rows:
            seen = looks.get(row.to)
            if row.to not in looks:
                self.excluded["unreadable"].append(row.key)
            elif seen is None or row.sha256 or seen.has_same_content(row):
                free.append(row)
            else:
                self.excluded["destination_taken"].append(row.key)
        self.rows = free

    def _look(self, listed: Sequence[Seen]) -> list[Seen]:
        """Return objects with their metadata, where it is needed; count those that cannot be read.

        An object of which the listing says that its ETag is no hash is looked at, too.
        """
        keys = [seen.key for seen in listed if self.needs_head or not (seen.etag and seen.has_hash)]
        looks = look_surely(self.bucket, keys)
        seen_objects = []
        for seen in listed:
            head = looks.get(seen.key) if seen.key in keys else seen
            if head is not None:
                seen_objects.append(head)
            else:
                self.excluded["gone" if seen.key in looks else "unreadable"].append(seen.key)
        return seen_objects

    def _explain(self, seen: Seen) -> str:
        """Return, in a word, the rule by which an object stays; empty when no rule applies."""
        rest = seen.key.removeprefix(self.header.source)
        if seen.key.endswith("/"):
            return "folder"
        if not fnmatchcase(rest.lower(), self.match):
            return "no_match"
        parked_bytes = len(self.header.get_parked_key(seen.key).encode("utf-8", "replace"))
        if not is_key_supported(seen.key) or parked_bytes > MAX_KEY_BYTES:
            return "key_not_supported"
        if seen.size_bytes > MAX_COPY_BYTES:
            return "too_large"
        if self.first is not None and len(self.rows) >= self.first:
            return "left_for_later"
        return self.owned.explain(seen)

    def _hash(self, seen: Seen) -> tuple[str, str]:
        """Return two texts: the SHA-256 of an object's content, and why there is none.

        One of the two is empty. A plan reads no more than 1 GiB to hash contents.
        """
        self.hashed_bytes += seen.size_bytes
        if self.hashed_bytes > GIB:
            return "", "hash_limit"
        try:
            return self.bucket.read_sha256(seen.key), ""
        except StoreError:
            return "", "unreadable"


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
            path = Path(f"{move.plan}.jsonl")
            return fetch_plan(bucket, PLANS + move.sha256, move.sha256, path)
    return None
