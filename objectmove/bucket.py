"""One bucket of an S3 store, and the one place that sends requests that change it.

Every request about the bucket is presigned. The caller names date and expiry of a request that
changes something, so that the store itself refuses the request when it comes too late. Such a
request is sent once: no layer here, or below, sends it again. A read is sent once more when its
connection breaks, unless its body is taken in parts.

Nothing here reads the environment: proxy, CA bundle, token and addressing are arguments.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from itertools import islice
from typing import Literal
from urllib.parse import quote, unquote_plus, urlencode
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from .errors import AbsentError, DeniedError, StoreError
from .message import Message, Reach, Reply, Sink

Texts = Mapping[str, str]

_NO_TEXTS: Texts = {}

_META = "x-amz-meta-"
_ENCRYPTION = "x-amz-server-side-encryption"
_CUSTOMER_KEY = "x-amz-server-side-encryption-customer-algorithm"
ABSENCE_MARK = "x-amz-request-id"
"""A 404 that bears this header comes from the store, not from something in front of it."""
#: If our clock and the store's differ by at least this, the error of a 403 says so.
_CLOCK_OFF = timedelta(minutes=4)
#: A copy with headers of its own must repeat these headers of its source.
_KEPT_HEADERS = {
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
}
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
"""Codes of a 403 by which the store says that it checked signature and rights, and did nothing."""
#: Characters that some requests cannot carry: controls, surrogates, and what XML 1.0 forbids.
_UNSUPPORTED = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_MD5 = re.compile("[0-9a-f]{32}")
#: The most keys that ``find_all`` looks at before it calls ``on_way`` again.
_PORTION = 1000
#: How long the signature of a read is valid.
_READ_EXPIRES_S = 900
#: The HTTP method of each kind of request that is not named after its method.
_METHODS = {"copy": "PUT", "delete_many": "POST"}


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object; ``etag`` is without quotes, ``last_modified`` is UTC."""

    key: str
    etag: str
    size_bytes: int
    last_modified: datetime

    def is_same(self, other: Version) -> bool:
        """Tell whether both are the same version: the same ETag, size and LastModified.

        If one of the two times has no fraction of a second, whole seconds are compared.
        """
        if not self.has_same_content(other):
            return False
        ours = self.last_modified
        theirs = other.last_modified
        if 0 in (ours.microsecond, theirs.microsecond):
            return ours.replace(microsecond=0) == theirs.replace(microsecond=0)
        return ours == theirs

    def has_same_content(self, other: Version) -> bool:
        """Tell whether both have the same ETag and size."""
        return (self.etag, self.size_bytes) == (other.etag, other.size_bytes)


@dataclass(frozen=True, slots=True)
class Seen(Version):
    """One object as a listing or a HEAD shows it; a HEAD gives its time in whole seconds.

    A listing gives no ``metadata`` (names in small letters, without ``x-amz-meta-``) and no
    ``headers``. Only a listing of versions gives ``version_id``. ``has_etag`` is false if a HEAD
    showed no ETag. Then ``etag`` is the MD5 of the content, and no request may name it as a
    condition.
    """

    metadata: Texts | None = None
    headers: Texts = field(default_factory=lambda: _NO_TEXTS)
    version_id: str = ""
    has_etag: bool = True

    @property
    def has_hash(self) -> bool:
        """Whether the ETag can be the MD5 of the content, by what a HEAD says.

        After a multipart upload, and when an object is encrypted with a KMS key or a client's key,
        the ETag is no MD5. The probe finds out whether this store's other ETags are MD5s.
        """
        is_md5 = _MD5.fullmatch(self.etag.lower()) is not None
        encryption = self.headers.get(_ENCRYPTION, "")
        has_own_key = _CUSTOMER_KEY in self.headers or encryption.startswith("aws:kms")
        return is_md5 and not has_own_key


