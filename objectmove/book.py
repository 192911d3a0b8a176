"""The lock is the state: one run at a time writes a state object, and each save renews the lock.

A save names the ETag of the save before it as its condition. If the store has no conditional put,
the lock is a claim: a run puts a claim, lists all claims, and withdraws its own if another is live.
Every other change expires before the lock can lapse. So a process that slept changes nothing when
it wakes, and no request of a dead run can take effect once another run takes its lapsed lock.
"""

import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Self

from .bucket import UNMET, Answer, Request, S3Bucket, parse_time
from .errors import BusyError, StoppedError, StoreError
from .plan import Timing
from .state import (
    NEWER,
    STATE,
    BucketState,
    Lock,
    check_old_releases,
    find_lock,
    get_part_key,
    read_state,
)

CLAIMS = ".runbook/claims/"
#: How often to send a conditional save without a clear answer.
_TRIES = 3
_FORMAT: Literal["objectmove/state/1"] = "objectmove/state/1"
_NEVER = datetime.min.replace(tzinfo=UTC)

Patience = Literal["none", "short", "long"]
Notice = Callable[[str], None]
"""Called with a text that says what the run waits for, and for how long."""


class Clock(NamedTuple):
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic


OWN_CLOCK = Clock()


@dataclass
class Book:
    """A state object that this run has locked.

    ``patience``: wait for the lock of a run that works (``long``), only for that of a run that may
    have died (``short``), or not at all (``none``).
    """

    bucket: S3Bucket
    timing: Timing
    clock: Clock
    notice: Notice
    _: KW_ONLY
    plan: str
    by: str
    is_conditional: bool
    part: int = 0  # 0 for the bucket's state
    patience: Patience = "short"

    def __post_init__(self) -> None:
        self.key = get_part_key(self.plan, self.part) if self.part else STATE
        self.state = BucketState("", _FORMAT)  # as it will be after the next save
        self.stamp = _NEVER  # the store's time of the last save, or a little less
        self.is_lost = False  # whether somebody else may have the lock
        self.size_bytes = 0
        token = secrets.token_hex(8)
        self._lock = Lock(token, self.plan, self.by, socket.gethostname(), self.timing.lease_s)
        self._claim = f"{CLAIMS}{self.key}/{token}"
        self._etag = ""
        self._stamped_at = 0.0
        self._unknown_until = _NEVER

    def __enter__(self) -> Self:
        """Take the lock; wait for the lock of a run that may have died.

        Raises BusyError when another run works, and StoreError when the state can't be read or
        written.
        """
        counts = set[int]()
        began = self.clock.monotonic()
        while True:
            other, count = self._try()
            if other is None:
                return self
            who = f"{other.by} on {other.host} carries out {other.plan}"
            lapse_s = other.lease_s + self.timing.spread_s
            text = f"{who}, or was killed: then its lock lapses within {lapse_s:g} s"
            counts.add(count)
            is_over = self.patience == "none" or self.clock.monotonic() > began + lapse_s + 30
            # A killed run's last save may land late, but not two.
            if is_over or (len(counts) > 2 and self.patience == "short"):
                raise BusyError(f"{text}. Try again")
            self.notice(text)
            # Wait at random, or two runs that withdraw at once could do so forever.
            self.clock.sleep(0.5 + int.from_bytes(os.urandom(1)) / 256)

    def __exit__(self, *_: object) -> None:
        """Give the lock back, or let it lapse if a change of ours may still take effect."""
        if not (self.is_lost or self.has_unknown_change):
            with suppress(StoreError, StoppedError):
                self.state.lock = None
                self.save()
                self._withdraw()
        self.is_lost = True

    @property
    def has_unknown_change(self) -> bool:
        """Whether a change of ours has no certain answer, and may still take effect."""
        return self.stamp < self._unknown_until

    def _try(self) -> tuple[Lock | None, int]:
        """Take the lock and return None, else another run's lock; and the count of saves."""
        self._read_clock()
        rival = None if self.is_conditional else self._put_claim()
        read = read_state(self.bucket, self.key)
        other = rival or find_lock(read, self.timing.spread_s)
        if other == self._lock:
            other = None
        is_new = read is None and self.key == STATE
        if is_new:
            check_old_releases(self.bucket)
        if other is None:
            self.state = read.state if read else BucketState(secrets.token_hex(16), _FORMAT)
            self.state.lock = self._lock
            self._etag = read.seen.etag if read else ""
            if self._save():
                if is_new:
                    self._keep_old_out()
                return None, 0
        self._withdraw()
        return other or self._lock, read.state.count if read else -1

    def _keep_old_out(self) -> None:
        """Put the object that makes version 0.1 refuse this bucket.

        If version 0.1 has a release in it meanwhile, remove the state that we just put, and raise.
        """
        try:
            self.send([Request("put", NEWER, body=b"{}", if_absent=self.is_conditional)])
            check_old_releases(self.bucket)
        except BaseException:
            self.send([Request("delete", self.key)])
            self.is_lost = True
            self._withdraw()
            raise

    def _read_clock(self) -> None:
        """Date our next requests by the store's clock."""
        self._stamped_at = self.clock.monotonic()
        self.stamp = self.bucket.read_clock()

    def _put_claim(self) -> Lock | None:
        """Put a claim; return the lock in another run's live claim, or None."""
        body = BucketState("", _FORMAT, lock=self._lock).encode()
        (answer,) = self.send([Request("put", self._claim, body=body)])
        if answer.effect != "done":
            raise StoppedError(f"the lock could not be taken ({answer.code} {answer.message})")
        for listed in self.bucket.list_objects(self._claim.removesuffix(self._lock.token)):
            if listed.key == self._claim:
                continue
            other = find_lock(read_state(self.bucket, listed.key), self.timing.spread_s)
            if other is not None:
                return other
            self.send([Request("delete", listed.key)])
        return None

    def _withdraw(self) -> None:
        """Remove our claim; if that fails, it lapses."""
        if not self.is_conditional:
            self.send([Request("delete", self._claim)])

    def renew(self) -> None:
        """Save if half of the validity of our requests has passed."""
        if self.clock.monotonic() - self._stamped_at > self.timing.expires_s / 2:
            self.save()

    def save(self) -> None:
        """Write the state, which renews the lock.

        Raises StoppedError when the lock was lost or may have been, and StoreError when the store
        refuses.
        """
        was_lost = self.is_lost
        self.is_lost = True  # until it is certain that we wrote, whatever is raised before
        if was_lost or not self._save():
            why = "this machine slept, the store was slow, or somebody removed .runbook/"
            raise StoppedError(f"our lock lapsed: {why}")
        self.is_lost = False

    def _save(self) -> bool:
        """Write the state unless another run did; return whether ours was surely written.

        Only a conditional save may be sent again, because a second one changes nothing.
        """
        self.state.count += 1
        body = self.state.encode()
        self.size_bytes = len(body)
        for _ in range(_TRIES if self.is_conditional else 1):
            answer = self._put(body)
            if answer.effect == "done":
                return True
            with suppress(StoreError):
                if self._read_back():
                    return True
                self._read_clock()  # our signature may have been too old
            if answer.code in UNMET:
                return False
            if not self.is_conditional and answer.effect == "unknown":
                # It may still take effect. Our claim stays, and keeps others out until then.
                raise StoppedError(f"{self.key}: {answer.message}. Try again")
        return False

    def _put(self, body: bytes) -> Answer:
        """Send the state once. A conditional save is dated now, any other like every change."""
        sent_at = self.clock.monotonic()
        put = Request("put", self.key, body=body)
        if self.is_conditional:
            put = put._replace(if_match=self._etag, if_absent=not self._etag)
            date = self.stamp + timedelta(seconds=sent_at - self._stamped_at)
            (answer,) = self.bucket.send([put], signed_at=date, expires_s=self.timing.expires_s)
        else:
            (answer,) = self.send([put])
        if answer.effect == "done":
            elapsed = timedelta(seconds=self.clock.monotonic() - sent_at)
            self._note_saved(answer.etag, parse_time(answer.date) - elapsed, sent_at)
        return answer

    def _read_back(self) -> bool:
        """Return whether the bucket has the state that we sent."""
        sent_at = self.clock.monotonic()
        read = read_state(self.bucket, self.key)
        ours = (self.state.lock, self.state.count)
        if read is None or (read.state.lock, read.state.count) != ours:
            return False
        self._note_saved(read.seen.etag, read.seen.last_modified, sent_at)
        return True

    def _note_saved(self, etag: str, stamp: datetime, sent_at: float) -> None:
        self._etag = etag
        self.stamp = max(stamp, self.stamp)  # a Date has whole seconds: an estimate can go back
        self._stamped_at = sent_at

    def send(
        self,
        requests: Sequence[Request],
        on_answer: Callable[[int, Answer], object] = lambda _index, _answer: None,
    ) -> list[Answer]:
        """Send changes, each once, dated so that none takes effect once the lock can lapse."""
        expires_s = self.timing.expires_s

        def take(index: int, answer: Answer) -> Answer:
            # A refusal that came after the signature expired proves nothing.
            is_late = self.clock.monotonic() - self._stamped_at >= expires_s - 1
            is_refusal = (answer.effect == "none" and answer.code != "NotSent") or answer.failed
            if is_late and is_refusal:
                answer = answer._replace(effect="unknown")
            if answer.effect == "unknown":
                fence_at = self.stamp + timedelta(seconds=self.timing.fence_s)
                self._unknown_until = max(self._unknown_until, fence_at)
            on_answer(index, answer)
            return answer

        return self.bucket.send(requests, signed_at=self.stamp, expires_s=expires_s, on_answer=take)

    def wait(self, why: str) -> None:
        """Wait until none of our changes may still take effect, and keep the lock meanwhile."""
        while self.has_unknown_change:
            left_s = (self._unknown_until - self.stamp).total_seconds()
            self.notice(f"{why}: {left_s:.0f} s more")
            self.clock.sleep(max(0.2, min(left_s, self.timing.expires_s / 2)))
            self.save()
