"""The targets of reports: a customer's case in support-service, Slack, Teams, mail.

A message arrives at least once: an attempt whose answer is lost counts as not sent.
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

from fulfillment.clients.http_systems import SupportClient
from runbook_lib.errors import ClientError, NotFoundError
from runbook_lib.http import CAMEL, HttpClient, check_ticket_id
from runbook_lib.model import Json
from runbook_lib.redact import Redactor

from .settings import ServeSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

#: After these answers no later attempt can succeed: the address, or what is sent, is wrong.
_FINAL_STATUSES = frozenset({400, 404, 405, 410, 413, 414, 415, 422})
_SMTP_PORT = 25
_SMTPS_PORT = 465


class State(StrEnum):
    """How far a delivery is."""

    WAITING = "waiting"
    SENT = "sent"
    FAILED = "failed"


#: The names of all targets. ``connect_targets`` returns those that are configured.
NAMES = ("ticket", "slack", "teams", "mail")
#: The states after which nothing more is sent.
ENDS = (State.SENT, State.FAILED)


def is_case(text: str) -> bool:
    """Tell whether a text has the form of a case's id in support-service."""
    return re.fullmatch(r"[A-Za-z0-9-]{1,64}", text) is not None


class NotSentError(Exception):
    """The target did not take the message, as far as we know. A later attempt may succeed."""


class RefusedError(NotSentError):
    """The target did not take the message, and no later attempt can succeed."""


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

    def send(self, message: Message) -> None:
        """Attempt once to send a message.

        Raises
        ------
        RefusedError, NotSentError
            When the target did not take the message, or its answer was lost.
        """


@contextmanager
def _map_errors() -> Iterator[None]:
    """Raise a client's error as the error of this module that says what became of the message."""
    try:
        yield
    except NotFoundError as error:
        raise RefusedError(str(error)) from error
    except ClientError as error:
        raise NotSentError(str(error)) from error


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

    def send(self, message: Message) -> None:
        """Attach the files that are missing, then write the message.

        Does nothing if the case has a message with this one's marker. The message is written
        last, so a marker also means that the files are attached.
        """
        path = self._path(check_ticket_id(message.case))
        with _map_errors():
            case = self.get(path, _Case)
            marker = f"[{message.name}]"
            if any(marker in entry.message for entry in case.messages):
                return
            # The API does not say which field holds the file's name, so every field's value counts.
            attached = {str(value) for entry in case.attachments for value in entry.values()}
            for name, file in message.files.items():
                if name not in attached:
                    self._attach(f"{path}/attachments", name, file)
            body = {"authorType": "agent", "message": f"{_join_text(message)}\n\n{marker}"}
            self.post(f"{path}/messages", object, body)

    def _attach(self, path: str, name: str, file: Path) -> None:
        files = {"file": (name, file.read_bytes(), "application/octet-stream")}
        self._ask("POST", path, files=files)


class Webhook(HttpClient):
    """An incoming webhook. Its whole address is a secret."""

    def __init__(self, url: str, *, timeout_s: float, ca_file: str, proxy_url: str) -> None:
        super().__init__(url, timeout_s=timeout_s, ca_file=ca_file, proxy_url=proxy_url)
        parts = urlsplit(url)
        self._redactor = Redactor((url, self.url, parts.path, parts.query))

    def build(self, message: Message) -> Json:
        """Return the JSON body that this kind of webhook takes."""
        raise NotImplementedError

    def send(self, message: Message) -> None:
        """Post a message. Any answer but 2xx means that the webhook did not take it."""
        body = self.build(message)
        with _map_errors():
            answer = self._send("POST", "", json=body)
        if 200 <= answer.status < 300:
            return
        text = f"the webhook answered {answer.status}: {self._quote(answer.body)}"
        if answer.status in _FINAL_STATUSES:
            raise RefusedError(text)
        raise NotSentError(text)


class SlackTarget(Webhook):
    """Slack's incoming webhook."""

    SYSTEM = "slack"

    def build(self, message: Message) -> Json:
        """Return a body that Slack shows as plain text, without links, mentions or formats."""
        text = _join_text(message)
        for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(character, entity)
        return {"text": text, "mrkdwn": False, "unfurl_links": False}


class TeamsTarget(Webhook):
    """The webhook of a Teams workflow, which takes an adaptive card."""

    SYSTEM = "teams"

    def build(self, message: Message) -> Json:
        """Return an adaptive card with a block for each line.

        A ``TextRun`` is shown as it is. A ``TextBlock`` would be read as Markdown.
        """
        blocks = []
        for line in _join_text(message).splitlines():
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


def _join_text(message: Message) -> str:
    """Return subject and text in one."""
    return f"{message.subject}\n{message.text}"


class MailTarget:
    """A mail server. Each attempt has the same Message-ID, so that mail programs can show one mail.

    Parameters
    ----------
    url : ``smtp://[user:password@]host[:port]`` or ``smtps://…``. With ``smtp://``, STARTTLS is
        used if the server offers it. The password is sent over TLS only
    receivers : addresses, separated by commas
    """

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

    def build(self, message: Message) -> EmailMessage:
        """Return the mail with its attachments; a follow-up answers the incident's first mail."""
        mail = EmailMessage()
        mail["Subject"] = " ".join(message.subject.split())
        mail["From"] = self._sender
        mail["To"] = ", ".join(self._receivers)
        mail["Date"] = formatdate()
        domain = self._sender.rpartition("@")[2]
        mail["Message-ID"] = f"<{message.id}@{domain}>"
        if message.thread:
            mail["In-Reply-To"] = f"<{message.thread}@{domain}>"
            mail["References"] = f"<{message.thread}@{domain}>"
        mail.set_content(message.text)
        for name, path in message.files.items():
            subtype = "html" if path.suffix == ".html" else "plain"
            mail.add_attachment(path.read_bytes(), maintype="text", subtype=subtype, filename=name)
        return mail

    def send(self, message: Message) -> None:
        """Send one mail to all receivers."""
        mail = self.build(message)
        try:
            with self._connect() as server:
                self._log_in(server)
                refused = server.send_message(mail, self._sender, self._receivers)
        except (OSError, smtplib.SMTPException) as error:
            raise NotSentError(f"mail: {self._redactor.text(str(error))}") from error
        if refused:
            raise RefusedError(f"mail: the server refuses {', '.join(refused)}")

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
