"""Incident folders: one folder per incident, through which sections hand over.

A folder in which nothing wrong was seen is a look, no incident: the first breach, or a change,
makes it one. Closed, it is never chosen again, and its report stays as it is.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import chain, count
from pathlib import Path

from filelock import FileLock

from ..errors import JournalDamagedError, RecordError, UsageError, disk_errors
from ..model import SYMPTOMS, Episode, Json, Verdict, format_time, parse_time
from ..redact import Redactor
from .journal import Clock, Journal, utc_now

_ID = re.compile(r"inc-\d{8}T\d{6}Z-[0-9a-f]{4}")
_FOLDERS = ("plans", "ledger", "notebooks", "evidence")
_ADVICE = ". Set RUNBOOK_HOME to a folder you can write."
#: For so long a look is kept for the sections that a person runs one by one, or for its plans.
_LOOK = timedelta(hours=1)


def write_file(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # a lone surrogate becomes its escape, which is one of JSON, too
    with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Json) -> None:
    """Write JSON as ``write_file`` does."""
    write_file(path, json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


class Incident:
    """One incident's folder.

    Attributes
    ----------
    id : such as ``inc-20261124T031400Z-7f3a``
    folder : the folder; ``plans/ ledger/ notebooks/ evidence/`` exist in it
    journal : what was observed and done, append-only
    redactor : hides secrets; the journal uses it
    closed_here : whether it was closed through this object, which may then still write its report
    """

    closed_here = False

    def __init__(self, folder: Path, *, redactor: Redactor, clock: Clock = utc_now) -> None:
        self.folder = folder
        self.id = folder.name
        self.redactor = redactor
        self._clock = clock
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
    def is_closed(self) -> bool:
        """Whether it is over: a look may be, too."""
        return self.facts.get("closed_at") is not None

    @property
    def is_late(self) -> bool:
        """Whether it was closed before: its record holds, only notes are added."""
        return self.is_closed and not self.closed_here

    @property
    def is_open(self) -> bool:
        """Whether it is an incident, and not over."""
        return not self.is_closed and bool(self.facts.get("opened_by", "hand"))

    def find_damage(self) -> str:
        """Return what is wrong with the journal, in words; empty: nothing is. Only reads.

        Raises
        ------
        RecordError
            When the journal cannot be read.
        """
        try:
            self.journal.view()
        except JournalDamagedError as error:
            return error.damage
        return ""

    def update(self, **facts: Json) -> None:
        """Change facts in ``incident.json`` (atomic; the journal keeps the history).

        Raises
        ------
        RecordError
            When it cannot be read, locked or written.
        """
        path = self.folder / "incident.json"
        # Locked, so that two people who change different facts lose neither.
        with disk_errors(f"{path} cannot be changed"), FileLock(f"{path}.lock", timeout=10):
            write_json(path, self.redactor.json({**self.facts, **facts}))

    def open(self, by: str, episode: Episode | None = None) -> None:
        """Make an incident of a look; adopt the first alert.

        Parameters
        ----------
        by : ``hand``, or the step that saw the first breach
        """
        facts = self.facts
        if not facts.get("opened_by", "hand"):
            self.update(opened_by=by, opened_at=format_time(self._clock()))
        if episode and not facts.get("episode"):
            self.update(episode=episode.model_dump(mode="json"))

    def is_over(
        self, began: datetime, *, is_alert: bool, needed: Collection[str], calm: timedelta
    ) -> bool:
        """Tell whether a trouble that began then is another than this incident's.

        Parameters
        ----------
        is_alert : whether an alert says when it began: after such a calm, whether anyone looked
            or not. The first alert is this incident's all the same
        needed : steps; all of them read as ok for the time of a calm end an episode
        calm : how long one is
        """
        journal = self.journal.view()
        ok_since, breaches = journal.ok_since(needed), [r.at for r in journal.breaches(SYMPTOMS)]
        if ok_since is not None and began - ok_since >= calm:
            return True
        is_next = is_alert and bool(self.facts.get("episode") and breaches)
        return is_next and began - breaches[-1] >= calm

    def close(self, verdict: Verdict | None = None) -> Verdict:
        """Close the incident, with its journal's verdict or another, which is returned.

        Commands without ``--incident`` no longer choose it.
        """
        verdict = verdict or self.journal.view().verdict() or Verdict.UNKNOWN
        entry = self.journal.append("closed", {"section": "", "verdict": str(verdict)})
        self.closed_here = True
        self.update(closed_at=format_time(entry.at), closed_seq=entry.seq, verdict=str(verdict))
        return verdict

    def find_plan(self, plan_id: str) -> Path:
        """Return a plan's file: this incident's, or another's, which this one then names."""
        own = self.path("plans", f"{plan_id}.jsonl")
        for folder in () if own.exists() else list_incidents(self.folder.parent):
            if (path := folder / "plans" / own.name).is_file():
                follows = list(self.facts.get("follows") or ())
                self.update(follows=[*dict.fromkeys([*follows, folder.name])])
                return path
        return own

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
        names = chain([section], (f"{section}-{number}" for number in count(2)))
        paths = (self.path("notebooks", f"{name}.ipynb") for name in names)
        return next(path for path in paths if not path.exists())


