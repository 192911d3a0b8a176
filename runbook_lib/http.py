"""HTTP systems: one bounded question, one bounded answer, one kind of error each.

Shapes of answers are dataclasses whose fields say how they are read (``At``, ``Duration`` …).
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self, TypeVar, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import certifi
import urllib3
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from urllib3.exceptions import HTTPError, NewConnectionError, ProxyError, TimeoutError  # noqa: A004

from . import errors
from .model import Json, parse_time, to_utc
from .redact import Redactor
from .settings import Settings

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

#: Of shapes whose names are written likeThis.
CAMEL = ConfigDict(alias_generator=to_camel, coerce_numbers_to_str=True)
_UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def parse_duration(text: str) -> float:
    """Parse a duration as Prometheus and Go write it (``1m30s``, ``500ms``, ``5m``).

    Returns
    -------
    Seconds.

    Raises
    ------
    ValueError
        When the text is not a duration.
    """
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|[smhdwy]))+|0", text):
        raise ValueError(f"{text!r} is not a duration")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdwy])", text)
    return float(sum(float(number) * _UNIT_S[unit] for number, unit in parts))


def parse_when(text: str | None) -> datetime | None:
    """Parse a time; None for no text and for Go's zero time, both of which mean never.

    Raises
    ------
    ValueError
        When the text is not a time.
    """
    return None if not text or text.startswith("0001-01-01") else parse_time(text)


def check_id(text: str, what: str) -> str:
    """Return an id that may stand in a path.

    Raises
    ------
    UsageError
        When it has anything but letters, digits and dashes.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", text):
        raise errors.UsageError(f"{text[:80]!r} is not {what}: letters, digits and dashes only")
    return text


At = Annotated[datetime, BeforeValidator(parse_time)]
When = Annotated[datetime | None, BeforeValidator(parse_when)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
# null is nothing; an empty list instead of an object is another shape.
Labels = Annotated[dict[str, str], BeforeValidator(lambda value: {} if value is None else value)]
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]


T = TypeVar("T")

