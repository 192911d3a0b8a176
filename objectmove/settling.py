"""A person's word on rows whose fate nobody can know: list the rows; plan what the word changes."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Literal

from . import plan as plans
from . import record as records
from .bucket import Look, S3Bucket, Seen
from .carry import look_surely
from .errors import NotApprovedError, PlanError, StoreError
from .ledger import HALF_DONE, Ledger, Logs
from .plan import MovePlan, PlanFile, PlanHeader, PlanRow
from .probe import probe
from .same_store import check_same_store
from .session import read_store_id
from .table import State

#: How long the plan of a settling or a reopening is valid.
SETTLE_LIFETIME = timedelta(minutes=15)

Word = Literal["taken", "not_taken"]


def derive_header(
    bucket: S3Bucket,
    plan: MovePlan,
    *,
    plan_id: str,
    step: str,
    action: Literal["undo", "settle", "reopen"],
    source: str,
    to: str,
    made_by: str,
    made_at: datetime,
    expires_at: datetime,
    others: str,
    word: Word | Literal[""] = "",
) -> PlanHeader:
    """Return the header of an undo, a settling or a reopening; probe the store for it.

    Parameters
    ----------
    plan : the plan that the new plan is about

    Notes
    -----
    Changes only scratch objects, and removes them.
    """
    header = plan.header
    abilities = probe(bucket, expires_s=header.timing.expires_s, parked=header.parked)
    return header.model_copy(
        update={
            "id": plan_id,
            "step": step,
            "action": action,
            "word": word,
            "parent": plan.id,
            "release": header.release,
            "endpoint": bucket.endpoint,
            "store_id": read_store_id(bucket),
            "source": source,
            "to": to,
            "made_by": made_by,
            "made_at": made_at,
            "expires_at": expires_at,
            "others": others,
            "abilities": abilities,
            "window": plans.describe_window(abilities, header.timing, header.parked),
        }
    )


@dataclass(frozen=True, slots=True)
class OpenRow:
    """A row on which a person must decide, or may decide anew.

    Attributes
    ----------
    number : of the row, in its plan
    row : the planned row; for an undo, with source and destination exchanged: the source is always
        where objects wait
    any_version : whether only the content counts at the source. In an undo, the object there is our
        copy, which has another LastModified
    is_conflict : whether the row ended in a conflict; else it is unproven or freed
    is_freed : whether a person said that the object was not taken
    parked : the key where the object is parked; empty when it is not
    parked_seen : the object at that key; None when the object is not parked
    source, destination : what is at that end now; None when nothing is there, and when the end's
        key is in ``unread``
    unread : keys that could not be read
    evidence : what was known of the object's order before the object was parked
    reason : why the row is open, in words
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
        """Whether another version than the planned one is at the source."""
        return self.source is not None and not self.is_waiting

    @property
    def is_waiting(self) -> bool:
        """Whether the planned version is at the source."""
        if self.source is None:
            return False
        # The object of a freed row may have been parked and brought back since it was planned.
        if self.any_version or self.is_freed:
            return self.source.has_same_content(self.row)
        return self.row.is_same(self.source)


def _orient(plan: MovePlan, row: PlanRow) -> PlanRow:
    """Return a row whose source is where objects wait: for an undo, exchange the row's two ends."""
    if plan.header.action != "undo":
        return row
    rest = row.key.removeprefix(plan.header.source)
    return replace(row, key=plan.header.to + rest, to=row.key)


