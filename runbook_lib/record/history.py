"""Every incident and drill in one SQLite index, which is rebuilt from the folders."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import datetime, timedelta
from math import nan
from pathlib import Path
from statistics import median
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from pydantic import BaseModel, computed_field

from ..errors import JournalDamagedError, RecordError
from ..model import (
    SYMPTOMS,
    ActionPhase,
    CauseStatus,
    Conclusion,
    Finding,
    Json,
    Timestamp,
    Verdict,
    parse_time,
)
from ..redact import Redactor
from .incident import Incident, list_incidents
from .journal import utc_now
from .view import JournalView


class Judge(Protocol):
    """The questions about a journal that the index asks a runbook's policy."""

    def list_causes(self, journal: JournalView) -> Sequence[Finding]:
        """Return the causes that it names."""

    def compute_verdict(self, journal: JournalView) -> Verdict | None:
        """Return its verdict as of the newest look."""


_INDEX = "history.sqlite3"
#: How long a scenario may go without a drill that met it; the alert's rule has the same time.
OVERDUE = timedelta(days=35)
PHASES = ("detect_s", "notify_s", "diagnose_s", "remediate_s", "clear_s")


class HistoryRow(BaseModel, frozen=True):
    """One incident, or one drill: then ``scenario`` names it.

    Durations are in seconds; None: not reached, or not known. A drill measures detection and
    notification from the fault, diagnosis from its own start, remediation from the diagnosis. An
    incident measures detection from the first sign, diagnosis and remediation from the first
    breach. Both measure clearing from the last action.

    Attributes
    ----------
    cause_found : names, separated by commas
    lost : objects that the proofs of its actions say are lost
    is_good : whether a drill met every objective
    damage : what is wrong with its journal; what a journal knows is left out then
    previous, goes_on_in : the incidents before and after it that belong to it; empty: none does
    """

    incident: str
    opened_at: Timestamp
    closed_at: Timestamp | None = None
    opened_by: str = "hand"
    scenario: str = ""
    cause_found: str = ""
    detect_s: float | None = None
    notify_s: float | None = None
    diagnose_s: float | None = None
    remediate_s: float | None = None
    clear_s: float | None = None
    lost: int | None = None
    verdict: Verdict | None = None
    is_good: bool | None = None
    damage: str = ""
    previous: str = ""
    goes_on_in: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_open(self) -> bool:
        """Whether it is not closed; one whose journal is damaged counts as closed."""
        return self.closed_at is None and not self.damage

    @computed_field  # type: ignore[prop-decorator]
    @property
    def took_s(self) -> str:
        """The durations that are known, in words."""
        parts = []
        for phase in PHASES:
            seconds = getattr(self, phase)
            if seconds is not None:
                name = phase.removesuffix("_s")
                parts.append(f"{name} {seconds:g}")
        return ", ".join(parts)


def list_history(home: Path, judge: Judge) -> list[HistoryRow]:
    """Return every incident and drill, the newest first; looks are left out.

    Parameters
    ----------
    judge : the runbook's policy

    Notes
    -----
    Changes only the index. A damaged one, or one of another version, is built anew.
    """
    index = home / _INDEX
    # An index that cannot be used is removed, and built again; if that fails, memory must do.
    for place in (index, index, Path(":memory:")):
        with suppress(sqlite3.Error, ValueError):
            return _read_index(home, place, judge)
        with suppress(OSError):
            index.unlink()
    return []


def _read_index(home: Path, place: Path, judge: Judge) -> list[HistoryRow]:
    with closing(sqlite3.connect(place, timeout=10)) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS history (incident PRIMARY KEY, stamp, row)")
        known = dict(db.execute("SELECT incident, stamp FROM history"))
        stamps = {folder.name: _stamp(folder) for folder in list_incidents(home)}
        for name in known.keys() - stamps.keys():
            db.execute("DELETE FROM history WHERE incident = ?", (name,))
        for name, stamp in stamps.items():
            if known.get(name) == stamp:
                continue
            row = _read_row(home / name, judge)
            values = (name, stamp, row.model_dump_json())
            db.execute("REPLACE INTO history VALUES (?, ?, ?)", values)
        texts = db.execute("SELECT row FROM history ORDER BY incident DESC")
        rows = [HistoryRow.model_validate_json(text) for (text,) in texts]
    return _link([row for row in rows if row.opened_by])


