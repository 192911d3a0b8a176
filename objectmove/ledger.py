"""What is known of a release: its ledger in a folder, and the bucket's record of it.

The ledger says what happened to each row of a plan; resume, undo and proof rest on it and on the
store. Lines, in order: ``approved``; for each batch ``intent`` (on the disk before its first
request), ``landed``, ``refused`` or ``doubtful`` as answers come, ``deleting`` (on the disk before
its first delete), the outcomes ``moved``, ``skipped``, ``conflict`` and ``unproven``; ``done`` when
nothing is left but what a person must decide. ``hold`` says that the worker is paused for this
plan; ``taken``, ``not_taken`` (a person's word) and ``taken_back`` come from other plans.

The record, ``.runbook/releases/<plan>/``, lets every machine see a release that is not finished:
``plan.jsonl`` is there before the first copy; ``state.json`` says, before each batch, how many rows
were begun, and which are open.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from chainlog import ChainedLog, Entry

from .bucket import Request, S3Bucket, format_time, parse_time
from .errors import PlanError
from .plan import MovePlan, Part, PlanId, Timestamp, parse_plan
from .session import Session
from .table import State

RELEASES = ".runbook/releases/"

Logs = Callable[[str], ChainedLog]
"""Plan id to its ledger."""

#: What becomes of a row.
CLOSED = (State.MOVED, State.SKIPPED, State.CONFLICT, State.UNPROVEN)
OPEN = (State.CONFLICT, State.UNPROVEN)
_STATES = {state.value: state for state in State}
_STATES |= {"intent": State.DOUBTFUL, "refused": State.NONE}
_STATES |= {"taken": State.TAKEN, "not_taken": State.FREED}


class Landing(NamedTuple):
    """A copy that was there: by its answer, or found by a look (``at`` is unknown then)."""

    etag: str
    at: datetime | None


class Record(Part):
    """What the bucket knows of one release.

    Attributes
    ----------
    begun : rows from the first one on that were announced
    ledger : hash of the ledger's last line then: a ledger without it is an older copy
    fence_at : the store's time from which on nothing of it can take effect any more
    finished : nothing is left to do but what a person must decide
    open_rows : those that wait for a person's word
    is_holding : the worker is paused for it
    """

    plan: PlanId
    sha256: str
    by: str
    host: str
    begun: int
    ledger: str
    fence_at: Timestamp
    finished: bool
    open_rows: frozenset[int]
    is_holding: bool


class Ledger:
    """The ledger of one plan: read once under its lock, then kept as lines are added.

    Parameters
    ----------
    record : what the bucket knows; a ledger that is behind it believes it

    Attributes
    ----------
    states : by row
    landings : of rows whose copy was there
    reasons : why a row did not move, in words
    lost : keys whose newer version went in the declared window
    fence_at : the store's time from which on no request of the past can take effect
    """

    def __init__(self, log: ChainedLog, plan: MovePlan, record: Record | None = None) -> None:
        self.log, self.plan = log, plan
        self.states = dict.fromkeys(range(len(plan.rows)), State.NONE)
        self.landings: dict[int, Landing] = {}
        self.reasons: dict[int, str] = {}
        self.lost: list[str] = []
        self.fence_at = datetime.min.replace(tzinfo=UTC)
        self.approved_by = self.approved_sha256 = self.head = ""
        self.begun = 0
        self.is_done = self.is_holding = self.is_taken_back = self.is_behind = False
        entries = log.read()
        for entry in entries:
            self._take(entry)
        if record is not None and record.ledger not in {"", *(entry.hash for entry in entries)}:
            self.is_behind = True
            self._believe(record)

    def rows(self, *states: State) -> list[int]:
        """Return the rows in some states, in order."""
        return [row for row, state in self.states.items() if state in states]

    def note(self, kind: str, rows: Iterable[int] = (), *, sync: bool = False, **data: Any) -> None:
        """Write one line and take it in.

        Raises
        ------
        LogError
            When it could not be written: send nothing more.
        """
        named = {"rows": sorted(rows)} if rows else {}
        self._take(self.log.append(kind, {**named, **data}, sync=sync))

    def land(self, row: int, etag: str, at: datetime | None) -> None:
        """Write that a copy is there: since when by its answer, or found by a look."""
        self.note("landed", [row], etag=etag, at=format_time(at) if at else "")

    def close(self, state: State, rows: Iterable[int]) -> None:
        """Write an outcome of some rows, with the reasons."""
        if rows:
            reasons = {str(row): self.reasons[row] for row in rows if row in self.reasons}
            self.note(state.value, rows, reasons=reasons)

    def _take(self, entry: Entry) -> None:
        data, self.head = entry.data, entry.hash
        rows = data.get("rows", ())
        if "fence_at" in data:
            self.fence_at = max(self.fence_at, parse_time(data["fence_at"]))
        if entry.kind in _STATES:
            self.states |= dict.fromkeys(rows, _STATES[entry.kind])
            self.begun = max(self.begun, 1 + max(rows, default=-1))
        match entry.kind:
            case "approved":
                self.approved_sha256, self.approved_by = data["sha256"], data["by"]
            case "landed":
                at = parse_time(data["at"]) if data["at"] else None
                self.landings |= dict.fromkeys(rows, Landing(data["etag"], at))
            case "window":
                self.lost += data["lost"]
            case "hold":
                self.is_holding = data["taken"]
            case "believed":
                self._believe(Record.model_validate(data["record"]))
            case "taken_back":
                self.is_taken_back = True
            case "done":
                self.is_done = True
        self.reasons |= {int(row): why for row, why in data.get("reasons", {}).items()}

    def _believe(self, record: Record) -> None:
        """Take over what the bucket knew and this ledger, an older copy then, did not."""
        self.fence_at = max(self.fence_at, record.fence_at)
        self.is_holding |= record.is_holding
        begun = 0 if record.finished else record.begun
        doubtful = [row for row in self.rows(State.NONE) if row < begun]
        self.states |= dict.fromkeys(doubtful, State.DOUBTFUL)
        self.states |= dict.fromkeys(record.open_rows & self.states.keys(), State.UNPROVEN)
        self.begun = max(self.begun, record.begun)


def list_records(bucket: S3Bucket) -> list[Record]:
    """Return every release that the bucket knows of; only reads.

    Raises
    ------
    StoreError
        When the bucket cannot be read.
    PlanError
        When a record cannot be understood: nobody can say then what is in doubt.
    """
    keys = sorted(seen.key for seen in bucket.list_objects(RELEASES))
    plans = [key.split("/")[2] for key in keys if key.endswith("/state.json")]
    return [record for plan in plans if (record := read_record(bucket, plan))]


def read_record(bucket: S3Bucket, plan: str) -> Record | None:
    """Return the record of one release, None when it has none."""
    key = _key(plan, "state.json")
    if (content := bucket.read(key)) is None:
        return None
    try:
        return Record.model_validate_json(content)
    except ValueError as error:
        raise PlanError(f"{key} in the bucket is no record: {error}. Look who wrote it.") from error


def read_recorded_plan(bucket: S3Bucket, record: Record, *, folder: Path) -> MovePlan:
    """Return the plan that a record holds, as if it lay in ``folder``.

    Raises
    ------
    PlanError
        When it is missing, or not the one that was approved.
    """
    content = bucket.read(_key(record.plan, "plan.jsonl")) or b""
    plan = parse_plan(content, path=folder / f"{record.plan}.jsonl")
    if plan.sha256 != record.sha256:
        raise PlanError(f"the bucket's copy of {record.plan} is not the plan that was approved")
    return plan


def find_keys_in_doubt(bucket: S3Bucket, *, but: Container[str] = ()) -> dict[str, str]:
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
        touched_rows = record.open_rows.union(range(0 if record.finished else record.begun))
        if record.plan not in but and touched_rows:
            rows = read_recorded_plan(bucket, record, folder=Path()).rows
            touched = [row for place, row in enumerate(rows) if place in touched_rows]
            keys |= {key: record.plan for row in touched for key in (row.key, row.to) if key}
    return keys


def put_recorded_plan(session: Session, plan: MovePlan) -> None:
    """Put the plan into the bucket."""
    session.change(Request("put", _key(plan.id, "plan.jsonl"), body=plan.content))


def put_record(session: Session, record: Record) -> None:
    """Put a record into the bucket; of a release that nobody must look at nothing stays."""
    state = _key(record.plan, "state.json")
    if record.finished and not (record.open_rows or record.is_holding):
        session.change(Request("delete", state))
        session.change(Request("delete", _key(record.plan, "plan.jsonl")))
    else:
        session.change(Request("put", state, body=record.model_dump_json().encode()))


def _key(plan: str, name: str) -> str:
    return f"{RELEASES}{plan}/{name}"