_MAX_BODY_BYTES = 32 * 1024 * 1024
_make_adapter: Any = cache(TypeAdapter)
#: What to say of an error by what stands in urllib3's text.
_REASONS = {
    "refused": "connection refused",
    "resolve": "the name cannot be resolved",
    "certificate": "the TLS certificate is not accepted; CA_BUNDLE says whom to trust",
    "without response": "the connection closed without an answer",
    "reset": "the connection was reset",
    "IncompleteRead": "the answer broke off",
}
_DENIED = (errors.AccessDeniedError, "the credentials are wrong or lack the right. ")
#: What an answer's status means, where it says more than that it is no good.
_BY_STATUS = {401: _DENIED, 403: _DENIED, 404: (errors.NotFoundError, "not found. ")}


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Ask one HTTP system.

    Parameters
    ----------
    url : where it is; may hold ``user:password@``, which no message ever shows. Empty: every
        question is refused as "not configured"
    timeout_s : for connecting and the first byte together, and again for the whole body
    system : its name in messages, when it is not the class's own; ``<SYSTEM>_URL`` is its setting
    token : sent as ``Authorization: Bearer``; goes before user and password
    user, password : of basic authentication; these go before those in the address
    ca_file : whom to trust, a PEM file; empty: certifi's list
    proxy_url : ``http://[user:password@]host:port``; empty: none

    Attributes
    ----------
    url : the address, without credentials; empty when it is not configured

    Notes
    -----
    Follows no redirects, reads at most 32 MiB, retries nothing, and takes nothing from the shell:
    no proxy, no certificates, no ``.netrc``.
    """

    SYSTEM: ClassVar[str] = ""
    HEALTH: ClassVar[str] = "/health"

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        system: str = "",
        token: str = "",
        user: str = "",
        password: str = "",
        ca_file: str = "",
        proxy_url: str = "",
    ) -> None:
        self.system = system or self.SYSTEM
        self._timeout_s = timeout_s
        try:
            parts = urlsplit(url.rstrip("/"))
        except ValueError as error:
            text = f"{self.system.upper()}_URL is not an address ({error})"
            raise errors.ConnectionRefusedClientError(text, system=self.system) from error
        if not user:
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self._redactor = Redactor(filter(None, (token, password)))
        self._headers = {"Accept-Encoding": "identity"}  # the pool sends what is in it by then
        if token or user:
            self._headers["Authorization"] = f"Bearer {token}" if token else _sign(user, password)
        tls = _make_context(ca_file or certifi.where()) if parts.scheme == "https" else None
        how = {"headers": self._headers, "timeout": urllib3.Timeout(total=timeout_s)}
        self._pool = _make_pool(proxy_url, ssl_context=tls, **how)

    @classmethod
    def connect(cls, settings: Settings, **more: Any) -> Self:
        """Return the client by the settings of its system; it asks nothing yet."""
        return cls(**settings.read_http_options(cls.SYSTEM), **more)

    def get(self, path: str, shape: type[T], params: Mapping[str, Any] = {}, part: str = "") -> T:
        """Return an answer in a shape: a dataclass, or a list or dict of such.

        Parameters
        ----------
        part : the one field that is wanted, such as ``config.original``; empty: the whole answer

        Raises
        ------
        BadAnswerError
            When it is not JSON, or has not this shape.
        """
        return self.read_as(path, self._ask_json("GET", path, fields=params), shape, part)

    def post(self, path: str, shape: type[T], body: Json = None) -> T:
        """Post JSON (nothing when ``body`` is None); return the answer in a shape."""
        return self.read_as(path, self._ask_json("POST", path, json=body), shape)

    def patch(self, path: str, shape: type[T], body: Json) -> T:
        """Patch with JSON; return the answer in a shape."""
        return self.read_as(path, self._ask_json("PATCH", path, json=body), shape)

    def get_text(self, path: str) -> str:
        """Return an answer's text; bytes that are not UTF-8 are replaced."""
        return self._ask("GET", path).body.decode("utf-8", "replace")

    def check_reachable(self) -> str:
        """Return what the system says of itself, such as its version, in a few words."""
        return self.read_health()[:60]

    def read_health(self) -> str:
        """Return the text of the health endpoint; raises a ``ClientError`` unless it is 2xx."""
        return self.get_text(self.HEALTH)

    def read_clock(self) -> datetime:
        """Return the server's time from its ``Date`` header, to the second, whatever the status.

        Raises
        ------
        BadAnswerError
            When the answer has no readable ``Date``.
        """
        answer = self._ask("GET", self.HEALTH, any_status=True)
        with self.parsing(self.HEALTH):
            return to_utc(parsedate_to_datetime(answer.headers["Date"]))

    def read_metrics(self) -> list[Sample]:
        """Return the samples of the system's own ``/metrics`` page."""
        from prometheus_client.parser import text_string_to_metric_families

        text = self.get_text("/metrics")
        with self.parsing("/metrics"):
            return [s for family in text_string_to_metric_families(text) for s in family.samples]

    def read_as(self, path: str, answer: Json, shape: type[T], part: str = "") -> T:
        """Return an answer, or a part of it, in a shape."""
        with self.parsing(path):
            for name in filter(None, part.split(".")):
                answer = answer[name]
            found: T = _make_adapter(cast("Any", shape)).validate_python(answer)
            return found

    @contextmanager
    def parsing(self, path: str) -> Iterator[None]:
        """Turn what goes wrong while an answer is taken apart into ``BadAnswerError``."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            text = f"gave an answer of another shape ({_short(_describe(error))}). Is this address "
            raise self.bad(path, f"{text}really {self.system}?") from error

    def _ask_json(self, method: str, path: str, **options: Any) -> Json:
        answer = self._ask(method, path, **options)
        if not answer.body.strip() and method != "GET":
            return None
        kind = answer.headers.get("Content-Type", "no content type")
        if "json" not in kind.lower():
            raise self.bad(path, f"answered {_short(kind)}, not JSON: {self._excerpt(answer.body)}")
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            text = f"answered JSON that cannot be read: {self._excerpt(answer.body)}"
            raise self.bad(path, text) from error

    def _ask(self, method: str, path: str, *, any_status: bool = False, **options: Any) -> _Answer:
        """Return an answer, or raise what its absence or its status means."""
        setting = f"{self.system.upper()}_URL"
        if not self.url:
            raise self._fail(errors.NotConfiguredError, f"not configured: {setting} is empty")
        where = f"{self.url}{path}"
        try:
            answer = self._send(method, where, options)
        except (HTTPError, OSError) as error:
            kind: type[errors.ClientError] = errors.ConnectionRefusedClientError
            text = f"cannot be reached ({_reason(error)}). Does it run, and is {setting} right?"
            # urllib3 counts a connection that is refused among the time-outs.
            if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError):
                kind = errors.ClientTimeoutError
                text = f"did not answer within {self._timeout_s:g} s (HTTP_TIMEOUT_S). Is it stuck?"
            raise self._fail(kind, f"{where} {text}") from error
        except ValueError as error:
            raise self.bad(path, f"cannot be asked: {_short(str(error))}") from error
        if any_status or 200 <= answer.status < 300:
            return answer
        wrong, words = _BY_STATUS.get(answer.status, (errors.BadAnswerError, ""))
        text = f"{words}{self._excerpt(answer.body)}"
        if 300 <= answer.status < 400:
            to = _short(self._redactor.text(answer.headers.get("Location", "nowhere")))
            text = f"redirects to {to}; set {setting} to where it is"
        raise self._fail(wrong, f"{where}: HTTP {answer.status}: {text}".rstrip())

    def _send(self, method: str, where: str, options: dict[str, Any]) -> _Answer:
        deadline = time.monotonic() + self._timeout_s
        body = bytearray()
        with self._pool.request(
            method, where, redirect=False, preload_content=False, **options
        ) as response:
            # read1 returns what one receive gave, so that a trickle cannot outlive the deadline.
            while chunk := response.read1(64 * 1024):
                body += chunk
                if len(body) > _MAX_BODY_BYTES:
                    text = f"{where} answered more than {_MAX_BODY_BYTES >> 20} MiB. Ask for less."
                    raise self._fail(errors.BadAnswerError, text)
                if time.monotonic() > deadline:
                    raise TimeoutError("the body took too long")
            return _Answer(response.status, response.headers, bytes(body))

    def _excerpt(self, body: bytes) -> str:
        # Redacted before it is cut: half a secret would not be recognised.
        text = self._redactor.text(body[:4000].decode("utf-8", "replace"))
        return _short(" ".join(text.split()))

    def bad(self, path: str, text: str) -> errors.ClientError:
        """Return the error for an answer that is of no use."""
        return self._fail(errors.BadAnswerError, f"{self.url}{path} {text}")

    def _fail(self, kind: type[errors.ClientError], text: str) -> errors.ClientError:
        return kind(self._redactor.text(text), system=self.system)


def _make_pool(proxy_url: str, **options: Any) -> urllib3.PoolManager:
    options |= {"maxsize": 16, "retries": False}  # questions are asked several at a time
    if not proxy_url:
        return urllib3.PoolManager(**options)
    parts, signed = urlsplit(proxy_url), dict[str, str]()
    if parts.username:
        user, password = unquote(parts.username), unquote(parts.password or "")
        signed["Proxy-Authorization"] = _sign(user, password)
    return urllib3.ProxyManager(proxy_url, proxy_headers=signed, **options)


@cache
def _make_context(ca_file: str) -> ssl.SSLContext:
    # ssl's and urllib3's own default contexts heed SSL_CERT_FILE and SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:
        why = error.strerror or error
        raise errors.SettingsError(f"CA_BUNDLE cannot be used: {why}") from error
    return context


def _sign(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _describe(error: Exception) -> str:
    if isinstance(error, ValidationError):
        where, why = next(iter(errors.list_wrong(error).items()))
        return f"{where}: {why}".removeprefix(": ")
    return f"{type(error).__name__}: {error}"


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def _reason(error: Exception) -> str:
    if isinstance(error, ProxyError):
        return "not through the proxy that PROXY_URL names"
    said = (words for sign, words in _REASONS.items() if sign in str(error))
    return next(said, type(error).__name__)
