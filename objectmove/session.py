"""One session at a time on a bucket: a claim that lapses by the store's time, and the fence.

Without conditional puts no shared lock object is safe, so each session puts a claim of its own and
then lists. A session that sees another live claim withdraws. Every change is signed with the
store's own stamp on the claim, and expires well before the claim can lapse: a session that slept
cannot change anything when it wakes, because the store refuses it.

Shards of one manifest may work side by side: their claims name the manifest and disjoint ranges of
keys. Any two other claims exclude each other.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Self

from pydantic import BaseModel, Field

from .bucket import Answer, OnAnswer, Request, S3Bucket
from .errors import HeldError, NotReadyError, StoppedError, StoreError
from .plan import PlanHeader

CLAIMS = ".runbook/claims/"
STORE_ID = ".runbook/id"
HOLD = ".runbook/hold"
"""The range of keys that a claim names while it reads and changes who is held for a manifest."""

_ID_BYTES = 16

Notice = Callable[[str], None]
"""Called with what is being waited for, in words."""


class Clock:
    """The machine's own clock; ``now``, in UTC, and ``sleep`` may come from the caller."""

    def __init__(
        self,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.now = now
        self.monotonic = time.monotonic
        self.sleep = sleep


class Claim(BaseModel):
    """What a session says of itself; the defaults stand for a claim that cannot be read.

    Attributes
    ----------
    manifest : whose shard it works on; empty where it claims the whole bucket
    first, last : the shard's range of keys, both ends included
    """

    plan: str = "something"
    by: str = "someone"
    host: str = "an unknown machine"
    lease_s: float = Field(60, gt=0, le=10**9)
    manifest: str = ""
    first: str = ""
    last: str = ""

    @property
    def has_range(self) -> bool:
        """Whether it claims a range of keys, and not the whole bucket."""
        return bool(self.manifest) and "" < self.first <= self.last

    def is_beside(self, other: Claim) -> bool:
        """Tell whether both may work at once: disjoint ranges of one manifest."""
        if not self.has_range or not other.has_range or self.manifest != other.manifest:
            return False
        return self.last < other.first or other.last < self.first


class _OtherClaim(NamedTuple):
    """A live claim of another session, and the store's time of it."""

    key: str
    put_at: datetime
    claim: Claim


def read_store_id(bucket: S3Bucket) -> str:
    """Return this store's id; empty when it has none yet. Only reads.

    Raises
    ------
    StoreError
        When it cannot be read.
    """
    content = bucket.read(STORE_ID)
    if content is None:
        return ""
    text = content.decode("ascii", "replace").strip()
    if re.fullmatch(f"[0-9a-f]{{{2 * _ID_BYTES}}}", text) is None:
        raise StoreError(
            f"{STORE_ID} is not an id: another program wrote it, or answered for the store"
        )
    return text


def ensure_store_id(bucket: S3Bucket, *, expires_s: int) -> str:
    """Return this store's id; write one where there is none.

    A plan names the id. Without an id, two plans would look alike: one made before the bucket had a
    memory, and one made before that memory was removed.

    Raises
    ------
    StoreError
        When it cannot be read.
    """
    store_id = read_store_id(bucket)
    if store_id:
        return store_id
    new_id = secrets.token_hex(_ID_BYTES).encode()
    request = Request("put", STORE_ID, body=new_id, if_absent=True)
    bucket.send([request], signed_at=bucket.read_clock(), expires_s=expires_s)
    return read_store_id(bucket)


def list_live_claims(bucket: S3Bucket, *, lease_s: float, spread_s: float) -> list[Claim]:
    """Return the claims of sessions that work on a bucket, or were killed just now. Only reads.

    Parameters
    ----------
    lease_s : of a claim that cannot be read
    spread_s : within how many seconds the store's machines agree on the time

    Raises
    ------
    StoreError
        When the claims cannot be listed.
    """
    now = bucket.read_clock()
    live = []
    for put in bucket.list_objects(CLAIMS):
        claim = _read_claim(bucket, put.key, lease_s=lease_s)
        if put.last_modified + timedelta(seconds=claim.lease_s + spread_s) > now:
            live.append(claim)
    return live


def _read_claim(bucket: S3Bucket, key: str, *, lease_s: float) -> Claim:
    """Return a claim; one that cannot be read counts as somebody's until its lease is over."""
    try:
        return Claim.model_validate_json(bucket.read(key) or "{}")
    except (ValueError, StoreError):
        return Claim(lease_s=lease_s)


class Session:
    """The only session on a bucket, or on a shard's range of keys; a context manager.

    Parameters
    ----------
    header, by : of the plan that it carries out, and who does; others can read both
    notice : told what is being waited for
    hold_of : the manifest whose hold it reads and changes; empty: it moves a plan's objects

    Attributes
    ----------
    stamp : the store's time of our claim
    claim : what others can read
    is_lost : the claim may be somebody else's by now: nothing more is sent
    """

    def __init__(
        self,
        bucket: S3Bucket,
        header: PlanHeader,
        by: str,
        clock: Clock,
        notice: Notice,
        *,
        hold_of: str = "",
    ) -> None:
        self.bucket = bucket
        self.clock = clock
        self.notice = notice
        self.timing = header.timing
        self.claim = Claim(
            plan=header.id,
            by=by,
            host=socket.gethostname(),
            lease_s=self.timing.lease_s,
            manifest=hold_of or header.manifest,
            first=HOLD if hold_of else header.first,
            last=HOLD if hold_of else header.last,
        )
        self.is_lost = False
        self.stamp = datetime.min.replace(tzinfo=UTC)
        self._key = ""
        self._stamped_at = 0.0
        self._uncertain_until = self.stamp

    def __enter__(self) -> Self:
        """Claim the bucket. Wait until another claim, which nobody renews, has lapsed.

        Raises
        ------
        HeldError
            When someone else works in the bucket: names who.
        NotReadyError
            When the store does not show what was just written.
        """
        first_seen: dict[str, datetime] = {}
        began = self.clock.monotonic()
        others = self._try_claim()
        while others:
            longest_s = max(other.claim.lease_s for other in others)
            deadline = began + longest_s + self.timing.spread_s + 30
            for other in others:
                claim = other.claim
                text = f"{claim.by} on {claim.host} carries out {claim.plan}"
                seen_at = first_seen.setdefault(other.key, other.put_at)
                is_renewed = seen_at < other.put_at
                if is_renewed or self.clock.monotonic() > deadline:
                    raise HeldError(f"{text}. Nothing was changed; try again when it has ended.")
                self.notice(f"{text}, or was killed: its claim lapses within {longest_s:g} s")
            self.clock.sleep(0.5 + int.from_bytes(os.urandom(1)) / 256)
            others = self._try_claim()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the claim back, unless something of ours may still take effect: then it lapses."""
        if not self.has_uncertain:
            self._withdraw()

    @property
    def fence_at(self) -> datetime:
        """The store's time after which nothing that is signed now can take effect."""
        return self.stamp + timedelta(seconds=self.timing.fence_s)

    @property
    def has_uncertain(self) -> bool:
        """Whether a change of ours has no certain answer, and its fence has not passed."""
        return self.stamp < self._uncertain_until

    def share_doubt(self, other: Session) -> None:
        """Keep the claim until what another session sent cannot take effect any more."""
        self._uncertain_until = max(self._uncertain_until, other._uncertain_until)

    def renew(self) -> None:
        """Renew the claim when half of the signatures' time is over.

        Raises
        ------
        StoppedError
            When it lapsed meanwhile: someone else may have begun.
        """
        age_s = self.clock.monotonic() - self._stamped_at
        if self.is_lost or age_s > self.timing.expires_s / 2:
            self.confirm()

    def confirm(self) -> None:
        """Renew the claim now.

        Raises
        ------
        StoppedError
            When it lapsed meanwhile.
        """
        if self.is_lost:
            raise StoppedError("our claim had lapsed")
        self.is_lost = True
        self._put_claim()
        seen = self.bucket.look([self._key]).get(self._key)
        lapses = self.stamp + timedelta(seconds=self.timing.lease_s - 1)
        if seen is None or seen.last_modified >= lapses:
            why = "this machine slept, the store was slow, or someone removed it"
            raise StoppedError(f"our claim had lapsed: {why}")
        self.stamp = max(self.stamp, seen.last_modified)
        self.is_lost = False

    def check_claim(self) -> None:
        """Make sure by the store's time that nobody else can have claimed the same until now.

        Raises
        ------
        StoppedError
            When it lapsed meanwhile.
        StoreError
            When the store does not tell its time.
        """
        lapses = self.stamp + timedelta(seconds=self.timing.lease_s)
        if self.is_lost or self.bucket.read_clock() >= lapses:
            self.confirm()

    def send(
        self,
        requests: Sequence[Request],
        on_answer: OnAnswer = lambda _index, _answer: None,
        *,
        counts: bool = True,
    ) -> list[Answer]:
        """Send requests that the store refuses once our claim is old.

        Parameters
        ----------
        counts : whether their outcome matters; if not, nobody waits for it
        """
        expires_s = self.timing.expires_s
        answers = [Answer("none", code="NotSent", message="our signature is too old")]
        answers *= len(requests)

        def take(index: int, answer: Answer) -> None:
            is_late = self.clock.monotonic() - self._stamped_at >= expires_s
            if is_late and answer.effect == "none" and answer.code != "NotSent":
                # A proxy may have sent it before: then only the repetition was refused.
                answer = replace(answer, effect="unknown")
            if is_late and answer.failed:
                answer = replace(answer, effect="unknown")
            if counts and answer.effect == "unknown":
                self._uncertain_until = max(self._uncertain_until, self.fence_at)
            answers[index] = answer
            on_answer(index, answer)

        if self.clock.monotonic() - self._stamped_at >= expires_s:
            for index, answer in enumerate(answers):
                on_answer(index, answer)
            return answers
        self.bucket.send(requests, signed_at=self.stamp, expires_s=expires_s, on_answer=take)
        return answers

    def change(self, request: Request) -> None:
        """Write or remove an object of ours, for certain.

        Raises
        ------
        StoppedError
            When it is not certain that it was done.
        """
        _must_be_done(request, self.send([request])[0])

    def wait_until(self, at: datetime, why: str) -> None:
        """Wait until the store's time is past ``at``; keeps the claim alive."""
        while self.stamp < at:
            left_s = (at - self.stamp).total_seconds()
            self.notice(f"{why}: {left_s:.0f} s more")
            self.clock.sleep(max(0.2, min(left_s, self.timing.expires_s / 2)))
            self.confirm()

    def write_store_id(self, store_id: str) -> str:
        """Write the object that holds this store's id; a new id when none is given.

        Raises
        ------
        StoppedError
            When it is not certain that it was written.
        """
        store_id = store_id or secrets.token_hex(_ID_BYTES)
        self.change(Request("put", STORE_ID, body=store_id.encode()))
        return store_id

    def _try_claim(self) -> list[_OtherClaim]:
        """Put a claim; return the live claims of others, after taking ours back."""
        self._key = f"{CLAIMS}{secrets.token_hex(8)}"
        self._put_claim()
        puts = {seen.key: seen for seen in self.bucket.list_objects(CLAIMS)}
        if self._key not in puts:
            raise NotReadyError("the store does not list what was just written: no claim is safe")
        self.stamp = puts.pop(self._key).last_modified
        live = []
        for put in puts.values():
            claim = _read_claim(self.bucket, put.key, lease_s=self.timing.lease_s)
            lease = timedelta(seconds=claim.lease_s + self.timing.spread_s)
            is_live = put.last_modified + lease > self.stamp
            if is_live and not self.claim.is_beside(claim):
                live.append(_OtherClaim(put.key, put.last_modified, claim))
        if live:
            self._withdraw()
        return live

    def _put_claim(self) -> None:
        put = Request("put", self._key, body=self.claim.model_dump_json().encode())
        _must_be_done(put, self._send_about_claim(put))

    def _withdraw(self) -> None:
        with suppress(StoreError):  # it lapses
            self._send_about_claim(Request("delete", self._key))

    def _send_about_claim(self, request: Request) -> Answer:
        """Sign it anew and send it: a late effect here only makes others wait."""
        date = self.bucket.read_clock()
        self._stamped_at = self.clock.monotonic()
        return self.bucket.send([request], signed_at=date, expires_s=self.timing.expires_s)[0]


def _must_be_done(request: Request, answer: Answer) -> None:
    if answer.effect == "done":
        return
    what = f"the {request.kind} of {request.key}"
    why = f"{answer.code} {answer.message}"
    if answer.effect == "none":
        raise StoppedError(f"{what} was not carried out ({why})")
    raise StoppedError(f"nobody knows what became of {what} ({why})")
