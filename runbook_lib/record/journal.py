"""An incident's journal: a ``chainlog`` with redaction."""

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
    return datetime.now(UTC)


class _Process:
    """The run whose entries this process appends, or ""."""

    run = ""


def set_run(run: str) -> None:
    """Name the run, a notebook's file, whose entries this process appends from now on.

    By this name, each of several commands finds its own entries.
    """
    _Process.run = run


def get_run() -> str:
    return _Process.run


class _File:
    """A journal's file as read so far, so that only new lines need parsing."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self.mutex = Lock()
        self.forget()

    def forget(self) -> None:
        """Let the next ``read`` read and check the whole file again."""
        self.log = ChainedLog(self._path, clock=self._clock)
        self.view = JournalView()
        self.content = b""

    def read(self) -> JournalView:
        """Return the view of all lines; parse only those that are new since the last call.

        If older lines differ, read the whole file again: its hash chain then names the altered one.
        """
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


#: Shared in this process, so that the sections of a run read a journal once.
_share_file = lru_cache(maxsize=8)(_File)


class Journal:
    """The journal of an incident, for several processes and threads at once.

    Unlike a ``ChainedLog``, it accepts entries again after a failed write.
    """

    def __init__(self, path: Path, *, redactor: Redactor, clock: Clock = utc_now) -> None:
        self.path = path
        self._redactor = redactor
        self._file = _share_file(path, clock)

    def append(self, kind: str, data: dict[str, Json]) -> Entry:
        """Append an entry and return it; after a RecordError, nothing was appended."""
        tagged = {**data, "run": _Process.run} if _Process.run else data
        with self._explain_errors(". Nothing was appended."):
            return self._file.log.append(kind, self._redactor.json(tagged))

    def view(self) -> JournalView:
        """Return what the journal holds now; a RecordError names the first altered line."""
        with self._explain_errors():
            return self._file.read()

    @contextmanager
    def _explain_errors(self, ending: str = "") -> Iterator[None]:
        """Turn errors of disk and log into a RecordError with this ``ending``."""
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
