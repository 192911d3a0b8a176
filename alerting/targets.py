"""Where reports go: a ticket of support, Slack, Teams, mail. One attempt at a time.

An attempt ends in one of three ways: it was taken, it was not, or nobody knows.
"""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

import certifi
from requests import Request
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from fulfillment.clients.http_systems import SupportClient
from runbook_lib.errors import (
    BadAnswerError,
    ClientError,
    ClientTimeoutError,
    ConnectionRefusedClientError,
    NotFoundError,
)
from runbook_lib.http import CAMEL, HttpClient, check_ticket_id
from runbook_lib.model import Json
from runbook_lib.redact import Redactor

from .settings import ServeSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A later attempt cannot succeed: the address, or what is sent, is wrong.
_FINAL = frozenset({400, 404, 405, 410, 413, 414, 415, 422})
_SMTP_DATA = 354
_SMTP_TAKEN = 250
_SMTP_PORT = 25
_SMTPS_PORT = 465


class State(StrEnum):
    """How far a delivery is. ``SENDING`` and ``REPEATING`` are written before anything is sent.

    ``LOST``: it was sent, and the answer was lost. ``UNCONFIRMED``: the answer to the repeat was
    lost, too; no third message is sent.
    """

    WAITING = "waiting"
    SENDING = "sending"
    LOST = "lost"
    REPEATING = "repeating"
    SENT = "sent"
    REPEATED = "repeated"
    UNCONFIRMED = "unconfirmed"
    FAILED = "failed"


#: Every target there can be. ``connect_targets`` says which are configured.
NAMES = ("ticket", "slack", "teams", "mail")
#: Nothing more is sent.
ENDS = (State.SENT, State.REPEATED, State.UNCONFIRMED, State.FAILED)


def is_case(text: str) -> bool:
    """Tell whether a text can be the id of a support case."""
    return re.fullmatch(r"[A-Za-z0-9-]{1,64}", text) is not None


class NotSentError(Exception):
    """Nothing was taken. A later attempt may succeed."""


class RefusedError(NotSentError):
    """Nothing was taken, and no later attempt can succeed."""


class AnswerLostError(Exception):
    """It was sent, and nobody knows whether it was taken."""


@dataclass(frozen=True)
class Message:
    """What is delivered.

    Attributes
    ----------
    id : identifies the message
    name : of the report at this look; what is attached is named after it
    subject, text : without secrets; ``text`` has several lines
    thread : id of the first message of the incident; empty: this is the first
    case : a case of support, for the ticket
    folder : the incident's folder, whose report and summary are attached; empty: nothing is
    """

    id: str
    name: str
    subject: str
    text: str
    thread: str = ""
    case: str = ""
    folder: str = ""

    @property
    def files(self) -> dict[str, Path]:
        """What is attached, by name."""
        if not self.folder:
            return {}
        folder = Path(self.folder)
        files = {
            f"{self.name}-report.html": folder / "report.html",
            f"{self.name}-summary.txt": folder / "summary.txt",
        }
        return {name: path for name, path in files.items() if path.is_file()}


class Target(Protocol):
    """Something that takes messages."""

    #: Whether it shows what it took, so that a message is there exactly once.
    shows_messages: bool

    def send(self, message: Message, *, is_repeat: bool) -> None:
        """Send a message once.

        Raises
        ------
        NotSentError
            When it was not taken.
        AnswerLostError
            When nobody knows.
        """

    def check_alive(self) -> None:
        """Ask something that changes nothing; raises NotSentError while there is no answer."""


@contextmanager
def _sending(*, is_read: bool = False) -> Iterator[None]:
    """Turn a client's error into what it says about a message.

    ``is_read``: only a question is sent, so losing its answer loses nothing.
    """
    try:
        yield
    except NotFoundError as error:
        raise RefusedError(str(error)) from error
    except (ClientTimeoutError, ConnectionRefusedClientError) as error:
        if is_read or _is_unconnected(error):
            raise NotSentError(str(error)) from error
        raise AnswerLostError(str(error)) from error
    except BadAnswerError as error:
        raise NotSentError(str(error)) from error
    except ClientError as error:
        raise NotSentError(str(error)) from error


def _is_unconnected(error: BaseException | None) -> bool:
    """Tell whether an error came before anything could be sent."""
    while error is not None:
        reason = getattr(error, "reason", None)
        for part in (error, reason, *error.args):
            if isinstance(part, NewConnectionError | ConnectTimeoutError | NameResolutionError):
                return True
            inner = getattr(part, "reason", None)
            if isinstance(inner, NewConnectionError | ConnectTimeoutError | NameResolutionError):
                return True
        error = error.__cause__
    return False


@dataclass(frozen=True)
class _Said:
    """One message of a case; other fields are ignored."""

    message: str = ""

    __pydantic_config__ = CAMEL


