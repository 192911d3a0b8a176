"""What earlier plans left unfinished: what the bucket remembers of them, and what it forgot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chainlog import ChainedLog

from . import record as records
from .bucket import S3Bucket, format_time
from .carry import compare_with_plan, look_surely
from .errors import MoveError, PlanError
from .ledger import Ledger
from .parking import list_parked
from .plan import MovePlan, PlanRow, find_manifest, parse_plan
from .record import HoldNote, Record
from .session import read_store_id
from .table import Place

_MEMORY_REMOVED = "the bucket's memory (.runbook/) of this plan was removed"


@dataclass(frozen=True, slots=True)
class Begun:
    """A plan that was begun on this machine, and its ledger."""

    plan: MovePlan
    log: ChainedLog


ListBegun = Callable[[], Mapping[str, Callable[[], Begun | None]]]
"""Returns the plans that have a ledger on this machine.

The keys are the plans' ids; the values are functions that read the plan. Such a function returns
None when the plan's file is damaged or gone.
"""


def read_begun(path: Path, ledger: Path) -> Begun | None:
    """Read a plan that has a ledger on this machine; None when its file is damaged or gone.

    Parameters
    ----------
    path, ledger : the files of the plan and of its ledger
    """
    try:
        plan = parse_plan(path.read_bytes(), path=path)
    except (OSError, PlanError):
        return None
    return Begun(plan, ChainedLog(ledger))


def list_none() -> Mapping[str, Callable[[], Begun | None]]:
    """Return no plan: a ``ListBegun`` for a machine that began none."""
    return {}


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier plans did not finish.

    Attributes
    ----------
    owners : for each key, the record of the unfinished plan that the key belongs to
    forgotten : for each key of a forgotten row, the plan of the row: the bucket forgot what became
        of the row's object
    parked : for each key (without the source prefix), the plan without a tombstone that parked the
        object. If a reopening took a person's word on the object back, the reopening
    ways_on : for each plan that the bucket does not remember, the command that goes on with the
        plan; an undo or a settling comes before its release
    """

    owners: Mapping[str, Record]
    forgotten: Mapping[str, str]
    parked: Mapping[str, str]
    ways_on: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A plan that is not finished, or waits for a person's word.

    Attributes
    ----------
    by : who began the plan, and on which machine
    state : what is left to do, in words
    rows : how many rows were announced; of a plan that has ended, how many wait for a person; of a
        plan that the bucket forgot, how many are open
    way_on : the command that goes on with the plan
    held_by, held_since : who began the hold for the plan, and when, by the store's time; empty when
        nobody is held
    planned : how many rows the plan has; 0 when that is not known, and for a plan that was not
        begun, has ended, or is known only to this machine
    """

    plan: str
    by: str
    state: str
    rows: int
    way_on: str
    held_by: str = ""
    held_since: str = ""
    planned: int = 0


def list_unfinished(bucket: S3Bucket, list_begun: ListBegun = list_none) -> list[Unfinished]:
    """Return the unfinished plans of a bucket; those for which others are held come first.

    Only reads.

    Parameters
    ----------
    list_begun : lists the plans that were begun on this machine: the bucket may have forgotten some

    Raises
    ------
    StoreError, PlanError
        When the bucket cannot be read.
    """
    open_records = [record for record in records.list_records(bucket) if not record.is_closed]
    # While an undo or a settling of a plan is under way, the plan itself is left out if it ended.
    busy_parents = {record.parent for record in open_records if not record.is_over}
    unfinished = [_describe_forgotten(plan) for plan in list_forgotten(bucket, list_begun)]
    for record in open_records:
        if record.ended and record.plan in busy_parents:
            continue
        unfinished.append(_describe_record(bucket, record))
    return sorted(unfinished, key=lambda plan: not plan.held_by)  # False sorts first


def _describe_forgotten(forgotten: Forgotten) -> Unfinished:
    """Describe a plan that the bucket forgot."""
    hold = forgotten.hold
    return Unfinished(
        plan=forgotten.plan,
        by="this machine",
        state=_add_hold(_MEMORY_REMOVED, hold),
        rows=forgotten.open_rows,
        way_on=forgotten.way_on,
        held_by=hold.by if hold else "",
        held_since=format_time(hold.since) if hold else "",
    )


def _add_hold(state: str, hold: HoldNote | None) -> str:
    """Return a plan's state, in words, and how the others are held for the plan if they are."""
    return f"{state}; {hold.words}" if hold else state