def list_open_rows(
    bucket: S3Bucket, plan: MovePlan, *, logs: Logs, same_store: bool = False
) -> list[OpenRow]:
    """Return the rows of a plan on which a person must or may decide, as they are now. Only reads.

    Parameters
    ----------
    same_store : a person's word that the plan's endpoint is this store under another name

    Raises
    ------
    NotApprovedError
        When the plan is not at its end, another plan about it is not finished, or neither this
        machine nor the bucket knows of its beginning.
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
    if record is None and not ledger.is_begun:
        raise NotApprovedError(
            f"{plan.id} was never begun here, and the bucket does not know it: settle it where it "
            "was carried out"
        )
    if ledger.rows(*HALF_DONE) or not ledger.is_ended:
        way_on = plan.header.resume_command
        raise NotApprovedError(f"{plan.id} is not at its end. Go on with: {way_on}")
    numbers = ledger.rows(State.UNPROVEN, State.CONFLICT, State.FREED)
    # A row that was opened again is settled through its reopening.
    numbers = [number for number in numbers if number not in ledger.reopened_by]
    return _look_at_open(bucket, ledger, numbers)


def find_holder(bucket: S3Bucket, plan: MovePlan, *, logs: Logs) -> str:
    """Return the id of the plan by which a person settles a plan's open rows.

    It is the plan's own id, or the id of a reopening that took a person's word on rows back. Of
    several reopenings, it is the one whose id sorts last.
    """
    record = records.read_record(bucket, plan.id)
    later = records.read_later_records(bucket, plan.id)
    ledger = Ledger(logs(plan.id), plan, record, later)
    holders = [ledger.reopened_by.get(row, plan.id) for row in ledger.list_open()]
    # A reopening's id begins with the plan's id, so the reopening's id sorts later.
    return max(holders, default=plan.id)


def _look_at_open(bucket: S3Bucket, ledger: Ledger, numbers: Sequence[int]) -> list[OpenRow]:
    """Return open rows, after a look at both ends, and at the keys where they may be parked.

    Parameters
    ----------
    numbers : of the open rows
    """
    plan = ledger.plan
    header = plan.header
    oriented = {number: _orient(plan, plan.rows[number]) for number in numbers}
    parked_keys = {
        number: header.get_parked_key(row.key.removeprefix(header.reached_prefix))
        for number, row in oriented.items()
    }
    keys: list[str] = []
    for row in oriented.values():
        keys += [row.key, row.to]
    looks = look_surely(bucket, keys + list(parked_keys.values()), abilities=header.abilities)
    open_rows = []
    for number, row in oriented.items():
        at_parking = looks.get(parked_keys[number])
        is_parked = at_parking is not None and at_parking.has_same_content(row)
        ends = (row.key, row.to, parked_keys[number])
        state = ledger.states[number]
        open_row = OpenRow(
            number=number,
            row=row,
            any_version=header.action == "undo",
            is_conflict=state is State.CONFLICT,
            is_freed=state is State.FREED,
            parked=parked_keys[number] if is_parked else "",
            parked_seen=at_parking if is_parked else None,
            source=looks.get(row.key),
            destination=looks.get(row.to),
            unread=tuple(key for key in ends if key not in looks),
            evidence=ledger.evidence.get(number, ""),
            reason=ledger.reasons.get(number, ""),
        )
        open_rows.append(open_row)
    return open_rows


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
    """Write the plan that carries out a person's word on open rows.

    Parameters
    ----------
    word : ``taken`` parks the planned version if it is still at the source. ``not_taken`` lets a
        new plan move the row, and brings a parked object back: a wrong word ships the object twice
    keys : source keys of the rows; empty: all unproven rows
    evidence : for each source key, what is known of the object's order now
    others : in words, how everyone else is kept from moving objects meanwhile

    Raises
    ------
    PlanError
        When a key is not the source key of an open row, or the bucket's memory was removed.
    NotApprovedError
        As in ``list_open_rows``: for example, when the plan is not at its end.
    StoreError
        When a key cannot be read.
    """
    open_rows = list_open_rows(bucket, plan, logs=logs, same_store=same_store)
    chosen = _choose_rows(plan, open_rows, word, keys)
    for open_row in chosen:
        check_all_read(bucket, plan, open_row.unread)
    is_undo = plan.header.action == "undo"
    header = derive_header(
        bucket,
        plan,
        plan_id=f"{plan.id}-settle-{secrets.token_hex(2)}",
        source=plan.header.to if is_undo else plan.header.source,
        to=plan.header.source if is_undo else plan.header.to,
        step=f"{plan.header.release_step}.2",
        action="settle",
        word=word,
        made_by=made_by,
        made_at=now,
        expires_at=now + SETTLE_LIFETIME,
        others=others,
    )
    rows = [_settle_row(bucket, header, open_row, word, evidence) for open_row in chosen]
    return plans.write_plan(plan.path.parent, header, rows, plans.Excluded())


def _choose_rows(
    plan: MovePlan, open_rows: Sequence[OpenRow], word: Word, keys: Sequence[str]
) -> list[OpenRow]:
    """Return the open rows that a word is about: those of ``keys``, or all unproven rows.

    The word *not taken* cannot be said again of a freed row. The word *taken* can, while the row's
    object is at its source.
    """
    if not keys:
        return [row for row in open_rows if not (row.is_conflict or row.is_freed)]
    by_key = {open_row.row.key: open_row for open_row in open_rows}
    if word == "not_taken":
        by_key = {key: open_row for key, open_row in by_key.items() if not open_row.is_freed}
    unknown = [key for key in keys if key not in by_key]
    if unknown:
        some = ", ".join(repr(key) for key in sorted(by_key)[:10]) or "none"
        raise PlanError(f"{unknown[0]!r} is not an open row of {plan.id}; open are: {some}")
    gone_keys = [key for key in keys if by_key[key].is_freed and by_key[key].source is None]
    if gone_keys:
        raise PlanError(f"{gone_keys[0]!r} was settled as not taken, and has gone since")
    return [by_key[key] for key in dict.fromkeys(keys)]


def _settle_row(
    bucket: S3Bucket, header: PlanHeader, open_row: OpenRow, word: Word, evidence: Mapping[str, str]
) -> PlanRow:
    """Return a row of a settling: it parks an object, brings it back, or only names the word."""
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
        sha256 = row.sha256
        if not sha256 and not source.has_hash:
            sha256 = bucket.read_sha256(row.key)
        return replace(row.with_version(source), to=parked_key, facts=facts, sha256=sha256)
    is_free = source is None and open_row.destination is None
    if word == "not_taken" and open_row.parked_seen is not None and is_free:
        parked = row.with_version(open_row.parked_seen)
        return replace(parked, key=open_row.parked, to=row.key, facts=facts)
    return replace(row, to="", facts=facts)


def _describe_source(open_row: OpenRow) -> str:
    """Say in a word what became of the object at the source."""
    if open_row.is_rewritten:
        return "rewritten"
    if open_row.source is not None:
        return "there"
    return "parked" if open_row.parked else "absent"


def check_all_read(bucket: S3Bucket, plan: MovePlan, unread: Sequence[str]) -> None:
    """Refuse to make a plan if keys could not be read.

    Parameters
    ----------
    plan : the plan that is to be settled or taken back

    Raises
    ------
    PlanError
        When the bucket has no id, and so no absence counts. The message names the next command.
    StoreError
        When a key could not be read for another reason.
    """
    if not unread:
        return
    _check_memory(bucket, plan, unread)
    raise StoreError(f"{unread[0]} could not be read: nothing was planned")


def _check_memory(bucket: S3Bucket, plan: MovePlan, unread: Sequence[str]) -> None:
    """Refuse to plan if keys could not be read because the bucket has no id."""
    if unread and not read_store_id(bucket):
        raise PlanError(
            "the bucket's memory (.runbook/) was removed: nobody can tell what is gone. Write the "
            f"memory anew with: {plan.header.resume_command}. Then try again"
        )


def name_undo(plan: PlanFile, number: int) -> str:
    """Return the id of the plan that takes another one back.

    Parameters
    ----------
    number : 1 for the first undo, 2 for the next one, and so on
    """
    return f"{plan.id}-undo" if number == 1 else f"{plan.id}-undo-{number}"


def make_reopen_plan(
    bucket: S3Bucket, settling: MovePlan, *, logs: Logs, made_by: str, now: datetime
) -> MovePlan:
    """Write the plan of a reopening, which takes a person's word back: the rows are open again.

    The object of a freed row is parked again. If that object has left its source since, the word
    stays. If a reopening was begun on this machine, and the bucket knows of no effect yet, return
    the plan of that reopening.

    Raises
    ------
    NotApprovedError
        When the settling was not carried out, is being taken back, or was taken back already.
    PlanError
        When the bucket has no id, and so no absence counts. The message names the way on.
    """
    reopening_id = _choose_reopening_id(bucket, settling)
    path = settling.path.with_name(f"{reopening_id}.jsonl")
    if path.exists():
        reopening = plans.parse_plan(path.read_bytes(), path=path)
        if Ledger(logs(reopening_id), reopening).is_begun:
            return reopening
    ledger = Ledger(logs(settling.id), settling, records.read_record(bucket, settling.id))
    if not ledger.is_ended:
        way_on = settling.header.resume_command
        raise NotApprovedError(f"{settling.id} was not carried out. Go on with: {way_on}")
    header = derive_header(
        bucket,
        settling,
        plan_id=reopening_id,
        step=f"{settling.header.release_step}.1",
        action="reopen",
        source=settling.header.source,
        to=settling.header.to,
        made_by=made_by,
        made_at=now,
        expires_at=now + SETTLE_LIFETIME,
        others=f"takes back the word {settling.header.word!r} of {settling.id}",
    )
    keys = [row.facts["key"] for row in settling.rows]
    looks = look_surely(bucket, keys, abilities=header.abilities)
    unread = [key for key in keys if key not in looks]
    _check_memory(bucket, settling, unread)
    rows, excluded = _reopen_rows(settling, looks)
    return plans.write_plan(settling.path.parent, header, rows, excluded)


def _reopen_rows(settling: MovePlan, looks: Look) -> tuple[list[PlanRow], plans.Excluded]:
    """Return the rows of a settling's reopening, and what the reopening leaves out.

    Parameters
    ----------
    looks : what is at the rows' sources now
    """
    excluded = plans.Excluded()
    rows = []
    for number, row in enumerate(settling.rows):
        key = row.facts["key"]
        if key not in looks:
            excluded.add("unreadable", key)
            continue
        at_source = looks[key]
        is_waiting = at_source is not None and at_source.has_same_content(row)
        # A new plan may move a freed object. Once the object has left its source, the word stays.
        if not is_waiting and settling.header.word == "not_taken":
            excluded.add("moved_since", key)
            continue
        facts = {**row.facts, "row": str(number)}
        reopened = replace(row, key=key, to=row.facts["to"], facts=facts)
        if at_source is not None and is_waiting:
            reopened = reopened.with_version(at_source)
        rows.append(reopened)
    return rows, excluded


def _choose_reopening_id(bucket: S3Bucket, settling: MovePlan) -> str:
    """Return an id for the reopening of a settling: the first id that no ended plan has.

    Raises
    ------
    NotApprovedError
        When a reopening is under way, or took the word back already.
    """
    for number in count(1):
        reopening_id = name_undo(settling, number)
        record = records.read_record(bucket, reopening_id)
        if record is None or record.is_unbegun:
            break
        if not record.ended:
            way_on = record.resume_command
            raise NotApprovedError(f"{settling.id} is being taken back. Go on with: {way_on}")
        if record.has_effect:
            raise NotApprovedError(f"{settling.id} was taken back by {reopening_id}")
    return reopening_id
