"""Notes in an incident's journal, and alerts that reached us as messages."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from ..errors import UsageError
from ..model import Note, Timestamp, count_of, format_time
from .incident import Incident
from .view import JournalView


def write_note(incident: Incident, note: Note) -> int:
    """Journal a note, as late if the incident is closed; return the entry's number.

    Raises UsageError when the note says nothing.
    """
    says_something = note.text.strip() or note.lead or note.summary or note.severity
    if not says_something:
        raise UsageError("A note needs a text. Nothing was written.")
    written = note.model_copy(update={"late": incident.is_closed})
    fields = written.model_dump(mode="json", exclude_defaults=True)
    return incident.journal.append("note", fields).seq


def list_follow_ups(journal: JournalView) -> list[Note]:
    """Return the notes with something to do, by due day, undated last."""
    notes = [note for note in journal.notes if note.is_follow_up]
    return sorted(notes, key=lambda note: note.due or date.max)


def find_note_with(journal: JournalView, field: str) -> Note:
    """Return the newest note with a ``field``: lead, summary or severity; or an empty note."""
    notes = [note for note in journal.notes if getattr(note, field)]
    return notes[-1] if notes else Note(text="")


class ReceivedAlert(BaseModel, frozen=True):
    """One alert. ``fingerprint`` and ``starts_at`` identify it."""

    fingerprint: str
    starts_at: Timestamp
    labels: dict[str, str]

    @property
    def key(self) -> str:
        return f"{self.fingerprint} {format_time(self.starts_at)}"


_ALERTS = TypeAdapter(tuple[ReceivedAlert, ...])


def read_alerts(path: Path | None) -> tuple[ReceivedAlert, ...]:
    """Return the alerts in a JSON file, or raise UsageError; none without a file."""
    if path is None:
        return ()
    try:
        return _ALERTS.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"--alerts {path} lists no alerts: {type(error).__name__}") from None


def mark_alerts(incident: Incident, alerts: Sequence[ReceivedAlert]) -> None:
    """Journal one mark for all alerts that no earlier mark names."""
    marks = incident.journal.view().marks
    known_keys = {key for mark in marks for key in mark.facts.get("alerts", ())}
    new = [alert for alert in alerts if alert.key not in known_keys]
    if new:
        names = ", ".join(alert.labels.get("alertname", "without a name") for alert in new[:3])
        reason = f"Alertmanager sent {count_of(len(new), 'alert')}: {names}"
        incident.mark("alerts_received", reason, alerts=[alert.key for alert in new])
