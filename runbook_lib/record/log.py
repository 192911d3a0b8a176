"""The only writer that appends, fsyncs, chains and locks. Journal and ledger both use it.

A log is a text file of JSON lines. Each line holds ``seq``, ``at``, ``kind``, ``data``, ``prev``
(the hash of the line before) and ``hash`` (SHA-256 of the line without ``hash``). The chain shows
accidents and edits; it does not stop a forger who rewrites every line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import LogDamagedError, RecordError
from ..model import Json, format_time, parse_time
from ..redact import Redactor

__all__ = ["GENESIS", "ChainedLog", "Entry", "read_entries", "utc_now"]

GENESIS = "0" * 64
_LOCK_TIMEOUT_S = 10.0


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a log."""

    seq: int
    at: datetime
    kind: str
    data: dict[str, Json]
    prev: str
    hash: str


def _canonical(record: dict[str, Json]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _encode(record: dict[str, Json]) -> tuple[str, str]:
    digest = hashlib.sha256(_canonical(record).encode("utf-8", "surrogatepass")).hexdigest()
    return digest, _canonical({**record, "hash": digest})


def _parse(path: Path, number: int, line: bytes, prev: str) -> Entry:
    try:
        record = json.loads(line)
        digest = record.pop("hash")
        entry = Entry(
            seq=record["seq"],
            at=parse_time(record["at"]),
            kind=record["kind"],
            data=record["data"],
            prev=record["prev"],
            hash=digest,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LogDamagedError(str(path), number, "not a log line") from error
    if entry.seq != number:
        raise LogDamagedError(str(path), number, f"has sequence number {entry.seq}")
    if entry.prev != prev:
        raise LogDamagedError(str(path), number, "does not follow the line before it")
    if _encode(record)[0] != digest:
        raise LogDamagedError(str(path), number, "was altered after it was written")
    return entry


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of a log, checking the chain; a torn last line is left out.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    RecordError
        When it cannot be read.
    LogDamagedError
        At the first altered or missing line.
    """
    prev = GENESIS
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                entry = _parse(path, number, line, prev)
                prev = entry.hash
                yield entry
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error


class ChainedLog:
    """Append to one log file, safely from several processes.

    Parameters
    ----------
    path : the file; made with the first entry
    redactor : every string passes through it before it is written
    clock : returns the current time, aware

    Notes
    -----
    Appending changes the file only: one lock, one write, one fsync, however many entries. A torn
    last line (the writer died in the middle) is moved to ``<name>.torn-<n>`` and an entry
    ``torn_tail`` says so. When the disk is full the file is cut back to what it was.
    """

    def __init__(
        self, path: Path, *, redactor: Redactor, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.path = path
        self._redactor = redactor
        self._clock = clock
        self._lock = FileLock(f"{path}.lock", timeout=_LOCK_TIMEOUT_S)
        self._known_size = -1
        self._seq, self._head = 0, GENESIS

    def append(self, kind: str, data: dict[str, Json]) -> Entry:
        """Append one entry and return it."""
        return self.append_many([(kind, data)])[0]

    def append_many(self, items: Iterable[tuple[str, dict[str, Json]]]) -> list[Entry]:
        """Append entries with one write and one fsync.

        Raises
        ------
        RecordError
            When the file cannot be locked or written; nothing was appended then.
        LogDamagedError
            When the file is damaged before its last line.
        """
        items = list(items)
        if not items:
            return []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock:
                torn = self._catch_up()
                if torn is not None:
                    self._write([("torn_tail", {"kept_as": torn})])
                return self._write(items)
        except Timeout as error:
            raise RecordError(
                f"{self.path} is locked by another process for over {_LOCK_TIMEOUT_S:.0f} s"
            ) from error
        except OSError as error:
            raise RecordError(
                f"cannot write {self.path}: {error.strerror}. Nothing was appended."
            ) from error

    def read(self) -> list[Entry]:
        """Return every complete entry; an absent file has none.

        Raises
        ------
        LogDamagedError
            At the first altered or missing line.
        """
        return list(read_entries(self.path)) if self.path.exists() else []

    def _catch_up(self) -> str | None:
        """Learn what others appended; move a torn tail aside and return its file's name."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size == self._known_size:
            return None
        self._seq, self._head, good = 0, GENESIS, 0
        if size:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        break
                    entry = _parse(self.path, number, line, self._head)
                    self._seq, self._head, good = entry.seq, entry.hash, good + len(line)
        self._known_size = good
        return self._move_torn_tail(good) if good < size else None

    def _move_torn_tail(self, good: int) -> str:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.torn-{number}")).exists():
            number += 1
        with self.path.open("r+b") as file:
            file.seek(good)
            aside.write_bytes(file.read())
            file.truncate(good)
            os.fsync(file.fileno())
        return aside.name

    def _write(self, items: Iterable[tuple[str, dict[str, Json]]]) -> list[Entry]:
        at = self._clock()
        seq, head, entries, lines = self._seq, self._head, [], []
        for kind, data in items:
            seq += 1
            safe = self._redactor.json(data)
            record = {"seq": seq, "at": format_time(at), "kind": kind, "data": safe, "prev": head}
            prev, (head, line) = head, _encode(record)
            lines.append(line)
            entries.append(Entry(seq, at, kind, safe, prev, head))
        blob = ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
        is_new = not self.path.exists()
        with self.path.open("ab", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            try:
                written = 0
                while written < len(blob):
                    written += file.write(blob[written:])
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)
                raise
        if is_new:
            _fsync_folder(self.path.parent)
        self._seq, self._head, self._known_size = seq, head, start + len(blob)
        return entries


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
