"""Find out what a store honours: try requests on scratch objects.

For each condition, we try a request that doesn't meet it, which the store must refuse, and one that
does, which it must carry out. A bucket whose policy demands conditions can be probed, too.
"""

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from .bucket import ENCRYPTION, REFUSED, UNMET, Answer, Request, S3Bucket, parse_xml
from .errors import RefusedError, StoreError
from .plan import Abilities, Timing

PROBE = ".runbook/probe/"
#: How long ago an expired request was signed.
_EXPIRED = timedelta(minutes=10)
#: The rounds of a probe, in order, and the codes of the right answers; a success has the code "".
_CODES = {
    "first": {""},
    "late": {"AccessDenied", "RequestTimeTooSkewed", "ExpiredToken", "RequestExpired"},
    "unmet": UNMET,
    "met": {""},
}
#: What is wrong with a store that we refuse.
FAULTS = {
    "works": "the store fails at a plain put, copy or delete of a scratch object",
    "expires": "the store accepts expired requests: a request of ours could take effect much later",
    "names": "the store copies another version than the one that was named",
}


class _Trial(NamedTuple):
    """A request on scratch objects, which have letters as names.

    In the round ``first`` it makes the object. In ``late`` it must be refused because it has
    expired, in ``unmet`` because of its condition; in ``met`` it must be carried out. ``etag`` is
    the letter of the object whose ETag it names, or ``0`` for an ETag that no object has. The store
    lacks ``shows``, an ability or a key of ``FAULTS``, if its answer is wrong.
    """

    round: str
    kind: Any
    key: str
    source: str
    etag: str
    is_free: str
    shows: str
    is_secret: str = ""


def _parse(table: str) -> list[_Trial]:
    """Read a table of trials, in which a dot is an empty text."""
    trials = []
    for line in table.strip().split("\n"):
        words = [word.strip(".") for word in line.split()]
        trials.append(_Trial(*words))
    return trials


