"""Where messages go: a customer's case in support-service, and whatever Apprise can reach.

A message arrives at least once: an attempt whose answer is lost counts as not sent.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import certifi
from apprise import Apprise, AppriseAsset, NotifyFormat

from fulfillment.clients.http_systems import SupportClient
from runbook_lib.errors import ClientError, SettingsError
from runbook_lib.http import CAMEL, check_ticket_id
from runbook_lib.model import Json

from .messages import Message
from .settings import ServeSettings

#: The longest that one attempt may take.
_ATTEMPT_S = 60.0
#: What the libraries below Apprise would read from the environment.
_FOREIGN = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


class NotSentError(Exception):
    """The target did not take the message, as far as we know. A later attempt may succeed."""


@dataclass(frozen=True)
class _CaseMessage:
    message: str = ""

    __pydantic_config__ = CAMEL


@dataclass(frozen=True)
class _Case:
    """What a customer's case holds. An answer without one of the lists is an error."""

    messages: tuple[_CaseMessage, ...]
    attachments: tuple[dict[str, Json], ...]

    __pydantic_config__ = CAMEL


class TicketTarget(SupportClient):
    """A customer's case in support-service. It shows its messages, so none is written twice."""

    def send(self, message: Message, case: str) -> None:
        """Attach the report, then write the message; each only if the case has none yet.

        Raises NotSentError when that fails, the answer is lost, or the report can't be read.
        """
        path = self._path(check_ticket_id(case))
        try:
            known = self.get(path, _Case)
            if any(f"[{message.id}]" in entry.message for entry in known.messages):
                return
            # The API doesn't say which field holds the file's name, so compare every field.
            attached: list[Json] = []
            for entry in known.attachments:
                attached += entry.values()
            name = f"{message.id}-report.html".replace(" ", "-")
            if message.report and name not in attached:
                content = Path(message.report).read_bytes()
                files = {"file": (name, content, "application/octet-stream")}
                self._ask("POST", f"{path}/attachments", files=files)
            body = {"authorType": "agent", "message": f"{message.subject}\n{message.text}"}
            self.post(f"{path}/messages", object, body)
        except (ClientError, OSError) as error:  # OSError: the report is gone
            raise NotSentError(str(error)) from error


class AppriseTarget:
    """One URL of ``SERVE_TARGETS_FILE``: Slack, Teams, mail, PagerDuty, Jira and many more."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        asset = AppriseAsset(
            app_id="runbook",
            image_url_mask="",  # no picture that somebody's chat would fetch
            image_url_logo="",
            language="en",
            service_timeout=_ATTEMPT_S,
        )
        self._service = Apprise(asset=asset)
        if not self._service.add(url):
            raise SettingsError("SERVE_TARGETS_FILE has a line that is not an Apprise URL")
        for plugin in self._service:
            plugin.socket_connect_timeout = timeout_s
            plugin.socket_read_timeout = timeout_s

    def send(self, message: Message, _case: str) -> None:
        """Send a message, with the report if the service takes files.

        Raises NotSentError as ``TicketTarget`` does.
        """
        result = self._service.notify(
            title=message.subject,
            body=message.text,
            body_format=NotifyFormat.TEXT,
            attach=message.report or None,
        )
        if not result:
            reasons = [str(entry.message) for entry in result.logs()]
            raise NotSentError("; ".join(reasons) or "the service accepted no message")


Target = TicketTarget | AppriseTarget


def connect_targets(settings: ServeSettings) -> Mapping[str, Target]:
    """Return the targets of the settings, by name. Sends nothing.

    Raises SettingsError when Apprise can't read a URL, without showing it.
    """
    targets: dict[str, Target] = {}
    if settings.support_url:
        targets["ticket"] = TicketTarget.connect(settings)
    for name, url in settings.read_targets().items():
        targets[name] = AppriseTarget(url, timeout_s=settings.http_timeout_s)
    return targets


def isolate(settings: ServeSettings) -> None:
    """Let the libraries below Apprise read our settings from the environment, and nothing else.

    Changes this process's environment.
    """
    for name in _FOREIGN:
        for spelling in (name, name.lower()):
            with suppress(KeyError):
                del os.environ[spelling]
    ca_file = str(settings.ca_bundle or certifi.where())
    os.environ["REQUESTS_CA_BUNDLE"] = ca_file
    os.environ["SSL_CERT_FILE"] = ca_file
    os.environ["NETRC"] = os.devnull
    if settings.proxy_url:
        os.environ["HTTP_PROXY"] = settings.proxy_url
        os.environ["HTTPS_PROXY"] = settings.proxy_url
