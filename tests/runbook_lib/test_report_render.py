"""The report holds what the journal holds, and no secret."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fulfillment.sections import SECTIONS
from runbook_lib.record.incident import Incident
from runbook_lib.report import ReportModel, write_report
from tests.support.incidents import damage_journal, make_incident
from tests.support.world import ORDER


def render(incident: Incident) -> str:
    return write_report(incident, ReportModel(incident, SECTIONS)).read_text("utf-8")


def all_steps() -> set[str]:
    return {
        step
        for module in SECTIONS.values()
        for step in (*module.STEPS, *module.ACTIONS)
        if step.startswith(f"{int(module.NAME[:2])}.")
    }


def test_every_step_of_the_runbook_has_an_anchor(told: Incident) -> None:
    ids = re.findall(r'<[^>]* id="([^"]+)"', render(told))
    assert {f"step-{step}" for step in all_steps()} <= set(ids)
    assert len(ids) == len(set(ids))


def test_beside_it_lie_the_orders_and_the_same_story_for_programs(told: Incident) -> None:
    rows = (told.folder / "affected_orders.csv").read_text("utf-8").splitlines()
    document = json.loads((told.folder / "report.json").read_text("utf-8"))
    assert rows[0] == "order,first_seen,last_seen"
    assert [row.partition(",")[0] for row in rows[1:]] == document["affected"] == [str(ORDER)]
    assert document["schema"] == "runbook/report/1"
    assert document["title"] in (told.folder / "report.md").read_text("utf-8")


def test_plan_hash_and_head_are_printed(told: Incident) -> None:
    html = render(told)
    view = told.journal.view()
    head = view.entries[-1]
    plan = next(action.result for action in view.actions if action.phase == "applied")
    for text in (plan["plan"], plan["sha256"], head.hash, f"entry {head.seq}"):
        assert text in html


def test_a_damaged_journal_is_told_up_to_the_damage(told: Incident) -> None:
    damage_journal(told.folder, line=11)
    html = render(told)
    assert "line 11" in html
    assert "entry 10, " in html


def test_secrets_reach_the_report_in_no_form(tmp_path: Path) -> None:
    secret = 'S3ntinel"&<pass>/value'
    tell = make_incident(tmp_path, secrets=(secret,))
    # written by another hand, so that the report's own redaction is what counts
    path = tell.incident.journal.path
    from runbook_lib.record.journal import Journal
    from runbook_lib.redact import Redactor

    other = Journal(path, redactor=Redactor(), clock=tell.clock)
    other.append("note", {"section": "", "text": f"it was {secret} all along"})
    reading = {
        "step": "2.1",
        "name": secret,
        "value": secret,
        "status": "breach",
        "observed_at": "2026-11-24T03:14:00Z",
        "source": f"http://admin:{'hunter2hunter2'}@127.0.0.1/{secret}",
        "rows": [{secret: secret}],
        "text": secret,
        "facts": {"other": secret},
    }
    other.append("reading", {"section": "02_signals_detection", "reading": reading})

    html = render(tell.incident)

    assert "S3ntinel" not in html
    assert "hunter2hunter2" not in html
    assert "[redacted]" in html
