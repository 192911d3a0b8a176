"""The only user of requests: one bounded question, one bounded answer, one kind of error each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
import urllib3

from ..errors import (
    AccessDeniedError,
    BadAnswerError,
    ClientError,
    ClientTimeoutError,
    ConnectionRefusedClientError,
    NotFoundError,
)
from ..model import Json
from ..redact import Redactor

__all__ = ["HttpClient", "HttpSystem", "MetricSample"]

_MAX_BODY_BYTES = 32 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_REDACTOR = Redactor()


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One line of a ``/metrics`` page."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Ask one HTTP system.

    Parameters
    ----------
    base_url : where it is; may hold ``user:password@``, which no message ever shows. Empty: every
        question is refused as "not configured"
    system : its name in messages; ``<SYSTEM>_URL`` is its setting
    timeout_s : for connecting and the first byte together, and again for the whole body

    Raises
    ------
    ConnectionRefusedClientError
        When the address is none.

    Notes
    -----
    Follows no redirects, uses no proxy, reads at most 32 MiB, retries nothing.
    """

    def __init__(
        self,
        base_url: str,
        *,
        system: str,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
    ) -> None:
        self.system = system
        self._timeout_s = timeout_s
        try:
            parts = urlsplit(base_url.rstrip("/"))
        except ValueError as error:
            raise ConnectionRefusedClientError(
                f"{system.upper()}_URL is not an address ({error})", system=system
            ) from error
        if parts.username is not None and auth is None:
            auth = (unquote(parts.username), unquote(parts.password or ""))
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update({"Accept-Encoding": "identity", **(headers or {})})
        self._session.auth = auth

    def get_json(self, path: str, params: Mapping[str, Any] | None = None) -> Json:
        """Return the JSON of an answer."""
        return self._json("GET", path, params=params)

    def post_json(self, path: str, body: Json = None) -> Json:
        """Post JSON (nothing when ``body`` is None); return the answer's JSON, None if empty."""
        return self._json("POST", path, json=body)

    def patch_json(self, path: str, body: Json) -> Json:
        """Patch with JSON; return the answer's JSON, None when it is empty."""
        return self._json("PATCH", path, json=body)

    def post_file(self, path: str, file: Path) -> Json:
        """Upload one file as the multipart field ``file``."""
        with file.open("rb") as handle:
            return self._json("POST", path, files={"file": (file.name, handle)})

    def get_text(self, path: str, params: Mapping[str, Any] | None = None) -> str:
        """Return an answer's text; bytes that are not UTF-8 are replaced."""
        answer = self._ask("GET", path, params=params)
        self._check_status(answer, path)
        return answer.body.decode("utf-8", "replace")

    def read_clock(self, path: str = "/") -> datetime:
        """Return the server's time from its ``Date`` header, to the second, whatever the status.

        Raises
        ------
        BadAnswerError
            When the answer has no readable ``Date``.
        """
        answer = self._ask("GET", path)
        with self.parsing(path):
            at = parsedate_to_datetime(answer.headers["Date"])
            return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)

    @contextmanager
    def parsing(self, path: str) -> Iterator[None]:
        """Turn what goes wrong while an answer is taken apart into ``BadAnswerError``."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise BadAnswerError(
                f"{self.url}{path} gave an answer of another shape ({type(error).__name__}: "
                f"{_short(str(error))}). Is this address really {self.system}?",
                system=self.system,
            ) from error

    def _json(self, method: str, path: str, **options: Any) -> Json:
        answer = self._ask(method, path, **options)
        self._check_status(answer, path)
        if not answer.body.strip() and method != "GET":
            return None
        kind = answer.headers.get("Content-Type", "no content type")
        if "json" not in kind.lower():
            raise self._bad(path, f"answered {_short(kind)}, not JSON: {_excerpt(answer.body)}")
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            text = f"answered JSON that cannot be read: {_excerpt(answer.body)}"
            raise self._bad(path, text) from error

    def _ask(self, method: str, path: str, **options: Any) -> _Answer:
        if not self.url:
            raise ConnectionRefusedClientError(
                f"not configured: set {self.system.upper()}_URL", system=self.system
            )
        where = f"{self.url}{path}"
        try:
            return self._send(method, where, options)
        except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise ClientTimeoutError(
                f"{where} did not answer within {self._timeout_s:g} s. Is the service overloaded "
                "or stuck? HTTP_TIMEOUT_S is the limit.",
                system=self.system,
            ) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise ConnectionRefusedClientError(
                f"{where} cannot be reached ({_reason(error)}). Is the service running, and is "
                f"{self.system.upper()}_URL right?",
                system=self.system,
            ) from error
        except ValueError as error:
            raise self._bad(path, f"cannot be asked: {_short(str(error))}") from error

    def _send(self, method: str, where: str, options: dict[str, Any]) -> _Answer:
        deadline = time.monotonic() + self._timeout_s
        limit = urllib3.Timeout(total=self._timeout_s)
        body = bytearray()
        with self._session.request(
            method,
            where,
            stream=True,
            allow_redirects=False,
            timeout=limit,  # type: ignore[arg-type]
            **options,
        ) as response:
            # read1 returns what one receive gave, so that a trickle cannot outlive the deadline.
            while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
                body += chunk
                if len(body) > _MAX_BODY_BYTES:
                    raise BadAnswerError(
                        f"{where} answered more than {_MAX_BODY_BYTES >> 20} MiB. Ask for less.",
                        system=self.system,
                    )
                if time.monotonic() > deadline:
                    raise requests.ReadTimeout("the body took too long")
            return _Answer(response.status_code, response.headers, bytes(body))

    def _check_status(self, answer: _Answer, path: str) -> None:
        status, text = answer.status, _excerpt(answer.body)
        if 200 <= status < 300:
            return
        if status in (401, 403):
            kind: type[ClientError] = AccessDeniedError
            text = f"HTTP {status}: the credentials are wrong or lack the right. {text}"
        elif status == 404:
            kind, text = NotFoundError, f"HTTP 404: not found. {text}"
        elif 300 <= status < 400:
            kind = BadAnswerError
            to = _short(_REDACTOR.text(answer.headers.get("Location", "nowhere")))
            text = f"HTTP {status}: redirects to {to}; set {self.system.upper()}_URL to where it is"
        else:
            kind, text = BadAnswerError, f"HTTP {status}: {text}"
        raise kind(f"{self.url}{path}: {text}".rstrip(), system=self.system)

    def _bad(self, path: str, text: str) -> BadAnswerError:
        return BadAnswerError(f"{self.url}{path} {text}", system=self.system)


class HttpSystem:
    """What the clients of HTTP systems share.

    Attributes
    ----------
    url : the address, without credentials; empty when it is not configured
    http : for questions that the client has no method for
    """

    SYSTEM: ClassVar[str] = ""
    HEALTH: ClassVar[str] = "/health"

    def __init__(self, url: str, *, timeout_s: float, auth: tuple[str, str] | None = None) -> None:
        self.http = HttpClient(url, system=self.SYSTEM, timeout_s=timeout_s, auth=auth)
        self.url = self.http.url

    def read_clock(self) -> datetime:
        """Return the system's time, to the second."""
        return self.http.read_clock(self.HEALTH)

    def read_health(self) -> str:
        """Return the text of the health endpoint; raises a ``ClientError`` unless it is 2xx."""
        return self.http.get_text(self.HEALTH)

    def read_metrics(self) -> list[MetricSample]:
        """Return the samples of the system's own ``/metrics`` page."""
        from prometheus_client.parser import text_string_to_metric_families

        text = self.http.get_text("/metrics")
        with self.http.parsing("/metrics"):
            return [
                MetricSample(sample.name, dict(sample.labels), float(sample.value))
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            ]


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def _excerpt(body: bytes) -> str:
    # Redacted before it is cut: half a secret would not be recognised.
    text = _REDACTOR.text(body[:4000].decode("utf-8", "replace"))
    return _short(" ".join(text.split()))


def _reason(error: Exception) -> str:
    text = str(error)
    for sign, words in (
        ("refused", "connection refused"),
        ("resolve", "the name cannot be resolved"),
        ("certificate", "the TLS certificate is not accepted"),
        ("without response", "the connection closed without an answer"),
        ("reset", "the connection was reset"),
        ("IncompleteRead", "the answer broke off"),
    ):
        if sign in text:
            return words
    return type(error).__name__
