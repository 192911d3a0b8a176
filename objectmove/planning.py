"""Make plans: of a move, of taking one back, and of what a person says of rows in doubt."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from chainlog import ChainedLog

from . import plan as plans
from . import record as records
from .bucket import S3Bucket, Seen, Version, find_all, format_time, is_key_supported
from .carry import look_surely
from .errors import ExpiredError, LimitError, NotApprovedError, PlanError, StoreError
from .ledger import HALF, Ledger, Logs
from .parking import list_parked
from .plan import MovePlan, PlanHeader, PlanRow
from .probe import SCRATCH_NAME, check_right_to_delete, probe
from .record import Record
from .same_store import check_same_store
from .session import read_store_id
from .table import State

GIB = 1024**3
MAX_COPY_BYTES = 5 * GIB
_CHUNK = 1000
_SETTLE_LIFETIME = timedelta(minutes=15)

Word = Literal["taken", "not_taken"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the caller says of one waiting object.

    Attributes
    ----------
    exclude : why it must not move; empty when it may
    age_start : since when it waits
    facts : what else stands in the approved row
    """

    exclude: str
    age_start: datetime
    facts: Mapping[str, str] = field(default_factory=dict)


Judge = Callable[[Sequence[Seen]], Sequence[Judgement]]
"""Called with up to a thousand objects, with their metadata; answers in the same order."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A plan that was begun from this machine: its plan and its ledger."""

    plan: MovePlan
    log: ChainedLog


ListBegun = Callable[[], Mapping[str, Callable[[], Begun | None]]]
"""Every plan that has a ledger on this machine, by id; each is read only when it is asked for."""


def _list_none() -> Mapping[str, Callable[[], Begun | None]]:
    return {}


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier plans did not finish.

    Attributes
    ----------
    owners : key to the plan that it belongs to
    forgotten : keys of plans that this machine has begun and the bucket does not remember, and the
        plan
    parked : rests of keys that are parked and not settled, and the plan
    ways_on : plans that the bucket does not remember, and what goes on with each: an undo or a
        settling before its release
    """

    owners: Mapping[str, str]
    forgotten: Mapping[str, str]
    parked: Mapping[str, str]
    ways_on: Mapping[str, str]


def read_memory(
    bucket: S3Bucket, *, parked_prefix: str, list_begun: ListBegun = _list_none
) -> Memory:
    """Read what earlier plans did not finish: from the bucket, and from this machine's ledgers.

    Only reads.

    Raises
    ------
    StoreError, PlanError
        When it cannot be read: nobody can say then what is in doubt.
    """
    known = records.list_recorded_plans(bucket)
    closed = {plan for plan, has_tombstone in known.items() if has_tombstone}
    parked = {}
    for rest, plan_ids in list_parked(bucket, parked_prefix).items():
        open_ids = sorted(plan_ids - closed)
        if open_ids:
            parked[rest] = open_ids[0]
    reopened = [r for r in records.list_records(bucket) if r.action == "reopen"]
    owners = records.find_owned_keys(bucket)
    for record in reopened:
        parked.update(_list_reopened(bucket, record))
    forgotten: dict[str, str] = {}
    ways_on: dict[str, str] = {}
    for record, plan in records.list_open_plans(bucket):
        for number in record.forgotten_rows:
            row = plan.rows[number]
            forgotten.update(dict.fromkeys((row.key, row.to), record.plan))
    for one in list_forgotten(bucket, list_begun):
        forgotten.update(dict.fromkeys(one.keys, one.plan))
        ways_on[one.plan] = one.way_on
    return Memory(owners, forgotten, parked, ways_on)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A plan that was begun here and that the bucket does not remember.

    Attributes
    ----------
    keys : of its rows that are open, at both ends
    open_rows : how many those rows are
    way_on : the command that goes on with it
    """

    plan: str
    keys: tuple[str, ...]
    open_rows: int
    way_on: str


