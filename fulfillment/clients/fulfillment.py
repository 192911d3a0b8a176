"""Talk to the fulfilment service: the label worker, shipments, the order feed's door."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import StrictBool, with_config

from runbook_lib.fields import CAMEL, Text, When
from runbook_lib.http import HttpClient
from runbook_lib.model import Json

_WORKER = "/fulfillment/worker"


@with_config(CAMEL)
@dataclass(frozen=True, slots=True)
class WorkerState:
    """What the worker says of itself; ``raw`` is all of it."""

    paused: StrictBool
    moving: StrictBool
    last_run_at: When = None
    last_move_at: When = None
    last_error: Text = ""
    pending_prefix: str = ""
    ready_prefix: str = ""
    bucket: str = ""
    raw: dict[str, Json] = field(default_factory=dict)


class FulfillmentClient(HttpClient):
    """Read and steer the label worker; read shipments."""

    SYSTEM = "fulfillment"

    def read_worker(self) -> WorkerState:
        """Return the worker's state; ``NotFoundError`` where the service has no such API."""
        answer = self.get(_WORKER, dict[str, Json])
        return self.read_as(_WORKER, {**answer, "raw": answer}, WorkerState)

    def trigger_worker(self) -> None:
        """Have the worker do one pass now. Moves labels; there is no way back."""
        self.post(f"{_WORKER}/run", object)

    def pause_worker(self) -> None:
        """Pause the worker; undone by ``resume_worker``."""
        self.post(f"{_WORKER}/pause", object)

    def resume_worker(self) -> None:
        """Let the worker go on; undone by ``pause_worker``."""
        self.post(f"{_WORKER}/resume", object)

    def list_shipments(self, order_id: int, limit: int = 100) -> list[dict[str, Json]]:
        """Return an order's shipments as the service has them."""
        wanted = {"orderId": order_id, "limit": limit}
        return self.get("/fulfillment/shipments", list[dict[str, Json]], wanted, "items")
