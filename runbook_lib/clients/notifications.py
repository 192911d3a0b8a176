"""Ask what the alert receivers got, where something that receives alerts can say so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..model import format_time, parse_time
from .fields import as_list
from .http import HttpSystem

__all__ = ["Notification", "NotificationsClient"]


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification as it arrived. ``channel`` is slack, email or teams."""

    channel: str
    received_at: datetime
    status: str
    alertnames: tuple[str, ...]
    is_drill: bool
    text: str


class NotificationsClient(HttpSystem):
    """Read what arrived. Only reads.

    Parameters
    ----------
    url : the notification sink's address; empty where there is none
    timeout_s : limit for each question
    """

    SYSTEM = "notifications"

    def list_notifications(
        self, since: datetime | None = None, channel: str | None = None
    ) -> list[Notification]:
        """Return what arrived, oldest first, since a time and on one channel when given."""
        path = "/notifications"
        wanted = {"since": format_time(since) if since else None, "channel": channel}
        answer = self.http.get_json(path, {k: v for k, v in wanted.items() if v is not None})
        with self.http.parsing(path):
            found = [
                Notification(
                    channel=str(item["channel"]),
                    received_at=parse_time(item["receivedAt"]),
                    status=str(item["status"]),
                    alertnames=tuple(map(str, as_list(item["alertnames"]))),
                    is_drill=bool(item.get("drill", False)),
                    text=str(item.get("text", "")),
                )
                for item in as_list(answer["items"])
            ]
        return sorted(found, key=lambda item: item.received_at)
