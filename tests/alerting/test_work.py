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
from alerting.targets import AnswerLostError, Message, NotSentError, RefusedError, State
from alerting.work import Bell, Work

ID = "inc-1-1.1-x"
MESSAGE = dict.fromkeys(("name", "subject", "text", "thread", "case", "folder"), "")


class FakeTarget:
    """A target whose attempts end as a test says: with an error, or well."""

    def __init__(self, *ends: Exception | None, shows_messages: bool) -> None:
        self.shows_messages = shows_messages
        self._ends = iter(ends)

    def send(self, message: Message, *, is_repeat: bool) -> None:
        """End as the test says; a repeat is only for a target that does not show its messages."""
        assert message.id == ID
        assert not (is_repeat and self.shows_messages)
        error = next(self._ends)
        if error is not None:
            raise error

    def check_alive(self) -> None:
        """Answer."""


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    engine = connect_database(f"sqlite:///{tmp_path / 'serve.sqlite3'}")
    yield Book(engine, cooldown=timedelta(0))
    engine.dispose()


LOST = AnswerLostError("the answer was lost")
CLOSED = NotSentError("nobody listens")
GONE = RefusedError("no such case")


@pytest.mark.parametrize("shows_messages", [True, False])
@pytest.mark.parametrize(
    ("ends", "state"),
    [
        ((GONE,), State.FAILED),
        ((CLOSED, GONE), State.FAILED),
        ((CLOSED, CLOSED), State.WAITING),
        ((LOST, GONE), State.UNCONFIRMED),
        ((LOST, CLOSED, GONE), State.UNCONFIRMED),
        ((LOST, CLOSED), State.LOST),
    ],
)
def test_a_delivery_that_may_have_arrived_is_not_called_failed(
    book: Book,
    monkeypatch: pytest.MonkeyPatch,
    ends: tuple[Exception, ...],
    state: State,
    *,
    shows_messages: bool,
) -> None:
    work = make_work(book, monkeypatch, FakeTarget(*ends, shows_messages=shows_messages))
    reached = [work._attempt(ID) for _ in ends]
    assert reached[-1] == book.read_delivery(ID).state == state


@pytest.mark.parametrize(
    ("ends", "state"), [((LOST,), State.UNCONFIRMED), ((CLOSED,), State.FAILED)]
)
def test_a_delivery_that_is_given_up_or_lost_its_target_may_have_arrived(
    book: Book, monkeypatch: pytest.MonkeyPatch, ends: tuple[Exception, ...], state: State
) -> None:
    work = make_work(book, monkeypatch, FakeTarget(*ends, shows_messages=True))
    work._attempt(ID)
    assert work._give_up(ID) == state
    book.set_delivery(ID, State.SENDING if state is State.UNCONFIRMED else State.WAITING)
    work._targets = {}
    assert work._attempt(ID) == state


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
