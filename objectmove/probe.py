"""Find out what a store honours: by the refused and the allowed case, on scratch objects."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from .bucket import REFUSED, Answer, Request, S3Bucket
from .errors import NotReadyError, StoreError
from .plan import Abilities

PROBE = ".runbook/probe/"
SCRATCH_NAME = ".runbook-probe-"
_LETTERS = "abcdefgpqrstu"
_REFUSED_LATE = {"AccessDenied", "RequestTimeTooSkewed", "ExpiredToken", "RequestExpired"}
_UNMET = {"PreconditionFailed", "ConditionalRequestConflict"}


def check_right_to_delete(bucket: S3Bucket, prefix: str, *, expires_s: int = 20) -> None:
    """Refuse when the store says that nothing may be deleted under a prefix.

    Raises
    ------
    NotReadyError
        When it refuses the delete of a random absent key.

    Notes
    -----
    Changes nothing: there is no such key.
    """
    key = f"{prefix}{SCRATCH_NAME}{secrets.token_hex(8)}"
    now = bucket.read_clock()
    (answer,) = bucket.send([Request("delete", key)], signed_at=now, expires_s=expires_s)
    if answer.effect == "none" and answer.code in REFUSED:
        raise NotReadyError(
            f"this key may not delete under {prefix} ({answer.code} {answer.message}): nothing "
            "would be moved, only copied. Give it that right, or set MINIO_CHANGE_USER."
        )


def probe(bucket: S3Bucket, *, expires_s: int = 20, parked: str = "parked/") -> Abilities:
    """Try every kind of request that a move sends, as it should work and as it should not.

    Parameters
    ----------
    parked : where objects are parked: the right to write there is tried, too

    Raises
    ------
    NotReadyError
        When a plain valid request does not work, or the scratch objects cannot be removed.

    Notes
    -----
    Changes scratch objects under ``.runbook/probe/`` and one under ``parked``, and removes them.
    """
    root = f"{PROBE}{secrets.token_hex(8)}-"
    now = bucket.read_clock()

    def send(*requests: Request, late: bool = False) -> list[Answer]:
        at = now - timedelta(minutes=10) if late else now
        return bucket.send(requests, signed_at=at, expires_s=1 if late else expires_s)

    def must(*requests: Request) -> list[Answer]:
        answers = send(*requests)
        for request, answer in zip(requests, answers, strict=True):
            if answer.effect != "done" or answer.failed:
                why = f"{answer.code} {answer.message} {dict(answer.failed) or ''}".strip()
                raise NotReadyError(f"the store does not {request.kind} a scratch object: {why}")
        return answers

    def put(letter: str, **condition: Any) -> Request:
        return Request("put", root + letter, body=letter.encode(), **condition)

    def copy(to: str, **condition: Any) -> Request:
        return Request("copy", root + to, root + "a", **{"if_match": etags[0], **condition})

    def delete(letter: str, **condition: Any) -> Request:
        return Request("delete", root + letter, **condition)

    def delete_many(letters: str) -> Request:
        return Request("delete_many", keys=[root + letter for letter in letters])

    absent = {"if_absent": True}
    wrong = {"if_match": "0" * 32}
    marks_absence = _finds_mark(bucket, root)
    try:
        put_answers = must(*map(put, "abcdefg"))
        etags = [answer.etag for answer in put_answers]
        late = send(put("p"), copy("q"), delete("b"), delete_many("bc"), late=True)
        # All at once: none of them touches what another reads or writes.
        *unmet, copied = send(
            put("c", **absent), copy("b", **absent), delete("d", **wrong), copy("r", **wrong)
        )
        plain_copy, *_ = must(copy("s"), delete_many("f"), delete("g"))
        met = send(put("t", **absent), copy("u", **absent), delete("e", if_match=etags[4]))
        found = bucket.look([root + letter for letter in _LETTERS], marks_absence=marks_absence)
    finally:
        _remove_scratch(bucket, root, send)
    there = {key[len(root) :]: seen.etag for key, seen in found.items() if seen}

    def has(present: str, gone: str = "") -> bool:
        return set(present) <= there.keys() and not set(gone) & there.keys()

    if len(found) != len(_LETTERS):
        raise NotReadyError("the store does not show its own scratch objects")
    if copied.effect == "done" or not has("", gone="r"):
        raise NotReadyError("the store copies an object that is not the one that was named")
    codes = {code for answer in late for code in (answer.failed or {"": answer.code}).values()}
    puts, copies, deletes = (
        refused.code in _UNMET and allowed.effect == "done"
        for refused, allowed in zip(unmet, met, strict=True)
    )
    digest = hashlib.md5(b"a", usedforsecurity=False).hexdigest()
    return Abilities(
        fence=codes <= _REFUSED_LATE and has("bcs", gone="fgpq"),
        conditional_put=puts and has("t"),
        conditional_copy=copies and has("u") and there.get("b") == etags[1],
        conditional_delete=deletes and has("d", gone="e"),
        parking=_can_park(bucket, parked, expires_s),
        hash_etags=etags[0] == digest and plain_copy.etag == digest,
        marks_absence=marks_absence,
        versions=put_answers[0].version_id not in ("", "null"),
    )


def _finds_mark(bucket: S3Bucket, root: str) -> bool:
    """Tell whether the store's own 404 bears the mark by which it is known."""
    try:
        return bucket.has_absence_mark(f"{root}absent")
    except StoreError as error:
        raise NotReadyError(f"the store does not say what is absent: {error}") from error


def _can_park(bucket: S3Bucket, parked: str, expires_s: int) -> bool:
    """Tell whether an object may be put and removed where objects are parked."""
    key = f"{parked}{SCRATCH_NAME}{secrets.token_hex(8)}"
    now = bucket.read_clock()
    for request in (Request("put", key, body=b"a"), Request("delete", key)):
        (answer,) = bucket.send([request], signed_at=now, expires_s=expires_s)
        if answer.effect != "done":
            return False
    return True


def _remove_scratch(bucket: S3Bucket, root: str, send: Any) -> None:
    for _ in range(3):
        left: Sequence[str] = [seen.key for seen in bucket.list_objects(root)]
        if not left:
            return
        send(*(Request("delete", key) for key in left))
    raise NotReadyError(f"scratch objects under {root} cannot be removed")
