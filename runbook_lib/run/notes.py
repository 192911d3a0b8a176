"""``runbook note``: a remark, a lesson or a follow-up, from the command line."""

from __future__ import annotations

from ..errors import UsageError
from ..investigation import check_undamaged
from ..model import Note
from ..record.incident import Incident, list_incidents, open_incident
from ..record.notes import list_follow_ups, write_note
from ..redact import Redactor
from ..report import write_outputs
from ..section import Sections
from ..settings import Settings
from .documents import Document


class NoteDocument(Document):
    """``note``: what was written, and where.

    ``entry`` is the number of the journal's entry, ``late`` says that the incident was closed
    before the note, ``report`` is the report's path, ``follow_ups`` are all follow-ups of the
    incident.
    """

    entry: int
    late: bool
    report: str
    follow_ups: tuple[Note, ...] = ()

    @property
    def answer(self) -> str:
        """Where the note was written, and whether the report shows it."""
        where = f"Noted in {self.incident}"
        if self.late:
            return f"{where}, marked as after the close. The report was written anew."
        return f"{where}. The report was written anew, and shows the note."


def add_note(
    settings: Settings, sections: Sections, note: Note, *, incident_id: str = ""
) -> NoteDocument:
    """Write a note to an incident; the report of an open one is written anew.

    Parameters
    ----------
    incident_id : empty: the incident that ``open_incident`` chooses

    Raises
    ------
    UsageError
        When the incident does not exist, none is open, its journal is damaged, or the note is
        empty.
    """
    incident = _find(settings, incident_id)
    check_undamaged(incident)
    is_late = incident.is_closed
    signed_note = note.model_copy(update={"operator": settings.operator})
    entry = write_note(incident, signed_note)
    report = write_outputs(incident, sections)
    return NoteDocument(
        schema_name="runbook/note/1",
        incident=incident.id,
        entry=entry,
        late=is_late,
        report=str(report),
        follow_ups=tuple(list_follow_ups(incident.journal.view())),
    )


def _find(settings: Settings, incident_id: str) -> Incident:
    """Open an incident; if none is open, the error has the option for the newest one."""
    home = settings.runbook_home.resolve()
    incident = open_incident(home, incident_id, redactor=Redactor(settings.secrets))
    if incident is not None:
        return incident
    text = f"No incident is open under {settings.runbook_home}."
    newest = next(list_incidents(home), None)
    if newest is not None:
        text = f"{text} For the newest one, add to this command: --incident {newest.name}"
    raise UsageError(text)
