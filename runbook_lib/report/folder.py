"""What an incident's folder holds, as far as it can be read, and what is damaged in it."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import LogDamagedError, RecordError
from ..model import Json
from ..record.incident import Incident
from ..record.log import Entry, read_entries

__all__ = ["read_folder"]


def read_folder(incident: Incident) -> tuple[dict[str, Json], list[Entry], str]:
    """Return the folder's facts, every entry up to the first damage, and what is damaged."""
    damage: list[str] = []
    facts: dict[str, Json] = {}
    entries: list[Entry] = []
    try:
        facts = incident.redactor.json(incident.facts)
    except RecordError:
        damage.append("incident.json cannot be read")
    path = incident.journal.path
    try:
        for entry in read_entries(path):
            entries.append(entry)  # noqa: PERF402  what came before the damage counts
    except FileNotFoundError:
        pass
    except LogDamagedError as error:
        damage.append(
            f"the journal is damaged at line {error.line} ({error.why}); "
            "this report tells only what stands before it"
        )
    except OSError as error:
        damage.append(f"the journal cannot be read: {error.strerror}")
    if path.exists() and not damage and not _ends_whole(path):
        damage.append("the journal's last line is torn (its writer died); it is left out here")
    redacted = [
        Entry(e.seq, e.at, e.kind, incident.redactor.json(e.data), e.prev, e.hash) for e in entries
    ]
    return facts, redacted, "; ".join(damage)


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
