"""A look of serve whose trouble is that of an incident which a person opened meanwhile."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from alerting.book import Book, KnownAlert, connect_database
from alerting.look import Look, Looker
from alerting.metrics import Metrics
from alerting.settings import ServeSettings
from alerting.work import Bell, Work
from runbook_lib.record.incident import Incident, create_incident
from runbook_lib.redact import Redactor
from tests.support.incidents import START

ALERT = KnownAlert("f1", {"alertname": "FulfillmentDelay"}, START, None, is_reported=False)


class FakeLooker:
    """Remembers what it was asked, and answers with an error if it has one."""

    def __init__(self, error: str = "") -> None:
        self.error = error
        self.asked: list[tuple[str, str]] = []

    def add_alerts(self, incident: str, alerts: list[KnownAlert]) -> str:
        self.asked.append(("add", incident))
        assert alerts == [ALERT]
        return self.error

    def close(self, incident: str) -> str:
        self.asked.append(("close", incident))
        return ""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNBOOK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Work, "_register", lambda _: None)
    return tmp_path / "home"


def make_look(home: Path) -> Incident:
    return create_incident(home, redactor=Redactor(), environment="local", opened_by="")


def follow(looker: FakeLooker, incident: Incident) -> str:
    """Return the incident of a look that went on in this folder."""
    engine = connect_database(f"sqlite:///{incident.folder.parents[1] / 'serve.sqlite3'}")
    book = Book(engine, cooldown=timedelta(0))
    work = Work(
        ServeSettings(),
        book,
        looker=cast(Looker, looker),
        targets={},
        metrics=Metrics(book),
        bell=Bell(),
    )
    look = Look(incident=incident.id, verdict="incident", next="", error="")
    followed = work._follow_to_incident(look, [ALERT])
    engine.dispose()
    return followed.incident


def test_its_messages_and_alerts_are_of_that_incident(home: Path) -> None:
    look = make_look(home)
    incident = make_look(home)
    incident.open("2.1")
    look.open("2.1")
    looker = FakeLooker()
    assert follow(looker, look) == incident.id
    assert looker.asked == [("add", incident.id), ("close", look.id)]


def test_it_keeps_its_alerts_if_that_report_does_not_take_them(home: Path) -> None:
    look = make_look(home)
    make_look(home).open("2.1")
    look.open("2.1")
    assert follow(FakeLooker("the disk is full"), look) == look.id


def test_an_incident_of_its_own_stays_one(home: Path) -> None:
    incident = make_look(home)
    incident.open("2.1")
    looker = FakeLooker()
    assert follow(looker, incident) == incident.id
    assert looker.asked == []
