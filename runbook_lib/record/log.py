"""The journal's file: ``chainlog`` with redaction, read once; what fails is a ``RecordError``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from chainlog import ChainedLog, Entry, LogError

from ..errors import RecordError, disk_errors
from ..model import Json
from ..redact import Redactor
from .journal import JournalView


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


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
        self.path, self._redactor, self._clock = path, redactor, clock
        self._verified = b""
        self._forget()

    def append(self, kind: str, data: dict[str, Json]) -> Entry:
        """Append one entry and return it.

        Raises
        ------
        RecordError
            When the file is damaged, or cannot be locked or written; nothing was appended then.
        """
        with self._explained(". Nothing was appended."):
            return self._log.append(kind, self._redactor.json(data))

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
            if not (self._verified and content.startswith(self._verified)):
                self._forget()
            self._view.add(self._log.read()[self._view.last_seq :])
            self._verified = content[: content.rfind(b"\n") + 1]
        return self._view

    def _forget(self) -> None:
        """Read the file anew the next time."""
        self._log = ChainedLog(self.path, clock=self._clock)
        self._view = JournalView()
        self._verified = b""

    @contextmanager
    def _explained(self, ending: str = "") -> Iterator[None]:
        try:
            yield
        except LogError as error:
            self._forget()
            raise RecordError(f"{error}{ending}") from error
