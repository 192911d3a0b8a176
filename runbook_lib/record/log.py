"""The journal's file: ``chainlog`` with redaction, read once; what fails is a ``RecordError``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from chainlog import ChainedLog, Entry, LogError

from ..errors import RecordError, disk_errors
from ..model import Json
from ..redact import Redactor
from .journal import JournalView


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


class _File:
    """What is known of a journal's file: its log, its view, and the bytes that these hold."""

    def __init__(self, path: Path, clock: Callable[[], datetime]) -> None:
        self._path, self._clock = path, clock
        self.forget()

    def forget(self) -> None:
        """Read the file anew the next time."""
        self.log, self.view = ChainedLog(self._path, clock=self._clock), JournalView()
        self.verified = b""


#: One for all who open it in a process: the sections of a run read a long journal once.
_open = lru_cache(maxsize=8)(_File)


class Journal:
    """The journal of an incident: appended to, read once, asked through ``view``.

    Parameters
    ----------
    path : the file; made with the first entry
    redactor : every string passes through it before it is written
    clock : returns the current time, aware

    Notes
    -----
    Safe from several processes and threads. Unlike a ledger, which nothing may follow after a
    failed write, a journal goes on when there is room again: what the file holds by then is read
    anew.
    """

    def __init__(
        self, path: Path, *, redactor: Redactor, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.path, self._redactor, self._file = path, redactor, _open(path, clock)

    def append(self, kind: str, data: dict[str, Json]) -> Entry:
        """Append one entry and return it.

        Raises
        ------
        RecordError
            When the file is damaged, or cannot be locked or written; nothing was appended then.
        """
        with self._explained(". Nothing was appended."):
            return self._file.log.append(kind, self._redactor.json(data))

    def view(self) -> JournalView:
        """Return what the journal holds by now; an absent file holds nothing.

        What was verified before is compared with what the file holds now, and only what follows it
        is parsed.

        Raises
        ------
        RecordError
            When the file cannot be read; at the first altered or missing line, which it names.
        """
        with disk_errors(f"{self.path} cannot be read"), self._explained():
            content = self.path.read_bytes() if self.path.exists() else b""
            file = self._file
            if not (file.verified and content.startswith(file.verified)):
                file.forget()
            file.view.add(file.log.read()[file.view.last_seq :])
            file.verified = content[: content.rfind(b"\n") + 1]
        return file.view

    @contextmanager
    def _explained(self, ending: str = "") -> Iterator[None]:
        try:
            yield
        except LogError as error:
            self._file.forget()
            raise RecordError(f"{error}{ending}") from error