@dataclass(frozen=True)
class _Thread:
    """A case with what stands in it. Without both lists no message can be found."""

    messages: tuple[_Said, ...]
    attachments: tuple[dict[str, Json], ...]

    __pydantic_config__ = CAMEL


class TicketTarget(SupportClient):
    """A case of support. It shows its messages, so each is there exactly once."""

    shows_messages = True

    def send(self, message: Message, *, is_repeat: bool) -> None:  # noqa: ARG002
        """Attach what is missing, then write the message, unless its marker is there."""
        path = self._path(check_ticket_id(message.case))
        with _sending(is_read=True):
            thread = self.get(path, _Thread)
        marker = f"[{message.name}]"
        if any(marker in entry.message for entry in thread.messages):
            return
        attached = {str(name) for entry in thread.attachments for name in entry.values()}
        for name, file in message.files.items():
            if name not in attached:
                self._attach(f"{path}/attachments", name, file)
        text = _head(message, is_repeat=False)
        body = {"authorType": "agent", "message": f"{text}\n\n{marker}"}
        with _sending():
            self.post(f"{path}/messages", object, body)

    def check_alive(self) -> None:
        """Read the health endpoint."""
        with _sending(is_read=True):
            self.read_health()

    def _attach(self, path: str, name: str, file: Path) -> None:
        files = {"file": (name, file.read_bytes(), "application/octet-stream")}
        with _sending():
            self._ask(Request("POST", f"{self.url}{path}", files=files))


class Webhook(HttpClient):
    """An incoming webhook. Its whole address is a secret."""

    shows_messages = False

    def __init__(self, url: str, *, timeout_s: float, ca_file: str, proxy_url: str) -> None:
        super().__init__(url, timeout_s=timeout_s, ca_file=ca_file, proxy_url=proxy_url)
        parts = urlsplit(url)
        self._redactor = Redactor((url, self.url, parts.path, parts.query))

    def build(self, message: Message, *, is_repeat: bool) -> Json:
        """Return the body that the webhook takes."""
        raise NotImplementedError

    def send(self, message: Message, *, is_repeat: bool) -> None:
        """Post a message."""
        body = self.build(message, is_repeat=is_repeat)
        with _sending():
            answer = self._send(Request("POST", self.url, json=body))
        if 200 <= answer.status < 300:
            return
        text = f"it answered {answer.status}: {self._excerpt(answer.body)}"
        if answer.status in _FINAL:
            raise RefusedError(text)
        raise NotSentError(text)

    def check_alive(self) -> None:
        """Ask for the address without a message: any answer will do."""
        with _sending(is_read=True):
            self._send(Request("GET", self.url))


class SlackTarget(Webhook):
    """Slack's incoming webhook."""

    SYSTEM = "slack"

    def build(self, message: Message, *, is_repeat: bool) -> Json:
        """Return the text. Nothing in it is a link, a mention or a format."""
        text = _head(message, is_repeat=is_repeat)
        for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(character, entity)
        return {"text": text, "mrkdwn": False, "unfurl_links": False}


class TeamsTarget(Webhook):
    """The webhook of a Teams workflow, which takes an adaptive card."""

    SYSTEM = "teams"

    def build(self, message: Message, *, is_repeat: bool) -> Json:
        """Return a card. Runs of text are shown as they are: cards format text blocks only."""
        blocks = []
        for line in _head(message, is_repeat=is_repeat).splitlines():
            run = {"type": "TextRun", "text": line or " "}
            blocks.append({"type": "RichTextBlock", "inlines": [run]})
        card = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": blocks,
        }
        attachment = {
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": None,
            "content": card,
        }
        return {"type": "message", "attachments": [attachment]}


def _head(message: Message, *, is_repeat: bool) -> str:
    text = f"{message.subject}\n{message.text}"
    if is_repeat:
        text = f"Sent again: the answer to the first message was lost.\n{text}"
    return text