def _link(rows: Sequence[HistoryRow]) -> list[HistoryRow]:
    """Name in each row the incident that followed: a closed one's report never changes."""
    later = {row.previous: row.incident for row in rows if row.previous}
    linked = []
    for row in rows:
        changes = {"goes_on_in": later.get(row.incident, "")}
        linked.append(row.model_copy(update=changes))
    return linked


def _stamp(folder: Path) -> str:
    """Return a stamp that differs once a folder's facts or journal changed."""
    files = (folder / "incident.json", folder / "journal.jsonl")
    stats = [file.stat() for file in files if file.exists()]
    return " ".join(f"{stat.st_mtime_ns}:{stat.st_size}" for stat in stats)


def _read_row(folder: Path, judge: Judge) -> HistoryRow:
    """Return an incident's row; only name and time when its folder cannot be read."""
    row: dict[str, Json] = {
        "incident": folder.name,
        "opened_at": parse_time(folder.name[4:20]),
    }
    incident = Incident(folder, redactor=Redactor())
    try:
        state = incident.state
    except RecordError:
        row["damage"] = "incident.json cannot be read"
        return HistoryRow.model_validate(row)
    with suppress(RecordError, ValueError, KeyError, TypeError, AttributeError):
        known = {name: value for name, value in state.to_json().items() if value is not None}
        row.update({name: known[name] for name in known.keys() & HistoryRow.model_fields.keys()})
        measured = _read_journal(incident, judge)
        return HistoryRow.model_validate({**row, **measured})
    return HistoryRow.model_validate(row)


def _read_journal(incident: Incident, judge: Judge) -> dict[str, Json]:
    """Return what the journal knows of an incident; only the damage when it is damaged."""
    try:
        journal = incident.journal.view()
    except JournalDamagedError as error:
        return {"damage": error.damage}
    causes = [str(cause.name) for cause in judge.list_causes(journal)]
    row: dict[str, Json] = {
        "cause_found": ", ".join(causes),
        "lost": _count_lost(journal),
    }
    if not incident.is_closed:
        row["verdict"] = judge.compute_verdict(journal)
    scores = [entry.data for entry in journal.entries if entry.data.get("event") == "scored"]
    if scores:
        row.update(_read_score(scores[-1]))
    elif not incident.state.drill:
        row.update(_measure(journal))
    return row


def _count_lost(journal: JournalView) -> int | None:
    """Return how many objects the proofs of an incident's actions say are lost."""
    results = [check.result for check in journal.list_actions(ActionPhase.VERIFIED)]
    losses = [int(result["lost"]) for result in results if "lost" in result]
    if not losses:
        return None
    return sum(losses)


def _read_score(score: dict[str, Json]) -> dict[str, Json]:
    """Return a drill's durations, and whether it met every objective."""
    row = dict(score.get("phases") or {})
    channels = row.pop("notify_s", None) or {}
    notified = [seconds for seconds in channels.values() if seconds is not None]
    row["notify_s"] = max(notified, default=None)
    row["is_good"] = all(objective["met"] for objective in score["objectives"])
    return row


def _measure(journal: JournalView) -> dict[str, float]:
    """Return how long an incident took, as far as its journal knows, in seconds."""
    breaches_at = [breach.at for breach in journal.breaches(SYMPTOMS)]
    diagnoses_at = [c.at for c in journal.conclusions if _names_cause(c)]
    breach_at = min(breaches_at, default=None)
    diagnosis_at = min(diagnoses_at, default=None)
    change_at = journal.last_applied_at
    # If trouble goes on from another incident, the first look was in that one.
    began_at = None if journal.is_continued else journal.since()
    durations = {
        "detect_s": _measure_span(began_at, breach_at),
        "diagnose_s": _measure_span(breach_at, diagnosis_at),
        "remediate_s": _measure_span(breach_at, change_at),
        "clear_s": _measure_span(change_at, journal.well_since() or journal.recovered_at()),
    }
    return {name: seconds for name, seconds in durations.items() if seconds is not None}


def _measure_span(start: datetime | None, end: datetime | None) -> float | None:
    """Return a duration in seconds; None when an end is not known, or they are reversed."""
    if start is None or end is None or end < start:
        return None
    duration = end - start
    return round(duration.total_seconds(), 1)


def _names_cause(conclusion: Conclusion) -> bool:
    """Tell whether a conclusion supports a cause."""
    statuses = [finding.status for finding in conclusion.findings]
    return CauseStatus.SUPPORTED in statuses


