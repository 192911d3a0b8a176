"""Incident folders, one per incident, with its journal.

An incident is open until its closing mark, and never reopened.
"""

import json
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from ..errors import RecordError, UsageError, disk_errors
from ..model import Json, Timestamp, Verdict, format_time, parse_json
from ..redact import Redactor
from .journal import Clock, Journal, utc_now

_ID = re.compile(r"inc-\d{8}T\d{6}Z-[0-9a-f]{4}")
_FOLDERS = ("plans", "ledger", "notebooks", "evidence")
_ADVICE = ". Set RUNBOOK_HOME to a folder you can write."
_JOURNAL = "journal.jsonl"
#: Part of each journal line that is a mark.
_MARK = b'"kind":"mark"'

#: After these verdicts, nothing is left to do.
ENDED_WELL = (Verdict.HEALTHY, Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING)

_log = logging.getLogger(__name__)


def write_file(path: Path, text: str) -> None:
    """Write a file so that readers see the old or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # A lone surrogate can't be encoded, so its escape is written, as in JSON.
    with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Json) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)
    write_file(path, f"{text}\n")


class IncidentState(BaseModel):
    """What the marks of an incident say. A runbook may add facts of its own.

    ``exercise`` is the runbook's word for what was caused on purpose, or "". ``approver`` replaces
    the operator as the name under which plans are approved.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    environment: str = ""
    opened_at: Timestamp
    ticket_id: str | None = None
    exercise: str = ""
    approver: str = ""
    closed_at: Timestamp | None = None
    verdict: Verdict | None = None

    @property
    def end(self) -> datetime:
        return self.closed_at or datetime.max.replace(tzinfo=UTC)


def read_state(folder: Path) -> IncidentState:
    """Return what the incident's marks say, or raise RecordError. Other lines may be damaged."""
    facts: dict[str, Json] = {}
    try:
        for line in (folder / _JOURNAL).read_bytes().splitlines():
            # Other lines are not parsed, the chain is not checked, and no mark follows the close.
            if _MARK in line and "closed_at" not in facts:
                with suppress(ValueError, KeyError, TypeError):
                    facts |= parse_json(line)["data"]["facts"]
        return IncidentState.model_validate(facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = type(error).__name__
        raise RecordError(f"{folder} holds no incident that can be read ({reason})") from error


class Incident:
    """One incident's folder: the journal, and ``plans/ ledger/ notebooks/ evidence/``."""

    def __init__(self, folder: Path, *, redactor: Redactor, clock: Clock = utc_now) -> None:
        self.folder = folder
        self.id = folder.name
        self.redactor = redactor
        self._clock = clock
        self.journal = Journal(folder / _JOURNAL, redactor=redactor, clock=clock)

    @property
    def state(self) -> IncidentState:
        return read_state(self.folder)

    @property
    def is_closed(self) -> bool:
        return self.state.closed_at is not None

    def update(self, **facts: Json) -> None:
        """Add facts to the state, unless the incident is closed."""
        if not self.is_closed:
            self.mark("changed", **facts)

    def mark(self, what: str, reason: str = "", **facts: Json) -> datetime:
        """Append a mark, whose facts update the state; return its time."""
        data = {"section": "", "what": what, "reason": reason, "facts": facts}
        return self.journal.append("mark", data).at

    def close(self, verdict: Verdict | None, *, reason: str = "") -> None:
        """Close the incident if it is open; None means ``unknown``."""
        if not self.is_closed:
            closed_at = format_time(self._clock())
            self.mark("closed", reason, closed_at=closed_at, verdict=verdict or Verdict.UNKNOWN)

    def find_plan(self, plan_id: str) -> Path:
        """Return the path of a plan's file here, else in the newest incident that has it.

        Without such a file, return the path it would have here.
        """
        own = self.path("plans", f"{plan_id}.jsonl")
        others = [folder / "plans" / own.name for folder in list_incidents(self.folder.parent)]
        return next((path for path in (own, *others) if path.is_file()), own)

    def path(self, folder: str, name: str) -> Path:
        """Return a path in a folder such as ``plans``; UsageError if the name leads out of it."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._#-]{0,150}", name):
            raise UsageError(f"{name!r} cannot be the name of a file in {folder}/")
        return self.folder / folder / name


def create_incident(
    home: Path, *, redactor: Redactor, clock: Clock = utc_now, **facts: Json
) -> Incident:
    """Make an incident's folder under ``home``, and journal its opening."""
    now = clock()
    suffix = secrets.token_hex(2)
    folder = home / f"inc-{now:%Y%m%dT%H%M%SZ}-{suffix}"
    with disk_errors(f"cannot make {folder}", _ADVICE):
        for name in _FOLDERS:
            (folder / name).mkdir(parents=True)
    incident = Incident(folder, redactor=redactor, clock=clock)
    incident.mark("opened", opened_at=format_time(now), **facts)
    return incident


@contextmanager
def lock_file(path: Path, *, timeout_s: float) -> Iterator[None]:
    """Keep this machine's other commands out of a block, or raise RecordError after a time."""
    with disk_errors(f"{path} cannot be locked", _ADVICE):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=timeout_s).acquire()
    with lock:
        yield


def list_incidents(home: Path) -> Iterator[Path]:
    """Yield the folders of incidents, newest first."""
    folders = [path for path in home.glob("inc-*") if _ID.fullmatch(path.name)]
    for folder in sorted(folders, reverse=True):
        if (folder / _JOURNAL).is_file():
            yield folder


def list_neighbours(incident: Incident) -> dict[str, IncidentState]:
    """Return the states of readable incidents that were open at the same time, newest first."""
    own = incident.state
    neighbours = {}
    for folder in list_incidents(incident.folder.parent):
        with suppress(RecordError):
            other = read_state(folder)
            overlaps = other.opened_at <= own.end and own.opened_at <= other.end
            if overlaps and folder != incident.folder:
                neighbours[folder.name] = other
    return neighbours


def open_incident(home: Path, incident_id: str = "", *, redactor: Redactor) -> Incident | None:
    """Return an incident by its id, even if damaged, or raise UsageError.

    Without an id, return the newest open one, skipping exercises and damaged incidents, which
    stderr names.
    """
    if incident_id:
        folder = home / incident_id
        if folder not in list_incidents(home):
            advice = "`runbook incidents` lists those that there are"
            raise UsageError(f"there is no incident {incident_id!r} under {home}; {advice}")
        return Incident(folder, redactor=redactor)
    for folder in list_incidents(home):
        incident = Incident(folder, redactor=redactor)
        try:
            state = incident.state
            if not (state.exercise or state.closed_at):
                incident.journal.view()
                return incident
        except RecordError as error:
            _log.warning("%s It is skipped; move its folder away to stop this message.", error)
    return None
