"""One bucket of an S3 store, and the one place that sends requests that change it.

Every request is presigned. One that changes something is signed with a date that the caller names
and an expiry, so that the store itself refuses it when it comes too late, and is sent once: no
layer here, or below, sends it again. Reads are asked once more when a connection breaks.

Nothing here reads the environment: proxy, CA bundle, token and addressing are arguments.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import islice
from typing import Literal, Protocol
from urllib.parse import quote, unquote_plus, urlencode
from xml.etree import ElementTree as ET

from .errors import AbsentError, DeniedError, StoreError
from .http import Connections, Message, Reply

_META = "x-amz-meta-"
_ENCRYPTED = "server-side-encryption"
_KEPT_HEADERS = {f"content-{n}" for n in ("type", "encoding", "disposition", "language")}
_KEPT_HEADERS |= {"cache-control", "expires"}
#: 403 with one of these: the store looked at signature and rights, and did nothing.
_REFUSED = {
    "AccessDenied",
    "AllAccessDisabled",
    "AuthorizationQueryParametersError",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
}
_READ_EXPIRES_S = 900


@dataclass(frozen=True, slots=True)
class Seen:
    """One object as a listing or a HEAD shows it.

    ``etag`` is without quotes; ``last_modified`` is UTC, by a HEAD in whole seconds. ``metadata``
    (names in small letters, without ``x-amz-meta-``) and ``headers`` are known by a HEAD only.
    """

    key: str
    etag: str
    size_bytes: int
    last_modified: datetime
    metadata: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_hash(self) -> bool:
        """Whether the ETag is the MD5 of the content: not multipart, not encrypted; by a HEAD."""
        is_hex = len(self.etag) == 32 and not set(self.etag.lower()) - set("0123456789abcdef")
        return is_hex and not any(_ENCRYPTED in name for name in self.headers)

    def is_same(self, other: Seen) -> bool:
        """Tell whether two looks saw the same version: ETag, size, and LastModified in seconds."""
        ours, theirs = self.last_modified, other.last_modified
        if 0 in (ours.microsecond, theirs.microsecond):  # one is known in whole seconds only
            ours, theirs = ours.replace(microsecond=0), theirs.replace(microsecond=0)
        return ours == theirs and self.has_same_content(other)

    def has_same_content(self, other: Seen) -> bool:
        """Tell whether ETag and size are the same."""
        return (self.etag, self.size_bytes) == (other.etag, other.size_bytes)


@dataclass(frozen=True, slots=True)
class Request:
    """One request that changes the bucket.

    Attributes
    ----------
    kind : what it does
    key : what it changes
    source, if_match : of a copy: from where, and only if it has this ETag; of a delete: only if
        the object has this ETag
    if_absent : of a copy and a put: only if nothing is at ``key``
    body, headers : of a put; of a copy, headers that replace the source's, metadata included
    keys : of a bulk delete
    """

    kind: Literal["copy", "put", "delete", "delete_many"]
    key: str = ""
    source: str = ""
    if_match: str = ""
    if_absent: bool = False
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    keys: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request.

    Attributes
    ----------
    effect : ``done`` only by a well-formed answer that says so; ``none`` only when it was refused
        before the store acted, or never sent; everything else is ``unknown``
    etag, last_modified : of what a copy or a put made
    code, message : the store's error, or what broke
    failed : of a bulk delete: error code by key
    """

    effect: Literal["done", "none", "unknown"]
    etag: str = ""
    last_modified: datetime | None = None
    code: str = ""
    message: str = ""
    failed: Mapping[str, str] = field(default_factory=dict)


OnAnswer = Callable[[int, Answer], None]


