"""What each target does when it is well, broken, silent, or loses its answer."""

from __future__ import annotations

import email
import email.policy
import json
from pathlib import Path

import pytest
import requests

from alerting.messages import Message
from alerting.settings import ServeSettings
from alerting.targets import NotSentError, Target, connect_targets
from runbook_lib.errors import SettingsError
from tests.support.serving import CASE, Receivers, make_service

pytestmark = pytest.mark.process


@pytest.fixture
def settings(
    receivers: Receivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ServeSettings:
    service = make_service(tmp_path, receivers, {})
    for name, value in service.environment.items():
        if name not in ("PATH", "HOME", "PYTHONPATH"):
            monkeypatch.setenv(name, value)
    return ServeSettings.load()


@pytest.fixture
def targets(settings: ServeSettings) -> dict[str, Target]:
    return dict(connect_targets(settings))


@pytest.fixture
def message(tmp_path: Path) -> Message:
    report = tmp_path / "report.html"
    report.write_text("<p>report</p>")
    return Message(
        id="inc-1 incident",
        subject="FulfillmentDelay: incident",
        text="It is broken.\n[inc-1 incident]",
        report=str(report),
    )


def test_a_ticket_gets_a_message_once_and_its_report_before_it(
    targets: dict[str, Target], receivers: Receivers, message: Message
) -> None:
    receivers.modes["ticket"] = "lost"
    for _ in range(2):
        with pytest.raises(NotSentError):
            targets["ticket"].send(message, CASE)
    receivers.modes["ticket"] = "ok"
    targets["ticket"].send(message, CASE)
    targets["ticket"].send(message, CASE)
    (text,) = receivers.list_texts("ticket")
    assert "[inc-1 incident]" in text
    assert receivers.files == ["inc-1-incident-report.html"]


def test_a_mail_has_the_report(
    targets: dict[str, Target], receivers: Receivers, message: Message
) -> None:
    targets["mailto"].send(message, "")
    mail = email.message_from_bytes(receivers.mails[0], policy=email.policy.default)
    assert mail["Subject"] == message.subject
    assert [part.get_filename() for part in mail.iter_attachments()] == ["report.html"]


def test_slack_gets_no_mention(
    settings: ServeSettings, message: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.serve_targets_file is not None
    settings.serve_targets_file.write_text("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ")
    sent: list[str] = []

    def post(*_: object, data: str, **__: object) -> requests.Response:
        sent.append(data)
        answer = requests.Response()
        answer.status_code = 200
        answer._content = b"ok"
        return answer

    monkeypatch.setattr(requests, "request", post)
    hostile = Message("id", "<!channel>", "<!here> <http://evil|click>", "")
    connect_targets(settings)["slack"].send(hostile, "")
    (body,) = sent
    assert "<" not in body
    assert "&lt;!here&gt;" in str(json.loads(body))


def test_a_line_that_is_no_url_is_refused_without_showing_it(settings: ServeSettings) -> None:
    assert settings.serve_targets_file is not None
    settings.serve_targets_file.write_text("nosuch://user:secret@host")
    with pytest.raises(SettingsError, match="SERVE_TARGETS_FILE") as caught:
        connect_targets(settings)
    assert "secret" not in str(caught.value)
