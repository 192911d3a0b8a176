"""Find out what a store honours: by the refused and the allowed case, on scratch objects."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
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
    root = f"{PROBE}{secrets.token_hex(8)}-"
    now = bucket.read_clock()
    late = now - timedelta(minutes=10)

    def name(letter: str) -> str:
        return f"{root}{letter}"

    def send(requests: Sequence[Request], *, is_late: bool = False) -> list[Answer]:
        at = late if is_late else now
        return bucket.send(requests, signed_at=at, expires_s=1 if is_late else expires_s)

    def look(letters: str) -> dict[str, Seen | None]:
        found = bucket.look([name(letter) for letter in letters])
        if len(found) != len(letters):
            raise NotReadyError("the store does not show its own scratch objects")
        return {letter: found[name(letter)] for letter in letters}

    def must(answers: Sequence[Answer], what: str) -> list[Answer]:
        for answer in answers:
            if answer.effect != "done" or answer.failed:
                why = f"{answer.code} {answer.message} {dict(answer.failed) or ''}".strip()
                raise NotReadyError(f"the store does not {what} a scratch object: {why}")
        return list(answers)

    def put(letter: str, *, if_absent: bool = False) -> Request:
        return Request("put", name(letter), body=letter.encode(), if_absent=if_absent)

    def copy(source: str, to: str, etag: str, *, if_absent: bool = False) -> Request:
        key = name(to)
        return Request("copy", key, source=name(source), if_match=etag, if_absent=if_absent)

    try:
        etag, *_, etag_e, _ = [a.etag for a in must(send([put(x) for x in "abcdef"]), "take")]
        too_late = [put("p"), copy("a", "q", etag), Request("delete", name("b"))]
        late_answers = send(too_late, is_late=True)
        (bulk,) = send([Request("delete_many", keys=(name("b"), name("c")))], is_late=True)
        wrong_etag = Request("delete", name("d"), if_match="0" * 32)
        on_a, on_b = put("a", if_absent=True), copy("a", "b", etag, if_absent=True)
        unmet = send([on_a, on_b, copy("a", "r", "0" * 32), wrong_etag])
        seen = look("abcdpqr")
        if unmet[2].effect == "done" or seen["r"]:
            raise NotReadyError("the store copies an object that is not the one that was named")
        must(send([copy("a", "s", etag), copy("a", "t", etag, if_absent=True)]), "copy")
        allowed = [put("u", if_absent=True), Request("delete", name("e"), if_match=etag_e)]
        put_allowed, delete_allowed = send(allowed)
        must(send([Request("delete_many", keys=(name("c"),))]), "delete")
        must(send([Request("delete", name("f"))]), "delete")
        after = look("abcefstu")
    finally:
        _clean_up(bucket, root, send)
    is_fenced = all(_is_late(answer) for answer in late_answers) and (
        _is_late(bulk) or all(bulk.failed.get(name(x)) in _REFUSED_LATE for x in "bc")
    )
    is_kept = seen["b"] and seen["c"] and not seen["p"] and not seen["q"]
    works = after["s"] and not any(after[x] for x in "cef")
    is_unmet = [answer.code in _UNMET for answer in unmet]
    b, b_after = seen["b"], after["b"]
    is_same_b = b is not None and b_after is not None and b.is_same(b_after)
    can_put = put_allowed.effect == "done" and after["u"]
    can_delete = delete_allowed.effect == "done" and seen["d"]
    return Abilities(
        fence=bool(is_fenced and is_kept and works),
        conditional_put=bool(is_unmet[0] and can_put),
        conditional_copy=bool(is_unmet[1] and after["t"] and is_same_b),
        conditional_delete=bool(is_unmet[3] and can_delete),
    )


def _is_late(answer: Answer) -> bool:
    return answer.effect == "none" and answer.code in _REFUSED_LATE


def _clean_up(bucket: Bucket, root: str, send: Callable[[Sequence[Request]], list[Answer]]) -> None:
    for _ in range(3):
        left = [seen.key for seen in bucket.list_objects(root)]
        if not left:
            return
        send([Request("delete", key) for key in left])
    raise NotReadyError(f"scratch objects under {root} cannot be removed")
