"""One bucket of an S3 store, and the one place that sends requests that change it.

Requests are presigned. For a change, the caller sets date and expiry, so that the store itself
refuses it when it comes too late. A change is sent once: no layer here or below repeats it. A read
is sent once more when its connection breaks, unless a sink takes its body.

Nothing here reads the environment.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Literal, NamedTuple
from urllib.parse import quote, unquote_plus, urlencode
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from .errors import StoreError
from .http import NOT_SENT, Connections, Message, Reach, Reply, Sink

Texts = Mapping[str, str]
_NO_TEXTS: Texts = {}

_META = "x-amz-meta-"
ENCRYPTION = "x-amz-server-side-encryption"
ABSENCE_MARK = "x-amz-request-id"
"""A 404 with this header comes from the store, not from something in front of it."""
REFUSED = {
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationQueryParametersError",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
"""Codes of a 403 after which we know that the store did nothing: signature or rights failed."""
#: Codes of a request that the store refused because its condition is not met.
UNMET = {"PreconditionFailed", "ConditionalRequestConflict"}
#: What some requests can't carry: control characters, surrogates, what XML 1.0 forbids, and the
#: segments "", ``.`` and ``..``.
_UNSUPPORTED = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]|(^|/)\.{0,2}(/|$)")
_MD5 = re.compile("[0-9a-fA-F]{32}")
#: How long the signature of a read is valid, in seconds.
_READ_EXPIRES_S = 900
#: The headers that an object keeps when it is put again.
_KEPT = re.compile(
    "x-amz-meta-|(cache-control|content-(disposition|encoding|language|type)|expires)$"
)
#: The HTTP method of each kind of request that is not named after its method.
_METHODS = {"copy": "PUT", "rename": "PUT", "delete_many": "POST"}
#: The header that names the source, for each kind of request that has one.
_SOURCES = {"copy": "x-amz-copy-source", "rename": "x-amz-rename-source"}


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object; ``etag`` has no quotes, ``last_modified`` a time zone."""

    key: str
    etag: str
    size_bytes: int
    last_modified: datetime

    def has_same_content(self, other: Version) -> bool:
        return (self.etag, self.size_bytes) == (other.etag, other.size_bytes)


@dataclass(frozen=True, slots=True)
class Seen(Version):
    """One object as a listing or a HEAD shows it; a HEAD gives its time in whole seconds.

    Only a HEAD gives headers and metadata (names in small letters, without ``x-amz-meta-``). The
    ETag may be "": on the JuiceFS gateway, that of a copy whose source was deleted at that moment.
    """

    metadata: Texts | None = None
    headers: Texts = field(default_factory=dict)

    @property
    def has_hash(self) -> bool:
        """Whether the ETag can be the MD5 of the content, by the headers of a HEAD.

        It can't after a multipart upload, nor if a KMS key encrypts the object. The probe finds out
        whether the store's other ETags are MD5s. If a client's key encrypts it, a HEAD fails.
        """
        is_md5 = _MD5.fullmatch(self.etag) is not None
        return is_md5 and not self.headers.get(ENCRYPTION, "").startswith("aws:kms")


class Request(NamedTuple):
    """One request; all but ``get`` and ``head`` change the bucket."""

    kind: Literal["copy", "rename", "put", "delete", "delete_many", "get", "head"]
    key: str = ""
    source: str = ""
    #: The ETag that the object at ``source``, or else at ``key``, must have; "" for any.
    if_match: str = ""
    if_absent: bool = False  # do it only if nothing is at ``key``
    body: bytes = b""
    headers: Texts = _NO_TEXTS
    keys: Texts = _NO_TEXTS  # of a bulk delete: each key with its ``if_match``
    query: Texts = _NO_TEXTS


class Answer(NamedTuple):
    """What became of a request.

    ``effect`` is ``done`` only if a well-formed answer says so, and ``none`` only if the request
    was never sent, or the store refused it before it acted.
    """

    effect: Literal["done", "none", "unknown"]
    etag: str = ""  # of the object that a copy or a put made
    code: str = ""
    message: str = ""
    #: The error code of each key that a bulk delete didn't delete.
    failed: Texts = _NO_TEXTS
    date: str = ""


Look = dict[str, Seen | None]
"""What is at each key; None where nothing is. A key that could not be read is missing."""


