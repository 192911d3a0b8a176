"""A ticket that does not exist is refused before anything is written; it was kept, once."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from fulfillment.investigation import Investigation
from fulfillment.sections import SECTIONS
from fulfillment.settings import Settings
from runbook_lib.errors import UsageError
from runbook_lib.run.commands import investigate, run

DETECTION = SECTIONS["02_signals_detection"]


@pytest.fixture
def settings(tmp_path: Path, httpserver: HTTPServer) -> Settings:
    httpserver.expect_request("/support/cases/nope").respond_with_json(
        {"detail": "Ticket not found"}, status=404
    )
    return Settings(runbook_home=tmp_path, support_url=httpserver.url_for("").rstrip("/"))


def test_an_unknown_ticket_is_refused_and_nothing_is_written(settings: Settings) -> None:
    with pytest.raises(UsageError, match="'nope'"):
        investigate(settings, SECTIONS, ticket_id="nope")
    with pytest.raises(UsageError, match="'nope'"):
        run(settings, SECTIONS, ["02"], parameter=["ticket_id=nope"])
    with pytest.raises(UsageError, match="'nope'"):
        Investigation.open(section=DETECTION, settings=settings, ticket_id="nope")
    assert list(settings.runbook_home.iterdir()) == []


def test_a_ticket_that_cannot_be_asked_for_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fulfillment.investigation.check_connected", lambda *_: None)
    settings = Settings(runbook_home=tmp_path, support_url="http://127.0.0.1:9")
    inv = Investigation.open(section=DETECTION, settings=settings, ticket_id="TICK-1")
    assert inv.incident.state.ticket_id == "TICK-1"
