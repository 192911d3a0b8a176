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
        put_first = must(send([put(x) for x in "abcdef"]), "take")
        etag, etag_e = put_first[0].etag, put_first[4].etag
        late_answers = send(
            [put("p"), copy("a", "q", etag), Request("delete", name("b"))], is_late=True
        )
        late_bulk = send([Request("delete_many", keys=(name("b"), name("c")))], is_late=True)
        unmet = send(
            [
                put("a", if_absent=True),
                copy("a", "b", etag, if_absent=True),
                copy("a", "r", "0" * 32),
                Request("delete", name("d"), if_match="0" * 32),
            ]
        )
        seen = look("abcdpqr")
        is_fenced = all(_is_late(answer) for answer in late_answers) and (
            _is_late(late_bulk[0])
            or all(late_bulk[0].failed.get(name(x)) in _REFUSED_LATE for x in "bc")
        )
        kept = all(seen[x] is not None for x in "bc") and not seen["p"] and not seen["q"]
        if unmet[2].effect == "done" or seen["r"]:
            raise NotReadyError("the store copies an object that is not the one that was named")
        must(send([copy("a", "s", etag), copy("a", "t", etag, if_absent=True)]), "copy")
        allowed = [put("u", if_absent=True), Request("delete", name("e"), if_match=etag_e)]
        put_allowed, delete_allowed = send(allowed)
        must(send([Request("delete_many", keys=(name("c"),))]), "delete")
        must(send([Request("delete", name("f"))]), "delete")
        after = look("abcefstu")
        gone = not any(after[x] for x in "cef")
        return Abilities(
            fence=bool(is_fenced and kept and gone and after["s"]),
            conditional_put=bool(
                unmet[0].code in _UNMET and put_allowed.effect == "done" and after["u"]
            ),
            conditional_copy=unmet[1].code in _UNMET
            and bool(after["t"])
            and _same(seen["b"], after["b"]),
            conditional_delete=bool(
                unmet[3].code in _UNMET and seen["d"] and delete_allowed.effect == "done"
            ),
        )
    finally:
        _clean_up(bucket, root, send)


def _is_late(answer: Answer) -> bool:
    return answer.effect == "none" and answer.code in _REFUSED_LATE


def _same(one: Seen | None, other: Seen | None) -> bool:
    return one is not None and other is not None and one.is_same(other)


def _clean_up(bucket: Bucket, root: str, send: Callable[[Sequence[Request]], list[Answer]]) -> None:
    for _ in range(3):
        left = [seen.key for seen in bucket.list_objects(root)]
        if not left:
            return
        send([Request("delete", key) for key in left])
    raise NotReadyError(f"scratch objects under {root} cannot be removed")
