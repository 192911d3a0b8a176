"""The object store for sections and drills.

Listings use the ``minio`` library. Everything else uses ``objectmove``'s bucket, as a release does,
because there a change expires, absence is proven, and a silent store costs only one time-out.
"""

from __future__ import annotations

import mimetypes
import re
import secrets
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from objectmove.bucket import (
    REFUSED,
    UNMET,
    Request,
    S3Bucket,
    Seen,
    Texts,
    is_key_supported,
    parse_time,
)
from objectmove.errors import StoreError
from runbook_lib import errors

from ..settings import Settings

if TYPE_CHECKING:
    from minio import Minio

_SYSTEM = "object store"
_META = "x-amz-meta-"
#: How long a signed request is valid, by the store's clock.
_EXPIRES_S = 20
_FREE = re.compile(
    rb"^minio_cluster_capacity_(?:usable_)?free_bytes(?:{.*})? (\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*$",
    re.MULTILINE,
)

# What the codes and words of failed requests mean.
_ERROR_CODES: dict[type[errors.ClientError], set[str]] = {
    errors.NotFoundError: {"NoSuchKey", "NoSuchObject", "NoSuchBucket", "HTTP 404"},
    errors.AccessDeniedError: {*REFUSED, "HTTP 401", "HTTP 403"},
    errors.PreconditionFailedError: {*UNMET, "HTTP 412"},
    errors.ConnectionRefusedClientError: {"NoAnswer", "NotSent"},
}
_WRONG_KEY = {"SignatureDoesNotMatch", "InvalidAccessKeyId"}
_TIME_OUT_WORDS = ("no answer in time", "timed out")
_FULL_WORDS = (
    "storagefull",
    "storage full",
    "insufficientstor",
    "no space",
    "quota",
    "disk full",
    "http 507",
)


Rights = dict[str, tuple[bool | None, str]]
"""{right: (whether the key has it, None if unknown; why not, or "")}."""


def connect_bucket(settings: Settings, *, for_changes: bool) -> S3Bucket:
    """Return the bucket, which connects with the first request.

    Raises ``AccessDeniedError`` without credentials, and ``SettingsError`` if CA_BUNDLE holds no
    certificates.
    """
    access_key, secret_key, token = settings.read_store_keys(for_changes=for_changes)
    if not access_key or not secret_key:
        text = (
            "no credentials: set MINIO_ROOT_USER and MINIO_ROOT_PASSWORD (the local stack's: "
            'eval "$(runbook stack env)")'
        )
        raise errors.AccessDeniedError(text, system="store")
    try:
        return S3Bucket(
            endpoint=settings.minio_endpoint,
            bucket=settings.fulfillment_bucket,
            access_key=access_key,
            secret_key=secret_key,
            session_token=token,
            region=settings.minio_region,
            secure=settings.minio_secure,
            ca_file=str(settings.ca_bundle or ""),
            virtual_host=settings.minio_addressing == "virtual",
            proxy_url=settings.proxy_url,
        )
    except OSError as error:
        text = f"CA_BUNDLE cannot be used: {error.strerror or error}"
        raise errors.SettingsError(text) from error


class StoreFullError(errors.BadAnswerError):
    """The store has no room for a write."""


