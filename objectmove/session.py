"""One session at a time on a bucket: a claim that lapses by the store's time, and the fence.

Without conditional puts no shared lock object is safe. So each session puts a claim of its own, and
then lists the claims. A session that sees another live claim withdraws its own. Every change but
those of the claim itself, and of the probe's scratch objects, is signed with the store's own stamp
on the claim, and expires well before the claim can lapse. So a session that slept can change no
planned object when it wakes, if the store refuses expired requests.

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
"""A session that reads and changes who is held for a manifest claims this as its range of keys."""

_ID_BYTES = 16

Notice = Callable[[str], None]
"""Called with what is waited for, and for how long, in words."""


class Clock:
    """The machine's own clock. The caller may bring another ``now``, in UTC, and ``sleep``."""

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
    by, host : who carries out the plan, and on which machine
    lease_s : how long the claim is live after its last renewal, by the store's time
    manifest : the manifest whose shard the session works on; empty: it claims the whole bucket
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
        """Whether the claim is on a range of keys, and not on the whole bucket."""
        return bool(self.manifest) and "" < self.first <= self.last

    def is_beside(self, other: Claim) -> bool:
        """Tell whether both sessions may work at once: on disjoint ranges of one manifest."""
        if not self.has_range or not other.has_range or self.manifest != other.manifest:
            return False
        return self.last < other.first or other.last < self.first


class _OtherClaim(NamedTuple):
    """A live claim of another session, its key, and the store's time at which it was put."""

    key: str
    put_at: datetime
    claim: Claim


def read_store_id(bucket: S3Bucket) -> str:
    """Return this store's id; empty when it has none yet. Only reads.

    Raises
    ------
    StoreError
        When the id cannot be read, or is no id.
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
    """Return this store's id; write a new one where there is none.

    A plan names the id. If the bucket has another id later, or none, somebody removed the bucket's
    memory since the plan was made.

    Raises
    ------
    StoreError
        When the object cannot be read, or holds no id.
    """
    store_id = read_store_id(bucket)
    if store_id:
        return store_id
    new_id = secrets.token_hex(_ID_BYTES).encode()
    request = Request("put", STORE_ID, body=new_id, if_absent=True)
    bucket.send([request], signed_at=bucket.read_clock(), expires_s=expires_s)
    return read_store_id(bucket)


def list_live_claims(bucket: S3Bucket, *, lease_s: float, spread_s: float) -> list[Claim]:
    """Return the claims that have not lapsed. Only reads.

    Their sessions work on the bucket, or ended without withdrawing the claim: they were killed, or
    a change of theirs may still take effect.

    Parameters
    ----------
    lease_s : lease to assume for a claim that cannot be read
    spread_s : within how many seconds the store's machines agree on the time

    Raises
    ------
    StoreError
        When the claims cannot be listed.
    """
    now = bucket.read_clock()
    live = []
    for listed in bucket.list_objects(CLAIMS):
        claim = _read_claim(bucket, listed.key, lease_s=lease_s)
        if listed.last_modified + timedelta(seconds=claim.lease_s + spread_s) > now:
            live.append(claim)
    return live


def _read_claim(bucket: S3Bucket, key: str, *, lease_s: float) -> Claim:
    """Return a claim; a claim that cannot be read counts as somebody's, with this lease."""
    try:
        # A claim that was withdrawn meanwhile gets the defaults of ``Claim``.
        return Claim.model_validate_json(bucket.read(key) or "{}")
    except (ValueError, StoreError):
        return Claim(lease_s=lease_s)


