"""A client for HTTP systems that limits the time and the size of each answer.

A ``shape`` is the type that an answer must have: a dataclass whose field types parse the values.
"""

import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from http.cookiejar import DefaultCookiePolicy
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeVar

import requests
import urllib3
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from urllib3.exceptions import HTTPError, ReadTimeoutError

from . import errors
from .model import Json, parse_json, parse_time, to_utc
from .redact import Redactor
from .settings import Settings

#: For JSON with camelCase names. A text field also accepts a number.
CAMEL = ConfigDict(alias_generator=to_camel, coerce_numbers_to_str=True)
_UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def parse_duration(text: str) -> float:
    """Return the seconds of a text such as ``1m30s``, ``500ms`` or ``5m``, or raise ValueError."""
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|[smhdwy]))+|0", text):
        raise ValueError(f"{text!r} is not a duration such as 90s, 10m or 1h30m")
    pairs = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhdwy])", text)
    return sum(float(number) * _UNIT_S[unit] for number, unit in pairs)


def read_minutes(value: str | float) -> str | float:
    """Return the minutes of a text such as ``1h30m``, and any other value as it is."""
    is_duration = isinstance(value, str) and value[-1:].isalpha()
    return parse_duration(str(value)) / 60 if is_duration else value


def parse_when(text: str | None) -> datetime | None:
    """Parse a time, or raise ValueError. None for "" and Go's zero time, which mean never."""
    if not text or text.startswith("0001-01-01"):
        return None
    return parse_time(text)


def check_ticket_id(text: str) -> str:
    """Return a ticket's id if it can be part of a path, else raise UsageError."""
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", text):
        raise errors.UsageError(f"{text[:80]!r} is not a ticket id: use letters, digits, dashes")
    return text


def fill(empty: Json) -> BeforeValidator:
    """Replace null by an empty value; the field's type refuses other wrong values."""
    return BeforeValidator(lambda value: empty if value is None else value)


