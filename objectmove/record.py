"""The bucket's own record of a release, so that every machine sees one that is not finished.

``.runbook/releases/<plan>/plan.jsonl`` holds the plan before the first copy;
``…/state.json`` says, before each batch, how many rows were begun, and which are open.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from .bucket import Bucket, Request
from .errors import PlanError
from .plan import PLAN_ID, MovePlan, Timestamp, parse_plan
from .session import Session

RELEASES = ".runbook/releases/"


def pack(rows: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Write row numbers as ranges, first and last."""
    packed: list[tuple[int, int]] = []
    for row in sorted(rows):
        if packed and packed[-1][1] == row - 1:
            packed[-1] = (packed[-1][0], row)
        else:
            packed.append((row, row))
    return tuple(packed)


def unpack(packed: Iterable[Sequence[int]]) -> frozenset[int]:
    """Return the row numbers of ranges."""
    return frozenset(row for first, last in packed for row in range(first, last + 1))


_Ranges = BeforeValidator(lambda some: some if isinstance(some, frozenset) else unpack(some))
Rows = Annotated[frozenset[int], PlainSerializer(pack), _Ranges]
"""Row numbers; ranges in JSON."""


class Record(BaseModel):
    """What the bucket knows of one release.

    Attributes
    ----------
    begun : rows from the first one on that were announced
    ledger : hash of the ledger's last line then: a ledger without it is an older copy
    fence_at : the store's time from which on nothing of it can take effect any more
    finished : nothing is left to do but what a person must decide
    unproven, conflicts : the rows that a person must decide
    is_holding : the worker is paused for it
    taken_back_by : the undo that took it back
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    plan: str = Field(pattern=PLAN_ID.pattern)
    sha256: str = Field(pattern=r"[0-9a-f]{64}")
    by: str
    host: str = ""
    begun: int = 0
    ledger: str = ""
    fence_at: Timestamp | None = None
    finished: bool = False
    unproven: Rows = frozenset()
    conflicts: Rows = frozenset()
    is_holding: bool = False
    taken_back_by: str = ""

    @property
    def open_rows(self) -> frozenset[int]:
        """Rows that wait for a person's word."""
        return self.unproven | self.conflicts

    @property
    def touched_rows(self) -> frozenset[int]:
        """Rows that no other plan may hold."""
        return self.open_rows if self.finished else self.open_rows.union(range(self.begun))


def list_records(bucket: Bucket) -> list[Record]:
    """Return every release that the bucket knows of; only reads.

    Raises
    ------
    StoreError
        When the bucket cannot be read.
    PlanError
        When a record cannot be understood: nobody can say then what is in doubt.
    """
    plans = {seen.key[len(RELEASES) :].partition("/")[0] for seen in bucket.list_objects(RELEASES)}
    found = (read_record(bucket, plan) for plan in sorted(plans))
    return [record for record in found if record is not None]


def read_record(bucket: Bucket, plan: str) -> Record | None:
    """Return the record of one release, None when it has none."""
    content = bucket.read(_key(plan, "state.json"))
    if content is None:
        return None
    try:
        record = Record.model_validate_json(content)
        if record.plan != plan:
            raise ValueError(f"it is of {record.plan}")
    except ValueError as error:
        what = f"{_key(plan, 'state.json')} in the bucket is no record of a release ({error})"
        raise PlanError(f"{what}. Look who wrote it.") from error
    return record


def read_recorded_plan(bucket: Bucket, record: Record, *, folder: Path) -> MovePlan:
    """Return the plan that a record holds, as if it lay in ``folder``.

    Raises
    ------
    PlanError
        When it is missing, or not the one that was approved.
    """
    content = bucket.read(_key(record.plan, "plan.jsonl"))
    if content is None:
        raise PlanError(f"the bucket's record of {record.plan} has no plan")
    plan = parse_plan(content, path=folder / f"{record.plan}.jsonl")
    if plan.sha256 != record.sha256:
        raise PlanError(f"the bucket's copy of {record.plan} is not the plan that was approved")
    return plan


def find_keys_in_doubt(bucket: Bucket, *, but: Container[str] = ()) -> dict[str, str]:
    """Return every key, source or destination, that an unfinished or unproven release touched.

    Parameters
    ----------
    but : plans that are not asked for

    Returns
    -------
    Key to plan id.
    """
    keys: dict[str, str] = {}
    for record in list_records(bucket):
        if record.plan not in but and (touched := record.touched_rows):
            rows = read_recorded_plan(bucket, record, folder=Path()).rows
            for row in (row for place, row in enumerate(rows) if place in touched):
                keys |= dict.fromkeys(filter(None, (row.key, row.to)), record.plan)
    return keys


def write_recorded_plan(session: Session, plan: MovePlan) -> None:
    """Put the plan into the bucket."""
    session.change(Request("put", _key(plan.id, "plan.jsonl"), body=plan.content))


def write_record(session: Session, record: Record) -> None:
    """Put a record into the bucket."""
    body = record.model_dump_json().encode()
    session.change(Request("put", _key(record.plan, "state.json"), body=body))


def delete_record(session: Session, plan: str) -> None:
    """Remove what the bucket knows of a release: the state first."""
    for name in ("state.json", "plan.jsonl"):
        session.change(Request("delete", _key(plan, name)))


def _key(plan: str, name: str) -> str:
    if not PLAN_ID.fullmatch(plan):
        raise PlanError(f"{plan!r} is not the name of a plan")
    return f"{RELEASES}{plan}/{name}"
