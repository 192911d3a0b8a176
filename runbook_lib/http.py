"""A client for HTTP systems, with a limit on the time and the size of each answer.

A ``shape`` is the type that an answer is checked against: a dataclass whose field types say how the
values are read (``At``, ``Duration`` …).
"""

from __future__ import annotations

import base64
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, Self, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import certifi
import requests
import urllib3
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from requests import Request
from requests.adapters import HTTPAdapter
from requests.utils import get_auth_from_url
from urllib3.exceptions import HTTPError, ReadTimeoutError

from . import errors
from .model import Json, parse_json, parse_time, to_utc
from .redact import Redactor
from .settings import Settings

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

#: For shapes whose JSON has names likeThis. A text field also accepts a number.
CAMEL = ConfigDict(alias_generator=to_camel, coerce_numbers_to_str=True)
_UNIT_S = {
    "ms": 0.001,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
    "y": 31536000,
}


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
    seconds = 0.0
    for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdwy])", text):
        seconds += float(number) * _UNIT_S[unit]
    return seconds


def parse_when(text: str | None) -> datetime | None:
    """Parse a time; None for an empty text or Go's zero time, which both mean never.

    Raises
    ------
    ValueError
        When the text is not a time.
    """
    if not text or text.startswith("0001-01-01"):
        return None
    return parse_time(text)


def check_ticket_id(text: str) -> str:
    """Return a ticket's id as it is, if it can be part of a path.

    Raises
    ------
    UsageError
        When it is not 1 to 64 letters, digits and dashes.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", text):
        raise errors.UsageError(
            f"{text[:80]!r} is not a ticket id: letters, digits and dashes only"
        )
    return text


def _fill(empty: Json) -> BeforeValidator:
    """Put an empty value in the place of null; the field's type refuses what else is wrong."""
    return BeforeValidator(lambda value: empty if value is None else value)


