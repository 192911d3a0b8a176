"""Alerts that reached us as messages. The incident's journal holds each of them once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from ..errors import UsageError
from ..model import Timestamp, format_time
from .incident import Incident


class ReceivedAlert(BaseModel, frozen=True):
    """One alert. ``fingerprint`` and ``starts_at`` are its key.

    ``ends_at`` is when it ended, if it had ended before the look.
    """

    fingerprint: str
    starts_at: Timestamp
    labels: dict[str, str]
    ends_at: Timestamp | None = None

    @property
    def key(self) -> str:
        """What identifies the alert."""
        return f"{self.fingerprint} {format_time(self.starts_at)}"

    @property
    def line(self) -> str:
        """The alert in one line: name, labels, times, fingerprint; long labels are cut off."""
        labels = dict(sorted(self.labels.items()))
        name = labels.pop("alertname", "without a name")
        others = ", ".join(f"{label}={value}" for label, value in labels.items())
        times = f"firing since {self.starts_at:%H:%M:%SZ}"
        if self.ends_at is not None:
            times += f" until {self.ends_at:%H:%M:%SZ}"
        return f"{name:.60} ({others:.80}) {times}, {self.fingerprint}"


_ALERTS = TypeAdapter(tuple[ReceivedAlert, ...])


def read_alerts(path: Path | None) -> tuple[ReceivedAlert, ...]:
    """Return the alerts that a JSON file lists; none without a file.

    Raises
    ------
    UsageError
        When the file does not list alerts.
    """
    if path is None:
        return ()
    try:
        return _ALERTS.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"--alerts {path} lists no alerts: {type(error).__name__}") from None


def note_alerts(incident: Incident, alerts: Sequence[ReceivedAlert]) -> None:
    """Write into an incident's journal the alerts that it does not hold yet, as one note."""
    known: set[str] = set()
    for entry in incident.journal.view().entries:
        known.update(entry.data.get("alerts") or ())
    new = [alert for alert in alerts if alert.key not in known]
    if new:
        data = {
            "section": "",
            "text": "Alerts received: " + "; ".join(alert.line for alert in new),
            "alerts": [alert.key for alert in new],
            "late": incident.is_late,
        }
        incident.journal.append("note", data)
