"""Every incident and drill as a row: a fold over its journal. Nothing is kept of it.

A drill is an incident whose trouble somebody made on purpose. Its runbook writes a score into
the journal: an entry with the event ``scored``, with ``phases`` and ``objectives``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import BaseModel, computed_field

from ..errors import RecordError
from ..model import Json, Timestamp, Verdict, parse_time
from ..redact import Redactor
from .detection import CAUSE_NAMED, find_detection, list_moments
from .folds import Ends
from .incident import Incident, list_incidents, write_file
from .journal import utc_now
from .view import JournalView

#: How long a scenario may go without a drill that met every objective; as in the alert's rule.
OVERDUE = timedelta(days=35)
#: The durations in a row, in the order in which the phases follow each other.
PHASES = ("detect_s", "notify_s", "diagnose_s", "remediate_s", "clear_s")
_CALM = (None, Verdict.HEALTHY, Verdict.UNKNOWN)


class _Durations(BaseModel, frozen=True):
    """How long each phase took, in seconds; None: not reached, or not known.

    A drill measures as its score says. An incident measures detection from the first sign of
    trouble, diagnosis and remediation from the first look, and clearing from the last action.
    """

    detect_s: float | None = None
    notify_s: float | None = None
    diagnose_s: float | None = None
    remediate_s: float | None = None
    clear_s: float | None = None


class HistoryRow(_Durations, frozen=True):
    """One incident, or one drill.

    Attributes
    ----------
    scenario : the fault of a drill; empty: an incident
    cause_found : names of the causes, separated by commas
    lost : how many objects are lost, by the proofs of the actions; None: no proof counted them
    is_good : whether a drill met every objective; None: it has no score
    damage : what is wrong with the journal. The row then lacks what it holds
    """

    incident: str
    opened_at: Timestamp
    closed_at: Timestamp | None = None
    scenario: str = ""
    cause_found: str = ""
    lost: int | None = None
    verdict: Verdict | None = None
    is_good: bool | None = None
    damage: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_open(self) -> bool:
        """Whether it is not closed. With any damage it counts as closed."""
        return self.closed_at is None and not self.damage


def list_history(home: Path, policy: Any) -> list[HistoryRow]:
    """Return incidents and drills, the newest first, without closed ones that were quiet.

    Only reads. This process keeps what it read of a folder until the folder's journal changes.

    Parameters
    ----------
    policy : the runbook's ``Policy``
    """
    rows = []
    for folder in list_incidents(home):
        journal = folder / "journal.jsonl"
        size_bytes = journal.stat().st_size if journal.exists() else 0
        rows.append(_read_row(folder, policy, size_bytes))
    return list(filter(None, rows))


@lru_cache(maxsize=1_000)
def _read_row(folder: Path, policy: Any, _size_bytes: int) -> HistoryRow | None:
    """Return an incident's row, without what can't be read; None: it is closed and was quiet."""
    row: dict[str, Json] = {
        "incident": folder.name,
        "opened_at": parse_time(folder.name[4:20]),  # as in inc-20261124T031400Z-7f3a
    }
    incident = Incident(folder, redactor=Redactor())
    try:
        row |= incident.state.model_dump(include={"opened_at", "closed_at", "scenario"})
        journal = incident.journal.view()
        ends = policy.find_ends(journal)
        row |= _fold(journal, policy, ends)
        has_work = row["scenario"] or journal.actions or ends.since
        if row["closed_at"] and row["verdict"] in _CALM and not has_work:
            return None
    except RecordError as error:
        row["damage"] = getattr(error, "damage", str(error))
    return HistoryRow.model_validate(row)


def _fold(journal: JournalView, policy: Any, ends: Ends) -> dict[str, Json]:
    """Return the fields of a row that follow from the journal."""
    proofs = list_proofs(journal)
    scores = [entry.data for entry in journal.entries if entry.data.get("event") == "scored"]
    row: dict[str, Json] = {
        "cause_found": ", ".join(cause.name for cause in policy.list_causes(journal)),
        "lost": sum(proof["lost"] for proof in proofs) if proofs else None,
        "verdict": policy.compute_verdict(journal),
    }
    if not scores:
        return row | _measure(journal, ends)
    phases = scores[-1]["phases"]
    told = [seconds for seconds in phases["notify_s"].values() if seconds is not None]
    row["is_good"] = all(objective["met"] for objective in scores[-1]["objectives"])
    return {**row, **phases, "notify_s": max(told, default=None)}


def list_proofs(journal: JournalView) -> list[dict[str, Json]]:
    """Return the newest proof of each plan: the counts of what became of its objects.

    Entries of every phase are read: a proof that finds a loss has failed.
    """
    proofs = {}
    for entry in journal.actions:
        if "lost" in entry.result:
            proofs[entry.result.get("plan")] = entry.result
    return list(proofs.values())


def _measure(journal: JournalView, ends: Ends) -> dict[str, float | None]:
    """Return an incident's durations by their fields in a row."""
    changed_at = journal.last_applied_at
    moments = list_moments(journal, ends)
    detection = find_detection(moments)
    named_at = next((moment.at for moment in moments if moment.name == CAUSE_NAMED), None)
    return {
        "detect_s": count_seconds(ends.since, detection.at if detection else None),
        "diagnose_s": count_seconds(ends.seen_at, named_at),
        "remediate_s": count_seconds(ends.seen_at, changed_at),
        "clear_s": count_seconds(changed_at, ends.until),
    }


