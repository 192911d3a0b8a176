"""What ``serve --alerts`` answers about an episode."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from alerting.book import Book, connect_database
from alerting.payload import read_alerts
from alerting.service import _hold_home, make_answer
from alerting.settings import ServeSettings
from runbook_lib.errors import ExitCode, UsageError
from tests.support.serving import make_alert

MESSAGE = {"case": ""}


def test_a_later_look_that_failed_is_answered_by_its_own_messages(tmp_path: Path) -> None:
    engine = connect_database(f"sqlite:///{tmp_path / 'answer.sqlite3'}")
    book = Book(engine, cooldown=timedelta(0))
    alerts = read_alerts(json.dumps([make_alert(1)]).encode())
    book.receive(alerts, closed={})
    book.end_look(1, look=1, incident="inc-1")
    book.add_delivery("inc-1-1.1-slack", "slack", MESSAGE)
    book.set_delivery("inc-1-1.1-slack", "sent")
    assert make_answer(book, alerts[0]).is_done
    book.end_look(1, look=2, incident="")
    book.add_delivery("episode-1-1.2-slack", "slack", MESSAGE)
    answer = make_answer(book, alerts[0])
    assert [delivery["state"] for delivery in answer.deliveries] == ["waiting"]
    assert (answer.exit_code, answer.is_done) == (ExitCode.NOT_OK, False)
    engine.dispose()


def test_a_second_call_is_refused_in_the_same_folder_and_does_not_blame_the_service(
    tmp_path: Path,
) -> None:
    settings = ServeSettings(runbook_home=tmp_path)
    settings.serve_home.mkdir()
    with (
        _hold_home(settings, "serve"),
        _hold_home(settings, "answer"),
        pytest.raises(UsageError, match="runbook serve --alerts"),
        _hold_home(settings, "answer"),
    ):
        pass
