"""Remarks, lessons and follow-ups: written by a person, told by report and summary."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from fulfillment.analysis.causes import Cause
from fulfillment.policy import POLICY
from fulfillment.sections import SECTIONS
from fulfillment.settings import Settings
from runbook_lib.errors import UsageError
from runbook_lib.model import ActionPhase, CauseStatus, Event, Finding, Lesson, Note, Verdict
from runbook_lib.record.detection import list_moments, list_triggers
from runbook_lib.record.history import list_history
from runbook_lib.record.incident import HAND, Incident, create_incident
from runbook_lib.record.notes import list_follow_ups, list_lessons, parse_due, write_note
from runbook_lib.redact import Redactor
from runbook_lib.report import ReportModel, write_outputs
from runbook_lib.report.render import write_summary
from runbook_lib.report.summary import summarise
from runbook_lib.run import commands
from runbook_lib.section import Sections
from tests.support.incidents import START, Teller, make_incident
from tests.support.world import make_settings


@pytest.fixture
def tell(tmp_path: Path) -> Teller:
    """Return an incident that saw a breach."""
    told = make_incident(tmp_path)
    told.incident.open("2.1")
    told.read("2.1", "lag", "breach", value=12, since=START - timedelta(minutes=5))
    return told


@pytest.fixture
def settings(tell: Teller) -> Settings:
    return make_settings(tell.incident.folder.parent)


def read_page(incident: Incident) -> str:
    return write_outputs(incident, SECTIONS).read_text("utf-8")


#: Closes an incident without a look at its systems.
NOTHING_TO_READ = Sections([], notebooks=SECTIONS.notebooks, read_only=())
FOLLOW_UP = "Alert on a paused DAG."


def test_a_follow_up_stands_in_journal_report_and_summary(tell: Teller, settings: Settings) -> None:
    document = commands.note(
        settings, SECTIONS, FOLLOW_UP, owner="ops", due="2026-12-04", ticket="OPS-7"
    )

    assert (document.incident, document.late) == (tell.incident.id, False)
    assert [note.text for note in document.follow_ups] == [FOLLOW_UP]
    note = tell.incident.journal.view().notes[-1]
    assert (note.owner, note.due, note.ticket) == ("ops", date(2026, 12, 4), "OPS-7")
    assert note.operator == settings.operator
    model = ReportModel(tell.incident, SECTIONS)
    report = Path(document.report)
    assert all(word in report.read_text("utf-8") for word in ("OPS-7", "Alert on a paused DAG."))
    names = [line.partition(":")[0] for line in write_summary(model, "link").splitlines()]
    assert "To do" in names


def test_the_follow_up_that_is_due_first_comes_first(tell: Teller) -> None:
    for name, day in (("no day", None), ("later", date(2026, 12, 5)), ("first", date(2026, 12, 1))):
        write_note(tell.incident, Note(text=name, owner="ops", due=day))

    follow_ups = list_follow_ups(tell.incident.journal.view())
    assert [note.text for note in follow_ups] == ["first", "later", "no day"]


def test_a_lesson_is_no_follow_up_and_no_remark(tell: Teller) -> None:
    write_note(tell.incident, Note(text="The plan was readable.", lesson=Lesson.WELL))

    journal = tell.incident.journal.view()
    assert [note.text for note in list_lessons(journal, Lesson.WELL)] == ["The plan was readable."]
    assert list_lessons(journal, Lesson.BADLY) == []
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


def test_without_an_open_incident_a_note_names_the_newest(tell: Teller, settings: Settings) -> None:
    commands.close(settings, NOTHING_TO_READ, tell.incident.id)

    with pytest.raises(UsageError, match=f"{tell.incident.id}$"):
        commands.note(settings, SECTIONS, "where to?")
    home = tell.incident.folder.parent
    create_incident(home, redactor=Redactor(), clock=lambda: START + timedelta(1), opened_by="")
    with pytest.raises(UsageError, match=f"{tell.incident.id}$"):
        commands.note(settings, SECTIONS, "a look is no incident")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_note_without_a_text_is_refused(tell: Teller, text: str) -> None:
    with pytest.raises(UsageError):
        write_note(tell.incident, Note(text=text, owner="ops"))
    assert tell.incident.journal.view().notes == []


@pytest.mark.parametrize("text", ["tomorrow", "2026-13-01", "4.12."])
def test_a_day_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_due(text)


def test_a_day_may_be_left_out() -> None:
    assert parse_due("") is None
    assert parse_due("2026-12-04") == date(2026, 12, 4)


class TestDetection:
    def tell_all(self, tell: Teller) -> None:
        """Tell an alert 6 min after the first sign, a notice 1 min later, and a look after 2."""
        fired = START - timedelta(minutes=5) + timedelta(minutes=6)
        timeline = (
            Event(fired, "alert", "FulfillmentDelay firing begins", state="firing"),
            Event(fired + timedelta(minutes=1), "notice", "slack receives it", state="firing"),
        )
        tell.conclude(Verdict.INCIDENT, "why", timeline=timeline)

    def test_moments_are_sorted_by_time_and_measured_from_the_one_before(
        self, tell: Teller
    ) -> None:
        self.tell_all(tell)

        moments = list_moments(tell.incident.journal.view())
        assert [moment.name for moment in moments] == [
            "the trouble began",
            "somebody looked",
            "the alert fired",
            "a channel was told",
        ]
        assert moments[0].after is None
        for before, moment in pairwise(moments):
            assert moment.after == moment.at - before.at
        assert moments[-1].after == timedelta(minutes=1)

    def test_the_first_screen_measures_the_detection_from_the_first_sign(
        self, tell: Teller
    ) -> None:
        self.tell_all(tell)

        told = summarise(ReportModel(tell.incident, SECTIONS))
        assert told.detected is not None
        assert told.detected.name == "somebody looked"
        assert told.detected.after is not None
        assert round(told.detected.after / timedelta(minutes=1)) == 5

    def test_a_look_that_received_alerts_began_is_not_a_persons(self, tmp_path: Path) -> None:
        tell = make_incident(tmp_path)
        tell.incident.journal.append("note", {"section": "", "text": "", "alerts": ["a"]})
        tell.read("2.1", "lag", "breach")
        names = [moment.name for moment in list_moments(tell.incident.journal.view())]
        assert "an automatic look began" in names
        assert "somebody looked" not in names

        tell.incident.journal.append("joined", {"section": "", "reason": "wanda goes on"})
        names = [moment.name for moment in list_moments(tell.incident.journal.view())]
        assert names.index("an automatic look began") < names.index("somebody joined")

    def test_alerts_that_join_a_persons_look_did_not_begin_it(self, tell: Teller) -> None:
        tell.incident.journal.append("joined", {"section": "", "reason": "serve goes on"})
        alerts = {"text": "Alerts received", "alerts": ["a"]}
        tell.incident.journal.append("note", {"section": "", **alerts})
        tell.read("2.1", "lag", "breach")
        names = [moment.name for moment in list_moments(tell.incident.journal.view())]
        assert names == ["the trouble began", "somebody looked"]

    def test_a_cause_that_was_named_first_did_not_detect_the_trouble(self, tell: Teller) -> None:
        paused = Finding(name=Cause.PIPELINE_PAUSED, status=CauseStatus.SUPPORTED)
        tell.read("5.3", "pipeline", "breach")
        tell.conclude(Verdict.INCIDENT, "why", findings=(paused,))

        told = summarise(ReportModel(tell.incident, SECTIONS))
        assert told.detected is not None
        assert told.detected.name == "somebody looked"

    def test_the_history_measures_the_detection_that_the_report_names(self, tell: Teller) -> None:
        fired = START - timedelta(minutes=3)
        alert = Event(fired, "alert", "FulfillmentDelay firing begins", state="firing")
        tell.conclude(Verdict.INCIDENT, "why", timeline=(alert,))

        [row] = list_history(tell.incident.folder.parent, POLICY)
        assert row.detect_s == 120
        told = summarise(ReportModel(tell.incident, SECTIONS))
        assert told.detected is not None
        assert told.detected.after == timedelta(minutes=2)

    @pytest.mark.parametrize("by", ["3.3", HAND])
    def test_the_trouble_began_no_later_than_the_step_that_opened_the_incident(
        self, tmp_path: Path, by: str
    ) -> None:
        look = make_incident(tmp_path)
        look.incident.update(opened_by="")
        look.incident.open(by)
        look.read("3.3", "store health", "breach")

        view = look.incident.journal.view()
        [opened] = [entry for entry in view.entries if entry.kind == "opened"]
        since = view.since()
        assert since is not None
        assert (since == opened.at) is (by != HAND)
        assert list_moments(view)[0].at == since

    def test_without_trouble_nothing_was_detected(self, tmp_path: Path) -> None:
        assert list_moments(make_incident(tmp_path).incident.journal.view()) == []


class TestTrigger:
    def pause(self, tell: Teller, text: str) -> None:
        event = Event(tell.clock(), "trigger", text, "pipeline")
        tell.read("5.3", "pipeline", "breach", events=(event,))

    def test_who_changed_what_stands_in_the_facts(self, tell: Teller) -> None:
        self.pause(tell, "the DAG fulfillment_release was paused by alice")

        trigger = summarise(ReportModel(tell.incident, SECTIONS)).trigger
        assert trigger is not None
        assert trigger.text == "the DAG fulfillment_release was paused by alice"
        assert trigger.source == "pipeline"

    def test_what_changes_after_our_own_action_is_none(self, tell: Teller) -> None:
        self.pause(tell, "alice paused the DAG")
        tell.act(ActionPhase.APPLIED)
        self.pause(tell, "the runbook paused the worker")

        triggers = list_triggers(tell.incident.journal.view())
        assert [event.text for event in triggers] == ["alice paused the DAG"]

    def test_where_no_system_tells_it_is_not_known(self, tell: Teller) -> None:
        assert summarise(ReportModel(tell.incident, SECTIONS)).trigger is None


def test_opening_and_adopting_stand_in_the_journal_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = make_incident(tmp_path)
    told.incident.update(opened_by="")
    told.incident.open("2.1")
    told.incident.open("2.3")

    kinds = [entry.kind for entry in told.incident.journal.view().entries]
    assert kinds == ["opened"]
    assert [told.incident.id in record.message for record in caplog.records] == [True]
