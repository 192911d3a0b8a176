"""Remarks, lessons and follow-ups: written by a person, told by report and summary."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from fulfillment.investigation import Investigation
from fulfillment.policy import POLICY
from fulfillment.sections import SECTIONS
from fulfillment.settings import Settings
from runbook_lib.errors import UsageError
from runbook_lib.model import ActionPhase, CauseStatus, Event, Finding, Lesson, Note, Verdict
from runbook_lib.record.detection import list_triggers
from runbook_lib.record.history import list_history
from runbook_lib.record.incident import Incident
from runbook_lib.record.notes import list_follow_ups, write_note
from runbook_lib.report import ReportModel, write_outputs
from runbook_lib.report.model import summarise
from runbook_lib.report.render import write_summary
from runbook_lib.run import commands
from runbook_lib.section import Sections
from tests.support.incidents import START, Teller, make_incident
from tests.support.world import make_settings


@pytest.fixture
def tell(tmp_path: Path) -> Teller:
    """Return an incident that saw a breach."""
    told = make_incident(tmp_path)
    told.read("2.1", "lag", "breach", value=12, since=START - timedelta(minutes=5))
    return told


@pytest.fixture
def settings(tell: Teller) -> Settings:
    return make_settings(tell.incident.folder.parent)


def read_page(incident: Incident) -> str:
    return write_outputs(incident, SECTIONS).read_text("utf-8")


#: Closes an incident without a look at its systems.
NOTHING_TO_READ = Sections(
    [], notebooks=SECTIONS.notebooks, read_only=(), investigation=Investigation
)
FOLLOW_UP = "Alert on a paused DAG."


def test_a_follow_up_stands_in_journal_report_and_summary(tell: Teller, settings: Settings) -> None:
    document = commands.note(
        settings,
        SECTIONS,
        FOLLOW_UP,
        owner="ops",
        due=datetime(2026, 12, 4, tzinfo=UTC),
        ticket="OPS-7",
    )

    assert (document.incident, document.late) == (tell.incident.id, False)
    assert [note.text for note in document.follow_ups] == [FOLLOW_UP]
    note = tell.incident.journal.view().notes[-1]
    assert (note.owner, note.due, note.ticket) == ("ops", date(2026, 12, 4), "OPS-7")
    assert note.operator == settings.operator
    model = ReportModel(tell.incident, SECTIONS)
    report = Path(document.report)
    assert all(word in report.read_text("utf-8") for word in ("OPS-7", "Alert on a paused DAG."))
    assert f"{FOLLOW_UP} (ops)" in write_summary(summarise(model), "link")


def test_the_follow_up_that_is_due_first_comes_first(tell: Teller) -> None:
    for name, day in (("no day", None), ("later", date(2026, 12, 5)), ("first", date(2026, 12, 1))):
        write_note(tell.incident, Note(text=name, owner="ops", due=day))

    follow_ups = list_follow_ups(tell.incident.journal.view())
    assert [note.text for note in follow_ups] == ["first", "later", "no day"]


def test_a_lesson_is_no_follow_up_and_no_remark(tell: Teller) -> None:
    write_note(tell.incident, Note(text="The plan was readable.", lesson=Lesson.WELL))

    journal = tell.incident.journal.view()
    assert list_follow_ups(journal) == []
    assert read_page(tell.incident).count("The plan was readable.") == 1


def test_a_note_after_the_close_is_marked_and_makes_a_newer_report(
    tell: Teller, settings: Settings
) -> None:
    commands.close(settings, NOTHING_TO_READ, tell.incident.id)
    document = commands.note(settings, SECTIONS, "late", incident_id=tell.incident.id)

    assert document.late
    assert tell.incident.journal.view().notes[-1].late
    report = tell.incident.folder / "report.html"
    assert "after the close" in report.read_text("utf-8")


def test_without_an_open_incident_a_note_says_what_lists_them(
    tell: Teller, settings: Settings
) -> None:
    commands.close(settings, NOTHING_TO_READ, tell.incident.id)

    with pytest.raises(UsageError, match="runbook incidents"):
        commands.note(settings, SECTIONS, "where to?")


def test_what_a_person_says_comes_first(tell: Teller, settings: Settings) -> None:
    before = summarise(ReportModel(tell.incident, SECTIONS))
    commands.note(settings, SECTIONS, lead="ann", severity=1)
    document = commands.note(settings, SECTIONS, summary="An upgrade paused the DAG.")
    told = summarise(ReportModel(tell.incident, SECTIONS))

    assert (before.lead, before.reviewed_by, before.severity) == ("", "", 3)
    assert (told.lead, told.reviewed_by, told.severity) == ("ann", settings.operator, 1)
    assert told.story == ("An upgrade paused the DAG.",)
    assert "An upgrade paused the DAG." in Path(document.report).read_text("utf-8")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_note_without_a_text_is_refused(tell: Teller, text: str) -> None:
    with pytest.raises(UsageError):
        write_note(tell.incident, Note(text=text, owner="ops"))
    assert tell.incident.journal.view().notes == []


def read_detected(tell: Teller) -> tuple[float | None, str]:
    """Return how many seconds the report says until something was seen, and what that was."""
    numbers = summarise(ReportModel(tell.incident, SECTIONS)).numbers
    (found,) = [number for number in numbers if number.name == "detected_s"]
    return found.value, found.words


class TestDetection:
    def test_a_cause_that_was_named_first_did_not_detect_the_trouble(self, tell: Teller) -> None:
        paused = Finding(name="pipeline_paused", status=CauseStatus.SUPPORTED)
        tell.read("5.3", "pipeline", "breach")
        tell.conclude(Verdict.INCIDENT, "why", findings=(paused,))

        assert read_detected(tell) == (306, "until the runbook saw it")

    def test_the_history_measures_the_detection_that_the_report_names(self, tell: Teller) -> None:
        fired = START - timedelta(minutes=3)
        alert = Event(fired, "alert", "FulfillmentDelay firing begins", state="firing")
        tell.read("5.1", "worker", "ok", events=(alert,))

        [row] = list_history(tell.incident.folder.parent, POLICY)
        assert row.detect_s == 120
        assert read_detected(tell) == (row.detect_s, "until the alert fired")


class TestTrigger:
    def pause(self, tell: Teller, text: str) -> None:
        event = Event(tell.clock(), "trigger", text, "pipeline")
        tell.read("5.3", "pipeline", "breach", events=(event,))

    def test_who_changed_what_stands_in_the_facts(self, tell: Teller) -> None:
        self.pause(tell, "the DAG fulfillment_release was paused by alice")

        first, *_ = summarise(ReportModel(tell.incident, SECTIONS)).story
        assert first.startswith("The DAG fulfillment_release was paused by alice at ")

    def test_what_changes_after_our_own_action_is_none(self, tell: Teller) -> None:
        self.pause(tell, "alice paused the DAG")
        tell.act(ActionPhase.APPLIED)
        self.pause(tell, "the runbook paused the worker")

        triggers = list_triggers(tell.incident.journal.view())
        assert [event.text for event in triggers] == ["alice paused the DAG"]
