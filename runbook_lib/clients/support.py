"""Talk to the support service: tickets, their timelines, what its collectors failed at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..model import Json, parse_time
from .fields import as_list, check_id
from .http import HttpSystem

__all__ = ["Case", "SupportClient", "TimelineEntry"]

_CASES = "/support/cases"


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One event of a ticket.

    ``at`` is None when its time cannot be read; ``raw`` is the entry as it came.
    """

    type: str
    at: datetime | None
    source: str
    status: str
    order_id: int | None
    raw: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Case:
    """A ticket. Its timeline is empty unless it was asked for."""

    id: str
    status: str
    order_ids: tuple[int, ...]
    timeline: tuple[TimelineEntry, ...]
    subject: str = ""


class SupportClient(HttpSystem):
    """Read and change tickets.

    Parameters
    ----------
    url : the service's address
    timeout_s : limit for each question
    """

    SYSTEM = "support"

    def create_case(
        self,
        subject: str,
        *,
        order_ids: tuple[int, ...] = (),
        message: str = "",
        channel: str = "internal",
    ) -> Case:
        """Open a ticket about orders. Changes the service; undone by ``close_case``."""
        return self._case(
            _CASES,
            self.http.post_json(
                _CASES,
                {
                    "subject": subject,
                    "channel": channel,
                    "context": [{"type": "order", "orderId": order} for order in order_ids],
                    "initialMessage": message or subject,
                },
            ),
        )

    def read_case(self, ticket_id: str, *, include_timeline: bool = True) -> Case:
        """Return a ticket; raises ``NotFoundError`` when there is none with this id."""
        path = self._path(ticket_id)
        wanted = {"includeTimeline": "true" if include_timeline else "false"}
        return self._case(path, self.http.get_json(path, wanted))

    def refresh_timeline(self, ticket_id: str) -> Case:
        """Have the timeline collected anew. Drops the service's cache; there is no way back."""
        path = self._path(ticket_id, "/timeline/refresh")
        return self._case(path, self.http.post_json(path))

    def add_message(self, ticket_id: str, message: str, *, author_type: str = "agent") -> None:
        """Add a message to a ticket."""
        path = self._path(ticket_id, "/messages")
        self.http.post_json(path, {"authorType": author_type, "message": message})

    def add_attachment(self, ticket_id: str, path: Path) -> None:
        """Attach a file to a ticket.

        Raises
        ------
        UsageError
            When the file cannot be read.
        """
        where = self._path(ticket_id, "/attachments")
        if not path.is_file():
            raise UsageError(f"{path} is not a file that can be attached")
        self.http.post_file(where, path)

    def close_case(self, ticket_id: str) -> None:
        """Close a ticket."""
        self.http.post_json(self._path(ticket_id, "/close"))

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

    def _case(self, path: str, answer: Json) -> Case:
        with self.http.parsing(path):
            timeline = tuple(map(_entry, as_list(answer.get("timeline", []))))
            context = as_list(answer.get("context", []))
            orders = [_order_id(item) for item in context if item.get("type") == "order"]
            return Case(
                id=str(answer.get("id") or answer["ticketId"]),
                status=str(answer.get("status", "")),
                order_ids=tuple(dict.fromkeys(order for order in orders if order is not None)),
                timeline=timeline,
                subject=str(answer.get("subject", "")),
            )


def _entry(raw: dict[str, Any]) -> TimelineEntry:
    try:
        at = parse_time(str(raw.get("timestamp", "")))
    except ValueError:
        at = None
    return TimelineEntry(
        type=str(raw.get("type", "")),
        at=at,
        source=str(raw.get("source", "")),
        status=str(raw.get("status") or ""),
        order_id=_order_id(raw),
        raw=raw,
    )


def _order_id(item: dict[str, Any]) -> int | None:
    value = item.get("orderId")
    return int(value) if value is not None else None