class Bucket(Protocol):
    """What a move asks of a bucket: ``name`` at ``endpoint`` (host:port).

    Every method raises ``StoreError`` only.
    """

    endpoint: str
    name: str

    def list_objects(self, prefix: str) -> Iterator[Seen]:
        """Yield the objects under a prefix, in no certain order, folder markers left out."""

    def look(self, keys: Sequence[str]) -> dict[str, Seen | None]:
        """Return each object with its metadata, None where there is none.

        A key that could not be read is not in the answer.
        """

    def read(self, key: str) -> bytes | None:
        """Return an object's content, None when there is none."""

    def read_sha256(self, key: str) -> str:
        """Return the SHA-256 of an object's content."""

    def read_clock(self) -> datetime:
        """Return the store's time, in whole seconds."""

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
        signed_at, expires_s : the store refuses each request after that time
        on_answer : called with the index of a request and its answer as they come

        Raises
        ------
        KeyboardInterrupt
            After ``on_answer`` was called for every request: what was not sent is ``none``, what
            was not answered ``unknown``.
        """


def find_all(bucket: Bucket, prefix: str, keys: Sequence[str]) -> dict[str, Seen | None]:
    """Look many keys up that lie under one prefix: by a listing, or one by one in a large prefix.

    A key that could not be read is not in the answer. One that a listing does not show is asked
    for once more on its own, when it is one of a few: a listing of many pages is no instant.
    """
    wanted, found, passed, most = set(keys), dict[str, Seen | None](), 0, 4 * len(keys) + 1000
    for seen in islice(bucket.list_objects(prefix), most + 1):
        passed += 1
        if seen.key in wanted:
            found[seen.key] = seen
    missing = [key for key in keys if key not in found]
    if passed < 1000 or (passed <= most and len(missing) > len(keys) / 2):
        return found | dict.fromkeys(missing)
    return found | bucket.look(missing)


def is_key_supported(key: str) -> bool:
    """Tell whether every request (copy, bulk delete, listing) can name the key exactly.

    Segments ``.``, ``..`` and empty ones are folded by clients and servers; control characters
    cannot stand in the XML of a bulk delete.
    """
    return all(part not in ("", ".", "..") for part in key.split("/")) and not any(
        ch < " " or "\x7f" <= ch < "\xa0" or "\ud800" <= ch <= "\udfff" or ch in "\ufffe\uffff"
        for ch in key
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """One HTTP request, signed when it is sent."""

    method: str
    key: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(eq=False, repr=False, kw_only=True)
class S3Bucket:
    """A ``Bucket`` behind any S3 server.

    Parameters
    ----------
    endpoint : host:port
    bucket : its name
    access_key, secret_key, session_token, region : for signatures
    secure, ca_file : TLS, and whom to trust (default: certifi's list)
    virtual_host : address the bucket as host name, not as path
    proxy_url : ``http://[user:password@]host:port``; empty: none
    connect_s, read_s : time-outs of each request
    connections : requests at a time
    """

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    session_token: str = ""
    region: str = "us-east-1"
    secure: bool = False
    ca_file: str = ""
    virtual_host: bool = False
    proxy_url: str = ""
    connect_s: float = 2.0
    read_s: float = 10.0
    connections: int = 16

    def __post_init__(self) -> None:
        self.name, scheme = self.bucket, "https" if self.secure else "http"
        self.url = f"{scheme}://{self.endpoint}"
        self._host = f"{self.name}.{self.endpoint}" if self.virtual_host else self.endpoint
        self._root = "" if self.virtual_host else f"/{self.name}"
        self._signing_key: tuple[str, bytes] = ("", b"")
        server = (self._host, self.secure, self.ca_file, self.proxy_url)
        self._http = Connections(*server, self.connect_s, self.read_s, self.connections)

    # --- reads ---

    def list_objects(self, prefix: str) -> Iterator[Seen]:
        """Yield the objects under a prefix."""
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        what = f"list {self.name}/{prefix}"
        while True:
            page = _parse_xml(self._read(_Call("GET", query=query), what).body, "ListBucketResult")
            if page is None:
                raise StoreError(f"{what}: the answer is not a listing")
            for item in page.iterfind("{*}Contents"):
                key = unquote_plus(_text(item, "Key"))
                # A file-system store lists the folders that a bulk delete emptied.
                if not key.endswith("/"):
                    at = parse_time(_text(item, "LastModified"))
                    yield Seen(
                        key, _text(item, "ETag").strip('"'), int(_text(item, "Size") or 0), at
                    )
            token = _text(page, "NextContinuationToken")
            if _text(page, "IsTruncated") != "true":
                return
            if not token or query.get("continuation-token") == token:
                raise StoreError(f"{what}: the listing does not go on")
            query["continuation-token"] = token

    def look(
        self, keys: Sequence[str], *, failed: dict[str, StoreError] | None = None
    ) -> dict[str, Seen | None]:
        """Return each object with its metadata; ``failed`` gets why a key could not be read."""
        found: dict[str, Seen | None] = {}

        def take(index: int, reply: Reply) -> None:
            if reply.status == 200:
                found[keys[index]] = _to_seen(keys[index], reply.headers)
            elif reply.status == 404 and "html" not in reply.headers.get("content-type", ""):
                found[keys[index]] = None  # by a store, not by what stands in for it
            elif failed is not None:
                failed[keys[index]] = _explain(reply, f"read {keys[index]}")

        self._exchange([_Call("HEAD", key) for key in keys], take)
        return found

    def read(self, key: str) -> bytes | None:
        """Return an object's content, None when there is none."""
        try:
            return self._read(_Call("GET", key), f"read {key}").body
        except AbsentError:
            return None

    def read_sha256(self, key: str) -> str:
        """Return the SHA-256 of an object's content, read in parts."""
        digest = hashlib.sha256()
        self._read(_Call("GET", key), f"read {key}", sink=digest.update)
        return digest.hexdigest()

    def listen(self, prefix: str, sink: Callable[[bytes], None]) -> None:
        """Stream what a server like MinIO tells of writes under a prefix, until ``sink`` raises.

        Raises
        ------
        StoreError
            When the server does not tell, or the stream ended.
        """
        query = {"events": "s3:ObjectCreated:*", "prefix": prefix, "suffix": ""}
        self._read(_Call("GET", query=query), "listen to writes", sink=sink)

    def read_clock(self) -> datetime:
        """Return the store's time, from the Date header of a signed answer."""
        call = _Call("GET", query={"list-type": "2", "max-keys": "1", "prefix": ".runbook/"})
        return parse_time(self._read(call, "read the clock").headers.get("date", ""))

    def ask(self, path: str) -> Reply:
        """Return the answer to an unsigned GET of one of the server's own pages.

        Raises
        ------
        StoreError
            When there is none.
        """
        replies: list[Reply] = []
        message = Message("GET", path, {"host": self._host})
        self._http.exchange([lambda: message], lambda _, r: replies.append(r), resend=True)
        if replies[0].status < 1:
            raise _explain(replies[0], f"GET {self.url}{path}")
        return replies[0]

    def _read(self, call: _Call, what: str, sink: Callable[[bytes], None] | None = None) -> Reply:
        replies: list[Reply] = []
        self._exchange([call], lambda _, reply: replies.append(reply), sink=sink)
        if replies[0].status != 200:
            raise _explain(replies[0], what)
        return replies[0]

    # --- changes ---

    def send(
        self,
        requests: Sequence[Request],
        *,
        signed_at: datetime,
        expires_s: int,
        on_answer: OnAnswer = lambda _index, _answer: None,
    ) -> list[Answer]:
        """Send requests that change something, each once."""
        answers = [Answer("none", code="NotSent")] * len(requests)

        def take(index: int, reply: Reply) -> None:
            answers[index] = read_answer(requests[index], reply)
            on_answer(index, answers[index])

        calls = [self._to_call(request) for request in requests]
        self._exchange(calls, take, signed_at, expires_s)
        return answers

    def _to_call(self, request: Request) -> _Call:
        headers = dict(request.headers)
        if request.if_absent:
            headers["if-none-match"] = "*"
        if request.if_match:
            is_copy = request.kind == "copy"
            name = "x-amz-copy-source-if-match" if is_copy else "if-match"
            headers[name] = f'"{request.if_match}"'
        if request.kind == "copy":
            headers["x-amz-copy-source"] = quote(f"/{self.name}/{request.source}", safe="/~")
            if request.headers:
                headers["x-amz-metadata-directive"] = "REPLACE"
        if request.kind != "delete_many":
            method = "DELETE" if request.kind == "delete" else "PUT"
            return _Call(method, request.key, headers=headers, body=request.body)
        root = ET.Element("Delete")
        # The answer then names only what failed; some servers leave the key out of the others.
        ET.SubElement(root, "Quiet").text = "true"
        for key in request.keys:
            ET.SubElement(ET.SubElement(root, "Object"), "Key").text = key
        body = ET.tostring(root)
        headers["content-md5"] = base64.b64encode(hashlib.md5(body).digest()).decode()  # noqa: S324
        return _Call("POST", query={"delete": ""}, headers=headers, body=body)

    # --- below ---

    def _exchange(
        self,
        calls: Sequence[_Call],
        take: Callable[[int, Reply], None],
        signed_at: datetime | None = None,
        expires_s: int = _READ_EXPIRES_S,
        sink: Callable[[bytes], None] | None = None,
    ) -> None:
        """Send calls; reads are signed by our clock and may be sent again."""
        messages = [partial(self._sign, call, signed_at, expires_s) for call in calls]
        self._http.exchange(messages, take, resend=signed_at is None, sink=sink)

    def _sign(self, call: _Call, at: datetime | None, expires_s: int) -> Message:
        """Return a call with its signature (AWS signature version 4, in the query)."""
        headers = {"host": self._host, **call.headers}
        path = quote(f"{self._root}/{call.key}" if call.key else self._root or "/", safe="/~")
        date = (at or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{date[:8]}/{self.region}/s3/aws4_request"
        names = sorted(headers)
        query = {
            **call.query,
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{self.access_key}/{scope}",
            "X-Amz-Date": date,
            "X-Amz-Expires": str(expires_s),
            "X-Amz-SignedHeaders": ";".join(names),
        }
        if self.session_token:
            query["X-Amz-Security-Token"] = self.session_token
        encoded = urlencode(sorted(query.items()), safe="~", quote_via=quote)
        lines = [f"{name}:{headers[name].strip()}" for name in names]
        request = [call.method, path, encoded, *lines, "", ";".join(names), "UNSIGNED-PAYLOAD"]
        digest = hashlib.sha256("\n".join(request).encode("latin-1")).hexdigest()
        if self._signing_key[0] != scope:
            key = f"AWS4{self.secret_key}".encode()
            for part in scope.split("/"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._signing_key = (scope, key)
        text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest}"
        signature = hmac.digest(self._signing_key[1], text.encode(), "sha256").hex()
        target = f"{path}?{encoded}&X-Amz-Signature={signature}"
        return Message(call.method, target, headers, call.body)


def read_answer(request: Request, reply: Reply) -> Answer:
    """Tell what an HTTP reply proves of a request's effect; pure."""
    if reply.status < 1:
        is_sent = reply.status != Reply.NOT_SENT
        code = "NoAnswer" if is_sent else "NotSent"
        return Answer("unknown" if is_sent else "none", code=code, message=reply.error)
    if reply.status == 204 and request.kind == "delete":
        return Answer("done")
    if reply.status == 200:
        if request.kind == "put" and not reply.body:
            return Answer("done", reply.headers.get("etag", "").strip('"'))
        copied = _parse_xml(reply.body, "CopyObjectResult")
        if request.kind == "copy" and copied is not None:
            etag = _text(copied, "ETag").strip('"')
            with suppress(StoreError):
                at = parse_time(_text(copied, "LastModified"))
                return Answer("done" if etag else "unknown", etag, at)
        deleted = _parse_xml(reply.body, "DeleteResult")
        if request.kind == "delete_many" and deleted is not None:
            errors = deleted.iterfind("{*}Error")
            failed = {_text(item, "Key"): _text(item, "Code") or "Unknown" for item in errors}
            if set(failed) <= set(request.keys):
                return Answer("done", failed=failed)
    code, message = _parse_error(reply.body)
    is_refused = reply.status == 403 and code in _REFUSED
    code = code or f"HTTP {reply.status}"
    return Answer("none" if is_refused else "unknown", code=code, message=message)


def _text(element: ET.Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}") or ""


def _parse_error(body: bytes) -> tuple[str, str]:
    """Return code and message of a store's error; empty when it is none."""
    error = _parse_xml(body, "Error")
    return ("", "") if error is None else (_text(error, "Code"), _text(error, "Message"))


def _parse_xml(body: bytes, root: str) -> ET.Element | None:
    """Return the root element if the body is XML and it has that name."""
    if body.lstrip()[:1] != b"<":
        return None
    try:
        found = ET.fromstring(body)  # noqa: S314  # expat 2.4 and newer bounds entities
    except ET.ParseError:
        return None
    return found if found.tag.rpartition("}")[2] == root else None


def format_time(at: datetime) -> str:
    """Write a time as ISO 8601 UTC with ``Z`` and milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Parse ISO 8601, or the form of HTTP headers, into UTC."""
    try:
        at = datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)
    except ValueError as error:
        raise StoreError(f"{text!r} is not a time") from error
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _to_seen(key: str, headers: Mapping[str, str]) -> Seen:
    return Seen(
        key,
        headers.get("etag", "").strip('"'),
        int(headers.get("content-length") or 0),
        parse_time(headers.get("last-modified", "")),
        {n[len(_META) :]: text for n, text in headers.items() if n.startswith(_META)},
        {n: text for n, text in headers.items() if n in _KEPT_HEADERS or _ENCRYPTED in n},
    )


def _explain(reply: Reply, what: str) -> StoreError:
    if reply.status < 1:
        return StoreError(f"{what}: {reply.error}", code="NoAnswer" if reply.status else "NotSent")
    code, message = _parse_error(reply.body)
    absent = AbsentError if code else StoreError
    kind = {404: absent, 403: DeniedError, 401: DeniedError}.get(reply.status, StoreError)
    return kind(f"{what}: {code or reply.status} {message}".strip(), code=code)