@dataclass(frozen=True, slots=True)
class Request:
    """One request; all but ``get`` and ``head`` change the bucket.

    Attributes
    ----------
    kind : what the request does
    key : the object that is changed or read; empty in a bulk delete, and to get a listing
    source : of a copy: the key to copy from
    if_match : the ETag that an object must have, else nothing is done: in a copy the object at
        ``source``, in a delete the object at ``key``; empty: any ETag
    if_absent : of a copy and a put: do it only if nothing is at ``key``
    body : of a put
    headers : of a put; of a copy, headers that replace the source's, metadata included
    keys : of a bulk delete
    query : of a get
    """

    kind: Literal["copy", "put", "delete", "delete_many", "get", "head"]
    key: str = ""
    source: str = ""
    if_match: str = ""
    if_absent: bool = False
    body: bytes = b""
    headers: Texts = field(default_factory=dict)
    keys: Sequence[str] = ()
    query: Texts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request.

    Attributes
    ----------
    effect : ``done`` only by a well-formed answer that says so; ``none`` only when the request was
        refused before the store acted, or never sent; everything else is ``unknown``
    etag : of the object that a copy or a put made
    last_modified : of the object that a copy made
    version_id : of the object that a put made, in a bucket that keeps versions
    code, message : the store's error, or what broke
    failed : of a bulk delete: for each key that was not deleted, the error code
    """

    effect: Literal["done", "none", "unknown"]
    etag: str = ""
    last_modified: datetime | None = None
    code: str = ""
    message: str = ""
    failed: Texts = field(default_factory=dict)
    version_id: str = ""


OnAnswer = Callable[[int, Answer], None]
"""Takes the index of a request, and its answer."""

Look = dict[str, Seen | None]
"""What is at each key; None where nothing is. A key that could not be read is missing."""

_NOT_SENT = Answer("none", code="NotSent")
_NO_ANSWER = Answer("unknown", code="NoAnswer")
_UNANSWERED = {Reply.NOT_SENT: _NOT_SENT, Reply.NO_ANSWER: _NO_ANSWER}


def find_all(
    bucket: S3Bucket,
    prefix: str,
    keys: Sequence[str],
    *,
    on_way: Callable[[], None] = lambda: None,
) -> Look:
    """Look up many keys under one prefix: by a listing, or one by one if the listing is long.

    A key that a whole listing does not name counts as absent.

    Parameters
    ----------
    on_way : called again and again during the search, so that the caller can keep its claim
    """
    max_listed = 4 * len(keys) + 1000  # to list more would cost more than to look at each key
    looks: Look = dict.fromkeys(keys)
    count = 0
    for seen in islice(bucket.list_objects(prefix), max_listed):
        count += 1
        if seen.key in looks:
            looks[seen.key] = seen
        on_way()
    if count < max_listed:  # the listing came to its end
        add_missing_etags(bucket, looks)
        return looks
    looks = {}
    for start in range(0, len(keys), _PORTION):
        portion = keys[start : start + _PORTION]
        looks.update(bucket.look(portion))
        on_way()
    return looks


def add_missing_etags(bucket: S3Bucket, looks: Look) -> None:
    """Look again at objects that a listing shows without an ETag. Changes ``looks``."""
    keys = [key for key, seen in looks.items() if seen is not None and not seen.etag]
    if not keys:
        return
    for key in keys:
        del looks[key]
    looks.update(bucket.look(keys))


def is_key_supported(key: str) -> bool:
    """Tell whether every request (copy, bulk delete, listing) can name the key exactly.

    Clients and servers remove empty segments and the segments ``.`` and ``..``: the request would
    name another key. Control characters cannot stand in the XML of a bulk delete.
    """
    if _UNSUPPORTED.search(key) is not None:
        return False
    segments = key.split("/")
    return not any(segment in ("", ".", "..") for segment in segments)


@dataclass(eq=False, repr=False, kw_only=True)
class S3Bucket(Reach):
    """A bucket behind any S3 server. Of this package's errors, it raises only ``StoreError``.

    Parameters
    ----------
    endpoint : host:port
    bucket : the bucket's name
    access_key, secret_key, session_token, region : for signatures
    virtual_host : whether requests name the bucket in the host name, not in the path
    """

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    session_token: str = ""
    region: str = "us-east-1"
    virtual_host: bool = False

    def __post_init__(self) -> None:
        from .http import Connections  # imported late: its libraries take a while to load

        scheme = "https" if self.secure else "http"
        self.name = self.bucket
        self.url = f"{scheme}://{self.endpoint}"
        if self.virtual_host:
            self._host = f"{self.name}.{self.endpoint}"
            self._root = ""
        else:
            self._host = self.endpoint
            self._root = f"/{self.name}"
        self._http = Connections(self._host, self)

    def list_objects(
        self, prefix: str, *, with_folders: bool = False, start: str = ""
    ) -> Iterator[Seen]:
        """Yield the objects under a prefix, in any order.

        Parameters
        ----------
        with_folders : include keys that end with ``/``. A store on a file system lists such keys
            for folders that a bulk delete emptied
        start : leave out most keys before this one, where the store lists keys in their order
        """
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        if start:
            query["start-after"] = start[:-1]  # sorts before ``start``, so ``start`` is listed
        what = f"list {self.name}/{prefix}"
        while True:
            page = self._fetch_page(query, what, "ListBucketResult")
            for seen in _read_objects(page, "Contents"):
                if with_folders or not seen.key.endswith("/"):
                    yield seen
            if _text(page, "IsTruncated") != "true":
                return
            token = _text(page, "NextContinuationToken")
            if not token or query.get("continuation-token") == token:
                raise StoreError(f"{what}: the listing does not go on")
            query["continuation-token"] = token

    def list_versions(self, prefix: str) -> Iterator[Seen]:
        """Yield every version of the objects under a prefix; delete markers are left out."""
        query = {"versions": "", "prefix": prefix, "encoding-type": "url"}
        what = f"list the versions of {self.name}/{prefix}"
        while True:
            page = self._fetch_page(query, what, "ListVersionsResult")
            yield from _read_objects(page, "Version")
            if _text(page, "IsTruncated") != "true":
                return
            marker = unquote_plus(_text(page, "NextKeyMarker"))
            version_marker = _text(page, "NextVersionIdMarker")
            markers = (query.get("key-marker"), query.get("version-id-marker"))
            if not marker or markers == (marker, version_marker):
                raise StoreError(f"{what}: the listing does not go on")
            query["key-marker"] = marker
            query["version-id-marker"] = version_marker

    def _fetch_page(self, query: Texts, what: str, root: str) -> ET.Element:
        """Return one page of a listing.

        Parameters
        ----------
        what : what the request does, in words
        root : the name of the XML's root element
        """
        reply = self.fetch(Request("get", query=query), what)
        page = parse_xml(reply.body, root)
        if page is None:
            raise StoreError(f"{what}: the answer is not a listing")
        return page

    def look(
        self,
        keys: Sequence[str],
        *,
        failed: dict[str, StoreError] | None = None,
        marks_absence: bool | None = None,
    ) -> Look:
        """Return each object with its metadata; leave out the keys that could not be read.

        A 404 counts if it bears the mark of the store, unless ``marks_absence`` is False. After any
        other 404, a listing must show that nothing is there.

        Parameters
        ----------
        failed : is filled: for each key that could not be read, the error
        marks_absence : whether this store's own answers bear ``ABSENCE_MARK``; if so, a 200
            without the mark counts as not read: something in front of the store may have sent it.
            None: not known
        """
        looks: Look = {}
        heads = [partial(self._make_message, Request("head", key)) for key in keys]
        replies = self._http.exchange(heads, resend=True)
        for key, reply in zip(keys, replies, strict=True):
            try:
                is_marked = ABSENCE_MARK in reply.headers
                if reply.status == 200 and is_marked and not _get_etag(reply.headers):
                    looks[key] = self._see_without_etag(key)
                elif reply.status == 200 and (is_marked or not marks_absence):
                    looks[key] = _to_seen(key, reply.headers)
                elif self._is_absent(reply, key, marks_absence=marks_absence):
                    looks[key] = None
                else:
                    raise _make_error(reply, f"read {key}")
            except StoreError as error:
                if failed is not None:
                    failed[key] = error
        return looks

    def _see_without_etag(self, key: str) -> Seen:
        """Return an object that has no ETag, with the MD5 of its content instead.

        On the JuiceFS gateway, a copy may have no ETag if its source was deleted at that moment.
        """
        digest = hashlib.md5(usedforsecurity=False)
        reply = self.fetch(Request("get", key), f"read {key}", digest.update)
        if ABSENCE_MARK not in reply.headers:
            raise StoreError(f"read {key}: the answer is not the store's")
        headers = {**reply.headers, "etag": digest.hexdigest()}
        return replace(_to_seen(key, headers), has_etag=False)

    def has_absence_mark(self, key: str) -> bool:
        """Tell whether the answer to a HEAD of an absent key bears ``ABSENCE_MARK``.

        Only reads.

        Raises
        ------
        StoreError
            When the answer is no 404.
        """
        reply = self._read(Request("head", key))
        if reply.status != 404:
            raise _make_error(reply, f"read {key}")
        return ABSENCE_MARK in reply.headers

    def _read(self, request: Request, sink: Sink | None = None) -> Reply:
        """Return the answer to one read, whatever its status."""
        make = partial(self._make_message, request)
        (reply,) = self._http.exchange([make], resend=True, sink=sink)
        return reply

    def _is_absent(self, reply: Reply, key: str, *, marks_absence: bool | None = None) -> bool:
        """Tell whether an answer proves that there is no such object.

        A 404 without the store's mark may come from something in front of the store: then a
        listing decides. A listing always decides where ``marks_absence`` is False: there the mark
        proves nothing.
        """
        if reply.status != 404:
            return False
        if marks_absence is not False and ABSENCE_MARK in reply.headers:
            return True
        return not self._is_listed(key)

    def _is_listed(self, key: str) -> bool:
        """Tell whether the first entry of a listing with the key as prefix is the key itself."""
        query = {"list-type": "2", "prefix": key, "max-keys": "1", "encoding-type": "url"}
        page = self._fetch_page(query, f"list {self.name}/{key}", "ListBucketResult")
        items = page.iterfind("{*}Contents")
        keys = [unquote_plus(_text(item, "Key")) for item in items]
        return key in keys

    def read(self, key: str) -> bytes | None:
        """Return an object's content; None when there is no such object."""
        reply = self._read(Request("get", key))
        if reply.status == 200:
            return reply.body
        if self._is_absent(reply, key):
            return None
        raise _make_error(reply, f"read {key}")

    def read_sha256(self, key: str) -> str:
        """Return the SHA-256 of an object's content, read in parts."""
        digest = hashlib.sha256()
        request = Request("get", key)
        self.fetch(request, f"read {key}", digest.update)
        return digest.hexdigest()

    def fetch(self, request: Request, what: str, sink: Sink | None = None) -> Reply:
        """Return the answer to a read that succeeded.

        Parameters
        ----------
        what : what the request does, in words
        sink : takes the body in parts, as they come; the answer then has no body

        Raises
        ------
        StoreError
            When the status is not 200.
        """
        reply = self._read(request, sink)
        if reply.status != 200:
            raise _make_error(reply, what)
        return reply

    def read_clock(self) -> datetime:
        """Return the store's time in whole seconds, from the Date header of a signed answer."""
        query = {"list-type": "2", "max-keys": "1", "prefix": ".runbook/"}
        request = Request("get", query=query)
        reply = self.fetch(request, "read the clock")
        date = reply.headers.get("date", "")
        return parse_time(date)

    def ask(self, path: str) -> Reply:
        """Return the answer to an unsigned GET of one of the server's own pages.

        Raises
        ------
        StoreError
            When there is no answer.
        """
        message = Message("GET", path, {"host": self._host})
        (reply,) = self._http.exchange([lambda: message], resend=True)
        if reply.status < 1:  # NOT_SENT or NO_ANSWER
            raise _make_error(reply, f"GET {self.url}{path}")
        return reply

    def send(
        self,
        requests: Sequence[Request],
        *,
        signed_at: datetime,
        expires_s: int,
        on_answer: OnAnswer = lambda _index, _answer: None,
    ) -> list[Answer]:
        """Send requests that change something, each once, in any order, several at a time.

        Parameters
        ----------
        signed_at, expires_s : the store refuses each request that comes later than ``expires_s``
            seconds after ``signed_at``
        on_answer : called with each answer as it comes

        Raises
        ------
        KeyboardInterrupt
            After ``on_answer`` was called for every request. The effect of a request that was not
            sent is ``none``, of one without an answer ``unknown``.
        """
        answers = [_NOT_SENT] * len(requests)

        def take(index: int, reply: Reply) -> None:
            """Keep what a reply proves, and pass it on."""
            answers[index] = read_answer(requests[index], reply)
            on_answer(index, answers[index])

        makers = [
            partial(self._make_message, request, signed_at, expires_s) for request in requests
        ]
        self._http.exchange(makers, take)
        return answers

    def _make_message(
        self,
        request: Request,
        at: datetime | None = None,
        expires_s: int = _READ_EXPIRES_S,
    ) -> Message:
        """Return the HTTP message of a request.

        Parameters
        ----------
        at : the date of the signature; None: the time of our own clock, which is enough for a read
        """
        headers = {"host": self._host, **request.headers}
        query = request.query
        body = request.body
        if request.if_absent:
            headers["if-none-match"] = "*"
        if request.if_match:
            name = "x-amz-copy-source-if-match" if request.source else "if-match"
            headers[name] = f'"{request.if_match}"'
        if request.source:
            headers["x-amz-copy-source"] = quote(f"/{self.name}/{request.source}", safe="/~")
            if request.headers:
                headers["x-amz-metadata-directive"] = "REPLACE"
        if request.keys:
            query = {"delete": ""}
            body = _write_delete(request.keys)
            digest = hashlib.md5(body).digest()  # noqa: S324
            headers["content-md5"] = base64.b64encode(digest).decode()
        method = _METHODS.get(request.kind, request.kind.upper())
        path = f"{self._root}/{request.key}" if request.key else self._root or "/"
        path = quote(path, safe="/~")
        signed_query = self._sign(
            f"{method}\n{path}",
            query,
            headers,
            at or datetime.now(UTC),
            expires_s,
        )
        return Message(method, f"{path}?{signed_query}", headers, body)

    def _sign(
        self,
        method_and_path: str,
        query: Texts,
        headers: Texts,
        at: datetime,
        expires_s: int,
    ) -> str:
        """Return the query of a presigned URL (AWS signature version 4).

        Parameters
        ----------
        method_and_path : both as in the request, with a line break between them
        """
        date = at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{date[:8]}/{self.region}/s3/aws4_request"
        names = sorted(headers)
        signed_names = ";".join(names)
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
        encoded = _encode_query(tuple(sorted(query.items())))
        lines = [f"{name}:{headers[name].strip()}" for name in names]
        request = "\n".join(
            [method_and_path, encoded, *lines, "", signed_names, "UNSIGNED-PAYLOAD"]
        )
        digest = hashlib.sha256(request.encode("latin-1")).hexdigest()
        signed_text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}"
        key = _derive_key(self.secret_key, scope)
        signature = hmac.digest(key, signed_text.encode(), "sha256")
        return f"{encoded}&X-Amz-Signature={signature.hex()}"


