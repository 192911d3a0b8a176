"""A report says what the journal says, whatever state the journal is in."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest

from fulfillment.sections import SECTIONS
from runbook_lib.model import ActionPhase, Verdict, format_time
from runbook_lib.record.incident import Incident
from runbook_lib.report.model import ReportModel, list_signals, list_tasks, summarise
from runbook_lib.report.render import write_summary
from runbook_lib.run.commands import _list_plans
from tests.support.golden import expect_golden
from tests.support.incidents import (
    PLAN,
    START,
    Teller,
    make_incident,
    tell_incident,
)


def model_of(incident: Incident) -> ReportModel:
    return ReportModel(incident, SECTIONS)


def tell_nothing(folder: Path) -> Incident:
    return make_incident(folder).incident


def tell_plan(folder: Path) -> Incident:
    return tell_incident(folder, until="plan").incident


def tell_whole(folder: Path) -> Incident:
    return tell_incident(folder).incident


def tell_loose_ends(folder: Path) -> Incident:
    """Tell what is open at a bad time: a failed notebook, a stop, two releases, a refusal."""
    tell = make_incident(folder)
    run = {"notebook": "02.ipynb", "status": "failed", "duration_s": 1.0, "error": "KeyError: 'x'"}
    tell.record("notebook", run)
    tell.record("interrupted", {})
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


def tell_drill_that_failed(folder: Path) -> Incident:
    tell = make_incident(folder, exercise="surge")
    tell.incident.mark("drill_started")
    tell.incident.mark("drill_injected")
    tell.incident.mark("drill_failed", "the store is down")
    tell.incident.mark("drill_reverted")
    tell.incident.mark(
        "drill_scored", is_good=False, phases={}, objectives=[{"name": "alert", "met": False}]
    )
    return tell.incident


STORIES = (tell_nothing, tell_plan, tell_whole, tell_loose_ends, tell_drill_that_failed)


def write_page(model: ReportModel) -> list[str]:
    """Return what the model says to people: the first screen, and the timeline."""
    told = summarise(model)
    lines = ["### Timeline"]
    lines += [f"{row.at:%H:%M:%S} {row.tone} | {row.text} | {row.note}" for row in told.timeline]
    return [*lines, "### Summary", write_summary(told, "file:///report.html")]


def test_the_words_of_the_report_are_on_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []
    hide: dict[str, str] = {}
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "ICT-7")
        time.tzset()
        for story in STORIES:
            name = story.__name__.removeprefix("tell_").replace("_", " ")
            incident = story(tmp_path / name)
            hide[incident.id] = "INCIDENT"
            pages += [f"# {name}", *write_page(model_of(incident))]
    time.tzset()
    expect_golden("runbook_lib/report_model.txt", "\n".join(pages), hide=hide)


def list_next(incident: Incident) -> str:
    """Return what the report says is to be done next."""
    return "\n".join(task.text for task in list_tasks(model_of(incident)))


def test_what_was_wrong_before_the_last_change_does_not_stand_beside_the_verdict(
    tmp_path: Path,
) -> None:
    tell = make_incident(tmp_path)
    tell.read("2.1", "lag", "breach", value=25)
    tell.read("3.2", "longest wait", "breach", value=25)
    tell.read("2.6", "probe", "unknown")
    tell.act(ActionPhase.APPLIED)
    tell.read("2.1", "lag", "ok", value=0)
    tell.read("2.2", "panel", "unknown")

    signals = {signal.reading.step: signal for signal in list_signals(model_of(tell.incident))}

    assert {step: signal.status for step, signal in signals.items()} == {
        "2.1": "ok",
        "3.2": "not read since",
        "2.2": "unknown",
    }
    assert signals["2.1"].reading.value == 0
    assert signals["2.1"].breaches[-1].end is not None
    assert signals["3.2"].breaches[-1].end is None


def test_an_empty_plan_waits_for_nobody(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.act(
        ActionPhase.PLANNED, step="6.4", action="none", target="ticket", result={"is_empty": True}
    )
    tell.act(ActionPhase.PLANNED, step="6.3", result={"plan": "s", "is_empty": True})
    tell.act(ActionPhase.PLANNED, step="6.3", reason="left alone", result={"plan": "s"})

    assert list_next(tell.incident) == ""


def test_a_step_that_this_version_does_not_know_still_appears(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.read("2.99", "something new", "breach")
    tell.read("9.1", "something else", "ok")

    model = model_of(tell.incident)

    assert model.steps["2.99"].readings[-1].status == "breach"
    assert model.steps["9.1"].readings[-1].status == "ok"


def test_what_was_begun_is_open_with_its_command_until_it_is_carried_out(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    command = f"runbook resume {PLAN}"
    tell.read("1.5", "unfinished", "breach", ways_on=(command,))
    assert command in list_next(tell.incident)
    tell.act(ActionPhase.APPLIED)
    assert command not in list_next(tell.incident)


def make_event(minutes: int, kind: str, text: str, **fields: object) -> dict[str, object]:
    """Return an event of an alert that fires, so many minutes after the start."""
    at = format_time(START + timedelta(minutes=minutes))
    return {"at": at, "kind": kind, "text": text, "subject": "Delay", "state": "firing", **fields}


def test_channels_that_are_told_the_same_are_one_row(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    events = [
        make_event(0, "alert", "FulfillmentDelay firing begins"),
        *(make_event(0, "notice", f"{c} receives it", channel=c) for c in ("email", "slack")),
        make_event(0, "restart", "minio started"),
    ]
    tell.read("2.1", "lag", "breach", since=format_time(START))
    for _ in range(2):  # each reading tells of its whole window
        tell.read("5.1", "worker", "ok", events=events)

    rows = summarise(model_of(tell.incident)).timeline
    (alert,) = [row for row in rows if row.tone == "alert"]
    (notice,) = [row for row in rows if row.tone == "notice"]

    assert alert.text == events[0]["text"]
    assert all(word in notice.text for word in ("email", "slack", "Delay: firing"))


def test_what_an_alert_did_before_the_trouble_is_another_story(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.read("2.1", "lag", "breach", since=format_time(START - timedelta(minutes=1)))
    events = [
        make_event(-9, "alert", "begins"),
        make_event(-5, "alert", "ends", is_end=True),
        make_event(0, "alert", "begins again"),
    ]
    tell.read("5.1", "worker", "ok", events=events)

    rows = summarise(model_of(tell.incident)).timeline

    assert [row.tone for row in rows] == ["breach", "alert"]
    assert rows[1].text == events[2]["text"]


@pytest.mark.parametrize(("is_good", "headline"), [(True, "passed"), (False, "failed")])
def test_a_drill_says_whether_it_passed(tmp_path: Path, headline: str, *, is_good: bool) -> None:
    tell = make_incident(tmp_path, exercise="surge")
    tell.incident.mark("drill_scored", is_good=is_good, phases={}, objectives=[])
    told = summarise(model_of(tell.incident))
    assert told.state == f"Drill {headline}"
    assert told.title.startswith("[DRILL] ")


def test_the_summary_has_a_line_for_each_thing_whatever_was_written(tmp_path: Path) -> None:
    tell = tell_incident(tmp_path)
    tell.record("note", {"summary": "two\nlines \u202e and more"})

    told = summarise(model_of(tell.incident))
    lines = write_summary(told, "file:///reports/report.html").splitlines()

    assert [line.partition(":")[0] for line in lines] == [
        "Verdict", "Time", "What happened", "Numbers", "Do next", "Report"
    ]  # fmt: skip
    assert "37 orders held back" in lines[3]


def test_a_plan_from_before_a_change_of_the_same_run_is_not_offered(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    for step, plan in (("6.1", "rel-a"), ("6.2", "svc-1")):
        tell.act(ActionPhase.PLANNED, step=step, result={"plan": plan})
    before = list_plans(tell)
    tell.act(ActionPhase.APPLIED, step="6.2", result={"plan": "svc-1"})
    after = list_plans(tell)
    assert before == {"rel-a": True, "svc-1": True}
    assert after == {"rel-a": False, "svc-1": False}


def list_plans(tell: Teller) -> dict[str, bool]:
    """Return for each plan of a run whether its row offers it."""
    planned_in = dict.fromkeys(("6.1", "6.2"), "06_remediation")
    rows = _list_plans(tell.incident.journal.view(), planned_in, is_over=False)
    return {row["plan"]: bool(row["apply"]) for row in rows}