class ObjectStore:
    """A bucket, with a separate client for changes, if any. Raises only ``ClientError``."""

    def __init__(self, bucket: S3Bucket, change_bucket: S3Bucket | None = None) -> None:
        self.endpoint = bucket.endpoint
        self.bucket = bucket.bucket
        self._bucket = bucket
        self._change_bucket = change_bucket or bucket

    def list_objects(self, prefix: str) -> Iterator[Seen]:
        """Yield the objects under a prefix without their metadata; skip folder markers."""
        from minio.error import MinioException
        from urllib3.exceptions import HTTPError

        try:
            for listed in self._reader.list_objects(self.bucket, prefix=prefix, recursive=True):
                if not listed.is_dir:
                    key = listed.object_name
                    yield Seen(key, listed.etag or "", listed.size or 0, listed.last_modified)
        except (HTTPError, MinioException, SyntaxError, TypeError, ValueError) as error:
            # Without a code of the store, the answer is not a listing.
            code = "NoAnswer" if isinstance(error, HTTPError) else getattr(error, "code", None)
            text = f"list {self.bucket}/{prefix}: {str(error)[:300]}"
            raise _to_client_error(StoreError(text, code=code or "")) from error

    @cached_property
    def _reader(self) -> Minio:
        """The client for listings. It never retries, and ignores environment variables."""
        import certifi
        import urllib3
        from minio import Minio

        bucket = self._bucket
        tls = None
        if bucket.secure:  # urllib3's own context would read SSLKEYLOGFILE
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            tls.load_verify_locations(bucket.ca_file or certifi.where())
        make: Callable[..., urllib3.PoolManager] = urllib3.PoolManager
        proxy = urlsplit(bucket.proxy_url)
        if proxy.hostname:
            login = unquote(f"{proxy.username}:{proxy.password}") if proxy.username else None
            headers = urllib3.make_headers(proxy_basic_auth=login)
            make = partial(urllib3.ProxyManager, bucket.proxy_url, proxy_headers=headers)
        timeout = urllib3.Timeout(connect=bucket.connect_s, read=bucket.read_s)
        pool = make(timeout=timeout, retries=False, ssl_context=tls)
        reader = Minio(
            bucket.endpoint,
            bucket.access_key,
            bucket.secret_key,
            session_token=bucket.session_token or None,
            secure=bucket.secure,
            region=bucket.region,
            http_client=pool,
        )
        if bucket.virtual_host:
            reader.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
        return reader

    def read_infos(self, keys: Sequence[str]) -> dict[str, Seen | None]:
        """Return each object with its metadata, or None if there is none; several at a time.

        The answer lacks keys that could not be read. LastModified is in whole seconds.
        """
        with _client_errors():
            return self._bucket.look(keys)

    def read_info(self, key: str) -> Seen:
        """Return an object with its metadata; raise ``NotFoundError`` if there is none."""
        failed: dict[str, StoreError] = {}
        with _client_errors():
            seen = self._bucket.look([key], failed=failed).get(key)
            if seen is None:
                raise failed.get(key, StoreError(f"read {key}: no such object", code="NoSuchKey"))
            return seen

    def read(self, key: str) -> bytes | None:
        with _client_errors():
            read = self._bucket.read_object(key)
            return None if read is None else read[0]

    def put_object(self, key: str, content: bytes, metadata: Texts | None = None) -> None:
        """Write an object, without a retry; undone by ``delete_object``."""
        content_type, _ = mimetypes.guess_type(key)
        headers = {f"{_META}{name.lower()}": text for name, text in (metadata or {}).items()}
        headers["content-type"] = content_type or "application/octet-stream"
        self._change(Request("put", key, body=content, headers=headers), f"write {key}")

    def delete_object(self, info: Seen) -> None:
        """Delete an object, without a retry.

        Read the object right before, because not every store checks the request's ETag.
        """
        self._change(Request("delete", info.key, if_match=info.etag), f"delete {info.key}")

    def _change(self, request: Request, what: str) -> None:
        """Send a change once; an error says whether it may have been done.

        Messages name ``what`` was to be done, such as ``write pending/7.pdf``.
        """
        if not is_key_supported(request.key):
            raise errors.BadAnswerError(f"{what}: no request can name this key", system=_SYSTEM)
        with _client_errors():
            signed_at = self._change_bucket.read_clock()
            (answer,) = self._change_bucket.send(
                [request], signed_at=signed_at, expires_s=_EXPIRES_S
            )
        if answer.effect == "done":
            return
        text = f"{answer.code} {answer.message}".strip()
        if answer.code == "NoAnswer":
            text = f"{answer.message}; whether it was done is not known"
        elif answer.code == "NotSent":
            text = answer.message
        elif any(word in text.lower() for word in _FULL_WORDS):
            raise StoreFullError(f"storage full: {what}: {text}", system=_SYSTEM)
        raise _to_client_error(StoreError(f"{what}: {text}", code=answer.code))

    def check_live(self) -> str:
        """Ask ``/minio/health/live``; if the store has no such address, list the bucket.

        Returns the URL that answered.

        Raises a ``ClientError`` if the store is unhealthy, silent, or refuses the listing.
        """
        path = "/minio/health/live"
        source = f"{self._bucket.url}{path}"
        with _client_errors():
            status = self._bucket.ask(path).status
        if status == 200:
            return source
        if status >= 500:
            raise errors.BadAnswerError(f"{source} answered {status}", system=_SYSTEM)
        next(self.list_objects(".runbook/"), None)
        return f"{self._bucket.url}/{self.bucket}"

    def read_clock(self) -> datetime:
        """Return the store's time, in whole seconds."""
        with _client_errors():
            return parse_time(self._bucket.ask("/").headers.get("date", ""))

    def read_free_bytes(self) -> int | None:
        """Return the free capacity by MinIO's cluster metrics, if known."""
        try:
            page = self._bucket.ask("/minio/v2/metrics/cluster").body
        except StoreError:
            return None
        # MinIO as a gateway always answers 0 or NaN: it does not know.
        known = [int(float(text)) for text in _FREE.findall(page)]
        return next(filter(None, known), None)

    def is_full(self, prefix: str) -> bool | None:
        """Tell whether the store has no room for our writes; None if it does not say.

        Changes nothing, because it copies an object that does not exist.
        """
        absent = f"{prefix}absent-{secrets.token_hex(8)}"
        try:
            self._change(Request("copy", f"{absent}-copy", source=absent), "write")
        except StoreFullError:
            return True
        except errors.NotFoundError:
            return False
        except errors.ClientError:
            return None
        return None

    def check_key(self) -> None:
        """Raise AccessDeniedError unless the store knows our key and secret."""
        try:
            next(self._bucket.list_objects(".runbook/"), None)
        except StoreError as error:
            if error.code in _WRONG_KEY:
                raise _to_client_error(error) from error

    def read_rights(self, prefix: str, *, write_under: Sequence[str] = ()) -> Rights:
        """Test what our key for reading may do, or with ``write_under`` our key for changes.

        The rights are ``list`` and ``read`` under ``prefix``, and ``write <prefix>`` and
        ``delete <prefix>`` for each prefix of ``write_under``. If the listing doesn't tell whether
        it's allowed, the other rights are unknown, too, and no other request is sent.

        Changes nothing, because it copies and deletes only keys that don't exist. In a bucket that
        keeps versions it skips the delete, which would leave a *delete marker*.
        """
        store = ObjectStore(self._change_bucket if write_under else self._bucket)
        absent = f"absent-{secrets.token_hex(8)}"
        tests: dict[str, Callable[[], object]] = {}
        for under in write_under:
            to = f"{under}{absent}-copy"
            copy = Request("copy", to, source=f"{under}{absent}", if_absent=True)
            tests[f"write {under}"] = partial(store._change, copy, "write")
            tests[f"delete {under}"] = partial(store._try_delete, f"{under}{absent}")
        listed: list[Seen] = []  # the first object, if there is one
        may_list, reason = try_right(lambda: listed.extend(islice(store.list_objects(prefix), 1)))
        rights: Rights = {"list": (may_list, reason)}
        if may_list is None:
            return rights | dict.fromkeys(["read", *tests], (None, ""))
        if may_list:
            key = listed[0].key if listed else f"{prefix}{absent}"
            rights["read"] = try_right(partial(_allow_absent, lambda: store.read_info(key)))
        else:
            rights["read"] = (None, "not known without a listing")
        for name, ask in tests.items():
            rights[name] = try_right(partial(_allow_absent, ask))
        return rights

    def _try_delete(self, key: str) -> None:
        """Test the right to delete on a key that does not exist, unless the bucket has versions."""
        request = Request("get", query={"versioning": ""})
        try:
            body = self._change_bucket.fetch(request, "read versioning").body
        except StoreError as error:
            if error.code != "NotImplemented":  # the store cannot keep versions
                raise errors.BadAnswerError(f"bucket versioning cannot be read: {error}") from error
        else:
            # Without a status, the bucket never kept versions. Any other answer proves nothing.
            if b"VersioningConfiguration" not in body or b"<Status>" in body:
                raise errors.BadAnswerError(
                    "not tried: the bucket keeps versions, so a delete leaves a marker"
                )
        # No object has this ETag, so an object that exists after all stays.
        self._change(Request("delete", key, if_match="0" * 32), "delete")