@lru_cache(maxsize=64)
def _encode_query(query: tuple[tuple[str, str], ...]) -> str:
    """Return a query as it is signed. Requests of one kind and date share one cached query."""
    return urlencode(query, safe="~", quote_via=quote)


@lru_cache(maxsize=8)
def _derive_key(secret_key: str, scope: str) -> bytes:
    """Return the key that signs requests of one day (AWS signature version 4)."""
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _write_delete(keys: Sequence[str]) -> bytes:
    """Return the body of a bulk delete whose answer names only the keys that failed.

    In a full answer, some servers leave out the keys of what they deleted.
    """
    objects = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f"<Delete><Quiet>true</Quiet>{objects}</Delete>".encode()


def read_answer(request: Request, reply: Reply) -> Answer:
    """Return what an HTTP reply proves of a changing request's effect. Pure."""
    if reply.status in _UNANSWERED:
        return replace(_UNANSWERED[reply.status], message=reply.error)
    answer = _read_success(request, reply)
    if answer is not None:
        return answer
    code, message = _parse_error(reply.body)
    if reply.status == 403 and code in REFUSED:
        return Answer("none", code=code, message=message)
    return Answer("unknown", code=code or f"HTTP {reply.status}", message=message)


def _read_success(request: Request, reply: Reply) -> Answer | None:
    """Return the answer if the reply is a well-formed success; None for any other reply."""
    match request.kind, reply.status:
        case "delete", 204:
            return Answer("done")
        case "put", 200 if not reply.body:
            etag = reply.headers.get("etag", "").strip('"')
            return Answer("done", etag, version_id=reply.headers.get("x-amz-version-id", ""))
        case "copy", 200:
            return _read_copy_result(reply)
        case "delete_many", 200:
            return _read_delete_result(request, reply)
    return None