def list_forgotten(bucket: S3Bucket, list_begun: ListBegun) -> list[Forgotten]:
    """Return the plans that need someone and that the bucket does not remember. Only reads.

    An undo or a settling comes before its release.

    Raises
    ------
    StoreError
        When the bucket cannot be read.
    """
    found = []
    known = records.list_recorded_plans(bucket)
    for begun in _list_forgotten(bucket, known, list_begun):
        ledger = Ledger(begun.log, begun.plan)
        rows = [begun.plan.rows[number] for number in ledger.list_open()]
        if rows or ledger.hold is not None:
            keys = tuple(key for row in rows for key in (row.key, row.to) if key)
            way_on = begun.plan.header.resume_command
            found.append(Forgotten(begun.plan.id, keys, len(rows), way_on))
    return sorted(found, key=lambda one: one.plan, reverse=True)


def _list_reopened(bucket: S3Bucket, record: Record) -> dict[str, str]:
    """Return the rests of keys that are open again although their release was settled."""
    plan = records.read_recorded_plan(bucket, record, folder=Path())
    prefix = plan.header.source
    return {row.key.removeprefix(prefix): record.plan for row in plan.rows}


def _list_forgotten(
    bucket: S3Bucket, known: Mapping[str, bool], list_begun: ListBegun
) -> list[Begun]:
    """Return the plans that were begun here and that the bucket does not remember."""
    found = []
    store_id = ""
    for plan_id, read in list_begun().items():
        if plan_id in known:
            continue
        begun = read()
        if begun is None or begun.plan.header.bucket != bucket.name:
            continue
        ledger = Ledger(begun.log, begun.plan)
        store_id = store_id or read_store_id(bucket)
        is_here = begun.plan.header.endpoint == bucket.endpoint
        is_here = is_here or (bool(store_id) and ledger.store_id == store_id)
        is_begun = ledger.is_begun or ledger.hold is not None
        if is_begun and is_here:
            found.append(begun)
    return found


