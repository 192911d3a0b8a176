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
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

__all__ = ["GENESIS", "ChainedLog", "Entry", "LogDamagedError", "LogError", "read_entries"]

GENESIS = "0" * 64
Json = Any


class LogError(Exception):
    """The log cannot be read, locked or written."""


class LogDamagedError(LogError):
    """A line was altered, or is missing: ``path``, ``line`` (from 1) and ``reason`` say which."""

    def __init__(self, path: str, line: int, reason: str) -> None:
        super().__init__(f"{path}, line {line}: {reason}")
        self.path, self.line, self.reason = path, line, reason


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a log; ``at`` is UTC, by the clock of the machine that wrote it."""

    seq: int
    at: datetime
    kind: str
    data: dict[str, Json]
    prev: str
    hash: str


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of a log, checking the chain; a torn last line is left out.

    Raises
    ------
    LogError
        When the file cannot be read.
    LogDamagedError
        At the first altered or missing line.
    """
    return (entry for entry, _ in _read(path, 0, None))


class ChainedLog:
    """Append to one log file, safely from several processes and threads.

    Parameters
    ----------
    path : the file; made, with its folder, by the first entry
    clock : returns the current time, aware
    reserve_bytes : room that ``reserve`` keeps aside on the disk, for when it gets full

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
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        reserve_bytes: int = 1 << 18,
        lock_timeout_s: float = 10.0,
    ) -> None:
        self.path = path
        self._clock = clock
        self._reserve = path.with_name(f".{path.name}.reserve")
        self._reserve_bytes = reserve_bytes
        self._lock = FileLock(f"{path}.lock", timeout=lock_timeout_s, thread_local=False)
        self._mutex = threading.Lock()  # all threads of this process are one to the file's lock
        self._entries: list[Entry] = []
        self._size = 0
        self._broken = ""

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from appending inside the ``with`` block.

        Raises
        ------
        LogError
            When another process holds the lock for too long, or the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            raise LogError(f"{self.path} is in use by another process") from error
        except OSError as error:
            raise LogError(f"cannot lock {self.path}: {error.strerror}") from error
        try:
            yield
        finally:
            self._lock.release()

    def append(self, kind: str, data: dict[str, Json], *, sync: bool = True) -> Entry:
        """Append one entry.

        Parameters
        ----------
        sync : wait for the disk; without it a power cut may take the entry, a kill does not

        Raises
        ------
        LogError
            When it could not be appended, or an earlier append failed.
        """
        with self._mutex, self.locked():
            if self._broken:
                raise LogError(f"{self.path} is not written any more: {self._broken}")
            self._catch_up()
            if torn := self._move_torn_tail():
                self._write("torn_tail", {"kept_as": torn}, sync)
            return self._write(kind, data, sync)

    def reserve(self) -> None:
        """Keep room aside on the disk, so that what happened can be written when it is full.

        Raises
        ------
        LogError
            When there is no such room: begin nothing.
        """
        try:
            if not self._reserve.exists():
                with self._reserve.open("wb") as file:
                    file.write(bytes(self._reserve_bytes))
                    os.fsync(file.fileno())
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            raise LogError(f"no room beside {self.path}: {error.strerror}") from error

    def release_reserve(self) -> None:
        """Give the room back."""
        self._reserve.unlink(missing_ok=True)

    def read(self) -> list[Entry]:
        """Return every complete entry; lines that this object has seen are not read again.

        Raises
        ------
        LogDamagedError
            At the first altered or missing line among the new ones.
        """
        with self._mutex:
            self._catch_up()
            return list(self._entries)

    def _catch_up(self) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._size:
            self._entries, self._size = [], 0
        if size > self._size:
            last = self._entries[-1] if self._entries else None
            for entry, length in _read(self.path, self._size, last):
                self._entries.append(entry)
                self._size += length

    def _move_torn_tail(self) -> str:
        if not self.path.exists() or self.path.stat().st_size == self._size:
            return ""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.torn-{number}")).exists():
            number += 1
        try:
            with self.path.open("r+b") as file:
                file.seek(self._size)
                aside.write_bytes(file.read())
                file.truncate(self._size)
                os.fsync(file.fileno())
        except OSError as error:
            raise LogError(f"cannot write {self.path}: {error.strerror}") from error
        return aside.name

    def _write(self, kind: str, data: dict[str, Json], sync: bool) -> Entry:
        last = self._entries[-1] if self._entries else None
        seq, prev = (last.seq + 1, last.hash) if last else (1, GENESIS)
        record = {"seq": seq, "at": _format_time(self._clock()), "kind": kind, "data": data}
        line = _encode({**record, "prev": prev})[1]
        try:
            self._write_line(line, sync)
        except OSError as error:
            self._broken = error.strerror or "a write failed"
            raise LogError(f"cannot write {self.path}: {self._broken}") from error
        # as a reader of the file would see it
        self._entries.append(_parse(self.path, line, last))
        self._size += len(line)
        return self._entries[-1]

    def _write_line(self, line: bytes, sync: bool) -> None:
        is_new = not self.path.exists()
        with self.path.open("ab", buffering=0) as file:
            try:
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
            except OSError:
                file.truncate(self._size)
                raise
        if is_new:
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _write_whole(file: FileIO, line: bytes) -> None:
    written = 0
    while written < len(line):
        written += file.write(line[written:]) or 0


def _read(path: Path, start: int, last: Entry | None) -> Iterator[tuple[Entry, int]]:
    try:
        with path.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                last = _parse(path, line, last)
                yield last, len(line)
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror}") from error


def _parse(path: Path, line: bytes, last: Entry | None) -> Entry:
    number, prev = (last.seq + 1, last.hash) if last else (1, GENESIS)
    try:
        record = json.loads(line)
        entry = Entry(
            at=datetime.fromisoformat(record["at"]),
            **{name: record[name] for name in ("seq", "kind", "data", "prev", "hash")},
        )
        digest, _ = _encode({name: text for name, text in record.items() if name != "hash"})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LogDamagedError(str(path), number, "not a log line") from error
    if entry.seq != number:
        raise LogDamagedError(str(path), number, f"has sequence number {entry.seq}")
    if entry.prev != prev:
        raise LogDamagedError(str(path), number, "does not follow the line before it")
    if digest != entry.hash:
        raise LogDamagedError(str(path), number, "was altered after it was written")
    return entry


def _encode(record: dict[str, Json]) -> tuple[str, bytes]:
    digest = hashlib.sha256(_canonical(record)).hexdigest()
    return digest, _canonical({**record, "hash": digest}) + b"\n"


def _canonical(record: dict[str, Json]) -> bytes:
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode("utf-8", "surrogatepass")


def _format_time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