def _read_copy_result(reply: Reply) -> Answer | None:
    """Return what the result of a copy says; None when the body is no such result."""
    result = parse_xml(reply.body, "CopyObjectResult")
    if result is None:
        return None
    etag = _text(result, "ETag").strip('"')
    try:
        at = parse_time(_text(result, "LastModified"))
    except StoreError:
        return None
    if not etag:
        return Answer("unknown", last_modified=at, code="NoETag", message="no ETag in the answer")
    return Answer("done", etag, at)


def _read_delete_result(request: Request, reply: Reply) -> Answer | None:
    """Return what the result of a bulk delete says; None when it is not about this request."""
    result = parse_xml(reply.body, "DeleteResult")
    if result is None:
        return None
    failed = {}
    for item in result.iterfind("{*}Error"):
        key = _text(item, "Key")
        failed[key] = _text(item, "Code") or "Unknown"
    if not failed.keys() <= set(request.keys):
        return None
    return Answer("done", failed=failed)


def _read_objects(page: ET.Element, tag: str) -> list[Seen]:
    """Return the objects, or versions of objects, on a page of a listing."""
    objects = []
    for item in page.iterfind(f"{{*}}{tag}"):
        fields = _read_fields(item)
        seen = Seen(
            key=unquote_plus(fields.get("Key", "")),
            etag=fields.get("ETag", "").strip('"'),
            size_bytes=int(fields.get("Size") or 0),
            last_modified=parse_time(fields.get("LastModified", "")),
            version_id=fields.get("VersionId", ""),
        )
        objects.append(seen)
    return objects