def _count_planned(bucket: S3Bucket, record: Record) -> int:
    """Return how many rows a plan has; 0 for one not begun, ended or unreadable. Only reads."""
    if record.is_over or record.is_unbegun:
        return 0
    try:
        return len(records.read_recorded_plan(bucket, record, folder=Path()).rows)
    except MoveError:
        return 0


def _describe_record(bucket: S3Bucket, record: Record) -> Unfinished:
    """Describe a plan by its record, and by what the bucket holds of it."""
    if record.is_over and record.rows_awaiting_word:
        rows = len(record.rows_awaiting_word)
        state = "waits for a person to say what became of these objects"
    elif record.is_over:
        rows = len(record.forgotten_rows)
        state = _MEMORY_REMOVED
    elif record.is_unbegun and find_manifest(record.plan):
        rows = 0
        state = "approved with its manifest, and not begun"
    else:
        rows = record.begun
        state = "being taken back" if record.action == "undo" else "begun and not finished"
    return Unfinished(
        plan=record.plan,
        by=f"{record.by} on {record.host}",
        state=_add_hold(state, record.hold),
        rows=rows,
        way_on=find_way_on(bucket, record),
        held_by=record.hold.by if record.hold else "",
        held_since=format_time(record.hold.since) if record.hold else "",
        planned=_count_planned(bucket, record),
    )


def read_memory(
    bucket: S3Bucket, *, parked_prefix: str, list_begun: ListBegun = list_none
) -> Memory:
    """Read what earlier plans did not finish: from the bucket, and from this machine's ledgers.

    Only reads.

    Parameters
    ----------
    parked_prefix : the prefix under which objects are parked
    list_begun : lists the plans that were begun on this machine

    Raises
    ------
    StoreError, PlanError
        When the bucket cannot be read: nobody knows then which rows are in doubt.
    """
    parked = _find_parked(bucket, parked_prefix)
    open_records = records.list_records(bucket)
    owners = records.find_owned_keys(bucket)
    for record in open_records:
        if record.action == "reopen":
            # A person must decide on these rows again, whether or not their objects are parked.
            reopened = _list_reopened(bucket, record)
            parked.update(reopened)
    forgotten = _find_forgotten_keys(bucket)
    ways_on: dict[str, str] = {}
    for plan in list_forgotten(bucket, list_begun):
        ways_on[plan.plan] = plan.way_on
        for key in plan.keys:
            forgotten[key] = plan.plan
    return Memory(owners=owners, forgotten=forgotten, parked=parked, ways_on=ways_on)


def find_way_on(bucket: S3Bucket, record: Record) -> str:
    """Return the command that goes on with a plan. Only reads.

    If the plan waits only for a new plan of its forgotten rows, look at the objects of these rows.
    If all of these have gone or were rewritten, there is nothing to plan: a resume ends the plan.

    Raises
    ------
    StoreError, PlanError
        When the bucket cannot be read.
    """
    is_decided = record.is_over and not record.rows_awaiting_word
    if not is_decided or not record.forgotten_rows:
        return record.way_on
    plan = records.read_recorded_plan(bucket, record, folder=Path())
    row_by_key = {plan.rows[number].key: plan.rows[number] for number in record.forgotten_rows}
    looks = look_surely(bucket, sorted(row_by_key), abilities=plan.header.abilities)
    for key, row in row_by_key.items():
        place = compare_with_plan(looks, key, row, any_version=False)
        if place not in (Place.ABSENT, Place.OTHER):
            return record.way_on
    return record.resume_command


def _find_forgotten_keys(bucket: S3Bucket) -> dict[str, str]:
    """Return which keys need a person's word before they are planned again.

    The keys are objects' keys; the values are the ids of the plans whose forgotten rows name them.
    """
    forgotten = {}
    for record, plan in records.list_open_plans(bucket):
        for number in record.forgotten_rows:
            row = plan.rows[number]
            forgotten[row.key] = record.plan
            forgotten[row.to] = record.plan
    return forgotten


