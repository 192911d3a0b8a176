"""The targets of reports: a customer's case in support-service, Slack, Teams, mail.

After an attempt to send a message, the target has taken it, has not taken it, or nobody knows.
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
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from fulfillment.clients.http_systems import SupportClient
from runbook_lib.errors import (
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

#: After these answers no later attempt can succeed: the address, or what is sent, is wrong.
_FINAL_STATUSES = frozenset({400, 404, 405, 410, 413, 414, 415, 422})
#: The codes of SMTP for "send the mail's text now" and "done".
_SMTP_DATA = 354
_SMTP_DONE = 250
_SMTP_PORT = 25
_SMTPS_PORT = 465


class State(StrEnum):
    """How far a delivery is.

    ``SENDING`` and ``REPEATING`` are written down before the message, or its repeat, is sent.
    ``LOST``: the message was sent, and the answer was lost. ``REPEATED``: the target took the
    repeat. ``UNCONFIRMED``: nobody knows whether the target has the message, and nothing more is
    sent.
    """

    WAITING = "waiting"
    SENDING = "sending"
    LOST = "lost"
    REPEATING = "repeating"
    SENT = "sent"
    REPEATED = "repeated"
    UNCONFIRMED = "unconfirmed"
    FAILED = "failed"


#: The names of all targets. ``connect_targets`` returns those that are configured.
NAMES = ("ticket", "slack", "teams", "mail")
#: The states after which nothing more is sent.
ENDS = (State.SENT, State.REPEATED, State.UNCONFIRMED, State.FAILED)
#: The states in which a message, or its repeat, may have arrived already.
MAY_BE_SENT = (State.SENDING, State.LOST, State.REPEATING)


def is_case(text: str) -> bool:
    """Tell whether a text has the form of a case's id in support-service."""
    return re.fullmatch(r"[A-Za-z0-9-]{1,64}", text) is not None


class NotSentError(Exception):
    """The target did not take the message. A later attempt may succeed."""


class RefusedError(NotSentError):
    """The target did not take the message, and no later attempt can succeed."""


class AnswerLostError(Exception):
    """The message was sent, and nobody knows whether the target took it."""


@dataclass(frozen=True)
class Message:
    """A message to one target.

    Attributes
    ----------
    id : the delivery's id, the same at each attempt
    name : the incident, episode and look; names the attachments, and marks the message in a case
    subject, text : without secrets; ``text`` has several lines
    thread : id of the incident's first message to this target; empty: this is the first
    case : the id of the customer's case; empty for targets other than ``ticket``
    folder : the incident's folder, whose report and summary are attached; empty: no attachment
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
        """The files to attach that exist. The keys are the names that the files get."""
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

    #: Whether ``send`` asks the target for its messages first, so that none is sent twice.
    shows_messages: bool

    def send(self, message: Message, *, is_repeat: bool) -> None:
        """Attempt once to send a message.

        Parameters
        ----------
        is_repeat : whether an earlier attempt may have succeeded; the message says so

        Raises
        ------
        RefusedError, NotSentError
            When the target did not take the message.
        AnswerLostError
            When nobody knows whether it did.
        """

    def check_alive(self) -> None:
        """Ask the target for something harmless.

        Raises
        ------
        NotSentError
            When the target does not answer.
        """


@contextmanager
def _map_errors(*, is_read: bool = False) -> Iterator[None]:
    """Raise a client's error as the error of this module that says what became of the message.

    ``is_read``: the request changes nothing, so nothing was sent even if its answer is lost.
    """
    try:
        yield
    except NotFoundError as error:
        raise RefusedError(str(error)) from error
    except (ClientTimeoutError, ConnectionRefusedClientError) as error:
        if is_read or _is_unconnected(error):
            raise NotSentError(str(error)) from error
        raise AnswerLostError(str(error)) from error
    except ClientError as error:
        raise NotSentError(str(error)) from error


def _is_unconnected(error: BaseException | None) -> bool:
    """Tell whether an error, or a cause of it, says that no connection was made.

    requests and urllib3 wrap that error: theirs has it as an argument, as its ``reason``, or as the
    ``reason`` of an argument.
    """
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
class _CaseMessage:
    """One message in a customer's case; other fields of the answer are ignored."""

    message: str = ""

    __pydantic_config__ = CAMEL


@dataclass(frozen=True)
class _Case:
    """What a customer's case holds. An answer that lacks one of the lists is an error."""

    messages: tuple[_CaseMessage, ...]
    attachments: tuple[dict[str, Json], ...]

    __pydantic_config__ = CAMEL


class TicketTarget(SupportClient):
    """A customer's case in support-service. It shows its messages, so none is written twice."""

    shows_messages = True

    def send(self, message: Message, *, is_repeat: bool) -> None:  # noqa: ARG002
        """Attach the files that are missing, then write the message.

        Does nothing if the case has a message with this one's marker. The message is written
        last, so a marker also means that the files are attached.
        """
        path = self._path(check_ticket_id(message.case))
        with _map_errors(is_read=True):
            case = self.get(path, _Case)
        marker = f"[{message.name}]"
        if any(marker in entry.message for entry in case.messages):
            return
        # The API does not say which field holds the file's name, so every field's value counts.
        attached = {str(value) for entry in case.attachments for value in entry.values()}
        for name, file in message.files.items():
            if name not in attached:
                self._attach(f"{path}/attachments", name, file)
        text = _join_text(message, is_repeat=False)
        body = {"authorType": "agent", "message": f"{text}\n\n{marker}"}
        with _map_errors():
            self.post(f"{path}/messages", object, body)

    def check_alive(self) -> None:
        """Read support-service's health endpoint."""
        with _map_errors(is_read=True):
            self.read_health()

    def _attach(self, path: str, name: str, file: Path) -> None:
        files = {"file": (name, file.read_bytes(), "application/octet-stream")}
        with _map_errors():
            self._ask("POST", path, files=files)


