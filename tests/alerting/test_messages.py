"""What a message of `runbook serve` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from alerting.alerts import KnownAlert
from alerting.investigation import Investigation
from alerting.messages import Message, make_message
from fulfillment.sections import SECTIONS
from runbook_lib.redact import Redactor
from runbook_lib.report import write_outputs
from tests.support.incidents import Teller, make_incident

SECRET = "s3cr3t-of-the-store"


@pytest.fixture
def tell(tmp_path: Path) -> Teller:
    told = make_incident(tmp_path)
    told.read("2.3", f"backlog {SECRET}", "breach", value=3, unit="objects")
    write_outputs(told.incident, SECTIONS)
    return told


def write(home: Path, incident: str) -> Message:
    alert = KnownAlert(
        labels={"alertname": "FulfillmentDelay\u202e"},
        fingerprint="f1",
        starts_at="2026-11-24T03:00:00Z",
        ends_at=None,
        is_drill=False,
        incident="",
        seen="",
    )
    look = Investigation(
        incident=incident, verdict="incident", next="runbook run 06", since="", error=""
    )
    page_url = "https://x.example.net"
    return make_message(look, [alert], home=home, page_url=page_url, redactor=Redactor([SECRET]))


def test_a_message_is_the_summary_without_secrets_with_links_that_work(tell: Teller) -> None:
    folder = tell.incident.folder
    (folder / "summary.txt").write_text(f"Verdict: {SECRET}\nReport: file://{folder}/report.html\n")
    message = write(folder.parent, folder.name)
    lines = message.text.splitlines()
    assert lines[0].startswith("Verdict: ")
    assert f"Report: https://x.example.net/incidents/{folder.name}/report.html" in lines
    assert lines[-1] == f"[{message.id}]" == f"[{folder.name} incident]"
    assert message.report == str(folder / "report.html")
    shown = f"{message.subject}\n{message.text}"
    assert SECRET not in shown
    assert str(folder) not in shown
    assert "\u202e" not in shown
