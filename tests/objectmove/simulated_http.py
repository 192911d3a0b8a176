"""The raw HTTP of a simulated store: reads what ``S3Bucket`` sends, writes what stores answer.

Pure: what becomes of a request is decided in ``simulation``. Shapes and codes are those that were
measured on the JuiceFS gateway (MinIO's code) and on SeaweedFS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cached_property, lru_cache
from types import MappingProxyType
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape, unescape

from objectmove.message import Message, Reply

__all__ = [
    "CHANGES",
    "EPOCH",
    "NO_ANSWER",
    "ROUTER",
    "SLOW_DOWN",
    "UNAVAILABLE",
    "Call",
    "Version",
    "answer",
    "answer_copy",
    "answer_deletes",
    "answer_error",
    "answer_object",
    "answer_versions",
    "read_message",
    "sign",
    "to_datetime",
    "to_ms",
    "write_listing",
]

EPOCH = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)
CHANGES = ("copy", "put", "delete", "delete_many")
_META = "x-amz-meta-"
_KEPT = {f"content-{name}" for name in ("type", "encoding", "disposition", "language")}
_KEPT |= {"cache-control", "expires"}
_PAGE = 1000
_SECOND = timedelta(seconds=1)
_NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_STATUS = {
    "AccessDenied": 403,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NotImplemented": 501,
    "PreconditionFailed": 412,
    "SlowDown": 503,
}

#: What something between us and the store makes up: nothing here bears the store's request id.
ROUTER: Mapping[str, Reply] = MappingProxyType(
    {
        "router-200": Reply(200, {"content-type": "text/html"}, b"<html>Log in</html>"),
        "router-403": Reply(403, {"content-type": "text/html"}, b"<html>Forbidden</html>"),
        "router-404": Reply(404, {"content-type": "text/plain"}, b"404 page not found\n"),
        "router-412": Reply(412, {"content-type": "text/plain"}, b"Precondition Failed\n"),
        "router-503": Reply(503, {"content-type": "application/json"}, b'{"error": "no route"}'),
    }
)
UNAVAILABLE = Reply(503, {"content-type": "text/plain"}, b"Service Unavailable\n")
NO_ANSWER = Reply(Reply.NO_ANSWER, error="the connection was closed before a whole answer")


@dataclass(frozen=True, slots=True)
class Version:
    """What lies at a key; ``label`` names the content, ``by`` who put it there.

    ``id`` is empty in a bucket without versions; ``is_marker``: it stands for a delete.
    """

    label: str
    body: bytes
    etag: str
    at_ms: int
    by: str
    metadata: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    id: str = ""
    is_marker: bool = False


@dataclass(frozen=True)
class Call:
    """One request as the store understands it.

    Attributes
    ----------
    kind : ``copy put delete delete_many`` change; ``get head list versions`` only read
    key, keys : what it is about
    source, source_if_match : of a copy: from where, and only if it has this ETag
    if_match : of a delete: only if the object has this ETag
    if_absent : of a copy and a put: only if nothing is at ``key``
    replaces : a copy that takes ``metadata`` and ``headers`` from the request
    prefix, after, most, is_encoded : of a listing; ``after`` is the last key of the page before
    """

    kind: str
    key: str = ""
    keys: tuple[str, ...] = ()
    source: str = ""
    source_if_match: str = ""
    if_match: str = ""
    if_absent: bool = False
    replaces: bool = False
    body: bytes = b""
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    after: str = ""
    most: int = _PAGE
    is_encoded: bool = False

    @cached_property
    def is_change(self) -> bool:
        """Whether it changes the bucket."""
        return self.kind in CHANGES

    @cached_property
    def verb(self) -> str:
        """What the director is told that it does."""
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
        if self.kind in ("list", "versions"):
            return (self.prefix,)
        if self.kind == "delete_many":
            return self.keys
        if self.source:
            return (self.key, self.source)
        return (self.key,)


# --- time ---


def to_datetime(ms: int) -> datetime:
    """Return virtual milliseconds as a time."""
    return EPOCH + timedelta(milliseconds=ms)


def to_ms(at: datetime) -> int:
    """Return a time as virtual milliseconds."""
    return (at - EPOCH) // timedelta(milliseconds=1)


@lru_cache(maxsize=4096)
def _write_iso(ms: int) -> str:
    return to_datetime(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@lru_cache(maxsize=4096)
def _write_http(seconds: int) -> str:
    return format_datetime(to_datetime(seconds * 1000), usegmt=True)


# --- what is sent ---

_quote = lru_cache(maxsize=4096)(quote)


def sign(query: Mapping[str, str], at: datetime, expires_s: int) -> str:
    """Return a query with date, in whole seconds as a signature's, and expiry; no signature."""
    parts = [f"{name}={_quote(text)}&" for name, text in query.items()]
    return f"{''.join(parts)}date={(at - EPOCH) // _SECOND}&expires={expires_s}"


