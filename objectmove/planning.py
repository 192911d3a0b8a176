"""Make the plan of a move, and of an undo."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

from . import plan as plans
from . import record as records
from .bucket import S3Bucket, Seen, Version, find_all, format_time, is_key_supported
from .carry import look_surely
from .errors import ExpiredError, LimitError, NotApprovedError, PlanError, StoreError
from .ledger import HALF_DONE, Landing, Ledger, Logs
from .manifest import MAX_SHARDS, Manifest, Spool, write_shards
from .memory import ListBegun, Memory, list_none, read_memory
from .plan import Abilities, Excluded, MovePlan, PlanHeader, PlanRow, Timing
from .probe import SCRATCH_NAME, check_right_to_delete, probe
from .same_store import check_same_store
from .session import ensure_store_id
from .settling import (
    SETTLE_LIFETIME,
    check_all_read,
    derive_header,
    make_reopen_plan,
    name_undo,
)
from .table import State

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
"""Takes up to a thousand objects with their metadata; returns judgements in the same order."""


def allow_all(objects: Sequence[Seen]) -> Sequence[Judgement]:
    """Judge that each object may move, and has waited since its LastModified."""
    return [Judgement(exclude="", age_start=seen.last_modified) for seen in objects]


def make_move_plan(
    bucket: S3Bucket,
    *,
    header: Mapping[str, Any],
    folder: Path,
    judge: Judge | None = None,
    match: str = "*",
    first: int | None = None,
    list_begun: ListBegun = list_none,
    memory_removed: bool = False,
    shards: int = 0,
) -> MovePlan | Manifest:
    """Write the plan of a move from one prefix to another.

    Parameters
    ----------
    header : ``source``, ``to``, ``step``, ``made_at``, ``made_by``, ``expires_at``,
        ``limit_objects`` and ``others``; if they differ from the default also ``timing``,
        ``selection`` and ``parked``: see ``PlanHeader``
    folder : where the plan is written
    judge : the caller's rules; None: ``allow_all``
    match : shell pattern for the key after the prefix; upper and lower case are the same
    first : plan only so many objects, in the order of the listing; None: all
    list_begun : lists the plans that were begun on this machine
    memory_removed : a person's word that objects may be planned although the bucket forgot what
        became of them
    shards : cut the plan by key range into so many shards; 0: write one plan. One plan without rows
        is written if nothing would move

    Raises
    ------
    PlanError
        When one prefix lies in the other, the plan cannot be cut, or a record in the bucket cannot
        be understood.
    NotReadyError
        When the store does not do what a move needs, or the credentials may not delete.
    LimitError
        When more would move than the limit allows; with shards, the limit is that of each shard.
    StoreError
        When the bucket cannot be read.

    Notes
    -----
    Changes only scratch objects, and removes them. Writes ``.runbook/id`` where there is none.
    """
    source = header["source"]
    to = header["to"]
    timing = header.get("timing") or Timing()
    limit = header["limit_objects"]
    parked_prefix = header.get("parked", PlanHeader.model_fields["parked"].default)
    if shards and (memory_removed or first is not None):
        raise PlanError("--shards cannot be combined with --limit or --memory-removed")
    if shards > MAX_SHARDS:
        raise PlanError(f"a plan is cut into {MAX_SHARDS} shards at most, not {shards}")
    plans.check_prefixes(source, to)
    for prefix in (source, to):
        plans.check_prefixes(prefix, parked_prefix)
    abilities = probe(bucket, expires_s=timing.expires_s, parked=parked_prefix)
    check_right_to_delete(bucket, source, expires_s=timing.expires_s)
    memory = read_memory(bucket, parked_prefix=parked_prefix, list_begun=list_begun)
    store_id = ensure_store_id(bucket, expires_s=timing.expires_s)
    selection = _Selection(
        bucket,
        source=source,
        to=to,
        judge=judge or allow_all,
        match=match,
        first=first,
        memory=memory,
        memory_removed=memory_removed,
        abilities=abilities,
        has_id=bool(store_id),
    )
    plan_id = f"rel-{header['made_at']:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    plan_header = PlanHeader.model_validate(
        {
            **header,
            "timing": timing,
            "id": plan_id,
            "release": plan_id,
            "action": "move",
            "endpoint": bucket.endpoint,
            "bucket": bucket.name,
            "store_id": store_id,
            "abilities": abilities,
            "window": plans.describe_window(abilities, timing, parked_prefix),
        }
    )
    if shards:
        return _write_shards(bucket, selection, folder=folder, header=plan_header, number=shards)
    for chunk in _list_chunks(bucket, source):
        selection.add(chunk)
        if len(selection.rows) > limit:
            raise LimitError(f"more would move than one plan may hold: {limit} objects")
    selection.leave_out_occupied()
    return plans.write_plan(folder, plan_header, selection.take_rows(), selection.excluded)


def _list_chunks(bucket: S3Bucket, source: str) -> Iterator[list[Seen]]:
    """Yield the objects under a prefix, a thousand at a time.

    Left out are our scratch objects, and the object that some tools put at the prefix itself.
    """
    listing = iter(bucket.list_objects(source, with_folders=True))
    while True:
        chunk = list(islice(listing, _CHUNK))
        if not chunk:
            return
        yield [seen for seen in chunk if seen.key != source and SCRATCH_NAME not in seen.key]


def _write_shards(
    bucket: S3Bucket, selection: _Selection, *, folder: Path, header: PlanHeader, number: int
) -> MovePlan | Manifest:
    """Choose the rows, and write them shard by shard; RAM holds the rows of one shard at a time.

    Parameters
    ----------
    number : how many shards to make
    """
    began_at = bucket.read_clock()
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        spool = Spool(file, most=number * header.limit_objects)
        for chunk in _list_chunks(bucket, header.source):
            selection.add(chunk)
            selection.leave_out_occupied()
            spool.add(selection.take_rows())
        # To list millions of objects can last longer than a plan is valid: do not count that time.
        listing_time = bucket.read_clock() - began_at
        header = header.model_copy(update={"expires_at": header.expires_at + listing_time})
        if not spool.count:
            return plans.write_plan(folder, header, [], selection.excluded)
        return write_shards(folder, header, spool, number=number, excluded=selection.excluded)


class _Selection:
    """Chooses the rows of a move, and counts why every other object stays.

    Parameters
    ----------
    source, to, judge, match, first, memory_removed : as in ``make_move_plan``
    memory : what earlier plans did not finish
    abilities : what the store guards against
    has_id : whether the store has an id object

    Attributes
    ----------
    rows : objects that would move
    excluded : objects that stay
    """

    def __init__(
        self,
        bucket: S3Bucket,
        *,
        source: str,
        to: str,
        judge: Judge,
        match: str,
        first: int | None,
        memory: Memory,
        memory_removed: bool,
        abilities: Abilities,
        has_id: bool,
    ) -> None:
        self.rows: list[PlanRow] = []
        self.excluded = Excluded()
        self._bucket = bucket
        self._source = source
        self._to = to
        self._judge = judge
        self._match = match.lower()
        self._first = first
        self._memory = memory
        self._memory_removed = memory_removed
        self._abilities = abilities
        self._has_id = has_id
        self._hashed_bytes = 0

    def add(self, listed: Sequence[Seen]) -> None:
        """Choose rows among listed objects, after a look at each."""
        heads = self._look(listed)
        for head, judgement in zip(heads, self._judge(heads), strict=True):
            # Ask again: enough rows may be chosen by now, or the object may have grown.
            reason = judgement.exclude or self._explain(head)
            sha256 = ""
            etag_is_hash = head.has_hash and self._abilities.hash_etags
            if not reason and not etag_is_hash:
                sha256, reason = self._hash(head)
            if reason:
                self.excluded.add(reason, head.key)
                continue
            row = PlanRow(
                key=head.key,
                etag=head.etag,
                size_bytes=head.size_bytes,
                last_modified=head.last_modified,
                to=self._to + head.key.removeprefix(self._source),
                age_start=judgement.age_start,
                facts=judgement.facts,
                sha256=sha256,
            )
            self.rows.append(row)

    def take_rows(self) -> list[PlanRow]:
        """Return the rows, and keep none: RAM cannot hold the rows of a large plan twice."""
        rows = self.rows
        self.rows = []
        return rows

    def leave_out_occupied(self) -> None:
        """Leave out the rows whose destination is not free."""
        looks = find_all(self._bucket, self._to, [row.to for row in self.rows])
        free = []
        for row in self.rows:
            reason = _explain_occupied(looks, row)
            if reason:
                self.excluded.add(reason, row.key)
            else:
                free.append(row)
        self.rows = free

    def _look(self, listed: Sequence[Seen]) -> list[Seen]:
        """Return, with their metadata, the objects that no rule excludes by their key or size.

        The others are counted, also those that have gone or cannot be read.
        """
        keys = []
        for seen in listed:
            reason = self._explain(seen)
            if reason:
                self.excluded.add(reason, seen.key)
            else:
                keys.append(seen.key)
        looks = look_surely(self._bucket, keys, abilities=self._abilities, has_id=self._has_id)
        heads = []
        for key in keys:
            head = looks.get(key)
            if head is not None and head.etag:
                heads.append(head)
            elif key in looks and head is None:
                self.excluded.add("gone", key)
            else:  # not read, or without an ETag
                self.excluded.add("unreadable", key)
        return heads

    def _explain(self, seen: Seen) -> str:  # noqa: PLR0911  # a return for each reason
        """Return, in a word, the rule by which an object stays; empty when no rule applies."""
        rest = seen.key.removeprefix(self._source)
        ends = {seen.key, self._to + rest}
        memory = self._memory
        if seen.key.endswith("/"):
            return "folder"
        if not fnmatchcase(rest.lower(), self._match):
            return "no_match"
        if not is_key_supported(seen.key):
            return "key_not_supported"
        if seen.size_bytes > MAX_COPY_BYTES:
            return "too_large"
        if ends & memory.owners.keys():
            return "in_doubt"
        if rest in memory.parked and not self._memory_removed:
            return "parked"
        if ends & memory.forgotten.keys() and not self._memory_removed:
            return "memory_removed"
        if self._first is not None and len(self.rows) >= self._first:
            return "left_for_later"
        return ""

    def _hash(self, head: Seen) -> tuple[str, str]:
        """Return two texts: the SHA-256 of an object's content, and why there is none.

        One of the two is empty. A plan reads no more than 1 GiB to hash contents.
        """
        self._hashed_bytes += head.size_bytes
        if self._hashed_bytes > GIB:
            return "", "hash_limit"
        try:
            return self._bucket.read_sha256(head.key), ""
        except StoreError:
            return "", "unreadable"


def _explain_occupied(looks: Mapping[str, Seen | None], row: PlanRow) -> str:
    """Say in a word why a row's destination is not free; empty when it is free.

    The destination also counts as free if the same content lies there already, or if the row has a
    SHA-256. The run that moves such a row compares the contents.
    """
    if row.to not in looks:
        return "unreadable"
    there = looks[row.to]
    if there is None or there.has_same_content(row) or row.sha256:
        return ""
    return "destination_taken"


def make_undo_plan(
    bucket: S3Bucket,
    plan: MovePlan,
    *,
    logs: Logs,
    made_by: str,
    others: str,
    window_s: float,
    now: datetime,
    same_store: bool = False,
) -> MovePlan:
    """Write the plan that takes a release, or a settling, back.

    If an undo of the release was begun and has not ended, return that undo. If that undo's plan is
    not on this machine, refuse.

    Parameters
    ----------
    others : in words, how everyone else is kept from moving objects meanwhile
    window_s : how many seconds after its first copy a release may be taken back
    same_store : a person's word that the plan's endpoint is this store under another name

    Returns
    -------
    The plan. The rows of a release's undo are the objects whose copy is still at the destination
    and certainly ours, whether or not the source is still there. The rows of a settling's undo are
    those on which a person must decide again.

    Raises
    ------
    NotApprovedError
        When the release was never begun, or when it or an earlier undo must be resumed first.
    ExpiredError
        When the window is over.
    PlanError
        When the plan is neither a release nor a settling, or the bucket has no id.
    StoreError
        When the bucket cannot be read.
    """
    check_same_store(bucket, plan, logs(plan.id), same_store=same_store)
    if plan.header.action == "settle":
        return make_reopen_plan(bucket, plan, logs=logs, made_by=made_by, now=now)
    if plan.header.action != "move":
        raise PlanError(f"{plan.id} is itself of the kind {plan.header.action!r}: plan again")
    earlier = _list_undos(bucket, plan, logs)
    unfinished = _find_unfinished(plan, earlier)
    if unfinished is not None:
        return unfinished
    record = records.read_record(bucket, plan.id)
    later = records.read_later_records(bucket, plan.id)
    ledger = Ledger(logs(plan.id), plan, record, later)
    if ledger.rows(*HALF_DONE) or ledger.hold is not None:
        way_on = f"runbook resume {plan.id}"
        raise NotApprovedError(f"{plan.id} was cut off. Go on with: {way_on}, then take it back")
    lifetime = _compute_lifetime(bucket, ledger, window_s=window_s, is_first=not earlier)
    header = derive_header(
        bucket,
        plan,
        plan_id=name_undo(plan, len(earlier) + 1),
        step=f"{plan.header.release_step}.1",
        action="undo",
        made_by=made_by,
        made_at=now,
        expires_at=now + lifetime,
        others=others,
        source=plan.header.to,
        to=plan.header.source,
    )
    rows, excluded = _invert(bucket, plan, ledger, header)
    return plans.write_plan(plan.path.parent, header, rows, excluded)


class _Undo(NamedTuple):
    """An undo that was begun, here or elsewhere.

    ``plan`` is None if the undo's file is not on this machine.
    """

    id: str
    plan: MovePlan | None
    is_ended: bool


def _list_undos(bucket: S3Bucket, plan: MovePlan, logs: Logs) -> list[_Undo]:
    """Return the undos of a plan that were begun, here or elsewhere, in their order."""
    undos: list[_Undo] = []
    while True:
        undo_id = name_undo(plan, len(undos) + 1)
        path = plan.path.with_name(f"{undo_id}.jsonl")
        record = records.read_record(bucket, undo_id)
        undo = plans.parse_plan(path.read_bytes(), path=path) if path.exists() else None
        kinds = {entry.kind for entry in logs(undo_id).scan()}
        is_begun = "approved" in kinds or (record is not None and not record.is_unbegun)
        is_ended = "ended" in kinds or (record is not None and record.ended)
        if not is_begun:
            return undos
        undos.append(_Undo(undo_id, undo, is_ended))


def _find_unfinished(plan: MovePlan, undos: Sequence[_Undo]) -> MovePlan | None:
    """Return the plan of the undo that has not ended; None when every undo of the plan has ended.

    Raises
    ------
    NotApprovedError
        When an undo has not ended, and its plan is not on this machine.
    """
    for undo in undos:
        if undo.is_ended:
            continue
        if undo.plan is not None:
            return undo.plan
        way_on = f"runbook resume {undo.id} --consumer-stands-still"
        raise NotApprovedError(f"{plan.id} is being taken back. Go on with: {way_on}")
    return None


def _compute_lifetime(
    bucket: S3Bucket, ledger: Ledger, *, window_s: float, is_first: bool
) -> timedelta:
    """Return how long the plan of an undo is valid: until the window of its release is over.

    Parameters
    ----------
    ledger : of the release
    window_s : how many seconds after its first copy the release may be taken back
    is_first : whether this is the release's first undo. The plan of a later one is valid for
        ``SETTLE_LIFETIME`` at least: the first undo was begun within the window

    Raises
    ------
    NotApprovedError
        When this machine knows of no copy of the release.
    ExpiredError
        When the window is over, and the undo is the first one.
    """
    plan = ledger.plan
    landing_times = [landing.at for landing in ledger.landings.values() if landing.at]
    if not landing_times:
        raise NotApprovedError(f"{plan.id} was never begun, or this folder knows of no copy of it")
    closes_at = min(landing_times) + timedelta(seconds=window_s)
    lifetime = closes_at - bucket.read_clock()
    if not is_first:
        return max(lifetime, SETTLE_LIFETIME)
    if lifetime < timedelta(0):
        until = format_time(closes_at)
        text = f"{plan.id} could be taken back until {until}"
        raise ExpiredError(f"{text}: the objects that it moved may be in use by now")
    return lifetime


def _invert(
    bucket: S3Bucket, plan: MovePlan, ledger: Ledger, header: PlanHeader
) -> tuple[list[PlanRow], Excluded]:
    """Return the rows of an undo, and what the undo leaves out.

    Its rows are the objects whose copy is still at the destination and certainly ours. If a row of
    the release is in conflict, something may lie at its source: then the undo parks the copy.
    """
    excluded = Excluded()
    rows: list[PlanRow] = []
    number_by_key = {plan.rows[number].to: number for number in sorted(ledger.landings)}
    looks = look_surely(bucket, list(number_by_key), abilities=header.abilities)
    unread = [key for key in number_by_key if key not in looks]
    check_all_read(bucket, plan, unread)
    for key, number in number_by_key.items():
        row = plan.rows[number]
        state = ledger.states[number]
        seen = looks[key]
        reason = _explain_stay(row, state, ledger.landings[number], seen)
        if seen is None or reason:
            excluded.add(reason, key)
            continue
        to = row.key
        if state is State.CONFLICT:
            to = header.get_parked_key(key.removeprefix(header.source))
        facts = {**row.facts, "row": str(number), "release_row": str(number)}
        rows.append(replace(row.with_version(seen), key=key, to=to, facts=facts))
    return rows, excluded


def _explain_stay(row: PlanRow, state: State, landing: Landing, seen: Seen | None) -> str:
    """Say in a word why a release's copy is not taken back; empty when it is taken back.

    Parameters
    ----------
    seen : what is at the destination now; None when nothing is
    """
    if state is State.UNDONE:
        return "taken_back"
    if state not in (State.MOVED, State.CONFLICT):
        return "in_doubt"
    if seen is None:
        return "taken_by_a_consumer"
    if landing.at is None:
        # No answer says that the copy is ours. A look found the planned content, which somebody
        # else may have put there.
        return "perhaps_not_our_copy"
    copy = Version(row.to, landing.etag, row.size_bytes, landing.at)
    return "" if copy.is_same(seen) else "not_our_copy"