# Types of a shape's fields. ``When`` is None for never; ``Duration`` is in seconds.
At = Annotated[datetime, BeforeValidator(parse_time)]
When = Annotated[datetime | None, BeforeValidator(parse_when)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Labels = Annotated[dict[str, str], _fill({})]
Text = Annotated[str, _fill("")]


T = TypeVar("T")

_MAX_BODY_BYTES = 32 * 1024 * 1024
_make_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)
#: A mapping from a part of urllib3's text to why no answer came, in our words.
_REASONS = {
    "refused": "connection refused",
    "resolve": "the name cannot be resolved",
    "certificate": "the TLS certificate is not accepted; CA_BUNDLE says whom to trust",
    "without response": "the connection closed without an answer",
    "reset": "the connection was reset",
    "IncompleteRead": "the answer broke off",
}


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Ask one HTTP system.

    Parameters
    ----------
    url : may hold ``user:password@``, which no message shows. Empty: every question raises
        ``NotConfiguredError``
    timeout_s : until the answer is complete; if the answer stalls, up to twice as long
    token : sent as ``Authorization: Bearer``, instead of user and password
    user, password : for basic authentication, instead of those in the address
    ca_file : certificates to trust, a PEM file; empty: certifi's list
    proxy_url : ``http://[user:password@]host:port``; empty: none

    Attributes
    ----------
    SYSTEM : the system's name in messages; ``<SYSTEM>_URL`` is the setting of its address
    HEALTH : path of the system's health endpoint
    url : the address, without credentials; empty when the system is not configured

    Notes
    -----
    Follows no redirects, keeps no cookies, reads at most 32 MiB and retries nothing. Proxy,
    certificates and credentials come from the parameters alone, never from the shell's variables
    or ``.netrc``.
    """

    SYSTEM: ClassVar[str] = ""
    HEALTH: ClassVar[str] = "/health"

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        token: str = "",
        user: str = "",
        password: str = "",
        ca_file: str = "",
        proxy_url: str = "",
    ) -> None:
        self._setting = f"{self.SYSTEM.upper()}_URL"
        self._timeout_s = timeout_s
        try:
            parts = urlsplit(url.rstrip("/"))
        except ValueError as error:
            text = f"{self._setting} is not an address ({error})"
            raise errors.ConnectionRefusedClientError(text, system=self.SYSTEM) from error
        if not user:
            user = unquote(parts.username or "")
            password = unquote(parts.password or "")
        _, _, host = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc=host))
        self._redactor = Redactor((token, password))
        tls = None
        if parts.scheme == "https":
            tls = _make_context(ca_file or certifi.where())
        self._session = _make_session(tls, proxy_url)
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"
        elif user:
            self._session.headers["Authorization"] = _encode_basic_auth(user, password)

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Return the system's client as the settings describe it. Sends nothing yet."""
        return cls(**settings.read_http_options(cls.SYSTEM))

    def get(
        self,
        path: str,
        shape: type[T],
        params: Mapping[str, Any] = {},
        part: str = "",
    ) -> T:
        """Return an answer in a shape: a dataclass, or a list or dict of dataclasses.

        Parameters
        ----------
        part : the one field to return, such as ``config.original``; empty: the whole answer

        Raises
        ------
        BadAnswerError
            When the answer is not JSON, or has another shape.
        """
        answer = self._ask_json(self._request("GET", path, params=params))
        return self.read_as(path, answer, shape, part)

    def identify(
        self,
        path: str,
        shape: type[T],
        params: Mapping[str, Any] = {},
        part: str = "",
        *,
        status: int = 200,
    ) -> T:
        """Return an answer that only this system gives, in a shape.

        Parameters
        ----------
        status : the HTTP status of that answer

        Raises
        ------
        WrongSystemError
            When another system answers at this address.
        """
        request = self._request("GET", path, params=params)
        answer = self._send(request)
        # The right system may answer with these statuses, too: they do not mean a wrong system.
        if answer.status in (401, 403) or answer.status >= 500:
            self._check_status(request, answer)
        try:
            # Another 2xx status passes: then the answer's shape decides.
            if answer.status != status:
                self._check_status(request, answer)
            parsed = self._parse(request, answer)
            return self.read_as(path, parsed, shape, part)
        except (errors.BadAnswerError, errors.NotFoundError) as error:
            text = f"{self._setting} does not lead to {self.SYSTEM}: {error.message}"
            raise self._make_error(errors.WrongSystemError, text) from error

    def post(
        self,
        path: str,
        shape: type[T],
        body: Json = None,
    ) -> T:
        """Post JSON (nothing when ``body`` is None); return the answer in a shape."""
        return self.read_as(path, self._ask_json(self._request("POST", path, json=body)), shape)

    def patch(
        self,
        path: str,
        shape: type[T],
        body: Json,
    ) -> T:
        """Patch with JSON; return the answer in a shape."""
        return self.read_as(path, self._ask_json(self._request("PATCH", path, json=body)), shape)

    def get_text(self, path: str) -> str:
        """Return an answer's text; bytes that are not UTF-8 are replaced."""
        answer = self._ask(self._request("GET", path))
        return answer.body.decode("utf-8", "replace")

    def check_reachable(self) -> str:
        """Return a few words about the system: what its health endpoint says.

        A subclass overrides this if its system can be recognised by an answer that no other system
        gives. The override raises ``WrongSystemError`` when another system answers.
        """
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
        answer = self._send(self._request("GET", self.HEALTH))
        with self.parsing(self.HEALTH):
            return to_utc(parsedate_to_datetime(answer.headers["Date"]))

    def read_metrics(self) -> list[Sample]:
        """Return the samples of the system's own ``/metrics`` page."""
        from prometheus_client.parser import text_string_to_metric_families

        text = self.get_text("/metrics")
        samples: list[Sample] = []
        with self.parsing("/metrics"):
            for family in text_string_to_metric_families(text):
                samples += family.samples
        return samples

    def read_as(
        self,
        path: str,
        answer: Json,
        shape: type[T],
        part: str = "",
    ) -> T:
        """Return an answer, or the field ``part`` of it, in a shape; messages name ``path``."""
        with self.parsing(path):
            if part:
                for name in part.split("."):
                    answer = answer[name]
            shaped: T = _make_adapter(shape).validate_python(answer)
            return shaped

    @contextmanager
    def parsing(self, path: str) -> Iterator[None]:
        """Turn the errors of code that reads an answer into ``BadAnswerError``."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            reason = _short(_describe_misfit(error))
            text = f"gave an answer of another shape ({reason})."
            question = f"Is this address really {self.SYSTEM}?"
            raise self.make_bad_answer(path, f"{text} {question}") from error

    def make_bad_answer(self, path: str, text: str) -> errors.ClientError:
        """Return the error for an answer that cannot be used; ``text`` follows the address."""
        return self._make_error(errors.BadAnswerError, f"{self.url}{path} {text}")

    def _request(self, method: str, path: str, **content: Any) -> Request:
        return Request(method, f"{self.url}{path}", **content)

    def _ask_json(self, request: Request) -> Json:
        """Return a 2xx answer's JSON; None for an empty answer to anything but GET."""
        answer = self._ask(request)
        if request.method != "GET" and not answer.body.strip():
            return None
        return self._parse(request, answer)

    def _parse(self, request: Request, answer: _Answer) -> Json:
        """Return an answer's JSON; raise BadAnswerError when it has none."""
        content_type = answer.headers.get("Content-Type", "no content type")
        try:
            if "json" not in content_type.lower():
                raise ValueError(content_type)
            return parse_json(answer.body)
        except ValueError as error:
            excerpt = self._excerpt(answer.body)
            text = f"answered {_short(content_type)} that is no JSON: {excerpt}"
            raise self._make_error(errors.BadAnswerError, f"{request.url} {text}") from error

    def _ask(self, request: Request) -> _Answer:
        """Return a 2xx answer. Any other status raises the error that it means."""
        answer = self._send(request)
        self._check_status(request, answer)
        return answer

    def _check_status(self, request: Request, answer: _Answer) -> None:
        """Raise the error that an answer's status means; none for 2xx."""
        status = answer.status
        if 200 <= status < 300:
            return
        kind: type[errors.ClientError] = errors.BadAnswerError
        text = self._excerpt(answer.body)
        if status in (401, 403):
            kind = errors.AccessDeniedError
            text = f"the credentials are wrong or lack the right. {text}"
        elif status == 404:
            kind = errors.NotFoundError
            text = f"not found. {text}"
        elif 300 <= status < 400:
            location = answer.headers.get("Location", "nowhere")
            target = _short(self._redactor.text(location))
            text = f"redirects to {target}; set {self._setting} to the system's own address"
        sentence = f"{request.url}: HTTP {status}: {text}"
        raise self._make_error(kind, sentence.rstrip())

    def _send(self, request: Request) -> _Answer:
        """Return an answer of any status. Without an answer, raise the error that says why."""
        if not self.url:
            text = f"not configured: {self._setting} is empty"
            raise self._make_error(errors.NotConfiguredError, text)
        # This form limits connecting and the wait for the first byte together. It is missing in the
        # type hints of requests.
        timeout: Any = urllib3.Timeout(total=self._timeout_s)
        deadline = time.monotonic() + self._timeout_s
        try:
            prepared = self._session.prepare_request(request)
            with self._session.send(prepared, stream=True, timeout=timeout) as response:
                body = self._read_body(response, deadline, request.url)
                return _Answer(response.status_code, response.headers, body)
        except (requests.Timeout, ReadTimeoutError) as error:
            text = f"did not answer within {self._timeout_s:g} s (HTTP_TIMEOUT_S). Is it stuck?"
            raise self._make_error(errors.ClientTimeoutError, f"{request.url} {text}") from error
        except ValueError as error:
            text = f"cannot be asked: {_short(str(error))}"
            raise self._make_error(errors.BadAnswerError, f"{request.url} {text}") from error
        except (HTTPError, OSError) as error:
            text = f"{request.url} cannot be reached ({_say_why(error)})."
            question = f"Does it run, and is {self._setting} right?"
            kind = errors.ConnectionRefusedClientError
            raise self._make_error(kind, f"{text} {question}") from error

    def _read_body(
        self,
        response: requests.Response,
        deadline: float,
        url: str,
    ) -> bytes:
        """Return the whole body; raise when it is too long, or not complete by ``deadline``."""
        body = bytearray()
        # read1 waits for one receive only, so the deadline is checked even when bytes come slowly.
        while chunk := response.raw.read1(64 * 1024, decode_content=True):
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                text = f"answered more than {_MAX_BODY_BYTES >> 20} MiB. Ask for less."
                raise self._make_error(errors.BadAnswerError, f"{url} {text}")
            if time.monotonic() > deadline:
                # ``_send`` turns this into a ``ClientTimeoutError``, like any other time-out.
                raise requests.ReadTimeout("the body took too long")
        return bytes(body)

    def _excerpt(self, body: bytes) -> str:
        """Return the beginning of a body, on one line and without secrets."""
        # Redact first, then cut to 200 characters: half a secret would not be recognised.
        text = body[:4000].decode("utf-8", "replace")
        words = self._redactor.text(text).split()
        return _short(" ".join(words))

    def _make_error(self, kind: type[errors.ClientError], text: str) -> errors.ClientError:
        """Return an error of this system, with its text redacted."""
        return kind(self._redactor.text(text), system=self.SYSTEM)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Follow no redirect, and do not read a redirect's body to prepare for one."""