def is_key_supported(key: str) -> bool:
    """Tell whether every request can name the key exactly.

    Clients and servers drop empty segments, ``.`` and ``..``, and so name another key. The XML of a
    bulk delete can't hold control characters.
    """
    return _UNSUPPORTED.search(key) is None


@dataclass(eq=False, repr=False, kw_only=True)
class S3Bucket(Reach):
    """A bucket behind any S3 server (``host:port``). Of our errors, it raises only StoreError."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    session_token: str = ""
    region: str = "us-east-1"
    virtual_host: bool = False

    def __post_init__(self) -> None:
        scheme = "https" if self.secure else "http"
        self.url = f"{scheme}://{self.endpoint}"
        if self.virtual_host:
            self._host = f"{self.bucket}.{self.endpoint}"
            self._root = ""
        else:
            self._host = self.endpoint
            self._root = f"/{self.bucket}"
        self._http = Connections(self._host, self)

    def list_objects(self, prefix: str, *, start: str = "", page_size: int = 0) -> Iterator[Seen]:
        """Yield the objects under a prefix; with ``start``, most stores leave out smaller keys.

        Keys that end with ``/`` are left out: a store on a file system lists them for folders that
        a bulk delete emptied.
        """
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        if start:
            query["start-after"] = start[:-1]  # sorts before ``start``, so ``start`` is listed
        if page_size:
            query["max-keys"] = str(page_size)
        what = f"list {self.bucket}/{prefix}"
        while True:
            reply = self.fetch(Request("get", query=query), what)
            page = parse_xml(reply.body, "ListBucketResult")
            if not page.tag:
                raise StoreError(f"{what}: the answer is not a listing")
            for item in page.iterfind("Contents"):
                key = unquote_plus(item.findtext("Key", ""))
                if key.endswith("/"):
                    continue
                yield Seen(
                    key,
                    item.findtext("ETag", "").strip('"'),
                    int(item.findtext("Size") or 0),
                    parse_time(item.findtext("LastModified", "")),
                )
            if page.findtext("IsTruncated", "") != "true":
                return
            token = page.findtext("NextContinuationToken", "")
            if not token or query.get("continuation-token") == token:
                raise StoreError(f"{what}: the listing stops before its end")
            query["continuation-token"] = token

    def look(self, keys: Sequence[str], *, failed: dict[str, StoreError] | None = None) -> Look:
        """Return what a HEAD finds at each key; a key that could not be read is missing.

        Its error is put into ``failed``.
        """
        looks: Look = {}
        replies = self._ask([Request("head", key) for key in keys])
        for key, reply in zip(keys, replies, strict=True):
            try:
                looks[key] = self._find(key, reply)
            except StoreError as error:
                if failed is not None:
                    failed[key] = error
        return looks

    def _find(self, key: str, reply: Reply) -> Seen | None:
        """Return the object that the answer to a read shows, or None if there is none.

        A 404 without the store's mark may come from something in front of the store: then a listing
        decides.
        """
        headers = reply.headers
        is_absent = reply.status == 404
        if is_absent and ABSENCE_MARK not in headers:
            # With the key as prefix, the key itself would be listed first.
            first = next(self.list_objects(key), None)
            is_absent = first is None or first.key != key
        if is_absent:
            return None
        if reply.status != 200:
            raise _make_error(reply, f"read {key}")
        etag = headers.get("etag", "").strip('"')
        length = headers.get("content-length", "")
        is_stores = bool(etag) or ABSENCE_MARK in headers
        if not is_stores or not length.isdecimal():
            raise StoreError(f"read {key}: the answer is not about an object")
        metadata = {
            name.removeprefix(_META): text
            for name, text in headers.items()
            if name.startswith(_META)
        }
        at = parse_time(headers.get("last-modified", ""))
        return Seen(key, etag, int(length), at, metadata, headers)

    def _ask(self, requests: Sequence[Request], sink: Sink | None = None) -> list[Reply]:
        makers = [partial(self._make_message, request) for request in requests]
        return self._http.exchange(makers, resend=True, sink=sink)

    def read_object(self, key: str) -> tuple[bytes, Seen, datetime] | None:
        """Return an object's content, its version, and the store's time; None if it is absent."""
        (reply,) = self._ask([Request("get", key)])
        seen = self._find(key, reply)
        if seen is None:
            return None
        return reply.body, seen, parse_time(reply.headers.get("date", ""))

    def read_hash(self, key: str, algorithm: str) -> str:
        """Return an object's content hash in hex, by an algorithm of ``hashlib``."""
        digest = hashlib.new(algorithm, usedforsecurity=False)
        self.fetch(Request("get", key), f"read {key}", digest.update)
        return digest.hexdigest()

    def read_put(self, copy: Request) -> Request:
        """Read a copy's source; return the put that makes the same object.

        Raises StoreError when the source isn't the version that the copy names any more.
        """
        reply = self.fetch(
            Request("get", copy.source, if_match=copy.if_match), f"read {copy.source}"
        )
        if copy.if_match not in reply.headers.get("etag", ""):
            raise StoreError(f"{copy.source} has changed")
        headers = {name: text for name, text in reply.headers.items() if _KEPT.match(name)}
        return Request("put", copy.key, if_absent=copy.if_absent, body=reply.body, headers=headers)

    def fetch(self, request: Request, what: str, sink: Sink | None = None) -> Reply:
        """Return the answer to a read; unless its status is 200, raise StoreError, naming ``what``.

        ``sink`` takes the body in parts; the answer then has none.
        """
        (reply,) = self._ask([request], sink)
        if reply.status != 200:
            raise _make_error(reply, what)
        return reply

    def read_clock(self) -> datetime:
        """Return the store's time in whole seconds, from the Date header of a signed answer."""
        query = {"list-type": "2", "max-keys": "1", "prefix": ".runbook/"}
        reply = self.fetch(Request("get", query=query), "read the clock")
        return parse_time(reply.headers.get("date", ""))

    def ask(self, path: str) -> Reply:
        """Return the answer to an unsigned GET of one of the server's own pages."""
        (reply,) = self._http.exchange([partial(Message, "GET", path)], resend=True)
        if reply.status < 1:  # NOT_SENT or NO_ANSWER
            raise _make_error(reply, f"GET {self.url}{path}")
        return reply

    def send(
        self,
        requests: Sequence[Request],
        *,
        signed_at: datetime,
        expires_s: int,
        on_answer: Callable[[int, Answer], Answer] = lambda _index, answer: answer,
    ) -> list[Answer]:
        """Send changes, each once, in any order, several at a time.

        ``on_answer`` gets each request's index and answer, and returns what counts as the answer.
        The store refuses what comes later than ``expires_s`` after ``signed_at``.

        Raises
        ------
        KeyboardInterrupt
            After ``on_answer`` was called for every request. The effect of a request that was not
            sent is ``none``, of one without an answer ``unknown``.
        """
        answers = [Answer("none")] * len(requests)

        def take(index: int, reply: Reply) -> None:
            answers[index] = on_answer(index, read_answer(requests[index], reply))

        makers = [partial(self._make_message, each, signed_at, expires_s) for each in requests]
        self._http.exchange(makers, take)
        return answers

    def _make_message(
        self,
        request: Request,
        at: datetime | None = None,
        expires_s: int = _READ_EXPIRES_S,
    ) -> Message:
        """Return a request's HTTP message, signed at ``at``, or now by this machine's clock."""
        headers = {"host": self._host, **request.headers}
        query = request.query
        body = request.body
        if request.if_absent:
            headers["if-none-match"] = "*"
        condition = "if-match"
        if request.source:
            name = _SOURCES[request.kind]
            condition = f"{name}-if-match"
            headers[name] = quote(f"/{self.bucket}/{request.source}", safe="/~")
        if request.if_match:
            # Ceph takes the quotes in a put's header for a part of the ETag; others drop them.
            mark = "" if request.kind == "put" else '"'
            headers[condition] = f"{mark}{request.if_match}{mark}"
        if request.kind == "rename":
            query = {"renameObject": ""}
        if request.keys:
            query = {"delete": ""}
            body = _write_delete(request.keys)
            digest = hashlib.md5(body).digest()  # noqa: S324
            headers["content-md5"] = base64.b64encode(digest).decode()
        method = _METHODS.get(request.kind, request.kind.upper())
        path = f"{self._root}/{request.key}" if request.key else self._root or "/"
        path = quote(path, safe="/~")
        signed_at = at or datetime.now(UTC)
        signed_query = self._sign(f"{method}\n{path}", query, headers, signed_at, expires_s)
        return Message(method, f"{path}?{signed_query}", headers, body)

    def _sign(
        self,
        method_and_path: str,
        query: Texts,
        headers: Texts,
        at: datetime,
        expires_s: int,
    ) -> str:
        """Return the query of a presigned request (AWS Signature Version 4)."""
        date = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{date[:8]}/{self.region}/s3/aws4_request"
        signed_names = ";".join(sorted(headers))
        query = {
            **query,
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{self.access_key}/{scope}",
            "X-Amz-Date": date,
            "X-Amz-Expires": str(expires_s),
            "X-Amz-SignedHeaders": signed_names,
        }
        if self.session_token:
            query["X-Amz-Security-Token"] = self.session_token
        encoded = urlencode(sorted(query.items()), safe="~", quote_via=quote)
        lines = [
            f"{name}:{re.sub(' +', ' ', text.strip())}" for name, text in sorted(headers.items())
        ]
        request = "\n".join(
            [method_and_path, encoded, *lines, "", signed_names, "UNSIGNED-PAYLOAD"]
        )
        digest = hashlib.sha256(request.encode("latin-1")).hexdigest()
        signed_text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}"
        key = f"AWS4{self.secret_key}".encode()
        for part in [*scope.split("/"), signed_text]:
            key = hmac.digest(key, part.encode(), "sha256")
        return f"{encoded}&X-Amz-Signature={key.hex()}"


