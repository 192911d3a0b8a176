"""Alerts that reached us as messages. The incident's journal holds each of them once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from ..errors import RecordError, UsageError
from ..model import Json, Timestamp, format_time
from .incident import Incident, list_incidents

#: A note of alerts has about this many characters at most. The report cuts a note off after 6,000.
_MOST_CHARS = 1_800


class ReceivedAlert(BaseModel, frozen=True):
    """One alert. ``fingerprint`` and ``starts_at`` are its key.

    ``ends_at`` is when it ended, if it had ended before the look; None: it had not.
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
        """The alert in one line: its name, what else it names, its times and its fingerprint."""
        name = self.labels.get("alertname", "without a name")
        others = sorted(item for item in self.labels.items() if item[0] != "alertname")
        labels = ", ".join(f"{label}={value}" for label, value in others)
        times = f"firing since {self.starts_at:%H:%M:%SZ}"
        if self.ends_at is not None:
            times += f" until {self.ends_at:%H:%M:%SZ}"
        return f"{_clip(name, 60)} ({_clip(labels, 80)}) {times}, {self.fingerprint}"


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
    """Write into an incident's journal the alerts that it does not hold yet."""
    if not alerts:
        return
    known: set[str] = set()
    for entry in incident.journal.view().entries:
        known.update(entry.data.get("alerts") or ())
    new = [alert for alert in alerts if alert.key not in known]
    for part in _split(new):
        text = "Alerts received: " + "; ".join(alert.line for alert in part)
        open_then = _list_open_then(incident, part)
        if open_then:
            text += f". Open while they fired: {', '.join(open_then)}"
        data: dict[str, Json] = {
            "section": "",
            "text": text,
            "alerts": [alert.key for alert in part],
            "open_then": list(open_then),
        }
        with incident.keep_open() as may_write:
            if not may_write:
                data["late"] = True
            incident.journal.append("note", data)


def _list_open_then(incident: Incident, alerts: Sequence[ReceivedAlert]) -> list[str]:
    """Return the other incidents that were open while one of these alerts fired that has ended."""
    open_then = []
    for folder in list_incidents(incident.folder.parent):
        other = Incident(folder, redactor=incident.redactor)
        try:
            state = other.state
        except RecordError:
            continue
        if other.id == incident.id:
            continue
        for alert in alerts:
            is_before_close = state.closed_at is None or alert.starts_at <= state.closed_at
            is_after_opening = alert.ends_at is not None and alert.ends_at >= state.opened_at
            if state.opened_by and is_before_close and is_after_opening:
                open_then.append(other.id)
                break
    return open_then


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


def _split(alerts: Sequence[ReceivedAlert]) -> Iterator[list[ReceivedAlert]]:
    """Yield alerts in groups, each short enough for one note; one long alert is a group, too."""
    part: list[ReceivedAlert] = []
    size = 0
    for alert in alerts:
        if part and size + len(alert.line) > _MOST_CHARS:
            yield part
            part = []
            size = 0
        part.append(alert)
        size += len(alert.line) + 2  # and "; " before the next one
    if part:
        yield part
