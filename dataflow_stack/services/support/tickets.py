"""Tickets, messages, attachments and cached timelines, in SQLite."""

from __future__ import annotations

import json
import sqlite3
import uuid
from pathlib import Path
from typing import Any

from ..clock import Clock, format_offset, format_z
from ..database import Database

__all__ = ["Tickets"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tickets (
    id TEXT PRIMARY KEY, subject TEXT NOT NULL, channel TEXT NOT NULL, status TEXT NOT NULL,
    context TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL, closed_at TEXT);
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, ticket_id TEXT NOT NULL, entry TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS entries_of ON entries (ticket_id);
CREATE TABLE IF NOT EXISTS timeline_cache (
    ticket_id TEXT PRIMARY KEY, timeline TEXT NOT NULL, expires_at REAL NOT NULL);
"""


class Tickets:
    """What support-service knows by itself.

    Notes
    -----
    Times are written in the three forms that DataFlow mixes: tickets and attachments end in
    ``Z``, conversations carry ``+00:00``; shipments come from elsewhere without a zone.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._db, self._clock = Database(path, _SCHEMA), clock

    def create(
        self, subject: str, channel: str, context: list[dict[str, Any]], first_message: str
    ) -> str:
        """Open a ticket; return its id."""
        ticket_id, now = str(uuid.uuid4()), format_z(self._clock.now())
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO tickets VALUES (?, ?, ?, 'open', ?, ?, ?, NULL)",
                (ticket_id, subject, channel, json.dumps(context), now, now),
            )
            if first_message:
                self.add_message(ticket_id, "customer", first_message)
        return ticket_id

    def get(self, ticket_id: str) -> dict[str, Any] | None:
        """Return a ticket without its timeline; None when there is none."""
        rows = self._db.query("SELECT * FROM tickets WHERE id = ?", (ticket_id,))
        return _ticket(rows[0]) if rows else None

    def add_message(self, ticket_id: str, author_type: str, message: str) -> dict[str, Any]:
        """Add to the conversation."""
        entry = {
            "type": "conversation",
            "source": "support-service",
            "authorType": author_type,
            "message": message,
            "timestamp": format_offset(self._clock.now()),
        }
        self._add_entry(ticket_id, entry)
        return entry

    def add_attachment(self, ticket_id: str, name: str, size_bytes: int) -> dict[str, Any]:
        """Note an attached file."""
        entry = {
            "type": "attachment",
            "source": "support-service",
            "attachmentId": str(uuid.uuid4()),
            "fileName": name,
            "sizeBytes": size_bytes,
            "timestamp": format_z(self._clock.now()),
        }
        self._add_entry(ticket_id, entry)
        return entry

    def close(self, ticket_id: str) -> None:
        """Close a ticket."""
        now = format_z(self._clock.now())
        self._db.execute(
            "UPDATE tickets SET status = 'closed', closed_at = ?, updated_at = ? WHERE id = ?",
            (now, now, ticket_id),
        )

    def entries(self, ticket_id: str) -> list[dict[str, Any]]:
        """Return conversation and attachments, oldest first."""
        rows = self._db.query(
            "SELECT entry FROM entries WHERE ticket_id = ? ORDER BY number", (ticket_id,)
        )
        return [json.loads(row["entry"]) for row in rows]

    def cached_timeline(self, ticket_id: str) -> list[dict[str, Any]] | None:
        """Return the cached timeline while it lasts."""
        rows = self._db.query(
            "SELECT timeline FROM timeline_cache WHERE ticket_id = ? AND expires_at > ?",
            (ticket_id, self._clock.time()),
        )
        return json.loads(rows[0]["timeline"]) if rows else None

    def cache_timeline(self, ticket_id: str, timeline: list[dict[str, Any]], ttl_s: float) -> None:
        """Keep a timeline for some seconds, and forget those that ran out."""
        now = self._clock.time()
        with self._db.transaction():
            self._db.execute("DELETE FROM timeline_cache WHERE expires_at <= ?", (now,))
            self._db.execute(
                "INSERT OR REPLACE INTO timeline_cache VALUES (?, ?, ?)",
                (ticket_id, json.dumps(timeline), now + ttl_s),
            )

    def drop_timeline(self, ticket_id: str) -> None:
        """Forget a cached timeline."""
        self._db.execute("DELETE FROM timeline_cache WHERE ticket_id = ?", (ticket_id,))

    def _add_entry(self, ticket_id: str, entry: dict[str, Any]) -> None:
        self._db.execute(
            "INSERT INTO entries (ticket_id, entry) VALUES (?, ?)", (ticket_id, json.dumps(entry))
        )
        self.drop_timeline(ticket_id)


def _ticket(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "subject": row["subject"],
        "channel": row["channel"],
        "status": row["status"],
        "context": json.loads(row["context"]),
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
        "closedAt": row["closed_at"],
    }
