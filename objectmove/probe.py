"""Find out what a store honours: by the refused and the allowed case, on scratch objects."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from .bucket import Answer, Request, S3Bucket, Seen
from .errors import NotReadyError
from .plan import Abilities

PROBE = ".runbook/probe/"
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

    def look(letters: str) -> dict[str, Seen | None]:
        found = bucket.look([root + letter for letter in letters])
        if len(found) != len(letters):
            raise NotReadyError("the store does not show its own scratch objects")
        return {letter: found[root + letter] for letter in letters}

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
        etags = [answer.etag for answer in must(*map(put, "abcdef"))]
        late = send(put("p"), copy("q"), delete("b"), delete_many("bc"), late=True)
        *unmet, copied = send(
            put("a", **absent), copy("b", **absent), delete("d", **wrong), copy("r", **wrong)
        )
        before = look("abcdpqr")
        if copied.effect == "done" or before["r"]:
            raise NotReadyError("the store copies an object that is not the one that was named")
        must(copy("s"), delete_many("c"), delete("f"))
        met = send(put("t", **absent), copy("u", **absent), delete("e", if_match=etags[4]))
        after = look("bcefstu")
    finally:
        _clean_up(bucket, root, send)
    codes = {code for answer in late for code in (answer.failed or {"": answer.code}).values()}
    is_kept = before["b"] and before["c"] and not (before["p"] or before["q"])
    works = after["s"] and not (after["c"] or after["f"])
    puts, copies, deletes = (
        refused.code in _UNMET and allowed.effect == "done"
        for refused, allowed in zip(unmet, met, strict=True)
    )
    b = after["b"]
    return Abilities(
        fence=bool(codes <= _REFUSED_LATE and is_kept and works),
        conditional_put=bool(puts and after["t"]),
        conditional_copy=bool(copies and after["u"] and b and b.etag == etags[1]),
        conditional_delete=bool(deletes and before["d"] and not after["e"]),
    )


def _clean_up(bucket: S3Bucket, root: str, send: Callable[..., list[Answer]]) -> None:
    for _ in range(3):
        left = [seen.key for seen in bucket.list_objects(root)]
        if not left:
            return
        send(*(Request("delete", key) for key in left))
    raise NotReadyError(f"scratch objects under {root} cannot be removed")
