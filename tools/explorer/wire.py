"""The raw HTTP of a simulated store: reads what ``S3Bucket`` sends, writes what stores answer.

Pure: what becomes of a request is decided in ``world``. Shapes and codes are those that were
measured on the JuiceFS gateway (MinIO's code) and on SeaweedFS; a rename is AWS's ``RenameObject``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cached_property, lru_cache
from types import MappingProxyType
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from .engine import http

CHANGES = ("copy", "rename", "put", "delete", "delete_many")
EPOCH = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
_PAGE = 1000
_SECOND = timedelta(seconds=1)
_NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_STATUS = {
    "AccessDenied": 403,
    "NoSuchKey": 404,
    "NotImplemented": 501,
    "PreconditionFailed": 412,
    "SlowDown": 503,
}

Reply = http.Reply

#: What something between us and the store makes up: nothing here bears the store's request id.
ROUTER: Mapping[str, http.Reply] = MappingProxyType(
    {
        "router-200": Reply(200, {"content-type": "text/html"}, b"<html>Log in</html>"),
        "router-403": Reply(403, {"content-type": "text/html"}, b"<html>Forbidden</html>"),
        "router-404": Reply(404, {"content-type": "text/plain"}, b"404 page not found\n"),
        "router-412": Reply(412, {"content-type": "text/plain"}, b"Precondition Failed\n"),
        "router-503": Reply(503, {"content-type": "application/json"}, b'{"error": "no route"}'),
    }
)
UNAVAILABLE = Reply(503, {"content-type": "text/plain"}, b"Service Unavailable\n")
NO_ANSWER = Reply(http.NO_ANSWER, error="the connection was closed before a whole answer")


@dataclass(frozen=True, slots=True)
class Version:
    """What lies at a key; ``label`` names the content, ``by`` who put it there."""

    label: str
    body: bytes
    etag: str
    at_ms: int
    by: str


@dataclass(frozen=True)
class Call:
    """One request as the store understands it.

    Attributes
    ----------
    kind : those in ``CHANGES`` change something; ``get head list`` only read
    key : what it is about; empty in a bulk delete and a listing
    keys : of a bulk delete, with the ETag that each object must have, or an empty text
    source, source_if_match : of a copy and a rename: from where, and only if it has this ETag
    if_match : of a put and a delete: only if the object has this ETag
    if_absent : of a copy, a rename and a put: only if nothing is at ``key``
    prefix, after, most : of a listing; ``after`` is the last key of the page before
    """

    kind: str
    key: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    source_if_match: str = ""
    if_match: str = ""
    if_absent: bool = False
    body: bytes = b""
    prefix: str = ""
    after: str = ""
    most: int = _PAGE

    @cached_property
    def is_change(self) -> bool:
        return self.kind in CHANGES

    @cached_property
    def verb(self) -> str:
        if self.kind == "get":
            return "read"
        if self.kind == "head":
            return "look"
        if self.kind == "list" and self.most == 1 and self.prefix == ".runbook/":
            return "clock"
        return self.kind

    @cached_property
    def touched(self) -> tuple[str, ...]:
        """Every key, or the prefix, that it touches; what it changes first."""
        if self.verb == "clock":
            return ()
        if self.kind == "list":
            return (self.prefix,)
        if self.kind == "delete_many":
            return tuple(self.keys)
        if self.source:
            return (self.key, self.source)
        return (self.key,)


def to_datetime(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=ms)


@lru_cache(maxsize=4096)
def _write_iso(ms: int) -> str:
    return to_datetime(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@lru_cache(maxsize=4096)
def _write_http(seconds: int) -> str:
    return format_datetime(to_datetime(seconds * 1000), usegmt=True)


_quote = lru_cache(maxsize=4096)(quote)


def sign(query: Mapping[str, str], at: datetime, expires_s: int) -> str:
    """Return a query with date, in whole seconds as a signature's, and expiry; no signature."""
    parts = [f"{name}={_quote(text)}&" for name, text in query.items()]
    return f"{''.join(parts)}date={(at - EPOCH) // _SECOND}&expires={expires_s}"


def read_message(sent: http.Message, bucket: str) -> tuple[Call, int]:
    headers = tuple(sent.headers.items())
    target, _, signed = sent.target.rpartition("date=")
    date_s, _, expires_s = signed.partition("&expires=")
    call = _read_call(sent.method, target, headers, sent.body, bucket)
    return call, (int(date_s) + int(expires_s)) * 1000


@lru_cache(maxsize=4096)
def _read_call(
    method: str, target: str, headers: tuple[tuple[str, str], ...], body: bytes, bucket: str
) -> Call:
    path, _, text = target.partition("?")
    query = dict(part.split("=", 1) for part in text.split("&") if part)
    name, _, key = unquote(path).removeprefix("/").partition("/")
    if name != bucket:
        raise ValueError(f"another bucket: {target}")
    match method:
        case "HEAD":
            return Call("head", key)
        case "GET" if key:
            return Call("get", key)
        case "GET":
            return _read_listing(query)
        case "POST" if "delete" in query:
            return Call("delete_many", keys=_read_keys(body))
        case "DELETE":
            return Call("delete", key, if_match=_read_etag(dict(headers), "if-match"))
        case "PUT":
            return _read_put(key, dict(headers), body, is_rename="renameObject" in query)
    raise ValueError(f"not an S3 request that is simulated: {method} {target}")


