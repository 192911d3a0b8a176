"""Orders, their shipments and artefacts, in SQLite; data survives a restart."""

from __future__ import annotations

import json
import sqlite3
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from ..clock import Clock, format_z, parse_time
from ..database import Database

__all__ = ["Artifact", "Column", "Order", "Shipments"]

Column = Literal["id", "order_id", "tracking_number"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS shipments (
    order_id INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, center TEXT NOT NULL,
    carrier TEXT NOT NULL, service_level TEXT NOT NULL, status TEXT NOT NULL,
    tracking_number TEXT, carrier_number TEXT, shipped_at TEXT NOT NULL, delivered_at TEXT,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
    uploaded INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS to_upload ON shipments (uploaded, next_try);
CREATE INDEX IF NOT EXISTS newest ON shipments (created_at);
CREATE INDEX IF NOT EXISTS tracked ON shipments (tracking_number);
CREATE TABLE IF NOT EXISTS artifacts (
    key TEXT PRIMARY KEY, order_id INTEGER NOT NULL, kind TEXT NOT NULL, released TEXT);
CREATE INDEX IF NOT EXISTS artifacts_of ON artifacts (order_id);
CREATE INDEX IF NOT EXISTS waiting ON artifacts (released, order_id);
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, order_id INTEGER NOT NULL, type TEXT NOT NULL,
    status TEXT NOT NULL, message TEXT NOT NULL, timestamp TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_of ON events (order_id);
CREATE TABLE IF NOT EXISTS switches (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS changes (name TEXT PRIMARY KEY, at TEXT NOT NULL);
"""

_SELECT = """SELECT *, (SELECT json_group_array(json_object(
    'type', kind, 'key', key, 'releasedAt', released)) FROM artifacts
    WHERE artifacts.order_id = shipments.order_id) AS tasks"""
_LOOK_UPS: dict[Column, str] = {
    "id": _SELECT + " FROM shipments WHERE id = ?",
    "order_id": _SELECT + " FROM shipments WHERE order_id = ?",
    "tracking_number": _SELECT + " FROM shipments WHERE tracking_number = ?",
}


@dataclass(frozen=True, slots=True)
class Order:
    """One order as the feed hands it over."""

    order_id: int
    shipped_at: datetime
    carrier: str = "GHN"
    service_level: str = "standard"
    center: str = "HCM-01"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One document in the store that still waits for its release."""

    key: str
    order_id: int
    kind: str


class Shipments:
    """What the service knows of its orders.

    Notes
    -----
    ``status`` is what a customer may be told: ``HANDED_OVER`` since ``shippedAt``, then
    ``IN_TRANSIT`` once both documents were released. ``updatedAt`` is the time of that
    status, so a shipment whose documents wait keeps an old one.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._db, self._clock = Database(path, _SCHEMA), clock
        # Waits were measured by the clock of the process that ended; that may have been wrong.
        self._db.execute("UPDATE shipments SET next_try = 0 WHERE uploaded = 0")

    def add(self, orders: list[Order]) -> int:
        """Take orders over, and return how many were new. A known one changes nothing."""
        now, added = format_z(self._clock.now()), 0
        with self._db.transaction():
            for order in orders:
                since = format_z(order.shipped_at)
                new = self._db.execute(
                    "INSERT OR IGNORE INTO shipments (order_id, id, center, carrier,"
                    " service_level, status, shipped_at, created_at, updated_at)"
                    " VALUES (?, ?, ?, ?, ?, 'HANDED_OVER', ?, ?, ?)",
                    (
                        order.order_id,
                        str(uuid.uuid4()),
                        order.center,
                        order.carrier,
                        order.service_level,
                        since,
                        now,
                        since,
                    ),
                )
                if new:
                    added += 1
                    self._note(order.order_id, "status", "HANDED_OVER", "handed over", since)
        return added

    def next_feed_id(self) -> int:
        """Return the next order id of the periodic feed's own range."""
        row = self._db.query("SELECT max(order_id) AS n FROM shipments WHERE order_id < 10000000")
        return max(100_000, (row[0]["n"] or 0) + 1)

    def due_for_upload(self, limit: int) -> list[Order]:
        """Return orders whose documents are to be made now, and put them off for 30 seconds."""
        now = self._clock.time()
        with self._db.transaction():
            rows = self._db.query(
                "SELECT * FROM shipments WHERE uploaded = 0 AND next_try <= ?"
                " ORDER BY next_try, order_id LIMIT ?",
                (now, limit),
            )
            for row in rows:
                self.retry_at(row["order_id"], now + 30)
        return [
            Order(
                row["order_id"],
                parse_time(row["shipped_at"]),
                row["carrier"],
                row["service_level"],
                row["center"],
            )
            for row in rows
        ]

    def retry_at(self, order_id: int, at: float) -> None:
        """Let an upload be tried again at a time."""
        self._db.execute("UPDATE shipments SET next_try = ? WHERE order_id = ?", (at, order_id))

    def carrier_number(self, order_id: int) -> str:
        """Return the number that the carrier gave for an order; empty when none yet."""
        rows = self._db.query(
            "SELECT carrier_number FROM shipments WHERE order_id = ?", (order_id,)
        )
        return str(rows[0]["carrier_number"] or "") if rows else ""

    def set_carrier_number(self, order_id: int, number: str) -> None:
        """Keep the carrier's number; customers see it once the documents are released."""
        self._db.execute(
            "UPDATE shipments SET carrier_number = ? WHERE order_id = ?", (number, order_id)
        )

    def set_uploaded(self, order_id: int, artifacts: list[Artifact]) -> None:
        """Note that both documents are in the store."""
        with self._db.transaction():
            for artifact in artifacts:
                self._db.execute(
                    "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, NULL)",
                    (artifact.key, artifact.order_id, artifact.kind),
                )
            self._db.execute("UPDATE shipments SET uploaded = 1 WHERE order_id = ?", (order_id,))
            self._note(order_id, "artifact", "UPLOADED", "label and packing slip made")

    def waiting(self) -> list[Artifact]:
        """Return the artefacts that were uploaded and not released yet."""
        rows = self._db.query("SELECT * FROM artifacts WHERE released IS NULL")
        return [Artifact(row["key"], row["order_id"], row["kind"]) for row in rows]

    def set_released(self, key: str, how: str, tracking_number: str) -> None:
        """Note that an artefact left ``pending/``; the last one puts its shipment in transit."""
        now = format_z(self._clock.now())
        with self._db.transaction():
            self._db.execute("UPDATE artifacts SET released = ? WHERE key = ?", (now, key))
            rows = self._db.query("SELECT order_id FROM artifacts WHERE key = ?", (key,))
            if not rows:
                return
            order_id = rows[0]["order_id"]
            self._note(order_id, "artifact", "RELEASED", how, now)
            if not self._db.query(
                "SELECT 1 FROM artifacts WHERE order_id = ? AND released IS NULL", (order_id,)
            ):
                self.set_status(order_id, "IN_TRANSIT", "documents released", tracking_number)

    def set_status(
        self, order_id: int, status: str, message: str, tracking_number: str = ""
    ) -> None:
        """Change what a customer is told."""
        now = format_z(self._clock.now())
        self._db.execute(
            "UPDATE shipments SET status = ?, updated_at = ?,"
            " tracking_number = coalesce(nullif(?, ''), carrier_number, tracking_number),"
            " delivered_at = CASE WHEN ? = 'DELIVERED' THEN ? ELSE delivered_at END"
            " WHERE order_id = ?",
            (status, now, tracking_number, status, now, order_id),
        )
        self._note(order_id, "status", status, message, now)

    def find(
        self, *, order_id: int | None = None, status: str | None = None, limit: int = 50
    ) -> dict[str, Any]:
        """Return shipments, the newest first, and how many match."""
        params = {"order_id": order_id, "status": status, "limit": limit}
        rows = self._db.query(
            _SELECT + ", count(*) OVER () AS total FROM shipments"
            " WHERE (:order_id IS NULL OR order_id = :order_id)"
            " AND (:status IS NULL OR status = :status)"
            " ORDER BY created_at DESC LIMIT :limit",
            params,
        )
        total = rows[0]["total"] if rows else 0
        return {"items": [_shipment(row) for row in rows], "total": total}

    def get(self, column: Column, value: str | int) -> dict[str, Any] | None:
        """Return the shipment with this ``id``, ``order_id`` or ``tracking_number``."""
        rows = self._db.query(_LOOK_UPS[column], (value,))
        return _shipment(rows[0]) if rows else None

    def events(self, order_id: int) -> list[dict[str, Any]]:
        """Return what happened to an order, oldest first."""
        rows = self._db.query(
            "SELECT * FROM events WHERE order_id = ? ORDER BY number", (order_id,)
        )
        return [{k: row[k] for k in ("type", "status", "message", "timestamp")} for row in rows]

    def switch(self, name: str) -> bool:
        """Return a switch that survives restarts."""
        rows = self._db.query("SELECT value FROM switches WHERE name = ?", (name,))
        return bool(rows and rows[0]["value"])

    def set_switch(self, name: str, on: bool) -> None:
        """Set a switch that survives restarts."""
        now = format_z(self._clock.now())
        with self._db.transaction():
            if on != self.switch(name):
                self._db.execute("INSERT OR REPLACE INTO changes VALUES (?, ?)", (name, now))
            self._db.execute("INSERT OR REPLACE INTO switches VALUES (?, ?)", (name, on))

    def switched_at(self, name: str) -> str | None:
        """Return when a switch was last changed; None when it never was."""
        rows = self._db.query("SELECT at FROM changes WHERE name = ?", (name,))
        return str(rows[0]["at"]) if rows else None

    def _note(
        self, order_id: int, kind: str, status: str, message: str, at: str | None = None
    ) -> None:
        self._db.execute(
            "INSERT INTO events (order_id, type, status, message, timestamp)"
            " VALUES (?, ?, ?, ?, ?)",
            (order_id, kind, status, message, at or format_z(self._clock.now())),
        )


def _shipment(row: sqlite3.Row) -> dict[str, Any]:
    due = parse_time(row["shipped_at"]) + timedelta(days=3)
    return {
        "id": row["id"],
        "orderId": row["order_id"],
        "fulfillmentCenterId": row["center"],
        "carrier": row["carrier"],
        "serviceLevel": row["service_level"],
        "status": row["status"],
        "trackingNumber": row["tracking_number"],
        "shippedAt": row["shipped_at"],
        "deliveredAt": row["delivered_at"],
        "estimatedDelivery": due.date().isoformat(),
        "createdAt": row["created_at"],
        "updatedAt": row["updated_at"],
        "tasks": json.loads(row["tasks"]),
    }