class Session:
    """The only session on a bucket, or on a shard's range of keys; a context manager.

    Parameters
    ----------
    header : of the plan that the session carries out
    by : who carries it out; others can read this in the claim
    hold_of : the manifest whose hold the session reads and changes; empty: it moves objects

    Attributes
    ----------
    stamp : the store's time at which our claim was put or renewed last
    claim : what others can read of us
    is_lost : whether our claim may have lapsed, so that another session may have begun
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
        """Claim the bucket. Wait for claims of others to end or to lapse.

        Give up if another claim is renewed, or if others come again and again.

        Raises
        ------
        HeldError
            When someone else works in the bucket; the message says who.
        NotReadyError
            When the store does not show what was just written.
        """
        first_seen: dict[str, datetime] = {}
        began = self.clock.monotonic()
        other_claims = self._try_claim()
        while other_claims:
            longest_s = max(other.claim.lease_s for other in other_claims)
            # 30 s after all claims of the beginning must have lapsed, only new sessions can be in
            # the way.
            deadline = began + longest_s + self.timing.spread_s + 30
            for other in other_claims:
                claim = other.claim
                text = f"{claim.by} on {claim.host} carries out {claim.plan}"
                seen_at = first_seen.setdefault(other.key, other.put_at)
                is_renewed = seen_at < other.put_at
                if is_renewed or self.clock.monotonic() > deadline:
                    raise HeldError(f"{text}. Nothing was changed; try again when it has ended.")
                self.notice(f"{text}, or was killed: its claim lapses within {longest_s:g} s")
            # 0.5 to 1.5 s, at random: two sessions that withdraw at once must not do so for ever.
            self.clock.sleep(0.5 + int.from_bytes(os.urandom(1)) / 256)
            other_claims = self._try_claim()
        return self

    def __exit__(self, *_: object) -> None:
        """Withdraw the claim; let it lapse if a change of ours may still take effect."""
        if not self.has_uncertain_change:
            self._withdraw()

    @property
    def fence_at(self) -> datetime:
        """The store's time after which no request that is signed now can take effect."""
        return self.stamp + timedelta(seconds=self.timing.fence_s)

    @property
    def has_uncertain_change(self) -> bool:
        """Whether a change of ours has no certain answer, and its fence has not passed."""
        return self.stamp < self._uncertain_until

    def share_doubt(self, other: Session) -> None:
        """Keep our claim, too, while a change that the other session sent may still take effect."""
        self._uncertain_until = max(self._uncertain_until, other._uncertain_until)

    def renew(self) -> None:
        """Renew the claim if requests signed with its stamp have lost half of their validity.

        Raises
        ------
        StoppedError
            When the claim lapsed meanwhile, or may have: another session may have begun.
        """
        age_s = self.clock.monotonic() - self._stamped_at
        if self.is_lost or age_s > self.timing.expires_s / 2:
            self.confirm()

    def confirm(self) -> None:
        """Renew the claim now.

        Raises
        ------
        StoppedError
            When the claim lapsed meanwhile, or was not certainly renewed.
        """
        if self.is_lost:
            raise StoppedError("our claim had lapsed")
        self.is_lost = True  # until the store shows the renewed claim, whatever is raised before
        self._put_claim()
        renewed = self.bucket.look([self._key]).get(self._key)
        # A HEAD gives whole seconds: one second less than the lease is certainly in time.
        lapses = self.stamp + timedelta(seconds=self.timing.lease_s - 1)
        if renewed is None or renewed.last_modified >= lapses:
            why = "this machine slept, the store was slow, or someone removed it"
            raise StoppedError(f"our claim had lapsed: {why}")
        self.stamp = max(self.stamp, renewed.last_modified)
        self.is_lost = False

    def check_claim(self) -> None:
        """Make sure that our claim has not lapsed by the store's time: nobody else has begun.

        Raises
        ------
        StoppedError
            When the claim lapsed.
        StoreError
            When the store does not tell its time.
        """
        lapses = self.stamp + timedelta(seconds=self.timing.lease_s)
        if self.is_lost or self.bucket.read_clock() >= lapses:
            self.confirm()  # raises, since the claim lapsed

    def send(
        self,
        requests: Sequence[Request],
        on_answer: OnAnswer = lambda _index, _answer: None,
        *,
        counts: bool = True,
    ) -> list[Answer]:
        """Send requests, each once; send none when their signatures would have expired already.

        Parameters
        ----------
        counts : whether the claim must stay while the outcome of a request is not known
        """
        expires_s = self.timing.expires_s
        answers = [Answer("none", code="NotSent", message="our signature is too old")]
        answers *= len(requests)

        def take(index: int, answer: Answer) -> None:
            """Keep an answer; a refusal that came after the signature expired proves nothing."""
            is_late = self.clock.monotonic() - self._stamped_at >= expires_s
            if is_late and answer.effect == "none" and answer.code != "NotSent":
                # A proxy may have sent the request twice: then only the second one was refused.
                answer = replace(answer, effect="unknown")
            if is_late and answer.failed:
                # A bulk delete that refused some of its keys: the same holds for those keys.
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
        """Write or remove an object of ours; raise unless that was done for certain.

        Raises
        ------
        StoppedError
            When the request was refused, or nobody knows what became of it.
        """
        (answer,) = self.send([request])
        _must_be_done(request, answer)

    def wait_until(self, at: datetime, why: str) -> None:
        """Wait until the store's time is past ``at``, and keep the claim alive meanwhile."""
        while self.stamp < at:
            left_s = (at - self.stamp).total_seconds()
            self.notice(f"{why}: {left_s:.0f} s more")
            self.clock.sleep(max(0.2, min(left_s, self.timing.expires_s / 2)))
            self.confirm()

    def write_store_id(self, store_id: str) -> str:
        """Write the object that holds this store's id, and return the id.

        Parameters
        ----------
        store_id : empty: write a new id

        Raises
        ------
        StoppedError
            When it is not certain that the object was written.
        """
        store_id = store_id or secrets.token_hex(_ID_BYTES)
        self.change(Request("put", STORE_ID, body=store_id.encode()))
        return store_id

    def _try_claim(self) -> list[_OtherClaim]:
        """Put a claim, and return the live claims of others. If others have any, withdraw ours."""
        self._key = f"{CLAIMS}{secrets.token_hex(8)}"
        self._put_claim()
        claims = {listed.key: listed for listed in self.bucket.list_objects(CLAIMS)}
        if self._key not in claims:
            raise NotReadyError("the store does not list what was just written: no claim is safe")
        self.stamp = claims.pop(self._key).last_modified
        live = []
        for listed in claims.values():
            claim = _read_claim(self.bucket, listed.key, lease_s=self.timing.lease_s)
            lease = timedelta(seconds=claim.lease_s + self.timing.spread_s)
            is_live = listed.last_modified + lease > self.stamp
            if is_live and not self.claim.is_beside(claim):
                live.append(_OtherClaim(listed.key, listed.last_modified, claim))
        if live:
            self._withdraw()
        return live

    def _put_claim(self) -> None:
        """Put our claim, for the first time or to renew it."""
        body = self.claim.model_dump_json().encode()
        put = Request("put", self._key, body=body)
        answer = self._send_about_claim(put)
        _must_be_done(put, answer)

    def _withdraw(self) -> None:
        """Remove our claim."""
        with suppress(StoreError):  # a claim that stays lapses
            self._send_about_claim(Request("delete", self._key))

    def _send_about_claim(self, request: Request) -> Answer:
        """Send a request about our claim, signed with the store's time.

        If the request takes effect late, others only wait longer. Also notes, by our own clock,
        when it was sent: the validity of all requests until the next renewal counts from then.
        """
        date = self.bucket.read_clock()
        self._stamped_at = self.clock.monotonic()
        expires_s = self.timing.expires_s
        (answer,) = self.bucket.send([request], signed_at=date, expires_s=expires_s)
        return answer


def _must_be_done(request: Request, answer: Answer) -> None:
    """Raise ``StoppedError`` unless an answer says that its request was done."""
    if answer.effect == "done":
        return
    request_name = f"the {request.kind} of {request.key}"
    why = f"{answer.code} {answer.message}"
    if answer.effect == "none":
        raise StoppedError(f"{request_name} was not carried out ({why})")
    raise StoppedError(f"nobody knows what became of {request_name} ({why})")