def _read_listing(query: Mapping[str, str]) -> Call:
    if "list-type" not in query:
        raise ValueError(f"not a listing that is simulated: {query}")
    return Call(
        "list",
        prefix=unquote(query.get("prefix", "")),
        after=unquote(query.get("continuation-token", query.get("start-after", ""))),
        most=min(int(query.get("max-keys", _PAGE)), _PAGE),
    )


def _read_etag(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "").strip('"')


def _read_put(key: str, headers: Mapping[str, str], body: bytes, *, is_rename: bool) -> Call:
    kind = "put"
    if is_rename:
        kind = "rename"
    elif "x-amz-copy-source" in headers:
        kind = "copy"
    source = unquote(headers.get(f"x-amz-{kind}-source", "")).lstrip("/").partition("/")[2]
    return Call(
        kind,
        key,
        source=source,
        source_if_match=_read_etag(headers, f"x-amz-{kind}-source-if-match"),
        if_match=_read_etag(headers, "if-match"),
        if_absent=headers.get("if-none-match") == "*",
        body=body,
    )


def _read_keys(body: bytes) -> dict[str, str]:
    """Return the keys of a bulk delete, with the ETags that it names."""
    root = ET.fromstring(body)  # noqa: S314  # our own
    etags = {}
    for item in root.iterfind("{*}Object"):
        etags[item.findtext("{*}Key") or ""] = (item.findtext("{*}ETag") or "").strip('"')
    return etags


def answer(
    status: int, store_ms: int, body: str | bytes = b"", headers: Mapping[str, str] | None = None
) -> http.Reply:
    content = body.encode() if isinstance(body, str) else body
    told = {
        "date": _write_http(store_ms // 1000),
        "x-amz-request-id": "18A5D1C0FFEE0000",
        "content-length": str(len(content)),
    }
    if isinstance(body, str):
        told["content-type"] = "application/xml"
    if headers:
        told.update(headers)
    return Reply(status, told, content)


def answer_error(code: str, store_ms: int, *, key: str = "", text: str = "") -> http.Reply:
    body = f"<Error><Code>{code}</Code><Message>{text}</Message><Key>{escape(key)}</Key></Error>"
    return answer(_STATUS[code], store_ms, body)


SLOW_DOWN = answer_error("SlowDown", 0, text="Please reduce your request rate")


def answer_object(version: Version, store_ms: int, *, is_head: bool) -> http.Reply:
    """Return an object, LastModified in whole seconds; of a HEAD without its content."""
    headers = {
        "etag": f'"{version.etag}"',
        "last-modified": _write_http(version.at_ms // 1000),
        "content-length": str(len(version.body)),
    }
    return answer(200, store_ms, b"" if is_head else version.body, headers)


def answer_copy(made: Version, store_ms: int) -> http.Reply:
    inner = (
        f"<LastModified>{_write_iso(made.at_ms)}</LastModified><ETag>&#34;{made.etag}&#34;</ETag>"
    )
    body = f"<CopyObjectResult{_NAMESPACE}>{inner}</CopyObjectResult>"
    return answer(200, store_ms, body)


def answer_deletes(failed: Mapping[str, str], store_ms: int) -> http.Reply:
    errors = "".join(
        f"<Error><Key>{escape(key)}</Key><Code>{code}</Code></Error>"
        for key, code in failed.items()
    )
    return answer(200, store_ms, f"<DeleteResult{_NAMESPACE}>{errors}</DeleteResult>")


def write_listing(call: Call, objects: Mapping[str, Version]) -> str:
    keys = [key for key in objects if key.startswith(call.prefix) and key > call.after]
    keys.sort()
    page = keys[: call.most]
    is_cut = len(keys) > len(page)
    parts = [f"<ListBucketResult{_NAMESPACE}>"]
    parts.append(f"<IsTruncated>{'true' if is_cut else 'false'}</IsTruncated>")
    if is_cut:
        parts.append(f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>")
    for key in page:
        version = objects[key]
        parts.append(_write_item(key, version.etag, len(version.body), version.at_ms))
    parts.append("</ListBucketResult>")
    return "".join(parts)


@lru_cache(maxsize=8192)
def _write_item(key: str, etag: str, size_bytes: int, at_ms: int) -> str:
    """Return one object of a listing; the pages of all runs have most of them in common."""
    at = _write_iso(at_ms)
    return (
        f"<Contents><Key>{_quote(key)}</Key><LastModified>{at}</LastModified>"
        f"<ETag>&#34;{etag}&#34;</ETag><Size>{size_bytes}</Size></Contents>"
    )
