"""Remarks, lessons and follow-ups: written by a person, told by report and summary."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from fulfillment.investigation import Investigation
from fulfillment.sections import SECTIONS
from fulfillment.settings import Settings
from runbook_lib.errors import UsageError
from runbook_lib.model import Note
from runbook_lib.record.notes import write_note
from runbook_lib.report import ReportModel
from runbook_lib.report.model import summarise
from runbook_lib.report.render import write_summary
from runbook_lib.run import commands
from runbook_lib.section import Sections
from tests.support.incidents import START, Teller, make_incident
from tests.support.world import make_settings


@pytest.fixture
def tell(tmp_path: Path) -> Teller:
    told = make_incident(tmp_path)
    told.read("2.1", "lag", "breach", value=12, since=START - timedelta(minutes=5))
    return told


@pytest.fixture
def settings(tell: Teller) -> Settings:
    return make_settings(tell.incident.folder.parent)


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


def test_a_note_after_the_close_is_marked_and_makes_a_newer_report(
    tell: Teller, settings: Settings
) -> None:
    commands.close(settings, NOTHING_TO_READ, tell.incident.id)
    document = commands.note(settings, SECTIONS, "late", incident_id=tell.incident.id)

    assert document.late
    assert tell.incident.journal.view().notes[-1].late
    report = tell.incident.folder / "report.html"
    assert "after the close" in report.read_text("utf-8")


def test_what_a_person_says_comes_first(tell: Teller, settings: Settings) -> None:
    before = summarise(ReportModel(tell.incident, SECTIONS))
    commands.note(settings, SECTIONS, lead="ann", severity=1)
    document = commands.note(settings, SECTIONS, summary="An upgrade paused the DAG.")
    told = summarise(ReportModel(tell.incident, SECTIONS))

    assert (before.lead, before.reviewed_by, before.severity) == ("", "", 3)
    assert (told.lead, told.reviewed_by, told.severity) == ("ann", settings.operator, 1)
    assert told.story == ("An upgrade paused the DAG.", "The runbook changed nothing.")
    assert "An upgrade paused the DAG." in Path(document.report).read_text("utf-8")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_a_note_without_a_text_is_refused(tell: Teller, text: str) -> None:
    with pytest.raises(UsageError):
        write_note(tell.incident, Note(text=text, owner="ops"))
    assert tell.incident.journal.view().notes == []
