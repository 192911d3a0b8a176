"""Run support-service: ``python -m dataflow_stack.services.support``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Query, UploadFile
from prometheus_client import CollectorRegistry, Counter
from pydantic import Field

from ..plumbing import ApiModel, ServiceSettings, build_app, configure_logging, serve
from .tickets import Tickets
from .timeline import Timelines

__all__ = ["SupportSettings", "build", "main"]


class SupportSettings(ServiceSettings):
    """Where tickets are kept and shipments come from."""

    database: Path
    fulfillment_service_url: str = "http://127.0.0.1:8108"
    timeline_cache_ttl_seconds: float = Field(300.0, ge=0)
    source_timeout_s: float = Field(2.0, gt=0)


class CaseIn(ApiModel):
    """A new ticket."""

    subject: str = Field(min_length=1)
    channel: str = "email"
    context: list[dict[str, Any]] = Field(default_factory=list)
    initial_message: str = ""


class MessageIn(ApiModel):
    """A message of a conversation."""

    author_type: str = "agent"
    message: str = Field(min_length=1)


def build(settings: SupportSettings) -> FastAPI:
    """Put the service together."""
    clock, registry = settings.clock, CollectorRegistry()
    tickets = Tickets(settings.database, clock)
    timelines = Timelines(
        tickets,
        fulfillment_url=settings.fulfillment_service_url,
        ttl_s=settings.timeline_cache_ttl_seconds,
        timeout_s=settings.source_timeout_s,
        registry=registry,
    )
    created = Counter("support_cases_created_total", "Tickets opened", registry=registry)
    app = build_app("support-service", clock=clock, registry=registry)

    def found(ticket_id: str) -> dict[str, Any]:
        ticket = tickets.get(ticket_id)
        if ticket is None:
            raise HTTPException(404, "Ticket not found")
        return ticket

    @app.post("/support/cases", status_code=201)
    def create(body: CaseIn) -> dict[str, Any]:
        ticket_id = tickets.create(body.subject, body.channel, body.context, body.initial_message)
        created.inc()
        return found(ticket_id) | {"timeline": []}

    @app.get("/support/cases/{ticket_id}")
    def read(
        ticket_id: str, include_timeline: bool = Query(False, alias="includeTimeline")
    ) -> dict[str, Any]:
        ticket = found(ticket_id)
        entries = tickets.entries(ticket_id)
        return ticket | {
            "timeline": timelines.read(ticket) if include_timeline else [],
            "messages": [entry for entry in entries if entry["type"] == "conversation"],
            "attachments": [entry for entry in entries if entry["type"] == "attachment"],
        }

    @app.post("/support/cases/{ticket_id}/timeline/refresh")
    def refresh(ticket_id: str) -> dict[str, Any]:
        ticket = found(ticket_id)
        timelines.drop(ticket_id)
        return ticket | {"timeline": timelines.read(ticket)}

    @app.post("/support/cases/{ticket_id}/messages", status_code=201)
    def add_message(ticket_id: str, body: MessageIn) -> dict[str, Any]:
        found(ticket_id)
        return tickets.add_message(ticket_id, body.author_type, body.message)

    @app.post("/support/cases/{ticket_id}/attachments", status_code=201)
    async def add_attachment(ticket_id: str, file: UploadFile) -> dict[str, Any]:
        found(ticket_id)
        body = await file.read()
        return tickets.add_attachment(ticket_id, file.filename or "unnamed", len(body))

    @app.post("/support/cases/{ticket_id}/close")
    def close(ticket_id: str) -> dict[str, Any]:
        found(ticket_id)
        tickets.close(ticket_id)
        return found(ticket_id) | {"timeline": []}

    return app


def main() -> None:
    """Serve it."""
    settings = SupportSettings()
    configure_logging(settings.clock)
    serve(build(settings), settings)


if __name__ == "__main__":
    main()
