"""Find out what a store honours: by the refused and the allowed case, on scratch objects."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta

from .bucket import Answer, Bucket, Request, Seen
from .errors import NotReadyError
from .plan import Abilities

PROBE = ".runbook/probe/"
_REFUSED_LATE = {"AccessDenied", "RequestTimeTooSkewed", "ExpiredToken", "RequestExpired"}
_UNMET = {"PreconditionFailed", "ConditionalRequestConflict"}


def probe(bucket: Bucket, *, expires_s: int = 20) -> Abilities:
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

    def put(letter: str, *, if_absent: bool = False) -> Request:
        return Request("put", root + letter, body=letter.encode(), if_absent=if_absent)

    def copy(to: str, etag: str, *, if_absent: bool = False) -> Request:
        return Request("copy", root + to, root + "a", if_match=etag, if_absent=if_absent)

    def delete(letter: str, etag: str = "") -> Request:
        return Request("delete", root + letter, if_match=etag)

    def delete_many(letters: str) -> Request:
        return Request("delete_many", keys=[root + letter for letter in letters])

    try:
        etag, *_, etag_e, _ = [answer.etag for answer in must(*map(put, "abcdef"))]
        *too_late, bulk = send(put("p"), copy("q", etag), delete("b"), delete_many("bc"), late=True)
        wrong = "0" * 32
        on_a, on_b = put("a", if_absent=True), copy("b", etag, if_absent=True)
        unmet = send(on_a, on_b, copy("r", wrong), delete("d", wrong))
        seen = look("abcdpqr")
        if unmet[2].effect == "done" or seen["r"]:
            raise NotReadyError("the store copies an object that is not the one that was named")
        must(copy("s", etag), copy("t", etag, if_absent=True))
        put_allowed, delete_allowed = send(put("u", if_absent=True), delete("e", etag_e))
        must(delete_many("c"), delete("f"))
        after = look("abcefstu")
    finally:
        _clean_up(bucket, root, send)
    is_fenced = all(_is_late(answer) for answer in too_late) and (
        _is_late(bulk) or all(bulk.failed.get(root + x) in _REFUSED_LATE for x in "bc")
    )
    is_kept = seen["b"] and seen["c"] and not seen["p"] and not seen["q"]
    works = after["s"] and not any(after[x] for x in "cef")
    is_unmet = [answer.code in _UNMET for answer in unmet]
    b, b_after = seen["b"], after["b"]
    is_same_b = b is not None and b_after is not None and b.is_same(b_after)
    return Abilities(
        fence=bool(is_fenced and is_kept and works),
        conditional_put=bool(is_unmet[0] and put_allowed.effect == "done" and after["u"]),
        conditional_copy=bool(is_unmet[1] and after["t"] and is_same_b),
        conditional_delete=bool(is_unmet[3] and delete_allowed.effect == "done" and seen["d"]),
    )


def _is_late(answer: Answer) -> bool:
    return answer.effect == "none" and answer.code in _REFUSED_LATE


def _clean_up(bucket: Bucket, root: str, send: Callable[..., list[Answer]]) -> None:
    for _ in range(3):
        left = [seen.key for seen in bucket.list_objects(root)]
        if not left:
            return
        send(*(Request("delete", key) for key in left))
    raise NotReadyError(f"scratch objects under {root} cannot be removed")