def _read_fields(element: ET.Element) -> dict[str, str]:
    """Return the texts of an element's children; the keys are their names without namespace."""
    texts = {}
    for child in element:
        _, _, name = child.tag.rpartition("}")
        texts[name] = child.text or ""
    return texts


def _text(element: ET.Element, name: str) -> str:
    """Return the text of an element's child; empty when there is none."""
    return element.findtext(f"{{*}}{name}") or ""


def _parse_error(body: bytes) -> tuple[str, str]:
    """Return code and message of a store's error; two empty texts for any other answer."""
    error = parse_xml(body, "Error")
    if error is None:
        return "", ""
    return _text(error, "Code"), _text(error, "Message")


def parse_xml(body: bytes, root: str) -> ET.Element | None:
    """Return the root element; None unless the body is XML and the root has this name."""
    if body.lstrip()[:1] != b"<":
        return None
    try:
        element = ET.fromstring(body)  # noqa: S314  # expat 2.4 and newer bounds entities
    except ET.ParseError:
        return None
    return element if element.tag.rpartition("}")[2] == root else None


def format_time(at: datetime) -> str:
    """Write a time as ISO 8601 UTC with ``Z`` and milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Parse ISO 8601, or the form of HTTP headers, into UTC. A time without a zone is UTC.

    Raises
    ------
    StoreError
        When the text is not a time.
    """
    try:
        at = datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)
    except ValueError as error:
        raise StoreError(f"{text!r} is not a time") from error
    if at.tzinfo is None:
        return at.replace(tzinfo=UTC)
    return at.astimezone(UTC)


