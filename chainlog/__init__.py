"""An append-only log of JSON lines: locked, fsynced, hash-chained.

Each line holds ``seq``, ``at``, ``kind``, ``data``, ``prev`` (the hash of the line before) and
``hash`` (SHA-256 of the line without ``hash``). The chain shows accidents and edits, but not whole
lines cut off at the end, nor a forger who rewrites every line. A last line without its line break
is *torn*: its writer died in the middle.
"""

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

#: ``prev`` of the first line.
GENESIS = "0" * 64
#: Reserved for the last lines when the disk is full.
_RESERVE_BYTES = 256 * 1024
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class LogError(Exception):
    """The log cannot be read, locked or written."""


class LogDamagedError(LogError):
    """A line was altered, or a line before it is missing; ``line`` counts from 1."""

    def __init__(self, path: str, line: int, reason: str) -> None:
        super().__init__(f"{path}, line {line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


class Entry(NamedTuple):
    """One line of a log; ``at`` is UTC by the writer's clock, ``prev`` the previous line's hash."""

    seq: int
    at: datetime
    kind: str
    data: dict[str, Any]
    prev: str
    hash: str


#: The first line follows this entry, which is in no file.
_START = Entry(0, datetime.min.replace(tzinfo=UTC), "", {}, "", GENESIS)


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield a log's entries, but not a torn last line.

    Raises LogError when the file can't be read, and LogDamagedError at the first line that was
    altered or doesn't follow the line before it.
    """
    return (entry for entry, _ in _read(path, 0, _START))


class ChainedLog:
    """Append to one log file, safely from several processes and threads.

    An append reads only lines that are new to this object, and writes one. It first moves a torn
    last line to ``<name>.torn-<n>``. After a failed write this object appends no more, because it
    can't know what is on the disk. Reading raises as ``read_entries`` does.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], datetime] = _utc_now, lock_timeout_s: float = 10.0
    ) -> None:
        self.path = path
        self._clock = clock
        self._reserve = path.with_name(f".{path.name}.reserve")
        self._lock = FileLock(f"{path}.lock", timeout=lock_timeout_s, thread_local=False)
        self._mutex = threading.Lock()  # the file's lock does not tell threads apart
        # How far the file was read and checked: the last entry, and the bytes up to its end.
        self._last_entry = _START
        self._checked_bytes = 0
        self._kept_entries: list[Entry] | None = None  # None until ``read`` is called
        self._broken = ""  # why this object appends no more

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from appending; other threads can still append through this object.

        Raises LogError when another process holds the lock for too long, or the disk refuses.
        """
        with self._mutex:
            self._acquire()
        try:
            yield
        finally:
            with self._mutex:  # waits until another thread's append has ended
                self._lock.release()

    def _acquire(self) -> AbstractContextManager[object]:
        with _raising_log_error(f"cannot lock {self.path}"):
            return self._lock.acquire()  # filelock makes the folder, too

    def append(self, kind: str, data: dict[str, Any], *, sync: bool = True) -> Entry:
        """Append one entry. Without ``sync``, a power cut may lose it; a kill can't.

        Raises LogError when that fails or an earlier write failed, and LogDamagedError as
        ``read_entries`` does.
        """
        with self._mutex:
            # Inside ``locked``: to take the file's lock again would cost as much as the append.
            if self._lock.is_locked:
                return self._append(kind, data, sync)
            with self._acquire():
                return self._append(kind, data, sync)

    def _append(self, kind: str, data: dict[str, Any], sync: bool) -> Entry:
        """Append one entry; the caller has both locks. First move a torn last line away."""
        if self._broken:
            raise LogError(f"{self.path} is not written any more: {self._broken}")
        has_torn_tail = self._read_new_lines()
        if has_torn_tail:
            kept_as = self._move_torn_tail()
            self._write("torn_tail", {"kept_as": kept_as}, sync)
        return self._write(kind, data, sync)

    def reserve(self) -> None:
        """Reserve 256 KiB for entries on a full disk.

        Raises LogError without such room: then begin nothing that must be logged.
        """
        if self._reserve.exists():
            return
        with _raising_log_error(f"no room beside {self.path}"):
            try:
                with self._reserve.open("wb") as file:
                    file.write(bytes(_RESERVE_BYTES))
                    os.fsync(file.fileno())
            except BaseException:
                self.release_reserve()
                raise

    def release_reserve(self) -> None:
        self._reserve.unlink(missing_ok=True)

    def read(self) -> list[Entry]:
        """Return every complete entry, and keep them: the next call reads only new lines."""
        with self._mutex:
            if self._kept_entries is None:
                self._start_over()  # appends before this call kept no entries
                self._kept_entries = []
            self._read_new_lines()
            return list(self._kept_entries)

    def scan(self) -> Iterator[Entry]:
        """Yield every complete entry, and keep none in memory.

        After a whole scan, the next append needn't read these lines again.
        """
        last = _START
        checked_bytes = 0
        if self.path.exists():
            for entry, line_bytes in _read(self.path, 0, _START):
                last = entry
                checked_bytes += line_bytes
                yield entry
        with self._mutex:
            # If ``read`` keeps entries, don't skip these: this scan has kept none of them.
            if self._kept_entries is None:
                self._last_entry = last
                self._checked_bytes = checked_bytes

    def _start_over(self) -> None:
        self._last_entry = _START
        self._checked_bytes = 0
        if self._kept_entries is not None:
            self._kept_entries = []

    def _read_new_lines(self) -> bool:
        """Read new complete lines; return whether bytes without a line break follow them."""
        try:
            file_size = self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            file_size = 0
        if file_size < self._checked_bytes:  # somebody cut the file
            self._start_over()
        if file_size > self._checked_bytes:
            for entry, line_bytes in _read(self.path, self._checked_bytes, self._last_entry):
                self._count_as_read(entry, line_bytes)
        # Without the file's lock, another process may be writing that line just now.
        return file_size > self._checked_bytes

    def _count_as_read(self, entry: Entry, line_bytes: int) -> None:
        self._last_entry = entry
        self._checked_bytes += line_bytes
        if self._kept_entries is not None:
            self._kept_entries.append(entry)

    def _move_torn_tail(self) -> str:
        """Move a torn last line to a new file beside the log; return that file's name."""
        number = 1
        while True:
            torn_path = self.path.with_name(f"{self.path.name}.torn-{number}")
            if not torn_path.exists():
                break
            number += 1
        with _raising_log_error(f"cannot write {self.path}"):
            content = self.path.read_bytes()
            torn_path.write_bytes(content[self._checked_bytes :])
            os.truncate(self.path, self._checked_bytes)
        return torn_path.name

    def _write(self, kind: str, data: dict[str, Any], sync: bool) -> Entry:
        """Write one line after the last entry; if that fails, this object writes no more."""
        line = _make_line(self._last_entry, self._clock(), kind, data)
        try:
            self._write_line(line, sync)
        except OSError as error:
            self._broken = error.strerror or "a write failed"
            with suppress(OSError):  # leave no part of the line, if that is possible
                os.truncate(self.path, self._checked_bytes)
            raise LogError(f"cannot write {self.path}: {self._broken}") from error
        entry = _decode(line)  # as a reader of the file would see it
        self._count_as_read(entry, len(line))
        return entry

    def _write_line(self, line: bytes, sync: bool) -> None:
        """Append a line. If that fails, free the reserved room and try once more."""
        with self.path.open("ab", buffering=0) as file:
            try:
                _write_whole(file, line)
            except OSError:
                if not self._reserve.exists():
                    raise
                file.truncate(self._checked_bytes)
                self.release_reserve()
                _write_whole(file, line)
            if sync:
                os.fsync(file.fileno())
        if self._checked_bytes == 0:  # the file is new
            _sync_folder(self.path.parent)


