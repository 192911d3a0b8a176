"""What happened to each object of a plan. Resume, undo and proof rest on this and the store.

Entries, in order: ``approved``, then for each batch ``intent`` (before its first request),
``landed`` (before its first delete) and ``outcomes``; ``done`` at the end. A resumed run writes
``resumed`` and then goes through the batches that have no outcomes, or failures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..model import Json, format_time
from ..record.log import ChainedLog, read_entries, utc_now
from ..redact import Redactor
from .plan_file import ReleasePlan

__all__ = ["LOST", "Batch", "LedgerState", "MoveLedger", "Trouble", "read_ledger"]

LOST = "lost"
"""How the reason of a conflict begins that may be our own doing."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why one object did not move. ``row`` is its place in the plan, from 0."""

    row: int
    key: str
    reason: str

    def to_json(self) -> dict[str, Json]:
        """Return it as the ledger has it."""
        return {"row": self.row, "key": self.key, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a plan, in order: ``rows`` are their places."""

    number: int
    rows: tuple[int, ...]


@dataclass
class LedgerState:
    """What a ledger says, for each row by its place in the plan.

    Attributes
    ----------
    begun : rows that a batch announced
    landed : LastModified of our copy, for rows whose copy was proven before any delete
    settled : rows that need nothing more: moved, already moved, or in conflict
    conflicts, failed : the last word on rows that did not move
    lost_in_window : keys whose newer version was deleted, on a store without conditional deletes
    is_watched : false when such a store did not tell its writes
    """

    approved_sha256: str = ""
    approved_by: str = ""
    begun_at: datetime | None = None
    last_at: datetime | None = None
    done: dict[str, Json] | None = None
    batches: int = 0
    moved: int = 0
    already: int = 0
    begun: set[int] = field(default_factory=set)
    landed: dict[int, datetime] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    conflicts: dict[int, Trouble] = field(default_factory=dict)
    failed: dict[int, Trouble] = field(default_factory=dict)
    lost_in_window: list[str] = field(default_factory=list)
    is_watched: bool = True


class MoveLedger:
    """The ledger of one plan, for writing.

    Parameters
    ----------
    path : ``ledger/<plan id>.jsonl``
    """

    def __init__(
        self, path: Path, *, redactor: Redactor, now: Callable[[], datetime] = utc_now
    ) -> None:
        self.path = path
        self._log = ChainedLog(path, redactor=redactor, clock=now)

    def approve(self, plan: ReleasePlan, *, by: str) -> None:
        """Write the approval: the first entry."""
        self._log.append(
            "approved",
            {
                "plan": plan.id,
                "sha256": plan.sha256,
                "by": by,
                "objects": plan.trailer.objects,
                "endpoint": plan.header.endpoint,
                "bucket": plan.header.bucket,
                "from": plan.header.source,
                "to": plan.header.to,
            },
        )

    def resume(self, *, by: str) -> None:
        """Say that another run goes on; a torn last line is kept aside here."""
        self._log.append("resumed", {"by": by})

    def announce(self, batch: Batch) -> None:
        """Write a batch's intent, on disk before its first request."""
        self._log.append("intent", {"batch": batch.number, "rows": _pack(batch.rows)})

    def land(self, batch: Batch, landed: Mapping[int, datetime]) -> None:
        """Write which copies are proven, on disk before the first delete."""
        rows = {str(row): _to_ms(at) for row, at in landed.items()}
        self._log.append("landed", {"batch": batch.number, "rows": rows})

    def settle(
        self,
        batch: Batch,
        *,
        moved: int,
        already: int,
        conflicts: Iterable[Trouble],
        failed: Iterable[Trouble],
        looked_at: datetime,
        deleted_at: datetime,
    ) -> None:
        """Write a batch's outcomes, and the window between the last look and the deletes' end."""
        self._log.append(
            "outcomes",
            {
                "batch": batch.number,
                "rows": _pack(batch.rows),
                "moved": moved,
                "already": already,
                "conflicts": [trouble.to_json() for trouble in conflicts],
                "failed": [trouble.to_json() for trouble in failed],
                "looked_at": format_time(looked_at),
                "deleted_at": format_time(deleted_at),
            },
        )

    def note_window(self, *, watched: bool, lost: Iterable[str]) -> None:
        """Write which newer versions went between the last look and the delete, if it is known."""
        self._log.append("window", {"watched": watched, "lost": list(lost)})

    def finish(self, totals: dict[str, Json]) -> None:
        """Write that the plan is carried out."""
        self._log.append("done", totals)


def read_ledger(path: Path) -> LedgerState:
    """Return what a ledger says; an absent one says nothing. A torn last line is left out.

    Raises
    ------
    LogDamagedError
        When it was altered, or damaged before its last line.
    """
    state = LedgerState()
    if not path.exists():
        return state
    for entry in read_entries(path):
        state.last_at = entry.at
        data = entry.data
        if entry.kind == "approved":
            state.approved_sha256, state.approved_by = data["sha256"], data["by"]
            state.begun_at = entry.at
        elif entry.kind == "intent":
            state.begun |= _unpack(data["rows"])
            state.batches = max(state.batches, data["batch"] + 1)
        elif entry.kind == "landed":
            state.landed |= {int(row): _from_ms(ms) for row, ms in data["rows"].items()}
        elif entry.kind == "outcomes":
            _take_outcomes(state, data)
        elif entry.kind == "window":
            state.lost_in_window += data["lost"]
            state.is_watched = state.is_watched and data["watched"]
        elif entry.kind == "done":
            state.done = data
    return state


def _take_outcomes(state: LedgerState, data: dict[str, Json]) -> None:
    rows = _unpack(data["rows"])
    for row in rows:
        state.conflicts.pop(row, None)
        state.failed.pop(row, None)
    state.moved += data["moved"]
    state.already += data["already"]
    state.conflicts |= {t["row"]: Trouble(**t) for t in data["conflicts"]}
    state.failed |= {t["row"]: Trouble(**t) for t in data["failed"]}
    state.settled |= rows - state.failed.keys()


def _pack(rows: Iterable[int]) -> list[list[int]]:
    """Write row numbers as ranges, first and last."""
    packed: list[list[int]] = []
    for row in rows:
        if packed and packed[-1][1] == row - 1:
            packed[-1][1] = row
        else:
            packed.append([row, row])
    return packed


def _unpack(packed: Iterable[list[int]]) -> set[int]:
    return {row for first, last in packed for row in range(first, last + 1)}


def _to_ms(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)


def _from_ms(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
