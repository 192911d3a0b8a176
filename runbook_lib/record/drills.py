"""The drill before: what a drill is held against."""

from __future__ import annotations

from ..errors import RunbookError
from ..model import Json
from .incident import Incident, list_incidents


def find_drill_before(incident: Incident, scenario: Json) -> tuple[str, dict[str, Json]]:
    """Return the newest drill of a scenario before this one, and what it wrote when it was scored.

    Returns
    -------
    Its folder's name and the entry; both empty where there is none. One that cannot be read is
    passed over.
    """
    for folder in list_incidents(incident.folder.parent):
        other = Incident(folder, redactor=incident.redactor)
        try:
            if folder.name < incident.id and other.facts.get("scenario") == scenario:
                scored = [e.data for e in other.journal.read() if e.data.get("event") == "scored"]
                if scored:
                    return folder.name, scored[-1]
        except RunbookError:
            continue
    return "", {}
