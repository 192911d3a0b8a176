"""Incident folders: one folder per incident. Its sections share what they know through it.

A folder is a *look* until the first breach or change turns it into an incident. After a close no
command chooses the folder by itself, and the report stays as it is.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import JournalDamagedError, RecordError, UsageError, disk_errors
from ..model import SYMPTOMS, Episode, Json, Timestamp, Verdict, format_time
from ..redact import Redactor
from .journal import Clock, Journal, get_run, utc_now

_ID = re.compile(r"inc-\d{8}T\d{6}Z-[0-9a-f]{4}")
_FOLDERS = ("plans", "ledger", "notebooks", "evidence")
_ADVICE = ". Set RUNBOOK_HOME to a folder you can write."
_REPAIR = "Put the file back from the incident's zip or a backup."
#: How long later commands go on with a look that opened no incident and was kept. Also how long
#: after a close with a bad verdict new trouble counts as the closed incident's trouble.
_GOES_ON_FOR = timedelta(hours=1)

#: After these verdicts nothing more is to be done.
ENDED_WELL = (Verdict.HEALTHY, Verdict.FIXED, Verdict.FIXED_ALERT_DECAYING)

#: Stands in ``opened_by`` in place of a step: a person opened the incident.
HAND = "hand"

_log = logging.getLogger(__name__)


def write_file(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # A lone surrogate cannot be encoded: its escape is written, as JSON would write it.
    with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Json) -> None:
    """Write JSON as ``write_file`` does."""
    text = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)
    write_file(path, f"{text}\n")


class IncidentState(BaseModel):
    """The state of an incident, in one file: ``incident.json``.

    No fact in the file follows from another fact in it. What happened stands in the journal.

    Attributes
    ----------
    environment : RUNBOOK_ENVIRONMENT when the incident was made
    opened_by : ``hand``, or the step or section that saw the first trouble; empty: a look
    episode : the alert that belongs to the incident; None: none is known
    ticket_id : the ticket that the incident is about
    kept : whether a look is kept, so that later commands go on with it
    closed_at, closed_seq, verdict : of the close: the time, the number of the journal's entry, and
        the verdict then
    same_as : of a look that saw trouble: id of the incident that was open then; empty: none was
    previous : id of the incident that this one replaces, that ended when this one began, or whose
        trouble goes on in this one; empty: none
    previous_damage : what is wrong with the journal of ``previous``; empty: nothing is known
    followed_by : id of the incident that this one's close named as the next; empty: none
    follows : ids of the incidents whose plans this one carried out
    operators : the people who worked on the incident, the first person first; empty: not known
    drill, drill_id, scenario, drill_orders : whether it is a drill, its id, the name of its fault,
        and the ids of what it injected
    """

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    schema_name: str = Field("runbook/incident/1", alias="schema")
    id: str = ""
    environment: str = ""
    opened_at: Timestamp
    opened_by: str = "hand"
    episode: Episode | None = None
    ticket_id: str | None = None
    kept: bool = False
    closed_at: Timestamp | None = None
    closed_seq: int | None = None
    verdict: Verdict | None = None
    same_as: str = ""
    previous: str = ""
    previous_damage: str = ""
    followed_by: str = ""
    follows: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    drill: bool = False
    drill_id: str = ""
    scenario: str = ""
    drill_orders: tuple[int, ...] = ()

    @property
    def is_closed(self) -> bool:
        """Whether the incident is over. A look may be closed, too."""
        return self.closed_at is not None

    @property
    def is_open(self) -> bool:
        """Whether this is an incident, not a look, and is not over."""
        return not self.is_closed and bool(self.opened_by)

    def to_json(self) -> dict[str, Json]:
        """Return what the file holds: every field that was ever set, and no other field."""
        content: dict[str, Json] = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return content


class Incident:
    """One incident's folder.

    Attributes
    ----------
    id : such as ``inc-20261124T031400Z-7f3a``
    folder : the folder; ``plans/ ledger/ notebooks/ evidence/`` exist in it
    journal : what was observed and done, append-only
    redactor : hides secrets; the journal uses it
    closed_here : whether this object closed the incident, and may still write into it
    """

    closed_here = False

    def __init__(self, folder: Path, *, redactor: Redactor, clock: Clock = utc_now) -> None:
        self.folder = folder
        self.id = folder.name
        self.redactor = redactor
        self._clock = clock
        self.journal = Journal(folder / "journal.jsonl", redactor=redactor, clock=clock)

    @property
    def pictures(self) -> Path:
        """The folder that keeps pictures for the next report. Deleting it loses nothing."""
        return self.folder / ".pictures"

    @property
    def state(self) -> IncidentState:
        """The content of ``incident.json``.

        Raises
        ------
        RecordError
            When it is missing, not JSON, or not an incident's.
        """
        path = self.folder / "incident.json"
        try:
            return IncidentState.model_validate_json(path.read_bytes())
        except OSError as error:
            raise RecordError(f"{path} cannot be read: {error}. {_REPAIR}") from error
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]["msg"]
            raise RecordError(f"{path} does not hold an incident: {wrong}. {_REPAIR}") from error

    @property
    def is_closed(self) -> bool:
        """Whether the incident is over. A look may be closed, too."""
        return self.state.is_closed

    @property
    def is_late(self) -> bool:
        """Whether another command closed the incident: then only notes are added."""
        if self.closed_here or not self.is_closed:
            return False
        # This run may have closed it through another object: then the run's own entries say so.
        own = self.journal.view().of_runs([get_run()])
        return all(entry.kind != "closed" for entry in own.entries)

    @property
    def is_open(self) -> bool:
        """Whether this is an incident, not a look, and is not over."""
        return self.state.is_open

    @property
    def is_damaged(self) -> bool:
        """Whether ``incident.json`` or the journal cannot be used."""
        try:
            _ = self.state  # raises when it cannot be read
            return bool(self.find_damage())
        except RecordError:
            return True

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

    def update(self, **changes: Json) -> None:
        """Change ``incident.json`` in one step. Only methods of this class change such a file.

        Raises
        ------
        RecordError
            When ``incident.json`` cannot be read, locked or written.
        ValueError
            When a value does not have the type of its field.

        Notes
        -----
        Does nothing when another command has closed the incident.
        """
        # Locked, so that two people who change different facts lose neither.
        with self.keep_open() as may_write:
            if may_write:
                self._change(changes)

    def _change(self, changes: dict[str, Json]) -> None:
        """Change ``incident.json`` in a block of ``keep_open``."""
        path = self.folder / "incident.json"
        changed = IncidentState.model_validate({**self.state.to_json(), **changes})
        with disk_errors(f"{path} cannot be changed"):
            write_json(path, self.redactor.json(changed.to_json()))

    @contextmanager
    def lock(self, name: str, *, timeout_s: float = 10) -> Iterator[None]:
        """Let one command at a time write a file of the incident.

        Raises
        ------
        RecordError
            When the file cannot be locked, or another command holds the lock for too long.
        """
        path = self.folder / f"{name}.lock"
        with disk_errors(f"{path} cannot be locked"):
            held = FileLock(path, timeout=timeout_s).acquire()
        with held:
            yield

    @contextmanager
    def keep_open(self) -> Iterator[bool]:
        """Let no other command close the incident in this block; yield whether it may be written.

        It may not be written when another command has closed it. Do not nest two such blocks: the
        inner one would wait for the outer one.
        """
        if self.is_late:
            yield False
            return
        with self.lock("incident.json"):
            yield not self.is_late

    def open(self, by: str, episode: Episode | None = None, *, why: str = "") -> None:
        """Make an incident of a look; note the first alert as the incident's.

        A look for a drill's alert stays a look: real trouble gets an incident of its own. A look
        also stays one if a step saw trouble while another incident is open. If a step saw that the
        trouble of a closed incident goes on in this one, that incident is noted, too.

        Parameters
        ----------
        by : ``hand`` for a person or a change; else the step or section that saw the trouble
        episode : the alert; None: none is known
        why : in words, why somebody opens the incident, or what the step saw; empty: a person
            opens it, or what was seen is not said

        Notes
        -----
        Does nothing when another command has closed the incident. The caller holds the home's lock
        when a step opens a look: otherwise one breach could open two incidents.
        """
        with self.keep_open() as may_write:
            if may_write:
                self._open(by, episode, why)

    def _open(self, by: str, episode: Episode | None, why: str) -> None:
        """Do what ``open`` does, in a block of ``keep_open``."""
        state = self.state
        if state.drill and not state.opened_by:
            return  # a look for a drill's alert stays a look
        if not state.opened_by and by != HAND:
            other = open_incident(self.folder.parent, redactor=self.redactor)
            if other is not None and other.is_open and not other.find_damage():
                self._leave_to(other, by)
                return
        if not state.opened_by:
            opening = {"opened_by": by, "opened_at": format_time(self._clock())}
            self._change({**opening, "same_as": ""} if state.same_as else opening)
            words = why or "somebody opened it by hand"
            if by != HAND:
                words = f"{by} saw trouble: {why}" if why else f"{by} saw trouble"
            self.tell("opened", f"{self.id} is open: {words}.", saw_trouble=by != HAND)
        if episode and state.episode is None:
            self._change({"episode": episode.model_dump(mode="json")})
            start = f"{episode.start:%Y-%m-%d %H:%M:%S}Z"
            text = f"{self.id} takes up the alert whose condition began at {start}."
            self.tell("adopted", text)
        if by != HAND:  # only a step saw trouble, which may be an earlier incident's
            self._name_continued()

    def _leave_to(self, other: Incident, by: str) -> None:
        """Note, once, that another incident has the trouble that a step saw here.

        Called in a block of ``keep_open``.
        """
        if self.state.same_as:
            return
        self._change({"same_as": other.id})
        place = f"../{other.id}/report.html"
        text = f"{by} saw trouble while {other.id} ({place}) is open."
        self.tell("left_to", f"{text} {self.id} stays a look: go on in that incident.")

    def _name_continued(self) -> None:
        """Name the closed incident whose trouble goes on in this one, and copy its ticket.

        Called in a block of ``keep_open``.
        """
        state = self.state
        if state.previous or state.drill:
            return
        closed = self._find_closed_before()
        if closed is None:
            return
        before = closed.state
        if not _goes_on(before, state, now=self._clock()):
            return
        changes: dict[str, Json] = {"previous": closed.id}
        if before.ticket_id and not state.ticket_id:
            changes["ticket_id"] = before.ticket_id
        self._change(changes)
        words = str(before.verdict).replace("_", " ")
        place = f"../{closed.id}/report.html"
        text = f"{closed.id} ({place}) was closed as {words} at {before.closed_at:%H:%M:%S}Z."
        self.tell("continued", f"{text} Its trouble goes on in {self.id}.")

    def _find_closed_before(self) -> Incident | None:
        """Return the newest other closed incident that saw trouble, and is no drill."""
        for folder in list_incidents(self.folder.parent):
            if folder.name == self.id:
                continue
            other = Incident(folder, redactor=self.redactor, clock=self._clock)
            with suppress(RecordError):
                state = other.state
                is_incident = not (state.drill or state.same_as)
                if state.is_closed and is_incident and other.saw_trouble():
                    return other
        return None

    def saw_trouble(self) -> bool:
        """Tell whether a step saw trouble here. Raises ``RecordError`` if that cannot be read."""
        return self.state.opened_by not in ("", HAND) or self.journal.view().since() is not None

    def join(self, operator: str) -> None:
        """Note who works on the incident; say so if another person worked on it before.

        Does nothing in a drill's incident, or in a closed one.
        """
        with self.keep_open():
            state = self.state
            if state.drill or state.is_closed or operator in state.operators:
                return
            self._change({"operators": [*state.operators, operator]})
            if not state.operators:
                return
            kind = "incident" if state.opened_by else "look"
            earlier_work = f"that {', '.join(state.operators)} worked on before"
            if len(state.operators) == 1:
                earlier_work = f"that {state.operators[0]} began at {state.opened_at:%H:%M:%S}Z"
            self.tell("joined", f"{operator} goes on with the {kind} {self.id} {earlier_work}.")

    def tell(self, kind: str, text: str, **facts: Json) -> None:
        """Write to the journal, and to stderr, what happens to the incident.

        A notebook that a command runs writes nothing to stderr: the command prints the text. Called
        in a block of ``keep_open``.

        Parameters
        ----------
        facts : what else the journal's entry holds
        """
        self.journal.append(kind, {"section": "", "reason": text, **facts})
        if not get_run():
            # The place of another report is right in this folder, not where a command is typed.
            _log.warning(text.replace("../", f"{self.folder.parent}/"))

    def is_over(
        self,
        began: datetime,
        *,
        is_alert: bool,
        needed: Collection[str],
        calm: timedelta,
    ) -> bool:
        """Tell whether the incident was over when some trouble began.

        If it was, the trouble belongs to another incident. It was over if all needed steps had been
        read as ok for the time ``calm``. It was over, too, if the trouble is an alert, the incident
        already has an alert, and its newest breach was read ``calm`` or longer before the trouble.

        Parameters
        ----------
        began : when the trouble began
        is_alert : whether ``began`` is the start of an alert
        needed : ids of the steps that a verdict needs
        calm : how long these steps must be ok before an incident is over
        """
        journal = self.journal.view()
        ok_since = journal.ok_since(needed)
        if ok_since is not None and began - ok_since >= calm:
            return True
        breaches = journal.breaches(SYMPTOMS)
        if not is_alert or not breaches:
            return False
        if self.state.episode is None:
            return False  # the incident has no alert yet: this one may be its own
        newest = breaches[-1]
        return began - newest.at >= calm

    def close(self, verdict: Verdict, *, reason: str = "", followed_by: str = "") -> None:
        """Close the incident. Commands without ``--incident`` no longer choose it.

        Parameters
        ----------
        verdict : as it is now
        reason : why the incident is closed, in words; empty: the verdict says enough
        followed_by : id of the next episode's incident; empty: there is none

        Notes
        -----
        Does nothing when another command has just closed it.
        """
        word = str(verdict)
        data = {"section": "", "verdict": word, "reason": reason}
        with self.keep_open() as may_write:
            if not may_write:
                return
            entry = self.journal.append("closed", data)
            self.closed_here = True
            changes = {
                "closed_at": format_time(entry.at),
                "closed_seq": entry.seq,
                "verdict": word,
            }
            if followed_by:
                changes["followed_by"] = followed_by
            self._change(changes)

    def find_plan(self, plan_id: str) -> Path:
        """Return the path of a plan's file: in this incident's folder, else in another.

        If several other folders have the plan, the newest folder's is returned. If no folder has
        it, the path is that of a file that does not exist. Only reads.
        """
        own = self.path("plans", f"{plan_id}.jsonl")
        if own.exists():
            return own
        for folder in list_incidents(self.folder.parent):
            path = folder / "plans" / own.name
            if path.is_file():
                return path
        return own

    def follow(self, other: str, plan_id: str) -> None:
        """Note that a plan of another incident is carried out in this one.

        Does nothing when that incident is noted already, or when another command has closed this
        one.
        """
        with self.keep_open() as may_write:
            follows = self.state.follows
            if may_write and other not in follows:
                self._change({"follows": [*follows, other]})
                self.tell("followed", f"{plan_id} is a plan of {other} (../{other}/report.html).")

    def path(self, kind: str, name: str) -> Path:
        """Return the path of a file in one of the incident's folders.

        Parameters
        ----------
        kind : the folder: ``plans``, ``ledger``, ``notebooks`` or ``evidence``

        Raises
        ------
        UsageError
            When the name could lead out of the folder.
        """
        if kind not in _FOLDERS or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._#-]{0,150}", name):
            raise UsageError(f"{name!r} is not a name of a file in {kind}/")
        return self.folder / kind / name

    def find_free_notebook(self, section: str) -> Path:
        """Return a path for the next run of a section's notebook. No file is there yet."""
        path = self.path("notebooks", f"{section}.ipynb")
        number = 1
        while path.exists():
            number += 1
            path = self.path("notebooks", f"{section}-{number}.ipynb")
        return path

    def reserve_notebook(self, section: str) -> Path:
        """Make an empty file for the next run. Two runs that begin together get different files."""
        while True:
            path = self.find_free_notebook(section)
            with disk_errors(f"cannot make {path}", _ADVICE), suppress(FileExistsError):
                path.touch(exist_ok=False)
                return path


