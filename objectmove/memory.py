"""What earlier plans left unfinished: what the bucket remembers of them, and what it forgot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chainlog import ChainedLog

from . import record as records
from .bucket import S3Bucket
from .carry import compare_with_plan, look_surely
from .ledger import Ledger
from .parking import list_parked
from .plan import MovePlan, PlanRow
from .record import Record
from .session import read_store_id
from .table import Place


@dataclass(frozen=True, slots=True)
class Begun:
    """A plan that was begun from this machine: its plan and its ledger."""

    plan: MovePlan
    log: ChainedLog


ListBegun = Callable[[], Mapping[str, Callable[[], Begun | None]]]
"""Every plan that has a ledger on this machine, by id; each is read only when it is asked for."""


def list_none() -> Mapping[str, Callable[[], Begun | None]]:
    """Return no plan: none was begun from this machine."""
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
    bucket: S3Bucket,
    *,
    parked_prefix: str,
    list_begun: ListBegun = list_none,
) -> Memory:
    """Read what earlier plans did not finish: from the bucket, and from this machine's ledgers.

    Only reads.

    Raises
    ------
    StoreError, PlanError
        When it cannot be read: nobody can say then what is in doubt.
    """
    parked = _find_parked(bucket, parked_prefix)
    open_records = records.list_records(bucket)
    owners = records.find_owned_keys(bucket)
    for record in open_records:
        if record.action == "reopen":
            reopened = _list_reopened(bucket, record)
            parked.update(reopened)
    forgotten = _find_forgotten_keys(bucket)
    ways_on: dict[str, str] = {}
    for plan in list_forgotten(bucket, list_begun):
        ways_on[plan.plan] = plan.way_on
        for key in plan.keys:
            forgotten[key] = plan.plan
    return Memory(
        owners=owners,
        forgotten=forgotten,
        parked=parked,
        ways_on=ways_on,
    )


def find_way_on(bucket: S3Bucket, record: Record) -> str:
    """Return the command that goes on with a plan, by what is still there. Only reads.

    Where all that a person could plan again went meanwhile, to resume the plan ends it.

    Raises
    ------
    StoreError, PlanError
        When the bucket cannot be read.
    """
    is_about_forgotten = record.is_over and not record.waits_for_a_word
    if not is_about_forgotten or not record.forgotten_rows:
        return record.way_on
    plan = records.read_recorded_plan(bucket, record, folder=Path())
    rows = {plan.rows[number].key: plan.rows[number] for number in record.forgotten_rows}
    looks = look_surely(bucket, sorted(rows), abilities=plan.header.abilities)
    for key, row in rows.items():
        place = compare_with_plan(looks, key, row, any_version=False)
        if place not in (Place.ABSENT, Place.OTHER):
            return record.way_on
    return record.resume_command


def _find_forgotten_keys(bucket: S3Bucket) -> dict[str, str]:
    """Return the keys of rows that only a person's word puts into a plan, and the plan of each."""
    forgotten = {}
    for record, plan in records.list_open_plans(bucket):
        for number in record.forgotten_rows:
            row = plan.rows[number]
            forgotten[row.key] = record.plan
            forgotten[row.to] = record.plan
    return forgotten


def _find_parked(bucket: S3Bucket, parked_prefix: str) -> dict[str, str]:
    """Return the rests of keys that are parked and not settled, and the plan of each."""
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
    forgotten = []
    for begun in list(_list_forgotten(bucket, list_begun)):
        plan = begun.plan
        ledger = Ledger(begun.log, plan)
        rows = [plan.rows[number] for number in ledger.list_open()]
        if not rows and ledger.hold is None:
            continue
        forgotten_plan = Forgotten(
            plan=plan.id,
            keys=_list_keys(rows),
            open_rows=len(rows),
            way_on=plan.header.resume_command,
        )
        forgotten.append(forgotten_plan)
    return sorted(forgotten, key=lambda plan: plan.plan, reverse=True)


def _list_keys(rows: Sequence[PlanRow]) -> tuple[str, ...]:
    """Return the keys of rows, at both ends."""
    keys = []
    for row in rows:
        keys.append(row.key)
        if row.to:
            keys.append(row.to)
    return tuple(keys)


def _list_reopened(bucket: S3Bucket, record: Record) -> dict[str, str]:
    """Return the rests of keys that are open again although their release was settled."""
    plan = records.read_recorded_plan(bucket, record, folder=Path())
    prefix = plan.header.source
    reopened = {}
    for row in plan.rows:
        rest = row.key.removeprefix(prefix)
        reopened[rest] = record.plan
    return reopened


def _list_forgotten(bucket: S3Bucket, list_begun: ListBegun) -> Iterator[Begun]:
    """Yield the plans that were begun here and that the bucket does not remember."""
    known = records.list_recorded_plans(bucket)
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
            yield begun
