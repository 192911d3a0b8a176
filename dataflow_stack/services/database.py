"""SQLite for a service: one file, one connection, one writer at a time."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Params = Sequence[object] | Mapping[str, object]

__all__ = ["Database"]


class Database:
    """A SQLite file shared by a service's threads.

    Parameters
    ----------
    path
        The file; its folder is made when missing.
    schema
        ``CREATE … IF NOT EXISTS`` statements.
    """

    def __init__(self, path: Path, schema: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # Closed with the object at the latest: Python 3.13 warns of a connection left open.
        self._closer = weakref.finalize(self, self._connection.close)
        self._connection.row_factory = sqlite3.Row
        self._connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;")
        self._connection.executescript(schema)

    def query(self, sql: str, params: Params = ()) -> list[sqlite3.Row]:
        """Return the rows of a ``SELECT``."""
        with self._lock:
            return self._connection.execute(sql, params).fetchall()

    def execute(self, sql: str, params: Params = ()) -> int:
        """Change rows; return how many."""
        with self._lock:
            return self._connection.execute(sql, params).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the enclosed statements one change; an exception takes all of them back."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._closer()