class MailTarget:
    """A mail server. A repeat has the same Message-ID, so that programs see one mail.

    Parameters
    ----------
    url : ``smtp://[user:password@]host[:port]`` or ``smtps://…``. Credentials are sent over TLS
        alone; a server that offers STARTTLS gets it
    """

    shows_messages = False

    def __init__(
        self, url: str, *, sender: str, receivers: str, timeout_s: float, ca_file: str
    ) -> None:
        parts = urlsplit(url)
        self._is_tls = parts.scheme == "smtps"
        self._host = parts.hostname or ""
        self._port = parts.port or (_SMTPS_PORT if self._is_tls else _SMTP_PORT)
        self._user = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._sender = sender
        self._receivers = [part.strip() for part in receivers.split(",")]
        self._timeout_s = timeout_s
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.load_verify_locations(ca_file or certifi.where())
        self._redactor = Redactor((self._password,))

    def build(self, message: Message, *, is_repeat: bool) -> EmailMessage:
        """Return the mail."""
        mail = EmailMessage()
        again = "[again] " if is_repeat else ""
        mail["Subject"] = f"{again}{' '.join(message.subject.split())}"
        mail["From"] = self._sender
        mail["To"] = ", ".join(self._receivers)
        mail["Date"] = formatdate()
        domain = self._sender.rpartition("@")[2]
        mail["Message-ID"] = f"<{message.id}@{domain}>"
        if message.thread:
            mail["In-Reply-To"] = f"<{message.thread}@{domain}>"
            mail["References"] = f"<{message.thread}@{domain}>"
        text = message.text
        if is_repeat:
            text = f"Sent again: the answer to the first mail was lost.\n\n{text}"
        mail.set_content(text)
        for name, path in message.files.items():
            subtype = "html" if path.suffix == ".html" else "plain"
            mail.add_attachment(path.read_bytes(), maintype="text", subtype=subtype, filename=name)
        return mail

    def send(self, message: Message, *, is_repeat: bool) -> None:
        """Send a mail to all receivers at once."""
        content = self.build(message, is_repeat=is_repeat).as_bytes()
        with self._connecting() as server:
            self._expect(server.mail(self._sender), _SMTP_TAKEN)
            for receiver in self._receivers:
                self._expect(server.rcpt(receiver), _SMTP_TAKEN)
            self._expect(server.docmd("DATA"), _SMTP_DATA)
            try:
                server.send(_quote_dots(content))
                answer = server.getreply()
            except (OSError, smtplib.SMTPException) as error:
                raise AnswerLostError(f"mail: {self._redactor.text(str(error))}") from error
            self._expect(answer, _SMTP_TAKEN)

    def check_alive(self) -> None:
        """Greet the server."""
        with self._connecting() as server:
            self._expect(server.noop(), _SMTP_TAKEN)

    @contextmanager
    def _connecting(self) -> Iterator[smtplib.SMTP]:
        try:
            server = self._connect()
            try:
                self._log_in(server)
                yield server
            finally:
                server.close()
        except (OSError, smtplib.SMTPException) as error:
            raise NotSentError(f"mail: {self._redactor.text(str(error))}") from error

    def _connect(self) -> smtplib.SMTP:
        if self._is_tls:
            return smtplib.SMTP_SSL(
                self._host, self._port, timeout=self._timeout_s, context=self._context
            )
        return smtplib.SMTP(self._host, self._port, timeout=self._timeout_s)

    def _log_in(self, server: smtplib.SMTP) -> None:
        server.ehlo_or_helo_if_needed()
        is_safe = self._is_tls
        if not self._is_tls and server.has_extn("starttls"):
            server.starttls(context=self._context)
            server.ehlo()
            is_safe = True
        if not self._user:
            return
        if not is_safe:
            raise NotSentError("mail: the server offers no TLS, so no password is sent to it")
        server.login(self._user, self._password)

    def _expect(self, answer: tuple[int, bytes], wanted: int) -> None:
        code, text = answer
        if code != wanted:
            words = self._redactor.text(text.decode("utf-8", "replace"))[:200]
            raise NotSentError(f"mail: the server answered {code}: {words}")


def _quote_dots(content: bytes) -> bytes:
    """Return a mail as SMTP's DATA takes it: CRLF, dots doubled, a dot at the end."""
    lines = content.replace(b"\r\n", b"\n").split(b"\n")
    quoted = [b"." + line if line.startswith(b".") else line for line in lines]
    return b"\r\n".join(quoted).rstrip(b"\r\n") + b"\r\n.\r\n"


def connect_targets(settings: ServeSettings) -> Mapping[str, Target]:
    """Return the targets that the settings name, by name. Sends nothing."""
    targets: dict[str, Target] = {}
    if settings.support_url:
        targets["ticket"] = TicketTarget.connect(settings)
    ca_file = str(settings.ca_bundle or "")
    kinds: dict[str, type[Webhook]] = {"slack": SlackTarget, "teams": TeamsTarget}
    for name, kind in kinds.items():
        url = getattr(settings, f"serve_{name}_url").get_secret_value()
        if url:
            targets[name] = kind(
                url,
                timeout_s=settings.http_timeout_s,
                ca_file=ca_file,
                proxy_url=settings.proxy_url,
            )
    smtp_url = settings.serve_smtp_url.get_secret_value()
    if smtp_url:
        targets["mail"] = MailTarget(
            smtp_url,
            sender=settings.serve_mail_from,
            receivers=settings.serve_mail_to,
            timeout_s=settings.http_timeout_s,
            ca_file=ca_file,
        )
    return targets
