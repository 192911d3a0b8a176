"""Every incident and drill in one SQLite index, which is rebuilt from the folders."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from datetime import datetime
from math import nan
from pathlib import Path

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
from .view import JournalView

ListCauses = Callable[[JournalView], Iterable[Finding]]

_INDEX = "history.sqlite3"
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

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_open(self) -> bool:
        """Whether it is not over; one whose journal is damaged is not worked on any more."""
        return self.closed_at is None and not self.damage

    @computed_field  # type: ignore[prop-decorator]
    @property
    def took_s(self) -> str:
        """The durations that are known, in words."""
        durations = {name.removesuffix("_s"): getattr(self, name) for name in PHASES}
        known = {name: seconds for name, seconds in durations.items() if seconds is not None}
        return ", ".join(f"{name} {seconds:g}" for name, seconds in known.items())


def list_history(home: Path, list_causes: ListCauses) -> list[HistoryRow]:
    """Return every incident and drill, the newest first; looks are left out.

    Parameters
    ----------
    list_causes : returns the causes that an incident's journal names

    Notes
    -----
    Changes only the index. A damaged one, or one of another version, is built anew.
    """
    for place in (home / _INDEX, home / _INDEX, Path(":memory:")):
        with suppress(sqlite3.Error, ValueError):
            return _read_index(home, place, list_causes)
        with suppress(OSError):
            (home / _INDEX).unlink()
    return []


def _read_index(home: Path, place: Path, list_causes: ListCauses) -> list[HistoryRow]:
    with closing(sqlite3.connect(place, timeout=10)) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS history (incident PRIMARY KEY, stamp, row)")
        known = dict(db.execute("SELECT incident, stamp FROM history"))
        stamps = {folder.name: _stamp(folder) for folder in list_incidents(home)}
        for name in known.keys() | stamps.keys():
            if name not in stamps:
                db.execute("DELETE FROM history WHERE incident = ?", (name,))
            elif known.get(name) != stamps[name]:
                row = _read_row(home / name, list_causes).model_dump_json()
                db.execute("REPLACE INTO history VALUES (?, ?, ?)", (name, stamps[name], row))
        texts = db.execute("SELECT row FROM history ORDER BY incident DESC")
        rows = [HistoryRow.model_validate_json(text) for (text,) in texts]
    return [row for row in rows if row.opened_by]


def _stamp(folder: Path) -> str:
    """Return what differs once a folder's facts or journal changed."""
    files = (folder / "incident.json", folder / "journal.jsonl")
    stats = [file.stat() for file in files if file.exists()]
    return " ".join(f"{stat.st_mtime_ns}:{stat.st_size}" for stat in stats)


def _read_row(folder: Path, list_causes: ListCauses) -> HistoryRow:
    """Return an incident's row; of a folder that cannot be read only its name and time."""
    row: dict[str, Json] = {"incident": folder.name, "opened_at": parse_time(folder.name[4:20])}
    incident = Incident(folder, redactor=Redactor())
    try:
        facts = incident.facts
    except RecordError:
        row["damage"] = "incident.json cannot be read"
        return HistoryRow.model_validate(row)
    with suppress(RecordError, ValueError, KeyError, TypeError, AttributeError):
        for name in HistoryRow.model_fields:
            if facts.get(name) is not None:
                row[name] = facts[name]
        whole = row | _read_journal(incident, list_causes)
        return HistoryRow.model_validate(whole)
    return HistoryRow.model_validate(row)


def _read_journal(incident: Incident, list_causes: ListCauses) -> dict[str, Json]:
    """Return what the journal knows of an incident; of a damaged one only that it is damaged."""
    try:
        journal = incident.journal.view()
    except JournalDamagedError as error:
        return {"damage": error.damage}
    row: dict[str, Json] = {
        "cause_found": ", ".join(str(cause.name) for cause in list_causes(journal)),
        "lost": _count_lost(journal),
    }
    scores = [entry.data for entry in journal.entries if entry.data.get("event") == "scored"]
    if scores:
        row |= _read_score(scores[-1])
    elif not incident.facts.get("drill"):
        row |= _measure(journal)
    return row


def _count_lost(journal: JournalView) -> int | None:
    """Return how many objects the proofs of an incident's actions say are lost."""
    checks = journal.list_actions(ActionPhase.VERIFIED)
    losses = [int(check.result["lost"]) for check in checks if "lost" in check.result]
    return sum(losses) if losses else None


def _read_score(score: dict[str, Json]) -> dict[str, Json]:
    """Return a drill's durations, and whether it met every objective."""
    row = dict(score.get("phases") or {})
    channels = row.pop("notify_s", None) or {}
    row["notify_s"] = max((s for s in channels.values() if s is not None), default=None)
    row["is_good"] = all(objective["met"] for objective in score["objectives"])
    return row


def _measure(journal: JournalView) -> dict[str, float]:
    """Return how long an incident took, as far as its journal knows, in seconds."""
    seen_at = min((breach.at for breach in journal.breaches(SYMPTOMS)), default=None)
    named_at = min((c.at for c in journal.conclusions if _names_cause(c)), default=None)
    acted_at = journal.last_applied_at
    spans = {
        "detect_s": (journal.since(), seen_at),
        "diagnose_s": (seen_at, named_at),
        "remediate_s": (seen_at, acted_at),
        "clear_s": (acted_at, journal.recovered_at()),
    }
    durations = {}
    for name, (start, end) in spans.items():
        if start and end and end >= start:
            durations[name] = round((end - start).total_seconds(), 1)
    return durations


def _names_cause(conclusion: Conclusion) -> bool:
    """Tell whether a conclusion supports a cause."""
    return any(finding.status is CauseStatus.SUPPORTED for finding in conclusion.findings)


def find_last_good_drill(rows: Sequence[HistoryRow]) -> HistoryRow | None:
    """Return the newest drill that met every objective."""
    return next((row for row in rows if row.is_good), None)


def describe_last_drill(rows: Sequence[HistoryRow], now: datetime) -> str:
    """Say which drill met every objective last, and how long ago."""
    row = find_last_good_drill(rows)
    if row is None or row.closed_at is None:
        return "none met every objective yet"
    days = (now - row.closed_at).days
    return f"{row.scenario}, {days} days ago ({row.closed_at:%Y-%m-%d %H:%MZ}, {row.incident})"


def write_gauges(home: Path, rows: Sequence[HistoryRow]) -> Path:
    """Write what node-exporter's textfile collector reads: ``<home>/metrics/runbook.prom``."""
    registry = CollectorRegistry()
    last = Gauge(
        "runbook_last_good_drill_timestamp_seconds",
        "When a drill last met every objective; 0: never.",
        registry=registry,
    )
    good = find_last_good_drill(rows)
    last.set(good.closed_at.timestamp() if good and good.closed_at else 0)
    durations = Gauge(
        "runbook_drill_seconds",
        "Of the newest drill.",
        ["scenario", "phase"],
        registry=registry,
    )
    drills = [row for row in rows if row.scenario]
    for row in reversed(drills):  # the newest is written last, over the others
        for phase in PHASES:
            value = getattr(row, phase)
            gauge = durations.labels(row.scenario, phase.removesuffix("_s"))
            gauge.set(nan if value is None else value)
    path = home / "metrics" / "runbook.prom"
    path.parent.mkdir(exist_ok=True)
    write_to_textfile(str(path), registry)
    return path
