"""What the current readings say together: their observations, and when the alert clears. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter

from runbook_lib.model import ClearTime, Reading, parse_time
from runbook_lib.record.view import JournalView

from .analysis.causes import Observation


def collect_observations(readings: Iterable[Reading]) -> dict[str, Observation]:
    """Return the named observations of readings, each with its journal entry.

    If two steps observed the same, the later reading counts. A known value is never replaced by an
    unknown one.
    """
    observations: dict[str, Observation] = {}
    for reading in sorted(readings, key=attrgetter("observed_at")):
        evidence = f"#{reading.seq}" if reading.seq else reading.step
        for name, value in reading.observations.items():
            if value is not None or name not in observations:
                observations[name] = Observation(value, evidence)
    return observations


def has_moved(journal: JournalView, observations: Mapping[str, Observation]) -> bool:
    """Tell whether the worker moved something since the last action."""
    acted_at = journal.last_applied_at
    last_move = observations.get("worker_last_move")
    if acted_at is None or last_move is None or last_move.value is None:
        return False
    return parse_time(str(last_move.value)) > acted_at


def find_clear_time(journal: JournalView) -> ClearTime | None:
    """Return when the alert clears, by the newest reading since the last action that says so."""
    acted = journal.last_applied
    for reading in reversed(journal.readings):
        if acted is not None and reading.seq < acted.seq:
            return None
        if reading.clear is not None:
            return reading.clear
    return None