def _find_parked(bucket: S3Bucket, parked_prefix: str) -> dict[str, str]:
    """Return which plan without a tombstone parked each object.

    The keys are the objects' keys without the source prefix; the values are ids of plans.
    """
    known = records.list_recorded_plans(bucket)
    closed = {plan for plan, has_tombstone in known.items() if has_tombstone}
    parked = {}
    for rest, plan_ids in list_parked(bucket, parked_prefix).items():
        open_ids = sorted(plan_ids - closed)
        if open_ids:
            parked[rest] = open_ids[0]
    return parked


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A plan that was begun on this machine, and that the bucket forgot.

    Attributes
    ----------
    keys : source and destination of each open row
    open_rows : how many rows are open
    way_on : the command that goes on with the plan
    hold : who is held for the plan, by the ledger on this machine; None when nobody is held
    """

    plan: str
    keys: tuple[str, ...]
    open_rows: int
    way_on: str
    hold: HoldNote | None


def list_forgotten(bucket: S3Bucket, list_begun: ListBegun) -> list[Forgotten]:
    """Return the plans that the bucket forgot, and that still need someone. Only reads.

    The ids are in descending order. So an undo or a settling comes before its release: its id is
    that of the release, and more.

    Raises
    ------
    StoreError
        When the bucket cannot be read.
    """
    forgotten = []
    begun_plans = list(_find_forgotten_plans(bucket, list_begun))
    undo_commands = _find_undo_commands(bucket) if begun_plans else {}
    for begun in begun_plans:
        plan = begun.plan
        ledger = Ledger(begun.log, plan)
        rows = [plan.rows[number] for number in ledger.list_open()]
        if not rows and ledger.hold is None:
            continue
        forgotten_plan = Forgotten(
            plan=plan.id,
            keys=_list_keys(rows),
            open_rows=len(rows),
            way_on=undo_commands.get(plan.id, plan.header.resume_command),
            hold=ledger.hold,
        )
        forgotten.append(forgotten_plan)
    return sorted(forgotten, key=lambda plan: plan.plan, reverse=True)


def _find_undo_commands(bucket: S3Bucket) -> dict[str, str]:
    """Return the commands that go on with undos that have not ended.

    The keys are the ids of the plans that are taken back. Until its undo has ended, such a plan
    cannot be resumed.
    """
    open_records = records.list_records(bucket)
    undos = [record for record in open_records if record.action == "undo" and not record.ended]
    return {undo.parent: undo.resume_command for undo in undos}


def _list_keys(rows: Sequence[PlanRow]) -> tuple[str, ...]:
    """Return the keys of rows, source and destination."""
    keys = []
    for row in rows:
        keys.append(row.key)
        if row.to:
            keys.append(row.to)
    return tuple(keys)


def _list_reopened(bucket: S3Bucket, record: Record) -> dict[str, str]:
    """Return the rows of a reopening, which took a person's word on them back.

    The keys are the rows' keys without the source prefix; each value is the reopening's id.
    """
    plan = records.read_recorded_plan(bucket, record, folder=Path())
    prefix = plan.header.source
    reopened = {}
    for row in plan.rows:
        rest = row.key.removeprefix(prefix)
        reopened[rest] = record.plan
    return reopened


def _find_forgotten_plans(bucket: S3Bucket, list_begun: ListBegun) -> Iterator[Begun]:
    """Yield the plans that were begun on this machine, and that the bucket forgot."""
    recorded = records.list_recorded_plans(bucket)
    store_id = ""  # read only when a plan needs it
    for plan_id, read in list_begun().items():
        if plan_id in recorded:
            continue
        begun = read()
        if begun is None or begun.plan.header.bucket != bucket.name:
            continue
        ledger = Ledger(begun.log, begun.plan)
        store_id = store_id or read_store_id(bucket)
        has_same_endpoint = begun.plan.header.endpoint == bucket.endpoint
        has_same_id = bool(store_id) and ledger.store_id == store_id
        is_begun = ledger.is_begun or ledger.hold is not None
        if is_begun and (has_same_endpoint or has_same_id):
            yield begun
