"""An append-only log of JSON lines: locked, fsynced, hash-chained.

Each line holds ``seq``, ``at``, ``kind``, ``data``, ``prev`` (the hash of the line before) and
``hash`` (SHA-256 of the line without ``hash``). The chain shows accidents and edits; it does not
stop a forger who rewrites every line.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from filelock import FileLock, Timeout

__all__ = ["GENESIS", "ChainedLog", "Entry", "LogDamagedError", "LogError", "read_entries"]

GENESIS = "0" * 64
_RESERVE_BYTES = 256 * 1024
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class LogError(Exception):
    """The log cannot be read, locked or written."""


class LogDamagedError(LogError):
    """A line was altered, or is missing: ``path``, ``line`` (from 1) and ``reason`` say which."""

    def __init__(self, path: str, line: int, reason: str) -> None:
        super().__init__(f"{path}, line {line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


class Entry(NamedTuple):
    """One line of a log; ``at`` is UTC, by the clock of the machine that wrote it."""

    seq: int
    at: datetime
    kind: str
    data: dict[str, Any]
    prev: str
    hash: str


_START = Entry(0, datetime.min.replace(tzinfo=UTC), "", {}, "", GENESIS)


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of a log, checking the chain; a torn last line is left out.

    Raises
    ------
    LogError
        When the file cannot be read.
    LogDamagedError
        At the first altered or missing line.
    """
    return (entry for entry, _ in _read(path, 0, _START))


class ChainedLog:
    """Append to one log file, safely from several processes and threads.

    Parameters
    ----------
    path : the file; the first entry creates it, and its folder
    clock : returns the current time, aware
    lock_timeout_s : how long to wait for another process

    Notes
    -----
    Appending changes the file: one lock, one write, one fsync, however many entries. A torn last
    line (the writer died in the middle) is moved to ``<name>.torn-<n>`` and an entry ``torn_tail``
    says so. After a failed write this object appends no more: what is on the disk is not known.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], datetime] = _utc_now,
        lock_timeout_s: float = 10.0,
    ) -> None:
        self.path = path
        self._clock = clock
        self._reserve = path.with_name(f".{path.name}.reserve")
        self._lock = FileLock(f"{path}.lock", timeout=lock_timeout_s, thread_local=False)
        self._mutex = threading.Lock()  # the file's lock does not tell threads apart
        self._last = _START
        self._size = 0
        self._kept: list[Entry] | None = None
        self._broken = ""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from appending, until the ``with`` block ends.

        Raises
        ------
        LogError
            When another process holds the lock for too long, or the folder cannot be written.
        """
        with self._mutex:
            self._acquire()
        try:
            yield
        finally:
            with self._mutex:  # another thread's append ends first
                self._lock.release()

    def _acquire(self) -> AbstractContextManager[object]:
        """Take the file's lock; what is returned gives it back at its end."""
        with _explained(f"cannot lock {self.path}"):
            return self._lock.acquire()  # makes the folder, too

    def append(self, kind: str, data: dict[str, Any], *, sync: bool = True) -> Entry:
        """Append one entry.

        Parameters
        ----------
        sync : wait for the disk; without it a power cut may take the entry, a kill does not

        Raises
        ------
        LogError
            When it could not be appended, or an earlier append failed.
        """
        with self._mutex:
            if self._lock.is_locked:  # to take it again would cost as much as the append
                return self._append(kind, data, sync)
            with self._acquire():
                return self._append(kind, data, sync)

    def _append(self, kind: str, data: dict[str, Any], sync: bool) -> Entry:
        if self._broken:
            raise LogError(f"{self.path} is not written any more: {self._broken}")
        if self._catch_up():
            kept_as = self._move_torn_tail()
            self._write("torn_tail", {"kept_as": kept_as}, sync)
        return self._write(kind, data, sync)

    def reserve(self) -> None:
        """Keep 256 KiB aside on the disk, so that what happened can be written when it is full.

        Raises
        ------
        LogError
            When there is no such room: begin nothing.
        """
        if self._reserve.exists():
            return
        with _explained(f"no room beside {self.path}"):
            try:
                with self._reserve.open("wb") as file:
                    file.write(bytes(_RESERVE_BYTES))
                    os.fsync(file.fileno())
            except BaseException:
                self.release_reserve()
                raise

    def release_reserve(self) -> None:
        """Give the reserved room back."""
        self._reserve.unlink(missing_ok=True)

    def read(self) -> list[Entry]:
        """Return every complete entry, and keep them all: only what is new is read next time.

        Raises
        ------
        LogDamagedError
            At the first altered or missing line among the new ones.
        """
        with self._mutex:
            if self._kept is None:
                self._forget()
                self._kept = []
            self._catch_up()
            return list(self._kept)

    def scan(self) -> Iterator[Entry]:
        """Yield every complete entry, and keep none: a long log takes no memory.

        Raises
        ------
        LogDamagedError
            At the first altered or missing line.
        """
        last = _START
        size = 0
        if self.path.exists():
            for entry, length in _read(self.path, 0, _START):
                last = entry
                size += length
                yield entry
        with self._mutex:
            if self._kept is None:  # nobody reads entries from memory: go on from here
                self._last = last
                self._size = size

    def _forget(self) -> None:
        """Read the file from its beginning next time."""
        self._last = _START
        self._size = 0
        if self._kept is not None:
            self._kept = []

    def _catch_up(self) -> bool:
        """Read what is new; tell whether a torn line follows."""
        try:
            size = self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            size = 0
        if size < self._size:
            self._forget()
        if size > self._size:
            for entry, length in _read(self.path, self._size, self._last):
                self._take(entry, length)
        return size > self._size

    def _take(self, entry: Entry, length: int) -> None:
        """Go on to the next entry, which has this size."""
        self._last = entry
        self._size += length
        if self._kept is not None:
            self._kept.append(entry)

    def _move_torn_tail(self) -> str:
        number = 1
        while True:
            aside = self.path.with_name(f"{self.path.name}.torn-{number}")
            if not aside.exists():
                break
            number += 1
        with _explained(f"cannot write {self.path}"):
            content = self.path.read_bytes()
            aside.write_bytes(content[self._size :])
            os.truncate(self.path, self._size)
        return aside.name

    def _write(self, kind: str, data: dict[str, Any], sync: bool) -> Entry:
        last = self._last
        line = _make_line(last, self._clock(), kind, data)
        try:
            self._write_line(line, sync)
        except OSError as error:
            self._broken = error.strerror or "a write failed"
            with suppress(OSError):
                os.truncate(self.path, self._size)
            raise LogError(f"cannot write {self.path}: {self._broken}") from error
        entry = _decode(line)  # as a reader of the file would see it
        self._take(entry, len(line))
        return entry

    def _write_line(self, line: bytes, sync: bool) -> None:
        with self.path.open("ab", buffering=0) as file:
            try:
                _write_whole(file, line)
            except OSError:
                if not self._reserve.exists():
                    raise
                file.truncate(self._size)
                self.release_reserve()
                _write_whole(file, line)
            if sync:
                os.fsync(file.fileno())
        if self._size == 0:
            _sync_folder(self.path.parent)