# No two trials of a round share an object, or one would have to wait.
_TABLE = """
first put         a . . free works
first put         b . . free works
first put         c . . free works
first put         d . . free works
first put         e . . free works
first put         f . . free works
first put         g . . free works
first put         h . . free works
first put         i . . free works
first put         j . . free works
first put         k . . free works
first put         l . . free works
first put         x . . free works
first put         y . . free works
first put         z . . free works
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
# What only ``survey`` tries. Stores on a file system, those that compare UTF-16, and those that
# ignore case list these keys in other orders.
_MORE = """
first put         -  . . free listing_order
first put         /- . . free listing_order
first put         5  . . free listing_order
first put         A  . . free listing_order
first put         \u00e9  . . free listing_order
first put         \uff5e  . . free listing_order
first put         \U0001f4e6  . . free listing_order
first put         m  . . free encrypted_copies secret
met   copy        t  m m free encrypted_copies
"""
_TRIALS = _parse(_TABLE)
_SURVEY = _TRIALS + _parse(_MORE)
#: The scratch objects that trials delete or rename.
_REMOVED = set("xyz")
#: What only ``survey`` finds out.
_BESIDE = ("encrypted_copies", "versions", "listing_order", "listing_at_once")


def probe(bucket: S3Bucket, *, timing: Timing, source: str) -> Abilities:
    """Try every kind of request that a move sends: valid, expired, and with unmet conditions.

    Raises
    ------
    RefusedError
        When a valid request does not work, or an expired one does; the credentials may not delete
        under ``source``; the store copies another version than named; or its Date and LastModified
        differ by more than ``timing`` allows.
    StoreError
        When a request is not answered.

    Notes
    -----
    Changes scratch objects under ``.runbook/probe/``, and removes them. Under ``source``, it tries
    to delete a random absent key.
    """
    with _try_requests(bucket, timing, source, _TRIALS) as (_, lacking):
        for name, text in FAULTS.items():
            if name in lacking:
                raise RefusedError(f"{text} ({lacking[name]})")
    abilities = {name: name not in lacking for name in Abilities.model_fields}
    return Abilities.model_validate(abilities)


def survey(bucket: S3Bucket, *, source: str) -> dict[str, str]:
    """Try what ``probe`` tries, and more that a person wants to know of a store.

    Returns {name: what the store does instead, or "" if it does what it should}. The names are the
    keys of ``FAULTS``, the fields of ``Abilities``, and

    - ``encrypted_copies``: it can copy an object that it encrypts;
    - ``versions``: it keeps an overwritten object as an older version;
    - ``listing_order``: it lists keys in the order of their bytes, also page by page;
    - ``listing_at_once``: a listing shows what was written and removed right before it.

    Raises as ``probe`` does, but not for what a store lacks. Changes scratch objects under
    ``.runbook/probe/``, and removes them with all their versions.
    """
    timing = Timing()
    with _try_requests(bucket, timing, source, _SURVEY) as (root, lacking):
        listed = [seen.key for seen in bucket.list_objects(root)]
        pages = [seen.key for seen in bucket.list_objects(root, page_size=2)]
        looks = bucket.look([root + trial.key for trial in _SURVEY])
        versions = _list_removals(bucket, f"{root}f")  # the one that was overwritten
    # The end of the block removed the scratch objects.
    still_listed = [*bucket.list_objects(root)]
    removals = _list_removals(bucket, root)
    bucket.send(removals, signed_at=bucket.read_clock(), expires_s=timing.expires_s)
    there = {key for key, seen in looks.items() if seen is not None}
    if not listed == pages == sorted(listed):
        lacking["listing_order"] = "another order"
    if still_listed or there != {*listed}:
        lacking["listing_at_once"] = "late"
    if len(versions) < 2:
        lacking["versions"] = "overwritten objects are gone"
    secret = looks.get(f"{root}m")  # the copy of the encrypted one
    if secret is not None and ENCRYPTION not in secret.headers:
        lacking["encrypted_copies"] = "put: not encrypted"
    return {name: lacking.get(name, "") for name in (*FAULTS, *Abilities.model_fields, *_BESIDE)}


def _list_removals(bucket: S3Bucket, prefix: str) -> list[Request]:
    """Return, for each version and delete marker, the request that removes it for good."""
    removals = []
    with suppress(StoreError):  # not every store can list versions
        query = {"versions": "", "prefix": prefix}
        reply = bucket.fetch(Request("get", query=query), "list versions")
        for item in parse_xml(reply.body, "ListVersionsResult"):
            version = item.findtext("VersionId")
            if version:
                key = item.findtext("Key", "")
                removals.append(Request("delete", key, query={"versionId": version}))
    return removals


@contextmanager
def _try_requests(
    bucket: S3Bucket, timing: Timing, source: str, trials: Sequence[_Trial]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the scratch objects' prefix, and what the store lacks as {ability or fault: answer}.

    The scratch objects stay until the ``with`` block ends.
    """
    root = f"{PROBE}{secrets.token_hex(8)}-"
    began = bucket.read_clock()

    def send(requests: Sequence[Request], signed_at: datetime = began) -> list[Answer]:
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
    keys = sorted({root + trial.key for trial in trials})
    etags: dict[str, str] = {}
    lacking: dict[str, str] = {}
    try:
        for name, codes in _CODES.items():
            tried = [trial for trial in trials if trial.round == name]
            requests = [_make_request(trial, root, etags) for trial in tried]
            signed_at = began - _EXPIRED if name == "late" else began
            answers = send(requests, signed_at)
            for trial, answer in zip(tried, answers, strict=True):
                given = set(answer.failed.values()) or {answer.code}
                if not given <= codes:
                    why = f"{trial.kind}: {', '.join(given) or 'done'} {answer.message}"
                    # A put can replace a missing copy, if it overwrites nothing.
                    is_missing = trial.kind == "copy" and answer.code == "NotImplemented"
                    can_put = "conditional_put" not in lacking and trial.shows not in _BESIDE
                    shows = "copies" if is_missing and can_put else trial.shows
                    lacking.setdefault(shows, why.strip())
            etags = etags or _read_etags(bucket, root, keys, began, timing)
        after = _read_etags(bucket, root, keys, began, timing)
        for trial in trials:
            letters = {trial.key, trial.source}
            changed = {each for each in letters if after.get(each) != etags.get(each)}
            if trial.round == "met":
                changed = letters & _REMOVED & after.keys()
            if changed and trial.round != "first":
                lacking.setdefault(trial.shows, f"{trial.kind} has another effect")
        md5 = hashlib.md5(b"first", usedforsecurity=False).hexdigest()
        copied = md5 if "copies" in lacking else after.get("q")
        if not etags.get("a") == copied == md5:
            lacking["hash_etags"] = "an ETag is no MD5"
        yield root, lacking
    finally:
        left = bucket.list_objects(root)
        removals = [Request("delete", seen.key, if_match=seen.etag) for seen in left]
        bucket.send(removals, signed_at=bucket.read_clock(), expires_s=timing.expires_s)


def _make_request(trial: _Trial, root: str, etags: Mapping[str, str]) -> Request:
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
        headers={ENCRYPTION: "AES256"} if trial.is_secret else {},
    )


def _read_etags(
    bucket: S3Bucket, root: str, keys: Sequence[str], began: datetime, timing: Timing
) -> dict[str, str]:
    """Return the ETags of the scratch objects that are there as {letter: ETag}."""
    looks = bucket.look(keys)
    if len(looks) != len(keys):
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
