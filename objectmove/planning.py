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

from . import plan as plans
from .bucket import S3Bucket, Seen, Version, find_all, format_time, is_key_supported
from .errors import ExpiredError, LimitError, NotApprovedError, PlanError, StoreError
from .ledger import OPEN, Ledger, Logs, find_keys_in_doubt, read_record
from .plan import MovePlan, PlanHeader, PlanRow
from .probe import probe
from .table import State

GIB = 1024**3
MAX_COPY_BYTES = 5 * GIB
SETTLED = ".runbook/settled/"
_CHUNK = 1000


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
    bucket: S3Bucket,
    *,
    header: Mapping[str, Any],
    folder: Path,
    judge: Judge,
    match: str = "*",
    first: int | None = None,
) -> MovePlan:
    """Write the plan of a move from one prefix to another.

    Parameters
    ----------
    header : ``source``, ``to``, ``step``, ``made_at``, ``made_by``, ``expires_at``, ``timing``,
        ``limit_objects``, ``selection``, ``others``: see ``PlanHeader``
    folder : where the plan is written
    judge : the caller's rules
    match : shell pattern on the key after the prefix, in any case
    first : take only that many, in the order of their keys; the rest is ``left_for_later``

    Raises
    ------
    PlanError
        When one prefix lies in the other.
    NotReadyError
        When the store does not do what a move needs.
    LimitError
        When more would move than the limit allows.
    StoreError
        When the bucket cannot be read.

    Notes
    -----
    Changes scratch objects only, and removes them.
    """
    source, to, timing = header["source"], header["to"], header["timing"]
    plans.check_prefixes(source, to)
    abilities = probe(bucket, expires_s=timing.expires_s)
    doubts, listing = find_keys_in_doubt(bucket), iter(bucket.list_objects(source))
    excluded, rows, hashed = defaultdict[str, list[str]](list), list[PlanRow](), 0

    def leave_out(key: str, reason: str) -> bool:
        if reason:
            excluded[reason].append(key)
        return bool(reason)

    def explain(seen: Seen) -> str:
        rest = seen.key[len(source) :]
        return _find_first(
            {
                "no_match": not fnmatchcase(rest.lower(), match.lower()),
                "key_not_supported": not is_key_supported(seen.key),
                "too_large": seen.size_bytes > MAX_COPY_BYTES,
                "in_doubt": seen.key in doubts or to + rest in doubts,
                "left_for_later": first is not None and len(rows) >= first,
            }
        )

    while chunk := list(islice(listing, _CHUNK)):
        keys = [seen.key for seen in chunk if not leave_out(seen.key, explain(seen))]
        found, heads = bucket.look(keys), []
        for key in keys:
            if (head := found.get(key)) and head.etag:
                heads.append(head)
            else:
                leave_out(key, "gone" if key in found and not head else "unreadable")
        for head, judgement in zip(heads, judge(heads), strict=True):
            sha256, reason = "", judgement.exclude or explain(head)
            if not (reason or head.has_hash):
                hashed += head.size_bytes
                sha256, reason = _hash(bucket, head.key) if hashed <= GIB else ("", "hash_limit")
            if not leave_out(head.key, reason):
                version = (head.key, head.etag, head.size_bytes, head.last_modified)
                why = (judgement.age_start, judgement.facts, sha256)
                rows.append(PlanRow(*version, to + head.key[len(source) :], *why))
        if len(rows) > (most := header["limit_objects"]):
            raise LimitError(f"more would move than one plan may hold: {most} objects")
    found = find_all(bucket, to, [row.to for row in rows])
    rows = [row for row in rows if not leave_out(row.key, _explain_taken(found, row))]
    plan_id = f"rel-{header['made_at']:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    what = {"id": plan_id, "action": "move", "endpoint": bucket.endpoint, "bucket": bucket.name}
    found_out = {"abilities": abilities, "window": plans.describe_window(abilities, timing)}
    new = PlanHeader.model_validate({**header, **what, **found_out})
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
    is_free = not (there := found.get(row.to)) or there.has_same_content(row) or bool(row.sha256)
    return _find_first({"unreadable": row.to not in found, "destination_taken": not is_free})


