"""Find out what a store honours: by the refused and the allowed case, on scratch objects."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

from .bucket import Answer, Request, S3Bucket
from .errors import NotReadyError
from .plan import Abilities

PROBE = ".runbook/probe/"
_LETTERS = "abcdefgpqrstu"
_REFUSED_LATE = {"AccessDenied", "RequestTimeTooSkewed", "ExpiredToken", "RequestExpired"}
_UNMET = {"PreconditionFailed", "ConditionalRequestConflict"}


def probe(bucket: S3Bucket, *, expires_s: int = 20) -> Abilities:
    """Try every kind of request that a move sends, as it should work and as it should not.

    Raises
    ------
    NotReadyError
        When a plain valid request does not work, or the scratch objects cannot be removed.

    Notes
    -----
    Changes scratch objects under ``.runbook/probe/``, and removes them.
    """
    root, now = f"{PROBE}{secrets.token_hex(8)}-", bucket.read_clock()

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

    absent, wrong = {"if_absent": True}, {"if_match": "0" * 32}
    try:
        etags = [answer.etag for answer in must(*map(put, "abcdefg"))]
        late = send(put("p"), copy("q"), delete("b"), delete_many("bc"), late=True)
        # all at once: no one of them touches what another reads or writes
        *unmet, copied = send(
            put("c", **absent), copy("b", **absent), delete("d", **wrong), copy("r", **wrong)
        )
        must(copy("s"), delete_many("f"), delete("g"))
        met = send(put("t", **absent), copy("u", **absent), delete("e", if_match=etags[4]))
        found = bucket.look([root + letter for letter in _LETTERS])
    finally:
        for _ in range(3):
            if not (left := [seen.key for seen in bucket.list_objects(root)]):
                break
            send(*map(delete, (key[len(root) :] for key in left)))
        else:
            raise NotReadyError(f"scratch objects under {root} cannot be removed")
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
    return Abilities(
        fence=codes <= _REFUSED_LATE and has("bcs", gone="fgpq"),
        conditional_put=puts and has("t"),
        conditional_copy=copies and has("u") and there.get("b") == etags[1],
        conditional_delete=deletes and has("d", gone="e"),
    )
