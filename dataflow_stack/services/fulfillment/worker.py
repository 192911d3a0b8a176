"""The release worker: moves finished documents from ``pending/`` to ``ready/``."""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from minio import Minio
from minio.error import S3Error

from dataflow_stack.store_client import STORE_ERRORS, copy_guarded, find_reason

from ..clock import Clock, format_z, parse_time
from .carrier import Carrier, CarrierError
from .config import FulfillmentSettings
from .pipeline import PipelineGate
from .shipments import Artifact, Order, Shipments
from .signals import KINDS, Signals
from .waiting import Waiting, WaitingObject

__all__ = ["Worker", "WorkerState"]

log = logging.getLogger("fulfillment.worker")

_GONE = ("NoSuchKey", "NoSuchObject", "PreconditionFailed")
#: Carrier failures after which a pass asks no more: each may cost a whole time-out.
_CARRIER_PATIENCE = 2
#: How many artefacts that others took out of pending/ one pass looks up, at most.
_RECONCILED_PER_PASS = 100


@dataclass(slots=True)
class WorkerState:
    """What the worker's API shows."""

    last_run_at: str | None = None
    last_move_at: str | None = None
    last_error: str | None = None
    moving: bool = False


class Worker:
    """One pass after another, each under the run lock.

    Notes
    -----
    Changes the store: copies to ``ready/`` (guarded by the ETag), then deletes the source.
    Never moves synthetic objects, nor objects without a tracking number.
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
        self._gate = PipelineGate(settings)
        self._waiting = Waiting(client, settings.bucket)
        self._objection = ""
        self.state = WorkerState()
        signals.paused.set(self.paused)

    @property
    def paused(self) -> bool:
        """Whether someone paused the worker; survives a restart."""
        return self._shipments.switch("worker_paused")

    @property
    def paused_at(self) -> str | None:
        """Since when the worker is paused; None while it is not."""
        return self._shipments.switched_at("worker_paused") if self.paused else None

    def set_paused(self, paused: bool) -> None:
        """Pause or resume."""
        self._shipments.set_switch("worker_paused", paused)
        self._signals.paused.set(paused)
        log.warning("worker %s", "paused" if paused else "resumed")

    def run(self) -> float:
        """Do one pass; return the seconds to wait until the next."""
        with self._run_lock():
            self._signals.last_run.set(self._clock.time())
            self.state.last_run_at = format_z(self._clock.now())
            self.state.last_error = None
            if not self.paused and self._may_release():
                try:
                    self._pass()
                except STORE_ERRORS as error:
                    self._fail("release", find_reason(error), str(error))
                finally:
                    self.state.moving = False
        return self._settings.worker_interval_s

    @contextmanager
    def _run_lock(self) -> Iterator[None]:
        # Blocking on purpose: a second worker waits its turn, as cron jobs with flock do.
        with self._settings.worker_lock_file.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _may_release(self) -> bool:
        objection = self._gate.read_objection()
        if objection != self._objection:
            log.warning("releases are held: %s", objection) if objection else log.info(
                "releases run again"
            )
            self._objection = objection
        return not objection

    def _pass(self) -> None:
        prefix = self._settings.watched_prefix
        before = self._shipments.waiting()
        objects = self._waiting.list(prefix, self._clock.now())
        real = [o for o in objects if not o.is_synthetic]
        for item in [o for o in real if not o.is_incomplete][: self._settings.worker_batch]:
            if self.paused:
                return
            self.state.moving = True
            self._move(item)
        self.state.moving = False
        self._complete([o for o in real if o.is_incomplete])
        listed = {o.key for o in objects}
        missing = [a for a in before if a.key.startswith(prefix) and a.key not in listed]
        self._reconcile(missing[:_RECONCILED_PER_PASS])

    def _move(self, item: WaitingObject) -> None:
        destination = self._settings.ready_prefix + item.key[len(self._settings.watched_prefix) :]
        bucket = self._settings.bucket
        try:
            taken = self._etag_of(destination)
            if taken and taken != item.etag:
                self._fail("release", "other", f"{destination} holds another document")
                return
            if not taken:
                copy_guarded(self._client, bucket, item.key, destination, etag=item.etag)
            if self._etag_of(item.key) != item.etag:
                log.warning("source changed during the move", extra={"key": item.key})
                return
            self._client.remove_object(bucket_name=bucket, object_name=item.key)
        except S3Error as error:
            if error.code in _GONE:
                log.info("taken by someone else", extra={"key": item.key})
                return
            raise
        kind = item.metadata.get("artifact-kind", "")
        self._signals.moved.labels(kind if kind in KINDS else "label").inc()
        self._signals.last_move.set(self._clock.time())
        self.state.last_move_at = format_z(self._clock.now())
        log.info("moved", extra={"key": item.key, "destination": destination})
        number = item.metadata.get("tracking-number", "")
        self._shipments.set_released(item.key, "released by the worker", number)

    def _complete(self, incomplete: list[WaitingObject]) -> None:
        failures = 0
        for item in incomplete:
            if failures >= _CARRIER_PATIENCE:
                return
            order_id = item.metadata.get("order-id", "")
            shipment = self._shipments.get("order_id", order_id)
            if shipment is None:
                continue  # not an order of ours: only its maker can finish it
            number = self._shipments.carrier_number(int(order_id))
            if not number:
                order = Order(int(order_id), parse_time(shipment["shippedAt"]), shipment["carrier"])
                try:
                    number = self._carrier.request_tracking_number(order)
                except CarrierError as error:
                    failures += 1
                    self.state.last_error = str(error)
                    continue
                self._shipments.set_carrier_number(order.order_id, number)
            metadata = item.metadata | {"tracking-number": number}
            try:
                copy_guarded(
                    self._client,
                    self._settings.bucket,
                    item.key,
                    item.key,
                    etag=item.etag,
                    metadata=metadata | {"Content-Type": "application/pdf"},
                )
            except S3Error as error:
                if error.code not in _GONE:
                    raise

    def _reconcile(self, missing: list[Artifact]) -> None:
        for artifact in missing:
            ready = self._settings.ready_prefix + artifact.key[len(self._settings.watched_prefix) :]
            how = "released by another hand" if self._etag_of(ready) else "taken from the store"
            log.info(how, extra={"key": artifact.key})
            self._shipments.set_released(artifact.key, how, "")

    def _etag_of(self, key: str) -> str:
        try:
            stat = self._client.stat_object(bucket_name=self._settings.bucket, object_name=key)
        except S3Error as error:
            if error.code in _GONE:
                return ""
            raise
        return stat.etag or ""

    def _fail(self, stage: str, reason: str, message: str) -> None:
        self._signals.failed.labels(stage, reason).inc()
        self.state.last_error = f"{reason}: {message}"
        log.error("%s failed: %s: %s", stage, reason, message)
