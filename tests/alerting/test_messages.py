"""What a message of `runbook serve` says."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from alerting.book import KnownAlert
from alerting.look import Look
from alerting.messages import Occasion, make_text
from fulfillment.policy import POLICY
from fulfillment.sections import SECTIONS
from runbook_lib.record.incident import Incident
from runbook_lib.redact import Redactor
from runbook_lib.report import write_outputs
from tests.support.incidents import START, Teller, damage_journal, make_incident

SECRET = "s3cr3t-of-the-store"


@pytest.fixture
def tell(tmp_path: Path) -> Teller:
    """Return an incident with one report, and a backlog that then grew."""
    tell = make_incident(tmp_path)
    tell.read("2.3", "backlog objects", "breach", value=3, unit="objects")
    write_outputs(tell.incident, SECTIONS)
    tell.read("2.3", f"backlog {SECRET}", "breach", value=74, unit="objects")
    write_outputs(tell.incident, SECTIONS)
    return tell


def write(incident: Incident, *, is_follow_up: bool, ended_at: datetime | None = None) -> list[str]:
    labels = {"alertname": "FulfillmentDelay"}
    alert = KnownAlert("f1", labels, START - timedelta(hours=1), ended_at, is_reported=False)
    occasion = Occasion(
        look=Look(incident=incident.id, verdict="incident", next="runbook run 06", error=""),
        alerts=[alert],
        is_drill=False,
        is_follow_up=is_follow_up,
        page_url="http://127.0.0.1:8115",
    )
    return make_text(occasion, incident, Redactor([SECRET])).splitlines()


def test_a_first_message_names_the_incident_that_ended_with_it(tell: Teller) -> None:
    before = "inc-20261124T010000Z-7f3a"
    tell.incident.mark("took_over", f"{before} is closed as incident.")
    told = [line for line in write(tell.incident, is_follow_up=False) if before in line]
    assert told == [f"{before} is closed as incident."]
    assert not any(before in line for line in write(tell.incident, is_follow_up=True))


def test_alerts_that_ended_before_the_trouble_began_are_said_to_be_of_earlier_trouble(
    tell: Teller,
) -> None:
    since = POLICY.find_ends(tell.incident.journal.view()).since
    assert since is not None
    words = "began after these alerts had ended"
    earlier = write(tell.incident, is_follow_up=True, ended_at=since - timedelta(seconds=1))
    assert words in earlier[1]
    for ended_at in (since + timedelta(seconds=1), None):
        assert words not in "\n".join(write(tell.incident, is_follow_up=True, ended_at=ended_at))


def test_a_message_holds_no_secret(tell: Teller) -> None:
    tell.incident.mark("took_over", f"the incident before is closed: {SECRET}")
    text = "\n".join(write(tell.incident, is_follow_up=False))
    assert "the incident before is closed" in text
    assert SECRET not in text


def test_a_damaged_journal_does_not_cost_the_message(tell: Teller) -> None:
    damage_journal(tell.incident.folder, line=1)
    lines = write(tell.incident, is_follow_up=True)
    assert any(line.startswith("Report: ") for line in lines)