def _get_etag(headers: Texts) -> str:
    """Return the ETag without quotes; empty when there is none."""
    return headers.get("etag", "").strip('"')


def _to_seen(key: str, headers: Texts) -> Seen:
    """Return the object that the headers of an answer describe.

    Raises
    ------
    StoreError
        When the headers are not about an object.
    """
    etag = _get_etag(headers)
    length = headers.get("content-length", "")
    if not etag or not length.isdecimal():
        raise StoreError(f"read {key}: the answer is not about an object")
    metadata = {}
    kept = {}
    for name, text in headers.items():
        if name.startswith(_META):
            metadata[name.removeprefix(_META)] = text
        if name in _KEPT_HEADERS or _ENCRYPTION in name:
            kept[name] = text
    at = parse_time(headers.get("last-modified", ""))
    return Seen(key, etag, int(length), at, metadata, kept)


def _make_error(reply: Reply, what: str) -> StoreError:
    """Return the error that says why a request failed.

    Parameters
    ----------
    what : what the request does, in words
    """
    if reply.status < 1:  # NOT_SENT or NO_ANSWER
        code = _UNANSWERED[reply.status].code
        return StoreError(f"{what}: {reply.error}", code=code)
    code, message = _parse_error(reply.body)
    reason = code or reply.status
    text = f"{what}: {reason} {message}".strip()
    if reply.status == 403:
        date = reply.headers.get("date", "")
        text += _describe_clock(date)
    if reply.status == 404 and code:
        return AbsentError(text, code=code)
    if reply.status in (401, 403):
        return DeniedError(text, code=code)
    return StoreError(text, code=code)


def _describe_clock(date: str) -> str:
    """Say how far this machine's clock is off.

    Empty when it is off by less than ``_CLOCK_OFF``, and when ``date`` is no time.

    Parameters
    ----------
    date : the store's time, as an HTTP header gives it
    """
    try:
        ahead = datetime.now(UTC) - parse_time(date)
    except StoreError:
        return ""
    if abs(ahead) < _CLOCK_OFF:
        return ""
    minutes = abs(ahead).total_seconds() / 60
    side = "ahead of" if ahead > timedelta(0) else "behind"
    return f". The clock of this machine is {minutes:.0f} min {side} the store's: correct it"