def _write_delete(keys: Texts) -> bytes:
    """Return the body of a bulk delete whose answer names only the keys that failed.

    In a full answer, some servers leave out the keys of what they deleted.
    """
    objects = []
    for key, etag in keys.items():
        condition = f"<ETag>{escape(etag)}</ETag>" if etag else ""
        objects.append(f"<Object><Key>{escape(key)}</Key>{condition}</Object>")
    return f"<Delete><Quiet>true</Quiet>{''.join(objects)}</Delete>".encode()


def read_answer(request: Request, reply: Reply) -> Answer:
    """Return what an HTTP reply proves about a change. Pure."""
    is_done = False
    etag = reply.headers.get("etag", "").strip('"')
    failed = {}
    match request.kind, reply.status:
        case "delete", 204:
            is_done = True
        case "put" | "rename", 200:
            is_done = not reply.body
        case "copy", 200:
            result = parse_xml(reply.body, "CopyObjectResult")
            etag = result.findtext("ETag", "").strip('"')
            is_done = etag != ""
        case "delete_many", 200:
            result = parse_xml(reply.body, "DeleteResult")
            for item in result.iterfind("Error"):
                failed[item.findtext("Key", "")] = item.findtext("Code") or "Unknown"
            is_done = result.tag != "" and failed.keys() <= request.keys.keys()
    if is_done:
        return Answer("done", etag, failed=failed, date=reply.headers.get("date", ""))
    code, message = _parse_error(reply)
    is_refused = reply.status == NOT_SENT or (reply.status == 403 and code in REFUSED)
    return Answer("none" if is_refused else "unknown", code=code, message=message)


def _parse_error(reply: Reply) -> tuple[str, str]:
    if reply.error:
        return "NotSent" if reply.status == NOT_SENT else "NoAnswer", reply.error
    error = parse_xml(reply.body, "Error")
    return error.findtext("Code") or f"HTTP {reply.status}", error.findtext("Message", "")


def parse_xml(body: bytes, root: str) -> ET.Element:
    """Return the root element, without namespaces; if it isn't ``root``, a nameless element."""
    nothing = ET.Element("")
    try:
        element = ET.fromstring(body)  # noqa: S314  # expat 2.4 and newer bounds entities
    except ET.ParseError:
        return nothing
    for each in element.iter():
        _, _, each.tag = each.tag.rpartition("}")
    return element if element.tag == root else nothing


def format_time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Parse ISO 8601 or an HTTP date, as UTC if it has no zone. Raises StoreError."""
    try:
        at = datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)
    except ValueError as error:
        raise StoreError(f"{text!r} is not a time") from error
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _make_error(reply: Reply, what: str) -> StoreError:
    code, message = _parse_error(reply)
    return StoreError(f"{what}: {code} {message}".strip(), code=code)
