"""A report says what the journal says, whatever state the journal is in."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest

from fulfillment.sections import SECTIONS
from runbook_lib.model import ActionPhase, Verdict, format_time
from runbook_lib.record.incident import Incident
from runbook_lib.report.model import ReportModel
from runbook_lib.report.summary import (
    list_facts,
    list_open,
    summarise,
    tell_timeline,
    write_headline,
)
from tests.support.incidents import PLAN, SHA256, START, TICKET, make_incident, tell_incident


def model_of(incident: Incident) -> ReportModel:
    return ReportModel(incident, SECTIONS)


def facts_of(model: ReportModel) -> dict[str, str]:
    return {name: " ".join(fact).strip() for name, fact in list_facts(model).items()}


def test_the_first_screen_answers_every_question_of_a_postmortem(tmp_path: Path) -> None:
    model = model_of(tell_incident(tmp_path).incident)

    facts = facts_of(model)
    assert facts["What happened"].startswith("74 labels wait in pending/")
    assert facts["Since"].startswith("2026-11-24 02:43:00Z")
    assert facts["Until"].startswith("2026-11-24 03:18")
    assert facts["Severity"] == "high by the alert FulfillmentDelay"
    assert (
        facts["Labels and orders"]
        == "74 affected 74 released by move; 2 waiting at the last look; 1 ticket"
    )
    assert facts["Tickets"] == TICKET
    assert facts["Cause"].startswith("A paused pipeline The DAG")
    assert facts["What was done"] == (
        "Released 74 labels by move (proven); unpaused the DAG fulfillment_release (verified) "
        "approved by ops@box"
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


def test_times_are_told_in_utc_and_as_the_clock_on_the_wall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "ICT-7")
        time.tzset()
        facts = facts_of(model_of(tell_incident(tmp_path).incident))
    time.tzset()

    assert facts["Since"] == "2026-11-24 02:43:00Z 09:43:00 local time (UTC+07:00)"
    assert "local time (UTC+07:00); 3" in facts["Until"]


def test_what_happened_is_what_was_said_when_most_waited(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    for waiting in (3, 74, 12):
        tell.read("2.3", "backlog objects", "breach", value=waiting, unit="objects")
        tell.conclude(Verdict.INCIDENT, f"{waiting} labels wait")
    tell.read("2.3", "backlog objects", "ok", value=0, unit="objects")
    tell.conclude(Verdict.HEALTHY, "no sign of stuck labels")

    assert facts_of(model_of(tell.incident))["What happened"] == "74 labels wait"


def test_what_was_done_but_not_proven_says_so(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.act(ActionPhase.APPLIED, result={"moved": 1})
    told = facts_of(model_of(tell.incident))["What was done"]
    tell.act(ActionPhase.FAILED, reason="lost")

    assert told == "Released 1 label by move (not verified) approved by ops@box"
    assert "the check afterwards failed" in facts_of(model_of(tell.incident))["What was done"]


def test_a_plan_that_waits_is_open_and_nothing_was_changed(tmp_path: Path) -> None:
    model = model_of(tell_incident(tmp_path, until="plan").incident)

    assert facts_of(model)["What was done"] == "nothing was changed 1 planned, waiting for approval"
    assert any("waits for approval" in text for text, _ in list_open(model))
    assert write_headline(model) == "Incident: a paused pipeline"
    assert facts_of(model)["Until"].startswith("not yet recovery was not read")


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
    assert (first.applied, bool(second.applied)) == (None, True)
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
    assert tell_timeline(model) == []
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


def test_an_interruption_is_told(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.record("interrupted", {})

    model = model_of(tell.incident)

    assert "The run was interrupted" in [row.text for row in tell_timeline(model)]
    assert any("interrupted" in text for text, _ in list_open(model))


def test_a_notebook_that_failed_is_open_with_its_error(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    run = {"notebook": "02.ipynb", "status": "failed", "duration_s": 1.0, "error": "KeyError: 'x'"}
    tell.record("notebook", run)

    assert any("KeyError" in text for text, _ in list_open(model_of(tell.incident)))


def test_the_timeline_is_what_a_person_would_tell(tmp_path: Path) -> None:
    rows = tell_timeline(model_of(tell_incident(tmp_path).incident))

    assert [row.text for row in rows] == [
        "First sign of trouble",
        "First sign of the cause: a paused pipeline",
        "Incident seen",
        "Cause named: a paused pipeline",
        "Released 74 labels by move",
        "Unpaused the DAG fulfillment_release",
        "Recovery was read",
        "Fixed",
    ]
    assert rows[4].note == "approved by ops@box; proven"
    assert [row.at for row in rows] == sorted(row.at for row in rows)


def test_a_long_night_is_told_in_fifteen_rows(tmp_path: Path) -> None:
    tell = tell_incident(tmp_path)
    for number in range(40):
        for phase in (ActionPhase.PLANNED, ActionPhase.APPROVED, ActionPhase.APPLIED):
            tell.act(phase, result={"plan": f"rel-{number}", "moved": 1})
        tell.conclude(Verdict.HEALTHY, "nothing waits just now")

    rows = tell_timeline(model_of(tell.incident))

    assert len(rows) == 15
    assert rows[0].text == "First sign of trouble"
    assert not any(row.tone == "healthy" for row in rows)


def test_channels_that_are_told_the_same_are_one_row(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    events = [
        {"at": format_time(START), "kind": "alert", "text": "FulfillmentDelay firing begins"},
        *(
            {"at": format_time(START), "kind": "notice", "text": f"{c} receives Delay: firing"}
            for c in ("email", "slack")
        ),
        {"at": format_time(START), "kind": "restart", "text": "minio started"},
    ]
    for _ in range(2):  # each conclusion tells of its whole window
        tell.conclude(Verdict.INCIDENT, "labels wait", timeline=events)

    texts = [row.text for row in tell_timeline(model_of(tell.incident))]

    assert texts == ["FulfillmentDelay firing begins", "email, slack told: Delay: firing"]


def test_what_an_alert_did_before_the_trouble_is_another_story(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.read("2.1", "lag", "breach", since=format_time(START - timedelta(minutes=1)))
    events = [
        {"at": format_time(START - timedelta(minutes=minutes)), "kind": "alert", "text": text}
        for minutes, text in ((9, "Delay firing begins"), (5, "Delay firing ends"))
    ]
    events += [{"at": format_time(START), "kind": "alert", "text": "Delay firing begins"}]
    tell.conclude(Verdict.INCIDENT, "labels wait", timeline=events)

    rows = tell_timeline(model_of(tell.incident))

    assert [row.text for row in rows] == ["First sign of trouble", "Delay firing begins"]


def test_that_an_alert_still_cleared_is_told_only_while_it_did(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.conclude(Verdict.FIXED_ALERT_DECAYING, "it still fires")
    during = [row.text for row in tell_timeline(model_of(tell.incident))]
    tell.conclude(Verdict.FIXED, "it is gone")
    tell.conclude(Verdict.FIXED, "and still is")

    assert during == ["Fixed; the alert is still clearing"]
    assert [row.text for row in tell_timeline(model_of(tell.incident))] == ["Fixed"]


def test_a_drills_timeline_begins_with_the_drill(tmp_path: Path) -> None:
    tell = make_incident(tmp_path, drill=True)
    tell.record("drill", {"event": "started", "scenario": "pipeline_paused"})
    before = format_time(START - timedelta(minutes=5))
    tell.record("drill", {"event": "injected"})
    event = {"at": before, "kind": "notice", "text": "email receives Delay: resolved"}
    tell.read("2.1", "lag", "breach", since=before)
    tell.conclude(Verdict.INCIDENT, "labels wait", timeline=[event])

    texts = [row.text for row in tell_timeline(model_of(tell.incident))]

    assert texts == ["The drill begins", "The fault is injected", "Incident seen"]


@pytest.mark.parametrize(
    ("met", "error", "headline"),
    [
        ((True, True), "", "Drill passed: the cause is not proven"),
        ((True, False), "", "Drill failed: 1 of 2 objectives missed"),
        ((True, True), "the store is down", "Drill failed: it broke off"),
    ],
)
def test_a_drill_says_whether_it_passed(
    tmp_path: Path, met: tuple[bool, ...], error: str, headline: str
) -> None:
    tell = make_incident(tmp_path, drill=True)
    tell.record("drill", {"event": "started"})
    if error:
        tell.record("drill", {"event": "failed", "reason": error})
    objectives = [{"name": f"{i}", "met": is_met} for i, is_met in enumerate(met)]
    tell.record("drill", {"event": "scored", "objectives": objectives})

    assert write_headline(model_of(tell.incident)) == headline


def test_a_newer_plan_of_a_step_takes_the_place_of_the_older(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    for plan in ("rel-a", "rel-b"):
        until = "2026-11-24T03:44:00.000Z"
        tell.act(ActionPhase.PLANNED, result={"plan": plan, "expires_at": until})
    opened = [text for text, _ in list_open(model_of(tell.incident))]
    tell.conclude(Verdict.INCIDENT, "labels wait")
    tell.start("06_remediation")
    tell.conclude(Verdict.FIXED, "nothing waits")

    assert len(opened) == 1
    assert opened[0].endswith("is planned and waits for approval until 03:44:00Z")
    assert list_open(model_of(tell.incident)) == []


def test_a_refusal_that_a_later_success_followed_is_not_open(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.act(ActionPhase.PLANNED, result={"plan": "rel-a"})
    tell.act(ActionPhase.REFUSED, reason="the plan expired", result={"plan": "rel-a"})
    for phase in (ActionPhase.PLANNED, ActionPhase.APPLIED, ActionPhase.VERIFIED):
        tell.act(phase, result={"plan": "rel-b"})

    assert list_open(model_of(tell.incident)) == []


def test_a_run_of_a_notebook_says_which_it_is_and_what_it_came_to(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    run = {"status": "stopped_at_plan", "duration_s": 1.0, "error": "stopped"}
    tell.start("06_remediation")
    tell.act(ActionPhase.PLANNED)
    tell.record("notebook", {"notebook": "06_remediation.ipynb", **run})
    tell.start("06_remediation", approve=SHA256)
    for phase in (ActionPhase.PLANNED, ActionPhase.APPROVED, ActionPhase.APPLIED):
        tell.act(phase)
    tell.act(ActionPhase.VERIFIED)
    tell.record("notebook", {"notebook": "06_remediation-2.ipynb", **run, "status": "done"})
    tell.start("06_remediation")
    # by hand: it is noted when it begins
    tell.record("notebook", {"notebook": "06_remediation-3.ipynb", "status": "by_hand"})
    tell.conclude(Verdict.FIXED, "nothing waits")

    runs = model_of(tell.incident).section("06_remediation").runs

    assert [record.title for record in runs] == [
        "6 Remediation, first run: stopped at the plan",
        "6 Remediation, second run: approved and applied",
        "6 Remediation, third run: fixed",
    ]
    assert [record.parameters.get("approve") for record in runs] == [None, SHA256, None]


def test_the_summary_has_five_lines_whatever_was_written(tmp_path: Path) -> None:
    tell = tell_incident(tmp_path)
    tell.conclude(Verdict.INCIDENT, "two\nlines \u202e and more")

    lines = summarise(model_of(tell.incident), "file:///reports/report.html").splitlines()

    assert [line.partition(":")[0] for line in lines] == [
        "Verdict", "Cause", "Numbers", "Action", "Report"
    ]  # fmt: skip
    assert lines[2].startswith(
        "Numbers: 74 affected; 74 released by move; 2 waiting at the last look; 1 ticket; "
        "since 2026-11-24 02:43:00Z"
    )


def test_what_an_incident_was_closed_with_is_its_verdict(tmp_path: Path) -> None:
    tell = tell_incident(tmp_path)
    tell.incident.update(verdict="healthy")
    tell.record("closed", {"verdict": "mitigated"})

    assert model_of(tell.incident).verdict is Verdict.MITIGATED


def test_the_model_of_the_same_folder_is_the_same(tmp_path: Path) -> None:
    incident = tell_incident(tmp_path).incident
    one, two = model_of(incident), model_of(incident)

    assert facts_of(one) == facts_of(two)
    assert tell_timeline(one) == tell_timeline(two)
    assert [a.first.result["plan"] for a in one.actions] == [PLAN, "svc-1"]