class DrillTrend(BaseModel, frozen=True):
    """How the drills of one scenario went.

    Durations are the medians of the drills that have them, in seconds.

    Attributes
    ----------
    runs, passed : how many ended, and how many of them met every objective
    last_at, last_passed : when the newest one began, and whether it met every objective
    good_at : when one last did; None: none ever did
    is_overdue : whether that is longer ago than ``OVERDUE``
    """

    scenario: str
    runs: int
    passed: int
    last_at: Timestamp
    last_passed: bool
    good_at: Timestamp | None
    is_overdue: bool
    detect_s: float | None
    notify_s: float | None
    diagnose_s: float | None
    remediate_s: float | None
    clear_s: float | None


def compute_trends(rows: Sequence[HistoryRow], now: datetime) -> tuple[DrillTrend, ...]:
    """Return a trend for each scenario that was drilled to its score, by name.

    Parameters
    ----------
    rows : the newest first
    """
    drills: dict[str, list[HistoryRow]] = {}
    for row in rows:
        if row.scenario and row.is_good is not None:
            drills.setdefault(row.scenario, []).append(row)
    return tuple(_compute_trend(scenario, drills[scenario], now) for scenario in sorted(drills))


def _compute_trend(scenario: str, rows: Sequence[HistoryRow], now: datetime) -> DrillTrend:
    """Return the trend of one scenario's drills; the newest is the first."""
    newest = rows[0]
    good = find_last_good_drill(rows)
    good_at = good.opened_at if good else None
    return DrillTrend(
        scenario=scenario,
        runs=len(rows),
        passed=sum(1 for row in rows if row.is_good),
        last_at=newest.opened_at,
        last_passed=bool(newest.is_good),
        good_at=good_at,
        is_overdue=good_at is None or now - good_at > OVERDUE,
        detect_s=_find_median([row.detect_s for row in rows]),
        notify_s=_find_median([row.notify_s for row in rows]),
        diagnose_s=_find_median([row.diagnose_s for row in rows]),
        remediate_s=_find_median([row.remediate_s for row in rows]),
        clear_s=_find_median([row.clear_s for row in rows]),
    )


def _find_median(durations: Sequence[float | None]) -> float | None:
    """Return the median of the durations that are known."""
    known = [seconds for seconds in durations if seconds is not None]
    return round(median(known), 1) if known else None


def find_last_good_drill(rows: Sequence[HistoryRow]) -> HistoryRow | None:
    """Return the newest drill that met every objective."""
    for row in rows:
        if row.is_good:
            return row
    return None


def describe_last_drill(rows: Sequence[HistoryRow], now: datetime) -> str:
    """Say which drill was the last to meet every objective, and how long ago."""
    row = find_last_good_drill(rows)
    if row is None or row.closed_at is None:
        return "none met every objective yet"
    age = now - row.closed_at
    closed_at = f"{row.closed_at:%Y-%m-%d %H:%MZ}"
    return f"{row.scenario}, {age.days} days ago ({closed_at}, {row.incident})"


def write_gauges(home: Path, rows: Sequence[HistoryRow]) -> Path:
    """Write what node-exporter's textfile collector reads: ``<home>/metrics/runbook.prom``."""
    registry = CollectorRegistry()
    last = Gauge(
        "runbook_last_good_drill_timestamp_seconds",
        "When a drill last met every objective; 0: never.",
        registry=registry,
    )
    last.set(0)
    good = find_last_good_drill(rows)
    if good and good.closed_at:
        last.set(good.closed_at.timestamp())
    durations = Gauge(
        "runbook_drill_seconds",
        "How long each phase of the newest drill took.",
        ["scenario", "phase"],
        registry=registry,
    )
    good_at = Gauge(
        "runbook_drill_last_good_timestamp_seconds",
        "When a drill of this scenario last met every objective; 0: never.",
        ["scenario"],
        registry=registry,
    )
    for trend in compute_trends(rows, utc_now()):
        seconds = trend.good_at.timestamp() if trend.good_at else 0
        good_at.labels(trend.scenario).set(seconds)
    drills = [row for row in rows if row.scenario]
    for row in reversed(drills):  # the newest is written last, and replaces the others
        for phase in PHASES:
            seconds = getattr(row, phase)
            gauge = durations.labels(row.scenario, phase.removesuffix("_s"))
            gauge.set(nan if seconds is None else seconds)
    path = home / "metrics" / "runbook.prom"
    path.parent.mkdir(exist_ok=True)
    write_to_textfile(str(path), registry)
    return path
