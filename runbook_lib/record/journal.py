"""The file of an incident's journal: a ``chainlog`` with redaction.

Parsed lines are kept in memory, so that mostly only new lines are parsed. Errors of the disk and of
the log are raised as ``RecordError``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from chainlog import ChainedLog, Entry, LogDamagedError, LogError

from ..errors import JournalDamagedError, RecordError, disk_errors
from ..model import Json
from ..redact import Redactor
from .view import JournalView

Clock = Callable[[], datetime]

#: Bytes that are read and compared at once. For much larger parts Python would ask the system for
#: new memory each time.
_PART_BYTES = 1 << 16


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


class _Process:
    """The mark of the entries that this process appends; empty: they get none."""

    run = ""


def mark_run(run: str) -> None:
    """Mark the entries that this process appends from now on as those of one run.

    Several commands write to one journal. A command knows by the mark what its own runs wrote.

    Parameters
    ----------
    run : name of the executed notebook's file; empty: entries get no mark any more
    """
    _Process.run = run


def get_run() -> str:
    """Return the mark of this process's entries; empty: none."""
    return _Process.run


class _File:
    """What was read of a journal's file: its log, the view of its entries, and their bytes.

    Attributes
    ----------
    verified_parts : the bytes of the lines that ``view`` holds, in parts
    mutex : held while the other attributes are filled from the file, dropped or copied
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
        self.verified_parts: list[bytes] = []

    def still_begins(self, content: BinaryIO) -> bool:
        """Tell whether the file still begins with the verified lines.

        Parameters
        ----------
        content : the open file, at its start; its position moves
        """
        return all(content.read(len(part)) == part for part in self.verified_parts)

    def read_on(self, content: BinaryIO) -> JournalView:
        """Parse the lines past the verified ones, and return the view of all lines."""
        verified_before = self.verified_parts
        # An exception below leaves nothing verified, so that the next call reads the whole file.
        self.verified_parts = []
        size_before = sum(len(part) for part in verified_before)
        content.seek(size_before)
        added = content.read()
        entries = self.log.read()
        view = self.view
        lines_read = view.last_seq + added.count(b"\n")
        view.add(entries[view.last_seq : lines_read])
        self.verified_parts = [*verified_before, *_split(added)]
        if len(entries) != view.last_seq:
            # Another process appended a line between the two reads: ``added`` does not have it.
            self.forget()
        return view


def _split(content: bytes) -> list[bytes]:
    """Return bytes up to the end of the last whole line, cut into parts."""
    end = content.rfind(b"\n") + 1
    parts = []
    for start in range(0, end, _PART_BYTES):
        part_end = min(start + _PART_BYTES, end)
        parts.append(content[start:part_end])
    return parts


#: Shared by all who open a journal in this process: the sections of a run read it once.
_share_file = lru_cache(maxsize=8)(_File)


class Journal:
    """The journal of an incident: entries are appended, and read through ``view``.

    Parameters
    ----------
    path : the file; made with the first entry
    redactor : every string passes through it before it is written
    clock : returns the current time, aware

    Notes
    -----
    Several processes and threads may use it at once. After a failed write the journal reads the
    file anew, and accepts entries again when the disk has room. A ``ChainedLog`` accepts nothing
    after a failed write.
    """

    def __init__(self, path: Path, *, redactor: Redactor, clock: Clock = utc_now) -> None:
        self.path = path
        self._redactor = redactor
        self._file = _share_file(path, clock)

    def append(self, kind: str, data: dict[str, Json]) -> Entry:
        """Append one entry and return it.

        Raises
        ------
        RecordError
            When the file cannot be locked or written; nothing was appended then.
        JournalDamagedError
            When the file is damaged; then, too, nothing was appended.
        """
        with self._explain_errors(". Nothing was appended."):
            if not self._file.verified_parts:
                # Otherwise the whole file would be read twice: now by the log, later by ``view``.
                self._catch_up()
            marked = {**data, "run": _Process.run} if _Process.run else data
            redacted = self._redactor.json(marked)
            entry = self._file.log.append(kind, redacted)
        # The next ``view`` raises the error that is suppressed here.
        with suppress(RecordError), self._explain_errors():
            self._catch_up(compares=False)
        return entry

    def view(self) -> JournalView:
        """Return what the journal holds by now; an absent file holds nothing.

        Raises
        ------
        RecordError
            When the file cannot be read.
        JournalDamagedError
            At the first altered or missing line, which it names.
        """
        with self._explain_errors():
            return self._catch_up()

    def _catch_up(self, *, compares: bool = True) -> JournalView:
        """Read the lines that were appended since the last call, and return the view of all lines.

        Parameters
        ----------
        compares : whether the lines that were read before are compared with the file. If they
            differ, the whole file is read again
        """
        with self._file.mutex, self._open_content() as content:
            is_known = bool(self._file.verified_parts)
            if is_known and compares:
                is_known = self._file.still_begins(content)
            if not is_known:
                self._file.forget()
            return self._file.read_on(content)

    def _open_content(self) -> BinaryIO:
        """Open the file for reading; an absent one is empty."""
        if not self.path.exists():
            return BytesIO()
        return self.path.open("rb")

    def redacted(self) -> JournalView:
        """Return what ``view`` holds now, without the secrets that this redactor knows.

        Other processes write to the journal, too, and their redactors may know fewer secrets.
        """
        whole = self.view()
        with self._file.mutex:
            whole = whole.copy()
        entries = list(self.redact(whole.entries))
        if entries == whole.entries:
            return whole
        return JournalView(entries)

    def redact(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield entries without the secrets that this redactor knows."""
        for entry in entries:
            data = self._redactor.json(entry.data)
            yield entry._replace(data=data)

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
                raise JournalDamagedError(text, line=error.line, reason=error.reason) from error
            raise RecordError(text) from error
