"""The journal's log: ``chainlog`` with redaction, in this package's errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import chainlog
from chainlog import GENESIS, Entry

from ..errors import LogDamagedError, RecordError, disk_errors
from ..model import Json
from ..redact import Redactor

__all__ = ["GENESIS", "ChainedLog", "Entry", "read_entries", "utc_now"]


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of a log, checking the chain; a torn last line is left out.

    Raises
    ------
    RecordError
        When it cannot be read.
    LogDamagedError
        At the first altered or missing line.
    """
    if path.exists():
        with _explained():
            yield from chainlog.read_entries(path)


class ChainedLog:
    """Append to one log file, safely from several processes and threads.

    Parameters
    ----------
    path : the file; made with the first entry
    redactor : every string passes through it before it is written
    clock : returns the current time, aware

    Notes
    -----
    Unlike a ledger, which nothing may follow after a failed write, a journal goes on when there is
    room again: what the file holds by then is read anew.
    """

    def __init__(
        self, path: Path, *, redactor: Redactor, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.path = path
        self._redactor = redactor
        self._clock = clock
        self._log, self._verified = chainlog.ChainedLog(path, clock=clock), b""

    def append(self, kind: str, data: dict[str, Json]) -> Entry:
        """Append one entry and return it.

        Raises
        ------
        RecordError
            When the file cannot be locked or written; nothing was appended then.
        LogDamagedError
            When the file is damaged before its last line.
        """
        try:
            with _explained(". Nothing was appended."):
                return self._log.append(kind, self._redactor.json(data))
        except RecordError:
            self._log = chainlog.ChainedLog(self.path, clock=self._clock)
            raise

    def read(self) -> list[Entry]:
        """Return every complete entry; an absent file has none.

        What was verified before is compared with what the file holds now, and only what follows it
        is parsed.

        Raises
        ------
        LogDamagedError
            At the first altered or missing line.
        RecordError
            When the file cannot be read.
        """
        with _explained(), disk_errors(f"{self.path} cannot be read"):
            content = self.path.read_bytes() if self.path.exists() else b""
            verified, self._verified = self._verified, b""
            if not verified or not content.startswith(verified):
                self._log = chainlog.ChainedLog(self.path, clock=self._clock)
            entries = self._log.read()
            self._verified = content[: content.rfind(b"\n") + 1]
        return entries


@contextmanager
def _explained(ending: str = "") -> Iterator[None]:
    try:
        yield
    except chainlog.LogDamagedError as error:
        raise LogDamagedError(error.path, error.line, error.reason) from error
    except chainlog.LogError as error:
        raise RecordError(f"{error}{ending}") from error
