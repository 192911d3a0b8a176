"""One batch under way: what became of each of its objects so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import ClientError
from ..model import ObjectInfo
from .ledger import Batch, Trouble
from .plan_file import PlanRow

__all__ = ["BatchWork"]


@dataclass
class BatchWork:
    """One batch under way. The keys of every map are places in the plan."""

    batch: Batch
    rows: dict[int, PlanRow]
    copied: set[int] = field(default_factory=set)
    landed: dict[int, ObjectInfo] = field(default_factory=dict)
    already: set[int] = field(default_factory=set)
    moved: set[int] = field(default_factory=set)
    conflicts: dict[int, Trouble] = field(default_factory=dict)
    failed: dict[int, Trouble] = field(default_factory=dict)
    errors: dict[int, ClientError] = field(default_factory=dict)

    def refuse(self, place: int, reason: str) -> None:
        """Put an object down as a conflict: someone else's doing, left alone."""
        self.conflicts[place] = Trouble(place, self.rows[place].key, reason)

    def fail(self, place: int, reason: str) -> None:
        """Put an object down as failed: to be tried again by ``resume``."""
        self.failed[place] = Trouble(place, self.rows[place].key, reason)

    def note_copy(self, place: int, error: ClientError | None) -> None:
        """Put down how a copy ended."""
        if error is None:
            self.copied.add(place)
        else:
            self.errors[place] = error

    def open_rows(self) -> list[int]:
        """Return the places that are not decided yet, in order."""
        ended = self.already | self.moved | self.conflicts.keys() | self.failed.keys()
        return [place for place in self.rows if place not in ended]