def read_message(message: Message, bucket: str) -> tuple[Call, int]:
    """Read a message whose query ``sign`` made; return the call, and when it expires, in ms.

    Raises
    ------
    ValueError
        When the store would not know what to do.
    """
    headers = tuple(message.headers.items())
    return _read_signed(message.method, message.target, headers, message.body, bucket)


@lru_cache(maxsize=4096)
def _read_signed(
    method: str, signed_target: str, headers: tuple[tuple[str, str], ...], body: bytes, bucket: str
) -> tuple[Call, int]:
    target, _, signed = signed_target.rpartition("date=")
    date_s, _, expires_s = signed.partition("&expires=")
    call = _read_call(method, target, headers, body, bucket)
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
            return Call("delete", key, if_match=dict(headers).get("if-match", "").strip('"'))
        case "PUT":
            return _read_put(key, dict(headers), body)
    raise ValueError(f"not an S3 request that is simulated: {method} {target}")


def _read_listing(query: Mapping[str, str]) -> Call:
    return Call(
        "versions" if "versions" in query else "list",
        prefix=unquote(query.get("prefix", "")),
        after=unquote(query.get("continuation-token", "")),
        most=min(int(query.get("max-keys", _PAGE)), _PAGE),
        is_encoded=query.get("encoding-type") == "url",
    )


def _read_put(key: str, headers: Mapping[str, str], body: bytes) -> Call:
    source = unquote(headers.get("x-amz-copy-source", "")).lstrip("/").partition("/")[2]
    metadata = {n.removeprefix(_META): v for n, v in headers.items() if n.startswith(_META)}
    return Call(
        "copy" if source else "put",
        key,
        source=source,
        source_if_match=headers.get("x-amz-copy-source-if-match", "").strip('"'),
        if_absent=headers.get("if-none-match") == "*",
        replaces=headers.get("x-amz-metadata-directive") == "REPLACE",
        body=body,
        metadata=metadata,
        headers={name: text for name, text in headers.items() if name in _KEPT},
    )


def _read_keys(body: bytes) -> tuple[str, ...]:
    parts = body.decode().split("<Key>")[1:]
    return tuple(unescape(part.partition("</Key>")[0]) for part in parts)


# --- what is answered ---


def answer(
    status: int, store_ms: int, body: str | bytes = b"", headers: Mapping[str, str] | None = None
) -> Reply:
    """Return an answer of the store itself: it bears its request id."""
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