def count_seconds(start: datetime | None, end: datetime | None) -> float | None:
    """Return a duration from the seconds that people are shown.

    None if a time is not known, or the end is before the start.
    """
    if start is None or end is None or end < start:
        return None
    return (end.replace(microsecond=0) - start.replace(microsecond=0)).total_seconds()


class Trend(_Durations, frozen=True):
    """How the drills of one scenario went; each duration is the median of the known ones.

    Attributes
    ----------
    runs, passed : how many were scored, and how many of them met every objective
    good_at : when the newest that met every objective began; None: none did
    is_overdue : whether ``good_at`` is None, or longer ago than ``OVERDUE``
    """

    scenario: str
    runs: int
    passed: int
    good_at: Timestamp | None
    is_overdue: bool


def compute_trends(rows: Sequence[HistoryRow], now: datetime) -> tuple[Trend, ...]:
    """Return a trend for each scenario with a score, by name; ``rows`` begin with the newest."""
    by_scenario: dict[str, list[HistoryRow]] = {}
    for row in rows:
        if row.is_good is not None:
            by_scenario.setdefault(row.scenario, []).append(row)
    trends = []
    for scenario, own in sorted(by_scenario.items()):
        good_at = [row.opened_at for row in own if row.is_good]
        trend = Trend(
            scenario=scenario,
            runs=len(own),
            passed=len(good_at),
            good_at=good_at[0] if good_at else None,
            is_overdue=not good_at or now - good_at[0] > OVERDUE,
            **{phase: _compute_median(own, phase) for phase in PHASES},
        )
        trends.append(trend)
    return tuple(trends)


def _compute_median(rows: Sequence[HistoryRow], phase: str) -> float | None:
    known = [getattr(row, phase) for row in rows if getattr(row, phase) is not None]
    return round(median(known), 1) if known else None


def write_gauges(home: Path, rows: Sequence[HistoryRow]) -> Path:
    """Write when drills last met every objective, for node-exporter's textfile collector.

    The file is ``<home>/metrics/runbook.prom``; a time of 0 means never.
    """
    lines = []
    times = [0.0]
    for trend in compute_trends(rows, utc_now()):
        good_at = trend.good_at.timestamp() if trend.good_at else 0.0
        times.append(good_at)
        labels = f'{{scenario="{trend.scenario}"}}'
        lines.append(f"runbook_drill_last_good_timestamp_seconds{labels} {good_at}\n")
    lines.append(f"runbook_last_good_drill_timestamp_seconds {max(times)}\n")
    path = home / "metrics" / "runbook.prom"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, "".join(lines))
    return path