def _allow_absent(ask: Callable[[], object]) -> None:
    """Send a request about an absent object: the answer that it is absent proves the right."""
    with suppress(errors.NotFoundError, errors.PreconditionFailedError):
        ask()


def try_right(ask: Callable[[], object]) -> tuple[bool | None, str]:
    """Send a request; return whether it is allowed (None if the answer doesn't tell), and why not.

    Raises a ``ClientError`` if the system cannot be reached, or another system answers.
    """
    try:
        ask()
    except (
        errors.ConnectionRefusedClientError,
        errors.ClientTimeoutError,
        errors.WrongSystemError,
    ):
        raise
    except errors.AccessDeniedError as error:
        return False, str(error)
    except errors.ClientError as error:
        return None, str(error)
    return True, ""


@contextmanager
def _client_errors() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise _to_client_error(error) from error


def _to_client_error(error: StoreError) -> errors.ClientError:
    text = str(error)
    fitting = [kind for kind, codes in _ERROR_CODES.items() if error.code in codes]
    kind = fitting[0] if fitting else errors.BadAnswerError
    if error.code in _WRONG_KEY:
        text += ". Your own key or password is wrong: see MINIO_ROOT_PASSWORD"
        text += " (for changes: MINIO_CHANGE_PASSWORD)."
    elif kind is errors.ConnectionRefusedClientError:
        text += ". Are MINIO_ENDPOINT, MINIO_SECURE, CA_BUNDLE and PROXY_URL right?"
        if any(word in text for word in _TIME_OUT_WORDS):
            kind = errors.ClientTimeoutError
    return kind(text, system=_SYSTEM)