def create_incident(
    home: Path, *, redactor: Redactor, clock: Clock = utc_now, **facts: Json
) -> Incident:
    """Make a new incident folder under ``home``.

    Parameters
    ----------
    facts : what is known of it: ``environment``; ``drill``, if it is one; ``opened_by``: ``hand``,
        or the step that saw a breach; empty: nothing wrong was seen yet; ``previous``: the incident
        before it, and ``previous_damage``, when that one's journal is damaged

    Raises
    ------
    RecordError
        When the folder cannot be made.
    """
    now = clock()
    folder = home / f"inc-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    known = {"schema": "runbook/incident/1", "id": folder.name, "opened_at": format_time(now)}
    unknown = {"closed_at": None, "drill": False, "opened_by": "hand", "verdict": None}
    with disk_errors(f"cannot make {folder}", _ADVICE):
        for part in _FOLDERS:
            (folder / part).mkdir(parents=True)
        write_json(folder / "incident.json", {**known, **unknown, **facts})
    return Incident(folder, redactor=redactor, clock=clock)


@contextmanager
def lock_home(home: Path) -> Iterator[None]:
    """Let one command at a time choose its incident: two that see one breach open one.

    Raises
    ------
    RecordError
        When the folder cannot be made or locked.
    """
    with disk_errors(f"cannot use {home}", _ADVICE):
        home.mkdir(parents=True, exist_ok=True)
        held = FileLock(home / ".incidents.lock", timeout=120).acquire()
    with held:
        yield


def list_incidents(home: Path) -> Iterator[Path]:
    """Yield the incident folders under ``home``, newest first."""
    if home.is_dir():
        found = (path for path in home.iterdir() if _ID.fullmatch(path.name))
        yield from sorted((p for p in found if (p / "incident.json").is_file()), reverse=True)


def open_incident(home: Path, incident_id: str = "", *, redactor: Redactor) -> Incident | None:
    """Open an incident by id, or the newest open one that is not a drill, or a look that is kept.

    Returns
    -------
    The incident; None when no id was given and there is none. Its journal may be damaged. One whose
    damage was seen before, so that a newer incident goes on in its place, is left out.

    Raises
    ------
    UsageError
        When the id is malformed or there is no such incident.
    """
    if incident_id:
        if not _ID.fullmatch(incident_id):
            like = "they look like inc-20261124T031400Z-7f3a"
            raise UsageError(f"{incident_id!r} is not an incident id ({like})")
        folder = home / incident_id
        if not (folder / "incident.json").is_file():
            raise UsageError(f"no incident {incident_id} under {home}")
        return Incident(folder, redactor=redactor)
    look = None
    for folder in list_incidents(home):
        incident = Incident(folder, redactor=redactor)
        if (facts := incident.facts).get("drill") or incident.is_closed:
            continue
        is_young = utc_now() - parse_time(str(facts["opened_at"])) < _LOOK
        is_kept_look = look is None and is_young and bool(facts.get("kept"))
        if not (incident.is_open or is_kept_look) or _is_left_behind(incident):
            continue
        if incident.is_open:
            return incident
        look = incident
    return look


def _is_left_behind(incident: Incident) -> bool:
    """Tell whether the journal is damaged, and a newer incident goes on in its place."""
    if not incident.find_damage():
        return False
    others = list_incidents(incident.folder.parent)
    known = (Incident(folder, redactor=incident.redactor).facts for folder in others)
    return any(facts.get("previous") == incident.id for facts in known)