class Webhook(HttpClient):
    """An incoming webhook. Its whole address is a secret."""

    shows_messages = False

    def __init__(self, url: str, *, timeout_s: float, ca_file: str, proxy_url: str) -> None:
        super().__init__(url, timeout_s=timeout_s, ca_file=ca_file, proxy_url=proxy_url)
        parts = urlsplit(url)
        self._redactor = Redactor((url, self.url, parts.path, parts.query))

    def build(self, message: Message, *, is_repeat: bool) -> Json:
        """Return the JSON body that this kind of webhook takes."""
        raise NotImplementedError

    def send(self, message: Message, *, is_repeat: bool) -> None:
        """Post a message. Any answer but 2xx means that the webhook did not take it."""
        body = self.build(message, is_repeat=is_repeat)
        with _map_errors():
            answer = self._send("POST", "", json=body)
        if 200 <= answer.status < 300:
            return
        text = f"the webhook answered {answer.status}: {self._quote(answer.body)}"
        if answer.status in _FINAL_STATUSES:
            raise RefusedError(text)
        raise NotSentError(text)

    def check_alive(self) -> None:
        """Send a GET without a message. Any answer will do, even an error's status."""
        with _map_errors(is_read=True):
            self._send("GET", "")


class SlackTarget(Webhook):
    """Slack's incoming webhook."""

    SYSTEM = "slack"

    def build(self, message: Message, *, is_repeat: bool) -> Json:
        """Return a body that Slack shows as plain text, without links, mentions or formats."""
        text = _join_text(message, is_repeat=is_repeat)
        for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(character, entity)
        return {"text": text, "mrkdwn": False, "unfurl_links": False}


class TeamsTarget(Webhook):
    """The webhook of a Teams workflow, which takes an adaptive card."""

    SYSTEM = "teams"

    def build(self, message: Message, *, is_repeat: bool) -> Json:
        """Return an adaptive card with a block for each line.

        A ``TextRun`` is shown as it is. A ``TextBlock`` would be read as Markdown.
        """
        blocks = []
        for line in _join_text(message, is_repeat=is_repeat).splitlines():
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


def _join_text(message: Message, *, is_repeat: bool) -> str:
    """Return subject and text in one; a repeat says first that it is one."""
    text = f"{message.subject}\n{message.text}"
    if is_repeat:
        text = f"Sent again: the answer to the first message was lost.\n{text}"
    return text


class MailTarget:
    """A mail server. A repeat has the same Message-ID, so that mail programs can show one mail.

    Parameters
    ----------
    url : ``smtp://[user:password@]host[:port]`` or ``smtps://…``. With ``smtp://``, STARTTLS is
        used if the server offers it. The password is sent over TLS only
    receivers : addresses, separated by commas
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
        """Return the mail with its attachments; a follow-up answers the incident's first mail."""
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
        """Send one mail to all receivers. If the server refuses one of them, nobody gets it."""
        content = self.build(message, is_repeat=is_repeat).as_bytes()
        with self._connecting() as server:
            self._expect(server.mail(self._sender), _SMTP_DONE)
            for receiver in self._receivers:
                self._expect(server.rcpt(receiver), _SMTP_DONE)
            self._expect(server.docmd("DATA"), _SMTP_DATA)
            try:
                server.send(_quote_dots(content))
                answer = server.getreply()
            except (OSError, smtplib.SMTPException) as error:
                raise AnswerLostError(f"mail: {self._redactor.text(str(error))}") from error
            self._expect(answer, _SMTP_DONE)

    def check_alive(self) -> None:
        """Connect, log in, and send a command that does nothing."""
        with self._connecting() as server:
            self._expect(server.noop(), _SMTP_DONE)

    @contextmanager
    def _connecting(self) -> Iterator[smtplib.SMTP]:
        """Yield a server that is logged in to. Errors of the network mean: nothing was sent."""
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
        """Connect to the server: over TLS with ``smtps://``, else without it."""
        if self._is_tls:
            return smtplib.SMTP_SSL(
                self._host, self._port, timeout=self._timeout_s, context=self._context
            )
        return smtplib.SMTP(self._host, self._port, timeout=self._timeout_s)

    def _log_in(self, server: smtplib.SMTP) -> None:
        """Begin TLS if the server offers it, and log in if the address names a user."""
        server.ehlo_or_helo_if_needed()
        is_encrypted = self._is_tls
        if not self._is_tls and server.has_extn("starttls"):
            server.starttls(context=self._context)
            server.ehlo()
            is_encrypted = True
        if not self._user:
            return
        if not is_encrypted:
            raise NotSentError("mail: the server offers no TLS, so no password is sent to it")
        server.login(self._user, self._password)

    def _expect(self, answer: tuple[int, bytes], wanted_code: int) -> None:
        """Raise NotSentError if the server's answer has another code."""
        code, text = answer
        if code != wanted_code:
            words = self._redactor.text(text.decode("utf-8", "replace"))[:200]
            raise NotSentError(f"mail: the server answered {code}: {words}")


def _quote_dots(content: bytes) -> bytes:
    """Return a mail for SMTP's DATA: CRLF, a dot at a line's start doubled, a dot at the end."""
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
