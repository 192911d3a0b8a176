"""Talk to the support service: tickets, their timelines, what its collectors failed at."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, Field, with_config

from runbook_lib.fields import CAMEL, Text, check_id
from runbook_lib.http import HttpClient
from runbook_lib.model import Json

from .services import try_time

_CASES = "/support/cases"


def _list_orders(context: list[dict[str, Json]]) -> list[Json]:
    orders = (item.get("orderId") for item in context if item.get("type") == "order")
    return list(dict.fromkeys(order for order in orders if order is not None))


def _keep_raw(entries: Json) -> Json:
    is_list = isinstance(entries, list)
    return [{**entry, "raw": entry} for entry in entries] if is_list else entries


@with_config(CAMEL)
@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One event of a ticket. ``at`` is None when its time cannot be read; ``raw`` is all of it."""

    type: str = ""
    at: Annotated[
        datetime | None, BeforeValidator(try_time), Field(validation_alias="timestamp")
    ] = None
    source: str = ""
    status: Text = ""
    order_id: int | None = None
    raw: dict[str, Json] = field(default_factory=dict)


@with_config(CAMEL)
@dataclass(frozen=True, slots=True)
class Case:
    """A ticket. Its timeline is empty unless it was asked for."""

    id: Annotated[str, Field(validation_alias=AliasChoices("id", "ticketId"))]
    status: str = ""
    order_ids: Annotated[
        tuple[int, ...], BeforeValidator(_list_orders), Field(validation_alias="context")
    ] = ()
    timeline: Annotated[tuple[TimelineEntry, ...], BeforeValidator(_keep_raw)] = ()


class SupportClient(HttpClient):
    """Read and change tickets."""

    SYSTEM = "support"

    def create_case(self, subject: str, *, order_ids: tuple[int, ...]) -> Case:
        """Open a ticket about orders. Changes the service; undone by ``close_case``."""
        orders = [{"type": "order", "orderId": order} for order in order_ids]
        body = {"subject": subject, "channel": "internal", "context": orders}
        return self.post(_CASES, Case, {**body, "initialMessage": subject})

    def read_case(self, ticket_id: str) -> Case:
        """Return a ticket; raises ``NotFoundError`` when there is none with this id."""
        return self.get(self._path(ticket_id), Case, {"includeTimeline": "true"})

    def refresh_timeline(self, ticket_id: str) -> Case:
        """Have the timeline collected anew. Drops the service's cache; there is no way back."""
        return self.post(self._path(ticket_id, "/timeline/refresh"), Case)

    def close_case(self, ticket_id: str) -> None:
        """Close a ticket."""
        self.post(self._path(ticket_id, "/close"), object)

    def read_collection_failures(self) -> dict[str, float]:
        """Return how often each source of timelines failed since the service started."""
        failures: dict[str, float] = {}
        for sample in self.read_metrics():
            if sample.name == "support_timeline_collection_failures_total":
                stage = sample.labels.get("stage", "")
                failures[stage] = failures.get(stage, 0.0) + sample.value
        return failures

    def _path(self, ticket_id: str, rest: str = "") -> str:
        return f"{_CASES}/{check_id(ticket_id, 'a ticket id')}{rest}"
