"""What happened to each row of a plan. Resume, undo and proof rest on this and on the store.

Lines, in order: ``approved``; for each batch ``intent`` (on the disk before its first request),
``landed``, ``refused`` or ``doubtful`` as answers come, ``deleting`` (on the disk before its first
delete), the outcomes ``moved``, ``skipped``, ``conflict`` and ``unproven``; ``done`` when nothing
is left but what a person must decide. ``hold`` says that the worker is paused for this plan;
``taken``, ``not_taken`` (a person's word) and ``taken_back`` come from other plans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chainlog import ChainedLog, Entry

from .bucket import format_time, parse_time
from .plan import MovePlan
from .record import Record, pack, unpack
from .table import State

Logs = Callable[[str], ChainedLog]
"""Plan id to its ledger."""

#: What becomes of a row.
CLOSED = (State.MOVED, State.SKIPPED, State.CONFLICT, State.UNPROVEN)
_STATES = {"intent": State.DOUBTFUL, "refused": State.NONE, "landed": State.LANDED}
_STATES |= {"taken": State.TAKEN, "not_taken": State.FREED, **{s.value: s for s in CLOSED}}


@dataclass(frozen=True, slots=True)
class Landing:
    """A copy that was there: by its answer, or found by a look (``at`` is unknown then)."""

    etag: str
    at: datetime | None


class Ledger:
    """The ledger of one plan: read once under its lock, then kept as lines are added.

    Attributes
    ----------
    states : of each row
    landings : of rows whose copy was there
    reasons : why a row did not move, in words
    fence_at : the store's time from which on no request of the past can take effect
    """

    def __init__(self, log: ChainedLog, plan: MovePlan, record: Record | None = None) -> None:
        self.log, self.plan = log, plan
        self.states = [State.NONE] * len(plan.rows)
        self.landings: dict[int, Landing] = {}
        self.reasons: dict[int, str] = {}
        self.fence_at: datetime | None = None
        self.approved_by = self.approved_sha256 = self.taken_back_by = self.head = ""
        self.begun = 0
        self.is_done = self.is_holding = False
        self.already: set[int] = set()
        self.lost: list[str] = []
        entries = log.read()
        for entry in entries:
            self._take(entry)
        known = {"", *(entry.hash for entry in entries)}
        self.is_behind = record is not None and record.ledger not in known
        if record is not None:
            self.taken_back_by = self.taken_back_by or record.taken_back_by
            if self.is_behind:
                self._believe(record)

    def summarize(self, **more: Any) -> Record:
        """Return what the bucket should know; ``more``: its other fields."""
        ids = {"plan": self.plan.id, "sha256": self.plan.sha256, "ledger": self.head}
        state = {"begun": self.begun, "taken_back_by": self.taken_back_by}
        unproven, conflicts = (frozenset(self.rows(s)) for s in (State.UNPROVEN, State.CONFLICT))
        open_ = {"unproven": unproven, "conflicts": conflicts, "is_holding": self.is_holding}
        return Record.model_validate({**ids, **state, **open_, **more})

    def rows(self, *states: State) -> list[int]:
        """Return the rows in some states, in order."""
        return [row for row, state in enumerate(self.states) if state in states]

    def note(self, kind: str, rows: Iterable[int] = (), *, sync: bool = False, **data: Any) -> None:
        """Write one line and take it in.

        Raises
        ------
        LogError
            When it could not be written: send nothing more.
        """
        named = {"rows": pack(rows)} if rows else {}
        self._take(self.log.append(kind, {**named, **data}, sync=sync))

    def announce(self, rows: Iterable[int], fence_at: datetime) -> None:
        """Write which rows are copied next; there is room for what comes of it afterwards."""
        self.log.reserve()
        self.note("intent", rows, sync=True, fence_at=format_time(fence_at))

    def land(self, row: int, etag: str, at: datetime | None) -> None:
        """Write that a copy is there: since when by its answer, or found by a look."""
        self.note("landed", [row], etag=etag, at=format_time(at) if at else "")

    def close(self, state: State, rows: Sequence[int]) -> None:
        """Write an outcome of some rows, with the reasons."""
        if rows:
            reasons = {str(row): self.reasons[row] for row in rows if row in self.reasons}
            self.note(state.value, rows, reasons=reasons)

    def _take(self, entry: Entry) -> None:
        data, self.head = entry.data, entry.hash
        rows = unpack(data.get("rows", ()))
        if "fence_at" in data:
            self._wait_for(parse_time(data["fence_at"]))
        if entry.kind in _STATES:
            self._set(rows, _STATES[entry.kind])
            self.begun = max(self.begun, 1 + max(rows, default=-1))
        match entry.kind:
            case "approved":
                self.approved_sha256, self.approved_by = data["sha256"], data["by"]
            case "landed":
                at = parse_time(data["at"]) if data["at"] else None
                self.landings |= dict.fromkeys(rows, Landing(data["etag"], at))
                self.already |= rows if at is None else set()
            case "window":
                self.lost += data["lost"]
            case "hold":
                self.is_holding = data["taken"]
            case "believed":
                self._believe(Record.model_validate(data["record"]))
            case "taken_back":
                self.taken_back_by = data["by"]
            case "done":
                self.is_done = True
        self.reasons |= {int(row): why for row, why in data.get("reasons", {}).items()}

    def _wait_for(self, fence_at: datetime) -> None:
        self.fence_at = max(fence_at, self.fence_at or fence_at)

    def _set(self, rows: Iterable[int], state: State) -> None:
        for row in rows:
            self.states[row] = state

    def _believe(self, record: Record) -> None:
        """Take over what the bucket knew and this ledger, an older copy then, did not."""
        self.is_holding = self.is_holding or record.is_holding
        self.begun = max(self.begun, record.begun)
        if record.fence_at:
            self._wait_for(record.fence_at)
        known = range(len(self.states))
        self._set(
            [r for r in known[: record.begun] if self.states[r] is State.NONE], State.DOUBTFUL
        )
        self._set(record.unproven.intersection(known), State.UNPROVEN)
        self._set(record.conflicts.intersection(known), State.CONFLICT)
