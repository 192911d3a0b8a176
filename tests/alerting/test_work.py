"""How a delivery ends after attempts of which nobody knows whether they arrived."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from alerting.book import Book, connect_database
from alerting.look import Looker
from alerting.metrics import Metrics
from alerting.settings import ServeSettings
from alerting.targets import Message, NotSentError, RefusedError, State
from alerting.work import Bell, Work

ID = "inc-1-1.1-x"
MESSAGE = dict.fromkeys(("name", "subject", "text", "thread", "case", "folder"), "")


class FakeTarget:
    """A target whose attempt ends as a test says: with an error, or well."""

    def __init__(self, end: Exception | None) -> None:
        self._end = end

    def send(self, message: Message) -> None:
        assert message.id == ID
        if self._end is not None:
            raise self._end


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    engine = connect_database(f"sqlite:///{tmp_path / 'serve.sqlite3'}")
    yield Book(engine, cooldown=timedelta(0))
    engine.dispose()


@pytest.mark.parametrize(
    ("end", "result", "state"),
    [
        (None, "sent", State.SENT),
        (RefusedError("no such case"), "failed", State.FAILED),
        (NotSentError("nobody listens"), "waiting", State.WAITING),
    ],
)
def test_an_attempt_ends_a_delivery_or_leaves_it_waiting(
    book: Book,
    monkeypatch: pytest.MonkeyPatch,
    end: Exception | None,
    result: str,
    state: State,
) -> None:
    work = make_work(book, monkeypatch, FakeTarget(end))
    assert work._attempt(ID) == result
    assert book.read_delivery(ID).state == state


def test_a_delivery_that_is_given_up_has_failed(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_work(book, monkeypatch, FakeTarget(None))._give_up(ID) == State.FAILED


def make_work(book: Book, monkeypatch: pytest.MonkeyPatch, target: FakeTarget) -> Work:
    """Return the jobs with one delivery and its target; dbos does not know them."""
    monkeypatch.setattr(Work, "_register", lambda _: None)
    book.add_delivery(ID, "ticket", MESSAGE)
    settings = ServeSettings()
    return Work(
        settings,
        book,
        looker=Looker(settings),
        targets={"ticket": target},
        metrics=Metrics(book),
        bell=Bell(),
    )
