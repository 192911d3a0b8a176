"""Every incident and drill in one SQLite index, which is rebuilt from the folders."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import datetime
from math import nan
from operator import attrgetter
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from pydantic import BaseModel, computed_field

from ..errors import JournalDamagedError, RecordError
from ..model import SYMPTOMS, ActionPhase, CauseStatus, Json, Timestamp, Verdict, parse_time
from ..redact import Redactor
from .incident import Incident, list_incidents
from .journal import JournalView

_INDEX = "history.sqlite3"
PHASES = ("detect_s", "notify_s", "diagnose_s", "remediate_s", "clear_s")


class HistoryRow(BaseModel, frozen=True):
    """One incident, or one drill: then ``scenario`` names it.

    Durations are in seconds, as a drill's are: detected and notified since the fault, or the first
    sign; diagnosed since the diagnosis began, or the first breach; remediated since the first
    breach, or the diagnosis; cleared since the last action. None: not reached, or not known.

    Attributes
    ----------
    cause_found : names, separated by commas
    lost : labels, by the proofs of its releases
    is_good : whether a drill met every objective
    damage : what is wrong with its journal; nothing that the journal knows is told then
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
        known = ((name, getattr(self, name)) for name in PHASES)
        return ", ".join(f"{n.removesuffix('_s')} {s:g}" for n, s in known if s is not None)


def list_history(home: Path) -> list[HistoryRow]:
    """Return every incident and drill, the newest first; looks are left out.

    Notes
    -----
    Changes only the index; one that is damaged, or of another version, is built anew.
    """
    for place in (home / _INDEX, home / _INDEX, Path(":memory:")):
        with suppress(sqlite3.Error, ValueError):
            return _read_index(home, place)
        with suppress(OSError):
            (home / _INDEX).unlink()
    return []


def _read_index(home: Path, place: Path) -> list[HistoryRow]:
    with closing(sqlite3.connect(place, timeout=10)) as db, db:
        db.execute("CREATE TABLE IF NOT EXISTS history (incident PRIMARY KEY, stamp, row)")
        known = dict(db.execute("SELECT incident, stamp FROM history"))
        stamps = {folder.name: _stamp(folder) for folder in list_incidents(home)}
        for name in known.keys() | stamps.keys():
            if name not in stamps:
                db.execute("DELETE FROM history WHERE incident = ?", (name,))
            elif known.get(name) != stamps[name]:
                row = _read_row(home / name).model_dump_json()
                db.execute("REPLACE INTO history VALUES (?, ?, ?)", (name, stamps[name], row))
        found = db.execute("SELECT row FROM history ORDER BY incident DESC")
        rows = [HistoryRow.model_validate_json(text) for (text,) in found]
    return [row for row in rows if row.opened_by]


def _stamp(folder: Path) -> str:
    files = (folder / "incident.json", folder / "journal.jsonl")
    read = (file.stat() for file in files if file.exists())
    return " ".join(f"{found.st_mtime_ns}:{found.st_size}" for found in read)


def _read_row(folder: Path) -> HistoryRow:
    row: dict[str, Json] = {"incident": folder.name, "opened_at": parse_time(folder.name[4:20])}
    # it is there, whether or not more can be said
    with suppress(RecordError, ValueError, KeyError, TypeError, AttributeError):
        incident = Incident(folder, redactor=Redactor())
        facts = incident.facts
        row |= {
            name: facts[name] for name in HistoryRow.model_fields if facts.get(name) is not None
        }
        return HistoryRow(**row | _read_journal(incident))
    return HistoryRow(**row)


def _read_journal(incident: Incident) -> dict[str, Json]:
    """Return what the journal knows of it; of a damaged one only that it is damaged."""
    facts, row = incident.facts, dict[str, Json]()
    try:
        journal = incident.journal.view()
    except JournalDamagedError as error:
        return {"damage": error.damage}
    row["cause_found"] = ", ".join(str(cause.name) for cause in journal.causes())
    proofs = [a.result for a in journal.list_actions(ActionPhase.VERIFIED) if "lost" in a.result]
    row["lost"] = sum(int(proof["lost"]) for proof in proofs) if proofs else None
    scored = [e.data for e in journal.entries if e.data.get("event") == "scored"]
    if scored:
        phases = dict(scored[-1].get("phases") or {})
        heard = [s for s in (phases.pop("notify_s", None) or {}).values() if s is not None]
        row |= {**phases, "notify_s": max(heard, default=None)}
        row["is_good"] = all(objective["met"] for objective in scored[-1]["objectives"])
    elif not facts.get("drill"):
        row |= _measure(journal)
    return row


def _measure(journal: JournalView) -> dict[str, float]:
    """Return how long an incident took, as far as its journal knows."""
    seen = min(map(attrgetter("at"), journal.breaches(SYMPTOMS)), default=None)
    found = ((c.at, finding) for c in journal.conclusions for finding in c.findings)
    named = min((at for at, f in found if f.status is CauseStatus.SUPPORTED), default=None)
    acted_at = journal.last_applied_at
    spans = {
        "detect_s": (journal.since(), seen),
        "diagnose_s": (seen, named),
        "remediate_s": (seen, acted_at),
        "clear_s": (acted_at, journal.recovered_at()),
    }
    took = {n: (end - start).total_seconds() for n, (start, end) in spans.items() if start and end}
    return {name: round(seconds, 1) for name, seconds in took.items() if seconds >= 0}


def find_last_good_drill(rows: Sequence[HistoryRow]) -> HistoryRow | None:
    """Return the newest drill that met every objective."""
    return next((row for row in rows if row.is_good), None)


def describe_last_drill(home: Path, now: datetime) -> str:
    """Say which drill met every objective last, and how long ago."""
    row = find_last_good_drill(list_history(home))
    if row is None or row.closed_at is None:
        return "none met every objective yet"
    age = f"{(now - row.closed_at).days} days ago"
    return f"{row.scenario}, {age} ({row.closed_at:%Y-%m-%d %H:%MZ}, {row.incident})"


def write_gauges(home: Path, rows: Sequence[HistoryRow]) -> Path:
    """Write what node-exporter's textfile collector reads: ``<home>/metrics/runbook.prom``."""
    registry, good = CollectorRegistry(), find_last_good_drill(rows)
    name = "runbook_last_good_drill_timestamp_seconds"
    last = Gauge(name, "When a drill last met every objective; 0: never.", registry=registry)
    last.set(good.closed_at.timestamp() if good and good.closed_at else 0)
    labels = ["scenario", "phase"]
    took = Gauge("runbook_drill_seconds", "Of the newest drill.", labels, registry=registry)
    for row in reversed([row for row in rows if row.scenario]):
        for phase in PHASES:
            value = getattr(row, phase)
            took.labels(row.scenario, phase.removesuffix("_s")).set(nan if value is None else value)
    path = home / "metrics" / "runbook.prom"
    path.parent.mkdir(exist_ok=True)
    write_to_textfile(str(path), registry)
    return path
