"""Makes an order's documents and uploads them under ``pending/``."""

from __future__ import annotations

import io
import logging
import uuid
from concurrent.futures import ThreadPoolExecutor

from minio import Minio

from dataflow_stack.store_client import STORE_ERRORS, find_reason

from ..clock import Clock, format_z
from .carrier import Carrier, CarrierError
from .config import FulfillmentSettings
from .documents import make_document
from .shipments import Artifact, Order, Shipments
from .signals import KINDS, Signals

__all__ = ["LabelMaker"]

log = logging.getLogger("fulfillment.labels")


class LabelMaker:
    """Turn orders that were handed over into uploaded documents.

    An order whose carrier failed is uploaded without ``tracking-number``: it waits in
    ``pending/`` as incomplete until the worker gets the number. An order whose upload failed
    is tried again later: none is lost.
    """

    def __init__(
        self,
        settings: FulfillmentSettings,
        *,
        clock: Clock,
        client: Minio,
        shipments: Shipments,
        carrier: Carrier,
        signals: Signals,
    ) -> None:
        self._settings, self._clock, self._client = settings, clock, client
        self._shipments, self._carrier, self._signals = shipments, carrier, signals
        self._pool = ThreadPoolExecutor(settings.label_threads, thread_name_prefix="label")

    def run(self) -> float:
        """Make what is due; return the seconds to wait."""
        orders = self._shipments.due_for_upload(4 * self._settings.label_threads)
        list(self._pool.map(self._make, orders))
        return 0.0 if orders else 0.2

    def _make(self, order: Order) -> None:
        number = self._shipments.carrier_number(order.order_id)
        if not number:
            try:
                number = self._carrier.request_tracking_number(order)
                self._shipments.set_carrier_number(order.order_id, number)
            except CarrierError:
                number = ""
        try:
            artifacts = [self._upload(order, kind, number) for kind in KINDS]
        except STORE_ERRORS as error:
            reason = find_reason(error)
            self._signals.failed.labels("upload", reason).inc()
            log.error(  # noqa: TRY400 - the reason says it; a traceback adds nothing
                "upload failed: %s: %s", reason, error, extra={"order_id": order.order_id}
            )
            at = self._clock.time() + self._settings.retry_s
            self._shipments.retry_at(order.order_id, at)
            return
        self._shipments.set_uploaded(order.order_id, artifacts)
        log.info(
            "uploaded",
            extra={"order_id": order.order_id, "keys": [artifact.key for artifact in artifacts]},
        )

    def _upload(self, order: Order, kind: str, number: str) -> Artifact:
        # The same order always gets the same keys, so an upload that is tried again after
        # half of it succeeded leaves no second label behind.
        artifact_id = uuid.uuid5(uuid.NAMESPACE_OID, f"{order.order_id}/{order.carrier}").hex[:12]
        key = f"{self._settings.pending_prefix}{order.order_id}-{artifact_id}{KINDS[kind]}"
        body = make_document(
            kind,
            order_id=order.order_id,
            carrier=order.carrier,
            artifact_id=artifact_id,
            since=order.shipped_at,
        )
        metadata = {
            "order-id": str(order.order_id),
            "artifact-id": artifact_id,
            "artifact-kind": kind,
            "pending-since": format_z(order.shipped_at),
        }
        if number:
            metadata["tracking-number"] = number
        self._client.put_object(
            bucket_name=self._settings.bucket,
            object_name=key,
            data=io.BytesIO(body),
            length=len(body),
            content_type="application/pdf",
            metadata=dict(metadata),
        )
        self._signals.arrived.labels(kind).inc()
        return Artifact(key, order.order_id, kind)
