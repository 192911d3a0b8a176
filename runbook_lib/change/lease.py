"""A lease in the bucket, so that two operators cannot apply overlapping plans at once."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Self

from ..clients.object_store import ObjectStore
from ..errors import (
    BadAnswerError,
    ClientError,
    LeaseHeldError,
    NotFoundError,
    PreconditionFailedError,
)
from ..model import Json, format_time, parse_time
from ..record.log import utc_now

__all__ = ["LEASE_KEY", "Lease"]

LEASE_KEY = ".runbook/lease.json"
_TRIES = 5
_MAX_BYTES = 1024 * 1024


class Lease:
    """Hold some prefixes of a bucket; a context manager.

    Parameters
    ----------
    plan_id, by : who holds it, for the one who is refused
    prefixes : what it covers; two leases clash when a prefix of one begins with one of the other
    ttl_s : after that it lapses, unless it was renewed

    Notes
    -----
    Changes ``.runbook/lease.json``. Atomic where the store has conditional puts; elsewhere it
    writes, and reads back whether it stands. A lease of the same plan whose process on this host
    is dead, or is this one, does not count, so that a run that was cut off can be resumed at once:
    the ledger's lock keeps two runs of a plan on one host apart.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        plan_id: str,
        by: str,
        prefixes: tuple[str, ...],
        ttl_s: float = 60,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._now = now
        self._ttl = timedelta(seconds=ttl_s)
        self._nonce = secrets.token_hex(8)
        self._expires_at = now()
        self._entry: dict[str, Json] = {
            "nonce": self._nonce,
            "plan": plan_id,
            "by": by,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "prefixes": list(prefixes),
        }

    def __enter__(self) -> Self:
        """Take the lease.

        Raises
        ------
        LeaseHeldError
            When someone holds one that overlaps; names who, and until when.
        """
        self._write(keep=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back, if it is still ours; where the store does not answer, it lapses."""
        with suppress(ClientError):
            self._write(keep=False)

    def renew(self) -> None:
        """Prolong it when half its time is over.

        Raises
        ------
        LeaseHeldError
            When it lapsed and someone else took it: stop.
        """
        if self._now() >= self._expires_at - self._ttl / 2:
            self._write(keep=True)

    def _write(self, *, keep: bool) -> None:
        for _ in range(_TRIES):
            etag, entries = self._read()
            now = self._now()
            others = [e for e in entries if e["nonce"] != self._nonce and not self._lapsed(e, now)]
            mine: list[dict[str, Json]] = []
            if keep:
                self._refuse_overlap(others)
                expires_at = now + self._ttl
                mine = [{**self._entry, "expires_at": format_time(expires_at)}]
                self._expires_at = expires_at
            elif len(others) == len(entries):
                return
            content = json.dumps({"leases": others + mine}, sort_keys=True).encode()
            try:
                self._store.put_object(
                    LEASE_KEY,
                    content,
                    content_type="application/json",
                    if_absent=not etag,
                    if_match=etag,
                )
            except PreconditionFailedError:
                continue
            if self._read()[1] == others + mine or not keep:
                return
        raise LeaseHeldError("the lease changes hands too quickly; try again in a minute")

    def _read(self) -> tuple[str, list[dict[str, Json]]]:
        try:
            etag = self._store.read_info(LEASE_KEY).etag
            content = self._store.read_bytes(LEASE_KEY, max_bytes=_MAX_BYTES)
        except NotFoundError:
            return "", []
        try:
            entries = json.loads(content)["leases"]
            return etag, [e for e in entries if e["nonce"] and parse_time(e["expires_at"])]
        except (ValueError, KeyError, TypeError) as error:
            raise BadAnswerError(
                f"{LEASE_KEY} is not a lease ({error!r}). Look who wrote it, then delete it.",
                system="object store",
            ) from error

    def _lapsed(self, entry: dict[str, Json], now: datetime) -> bool:
        same = all(entry.get(name) == self._entry[name] for name in ("plan", "host"))
        return parse_time(entry["expires_at"]) <= now or (same and not _is_alive(entry["pid"]))

    def _refuse_overlap(self, others: list[dict[str, Json]]) -> None:
        for other in others:
            for theirs in other["prefixes"]:
                for ours in self._entry["prefixes"]:
                    if ours.startswith(theirs) or theirs.startswith(ours):
                        raise LeaseHeldError(
                            f"{other['by']} is applying {other['plan']} on {other['host']} "
                            f"({theirs}); the lease lapses at {other['expires_at']} unless it is "
                            "renewed. Nothing was changed."
                        )


def _is_alive(pid: int) -> bool:
    """Tell whether another process has the number."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