def _goes_on(closed: IncidentState, later: IncidentState, *, now: datetime) -> bool:
    """Tell whether a later incident has the trouble of a closed one.

    It does if both have the same episode, or if the close was recent and its verdict bad. It does
    not if the close named the next incident: then another episode had begun.
    """
    if closed.closed_at is None or closed.followed_by:
        return False
    if closed.episode is not None and closed.episode == later.episode:
        return True
    return closed.verdict not in ENDED_WELL and now - closed.closed_at < _GOES_ON_FOR


def create_incident(
    home: Path, *, redactor: Redactor, clock: Clock = utc_now, **known: Json
) -> Incident:
    """Make a new incident folder under ``home``.

    Parameters
    ----------
    known : fields of ``IncidentState`` whose values are known already

    Raises
    ------
    RecordError
        When the folder cannot be made.
    """
    now = clock()
    suffix = secrets.token_hex(2)
    folder = home / f"inc-{now:%Y%m%dT%H%M%SZ}-{suffix}"
    defaults: dict[str, Json] = {
        "schema": "runbook/incident/1",
        "id": folder.name,
        "opened_at": format_time(now),
        "closed_at": None,
        "drill": False,
        "opened_by": "hand",
        "verdict": None,
    }
    state = IncidentState.model_validate(defaults | known)
    with disk_errors(f"cannot make {folder}", _ADVICE):
        for part in _FOLDERS:
            (folder / part).mkdir(parents=True)
        write_json(folder / "incident.json", redactor.json(state.to_json()))
    return Incident(folder, redactor=redactor, clock=clock)


