"""A report says what the journal says, whatever state the journal is in."""

from __future__ import annotations

from pathlib import Path

from fulfillment.sections import SECTIONS
from runbook_lib.model import ActionPhase, Verdict
from runbook_lib.record.incident import Incident
from runbook_lib.report.model import ReportModel, list_tasks, summarise
from runbook_lib.report.render import write_summary
from tests.support.golden import expect_golden
from tests.support.incidents import (
    make_incident,
)


def model_of(incident: Incident) -> ReportModel:
    return ReportModel(incident, SECTIONS)


def tell_loose_ends(folder: Path) -> Incident:
    tell = make_incident(folder)
    run = {"notebook": "02.ipynb", "status": "failed", "duration_s": 1.0, "error": "KeyError: 'x'"}
    tell.record("notebook", run)
    tell.record("mark", {"what": "interrupted"})
    tell.record("reading", {"reading": 3})
    tell.read("2.1", "lag", "breach")
    tell.conclude(Verdict.FIXED_ALERT_DECAYING, "it still fires")
    result = {"plan": "rel-a", "moved": 3, "unproven": ["pending/1.pdf"], "waiting": 2}
    tell.act(ActionPhase.APPLIED, result=result)
    tell.act(ActionPhase.FAILED, reason="lost", result={"plan": "rel-a"})
    tell.act(ActionPhase.REFUSED, reason="the plan expired", result={"plan": "rel-b"})
    until = "2026-11-24T03:44:00.000Z"
    tell.act(ActionPhase.PLANNED, step="6.3", result={"plan": "rel-c", "expires_at": until})
    return tell.incident


def write_page(model: ReportModel) -> list[str]:
    told = summarise(model)
    lines = ["### Timeline"]
    lines += [f"{row.at:%H:%M:%S} {row.tone} | {row.text} | {row.note}" for row in told.timeline]
    return [*lines, "### Summary", write_summary(told, "file:///report.html")]


def test_the_words_of_the_report_are_on_the_page(tmp_path: Path) -> None:
    incident = tell_loose_ends(tmp_path)
    page = write_page(model_of(incident))
    hide = {incident.id: "INCIDENT"}
    expect_golden("runbook_lib/report_model.txt", "\n".join(page), hide=hide)


def list_next(incident: Incident) -> str:
    return "\n".join(task.text for task in list_tasks(model_of(incident)))


def test_an_empty_plan_waits_for_nobody(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.act(
        ActionPhase.PLANNED, step="6.4", action="none", target="ticket", result={"is_empty": True}
    )
    tell.act(ActionPhase.PLANNED, step="6.3", result={"plan": "s", "is_empty": True})
    tell.act(ActionPhase.PLANNED, step="6.3", reason="left alone", result={"plan": "s"})

    assert list_next(tell.incident) == ""