def make_move_plan(
    bucket: S3Bucket,
    *,
    header: Mapping[str, Any],
    folder: Path,
    judge: Judge,
    match: str = "*",
    first: int | None = None,
    list_begun: ListBegun = _list_none,
    memory_removed: bool = False,
) -> MovePlan:
    """Write the plan of a move from one prefix to another.

    Parameters
    ----------
    header : ``source``, ``to``, ``step``, ``made_at``, ``made_by``, ``expires_at``, ``timing``,
        ``limit_objects``, ``selection``, ``others``, ``parked``: see ``PlanHeader``
    folder : where the plan is written
    judge : the caller's rules
    match : shell pattern on the key after the prefix, in any case
    first : take only that many, in the order of their keys; the rest is ``left_for_later``
    list_begun : the plans that were begun from this machine
    memory_removed : a person's word that rows may be planned although the bucket forgot what
        became of them

    Raises
    ------
    PlanError
        When one prefix lies in the other.
    NotReadyError
        When the store does not do what a move needs, or the key has not the right to delete.
    LimitError
        When more would move than the limit allows.
    StoreError
        When the bucket cannot be read.

    Notes
    -----
    Changes scratch objects only, and removes them.
    """
    source = header["source"]
    to = header["to"]
    timing = header["timing"]
    parked_prefix = header.get("parked", PlanHeader.model_fields["parked"].default)
    plans.check_prefixes(source, to)
    for prefix in (source, to):
        plans.check_prefixes(prefix, parked_prefix)
    abilities = probe(bucket, expires_s=timing.expires_s, parked=parked_prefix)
    check_right_to_delete(bucket, source, expires_s=timing.expires_s)
    memory = read_memory(bucket, parked_prefix=parked_prefix, list_begun=list_begun)
    store_id = read_store_id(bucket)
    listing = iter(bucket.list_objects(source, with_folders=True))
    excluded: dict[str, list[str]] = defaultdict(list)
    rows: list[PlanRow] = []
    hashed_bytes = 0

    def leave_out(key: str, reason: str) -> bool:
        if reason:
            excluded[reason].append(key)
        return bool(reason)

    def explain(seen: Seen) -> str:
        rest = seen.key.removeprefix(source)
        is_forgotten = seen.key in memory.forgotten or to + rest in memory.forgotten
        return _find_first(
            {
                "folder": seen.key.endswith("/"),
                "no_match": not fnmatchcase(rest.lower(), match.lower()),
                "key_not_supported": not is_key_supported(seen.key),
                "too_large": seen.size_bytes > MAX_COPY_BYTES,
                "in_doubt": seen.key in memory.owners or to + rest in memory.owners,
                "parked": rest in memory.parked and not memory_removed,
                "memory_removed": is_forgotten and not memory_removed,
                "left_for_later": first is not None and len(rows) >= first,
            }
        )

    while chunk := list(islice(listing, _CHUNK)):
        chunk = [s for s in chunk if s.key != source and SCRATCH_NAME not in s.key]
        keys = [seen.key for seen in chunk if not leave_out(seen.key, explain(seen))]
        found = look_surely(bucket, keys, abilities=abilities, has_id=bool(store_id))
        heads = []
        for key in keys:
            head = found.get(key)
            if head is not None and head.etag:
                heads.append(head)
            else:
                leave_out(key, "gone" if key in found and head is None else "unreadable")
        for head, judgement in zip(heads, judge(heads), strict=True):
            sha256 = ""
            reason = judgement.exclude or explain(head)
            if not reason and not (head.has_hash and abilities.hash_etags):
                hashed_bytes += head.size_bytes
                if hashed_bytes <= GIB:
                    sha256, reason = _hash(bucket, head.key)
                else:
                    reason = "hash_limit"
            if not leave_out(head.key, reason):
                rows.append(
                    PlanRow(
                        key=head.key,
                        etag=head.etag,
                        size_bytes=head.size_bytes,
                        last_modified=head.last_modified,
                        to=to + head.key.removeprefix(source),
                        age_start=judgement.age_start,
                        facts=judgement.facts,
                        sha256=sha256,
                    )
                )
        most = header["limit_objects"]
        if len(rows) > most:
            raise LimitError(f"more would move than one plan may hold: {most} objects")
    at_destinations = find_all(bucket, to, [row.to for row in rows])
    rows = [row for row in rows if not leave_out(row.key, _explain_taken(at_destinations, row))]
    plan_id = f"rel-{header['made_at']:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    new = PlanHeader.model_validate(
        {
            **header,
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
    return plans.write_plan(folder, new, rows, excluded)


def _find_first(reasons: Mapping[str, bool]) -> str:
    """Return the first reason that holds; empty when none does."""
    return next((reason for reason, is_so in reasons.items() if is_so), "")


def _hash(bucket: S3Bucket, key: str) -> tuple[str, str]:
    """Return the SHA-256 of an object, or why there is none."""
    try:
        return bucket.read_sha256(key), ""
    except StoreError:
        return "", "unreadable"


def _explain_taken(found: Mapping[str, Seen | None], row: PlanRow) -> str:
    """Say why a destination is not free; the same content may lie there already."""
    if row.to not in found:
        return "unreadable"
    there = found[row.to]
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
    """Write the plan that takes a release, or a settling, back; one that was begun is kept.

    Parameters
    ----------
    others : who makes sure that no consumer takes anything meanwhile, in words
    window_s : how long after its first copy a release may be taken back, in seconds
    same_store : a person's word that the plan's endpoint is this store under another name

    Returns
    -------
    Of a release, rows of what landed and is still ours at the destination, whether or not its
    source is left. Of a settling, the rows on which a person must say something again.

    Raises
    ------
    NotApprovedError
        When it was never begun, or is in doubt and must be resumed first.
    ExpiredError
        When the window is over.
    """
    check_same_store(bucket, plan, logs(plan.id), same_store=same_store)
    if plan.header.action == "settle":
        return _make_reopen_plan(bucket, plan, logs=logs, made_by=made_by, now=now)
    if plan.header.action != "move":
        raise PlanError(f"{plan.id} is itself of the kind {plan.header.action!r}: plan again")
    earlier = _list_undos(bucket, plan, logs)
    for undo_id, undo, is_ended in earlier:
        if not is_ended and undo is not None:
            return undo
        if not is_ended:
            way_on = f"runbook resume {undo_id} --consumer-stands-still"
            raise NotApprovedError(f"{plan.id} is being taken back. Go on with: {way_on}")
    record = records.read_record(bucket, plan.id)
    later = records.read_later_records(bucket, plan.id)
    ledger = Ledger(logs(plan.id), plan, record, later)
    if ledger.rows(*HALF) or ledger.hold is not None:
        way_on = f"runbook resume {plan.id}"
        raise NotApprovedError(f"{plan.id} was cut off. Go on with: {way_on}, then take it back")
    landed_at = [landing.at for landing in ledger.landings.values() if landing.at]
    if not landed_at:
        raise NotApprovedError(f"{plan.id} was never begun, or this folder knows of no copy of it")
    closes_at = min(landed_at) + timedelta(seconds=window_s)
    store_now = bucket.read_clock()
    lifetime = closes_at - store_now
    if earlier:
        lifetime = max(lifetime, _SETTLE_LIFETIME)  # it was begun to be taken back in time
    elif store_now > closes_at:
        until = f"could be taken back until {format_time(closes_at)}"
        raise ExpiredError(f"{plan.id} {until}: what it moved may be in use by now")
    undo_id = f"{plan.id}-undo" if not earlier else f"{plan.id}-undo-{len(earlier) + 1}"
    header = _derive(
        bucket,
        plan,
        id=undo_id,
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


def _list_undos(
    bucket: S3Bucket, plan: MovePlan, logs: Logs
) -> list[tuple[str, MovePlan | None, bool]]:
    """Return the undos of a plan that were begun, here or elsewhere, and whether each has ended."""
    found: list[tuple[str, MovePlan | None, bool]] = []
    number = 1
    while True:
        undo_id = f"{plan.id}-undo" if number == 1 else f"{plan.id}-undo-{number}"
        path = plan.path.with_name(f"{undo_id}.jsonl")
        record = records.read_record(bucket, undo_id)
        undo = plans.parse_plan(path.read_bytes(), path=path) if path.exists() else None
        is_begun = record is not None
        is_ended = record is not None and record.ended
        if undo is not None:
            ledger = Ledger(logs(undo.id), undo, record)
            is_begun = is_begun or ledger.is_begun
            is_ended = is_ended or ledger.is_ended
        if not is_begun:
            return found
        found.append((undo_id, undo, is_ended))
        number += 1


def _derive(bucket: S3Bucket, plan: MovePlan, **changes: Any) -> PlanHeader:
    """Return the header of a plan that is about another one, for the store as it is now."""
    header = plan.header
    abilities = probe(bucket, expires_s=header.timing.expires_s, parked=header.parked)
    return header.model_copy(
        update={
            "parent": plan.id,
            "release": header.release,
            "endpoint": bucket.endpoint,
            "store_id": read_store_id(bucket),
            "abilities": abilities,
            "window": plans.describe_window(abilities, header.timing, header.parked),
            **changes,
        }
    )


def _invert(
    bucket: S3Bucket, plan: MovePlan, ledger: Ledger, header: PlanHeader
) -> tuple[list[PlanRow], dict[str, list[str]]]:
    """Return the way back of what is still ours at the destination, and what is left out.

    Of a row in conflict our copy is parked: another version is where it came from.
    """
    excluded: dict[str, list[str]] = defaultdict(list)
    rows: list[PlanRow] = []
    landed = {plan.rows[number].to: number for number in sorted(ledger.landings)}
    found = look_surely(bucket, list(landed), abilities=header.abilities)
    unread = [key for key in landed if key not in found]
    if unread:
        raise StoreError(f"{unread[0]} could not be read: nothing was planned")
    for key, number in landed.items():
        row = plan.rows[number]
        landing = ledger.landings[number]
        state = ledger.states[number]
        seen = found.get(key)
        is_ours = False
        if seen is not None and landing.at is not None:
            copy = Version(key, landing.etag, row.size_bytes, landing.at)
            is_ours = copy.is_same(seen)
        reason = _find_first(
            {
                "taken_back": state is State.UNDONE,
                "in_doubt": state not in (State.MOVED, State.CONFLICT),
                "taken_by_a_consumer": seen is None,
                "not_our_copy": not is_ours,
            }
        )
        if seen is None or reason:
            excluded[reason].append(key)
            continue
        to = row.key
        if state is State.CONFLICT:
            to = header.get_parked_key(key.removeprefix(header.source))
        facts = {**row.facts, "row": str(number), "release_row": str(number)}
        rows.append(replace(row.at(seen), key=key, to=to, facts=facts))
    return rows, excluded


def _make_reopen_plan(
    bucket: S3Bucket, settling: MovePlan, *, logs: Logs, made_by: str, now: datetime
) -> MovePlan:
    """Write the plan that takes a person's word back: its rows are open again.

    Until a plan took a freed row, its object is parked again; then the word stays.
    """
    undo_id = f"{settling.id}-undo"
    path = settling.path.with_name(f"{undo_id}.jsonl")
    if path.exists():
        undo = plans.parse_plan(path.read_bytes(), path=path)
        if Ledger(logs(undo_id), undo).is_begun:
            return undo
    if records.read_record(bucket, undo_id) is not None:
        raise NotApprovedError(f"{settling.id} was taken back by {undo_id}")
    ledger = Ledger(logs(settling.id), settling, records.read_record(bucket, settling.id))
    if not ledger.is_ended:
        way_on = settling.header.resume_command
        raise NotApprovedError(f"{settling.id} was not carried out. Go on with: {way_on}")
    header = _derive(
        bucket,
        settling,
        id=undo_id,
        step=f"{settling.header.release_step}.1",
        action="reopen",
        word="",
        made_by=made_by,
        made_at=now,
        expires_at=now + _SETTLE_LIFETIME,
        others=f"takes back the word {settling.header.word!r} of {settling.id}",
    )
    keys = [row.facts["key"] for row in settling.rows]
    found = look_surely(bucket, keys, abilities=header.abilities)
    excluded: dict[str, list[str]] = defaultdict(list)
    rows = []
    for number, row in enumerate(settling.rows):
        key = row.facts["key"]
        to = row.facts["to"]
        seen = found.get(key)
        was_moved = settling.header.word == "not_taken"
        was_moved = was_moved and (seen is None or not _has_content(seen, row))
        if key not in found or was_moved:
            excluded["moved_since" if key in found else "unreadable"].append(key)
            continue
        reopened = replace(row, key=key, to=to, facts={**row.facts, "row": str(number)})
        if seen is not None and _has_content(seen, row):
            reopened = reopened.at(seen)
        rows.append(reopened)
    return plans.write_plan(settling.path.parent, header, rows, excluded)


def _has_content(seen: Seen, row: PlanRow) -> bool:
    return (seen.etag, seen.size_bytes) == (row.etag, row.size_bytes)


@dataclass(frozen=True, slots=True)
class OpenRow:
    """A row on which a person must say something.

    Attributes
    ----------
    number : of the plan's row
    row : as it was planned, from where labels wait to where they are taken
    any_version : whether the content alone counts: our own copy has another time
    is_conflict : whether two versions are known, and the row is not simply in doubt
    is_freed : whether a person said that it was not taken, and no plan took it since
    parked : the key where its object is parked; empty when it is not
    parked_seen : what is parked there
    source, destination : what is there now; None when nothing is, and also when it could not be
        read: then the key is in ``unread``
    unread : keys that could not be read
    evidence : what was known of its order before it was parked
    reason : why it is open
    """

    number: int
    row: PlanRow
    any_version: bool
    is_conflict: bool
    is_freed: bool
    parked: str
    parked_seen: Seen | None
    source: Seen | None
    destination: Seen | None
    unread: tuple[str, ...]
    evidence: str
    reason: str

    @property
    def is_rewritten(self) -> bool:
        """Whether something else than the planned version is at the source."""
        return self.source is not None and not self.is_waiting

    @property
    def is_waiting(self) -> bool:
        """Whether the planned version is at the source."""
        if self.source is None:
            return False
        if self.any_version or self.is_freed:
            return _has_content(self.source, self.row)
        return self.row.is_same(self.source)


def _orient(plan: MovePlan, row: PlanRow) -> PlanRow:
    """Return a row from where labels wait to where they are taken: an undo's goes the other way."""
    if plan.header.action != "undo":
        return row
    rest = row.key.removeprefix(plan.header.source)
    return replace(row, key=plan.header.to + rest, to=row.key)


def list_open_rows(
    bucket: S3Bucket, plan: MovePlan, *, logs: Logs, same_store: bool = False
) -> list[OpenRow]:
    """Return the rows of a plan on which a person must say something, as they are now. Only reads.

    Parameters
    ----------
    same_store : a person's word that the plan's endpoint is this store under another name

    Raises
    ------
    NotApprovedError
        When the plan is not at its end, or another plan holds its open rows.
    StoreError
        When the bucket cannot be read.
    """
    check_same_store(bucket, plan, logs(plan.id), same_store=same_store)
    record = records.read_record(bucket, plan.id)
    later = records.read_later_records(bucket, plan.id)
    for other in later:
        if other.parent == plan.id and not other.is_over:
            raise NotApprovedError(f"{other.plan} is not finished. Go on with: {other.way_on}")
    ledger = Ledger(logs(plan.id), plan, record, later)
    if ledger.rows(*HALF) or not ledger.is_ended:
        way_on = plan.header.resume_command
        raise NotApprovedError(f"{plan.id} is not at its end. Go on with: {way_on}")
    numbers = ledger.rows(State.UNPROVEN, State.CONFLICT, State.FREED)
    numbers = [number for number in numbers if number not in ledger.reopened_by]
    header = plan.header
    is_undo = header.action == "undo"
    source_prefix = header.to if is_undo else header.source
    oriented = {number: _orient(plan, plan.rows[number]) for number in numbers}
    parked = {
        number: header.get_parked_key(row.key.removeprefix(source_prefix))
        for number, row in oriented.items()
    }
    keys = [key for row in oriented.values() for key in (row.key, row.to)]
    found = look_surely(bucket, keys + list(parked.values()), abilities=header.abilities)
    rows = []
    for number, row in oriented.items():
        at_parking = found.get(parked[number])
        is_parked = at_parking is not None and _has_content(at_parking, row)
        ends = (row.key, row.to, parked[number])
        state = ledger.states[number]
        rows.append(
            OpenRow(
                number=number,
                row=row,
                any_version=is_undo,
                is_conflict=state is State.CONFLICT,
                is_freed=state is State.FREED,
                parked=parked[number] if is_parked else "",
                parked_seen=at_parking if is_parked else None,
                source=found.get(row.key),
                destination=found.get(row.to),
                unread=tuple(key for key in ends if key not in found),
                evidence=ledger.evidence.get(number, ""),
                reason=ledger.reasons.get(number, ""),
            )
        )
    return rows


def make_settle_plan(
    bucket: S3Bucket,
    plan: MovePlan,
    *,
    logs: Logs,
    word: Word,
    keys: Sequence[str],
    evidence: Mapping[str, str],
    made_by: str,
    others: str,
    now: datetime,
    same_store: bool = False,
) -> MovePlan:
    """Write down a person's word on rows that are unproven or in conflict.

    Parameters
    ----------
    word : ``taken`` parks what is left of the planned version; ``not_taken`` makes the row
        plannable again, and brings a parked object back: a wrong word ships it twice
    keys : source keys of the rows; empty: all that are unproven
    evidence : for each key, what else is known of it
    others : who keeps the worker still meanwhile, in words

    Raises
    ------
    PlanError
        When a key is not an open row of the plan.
    NotApprovedError
        When the move is not at its end.
    StoreError
        When a key cannot be read.
    """
    open_rows = list_open_rows(bucket, plan, logs=logs, same_store=same_store)
    chosen = _choose_rows(plan, open_rows, word, keys)
    unread = [key for open_row in chosen for key in open_row.unread]
    if unread:
        raise StoreError(f"{unread[0]} could not be read: nothing was planned")
    is_undo = plan.header.action == "undo"
    header = _derive(
        bucket,
        plan,
        source=plan.header.to if is_undo else plan.header.source,
        to=plan.header.source if is_undo else plan.header.to,
        id=f"{plan.id}-settle-{secrets.token_hex(2)}",
        step=f"{plan.header.release_step}.2",
        action="settle",
        word=word,
        made_by=made_by,
        made_at=now,
        expires_at=now + _SETTLE_LIFETIME,
        others=others,
    )
    rows = [_settle_row(bucket, header, open_row, word, evidence) for open_row in chosen]
    return plans.write_plan(plan.path.parent, header, rows, {})


def _choose_rows(
    plan: MovePlan, open_rows: Sequence[OpenRow], word: Word, keys: Sequence[str]
) -> list[OpenRow]:
    """Return the rows that a word is about."""
    if not keys:
        return [r for r in open_rows if not (r.is_conflict or r.is_freed)]
    by_key = {open_row.row.key: open_row for open_row in open_rows}
    if word == "not_taken":
        by_key = {key: open_row for key, open_row in by_key.items() if not open_row.is_freed}
    unknown = [key for key in keys if key not in by_key]
    if unknown:
        some = ", ".join(repr(key) for key in sorted(by_key)[:10]) or "none"
        raise PlanError(f"{unknown[0]!r} is not an open row of {plan.id}; open are: {some}")
    freed_away = [key for key in keys if by_key[key].is_freed and by_key[key].source is None]
    if freed_away:
        raise PlanError(f"{freed_away[0]!r} was freed, and another plan took it since")
    return [by_key[key] for key in dict.fromkeys(keys)]


def _settle_row(
    bucket: S3Bucket, header: PlanHeader, open_row: OpenRow, word: Word, evidence: Mapping[str, str]
) -> PlanRow:
    """Return what a word does to one row: park it, bring it back, or nothing but the word."""
    row = open_row.row
    source = open_row.source
    facts = {
        **row.facts,
        "key": row.key,
        "to": row.to,
        "row": str(open_row.number),
        "release_row": row.facts.get("release_row", str(open_row.number)),
        "evidence": open_row.evidence or evidence.get(row.key, ""),
        "source": _describe_source(open_row),
    }
    if word == "taken" and source is not None and open_row.is_waiting:
        parked_key = header.get_parked_key(row.key.removeprefix(header.source))
        sha256 = row.sha256 or ("" if source.has_hash else bucket.read_sha256(row.key))
        return replace(row.at(source), to=parked_key, facts=facts, sha256=sha256)
    is_free = source is None and open_row.destination is None
    if word == "not_taken" and open_row.parked_seen is not None and is_free:
        parked = row.at(open_row.parked_seen)
        return replace(parked, key=open_row.parked, to=row.key, facts=facts)
    return replace(row, to="", facts=facts)


def _describe_source(open_row: OpenRow) -> str:
    if open_row.is_rewritten:
        return "rewritten"
    if open_row.source is not None:
        return "there"
    return "parked" if open_row.parked else "absent"
