"""What changed since the last report, from the journal alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulfillment.sections import SECTIONS
from runbook_lib.model import ActionPhase, CauseStatus, Finding, Verdict
from runbook_lib.policy import Policy
from runbook_lib.record.incident import Incident
from runbook_lib.record.manifest import verify_incident
from runbook_lib.report import ReportModel, write_outputs
from runbook_lib.report.changes import (
    REPORTED,
    Change,
    ChangeKind,
    Changes,
    compute_changes,
    needs_mark,
)
from tests.support.golden import expect_golden
from tests.support.incidents import Teller, make_incident

POLICY = Policy(needed=["2.1", "2.3"])


@pytest.fixture
def tell(tmp_path: Path) -> Teller:
    """Return an incident of which nothing was said yet."""
    return make_incident(tmp_path)


def look(tell: Teller, *, lag: float = 25.0, objects: int = 74, is_well: bool = False) -> None:
    """Read lag and backlog."""
    status = "ok" if is_well else "breach"
    tell.read("2.1", "lag", status, value=lag, unit="min")
    tell.read("2.3", "backlog objects", status, value=objects, unit="objects")


def diagnose(tell: Teller, **statuses: CauseStatus) -> None:
    findings = tuple(
        Finding(name=name, words=f"a {name} disk", status=status, reason=f"it is {status}.")
        for name, status in statuses.items()
    )
    tell.conclude(Verdict.INCIDENT, "why", findings=findings)


def report(tell: Teller) -> None:
    tell.record(REPORTED, {})


def compare(tell: Teller) -> Changes:
    return compute_changes(tell.incident.journal.view(), POLICY)


def list_names(changes: Changes) -> list[tuple[str, str]]:
    return [(change.kind.value, change.name) for change in changes.changed]


def list_marks(incident: Incident) -> list[int]:
    entries = incident.journal.view().entries
    return [entry.seq for entry in entries if entry.kind == REPORTED]


def test_a_first_report_says_nothing_of_changes(tell: Teller) -> None:
    look(tell)
    assert compare(tell) == Changes()
    report(tell)
    assert compare(tell) == Changes()
    assert compare(tell).lines == []


def test_a_second_look_that_sees_the_same_names_only_the_time_of_the_last_report(
    tell: Teller,
) -> None:
    look(tell)
    diagnose(tell, full=CauseStatus.SUPPORTED)
    report(tell)
    reported_at = tell.incident.journal.view().last_at
    look(tell, lag=26.0)
    diagnose(tell, full=CauseStatus.SUPPORTED)

    changes = compare(tell)
    assert changes == Changes(since=reported_at)
    assert len(changes.lines) == 1


def test_verdict_causes_actions_and_numbers_come_in_this_order(tell: Teller) -> None:
    look(tell)
    diagnose(tell, full=CauseStatus.SUPPORTED, slow=CauseStatus.UNDECIDED)
    report(tell)
    tell.act(ActionPhase.PLANNED)
    tell.act(ActionPhase.APPLIED)
    tell.act(ActionPhase.VERIFIED)
    look(tell, lag=0.0, objects=0, is_well=True)
    diagnose(tell, full=CauseStatus.PAST, slow=CauseStatus.SUPPORTED)

    changes = compare(tell)
    assert list_names(changes) == [
        ("verdict", "fixed"),
        ("cause_new", "slow"),
        ("cause_gone", "full"),
        ("action", "6.1"),
        ("number", "2.1"),
        ("number", "2.3"),
    ]
    expect_golden("runbook_lib/changes.txt", "\n".join(changes.lines) + "\n")


@pytest.mark.parametrize("status", [CauseStatus.REFUTED, CauseStatus.PAST, CauseStatus.UNDECIDED])
def test_a_cause_that_is_no_longer_supported_is_named_with_its_reason(
    tell: Teller, status: CauseStatus
) -> None:
    look(tell)
    diagnose(tell, full=CauseStatus.SUPPORTED)
    report(tell)
    diagnose(tell, full=status)

    (change,) = compare(tell).changed
    assert (change.kind, change.name) == (ChangeKind.CAUSE_GONE, "full")
    assert f"it is {status}" in change.text


def test_a_cause_that_was_named_before_is_not_new(tell: Teller) -> None:
    look(tell)
    for status in (CauseStatus.SUPPORTED, CauseStatus.UNDECIDED):
        diagnose(tell, full=status)
        report(tell)
    diagnose(tell, full=CauseStatus.SUPPORTED, slow=CauseStatus.SUPPORTED)

    words = {change.name: change.text.partition(":")[0] for change in compare(tell).changed}
    assert words == {"full": "Cause is supported again", "slow": "New cause"}


def test_what_could_not_be_decided_reads_unlike_what_is_refuted(tmp_path: Path) -> None:
    labels = set()
    for status in (CauseStatus.REFUTED, CauseStatus.PAST, CauseStatus.UNDECIDED):
        tell = make_incident(tmp_path / status)
        diagnose(tell, full=CauseStatus.SUPPORTED)
        report(tell)
        diagnose(tell, full=status)
        (change,) = compare(tell).changed
        label, _, _ = change.text.partition(":")
        labels.add(label)
    assert len(labels) == 3


@pytest.mark.parametrize(
    ("before", "now", "is_noticeable"),
    [
        (74, 74, False),
        (74, 70, False),
        (74, 66, True),
        (0, 1, True),
        (0.2, 0.9, False),
        (1, 2, True),
        (10_000, 10_900, False),
        (10_000, 11_200, True),
        (float("nan"), 3, False),
        ("many", 3, False),
        (True, 3, False),
        (None, 3, False),
    ],
)
def test_a_number_counts_from_a_tenth_and_one_unit_on(
    tell: Teller, before: float | str | None, now: float, *, is_noticeable: bool
) -> None:
    tell.read("2.3", "backlog objects", "breach", value=before, unit="objects")
    report(tell)
    tell.read("2.3", "backlog objects", "breach", value=now, unit="objects")

    expected = [("number", "2.3")] if is_noticeable else []
    assert list_names(compare(tell)) == expected


def test_a_number_says_both_values_with_unit_and_time(tell: Teller) -> None:
    first = tell.read("2.3", "backlog objects", "breach", value=74, unit="objects")
    report(tell)
    second = tell.read("2.3", "backlog objects", "breach", value=1, unit="objects")

    (change,) = compare(tell).changed
    for reading, value in ((first, "74 objects"), (second, "1 object")):
        assert f"{value} at {reading.observed_at:%H:%M:%SZ}" in change.text


def test_a_number_that_could_not_be_read_did_not_change(tell: Teller) -> None:
    tell.read("2.3", "backlog objects", "breach", value=74, unit="objects")
    report(tell)
    tell.read("2.3", "backlog objects", "unknown", value=0, unit="objects")

    assert ("number", "2.3") not in list_names(compare(tell))


def test_an_action_that_began_and_did_not_end_is_named(tell: Teller) -> None:
    look(tell)
    report(tell)
    tell.act(ActionPhase.PLANNED)
    tell.act(ActionPhase.APPROVED)

    assert ("action", "6.1") in list_names(compare(tell))


@pytest.mark.parametrize("phase", [ActionPhase.PLANNED, ActionPhase.REFUSED])
def test_what_was_only_planned_or_refused_is_no_action(tell: Teller, phase: ActionPhase) -> None:
    look(tell)
    report(tell)
    tell.act(ActionPhase.PLANNED)
    tell.act(phase)

    assert ChangeKind.ACTION not in [change.kind for change in compare(tell).changed]


def test_what_an_earlier_report_holds_is_not_new(tell: Teller) -> None:
    look(tell)
    tell.act(ActionPhase.PLANNED)
    tell.act(ActionPhase.APPLIED)
    report(tell)
    tell.act(ActionPhase.VERIFIED)
    look(tell)

    assert ChangeKind.ACTION not in [change.kind for change in compare(tell).changed]


def test_more_than_six_changes_are_counted_in_the_sixth(tell: Teller) -> None:
    look(tell)
    report(tell)
    names = [f"cause{number}" for number in range(9)]
    diagnose(tell, **dict.fromkeys(names, CauseStatus.SUPPORTED))

    changed = compare(tell).changed
    assert [change.name for change in changed] == [*names[:5], "4"]
    assert changed[-1].kind is ChangeKind.MORE


def test_a_reason_of_many_lines_stays_one_short_line(tell: Teller) -> None:
    look(tell)
    report(tell)
    reason = "line\n" * 500
    finding = Finding(name="full", status=CauseStatus.SUPPORTED, reason=reason)
    tell.conclude(Verdict.INCIDENT, "why", findings=(finding,))

    (change,) = compare(tell).changed
    assert "\n" not in change.text
    assert len(change.text) < 200


def test_a_note_after_the_report_is_no_look(tell: Teller) -> None:
    look(tell)
    report(tell)
    look(tell, objects=3)
    report(tell)
    before = compare(tell)
    tell.record("note", {"text": "the carrier was called"})

    assert compare(tell) == before
    assert not needs_mark(tell.incident.journal.view())


def test_a_report_is_marked_once_for_each_look(tell: Teller) -> None:
    incident = tell.incident
    write_outputs(incident, SECTIONS)
    assert list_marks(incident) == []
    look(tell)
    write_outputs(incident, SECTIONS)
    write_outputs(incident, SECTIONS)
    assert len(list_marks(incident)) == 1
    look(tell)
    write_outputs(incident, SECTIONS)
    assert len(list_marks(incident)) == 2


def test_the_manifest_covers_the_mark(tell: Teller) -> None:
    look(tell)
    write_outputs(tell.incident, SECTIONS)

    checked = verify_incident(tell.incident.folder)
    assert list_marks(tell.incident)
    assert (checked.problems, checked.newer) == ((), ())


def test_a_report_that_is_built_again_says_the_same(tell: Teller) -> None:
    look(tell)
    write_outputs(tell.incident, SECTIONS)
    look(tell, objects=3)
    write_outputs(tell.incident, SECTIONS)
    first = ReportModel(tell.incident, SECTIONS).changes
    write_outputs(tell.incident, SECTIONS)

    assert ("number", "2.3") in list_names(first)
    assert ReportModel(tell.incident, SECTIONS).changes == first


def test_the_last_report_of_a_closed_incident_says_what_changed_and_leaves_no_mark(
    tell: Teller,
) -> None:
    look(tell)
    write_outputs(tell.incident, SECTIONS)
    look(tell, lag=0.0, objects=0, is_well=True)
    tell.incident.close(Verdict.FIXED)
    write_outputs(tell.incident, SECTIONS)

    assert len(list_marks(tell.incident)) == 1
    assert ("verdict", "fixed") in list_names(ReportModel(tell.incident, SECTIONS).changes)


def test_a_close_without_another_change_is_told(tell: Teller) -> None:
    look(tell)
    report(tell)
    look(tell)
    tell.incident.close(Verdict.INCIDENT)

    assert list_names(compare(tell)) == [("closed", "incident")]


def test_a_drill_is_told_once(tmp_path: Path) -> None:
    tell = make_incident(tmp_path, drill=True)
    look(tell)
    write_outputs(tell.incident, SECTIONS)
    assert list_marks(tell.incident) == []


def test_changes_stand_above_the_facts_of_the_report_and_are_escaped(tell: Teller) -> None:
    look(tell)
    write_outputs(tell.incident, SECTIONS)
    finding = Finding(name="full", words="<b>disk</b>", status=CauseStatus.SUPPORTED)
    tell.conclude(Verdict.INCIDENT, "why", findings=(finding,))
    html = write_outputs(tell.incident, SECTIONS).read_text("utf-8")

    changes = ReportModel(tell.incident, SECTIONS).changes
    assert html.index("<h1>") < html.index(changes.heading) < html.index('<dl class="facts">')
    assert "New cause: &lt;b&gt;disk&lt;/b&gt;" in html
    assert "<b>disk</b>" not in html


def test_a_first_report_has_no_place_for_changes(tell: Teller) -> None:
    look(tell)
    html = write_outputs(tell.incident, SECTIONS).read_text("utf-8")
    assert 'class="open changed"' not in html


def test_every_kind_is_a_word_of_the_document() -> None:
    change = Change(kind=ChangeKind.NUMBER, name="2.3", text="x")
    assert change.model_dump(mode="json") == {"kind": "number", "name": "2.3", "text": "x"}