# Types of a shape's fields. ``When`` is None for never; ``Duration`` is in seconds.
At = Annotated[datetime, BeforeValidator(parse_time)]
When = Annotated[datetime | None, BeforeValidator(parse_when)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Labels = Annotated[dict[str, str], fill({})]
Text = Annotated[str, fill("")]


T = TypeVar("T")

_MAX_BODY_BYTES = 32 << 20
_make_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


class Answer(NamedTuple):
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Follow no redirect, and don't even read its body."""


class HttpClient:
    """Ask one HTTP system.

    Follows no redirects, keeps no cookies, reads at most 32 MiB, retries nothing, and ignores the
    shell's variables and ``.netrc``.

    Parameters
    ----------
    url : if "", requests raise ``NotConfiguredError``
    timeout_s : for the complete answer; a stalled one may take twice as long
    auth : ``Bearer TOKEN`` or ``Basic user:password``
    """

    SYSTEM: ClassVar[str] = ""
    HEALTH: ClassVar[str] = "/health"

    def __init__(
        self, url: str, *, timeout_s: float, auth: str = "", ca_file: str = "", proxy_url: str = ""
    ) -> None:
        self._setting = f"{self.SYSTEM.upper()}_URL"
        self._timeout_s = timeout_s
        self.url = url.rstrip("/")
        scheme, _, credentials = auth.partition(" ")
        user, _, password = credentials.partition(":")
        self._redactor = Redactor((credentials, password))
        self._session = _Session()
        self._session.trust_env = False
        self._session.verify = ca_file or True
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        if proxy_url:
            self._session.proxies = {"http": proxy_url, "https": proxy_url}
        self._login: dict[str, str] = {}
        if scheme == "Basic":
            self._login = {"username": user, "password": password}
            auth = f"Basic {b64encode(credentials.encode()).decode()}"
        if auth:
            self._session.headers["Authorization"] = auth

    @classmethod
    def connect(cls, settings: Settings, **options: Any) -> Self:
        """Return the client that ``<system>_url`` and ``<system>_auth`` describe. Sends nothing."""
        return cls(
            getattr(settings, f"{cls.SYSTEM}_url"),
            auth=getattr(settings, f"{cls.SYSTEM}_auth").get_secret_value(),
            ca_file=str(settings.ca_bundle or ""),
            proxy_url=settings.proxy_url,
            timeout_s=settings.http_timeout_s,
            **options,
        )

    def get(self, path: str, shape: type[T], params: Mapping[str, Any] = {}, field: str = "") -> T:
        """Return an answer, or its ``field``, such as ``config.original``, in a shape.

        Raises a ``ClientError`` when there is no 2xx answer, or it has another shape.
        """
        return self.read_as(path, self._ask("GET", path, params=params).body, shape, field)

    def identify(self, path: str, shape: type[T], field: str = "", *, status: int = 200) -> T:
        """Return an answer that only this system gives, with ``status``.

        Raises WrongSystemError if another system answers.
        """
        answer = self._send("GET", path)
        try:
            # With another 2xx status, the answer's shape decides.
            if answer.status != status:
                self._check_status(answer)
            return self.read_as(path, answer.body, shape, field)
        except (errors.BadAnswerError, errors.NotFoundError) as error:
            if answer.status >= 500:  # the right system may fail, too
                raise
            text = f"{self._setting} is not the address of {self.SYSTEM}: {error.message}"
            raise errors.WrongSystemError(text, system=self.SYSTEM) from error

    def post(self, path: str, shape: type[T], body: Json = None, method: str = "POST") -> T:
        """Send JSON, if any; return the answer in a shape. An empty answer counts as null."""
        answer = self._ask(method, path, json=body)
        return self.read_as(path, answer.body.strip() or b"null", shape)

    def read_health(self) -> str:
        return self._ask("GET", self.HEALTH).body.decode("utf-8", "replace")

    def read_clock(self) -> datetime:
        """Return the server's time in whole seconds, by the ``Date`` of any answer."""
        answer = self._send("GET", self.HEALTH)
        with self.parsing(self.HEALTH):
            return to_utc(parsedate_to_datetime(answer.headers["Date"]))

    def read_as(self, path: str, answer: Json, shape: type[T], field: str = "") -> T:
        """Return an answer, as bytes or parsed, or its ``field``, in a shape."""
        with self.parsing(path):
            if isinstance(answer, bytes):
                answer = parse_json(answer)
            for name in field.split(".") if field else ():
                answer = answer[name]
            shaped: T = _make_adapter(shape).validate_python(answer)
            return shaped

    @contextmanager
    def parsing(self, path: str) -> Iterator[None]:
        """Turn errors of code that reads an answer into ``BadAnswerError``."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            reason = repr(error)
            if isinstance(error, ValidationError):
                where, problem = next(iter(errors.list_problems(error).items()))
                reason = f"{where}: {problem}"
            text = f"{self.url}{path} gave an answer that cannot be used ({self._quote(reason)})."
            text += f" Is this really {self.SYSTEM}?"
            raise errors.BadAnswerError(text, system=self.SYSTEM) from error

    def _ask(self, method: str, path: str, **content: Any) -> Answer:
        """Return a 2xx answer, or raise why there is none."""
        answer = self._send(method, path, **content)
        self._check_status(answer)
        return answer

    def _check_status(self, answer: Answer) -> None:
        """Raise what a status other than 2xx means."""
        status = answer.status
        if 200 <= status < 300:
            return
        kind: type[errors.ClientError] = errors.BadAnswerError
        text = self._quote(answer.body)
        if status in (401, 403):
            kind = errors.AccessDeniedError
            text = f"the credentials are wrong or lack the right. {text}"
        elif status == 404:
            kind = errors.NotFoundError
        elif status < 400:
            target = self._quote(answer.headers.get("Location", "nowhere"))
            text = f"redirects to {target}; set {self._setting} to the system's own address"
        raise kind(f"{answer.url}: HTTP {status}: {text}".rstrip(), system=self.SYSTEM)

    def _send(self, method: str, path: str, **content: Any) -> Answer:
        """Return an answer of any status, or raise why there is none."""
        if not self.url:
            text = f"not configured: {self._setting} is empty"
            raise errors.NotConfiguredError(text, system=self.SYSTEM)
        url = f"{self.url}{path}"
        # Limits connecting plus the wait for the first byte. The type hints of requests lack it.
        timeout: Any = urllib3.Timeout(total=self._timeout_s)
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._session.request(
                method, url, stream=True, timeout=timeout, **content
            ) as response:
                body = self._read_body(response, deadline)
                return Answer(url, response.status_code, response.headers, body)
        except (HTTPError, OSError, ValueError) as error:
            raise self._explain(url, error) from error

    def _explain(self, url: str, error: Exception) -> errors.ClientError:
        """Return the error that says why there is no answer."""
        if isinstance(error, requests.Timeout | ReadTimeoutError):
            text = f"{url} did not answer within {self._timeout_s:g} s (HTTP_TIMEOUT_S)"
            return errors.ClientTimeoutError(text, system=self.SYSTEM)
        innermost: BaseException = error
        while innermost.__context__ is not None:
            innermost = innermost.__context__
        reason = self._quote(str(innermost))
        if isinstance(error, ValueError):
            text = f"{url} cannot be used: {reason}"
            return errors.BadAnswerError(text, system=self.SYSTEM)
        text = f"{url} cannot be reached ({reason}). Is it running, and are {self._setting},"
        text += " CA_BUNDLE and PROXY_URL right?"
        return errors.ConnectionRefusedClientError(text, system=self.SYSTEM)

    def _read_body(self, response: requests.Response, deadline: float) -> bytes:
        body = bytearray()
        # read1 waits for one receive, so the deadline is checked even if bytes come slowly.
        for chunk in iter(partial(response.raw.read1, 64 * 1024), b""):
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                raise ValueError(f"more than {_MAX_BODY_BYTES >> 20} MiB. Ask for less.")
            if time.monotonic() > deadline:
                raise requests.ReadTimeout
        return bytes(body)

    def _quote(self, text: str | bytes) -> str:
        """Return the beginning of a text on one line, without secrets."""
        if isinstance(text, bytes):
            text = text[:4000].decode("utf-8", "replace")
        # Redact first, then cut: half a secret would not be recognised.
        words = self._redactor.text(text).split()
        return " ".join(words)[:200]