def answer_error(code: str, store_ms: int, *, key: str = "", message: str = "") -> Reply:
    """Return an error of the store."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message><Key>{escape(key)}</Key></Error>"
    return answer(_STATUS[code], store_ms, body)


SLOW_DOWN = answer_error("SlowDown", 0, message="Please reduce your request rate")


def answer_object(version: Version, store_ms: int, *, is_head: bool) -> Reply:
    """Return an object, LastModified in whole seconds; of a HEAD without its content."""
    headers = {
        "etag": f'"{version.etag}"',
        "last-modified": _write_http(version.at_ms // 1000),
        "content-type": "application/octet-stream",
        **version.headers,
        **{f"{_META}{name}": text for name, text in version.metadata.items()},
        "content-length": str(len(version.body)),
    }
    if version.id:
        headers["x-amz-version-id"] = version.id
    return answer(200, store_ms, b"" if is_head else version.body, headers)


def answer_copy(made: Version, store_ms: int) -> Reply:
    """Return what a copy made."""
    inner = (
        f"<LastModified>{_write_iso(made.at_ms)}</LastModified><ETag>&#34;{made.etag}&#34;</ETag>"
    )
    headers = {"x-amz-version-id": made.id} if made.id else None
    body = f"<CopyObjectResult{_NAMESPACE}>{inner}</CopyObjectResult>"
    return answer(200, store_ms, body, headers)


def answer_deletes(failed: Mapping[str, str], store_ms: int) -> Reply:
    """Return what became of a quiet bulk delete: error code by key, of what failed."""
    errors = "".join(
        f"<Error><Key>{escape(key)}</Key><Code>{code}</Code></Error>"
        for key, code in failed.items()
    )
    return answer(200, store_ms, f"<DeleteResult{_NAMESPACE}>{errors}</DeleteResult>")


def write_listing(call: Call, objects: Mapping[str, Version], *, most: int) -> str:
    """Return a page of what lies under a prefix, LastModified with milliseconds."""
    keys = [key for key in objects if key.startswith(call.prefix) and key > call.after]
    keys.sort()
    page = keys[:most]
    is_cut = len(keys) > len(page)
    parts = [f"<ListBucketResult{_NAMESPACE}>"]
    parts.append(f"<IsTruncated>{'true' if is_cut else 'false'}</IsTruncated>")
    if is_cut:
        parts.append(f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>")
    for key in page:
        version = objects[key]
        parts.append(
            _write_item(key, version.etag, len(version.body), version.at_ms, call.is_encoded)
        )
    parts.append("</ListBucketResult>")
    return "".join(parts)


def answer_versions(call: Call, versions: Mapping[str, Iterable[Version]], store_ms: int) -> Reply:
    """Return every version under a prefix, by key, the oldest given first and told last."""
    parts = [f"<ListVersionsResult{_NAMESPACE}><IsTruncated>false</IsTruncated>"]
    for key in sorted(key for key in versions if key.startswith(call.prefix)):
        latest = "true"
        for version in reversed(list(versions[key])):
            name = "DeleteMarker" if version.is_marker else "Version"
            parts.append(
                f"<{name}><Key>{_write_key(call, key)}</Key><VersionId>{version.id or 'null'}"
                f"</VersionId><IsLatest>{latest}</IsLatest>{_describe(version)}</{name}>"
            )
            latest = "false"
    parts.append("</ListVersionsResult>")
    return answer(200, store_ms, "".join(parts))


@lru_cache(maxsize=8192)
def _write_item(key: str, etag: str, size_bytes: int, at_ms: int, is_encoded: bool) -> str:
    """Return one object of a listing; the pages of all runs have most of them in common."""
    name = _quote(key) if is_encoded else escape(key)
    at = _write_iso(at_ms)
    return (
        f"<Contents><Key>{name}</Key><LastModified>{at}</LastModified>"
        f"<ETag>&#34;{etag}&#34;</ETag><Size>{size_bytes}</Size></Contents>"
    )


def _describe(version: Version) -> str:
    at = f"<LastModified>{_write_iso(version.at_ms)}</LastModified>"
    if version.is_marker:
        return at
    return f"{at}<ETag>&#34;{version.etag}&#34;</ETag><Size>{len(version.body)}</Size>"


def _write_key(call: Call, key: str) -> str:
    return _quote(key) if call.is_encoded else escape(key)