def _write_whole(file: BinaryIO, line: bytes) -> None:
    left = line
    while left:
        written = file.write(left) or 0
        left = left[written:]


def _sync_folder(path: Path) -> None:
    """Wait until a new file's name is on the disk, too."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path, start: int, last: Entry) -> Iterator[tuple[Entry, int]]:
    with _explained(f"{path} cannot be read"), path.open("rb") as file:
        file.seek(start)
        for line in file:
            if line.endswith(b"\n"):
                last = _parse(path, line, last)
                yield last, len(line)


def _parse(path: Path, line: bytes, last: Entry) -> Entry:
    number = last.seq + 1
    try:
        entry = _decode(line)
        own_hash = f'"hash":"{entry.hash}",'.encode()
        before, _, after = line.rstrip(b"\n").rpartition(own_hash)
        is_whole = hashlib.sha256(before + after).hexdigest() == entry.hash
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LogDamagedError(str(path), number, "not a log line") from error
    if (entry.seq, entry.prev) != (number, last.hash):
        raise LogDamagedError(str(path), number, "does not follow the line before it")
    if not is_whole:
        raise LogDamagedError(str(path), number, "was altered after it was written")
    return entry


def _decode(line: bytes) -> Entry:
    """Return the entry of a line that nobody has checked."""
    text = line.decode("utf-8", "surrogatepass")
    record = json.loads(text)
    record["at"] = datetime.fromisoformat(record["at"])
    return Entry(**record)


def _make_line(last: Entry, at: datetime, kind: str, data: dict[str, Any]) -> bytes:
    """Return the line that follows an entry; ``data`` is encoded once."""
    before = _canonical({"at": _format_time(at), "data": data})
    after = _canonical({"kind": kind, "prev": last.hash, "seq": last.seq + 1})
    start = before.removesuffix(b"}") + b","
    end = after.removeprefix(b"{")
    digest = hashlib.sha256(start + end).hexdigest()
    # The names are sorted: ``hash`` comes after ``data`` and before ``kind``.
    return start + b'"hash":"' + digest.encode() + b'",' + end + b"\n"


def _format_time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _canonical(record: dict[str, Any]) -> bytes:
    """Return the one way to write a record: sorted names, no blanks."""
    return _ENCODER.encode(record).encode("utf-8", "surrogatepass")


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = "in use by another process" if isinstance(error, Timeout) else error.strerror
        raise LogError(f"{what}: {why}") from error