def make_undo_plan(
    bucket: S3Bucket,
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
        undo = plans.parse_plan(undo_path.read_bytes(), path=undo_path)
        if Ledger(logs(undo.id), undo).approved_sha256:
            return undo
    head, ledger = plan.header, Ledger(logs(plan.id), plan, read_record(bucket, plan.id))
    if head.action != "move":
        raise PlanError(f"{plan.id} is itself of the kind '{head.action}': make a new plan instead")
    if ledger.rows(State.DOUBTFUL):
        raise NotApprovedError(f"{plan.id} was cut off: runbook resume {plan.id}, then undo it")
    first = min((land.at for land in ledger.landings.values() if land.at), default=None)
    if first is None:
        raise NotApprovedError(f"{plan.id} was never begun, or this folder knows of no copy of it")
    closes_at, store_now = first + timedelta(seconds=window_s), bucket.read_clock()
    if store_now > closes_at:
        until = f"could be taken back until {format_time(closes_at)}"
        raise ExpiredError(f"{plan.id} {until}: what it moved may be in use by now")
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


def _invert(
    bucket: S3Bucket, plan: MovePlan, ledger: Ledger
) -> tuple[list[PlanRow], dict[str, list[str]]]:
    """Return the way back of what is still ours at the destination, and what is left out."""
    excluded, rows = defaultdict[str, list[str]](list), list[PlanRow]()
    landed = {plan.rows[place].to: place for place in sorted(ledger.landings)}
    found = bucket.look(list(landed))
    for key, place in landed.items():
        row, (etag, at), seen = plan.rows[place], ledger.landings[place], found.get(key)
        is_ours = at and seen and Version(key, etag, row.size_bytes, at).is_same(seen)
        reason = _find_first(
            {
                "in_doubt": ledger.states[place] not in (State.LANDED, State.MOVED),
                "unreadable": key not in found,
                "taken_by_a_consumer": seen is None,
                "not_our_copy": not is_ours,
            }
        )
        if seen is None or reason:
            excluded[reason].append(key)
        else:
            rows.append(replace(row.at(seen), key=key, to=row.key))
    return rows, excluded


def make_settle_plan(
    bucket: S3Bucket,
    plan: MovePlan,
    *,
    logs: Logs,
    word: Literal["taken", "not_taken"],
    keys: Sequence[str],
    evidence: Mapping[str, str],
    made_by: str,
    now: datetime,
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
    open_ = {plan.rows[row].key: row for row in ledger.rows(*OPEN)}
    if unknown := [key for key in keys if key not in open_]:
        some = ", ".join(sorted(open_)[:10]) or "none"
        raise PlanError(f"{unknown[0]!r} is not an open row of {plan.id}; open are: {some}")
    parked, rows, found = f"{SETTLED}{plan.id}/", [], bucket.look(list(keys) or list(open_))
    for key in sorted(keys or open_):
        if key not in found:
            raise StoreError(f"{key} could not be read: nothing was planned")
        planned, seen = plan.rows[open_[key]], found[key]
        facts = {"row": str(open_[key]), "evidence": evidence.get(key, "")}
        facts |= {"source": "there" if seen else "absent"}
        row = replace(planned, to="", facts={**planned.facts, **facts}, sha256="")
        if seen and word == "taken":
            sha256 = "" if seen.has_hash else bucket.read_sha256(key)
            row = replace(row, to=parked + key[len(plan.header.source) :], sha256=sha256)
        rows.append(row.at(seen) if seen else row)
    what = {"id": f"{plan.id}-settle-{secrets.token_hex(2)}", "step": f"{plan.header.step}.2"}
    what |= {"action": "settle", "to": parked, "word": word}
    what |= {"others": "nobody else moves these: they are left out of every plan"}
    header = _derive(plan, made_by, now, timedelta(minutes=15), **what)
    return plans.write_plan(plan.path.parent, header, rows, {})
