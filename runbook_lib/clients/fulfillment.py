"""Talk to the fulfilment service: the label worker, shipments, the order feed's door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..model import Json
from .fields import as_list, parse_when
from .http import HttpSystem

__all__ = ["FulfillmentClient", "WorkerState"]

_WORKER = "/fulfillment/worker"


@dataclass(frozen=True, slots=True)
class WorkerState:
    """What the worker says of itself. ``credentials`` is ``present`` or ``absent``."""

    paused: bool
    moving: bool
    last_run_at: datetime | None
    last_move_at: datetime | None
    last_error: str
    pending_prefix: str
    ready_prefix: str
    bucket: str
    endpoint: str
    credentials: str
    raw: dict[str, Json]


class FulfillmentClient(HttpSystem):
    """Read and steer the label worker; read shipments.

    Parameters
    ----------
    url : the service's address
    timeout_s : limit for each question
    """

    SYSTEM = "fulfillment"

    def read_worker(self) -> WorkerState:
        """Return the worker's state; ``NotFoundError`` where the service has no such API."""
        return self._worker(_WORKER, self.http.get_json(_WORKER))

    def trigger_worker(self) -> None:
        """Have the worker do one pass now. Moves labels; there is no way back."""
        self.http.post_json(f"{_WORKER}/run")

    def pause_worker(self) -> WorkerState:
        """Pause the worker; undone by ``resume_worker``."""
        return self._worker(f"{_WORKER}/pause", self.http.post_json(f"{_WORKER}/pause"))

    def resume_worker(self) -> WorkerState:
        """Let the worker go on; undone by ``pause_worker``."""
        return self._worker(f"{_WORKER}/resume", self.http.post_json(f"{_WORKER}/resume"))

    def list_shipments(
        self, order_id: int | None = None, status: str | None = None, limit: int = 100
    ) -> list[dict[str, Json]]:
        """Return shipments as the service has them, of one order or status when given."""
        path = "/fulfillment/shipments"
        wanted = {"orderId": order_id, "status": status, "limit": limit}
        answer = self.http.get_json(path, {k: v for k, v in wanted.items() if v is not None})
        with self.http.parsing(path):
            return [dict(item) for item in as_list(answer["items"])]

    def submit_orders(self, orders: Sequence[dict[str, Any]]) -> int:
        """Hand orders to the feed, as a drill does; returns how many were accepted."""
        path = "/fulfillment/orders"
        answer = self.http.post_json(path, {"orders": list(orders)})
        with self.http.parsing(path):
            return int(answer["accepted"])

    def _worker(self, path: str, answer: Json) -> WorkerState:
        with self.http.parsing(path):
            for name in ("paused", "moving"):
                if not isinstance(answer[name], bool):
                    raise TypeError(f"{name} is not true or false")
            return WorkerState(
                paused=answer["paused"],
                moving=answer["moving"],
                last_run_at=parse_when(answer.get("lastRunAt")),
                last_move_at=parse_when(answer.get("lastMoveAt")),
                last_error=str(answer.get("lastError") or ""),
                pending_prefix=str(answer.get("pendingPrefix", "")),
                ready_prefix=str(answer.get("readyPrefix", "")),
                bucket=str(answer.get("bucket", "")),
                endpoint=str(answer.get("endpoint", "")),
                credentials=str(answer.get("credentials", "")),
                raw=dict(answer),
            )
