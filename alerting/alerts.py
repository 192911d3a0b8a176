"""Received alerts, one row each, identified by fingerprint and start.

Only these rows say which alerts still need a report.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from runbook_lib.model import format_time, parse_time
from runbook_lib.record.journal import Clock, utc_now

from .payload import Alert

#: ``told`` is ``KnownAlert.seen``. Times are text.
_TABLE = """
CREATE TABLE IF NOT EXISTS alerts (
    fingerprint TEXT NOT NULL,
    starts_at TEXT NOT NULL,
    ends_at TEXT,
    labels TEXT NOT NULL,
    is_drill INTEGER NOT NULL,
    received_at TEXT NOT NULL,
    incident TEXT NOT NULL DEFAULT '',
    told TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (fingerprint, starts_at)
)
"""
_ADD = """
INSERT INTO alerts (fingerprint, starts_at, labels, is_drill, received_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""
_RESOLVE = """
UPDATE alerts SET ends_at = ? WHERE fingerprint = ? AND starts_at = ? AND ends_at IS NULL
"""
#: New alerts; and alerts that have ended, once no alert of their incident fires any more.
_DUE = """
SELECT labels, fingerprint, starts_at, ends_at, is_drill, incident, told FROM alerts
WHERE told = '' OR (
    told = 'firing' AND ends_at IS NOT NULL
    AND incident NOT IN (SELECT incident FROM alerts WHERE ends_at IS NULL)
)
ORDER BY received_at, fingerprint, starts_at
"""
_SAVE_SEEN = """
UPDATE alerts SET told = ?, incident = ? WHERE fingerprint = ? AND starts_at = ?
"""


class KnownAlert(NamedTuple):
    """An alert's row; ``ends_at`` is None while it fires.

    ``seen`` is "" until an investigation has seen the alert, then ``firing``, and ``resolved`` once
    one has seen its end.
    """

    labels: dict[str, str]
    fingerprint: str
    starts_at: str
    ends_at: str | None
    is_drill: bool
    incident: str
    seen: str

    @property
    def name(self) -> str:
        return self.labels.get("alertname", "unnamed alert")


class Waiting(NamedTuple):
    """How many alerts no investigation has seen yet, and when the oldest of them came in."""

    alerts: int
    oldest: datetime | None


class AlertBook:
    """Reads and writes the rows in an SQLite file. Each method is one transaction."""

    def __init__(self, path: Path, *, clock: Clock = utc_now) -> None:
        self._path = path
        self._clock = clock
        with self._open() as db:
            db.execute(_TABLE)

    def receive(self, alerts: Sequence[Alert]) -> int:
        """Add new alerts that fire, and the ends of known ones; return how many are new.

        An alert that ended before we heard of it is dropped.
        """
        received_at = format_time(self._clock())
        added = 0
        with self._open() as db:
            for alert in alerts:
                if alert.status == "resolved":
                    ends_at = max(alert.ends_at or alert.starts_at, alert.starts_at)
                    db.execute(_RESOLVE, (format_time(ends_at), *alert.key))
                    continue
                row = (*alert.key, json.dumps(alert.labels), alert.is_drill, received_at)
                added += db.execute(_ADD, row).rowcount
        return added

    def list_due(self) -> list[KnownAlert]:
        """Return the alerts whose start or end no investigation has seen, the oldest first."""
        with self._open() as db:
            rows = db.execute(_DUE).fetchall()
        return [KnownAlert(json.loads(labels), *fields) for labels, *fields in rows]

    def save_seen(self, alerts: Sequence[KnownAlert], incident: str) -> None:
        """Save that the incident's investigation has seen these alerts as they are here."""
        with self._open() as db:
            for alert in alerts:
                seen = "resolved" if alert.ends_at else "firing"
                own_incident = alert.incident or incident
                db.execute(_SAVE_SEEN, (seen, own_incident, alert.fingerprint, alert.starts_at))

    def count_firing(self, incident: str) -> int:
        query = "SELECT count(*) FROM alerts WHERE incident = ? AND ends_at IS NULL"
        with self._open() as db:
            return int(db.execute(query, (incident,)).fetchone()[0])

    def read_waiting(self) -> Waiting:
        query = "SELECT count(*), min(received_at) FROM alerts WHERE told = ''"
        with self._open() as db:
            count, oldest = db.execute(query).fetchone()
        return Waiting(count, parse_time(oldest) if oldest else None)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction, which is on disk when the block ends."""
        with closing(sqlite3.connect(self._path, timeout=30)) as db:
            db.execute("PRAGMA synchronous = FULL")
            with db:
                yield db
