"""A report says what the journal says, whatever state the journal is in."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fulfillment.sections import SECTIONS
from runbook_lib.model import ActionPhase, Verdict
from runbook_lib.record.incident import Incident
from runbook_lib.report.model import (
    ReportModel,
    list_facts,
    list_open,
    list_timeline,
    read_report_model,
    write_headline,
)
from tests.support.incidents import PLAN, START, TICKET, make_incident, tell_incident


def model_of(incident: Incident) -> ReportModel:
    return read_report_model(incident, SECTIONS)


def facts_of(model: ReportModel) -> dict[str, str]:
    return {
        fact.name: f"{fact.text} {fact.note}".strip()
        for fact in list_facts(model, today=START.date())
    }


def test_the_first_screen_answers_every_question_of_a_postmortem(tmp_path: Path) -> None:
    model = model_of(tell_incident(tmp_path).incident)

    facts = facts_of(model)
    assert facts["What happened"].startswith("74 labels wait in pending/")
    assert facts["Since"].startswith("02:43:00Z to 03:18")
    assert facts["Labels"] == "74 affected 74 released by move; 2 left; 1 ticket"
    assert facts["Tickets"] == TICKET
    assert facts["Cause"].startswith("A paused pipeline The DAG")
    assert facts["What was done"] == (
        "Released 74 objects by move (proven); unpaused the DAG fulfillment_release (verified)"
    )
    assert model.verdict is Verdict.FIXED
    assert write_headline(model) == "Fixed: a paused pipeline"


def test_what_is_open_names_unticked_points_and_unread_steps(tmp_path: Path) -> None:
    found = list_open(model_of(tell_incident(tmp_path).incident))

    assert {steps for _, steps in found} == {("7.3",), ("7.4",)}


def test_what_was_not_read_is_open_while_nothing_was_done(tmp_path: Path) -> None:
    found = list_open(model_of(tell_incident(tmp_path, until="plan").incident))

    assert ("could not be read:", ("2.2",)) in found


def test_symptoms_older_than_an_action_that_section_6_judged_are_not_open(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.read("2.1", "lag", "breach")
    tell.read("3.2", "longest wait", "breach")
    tell.act(ActionPhase.PLANNED)
    tell.act(ActionPhase.APPLIED, result={"moved": 1})
    steps_before = {s for _, ids in list_open(model_of(tell.incident)) for s in ids}
    tell.read("3.2", "longest wait", "breach")
    tell.start("06_remediation")
    tell.conclude(Verdict.MITIGATED, "the cause is still there")

    found = {s for _, ids in list_open(model_of(tell.incident)) for s in ids}

    assert steps_before == {"2.1", "3.2"}
    assert found == {"3.2"}


def test_an_alert_that_still_fires_is_open_once(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.read("2.1", "lag", "breach")
    tell.read("7.1", "alert cleared", "breach", reason="it still fires")

    assert [ids for _, ids in list_open(model_of(tell.incident))] == [("2.1",)]


def test_a_time_of_another_day_has_its_date(tmp_path: Path) -> None:
    model = model_of(tell_incident(tmp_path).incident)
    (since,) = [
        f for f in list_facts(model, today=START.date() + timedelta(days=1)) if f.name == "Since"
    ]

    assert since.text.startswith("2026-11-24 02:43:00Z to 2026-11-24 03:18")


def test_what_was_done_but_not_proven_says_so(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.act(ActionPhase.APPLIED, result={"moved": 1})
    told = facts_of(model_of(tell.incident))["What was done"]
    tell.act(ActionPhase.FAILED, reason="lost")

    assert told == "Released 1 object by move (not verified)"
    assert "the check afterwards failed" in facts_of(model_of(tell.incident))["What was done"]


def test_a_plan_that_waits_is_open_and_nothing_was_changed(tmp_path: Path) -> None:
    model = model_of(tell_incident(tmp_path, until="plan").incident)

    assert facts_of(model)["What was done"] == "nothing was changed 1 planned, waiting for approval"
    assert any("waits for approval" in text for text, _ in list_open(model))
    assert write_headline(model) == "Incident: a paused pipeline"
    assert "recovery was not read" in facts_of(model)["Since"]


def test_an_empty_plan_waits_for_nobody(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.act(
        ActionPhase.PLANNED, step="6.4", action="none", target="ticket", result={"is_empty": True}
    )
    tell.act(ActionPhase.PLANNED, step="6.3", result={"plan": "s", "is_empty": True})
    tell.act(ActionPhase.PLANNED, step="6.3", reason="left alone", result={"plan": "s"})

    assert list_open(model_of(tell.incident)) == []


def test_actions_are_told_apart_by_their_plan(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    for plan in ("rel-a", "rel-b"):
        tell.act(ActionPhase.PLANNED, result={"plan": plan, "objects": 1})
    tell.act(ActionPhase.APPLIED, result={"plan": "rel-b", "moved": 1})

    first, second = model_of(tell.incident).actions
    assert (first.is_done, second.is_done) == (False, True)
    assert second.result("applied")["moved"] == 1


@pytest.mark.parametrize("phase", [ActionPhase.REFUSED, ActionPhase.FAILED])
def test_a_refused_or_failed_action_is_open_with_its_reason(
    tmp_path: Path, phase: ActionPhase
) -> None:
    tell = make_incident(tmp_path)
    tell.act(ActionPhase.PLANNED)
    tell.act(phase, reason="the plan expired")

    assert (f"release was {phase}: the plan expired", ("6.1",)) in list_open(
        model_of(tell.incident)
    )


def test_labels_that_nobody_can_know_are_open_until_they_are_settled(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    done = {"plan": "rel-a", "moved": 3, "unproven": ["pending/1.pdf"], "waiting": 0}
    tell.act(ActionPhase.PLANNED, result={"plan": "rel-a"})
    tell.act(ActionPhase.APPLIED, result=done)
    (open_,) = [text for text, _ in list_open(model_of(tell.incident)) if "nobody can know" in text]
    assert open_.startswith("1 label: ")
    assert "runbook settle rel-a --taken|--not-taken" in open_
    tell.act(ActionPhase.PLANNED, step="6.1.2", action="settle", result={"plan": "rel-a-settle-1"})
    tell.act(ActionPhase.APPLIED, step="6.1.2", action="settle", result={"plan": "rel-a-settle-1"})
    assert not any("nobody can know" in text for text, _ in list_open(model_of(tell.incident)))


def test_a_release_that_is_not_finished_is_open(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.act(ActionPhase.PLANNED, result={"plan": "rel-a"})
    tell.act(ActionPhase.APPLIED, result={"plan": "rel-a", "moved": 3, "waiting": 2})
    texts = [text for text, _ in list_open(model_of(tell.incident))]
    assert "rel-a is not finished: runbook resume rel-a" in texts


def test_a_journal_without_entries_says_so(tmp_path: Path) -> None:
    model = model_of(make_incident(tmp_path).incident)

    assert write_headline(model) == "Nothing was recorded yet"
    assert {step.status for step in model.steps.values()} == {"not run"}
    assert facts_of(model)["What happened"] == "nothing was read yet"
    assert list_timeline(model) == []
    assert list_open(model) == []


def test_an_entry_of_another_shape_is_counted_and_the_rest_is_told(tmp_path: Path) -> None:
    tell = tell_incident(tmp_path)
    for data in ({}, {"reading": 3}, {"reading": {"step": "2.1"}}, {"reading": None}):
        tell.record("reading", data)
    tell.record("action", {"action": []})
    tell.record("conclusion", {"conclusion": "x"})

    model = model_of(tell.incident)

    assert len(model.journal.unreadable) == 6
    assert ("6 journal entries could not be understood", ()) in list_open(model)
    assert model.verdict is Verdict.FIXED


def test_a_step_that_this_version_does_not_know_still_appears(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.read("2.99", "something new", "breach")
    tell.read("9.1", "something else", "ok")

    model = model_of(tell.incident)

    assert model.steps["2.99"].status == "breach"
    assert model.steps["9.1"].status == "ok"


def test_an_interruption_and_a_torn_tail_are_told(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.record("torn_tail", {"kept_as": "journal.jsonl.torn-1"})
    tell.record("interrupted", {})

    model = model_of(tell.incident)

    texts = [f"{event.text} {event.note}" for event in list_timeline(model)]
    assert any("journal.jsonl.torn-1" in text for text in texts)
    assert any("interrupted" in text for text, _ in list_open(model))


def test_a_notebook_that_failed_is_open_with_its_error(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    run = {"notebook": "02.ipynb", "status": "failed", "duration_s": 1.0, "error": "KeyError: 'x'"}
    tell.record("notebook", run)

    assert any("KeyError" in text for text, _ in list_open(model_of(tell.incident)))


def test_the_timeline_lists_changes_of_status_and_every_phase_in_order(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    for status in ("ok", "ok", "breach", "breach", "ok"):
        tell.read("2.1", "lag", status)
    tell.act(ActionPhase.PLANNED)
    tell.act(ActionPhase.APPLIED)

    events = [e for e in list_timeline(model_of(tell.incident)) if e.seq]

    assert [e.tone for e in events] == ["breach", "ok", "planned", "applied"]
    assert [e.at for e in events] == sorted(e.at for e in events)


def test_what_an_incident_was_closed_with_is_its_verdict(tmp_path: Path) -> None:
    tell = tell_incident(tmp_path)
    tell.incident.update(verdict="healthy")
    tell.record("closed", {"verdict": "mitigated"})

    assert model_of(tell.incident).verdict is Verdict.MITIGATED


def test_the_model_of_the_same_folder_is_the_same(tmp_path: Path) -> None:
    incident = tell_incident(tmp_path).incident
    one, two = model_of(incident), model_of(incident)

    assert facts_of(one) == facts_of(two)
    assert list_timeline(one) == list_timeline(two)
    assert [a.first.result["plan"] for a in one.actions] == [PLAN, "svc-1"]