@contextmanager
def lock_home(home: Path) -> Iterator[None]:
    """Let one command at a time choose its incident: otherwise one breach could open two.

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
    """Yield the folders under ``home`` that hold an ``incident.json``, the newest first."""
    if not home.is_dir():
        return
    folders = [path for path in home.iterdir() if _ID.fullmatch(path.name)]
    for folder in sorted(folders, reverse=True):
        if (folder / "incident.json").is_file():
            yield folder


def open_incident(home: Path, incident_id: str = "", *, redactor: Redactor) -> Incident | None:
    """Return an incident by its id; without an id the newest open one, else the newest kept look.

    Returns
    -------
    The incident, whose journal may be damaged; None when no id was given, and there is no such
    incident. Without an id, drills are left out, and so is a damaged incident that a newer one
    names as its previous.

    Raises
    ------
    UsageError
        When the id is malformed or there is no such incident.
    """
    if incident_id:
        return _open_named(home, incident_id, redactor)
    look = None
    for folder in list_incidents(home):
        incident = Incident(folder, redactor=redactor)
        try:
            state = incident.state
        except RecordError as error:
            _log.warning("%s Without it, %s is left out.", error, incident.id)
            continue
        if state.drill or state.is_closed:
            continue
        if state.is_open:
            if not _is_left_behind(incident):
                return incident
        elif look is None and _is_kept_look(state) and not _is_left_behind(incident):
            look = incident
    return look


def find_unreadable(home: Path, *, redactor: Redactor) -> Incident | None:
    """Return the newest incident if its ``incident.json`` cannot be read, else None.

    Drills whose ``incident.json`` can be read do not count as the newest. Also None if the journal
    cannot be read either, or says that the incident was closed or is a drill.
    """
    for folder in list_incidents(home):
        incident = Incident(folder, redactor=redactor)
        try:
            is_drill = incident.state.drill
        except RecordError:
            return incident if _may_be_open(incident) else None
        if not is_drill:
            return None
    return None


def _may_be_open(incident: Incident) -> bool:
    """Tell whether the journal of an incident can be read, and holds no close and no drill."""
    try:
        entries = incident.journal.view().entries
    except RecordError:
        return False
    return all(entry.kind not in ("closed", "drill") for entry in entries)


def _open_named(home: Path, incident_id: str, redactor: Redactor) -> Incident:
    """Open an incident by its id."""
    if not _ID.fullmatch(incident_id):
        example = "inc-20261124T031400Z-7f3a"
        advice = "`runbook incidents` lists the ids"
        raise UsageError(
            f"{incident_id!r} is not an incident: an id looks like {example}; {advice}"
        )
    folder = home / incident_id
    if not (folder / "incident.json").is_file():
        raise UsageError(f"there is no incident {incident_id} under {home}")
    return Incident(folder, redactor=redactor)


def _is_kept_look(state: IncidentState) -> bool:
    """Tell whether a look is kept for later commands, and young enough for them.

    Whoever goes on after a look that left its trouble to an incident goes on in that incident.
    """
    if not state.kept or state.same_as:
        return False
    return utc_now() - state.opened_at < _GOES_ON_FOR


def _is_left_behind(incident: Incident) -> bool:
    """Tell whether the journal is damaged, and a newer incident goes on in its place."""
    if not incident.find_damage():
        return False
    for folder in list_incidents(incident.folder.parent):
        other = Incident(folder, redactor=incident.redactor)
        with suppress(RecordError):
            if other.state.previous == incident.id:
                return True
    return False
