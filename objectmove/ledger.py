"""What happened to each row of a plan. Resume, undo and proof rest on this and on the store.

Lines, in order: ``approved``; for each batch ``intent`` (on the disk before its first request),
``landed``, ``refused`` or ``doubtful`` as answers come, ``deleting`` (on the disk before its first
delete), ``outcome``; ``done`` when nothing is left but what a person must decide. ``hold`` says
that the worker is paused for this plan; ``settled`` and ``taken_back`` come from other plans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from chainlog import Entry

from .bucket import format_time, parse_time
from .plan import MovePlan
from .record import Record, pack, unpack
from .table import State


class Log(Protocol):
    """An append-only log, such as ``chainlog.ChainedLog``; every method raises ``LogError``."""

    def locked(self) -> AbstractContextManager[None]:
        """Keep others from appending."""

    def append(self, kind: str, data: dict[str, Any], *, sync: bool = True) -> Entry:
        """Append one entry; with ``sync`` it is on the disk afterwards."""

    def read(self) -> list[Entry]:
        """Return every entry."""

    def reserve(self) -> None:
        """Keep room on the disk for what happens next."""

    def release_reserve(self) -> None:
        """Give that room back."""


Logs = Callable[[str], Log]
"""Plan id to its ledger."""

_STATES = {"intent": State.DOUBTFUL, "refused": State.NONE, "landed": State.LANDED}
_OUTCOMES = {
    "moved": State.MOVED,
    "skipped": State.SKIPPED,
    "conflicts": State.CONFLICT,
    "unproven": State.UNPROVEN,
}
_WORDS = {"taken": State.TAKEN, "not_taken": State.FREED}


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

    def __init__(self, log: Log, plan: MovePlan, record: Record | None = None) -> None:
        self._log = log
        self.plan = plan
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
            self._believe(record)

    def rows(self, *states: State) -> list[int]:
        """Return the rows in some states, in order."""
        return [row for row, state in enumerate(self.states) if state in states]

    def note(self, kind: str, data: dict[str, Any], *, sync: bool = False) -> None:
        """Write one line and take it in.

        Raises
        ------
        LogError
            When it could not be written: send nothing more.
        """
        self._take(self._log.append(kind, data, sync=sync))

    def announce(self, rows: Iterable[int], fence_at: datetime) -> None:
        """Write which rows are copied next; there is room for what comes of it afterwards."""
        self._log.reserve()
        self._note_intent(rows, fence_at)

    def _note_intent(self, rows: Iterable[int], fence_at: datetime) -> None:
        self.note("intent", {"rows": pack(rows), "fence_at": format_time(fence_at)}, sync=True)

    def land(self, row: int, etag: str, at: datetime | None) -> None:
        """Write that a copy is there: since when by its answer, or found by a look."""
        when = format_time(at) if at else ""
        self.note("landed", {"rows": pack([row]), "etag": etag, "at": when})

    def settle_rows(self, **rows: Sequence[int]) -> None:
        """Write outcomes: ``moved``, ``skipped``, ``conflicts`` or ``unproven``, by row."""
        if named := {name: pack(some) for name, some in rows.items() if some}:
            dealt_with = sorted({row for some in rows.values() for row in some})
            reasons = {str(r): self.reasons[r] for r in dealt_with if r in self.reasons}
            self.note("outcome", {**named, "reasons": reasons})

    def keep_belief(self) -> None:
        """Write down what only the bucket's record knew, before the record is written anew."""
        if self.is_behind and self.fence_at:
            unproven, conflicts = self.rows(State.UNPROVEN), self.rows(State.CONFLICT)
            self._note_intent(self.rows(State.DOUBTFUL), self.fence_at)
            self.settle_rows(unproven=unproven, conflicts=conflicts)
            self.is_behind = False

    def close(self) -> None:
        """Give the reserved room back."""
        self._log.release_reserve()

    def _take(self, entry: Entry) -> None:
        data, self.head = entry.data, entry.hash
        rows = unpack(data.get("rows", ()))
        if "fence_at" in data:
            self._wait_for(parse_time(data["fence_at"]))
        if entry.kind in _STATES:
            self._set(rows, _STATES[entry.kind])
        match entry.kind:
            case "approved":
                self.approved_sha256, self.approved_by = data["sha256"], data["by"]
            case "intent":
                self.begun = max(self.begun, max(rows, default=-1) + 1)
            case "landed":
                at = parse_time(data["at"]) if data["at"] else None
                self.landings |= dict.fromkeys(rows, Landing(data["etag"], at))
                self.already |= rows if at is None else set()
            case "outcome":
                for name, state in _OUTCOMES.items():
                    self._set(unpack(data.get(name, ())), state)
            case "settled":
                self._set(rows, _WORDS[data["word"]])
            case "window":
                self.lost += data["lost"]
            case "hold":
                self.is_holding = data["taken"]
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
        """Take over what the bucket knows and this ledger, perhaps an older copy, does not."""
        self.taken_back_by = self.taken_back_by or record.taken_back_by
        if not self.is_behind:
            return
        self.is_holding = self.is_holding or record.is_holding
        self.begun = max(self.begun, record.begun)
        if record.fence_at:
            self._wait_for(record.fence_at)
        in_doubt = range(min(record.begun, len(self.states)))
        self._set([r for r in in_doubt if self.states[r] is State.NONE], State.DOUBTFUL)
        for open_, state in ((record.unproven, State.UNPROVEN), (record.conflicts, State.CONFLICT)):
            self._set([r for r in unpack(open_) if r < len(self.states)], state)
