"""What the rows of alerts say is still to be told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from alerting.alerts import AlertBook
from alerting.payload import Alert, read_payload
from tests.support.serving import make_alert, make_payload

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


@pytest.fixture
def book(tmp_path: Path) -> AlertBook:
    return AlertBook(tmp_path / "jobs.sqlite3", clock=lambda: NOW)


def read(number: int, *, status: str = "firing") -> Alert:
    body = make_payload(make_alert(number, status=status))
    return read_payload(json.dumps(body).encode()).alerts[0]


def list_due(book: AlertBook) -> list[tuple[str, str]]:
    return [(alert.fingerprint[-1], alert.seen) for alert in book.list_due()]


def tell(book: AlertBook, incident: str) -> None:
    book.save_seen(book.list_due(), incident)


def test_an_end_is_due_when_no_alert_of_its_incident_fires(book: AlertBook) -> None:
    book.receive([read(1), read(2)])
    tell(book, "inc-1")
    book.receive([read(3)])
    tell(book, "inc-2")
    book.receive([read(1, status="resolved")])
    assert list_due(book) == []
    book.receive([read(2, status="resolved")])
    assert list_due(book) == [("1", "firing"), ("2", "firing")]
    tell(book, "inc-1")
    assert (list_due(book), book.count_firing("inc-1"), book.count_firing("inc-2")) == ([], 0, 1)