class _Adapter(HTTPAdapter):
    """Use our TLS context, and a proxy's credentials in UTF-8.

    By default, requests writes TLS keys to ``SSLKEYLOGFILE``, and encodes credentials as Latin-1.
    """

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(pool_maxsize=16)  # several questions at a time
        self._tls = tls

    def build_connection_pool_key_attributes(self, *args: Any, **options: Any) -> Any:
        """Put our TLS context in place of the one that requests chose."""
        host, _ = super().build_connection_pool_key_attributes(*args, **options)
        return host, {"ssl_context": self._tls}

    def cert_verify(self, *_: object) -> None:
        """Change nothing: our context already verifies certificates."""

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        user, password = get_auth_from_url(proxy)
        if not user:
            return {}
        return {"Proxy-Authorization": _encode_basic_auth(user, password)}


def _make_session(tls: ssl.SSLContext | None, proxy_url: str) -> requests.Session:
    """Return a session as the notes of ``HttpClient`` describe it; ``tls`` is None for http."""
    session = _Session()
    session.trust_env = False
    session.headers["Accept-Encoding"] = "identity"
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.mount("http://", _Adapter(tls))
    session.mount("https://", _Adapter(tls))
    if proxy_url:
        session.proxies = {"http": proxy_url, "https": proxy_url}
    return session


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


def _encode_basic_auth(user: str, password: str) -> str:
    credentials = f"{user}:{password}".encode()
    encoded = base64.b64encode(credentials).decode()
    return f"Basic {encoded}"


def _describe_misfit(error: Exception) -> str:
    """Say why an answer does not have its shape: the first problem, with the field's name."""
    if isinstance(error, ValidationError):
        problems = errors.list_problems(error)
        field, problem = next(iter(problems.items()))
        # A problem of no single field has an empty name.
        return f"{field}: {problem}".removeprefix(": ")
    return f"{type(error).__name__}: {error}"


def _short(text: str) -> str:
    """Return the first 200 characters, and an ellipsis when there are more."""
    return text if len(text) <= 200 else f"{text[:200]}…"


def _say_why(error: Exception) -> str:
    """Say in a few words why no answer came; for an error that nothing here names, its type."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy that PROXY_URL names made no connection"
    for part, reason in _REASONS.items():
        if part in str(error):
            return reason
    return type(error).__name__
