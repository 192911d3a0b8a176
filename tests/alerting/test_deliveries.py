"""What each target does when it is well, broken, silent, or loses its answer."""

from __future__ import annotations

import email
import email.policy
from pathlib import Path

import pytest

from alerting.settings import ServeSettings
from alerting.targets import (
    Message,
    NotSentError,
    RefusedError,
    Target,
    connect_targets,
)
from tests.support.serving import CASE, Receivers, make_service

pytestmark = pytest.mark.process
NAMES = ("ticket", "slack", "teams", "mail")


@pytest.fixture
def targets(
    receivers: Receivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Target]:
    service = make_service(tmp_path, receivers, {})
    for name, value in service.environment.items():
        if name not in ("PATH", "HOME", "PYTHONPATH"):
            monkeypatch.setenv(name, value)
    return dict(connect_targets(ServeSettings.load()))


def make_message(folder: Path, text: str = "It is broken.", thread: str = "") -> Message:
    (folder / "report.html").write_text("<p>report</p>")
    (folder / "summary.txt").write_text("Verdict: Incident")
    return Message(
        id="inc-1-1.1-x",
        name="inc-1-1.1",
        subject="FulfillmentDelay: incident",
        text=text,
        thread=thread,
        case=CASE,
        folder=str(folder),
    )


def count(receivers: Receivers, target: str) -> int:
    return len(receivers.mails) if target == "mail" else len(receivers.list_texts(target))


@pytest.mark.parametrize("name", NAMES)
def test_a_message_arrives(
    name: str, targets: dict[str, Target], receivers: Receivers, tmp_path: Path
) -> None:
    targets[name].send(make_message(tmp_path))
    assert count(receivers, name) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_target_takes_nothing(
    name: str, targets: dict[str, Target], receivers: Receivers, tmp_path: Path
) -> None:
    receivers.modes[name] = "500"
    with pytest.raises(NotSentError):
        targets[name].send(make_message(tmp_path))
    assert count(receivers, name) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_lost_answer_is_not_taken_for_sent(
    name: str, targets: dict[str, Target], receivers: Receivers, tmp_path: Path
) -> None:
    receivers.modes[name] = "lost"
    with pytest.raises(NotSentError):
        targets[name].send(make_message(tmp_path))


@pytest.mark.parametrize("name", ["slack", "teams"])
def test_silence_after_sending_is_not_taken_for_sent(
    name: str, targets: dict[str, Target], receivers: Receivers, tmp_path: Path
) -> None:
    receivers.modes[name] = "silent"
    with pytest.raises(NotSentError):
        targets[name].send(make_message(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_where_nobody_listens_nothing_was_sent(
    name: str, targets: dict[str, Target], receivers: Receivers, tmp_path: Path
) -> None:
    settings = ServeSettings.load().model_copy(update={"support_url": "http://127.0.0.1:1"})
    closed = {}
    for secret in ("serve_slack_url", "serve_teams_url", "serve_smtp_url"):
        scheme = "smtp" if "smtp" in secret else "http"
        kind = type(settings.serve_token)
        closed[secret] = kind(f"{scheme}://127.0.0.1:1")
    gone = connect_targets(settings.model_copy(update=closed))
    with pytest.raises(NotSentError):
        gone[name].send(make_message(tmp_path))


def test_a_ticket_gets_a_message_once_and_its_files_before_it(
    targets: dict[str, Target], receivers: Receivers, tmp_path: Path
) -> None:
    receivers.modes["ticket"] = "lost"
    message = make_message(tmp_path)
    for _ in range(3):
        with pytest.raises(NotSentError):
            targets["ticket"].send(message)
    receivers.modes["ticket"] = "ok"
    targets["ticket"].send(message)
    targets["ticket"].send(message)
    (text,) = receivers.list_texts("ticket")
    assert "[inc-1-1.1]" in text
    assert receivers.files == ["inc-1-1.1-report.html", "inc-1-1.1-summary.txt"]


def test_a_case_that_does_not_exist_is_refused_for_good(
    targets: dict[str, Target], tmp_path: Path
) -> None:
    message = make_message(tmp_path)
    other = Message("a", "b", "s", "t", case="no-such-case", folder=message.folder)
    with pytest.raises(RefusedError):
        targets["ticket"].send(other)


def test_a_mail_keeps_its_id_answers_the_first_one_and_has_the_report(
    targets: dict[str, Target], receivers: Receivers, tmp_path: Path
) -> None:
    message = make_message(tmp_path, thread="inc-1-1.0-mail")
    for _ in range(2):
        targets["mail"].send(message)
    mails = [email.message_from_bytes(m, policy=email.policy.default) for m in receivers.mails]
    assert mails[0]["Message-ID"] == mails[1]["Message-ID"] == "<inc-1-1.1-x@example.com>"
    assert mails[0]["In-Reply-To"] == "<inc-1-1.0-mail@example.com>"
    names = [part.get_filename() for part in mails[0].iter_attachments()]
    assert names == ["inc-1-1.1-report.html", "inc-1-1.1-summary.txt"]


def test_slack_gets_no_mention_no_link_and_no_format(
    targets: dict[str, Target], receivers: Receivers, tmp_path: Path
) -> None:
    message = make_message(tmp_path, "<!channel> <http://evil|click> & *bold*")
    targets["slack"].send(message)
    (text,) = receivers.list_texts("slack")
    assert "<" not in text
    assert "&lt;!channel&gt;" in text


def test_an_error_shows_no_address_of_a_webhook(
    targets: dict[str, Target], receivers: Receivers, tmp_path: Path
) -> None:
    receivers.modes["slack"] = "closed"
    with pytest.raises(NotSentError) as caught:
        targets["slack"].send(make_message(tmp_path))
    assert "secret-path" not in str(caught.value)
