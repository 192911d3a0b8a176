"""Incident folders: one folder per incident, through which sections hand over."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import RecordError, UsageError
from ..model import Json, Verdict, format_time
from ..redact import Redactor
from .journal import Journal
from .log import utc_now

_ID = re.compile(r"inc-\d{8}T\d{6}Z-[0-9a-f]{4}")
_FOLDERS = ("plans", "ledger", "notebooks", "evidence")


def write_json(path: Path, value: Json) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # a lone surrogate becomes its JSON escape
    with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(value, file, ensure_ascii=False, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Incident:
    """One incident's folder.

    Attributes
    ----------
    id : such as ``inc-20261124T031400Z-7f3a``
    folder : the folder; ``plans/ ledger/ notebooks/ evidence/`` exist in it
    journal : what was observed and done, append-only
    redactor : hides secrets; the journal uses it
    """

    def __init__(
        self, folder: Path, *, redactor: Redactor, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.folder = folder
        self.id = folder.name
        self.redactor = redactor
        self.journal = Journal(folder / "journal.jsonl", redactor=redactor, clock=clock)

    @property
    def facts(self) -> dict[str, Json]:
        """The content of ``incident.json``.

        Raises
        ------
        RecordError
            When it is missing or not JSON.
        """
        path = self.folder / "incident.json"
        try:
            facts: dict[str, Json] = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RecordError(f"{path} cannot be read: {error}") from error
        if not isinstance(facts, dict):
            raise RecordError(f"{path} does not hold the facts of an incident")
        return facts

    @property
    def is_open(self) -> bool:
        """Whether nobody closed it yet."""
        return self.facts.get("closed_at") is None

    def update(self, **facts: Json) -> None:
        """Change facts in ``incident.json`` (atomic; the journal keeps the history).

        Raises
        ------
        RecordError
            When it cannot be read, locked or written.
        """
        path = self.folder / "incident.json"
        try:
            # Locked, so that two people who change different facts lose neither.
            with FileLock(f"{path}.lock", timeout=10):
                write_json(path, self.redactor.json({**self.facts, **facts}))
        except (OSError, Timeout) as error:
            raise RecordError(f"{path} cannot be changed: {error}") from error

    def close(self, verdict: Verdict) -> None:
        """Close the incident; commands without ``--incident`` no longer choose it."""
        at = self.journal.append("closed", {"section": "", "verdict": str(verdict)}).at
        self.update(closed_at=format_time(at), verdict=str(verdict))

    def path(self, kind: str, name: str) -> Path:
        """Return the path of a file in one of the incident's folders.

        Raises
        ------
        UsageError
            When the name could lead out of the folder.
        """
        if kind not in _FOLDERS or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}", name):
            raise UsageError(f"{name!r} is not a name of a file in {kind}/")
        return self.folder / kind / name

    def new_notebook(self, section: str) -> Path:
        """Return where the next run of a section's notebook is kept."""
        path, number = self.path("notebooks", f"{section}.ipynb"), 1
        while path.exists():
            number += 1
            path = self.path("notebooks", f"{section}-{number}.ipynb")
        return path


def create_incident(
    home: Path,
    *,
    redactor: Redactor,
    environment: str,
    drill: bool = False,
    clock: Callable[[], datetime] = utc_now,
) -> Incident:
    """Make a new incident folder under ``home``.

    Raises
    ------
    RecordError
        When the folder cannot be made.
    """
    now = clock()
    name = f"inc-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    folder = home / name
    try:
        for part in _FOLDERS:
            (folder / part).mkdir(parents=True)
        write_json(
            folder / "incident.json",
            {
                "schema": "runbook/incident/1",
                "id": name,
                "opened_at": format_time(now),
                "closed_at": None,
                "environment": environment,
                "drill": drill,
                "verdict": None,
            },
        )
    except OSError as error:
        raise RecordError(
            f"cannot make {folder}: {error.strerror}. Set RUNBOOK_HOME to a folder you can write."
        ) from error
    return Incident(folder, redactor=redactor, clock=clock)


def list_incidents(home: Path) -> Iterator[Path]:
    """Yield the incident folders under ``home``, newest first."""
    if home.is_dir():
        found = (
            p for p in home.iterdir() if _ID.fullmatch(p.name) and (p / "incident.json").is_file()
        )
        yield from sorted(found, key=lambda p: p.name, reverse=True)


def open_incident(
    home: Path,
    incident_id: str = "",
    *,
    redactor: Redactor,
    clock: Callable[[], datetime] = utc_now,
) -> Incident | None:
    """Open an incident by id, or the newest open one that is not a drill.

    Returns
    -------
    The incident; None when no id was given and none is open.

    Raises
    ------
    UsageError
        When the id is malformed or there is no such incident.
    """
    if incident_id:
        if not _ID.fullmatch(incident_id):
            raise UsageError(
                f"{incident_id!r} is not an incident id (they look like inc-20261124T031400Z-7f3a)"
            )
        folder = home / incident_id
        if not (folder / "incident.json").is_file():
            raise UsageError(f"no incident {incident_id} under {home}")
        return Incident(folder, redactor=redactor, clock=clock)
    for folder in list_incidents(home):
        incident = Incident(folder, redactor=redactor, clock=clock)
        if incident.is_open and not incident.facts.get("drill"):
            return incident
    return None