def _write_whole(file: BinaryIO, line: bytes) -> None:
    unwritten = line
    while unwritten:
        written_bytes = file.write(unwritten) or 0  # maybe not all
        unwritten = unwritten[written_bytes:]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, start_bytes: int, last: Entry) -> Iterator[tuple[Entry, int]]:
    """Yield each complete entry after ``last`` from ``start_bytes`` on, with its line's length."""
    with _raising_log_error(f"{path} cannot be read"), path.open("rb") as file:
        file.seek(start_bytes)
        for line in file:
            if line.endswith(b"\n"):  # else the line is torn
                last = _parse(path, line, last)
                yield last, len(line)


def _parse(path: Path, line: bytes, last: Entry) -> Entry:
    """Return a line's entry, which must follow ``last``, or raise LogDamagedError."""
    number = last.seq + 1
    try:
        entry = _decode(line)
        # The line was hashed before this field was put in.
        hash_field = f'"hash":"{entry.hash}",'.encode()
        before, _, after = line.rstrip(b"\n").rpartition(hash_field)
        is_unaltered = hashlib.sha256(before + after).hexdigest() == entry.hash
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LogDamagedError(str(path), number, "not a log line") from error
    if (entry.seq, entry.prev) != (number, last.hash):
        raise LogDamagedError(str(path), number, "does not follow the line before it")
    if not is_unaltered:
        raise LogDamagedError(str(path), number, "was altered after it was written")
    return entry


def _decode(line: bytes) -> Entry:
    text = line.decode("utf-8", "surrogatepass")
    fields = json.loads(text)
    fields["at"] = datetime.fromisoformat(fields["at"])
    return Entry(**fields)


def _make_line(last: Entry, at: datetime, kind: str, data: dict[str, Any]) -> bytes:
    # ``data`` may be large: encode it once, hash the line without ``hash``, then put that in.
    before = _encode_canonical({"at": _format_time(at), "data": data})
    after = _encode_canonical({"kind": kind, "prev": last.hash, "seq": last.seq + 1})
    start = before.removesuffix(b"}") + b","
    end = after.removeprefix(b"{")
    digest = hashlib.sha256(start + end).hexdigest()
    # The fields are sorted by name: ``hash`` comes after ``data`` and before ``kind``.
    return start + b'"hash":"' + digest.encode() + b'",' + end + b"\n"


def _format_time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encode_canonical(fields: dict[str, Any]) -> bytes:
    return _ENCODER.encode(fields).encode("utf-8", "surrogatepass")


@contextmanager
def _raising_log_error(failure: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = "in use by another process" if isinstance(error, Timeout) else error.strerror
        raise LogError(f"{failure}: {why}") from error
