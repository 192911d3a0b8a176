"""Which alerts are one episode, and when one is to be looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from alerting.book import Book, connect_database
from alerting.payload import Alert, read_payload
from tests.support.serving import make_alert, make_payload

COOLDOWN = timedelta(minutes=5)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 4, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_minutes(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> Iterator[Book]:
    engine = connect_database(f"sqlite:///{tmp_path / 'serve.sqlite3'}")
    yield Book(engine, cooldown=COOLDOWN, clock=clock)
    engine.dispose()


def read(number: int = 1, *, minute: int = 0, status: str = "firing", **labels: str) -> Alert:
    body = make_payload(make_alert(number, minute=minute, status=status, **labels))
    return read_payload(json.dumps(body).encode(), alert_limit=10).alerts[0]


def receive(book: Book, *alerts: Alert, **closed: datetime) -> tuple[int, int]:
    received = book.receive(alerts, closed=closed)
    return received.accepted, received.folded


def look(book: Book, episode: int, number: int = 1, incident: str = "inc-1") -> None:
    """Do what a look does to the book."""
    book.begin_look(episode)
    keys = [(a.fingerprint, a.started_at) for a in book.list_alerts(episode)]
    book.mark_reported(episode, [(f, f"{at:%Y-%m-%dT%H:%M:%S}.123Z") for f, at in keys])
    book.end_look(episode, look=number, incident=incident)


def list_stale(book: Book) -> list[int]:
    return [episode.id for episode in book.list_stale_episodes()]


def test_a_thousand_copies_are_one_alert(book: Book) -> None:
    assert receive(book, *[read()] * 1000) == (1, 999)
    assert receive(book, read()) == (0, 1)
    assert book.read_waiting().alerts == 1


def test_alerts_that_overlap_are_one_episode_whatever_their_fingerprints(book: Book) -> None:
    receive(book, read(1), read(2, minute=1), read(3, minute=9))
    assert [alert.fingerprint[-1] for alert in book.list_alerts(1)] == ["1", "2", "3"]
    assert list_stale(book) == [1]


def test_an_alert_that_joins_asks_for_a_look(book: Book, clock: Clock) -> None:
    receive(book, read(1))
    look(book, 1)
    clock.pass_minutes(6)
    receive(book, read(2, minute=1))
    assert list_stale(book) == [1]


def test_repeats_of_what_fires_ask_for_nothing(book: Book, clock: Clock) -> None:
    receive(book, read(1))
    look(book, 1)
    clock.pass_minutes(180)
    receive(book, read(1))
    assert book.list_stale_episodes() == []


def test_the_last_resolved_alert_asks_for_a_look(book: Book) -> None:
    receive(book, read(1), read(2))
    look(book, 1)
    receive(book, read(1, status="resolved"))
    assert list_stale(book) == []
    receive(book, read(2, status="resolved"))
    assert list_stale(book) == [1]


def test_a_later_episode_is_another_one(book: Book) -> None:
    receive(book, read(1))
    look(book, 1)
    receive(book, read(1, status="resolved"))
    later = read(2).model_copy(update={"starts_at": datetime(2026, 11, 24, 4, 30, tzinfo=UTC)})
    receive(book, later)
    assert [alert.fingerprint[-1] for alert in book.list_alerts(2)] == ["2"]


def test_an_alert_that_flaps_within_the_cooldown_stays_in_its_episode(
    book: Book, clock: Clock
) -> None:
    receive(book, read(1))
    look(book, 1)
    receive(book, read(1, status="resolved"))
    clock.pass_minutes(1)
    again = read(1).model_copy(update={"starts_at": datetime(2026, 11, 24, 4, 1, tzinfo=UTC)})
    receive(book, again)
    assert len(book.list_alerts(1)) == 2
    assert list_stale(book) == [1]


def test_an_episode_whose_incident_was_closed_is_over_though_nothing_was_resolved(
    book: Book, clock: Clock
) -> None:
    receive(book, read(1))
    look(book, 1)
    closed_at = clock.now
    after = read(2).model_copy(update={"starts_at": closed_at + timedelta(minutes=1)})
    book.receive([after], closed={"inc-1": closed_at})
    assert [alert.fingerprint[-1] for alert in book.list_alerts(2)] == ["2"]


def test_drills_are_episodes_of_their_own(book: Book) -> None:
    receive(book, read(1), read(2, drill="true"))
    episodes = book.list_stale_episodes()
    assert sorted(episode.is_drill for episode in episodes) == [False, True]


def test_an_alert_that_was_over_before_we_heard_of_it_waits_for_nothing(book: Book) -> None:
    assert receive(book, read(1, status="resolved")) == (0, 1)
    assert book.list_stale_episodes() == []


def test_a_look_during_which_something_changed_is_followed_by_another(book: Book) -> None:
    receive(book, read(1))
    book.begin_look(1)
    receive(book, read(1, status="resolved"))
    book.end_look(1, look=1, incident="inc-1")
    assert list_stale(book) == [1]


def test_labels_with_odd_characters_survive(book: Book) -> None:
    odd = {"alertname": "\x00<b>; rm -rf / \u202e\U0001f4a3", "x": "'\"--"}
    receive(book, read(1).model_copy(update={"labels": odd}))
    assert book.list_alerts(1)[0].labels == odd


def test_open_deliveries_are_those_of_one_target_in_no_end_state_oldest_first(
    book: Book, clock: Clock
) -> None:
    for name in ("b", "a", "c"):
        book.add_delivery(name, "slack", {})
        clock.pass_minutes(1)
    book.add_delivery("d", "mail", {})
    book.set_delivery("c", "sent")
    assert book.list_waiting_deliveries("slack") == ["b", "a"]
