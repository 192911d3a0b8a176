"""Find out what a store honours: try requests on scratch objects.

For each condition, a request is tried that the store must refuse, and one that it must carry out.
Every request that must succeed bears conditions that are met, so that a bucket whose policy demands
conditions can be probed, too.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from .bucket import REFUSED, UNMET, Answer, Request, S3Bucket
from .errors import NotReadyError, StoreError
from .plan import Abilities, Timing

PROBE = ".runbook/probe/"
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
    NotReadyError
        When a valid request does not work, or an expired one does. When nothing may be deleted
        under ``source``. When the store copies another version than the one that is named. When its
        Date and its LastModified differ by more than clocks may.
    StoreError
        When a request is not answered: what the store honours is not known then.

    Notes
    -----
    Changes scratch objects under ``.runbook/probe/``, and removes them.
    """
    scratch = _Scratch(bucket, timing)
    try:
        return scratch.try_all(source)
    finally:
        scratch.remove()


class _Scratch:
    """The scratch objects of one probe.

    Attributes
    ----------
    etags : of those that were put first
    lacking : what the store lacks, each with why
    """

    def __init__(self, bucket: S3Bucket, timing: Timing) -> None:
        self.etags: dict[str, str] = {}
        self.lacking: dict[str, str] = {}
        self._root = f"{PROBE}{secrets.token_hex(8)}-"
        self._bucket = bucket
        self._timing = timing
        self._began = bucket.read_clock()

    def try_all(self, source: str) -> Abilities:
        """Send all requests, and return what the answers and the objects show."""
        self._try_to_delete(source)
        for name in _CODES:
            self._try([trial for trial in _TRIALS if trial.round == name])
            self.etags = self.etags or self._look()
        after = self._look()
        for trial in _TRIALS[len(_FIRST) :]:
            letters = {trial.key, trial.source}
            changed = {each for each in letters if after.get(each) != self.etags.get(each)}
            if trial.round == "met":
                changed = letters & _REMOVED & after.keys()
            if changed:
                self.lacking.setdefault(trial.shows, f"{trial.kind} has another effect")
        for name, text in _FAULTS.items():
            if name in self.lacking:
                raise NotReadyError(f"{text} ({self.lacking[name]})")
        abilities = {name: name not in self.lacking for name in Abilities.model_fields}
        md5 = hashlib.md5(b"first", usedforsecurity=False).hexdigest()
        abilities["hash_etags"] = self.etags["a"] == after["q"] == md5
        return Abilities.model_validate(abilities)

    def _try_to_delete(self, source: str) -> None:
        """Refuse when the store says that nothing may be deleted under a prefix."""
        key = f"{source}.runbook-probe-{secrets.token_hex(8)}"  # no object has it
        (answer,) = self._send([Request("delete", key, if_match="0")], self._began)
        if answer.code in REFUSED:
            raise NotReadyError(
                f"these credentials may not delete under {source} ({answer.code} "
                f"{answer.message}): nothing would be moved, only copied. Give them that right."
            )

    def _try(self, trials: Sequence[_Trial]) -> None:
        """Send the trials of a round, and note which ones the store does not answer as it must."""
        signed_at = self._began
        if trials[0].round == "late":  # they have expired already
            signed_at -= timedelta(minutes=10)
        answers = self._send([self._make_request(trial) for trial in trials], signed_at)
        for trial, answer in zip(trials, answers, strict=True):
            codes = set(answer.failed.values()) or {answer.code}
            if not codes <= _CODES[trial.round]:
                why = f"{trial.kind}: {', '.join(codes)} {answer.message}"
                self.lacking.setdefault(trial.shows, why.strip())

    def _make_request(self, trial: _Trial) -> Request:
        key = self._root + trial.key
        etag = self.etags.get(trial.etag, trial.etag)
        if trial.kind == "delete_many":
            return Request("delete_many", keys={key: etag})
        return Request(
            trial.kind,
            key,
            source=self._root + trial.source if trial.source else "",
            if_match=etag,
            if_absent=bool(trial.is_free),
            body=trial.round.encode() if trial.kind == "put" else b"",
        )

    def _send(self, requests: Sequence[Request], signed_at: datetime) -> list[Answer]:
        """Send requests, several at a time.

        Raises
        ------
        StoreError
            When one of them is not answered.
        """
        expires_s = self._timing.expires_s
        answers = self._bucket.send(requests, signed_at=signed_at, expires_s=expires_s)
        for request, answer in zip(requests, answers, strict=True):
            if answer.code in ("NoAnswer", "NotSent"):
                why = f"the {request.kind} of a scratch object: {answer.message}"
                raise StoreError(f"the store does not answer {why}. Try again.", code=answer.code)
        return answers

    def _look(self) -> dict[str, str]:
        """Return the letters of the scratch objects that are there, with the ETag of each."""
        looks = self._bucket.look([self._root + letter for letter in _FIRST + _LATER])
        if len(looks) != len(_FIRST + _LATER):
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
        left = self._bucket.list_objects(self._root)
        requests = [Request("delete", seen.key, if_match=seen.etag) for seen in left]
        now = self._bucket.read_clock()
        self._bucket.send(requests, signed_at=now, expires_s=self._timing.expires_s)
