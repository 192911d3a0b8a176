"""Find out what a store guards against: try requests on scratch objects.

For each guard, two requests are tried: one that the store must refuse, and one that it must allow.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta

from .bucket import REFUSED, Answer, Request, S3Bucket
from .errors import NotReadyError, StoreError
from .plan import Abilities

PROBE = ".runbook/probe/"
SCRATCH_NAME = ".runbook-probe-"
#: The scratch objects, and what each is for.
#: a: the source of all copies.
#: b: must survive expired deletes, then a copy onto it.
#: c: must survive an expired delete, then a put.
#: d: must survive a delete that names another ETag. e: is deleted by its own ETag.
#: f, g: are deleted without a condition.
#: p, q: must not be made by an expired put and an expired copy.
#: r: must not be made by a copy that names another version of a.
#: s: is made by a plain copy.
#: t, u: are made by a put and a copy on condition that nothing is there.
_LETTERS = "abcdefgpqrstu"
_PUT_FIRST = "abcdefg"
#: Codes of a store that refuses a request because the request comes too late.
_REFUSED_LATE = {"AccessDenied", "RequestTimeTooSkewed", "ExpiredToken", "RequestExpired"}
#: An ETag that no object has.
_WRONG = "0" * 32
#: Codes of a store that refuses a request because its condition is not met.
_UNMET = {"PreconditionFailed", "ConditionalRequestConflict"}


def check_right_to_delete(bucket: S3Bucket, prefix: str, *, expires_s: int) -> None:
    """Refuse when the store says that nothing may be deleted under a prefix.

    Raises
    ------
    NotReadyError
        When the store refuses the delete of a random absent key.

    Notes
    -----
    Changes nothing: there is no such key. A bucket that keeps versions may keep a delete marker.
    """
    key = f"{prefix}{SCRATCH_NAME}{secrets.token_hex(8)}"
    now = bucket.read_clock()
    (answer,) = bucket.send([Request("delete", key)], signed_at=now, expires_s=expires_s)
    if answer.effect == "none" and answer.code in REFUSED:
        raise NotReadyError(
            f"these credentials may not delete under {prefix} ({answer.code} {answer.message}): "
            "nothing would be moved, only copied. Give them that right, or set MINIO_CHANGE_USER."
        )


def probe(bucket: S3Bucket, *, expires_s: int = 20, parked: str = "parked/") -> Abilities:
    """Try every kind of request that a move sends: valid, expired, and with unmet conditions.

    Parameters
    ----------
    expires_s : how long the requests of a move are valid, in seconds
    parked : the prefix under which objects are parked: the right to write there is tried, too

    Raises
    ------
    NotReadyError
        When a plain valid request does not work. When the store copies another version than the
        one that is named. When the scratch objects cannot be removed.

    Notes
    -----
    Changes scratch objects under ``.runbook/probe/`` and one under ``parked``, and removes them.
    The one under ``parked`` stays if nothing may be deleted there.
    """
    scratch = _Scratch(bucket, expires_s)
    marks_absence = _finds_mark(bucket, scratch.root)
    try:
        puts = [scratch.put(letter) for letter in _PUT_FIRST]
        put_answers = scratch.send_required(*puts)
        etags = {}
        for letter, answer in zip(_PUT_FIRST, put_answers, strict=True):
            etags[letter] = answer.etag
        late_answers = scratch.send(
            scratch.put("p"),
            scratch.copy("q", etags["a"]),
            scratch.delete("b"),
            scratch.delete_many("bc"),
            is_late=True,
        )
        # All at once: none of these requests changes what another one reads or changes.
        put_over, copied_over, deleted_other, copied_other = scratch.send(
            scratch.put("c", if_absent=True),
            scratch.copy("b", etags["a"], if_absent=True),
            scratch.delete("d", if_match=_WRONG),
            scratch.copy("r", _WRONG),
        )
        plain_copy, *_ = scratch.send_required(
            scratch.copy("s", etags["a"]),
            scratch.delete_many("f"),
            scratch.delete("g"),
        )
        put_new, copied_new, deleted_own = scratch.send(
            scratch.put("t", if_absent=True),
            scratch.copy("u", etags["a"], if_absent=True),
            scratch.delete("e", if_match=etags["e"]),
        )
        etags_after = scratch.look(marks_absence=marks_absence)
    finally:
        scratch.remove()
    if copied_other.effect == "done" or "r" in etags_after:
        raise NotReadyError("the store copies an object that is not the one that was named")
    md5 = hashlib.md5(b"a", usedforsecurity=False).hexdigest()
    refuses_late = _list_codes(late_answers) <= _REFUSED_LATE
    has_kept = etags_after.keys() >= set("bcs")
    has_no_other = etags_after.keys().isdisjoint("fgpq")
    honours_put = _is_honoured(put_over, put_new)
    honours_copy = _is_honoured(copied_over, copied_new)
    honours_delete = _is_honoured(deleted_other, deleted_own)
    is_b_kept = etags_after.get("b") == etags["b"]
    return Abilities(
        fence=refuses_late and has_kept and has_no_other,
        conditional_put=honours_put and "t" in etags_after,
        conditional_copy=honours_copy and "u" in etags_after and is_b_kept,
        conditional_delete=honours_delete and "d" in etags_after and "e" not in etags_after,
        parking=_can_park(bucket, parked, expires_s),
        hash_etags=etags["a"] == md5 and plain_copy.etag == md5,
        marks_absence=marks_absence,
        versions=put_answers[0].version_id not in ("", "null"),
    )


class _Scratch:
    """The scratch objects of one probe, each named by a letter, and requests about them."""

    def __init__(self, bucket: S3Bucket, expires_s: int) -> None:
        self.root = f"{PROBE}{secrets.token_hex(8)}-"
        self._bucket = bucket
        self._expires_s = expires_s
        self._now = bucket.read_clock()

    def put(self, letter: str, *, if_absent: bool = False) -> Request:
        """Return a request that puts a scratch object, with its letter as content."""
        return Request("put", self.root + letter, body=letter.encode(), if_absent=if_absent)

    def copy(self, to: str, etag: str, *, if_absent: bool = False) -> Request:
        """Return a request that copies the object ``a`` if ``a`` has this ETag."""
        return Request(
            "copy",
            self.root + to,
            source=f"{self.root}a",
            if_match=etag,
            if_absent=if_absent,
        )

    def delete(self, letter: str, *, if_match: str = "") -> Request:
        """Return a request that deletes one scratch object."""
        return Request("delete", self.root + letter, if_match=if_match)

    def delete_many(self, letters: str) -> Request:
        """Return a request that deletes several scratch objects."""
        keys = [self.root + letter for letter in letters]
        return Request("delete_many", keys=keys)

    def send(self, *requests: Request, is_late: bool = False) -> list[Answer]:
        """Send requests, several at a time.

        Parameters
        ----------
        is_late : sign the requests so that they have expired already
        """
        signed_at = self._now
        expires_s = self._expires_s
        if is_late:
            signed_at -= timedelta(minutes=10)
            expires_s = 1
        return self._bucket.send(requests, signed_at=signed_at, expires_s=expires_s)

    def send_required(self, *requests: Request) -> list[Answer]:
        """Send plain valid requests.

        Raises
        ------
        NotReadyError
            When one of them is not certainly done.
        """
        answers = self.send(*requests)
        for request, answer in zip(requests, answers, strict=True):
            if answer.effect != "done" or answer.failed:
                why = f"{answer.code} {answer.message} {dict(answer.failed) or ''}".strip()
                raise NotReadyError(f"the store does not {request.kind} a scratch object: {why}")
        return answers

    def look(self, *, marks_absence: bool) -> dict[str, str]:
        """Return the letters of the scratch objects that are there, with the ETag of each."""
        keys = [self.root + letter for letter in _LETTERS]
        looks = self._bucket.look(keys, marks_absence=marks_absence)
        if len(looks) != len(keys):
            raise NotReadyError("the store does not show its own scratch objects")
        etags = {}
        for key, seen in looks.items():
            if seen is not None:
                letter = key.removeprefix(self.root)
                etags[letter] = seen.etag
        return etags

    def remove(self) -> None:
        """Remove the scratch objects that are left."""
        for _ in range(3):
            left = [seen.key for seen in self._bucket.list_objects(self.root)]
            if not left:
                return
            requests = [Request("delete", key) for key in left]
            self.send(*requests)
        raise NotReadyError(f"scratch objects under {self.root} cannot be removed")


def _is_honoured(unmet: Answer, met: Answer) -> bool:
    """Tell whether a store honours a condition.

    Parameters
    ----------
    unmet, met : the answers to a request whose condition is not met, and to one whose condition is
        met
    """
    return unmet.code in _UNMET and met.effect == "done"


def _list_codes(answers: Sequence[Answer]) -> set[str]:
    """Return the error codes of answers; of a bulk delete, the codes of its keys that failed."""
    codes: set[str] = set()
    for answer in answers:
        if answer.failed:
            codes.update(answer.failed.values())
        else:
            codes.add(answer.code)
    return codes


def _finds_mark(bucket: S3Bucket, root: str) -> bool:
    """Tell whether the store's own 404 bears ``bucket.ABSENCE_MARK``."""
    try:
        return bucket.has_absence_mark(f"{root}absent")
    except StoreError as error:
        raise NotReadyError(f"the store does not say what is absent: {error}") from error


def _can_park(bucket: S3Bucket, parked: str, expires_s: int) -> bool:
    """Tell whether we may put and delete an object under the parking prefix."""
    key = f"{parked}{SCRATCH_NAME}{secrets.token_hex(8)}"
    now = bucket.read_clock()
    put = Request("put", key, body=b"a")
    delete = Request("delete", key)
    for request in (put, delete):
        (answer,) = bucket.send([request], signed_at=now, expires_s=expires_s)
        if answer.effect != "done":
            return False
    return True
