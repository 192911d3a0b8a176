"""Find out what a store honours: try requests on scratch objects.

For each condition, a request is tried that the store must refuse, and one that it must carry out.
Every request that must succeed bears conditions that are met, so that a bucket whose policy demands
conditions can be probed, too.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from .bucket import REFUSED, UNMET, Answer, Request, S3Bucket
from .errors import RefusedError, StoreError
from .plan import Abilities, Timing

PROBE = ".runbook/probe/"
#: How long before now a request is signed that has expired.
_EXPIRED = timedelta(minutes=10)
#: The rounds of a probe, and with which codes a store may answer in each; a success has none.
_CODES = {
    "first": {""},
    "late": {"AccessDenied", "RequestTimeTooSkewed", "ExpiredToken", "RequestExpired"},
    "unmet": UNMET,
    "met": {""},
}
#: What is wrong with a store that cannot be used.
_FAULTS = {
    "works": "the store does not do with a scratch object what a move needs",
    "expires": "the store accepts expired requests: a request of ours could take effect much later",
    "names": "the store copies an object that is not the one that was named",
}


class _Trial(NamedTuple):
    """A request on scratch objects, which have letters as names.

    Attributes
    ----------
    round : ``first``: it makes the object; ``late``: it must be refused because it has expired;
        ``unmet``: because of its condition; ``met``: it must be carried out
    etag : the object's whose ETag is named; ``0`` is no object's
    is_free : ``free``: only if nothing is at ``key``
    shows : the ability, or the key of the fault, that the trial is about
    """

    round: str
    kind: Any
    key: str
    source: str
    etag: str
    is_free: str
    shows: str


def _parse(line: str) -> _Trial:
    """Read a line of the table; a dot is an empty text."""
    return _Trial(*[word.strip(".") for word in line.split()])


# No two of a round are about one object, for which they would wait.
_TABLE = """
late  put         n . . .    expires
late  copy        o a a .    expires
late  delete      b . b .    expires
late  delete_many c . c .    expires
unmet put         d . . free conditional_put
unmet put         e . 0 .    conditional_put
met   put         f . f .    conditional_put
unmet copy        p a 0 free names
unmet copy        g a a free conditional_copy
met   copy        q a a free works
unmet delete      h . 0 .    conditional_delete
met   delete      x . x .    works
unmet delete_many i . 0 .    conditional_bulk
met   delete_many y . y .    conditional_bulk
unmet rename      r j 0 free rename
unmet rename      k l l free rename
met   rename      s z z free rename
"""
#: The scratch objects that are put first, that later requests make, and that those remove.
_FIRST = "abcdefghijklxyz"
_LATER = "nopqrs"
_REMOVED = set("xyz")
_TRIALS = [_Trial("first", "put", letter, "", "", "free", "works") for letter in _FIRST]
_TRIALS += [_parse(line) for line in _TABLE.split("\n") if line]


def probe(bucket: S3Bucket, *, timing: Timing, source: str) -> Abilities:
    """Try every kind of request that a move sends: valid, expired, and with unmet conditions.

    Parameters
    ----------
    timing : how long the requests of a move are valid, and how far clocks may differ
    source : the prefix under which a move deletes: a delete of a random absent key is tried there

    Raises
    ------
    RefusedError
        When a valid request does not work, or an expired one does. When nothing may be deleted
        under ``source``. When the store copies another version than the one that is named. When its
        Date and its LastModified differ by more than clocks may.
    StoreError
        When a request is not answered: what the store honours is not known then.

    Notes
    -----
    Changes scratch objects under ``.runbook/probe/``, and removes them.
    """
    root = f"{PROBE}{secrets.token_hex(8)}-"
    began = bucket.read_clock()

    def send(requests: Sequence[Request], signed_at: datetime = began) -> list[Answer]:
        """Send requests; raise ``StoreError`` when one of them is not answered."""
        answers = bucket.send(requests, signed_at=signed_at, expires_s=timing.expires_s)
        for request, answer in zip(requests, answers, strict=True):
            if answer.code in ("NoAnswer", "NotSent"):
                why = f"the {request.kind} of a scratch object: {answer.message}"
                raise StoreError(f"the store does not answer {why}. Try again.", code=answer.code)
        return answers

    key = f"{source}.runbook-probe-{secrets.token_hex(8)}"  # no object has it
    (answer,) = send([Request("delete", key, if_match="0")])
    if answer.code in REFUSED:
        raise RefusedError(
            f"these credentials may not delete under {source} ({answer.code} "
            f"{answer.message}): nothing would be moved, only copied. Give them that right."
        )
    etags: dict[str, str] = {}
    lacking: dict[str, str] = {}
    try:
        for name, codes in _CODES.items():
            trials = [trial for trial in _TRIALS if trial.round == name]
            requests = [_make_request(trial, root, etags) for trial in trials]
            signed_at = began - _EXPIRED if name == "late" else began
            answers = send(requests, signed_at)
            for trial, answer in zip(trials, answers, strict=True):
                given = set(answer.failed.values()) or {answer.code}
                if not given <= codes:
                    why = f"{trial.kind}: {', '.join(given)} {answer.message}"
                    # A put can do what a copy does not, if it overwrites nothing.
                    is_missing = trial.kind == "copy" and answer.code == "NotImplemented"
                    can_put = "conditional_put" not in lacking
                    shows = "copies" if is_missing and can_put else trial.shows
                    lacking.setdefault(shows, why.strip())
            etags = etags or _look(bucket, root, began, timing)
        after = _look(bucket, root, began, timing)
    finally:
        left = bucket.list_objects(root)
        removals = [Request("delete", seen.key, if_match=seen.etag) for seen in left]
        bucket.send(removals, signed_at=bucket.read_clock(), expires_s=timing.expires_s)
    for trial in _TRIALS[len(_FIRST) :]:
        letters = {trial.key, trial.source}
        changed = {each for each in letters if after.get(each) != etags.get(each)}
        if trial.round == "met":
            changed = letters & _REMOVED & after.keys()
        if changed:
            lacking.setdefault(trial.shows, f"{trial.kind} has another effect")
    for name, text in _FAULTS.items():
        if name in lacking:
            raise RefusedError(f"{text} ({lacking[name]})")
    abilities = {name: name not in lacking for name in Abilities.model_fields}
    md5 = hashlib.md5(b"first", usedforsecurity=False).hexdigest()
    copied = after["q"] if abilities["copies"] else md5
    abilities["hash_etags"] = etags["a"] == copied == md5
    return Abilities.model_validate(abilities)


def _make_request(trial: _Trial, root: str, etags: Mapping[str, str]) -> Request:
    """Return the request of a trial; ``etags`` are those of the scratch objects."""
    key = root + trial.key
    etag = etags.get(trial.etag, trial.etag)
    if trial.kind == "delete_many":
        return Request("delete_many", keys={key: etag})
    return Request(
        trial.kind,
        key,
        source=root + trial.source if trial.source else "",
        if_match=etag,
        if_absent=bool(trial.is_free),
        body=trial.round.encode() if trial.kind == "put" else b"",
    )


def _look(bucket: S3Bucket, root: str, began: datetime, timing: Timing) -> dict[str, str]:
    """Return the letters of the scratch objects that are there, with the ETag of each."""
    looks = bucket.look([root + letter for letter in _FIRST + _LATER])
    if len(looks) != len(_FIRST + _LATER):
        raise RefusedError("the store does not show its own scratch objects")
    now = bucket.read_clock()
    spread = timedelta(seconds=timing.spread_s + 1)
    etags = {}
    for key, seen in looks.items():
        if seen is not None:
            etags[key.removeprefix(root)] = seen.etag
            if not began - spread <= seen.last_modified <= now + spread:
                raise RefusedError("the store's Date and LastModified are not of one clock")
    return etags
