"""Make plans: of a move, of taking one back, and of what a person says of rows in doubt."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, Literal

from . import plan as plans
from .bucket import Bucket, Seen, find_all, format_time, is_key_supported
from .errors import ExpiredError, LimitError, NotApprovedError, NotReadyError, PlanError, StoreError
from .ledger import Ledger, Logs
from .plan import Excluded, MovePlan, PlanHeader, PlanRow, Timing
from .probe import probe
from .record import find_keys_in_doubt, read_record
from .table import State

GIB = 1024**3
MAX_COPY_BYTES = 5 * GIB
SETTLED = ".runbook/settled/"
_CHUNK = 1000
_NEVER = datetime.min.replace(tzinfo=UTC)


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


def make_move_plan(
    bucket: Bucket,
    *,
    header: Mapping[str, Any],
    folder: Any,
    judge: Judge,
    timing: Timing,
    now: datetime,
    match: str = "*",
    first: int | None = None,
    hash_bytes: int = GIB,
    free_bytes: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> MovePlan:
    """Write the plan of a move from one prefix to another.

    Parameters
    ----------
    header : ``source``, ``to``, ``made_by``, ``others``, ``step``, ``lifetime_s``,
        ``limit_objects``, ``limit_bytes``, ``selection``: see ``PlanHeader``
    folder : where the plan is written
    judge : the caller's rules
    match : shell pattern on the key after the prefix, in any case
    first : take only that many, in the order of their keys; the rest is ``left_for_later``
    hash_bytes : the most that is read to hash objects whose ETag is no hash
    free_bytes : room in the store, where it is known
    progress : called with the number of objects looked at

    Raises
    ------
    PlanError
        When one prefix lies in the other.
    NotReadyError
        When the store does not do what a move needs, or has no room for the copies.
    LimitError
        When more would move than the limit allows.
    StoreError
        When the bucket cannot be read.

    Notes
    -----
    Changes scratch objects only, and removes them.
    """
    source, to = header["source"], header["to"]
    plans.check_prefixes(source, to)
    abilities = probe(bucket, expires_s=timing.expires_s)
    excluded, rows, looked, hashed = Excluded(), list[PlanRow](), 0, 0
    candidates = _list_candidates(bucket, source, to, match, excluded)
    limit, limit_bytes = header["limit_objects"], header["limit_bytes"]
    while chunk := list(islice(candidates, _CHUNK)):
        looked += len(chunk)
        progress(looked)
        if first is not None and len(rows) >= first:
            excluded.add("left_for_later", *(seen.key for seen in chunk))
            continue
        for seen, judgement in _judge(bucket, chunk, judge, excluded):
            sha256, key = "", seen.key
            if first is not None and len(rows) >= first:
                excluded.add("left_for_later", key)
                continue
            if not seen.has_hash:
                hashed += seen.size_bytes
                sha256 = _hash(bucket, seen, excluded, hashed <= hash_bytes)
                if not sha256:
                    continue
            version = (seen.etag, seen.size_bytes, seen.last_modified)
            why = (judgement.age_start, judgement.facts)
            rows.append(PlanRow(key, to + key[len(source) :], *version, *why, sha256))
        if len(rows) > limit or sum(row.size_bytes for row in rows) > limit_bytes:
            most = f"{limit} objects, {limit_bytes} bytes"
            raise LimitError(f"more would move than one plan may hold: {most}")
    rows = _leave_out_taken(bucket, to, rows, excluded)
    if free_bytes is not None and free_bytes < 2 * max((r.size_bytes for r in rows), default=0):
        raise NotReadyError(f"{free_bytes} bytes are free: no room for the copies")
    new = PlanHeader(
        id=f"rel-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}",
        action="move",
        endpoint=bucket.endpoint,
        bucket=bucket.name,
        made_at=now,
        expires_at=now + timedelta(seconds=header["lifetime_s"]),
        abilities=abilities,
        timing=timing,
        window=plans.describe_window(abilities, timing),
        **{name: value for name, value in header.items() if name != "lifetime_s"},
    )
    return plans.write_plan(folder, new, rows, excluded)


def _list_candidates(
    bucket: Bucket, source: str, to: str, match: str, excluded: Excluded
) -> Iterator[Seen]:
    doubts = find_keys_in_doubt(bucket)
    for seen in bucket.list_objects(source):
        rest = seen.key[len(source) :]
        if not fnmatchcase(rest.lower(), match.lower()):
            excluded.add("no_match", seen.key)
        elif not is_key_supported(seen.key):
            excluded.add("key_not_supported", seen.key)
        elif seen.size_bytes > MAX_COPY_BYTES:
            excluded.add("too_large", seen.key)
        elif seen.key in doubts or to + rest in doubts:
            excluded.add("in_doubt", seen.key)
        else:
            yield seen


def _judge(
    bucket: Bucket, chunk: Sequence[Seen], judge: Judge, excluded: Excluded
) -> Iterator[tuple[Seen, Judgement]]:
    found = bucket.look([seen.key for seen in chunk])
    heads = []
    for listed in chunk:
        head = found.get(listed.key)
        if head is None or not head.etag:
            is_gone = listed.key in found and head is None
            excluded.add("gone" if is_gone else "unreadable", listed.key)
        elif head.is_same(listed):  # a HEAD tells whole seconds
            heads.append(replace(head, last_modified=listed.last_modified))
        else:
            heads.append(head)
    for seen, judgement in zip(heads, judge(heads), strict=True):
        if judgement.exclude:
            excluded.add(judgement.exclude, seen.key)
        else:
            yield seen, judgement


def _hash(bucket: Bucket, seen: Seen, excluded: Excluded, is_within: bool) -> str:
    with suppress(StoreError):
        if is_within:
            return bucket.read_sha256(seen.key)
    excluded.add("unreadable" if is_within else "hash_limit", seen.key)
    return ""


def _leave_out_taken(
    bucket: Bucket, to: str, rows: Sequence[PlanRow], excluded: Excluded
) -> list[PlanRow]:
    """Leave out what would overwrite something else; the same content may lie there already."""
    kept = []
    found = find_all(bucket, to, [row.to for row in rows]) if rows else {}
    for row in rows:
        there = found.get(row.to)
        if row.to not in found:
            excluded.add("unreadable", row.key)
        elif there is not None and not there.has_same_content(row.version) and not row.sha256:
            excluded.add("destination_taken", row.key)
        else:
            kept.append(row)
    return kept


def make_undo_plan(
    bucket: Bucket,
    plan: MovePlan,
    *,
    logs: Logs,
    made_by: str,
    others: str,
    window_s: float,
    now: datetime,
) -> MovePlan:
    """Write the plan that takes a move back: ``<plan>-undo``; one that was begun is kept.

    Parameters
    ----------
    others : who makes sure that no consumer takes anything meanwhile, in words
    window_s : how long after its first copy a move may be taken back, in seconds

    Returns
    -------
    Rows of what landed and is still ours at the destination, whether or not its source is left.

    Raises
    ------
    NotApprovedError
        When it was never begun, or is in doubt and must be resumed first.
    ExpiredError
        When the window is over.
    """
    undo_path = plan.path.with_name(f"{plan.id}-undo.jsonl")
    if undo_path.exists():
        undo = plans.load_plan(undo_path)
        if Ledger(logs(undo.id), undo).approved_sha256:
            return undo
    head, ledger = plan.header, Ledger(logs(plan.id), plan, read_record(bucket, plan.id))
    if head.action != "move":
        raise PlanError(f"{plan.id} is itself of the kind '{head.action}': make a new plan instead")
    if ledger.rows(State.DOUBTFUL):
        way_on = f"runbook resume {plan.id}, then take it back"
        raise NotApprovedError(f"{plan.id} was cut off: {way_on}")
    first = min((land.at for land in ledger.landings.values() if land.at), default=None)
    if not ledger.approved_sha256 or first is None:
        why = "put nothing in place" if ledger.approved_sha256 else "was never begun"
        raise NotApprovedError(f"{plan.id} {why}: there is nothing to take back")
    closes_at, store_now = first + timedelta(seconds=window_s), bucket.read_clock()
    if store_now > closes_at:
        why = f"could be taken back until {format_time(closes_at)}: labels may be printed by now"
        raise ExpiredError(f"{plan.id} {why}")
    what = {"id": f"{plan.id}-undo", "step": f"{head.step}.1", "action": "undo", "others": others}
    where = {"source": head.to, "to": head.source}
    header = _derive(plan, made_by, now, closes_at - store_now, **what, **where)
    return plans.write_plan(plan.path.parent, header, *_invert(bucket, plan, ledger))


def _derive(
    plan: MovePlan, made_by: str, now: datetime, lifetime: timedelta, **changes: str
) -> PlanHeader:
    """Return the header of a plan that is about another one."""
    made = {"parent": plan.id, "made_by": made_by, "made_at": now, "expires_at": now + lifetime}
    return plan.header.model_copy(update={**made, **changes})


def _invert(bucket: Bucket, plan: MovePlan, ledger: Ledger) -> tuple[list[PlanRow], Excluded]:
    """Return the way back of what is still ours at the destination."""
    excluded, rows = Excluded(), list[PlanRow]()
    landed = sorted(ledger.landings)
    found = bucket.look([plan.rows[place].to for place in landed])
    for place in landed:
        row, landing = plan.rows[place], ledger.landings[place]
        seen = found.get(row.to)
        if ledger.states[place] not in (State.LANDED, State.MOVED):
            excluded.add("in_doubt", row.to)
        elif row.to not in found:
            excluded.add("unreadable", row.to)
        elif seen is None:
            excluded.add("taken_by_a_consumer", row.to)
        elif not Seen(row.to, landing.etag, row.size_bytes, landing.at or _NEVER).is_same(seen):
            excluded.add("not_our_copy", row.to)
        else:
            rows.append(replace(row.at(seen), key=row.to, to=row.key))
    return rows, excluded


def make_settle_plan(
    bucket: Bucket,
    plan: MovePlan,
    *,
    logs: Logs,
    word: Literal["taken", "not_taken"],
    keys: Sequence[str],
    evidence: Mapping[str, str],
    made_by: str,
    now: datetime,
    lifetime_s: float = 900,
) -> MovePlan:
    """Write down a person's word on rows that are unproven or in conflict.

    Parameters
    ----------
    word : ``taken`` parks what is left at the source under ``.runbook/settled/<plan>/``;
        ``not_taken`` makes the row plannable again: a wrong word ships it twice
    keys : source keys of the rows; empty: all that are open
    evidence : for each key, what else is known of it

    Raises
    ------
    PlanError
        When a key is not an open row of the plan.
    NotApprovedError
        When the move is not at its end.
    """
    record = read_record(bucket, plan.id)
    ledger = Ledger(logs(plan.id), plan, record)
    if ledger.rows(State.DOUBTFUL, State.LANDED) or not (ledger.is_done or record):
        raise NotApprovedError(f"{plan.id} is not at its end: runbook resume {plan.id} first")
    open_ = {plan.rows[row].key: row for row in ledger.rows(State.UNPROVEN, State.CONFLICT)}
    if unknown := [key for key in keys if key not in open_]:
        some = ", ".join(sorted(open_)[:10]) or "none"
        raise PlanError(f"{unknown[0]!r} is not an open row of {plan.id}; open are: {some}")
    parked, rows = f"{SETTLED}{plan.id}/", []
    found = bucket.look(list(keys) or list(open_))
    for key in sorted(keys or open_):
        if key not in found:
            raise StoreError(f"{key} could not be read: nothing was planned")
        seen, planned = found[key], plan.rows[open_[key]]
        facts = {"row": str(open_[key]), "evidence": evidence.get(key, "")}
        facts |= {"source": "there" if seen else "absent"}
        row = replace(planned, to="", facts={**planned.facts, **facts}, sha256="")
        if seen is not None:
            row = row.at(seen)
        if seen is not None and word == "taken":
            sha256 = "" if seen.has_hash else bucket.read_sha256(key)
            row = replace(row, to=parked + key[len(plan.header.source) :], sha256=sha256)
        rows.append(row)
    what = {"id": f"{plan.id}-settle-{secrets.token_hex(2)}", "step": f"{plan.header.step}.2"}
    what |= {"action": "settle", "to": parked, "word": word}
    what |= {"others": "nobody else moves these: they are left out of every plan"}
    header = _derive(plan, made_by, now, timedelta(seconds=lifetime_s), **what)
    return plans.write_plan(plan.path.parent, header, rows, Excluded())
