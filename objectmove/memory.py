"""What earlier plans left unfinished: what the bucket remembers of them, and what it forgot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chainlog import ChainedLog

from . import record as records
from .bucket import S3Bucket
from .ledger import Ledger
from .parking import list_parked
from .plan import MovePlan, PlanRow
from .record import Record
from .session import read_store_id


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
    bucket: S3Bucket, *, parked_prefix: str, list_begun: ListBegun = list_none
) -> Memory:
    """Read what earlier plans did not finish: from the bucket, and from this machine's ledgers.

    Only reads.

    Raises
    ------
    StoreError, PlanError
        When it cannot be read: nobody can say then what is in doubt.
    """
    parked = _find_parked(bucket, parked_prefix)
    reopenings = [r for r in records.list_records(bucket) if r.action == "reopen"]
    owners = records.find_owned_keys(bucket)
    for record in reopenings:
        parked.update(_list_reopened(bucket, record))
    forgotten: dict[str, str] = {}
    for record, plan in records.list_open_plans(bucket):
        for number in record.forgotten_rows:
            row = plan.rows[number]
            forgotten.update(dict.fromkeys((row.key, row.to), record.plan))
    ways_on: dict[str, str] = {}
    for one in list_forgotten(bucket, list_begun):
        forgotten.update(dict.fromkeys(one.keys, one.plan))
        ways_on[one.plan] = one.way_on
    return Memory(owners=owners, forgotten=forgotten, parked=parked, ways_on=ways_on)


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
        ledger = Ledger(begun.log, begun.plan)
        rows = [begun.plan.rows[number] for number in ledger.list_open()]
        if rows or ledger.hold is not None:
            plan = Forgotten(
                plan=begun.plan.id,
                keys=_list_keys(rows),
                open_rows=len(rows),
                way_on=begun.plan.header.resume_command,
            )
            forgotten.append(plan)
    return sorted(forgotten, key=lambda one: one.plan, reverse=True)


def _list_keys(rows: Sequence[PlanRow]) -> tuple[str, ...]:
    """Return the keys of rows, at both ends."""
    keys: list[str] = []
    for row in rows:
        keys += filter(None, (row.key, row.to))
    return tuple(keys)


def _list_reopened(bucket: S3Bucket, record: Record) -> dict[str, str]:
    """Return the rests of keys that are open again although their release was settled."""
    plan = records.read_recorded_plan(bucket, record, folder=Path())
    prefix = plan.header.source
    return {row.key.removeprefix(prefix): record.plan for row in plan.rows}


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
