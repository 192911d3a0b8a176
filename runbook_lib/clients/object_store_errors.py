"""What went wrong in a request to the object store, in this package's errors."""

from __future__ import annotations

import http
import re
from collections.abc import Iterator
from contextlib import contextmanager

import obstore.exceptions as obstore_errors
import urllib3.exceptions as http_errors
from minio.error import MinioException, S3Error

from ..errors import (
    AccessDeniedError,
    BadAnswerError,
    ClientError,
    ClientTimeoutError,
    ConnectionRefusedClientError,
    NotFoundError,
    PreconditionFailedError,
)

__all__ = ["REQUEST_ERRORS", "explain_answer", "explain_code", "explain_error", "explained"]

_SYSTEM = "object store"

REQUEST_ERRORS = (
    MinioException,
    http_errors.HTTPError,
    obstore_errors.BaseError,
    OSError,
    ValueError,
)
"""Everything that a request may raise: what minio, urllib3 and obstore throw."""

_BY_CODE: dict[str, type[ClientError]] = {
    "NoSuchKey": NotFoundError,
    "NoSuchObject": NotFoundError,
    "NoSuchBucket": NotFoundError,
    "PreconditionFailed": PreconditionFailedError,
    "ConditionalRequestConflict": PreconditionFailedError,
    "AccessDenied": AccessDeniedError,
    "SignatureDoesNotMatch": AccessDeniedError,
    "InvalidAccessKeyId": AccessDeniedError,
    "AllAccessDisabled": AccessDeniedError,
    "RequestTimeTooSkewed": AccessDeniedError,
}

# The order matters: urllib3's NewConnectionError is a time-out error by inheritance.
_BY_KIND: tuple[tuple[tuple[type[BaseException], ...], type[ClientError]], ...] = (
    ((http_errors.NewConnectionError, ConnectionError), ConnectionRefusedClientError),
    ((http_errors.TimeoutError, TimeoutError), ClientTimeoutError),
    ((http_errors.ProtocolError,), ConnectionRefusedClientError),
    ((obstore_errors.NotFoundError, FileNotFoundError), NotFoundError),
    (
        (obstore_errors.PreconditionError, obstore_errors.AlreadyExistsError),
        PreconditionFailedError,
    ),
    (
        (obstore_errors.PermissionDeniedError, obstore_errors.UnauthenticatedError),
        AccessDeniedError,
    ),
)

_S3_ANSWER = re.compile(r"<Code>([^<]+)</Code>(?:\s*<Message>([^<]*)</Message>)?")

_FULL = (
    "storagefull",
    "storage full",
    "no space left",
    "quota",
    "disk full",
    "insufficientstorage",
)


def explain_code(code: str, message: str, what: str) -> ClientError:
    """Return the error for an S3 error code.

    Parameters
    ----------
    code, message : as the store answered
    what : the request, such as ``GET pending/1.pdf``
    """
    text = f"{what}: {code or 'no code'}{f' ({message})' if message else ''}"
    if any(word in f"{code} {message}".lower() for word in _FULL):
        return BadAnswerError(f"storage full: {text}", system=_SYSTEM)
    return _BY_CODE.get(code, BadAnswerError)(text, system=_SYSTEM)


def explain_answer(status: int, content: bytes, what: str) -> ClientError:
    """Return the error for an HTTP answer that is no success."""
    if status == http.HTTPStatus.PRECONDITION_FAILED:
        return PreconditionFailedError(what, system=_SYSTEM)
    told = _S3_ANSWER.search(content.decode("utf-8", "replace"))
    return (
        explain_code(told[1], told[2] or "", what)
        if told
        else explain_code(f"HTTP {status}", "", what)
    )


def explain_error(error: BaseException, what: str) -> ClientError:
    """Return the ``ClientError`` that says what an exception of a request means."""
    if isinstance(error, ClientError):
        return error
    if isinstance(error, S3Error):
        return explain_code(str(error.code), str(error.message or ""), what)
    if isinstance(error, http_errors.MaxRetryError) and error.reason is not None:
        return explain_error(error.reason, what)
    if isinstance(error, obstore_errors.BaseError) and (told := _S3_ANSWER.search(str(error))):
        return explain_code(told[1], told[2] or "", what)
    kind = _kind_of(error)
    return kind(f"{what}: {_first_line(error)}", system=_SYSTEM)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what a request raises inside the block into a ``ClientError``."""
    try:
        yield
    except REQUEST_ERRORS as error:
        raise explain_error(error, what) from error


def _kind_of(error: BaseException) -> type[ClientError]:
    for kinds, meaning in _BY_KIND:
        if isinstance(error, kinds):
            return meaning
    # obstore has one error for these, whose text ends with a dump of the cause.
    text = str(error) if isinstance(error, obstore_errors.BaseError) else ""
    if "kind: Timeout" in text or "TimedOut" in text:
        return ClientTimeoutError
    if "HttpError" in text:
        return ConnectionRefusedClientError
    return BadAnswerError


def _first_line(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    short = text.splitlines()[0][:300]
    return f"storage full: {short}" if any(word in text.lower() for word in _FULL) else short
