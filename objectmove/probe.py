"""Find out what a store honours: try requests on scratch objects.

For each condition, a request is tried that the store must refuse, and one that it must carry out.
Every request that must succeed bears conditions that are met, so that a bucket whose policy demands
conditions can be probed, too.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from .bucket import REFUSED, UNMET, Answer, Request, S3Bucket
from .errors import NotReadyError, StoreError
from .plan import Abilities, Timing

PROBE = ".runbook/probe/"
SCRATCH_NAME = ".runbook-probe-"
#: The scratch objects that are put first.
#: a: the source of copies. b, c: must survive expired requests, and what is written onto them.
#: d, h: must survive deletes that name another ETag. e, f, g: are deleted by their own ETag.
#: i, l: must survive renames whose conditions are not met; o is the taken destination of one.
#: m: is renamed to n. k: must survive a put that names another ETag, and is then written anew.
#: Later ones: p, q must not be made by expired requests, r, j by unmet ones; s is a copy.
_PUT_FIRST = "abcdefghiklmo"
_LETTERS = _PUT_FIRST + "jnpqrs"
#: Codes of a store that refuses a request because the request comes too late.
_REFUSED_LATE = {"AccessDenied", "RequestTimeTooSkewed", "ExpiredToken", "RequestExpired"}
#: An ETag that no object has.
_WRONG = "0" * 32


def check_right_to_delete(bucket: S3Bucket, prefix: str, timing: Timing) -> None:
    """Refuse when the store says that nothing may be deleted under a prefix.

    Raises
    ------
    NotReadyError
        When the store refuses the delete of a random absent key.

    Notes
    -----
    Changes nothing: there is no such key.
    """
    request = Request("delete", _name_scratch(prefix), if_match=_WRONG)
    answer = _send_now(bucket, timing, request)
    if answer.effect == "none" and answer.code in REFUSED:
        raise NotReadyError(
            f"these credentials may not delete under {prefix} ({answer.code} {answer.message}): "
            "nothing would be moved, only copied. Give them that right."
        )


def probe(bucket: S3Bucket, *, timing: Timing, parked: str) -> Abilities:
    """Try every kind of request that a move sends: valid, expired, and with unmet conditions.

    Parameters
    ----------
    timing : how long the requests of a move are valid, and how far clocks may differ
    parked : the prefix under which objects are parked: the right to write there is tried, too

    Raises
    ------
    NotReadyError
        When a valid request does not work, or an expired one does. When the store copies another
        version than the one that is named. When its Date and its LastModified differ by more than
        clocks may. When the scratch objects cannot be removed.
    StoreError
        When a request is not answered: what the store honours is not known then.

    Notes
    -----
    Changes scratch objects under ``.runbook/probe/`` and one under ``parked``, and removes them.
    """
    scratch = _Scratch(bucket, timing)
    try:
        return _try_all(scratch, _can_park(bucket, parked, timing))
    finally:
        scratch.remove()


def _try_all(scratch: _Scratch, has_parking: bool) -> Abilities:
    """Send all requests, and return what the answers and the objects show."""
    puts = [Request("put", letter, body=letter.encode(), if_absent=True) for letter in _PUT_FIRST]
    etags = dict(zip(_PUT_FIRST, [answer.etag for answer in scratch.require(*puts)], strict=True))
    a = etags["a"]
    late = scratch.send(
        Request("put", "p", body=b"p"),
        Request("copy", "q", source="a", if_match=a),
        Request("delete", "b", if_match=etags["b"]),
        Request("delete_many", keys={"b": etags["b"], "c": etags["c"]}),
        is_late=True,
    )
    # All at once: no two of these requests are about one object, for which they would wait.
    put_over, put_onto, copied_over, copied_other, deleted_other, *unmet = scratch.send(
        Request("put", "c", body=b"x", if_absent=True),
        Request("put", "k", body=b"x", if_match=_WRONG),
        Request("copy", "b", source="a", if_match=a, if_absent=True),
        Request("copy", "r", source="a", if_match=_WRONG, if_absent=True),
        Request("delete", "d", if_match=_WRONG),
        Request("delete_many", keys={"h": _WRONG}),
        Request("rename", "j", source="i", if_match=_WRONG, if_absent=True),
        Request("rename", "o", source="l", if_match=etags["l"], if_absent=True),
    )
    copied, *_ = scratch.require(
        Request("copy", "s", source="a", if_match=a, if_absent=True),
        Request("delete", "e", if_match=etags["e"]),
        Request("delete", "g", if_match=etags["g"]),
    )
    put_again, deleted_many, renamed = scratch.send(
        Request("put", "k", body=b"y", if_match=etags["k"]),
        Request("delete_many", keys={"f": etags["f"]}),
        Request("rename", "n", source="m", if_match=etags["m"], if_absent=True),
    )
    after = scratch.look()
    if copied_other.effect == "done" or "r" in after:
        raise NotReadyError("the store copies an object that is not the one that was named")
    has_kept = after.keys() >= set("bc") and after.keys().isdisjoint("pq")
    if not _list_codes(late) <= _REFUSED_LATE or not has_kept:
        raise NotReadyError(
            "the store accepts expired requests: a request of ours could take effect much later"
        )
    refuses_renames = {answer.code for answer in unmet[1:]} <= UNMET
    has_renamed = renamed.effect == "done" and after.get("n") == etags["m"] and "m" not in after
    return Abilities(
        conditional_put=put_over.code in UNMET
        and put_onto.code in UNMET
        and put_again.effect == "done"
        and after["c"] == etags["c"],
        conditional_copy=copied_over.code in UNMET and after["b"] == etags["b"],
        conditional_delete=deleted_other.code in UNMET and "d" in after,
        conditional_bulk="h" in after and deleted_many.effect == "done" and "f" not in after,
        rename=refuses_renames
        and has_renamed
        and after.keys() >= set("il")
        and after["o"] == etags["o"],
        parking=has_parking,
        hash_etags=a == copied.etag == hashlib.md5(b"a", usedforsecurity=False).hexdigest(),
    )


class _Scratch:
    """The scratch objects of one probe; requests name them by their letters."""

    def __init__(self, bucket: S3Bucket, timing: Timing) -> None:
        self._root = f"{PROBE}{secrets.token_hex(8)}-"
        self._bucket = bucket
        self._timing = timing
        self._began = bucket.read_clock()

    def send(self, *requests: Request, is_late: bool = False) -> list[Answer]:
        """Send requests, several at a time.

        Parameters
        ----------
        is_late : sign the requests so that they have expired already

        Raises
        ------
        StoreError
            When one of them is not answered.
        """
        signed_at = self._began
        expires_s = self._timing.expires_s
        if is_late:
            signed_at -= timedelta(minutes=10)
            expires_s = 1
        placed = [self._place(request) for request in requests]
        answers = self._bucket.send(placed, signed_at=signed_at, expires_s=expires_s)
        for request, answer in zip(requests, answers, strict=True):
            if answer.code in ("NoAnswer", "NotSent"):
                why = f"the {request.kind} of a scratch object: {answer.message}"
                raise StoreError(f"the store does not answer {why}. Try again.", code=answer.code)
        return answers

    def require(self, *requests: Request) -> list[Answer]:
        """Send valid requests.

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

    def look(self) -> dict[str, str]:
        """Return the letters of the scratch objects that are there, with the ETag of each."""
        looks = self._bucket.look([self._root + letter for letter in _LETTERS])
        if len(looks) != len(_LETTERS):
            raise NotReadyError("the store does not show its own scratch objects")
        now = self._bucket.read_clock()
        spread = timedelta(seconds=self._timing.spread_s + 1)
        etags = {}
        for key, seen in looks.items():
            if seen is None:
                continue
            etags[key.removeprefix(self._root)] = seen.etag
            if not self._began - spread <= seen.last_modified <= now + spread:
                raise NotReadyError("the store's Date and LastModified are not of one clock")
        return etags

    def remove(self) -> None:
        """Remove the scratch objects that are left."""
        for _ in range(3):
            left = list(self._bucket.list_objects(self._root))
            if not left:
                return
            requests = [Request("delete", seen.key, if_match=seen.etag) for seen in left]
            now = self._bucket.read_clock()
            self._bucket.send(requests, signed_at=now, expires_s=self._timing.expires_s)
        raise NotReadyError(f"scratch objects under {self._root} cannot be removed")

    def _place(self, request: Request) -> Request:
        """Return a request about whole keys in place of letters."""
        return replace(
            request,
            key=self._root + request.key if request.key else "",
            source=self._root + request.source if request.source else "",
            keys={self._root + key: etag for key, etag in request.keys.items()},
        )


def _list_codes(answers: Sequence[Answer]) -> set[str]:
    """Return the error codes of answers; of a bulk delete, the codes of its keys that failed."""
    codes: set[str] = set()
    for answer in answers:
        codes.update(answer.failed.values() or [answer.code])
    return codes


def _can_park(bucket: S3Bucket, parked: str, timing: Timing) -> bool:
    """Tell whether we may put and delete an object under the parking prefix."""
    key = _name_scratch(parked)
    put = _send_now(bucket, timing, Request("put", key, body=b"a", if_absent=True))
    if put.effect != "done":
        return False
    deleted = _send_now(bucket, timing, Request("delete", key, if_match=put.etag))
    return deleted.effect == "done"


def _name_scratch(prefix: str) -> str:
    """Return a key under a prefix that nobody else has."""
    return f"{prefix}{SCRATCH_NAME}{secrets.token_hex(8)}"


def _send_now(bucket: S3Bucket, timing: Timing, request: Request) -> Answer:
    """Send one request, signed with the store's time."""
    (answer,) = bucket.send([request], signed_at=bucket.read_clock(), expires_s=timing.expires_s)
    return answer
