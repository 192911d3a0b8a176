"""A person's remarks: lessons and follow-ups, written to the journal."""

from __future__ import annotations

from datetime import date

from ..errors import UsageError
from ..model import Note
from .incident import Incident
from .view import JournalView


def write_note(incident: Incident, note: Note, *, section: str = "") -> int:
    """Write a note to an incident's journal; return the number of the entry.

    A note that comes after the close is marked as late.

    Raises
    ------
    UsageError
        When the note has no text.
    """
    if not note.text.strip():
        raise UsageError("A note needs a text. Nothing was written.")
    fields = note.model_dump(mode="json", exclude_defaults=True)
    fields["section"] = section
    with incident.keep_open():
        if incident.is_closed:
            fields["late"] = True
        return incident.journal.append("note", fields).seq


def parse_due(text: str) -> date | None:
    """Return the day by which a follow-up is due; None for an empty text.

    Raises
    ------
    UsageError
        When the text is not a day such as 2026-12-04.
    """
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        problem = f"{text!r} is not a day by which something is due. Write it as 2026-12-04"
        raise UsageError(f"{problem} (--due). Nothing was written.") from None


def list_follow_ups(journal: JournalView) -> list[Note]:
    """Return the notes of what somebody has to do, sorted by due day; without a day: last."""
    notes = [note for note in journal.notes if note.is_follow_up]
    return sorted(notes, key=lambda note: note.due or date.max)
