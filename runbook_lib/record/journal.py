"""The file of an incident's journal: a ``chainlog`` with redaction.

Errors of the disk and of the log are raised as ``RecordError``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from threading import Lock

from chainlog import ChainedLog, Entry, LogDamagedError, LogError

from ..errors import RecordError, disk_errors
from ..model import Json
from ..redact import Redactor
from .view import JournalView

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


class _Process:
    """The mark of the entries that this process appends; empty: they get none."""

    run = ""


def mark_run(run: str) -> None:
    """Mark the entries that this process appends from now on as those of one run.

    Several commands write to one journal. A command knows by the mark, the name of the executed
    notebook's file, what its own runs wrote.
    """
    _Process.run = run


def get_run() -> str:
    """Return the mark of this process's entries, or empty."""
    return _Process.run


class _File:
    """What was read of a journal's file, so that mostly only new lines are parsed.

    Attributes
    ----------
    content : the file's bytes when it was read last
    mutex : held while the other attributes change
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self.mutex = Lock()
        self.forget()

    def forget(self) -> None:
        """Drop what was read, so that the whole file is read again next time."""
        self.log = ChainedLog(self._path, clock=self._clock)
        self.view = JournalView()
        self.content = b""

    def read(self) -> JournalView:
        """Return the view of all lines. Any change to older lines is damage."""
        with self.mutex:
            content = self._path.read_bytes() if self._path.exists() else b""
            if not content.startswith(self.content):
                self.forget()
            try:
                entries = self.log.read()
                self.view.add(entries[self.view.last_seq :])
            except BaseException:  # also an interrupt, which may leave half a view
                self.forget()
                raise
            self.content = content
            return self.view


#: Shared by all who open a journal in this process: the sections of a run read it once.
_share_file = lru_cache(maxsize=8)(_File)


class Journal:
    """The journal of an incident: entries are appended, and read through ``view``.

    Several processes and threads may use it at once. After a failed write it reads the file anew,
    and accepts entries again when the disk has room, unlike a ``ChainedLog``.
    """

    def __init__(
        self,
        path: Path,
        *,
        redactor: Redactor,
        clock: Clock = utc_now,
    ) -> None:
        self.path = path
        self._redactor = redactor
        self._file = _share_file(path, clock)

    def append(self, kind: str, data: dict[str, Json]) -> Entry:
        """Append one entry and return it; after a RecordError, nothing was appended."""
        marked = {**data, "run": _Process.run} if _Process.run else data
        with self._explain_errors(". Nothing was appended."):
            return self._file.log.append(kind, self._redactor.json(marked))

    def view(self) -> JournalView:
        """Return what the journal holds by now; a RecordError names the first altered line."""
        with self._explain_errors():
            return self._file.read()

    @contextmanager
    def _explain_errors(self, ending: str = "") -> Iterator[None]:
        """Turn an error of disk or log into a ``RecordError`` whose text ends with ``ending``."""
        try:
            with disk_errors(f"{self.path} cannot be read", ending):
                yield
        except LogError as error:
            with self._file.mutex:
                self._file.forget()
            text = f"{error}{ending}"
            if isinstance(error, LogDamagedError):
                advice = ". Keep it as evidence. Begin a new incident with:"
                text = f"{text.rstrip('.')}{advice} runbook run 01 --incident new"
            raise RecordError(text) from error
