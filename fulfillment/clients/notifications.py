"""Ask what the alert receivers got, where something that receives alerts can say so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import Field, StrictBool, with_config

from runbook_lib.fields import CAMEL, At
from runbook_lib.http import HttpClient
from runbook_lib.model import format_time


@with_config(CAMEL)
@dataclass(frozen=True, slots=True)
class Notification:
    """One notification as it arrived. ``channel`` is slack, email or teams."""

    channel: str
    received_at: At
    status: str
    alertnames: tuple[str, ...]
    is_drill: Annotated[StrictBool, Field(validation_alias="drill")] = False


class NotificationsClient(HttpClient):
    """Read what arrived. Only reads."""

    SYSTEM = "notifications"

    def list_notifications(self, since: datetime) -> list[Notification]:
        """Return what arrived since a time, oldest first."""
        query = {"since": format_time(since)}
        found = self.get("/notifications", list[Notification], query, "items")
        return sorted(found, key=lambda item: item.received_at)
