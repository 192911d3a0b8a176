"""What a message of `runbook serve` says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from alerting.book import KnownAlert
from alerting.look import Look
from alerting.messages import Occasion, make_text
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


def write(incident: Incident) -> list[str]:
    labels = {"alertname": "FulfillmentDelay"}
    alert = KnownAlert("f1", labels, START - timedelta(hours=1), None, is_reported=False)
    occasion = Occasion(
        look=Look(incident=incident.id, verdict="incident", next="runbook run 06", error=""),
        alerts=[alert],
        is_drill=False,
        is_follow_up=False,
        page_url="http://127.0.0.1:8115",
    )
    return make_text(occasion, incident, Redactor([SECRET])).splitlines()


def test_a_message_holds_no_secret(tell: Teller) -> None:
    (tell.incident.folder / "summary.txt").write_text(f"Verdict: {SECRET}\nReport: here\n")
    text = "\n".join(write(tell.incident))
    assert "Verdict: " in text
    assert SECRET not in text


def test_a_damaged_journal_does_not_cost_the_message(tell: Teller) -> None:
    damage_journal(tell.incident.folder, line=1)
    lines = write(tell.incident)
    assert any(line.startswith("Report: ") for line in lines)
