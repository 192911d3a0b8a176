"""The carrier: gives tracking numbers; its latency and its errors can be set."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random

from fastapi import FastAPI, HTTPException
from prometheus_client import CollectorRegistry, Counter
from pydantic import Field

from .plumbing import ApiModel, ServiceSettings, build_app, configure_logging, serve

__all__ = ["build", "main"]

log = logging.getLogger("carrier_api")
_random = random.SystemRandom()


class Behaviour(ApiModel):
    """How the carrier answers: seconds it takes, and the share of answers that are 503."""

    latency_s: float = Field(0.02, ge=0, le=120)
    error_rate: float = Field(0.0, ge=0, le=1)


class LabelRequest(ApiModel):
    """What a label needs."""

    order_id: int
    carrier: str = "GHN"
    service_level: str = "standard"


def build(settings: ServiceSettings) -> FastAPI:
    """Build the carrier's API."""
    registry = CollectorRegistry()
    issued = Counter("carrier_labels_total", "Label requests", ["outcome"], registry=registry)
    app = build_app("carrier-api", clock=settings.clock, registry=registry)
    behaviour = Behaviour()

    @app.post("/carrier/labels", status_code=201)
    async def label(request: LabelRequest) -> dict[str, object]:
        await asyncio.sleep(behaviour.latency_s)
        if _random.random() < behaviour.error_rate:
            issued.labels("error").inc()
            log.error("label refused", extra={"order_id": request.order_id, "status": 503})
            raise HTTPException(503, "Carrier backend unavailable")
        issued.labels("ok").inc()
        # One order has one number, however often it is asked for: a retry must not ship twice.
        digest = hashlib.sha256(f"{request.carrier}/{request.order_id}".encode()).hexdigest()
        number = f"{request.carrier[:3].upper()}{int(digest[:12], 16):015d}"
        return {"orderId": request.order_id, "carrier": request.carrier, "trackingNumber": number}

    @app.get("/admin/behaviour")
    def read_behaviour() -> Behaviour:
        return behaviour

    @app.put("/admin/behaviour")
    def set_behaviour(wanted: Behaviour) -> Behaviour:
        nonlocal behaviour
        behaviour = wanted
        log.warning("behaviour changed", extra=wanted.model_dump())
        return behaviour

    return app


def main() -> None:
    """Serve the carrier."""
    settings = ServiceSettings()
    configure_logging(settings.clock)
    serve(build(settings), settings)


if __name__ == "__main__":
    main()
