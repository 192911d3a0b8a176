"""The HTTP interface of fulfillment-service."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import Field, field_validator

from ..clock import Clock
from ..plumbing import ApiModel, Loop
from .config import FulfillmentSettings
from .feed import Feed, FeedPace
from .shipments import Column, Order, Shipments
from .signals import Signals
from .worker import Worker

__all__ = ["build_router"]


class OrderIn(ApiModel):
    """An order as it is handed over; a ``shippedAt`` in the past is a late hand-over."""

    order_id: int = Field(gt=0)
    shipped_at: datetime
    carrier: str = Field("GHN", min_length=1, max_length=40)
    service_level: str = Field("standard", max_length=40)

    @field_validator("shipped_at")
    @classmethod
    def _without_zone_is_utc(cls, value: datetime) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class OrdersIn(ApiModel):
    """A hand-over of orders."""

    orders: list[OrderIn] = Field(max_length=10_000)


class ShipmentIn(ApiModel):
    """A shipment as DataFlow's own callers make it."""

    order_id: int = Field(gt=0)
    fulfillment_center_id: str = "HCM-01"
    carrier: str = "GHN"
    service_level: str = "standard"


class StatusIn(ApiModel):
    """A status that the carrier reports."""

    status: str = Field(min_length=1, max_length=40)
    message: str = ""


def build_router(
    settings: FulfillmentSettings,
    *,
    clock: Clock,
    shipments: Shipments,
    worker: Worker,
    feed: Feed,
    signals: Signals,
    worker_loop: Loop,
) -> APIRouter:
    """Build the routes under ``/fulfillment`` and ``/admin``."""
    router = APIRouter()

    def worker_shape() -> dict[str, Any]:
        given = bool(settings.minio_user and settings.minio_password.get_secret_value())
        return {
            "paused": worker.paused,
            "pausedAt": worker.paused_at,
            "lastRunAt": worker.state.last_run_at,
            "lastMoveAt": worker.state.last_move_at,
            "lastError": worker.state.last_error,
            "moving": worker.state.moving,
            "pendingPrefix": settings.watched_prefix,
            "readyPrefix": settings.ready_prefix,
            "bucket": settings.bucket,
            "endpoint": settings.minio_endpoint,
            "pipelineDagId": settings.pipeline_dag_id,
            "credentials": "present" if given else "absent",
        }

    def found(column: Column, value: str | int) -> dict[str, Any]:
        shipment = shipments.get(column, value)
        if shipment is None:
            raise HTTPException(404, "Shipment not found")
        return shipment

    @router.post("/fulfillment/orders", status_code=202)
    def take_orders(body: OrdersIn) -> dict[str, int]:
        added = shipments.add(
            [Order(o.order_id, o.shipped_at, o.carrier, o.service_level) for o in body.orders]
        )
        signals.received.inc(added)
        return {"accepted": added}

    @router.post("/fulfillment/shipments", status_code=201)
    def make_shipment(body: ShipmentIn) -> dict[str, Any]:
        order = Order(
            body.order_id, clock.now(), body.carrier, body.service_level, body.fulfillment_center_id
        )
        if not shipments.add([order]):
            raise HTTPException(409, "The order has a shipment already")
        signals.received.inc()
        return found("order_id", body.order_id)

    @router.get("/fulfillment/shipments")
    def list_shipments(
        order_id: int | None = Query(None, alias="orderId"),
        status: str | None = None,
        limit: int = Query(50, ge=1, le=1000),
    ) -> dict[str, Any]:
        return shipments.find(order_id=order_id, status=status, limit=limit)

    @router.get("/fulfillment/shipments/{shipment_id}")
    def read_shipment(shipment_id: str) -> dict[str, Any]:
        return found("id", shipment_id)

    @router.post("/fulfillment/shipments/{shipment_id}/status")
    def set_status(shipment_id: str, body: StatusIn) -> dict[str, Any]:
        order_id = found("id", shipment_id)["orderId"]
        shipments.set_status(order_id, body.status, body.message)
        return found("id", shipment_id)

    @router.get("/fulfillment/shipments/{shipment_id}/events")
    def read_events(shipment_id: str) -> dict[str, Any]:
        return {"items": shipments.events(found("id", shipment_id)["orderId"])}

    @router.get("/fulfillment/track/{tracking_number}")
    def track(tracking_number: str) -> dict[str, Any]:
        return found("tracking_number", tracking_number)

    @router.get("/fulfillment/worker")
    def read_worker() -> dict[str, Any]:
        return worker_shape()

    @router.post("/fulfillment/worker/run", status_code=202)
    def run_worker() -> dict[str, Any]:
        if worker.paused:
            raise HTTPException(409, "The worker is paused: resume it first")
        worker_loop.wake()
        return worker_shape()

    @router.post("/fulfillment/worker/pause")
    def pause_worker() -> dict[str, Any]:
        worker.set_paused(True)
        return worker_shape()

    @router.post("/fulfillment/worker/resume")
    def resume_worker() -> dict[str, Any]:
        worker.set_paused(False)
        worker_loop.wake()
        return worker_shape()

    @router.get("/admin/feed")
    def read_feed() -> FeedPace:
        return feed.pace

    @router.put("/admin/feed")
    def set_feed(pace: FeedPace) -> FeedPace:
        feed.pace = pace
        return pace

    return router
