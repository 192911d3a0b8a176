"""The notification sink: stands in for Slack, Teams and the mailbox, and tells what arrived."""

from __future__ import annotations

import email
import email.policy
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from fastapi import FastAPI, HTTPException, Request
from prometheus_client import CollectorRegistry, Counter
from pydantic import Field

from .clock import Clock, format_z, parse_time
from .database import Database
from .plumbing import ServiceSettings, build_app, configure_logging, serve

__all__ = ["Inbox", "SinkSettings", "build", "main", "parse_message"]

log = logging.getLogger("notification_sink")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS notifications (
    number INTEGER PRIMARY KEY AUTOINCREMENT, channel TEXT NOT NULL, received REAL NOT NULL,
    item TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_time ON notifications (received);
"""
_HEADLINE = re.compile(r"\[(FIRING|RESOLVED)(?::\d+)?\]\s+([A-Za-z_]\w*)")
_ALERT = re.compile(r"^\[(?:firing|resolved)\] ([A-Za-z_]\w*)", re.MULTILINE)
_DRILL = re.compile(r"\[DRILL\]|\bdrill\s*=\s*\"?true")
_TEXT_FIELDS = ("title", "pretext", "text")

Channel = Literal["slack", "email", "teams"]


class SinkSettings(ServiceSettings):
    """Where mail arrives, and where all is kept."""

    database: Path
    smtp_host: str = "127.0.0.1"
    smtp_port: int = Field(8116, ge=0, le=65535)


def parse_message(text: str) -> dict[str, Any]:
    """Read an Alertmanager notification's status, alert names and drill mark from its text.

    Returns
    -------
    dict
        ``status`` (``firing``, ``resolved``, or empty when the text is no alert),
        ``alertnames`` (sorted), ``drill``.
    """
    head = _HEADLINE.search(text)
    names = set(_ALERT.findall(text)) | ({head.group(2)} if head else set())
    return {
        "status": head.group(1).lower() if head else "",
        "alertnames": sorted(names),
        "drill": bool(_DRILL.search(text)),
    }


class Inbox:
    """What arrived, oldest first; survives a restart."""

    def __init__(self, path: Path, clock: Clock, registry: CollectorRegistry) -> None:
        self._db, self._clock = Database(path, _SCHEMA), clock
        self._received = Counter(
            "notification_sink_received_total",
            "Notifications received",
            ["channel"],
            registry=registry,
        )
        for channel in ("slack", "email", "teams"):
            self._received.labels(channel)

    def add(self, channel: Channel, text: str, payload: dict[str, Any] | None = None) -> None:
        """Keep one notification; ``payload`` when it came as Alertmanager's own webhook."""
        facts = parse_message(text)
        if payload is not None:
            alerts = payload.get("alerts", [])
            labels = [alert.get("labels", {}) for alert in alerts]
            facts = {
                "status": payload.get("status", ""),
                "alertnames": sorted({label.get("alertname", "") for label in labels}),
                "drill": any(label.get("drill") == "true" for label in labels),
                "alertmanagerPayload": payload,
            }
        now = self._clock.now()
        item = {"channel": channel, "receivedAt": format_z(now), **facts, "text": text}
        self._db.execute(
            "INSERT INTO notifications (channel, received, item) VALUES (?, ?, ?)",
            (channel, now.timestamp(), json.dumps(item)),
        )
        self._received.labels(channel).inc()
        log.info("received", extra={"channel": channel, **parse_message(text)})

    def find(self, since: float, channel: str | None) -> list[dict[str, Any]]:
        """Return what arrived since a time, of one channel or of all."""
        rows = self._db.query(
            "SELECT item FROM notifications WHERE received >= ? AND (? IS NULL OR channel = ?)"
            " ORDER BY number",
            (since, channel, channel),
        )
        return [json.loads(row["item"]) for row in rows]


class _MailHandler:
    """Takes every mail, whoever it is for."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        body = envelope.content or b""
        raw = body if isinstance(body, bytes) else body.encode()
        mail = email.message_from_bytes(raw, policy=email.policy.default)
        part = mail.get_body(preferencelist=("plain", "html"))
        text = part.get_content() if part is not None else ""
        self._inbox.add("email", f"{mail['subject']}\n{text}")
        return "250 OK"


def _texts(value: object, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, name)
    elif isinstance(value, str) and name in _TEXT_FIELDS and value:
        yield value


def build(settings: SinkSettings, inbox: Inbox, registry: CollectorRegistry) -> FastAPI:
    """Build the sink's HTTP side."""
    app = build_app("notification-sink", clock=settings.clock, registry=registry)

    async def take(channel: Channel, request: Request) -> dict[str, bool]:
        try:
            body = await request.json()
        except ValueError:
            raise HTTPException(400, "The body is not JSON") from None
        own = isinstance(body, dict) and isinstance(body.get("alerts"), list)
        text = json.dumps(body) if own else "\n".join(_texts(body))
        inbox.add(channel, text, body if own else None)
        return {"ok": True}

    @app.post("/slack/{rest:path}")
    async def slack(request: Request) -> dict[str, bool]:
        return await take("slack", request)

    @app.post("/teams/{rest:path}")
    async def teams(request: Request) -> dict[str, bool]:
        return await take("teams", request)

    @app.get("/notifications")
    def notifications(since: str | None = None, channel: Channel | None = None) -> dict[str, Any]:
        try:
            # A "+" in a query is decoded to a blank, and ISO offsets may begin with a "+".
            at = parse_time(since.replace(" ", "+")).timestamp() if since else 0.0
        except ValueError:
            raise HTTPException(422, "since is not an ISO 8601 time") from None
        return {"items": inbox.find(at, channel)}

    return app


def main() -> None:
    """Serve HTTP and SMTP."""
    settings = SinkSettings()
    configure_logging(settings.clock)
    registry = CollectorRegistry()
    inbox = Inbox(settings.database, settings.clock, registry)
    smtp = Controller(_MailHandler(inbox), hostname=settings.smtp_host, port=settings.smtp_port)
    smtp.start()
    serve(build(settings, inbox, registry), settings)
    smtp.stop()


if __name__ == "__main__":
    main()
