"""The journal is read once, and each question about an incident has one answer."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chainlog import ChainedLog, Entry
from fulfillment.analysis.causes import Cause
from runbook_lib.errors import RecordError
from runbook_lib.model import ActionPhase, CauseStatus, ClearTime, Finding, Reading, Verdict
from runbook_lib.record.journal import Journal, JournalView
from runbook_lib.redact import MASK, Redactor
from tests.support.incidents import START, Teller, make_incident, tell_incident

SECTIONS = {"02": "02_signals_detection", "03": "03_immediate_actions",
            "05": "05_root_cause", "06": "06_remediation"}  # fmt: skip


@pytest.fixture
def tell(tmp_path: Path) -> Teller:
    """Return an incident of which nothing was said yet."""
    return make_incident(tmp_path)


def view_of(tell: Teller) -> JournalView:
    return tell.incident.journal.view()


def finding(name: str, status: str = "supported", score: float = 0.9) -> Finding:
    return Finding(name=Cause(name), status=CauseStatus(status), score=score)


def diagnose(tell: Teller, *findings: Finding) -> None:
    tell.start("05_root_cause")
    tell.conclude(Verdict.INCIDENT, "why", findings=findings)


def test_only_new_lines_are_parsed(tell: Teller, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    model = Reading
    parse = model.model_validate
    monkeypatch.setattr(model, "model_validate", lambda d: parsed.append(1) or parse(d))
    for _ in range(3):
        tell.read("2.1", "lag", "ok")
    assert len(view_of(tell).readings) == len(view_of(tell).readings) == 3
    tell.read("2.1", "lag", "breach")

    assert view_of(tell).latest()["2.1"].status == "breach"
    assert len(parsed) == 4


def test_what_another_process_wrote_is_seen(tell: Teller) -> None:
    view_of(tell)
    other = Journal(tell.incident.journal.path, redactor=Redactor(), clock=tell.clock)
    other.append("note", {"section": "", "text": "from the other desk"})

    assert [note.text for note in view_of(tell).notes] == ["from the other desk"]


def test_a_line_that_was_altered_after_it_was_read_is_damage(tell: Teller) -> None:
    tell.record("note", {"text": "labels wait"})
    tell.record("note", {"text": "still"})
    assert len(view_of(tell).notes) == 2
    path, whole = tell.incident.journal.path, tell.incident.journal.path.read_bytes()
    path.write_bytes(whole.replace(b"labels wait", b"labels move"))

    with pytest.raises(RecordError):
        view_of(tell)
    path.write_bytes(whole)
    assert len(view_of(tell).notes) == 2


def test_a_file_that_is_another_one_now_is_read_anew(tell: Teller, tmp_path: Path) -> None:
    tell.record("note", {"text": "a"})
    view_of(tell)
    other = make_incident(tmp_path)
    other.record("note", {"text": "b"})
    tell.incident.journal.path.write_bytes(other.incident.journal.path.read_bytes())

    assert [note.text for note in view_of(tell).notes] == ["b"]


def test_a_report_reads_without_what_its_redactor_hides(tell: Teller) -> None:
    path = tell.incident.journal.path
    other = Journal(path, redactor=Redactor(), clock=tell.clock)  # it knows no secret
    mine = Journal(path, redactor=Redactor(["admin12345"]), clock=tell.clock)
    for text in ("key admin12345", "none", "again admin12345"):
        other.append("note", {"section": "", "text": text})
        assert mine.redacted().last_seq == mine.view().last_seq
    hidden = [f"key {MASK}", "none", f"again {MASK}"]
    assert [note.text for note in mine.redacted().notes] == hidden
    assert next(note.text for note in mine.view().notes) == "key admin12345"

    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])  # another file now
    assert [note.text for note in mine.redacted().notes] == hidden[:1]


def test_what_is_read_for_a_report_does_not_grow(tell: Teller) -> None:
    tell.read("2.1", "lag", "ok")
    read = tell.incident.journal.redacted()
    tell.read("2.1", "lag", "breach")
    tell.record("note", {"text": "later"})

    assert view_of(tell).last_seq == read.last_seq + 2
    assert ([r.status for r in read.readings], read.notes) == (["ok"], [])
    assert read.latest()["2.1"].status == "ok"


def test_a_line_that_came_between_two_reads_is_held_against_its_bytes(
    tell: Teller, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell.record("note", {"text": "a"})
    other = ChainedLog(tell.incident.journal.path, clock=tell.clock)
    read = ChainedLog.read

    def read_late(log: ChainedLog) -> list[Entry]:
        if log is not other and len(read(other)) < 3:
            other.append("note", {"section": "", "text": "b"})
        return read(log)

    other.append("note", {"section": "", "text": "a"})
    monkeypatch.setattr(ChainedLog, "read", read_late)
    assert view_of(tell).last_seq == 2
    monkeypatch.undo()
    assert [note.text for note in view_of(tell).notes] == ["a", "a", "b"]
    path = tell.incident.journal.path
    path.write_bytes(path.read_bytes().replace(b'"b"', b'"c"'))
    with pytest.raises(RecordError, match="line 3"):
        view_of(tell)


def test_a_read_that_is_cut_off_is_made_anew(tell: Teller, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(_: object) -> Reading:
        raise KeyboardInterrupt

    other = ChainedLog(tell.incident.journal.path, clock=tell.clock)
    tell.read("2.1", "lag", "ok")
    (entry,) = view_of(tell).entries
    other.append("reading", entry.data)
    monkeypatch.setattr(Reading, "model_validate", cut_off)
    with pytest.raises(KeyboardInterrupt):
        view_of(tell)
    monkeypatch.undo()
    assert [reading.seq for reading in view_of(tell).readings] == [1, 2]


def test_what_is_read_is_numbered_and_in_the_runbooks_order(tell: Teller) -> None:
    for step in ("10.1", "5.1", "2.10", "2.2"):
        tell.read(step, step, "ok")

    latest = view_of(tell).latest()
    assert list(latest) == ["2.2", "2.10", "5.1", "10.1"]
    assert [r.seq for r in latest.values()] == [4, 3, 2, 1]


def test_since_is_when_the_trouble_began_not_when_an_order_was_shipped(tell: Teller) -> None:
    assert view_of(tell).since() is None
    tell.read("2.3", "backlog", "breach", since="2026-11-20T00:00:00Z")
    first = view_of(tell).entries[0].at
    assert view_of(tell).since() == first
    tell.read("2.1", "lag", "breach", since="2026-11-24T03:00:00Z")
    assert view_of(tell).since() == START - timedelta(minutes=14)


def test_a_fault_that_was_seen_before_a_symptom_counts(tell: Teller) -> None:
    tell.read("7.3", "automation", "breach")
    tell.read("1.4", "clock skew", "breach")
    assert view_of(tell).since() is None
    tell.read("5.3", "pipeline", "breach")
    assert view_of(tell).since() == view_of(tell).entries[-1].at


class TestCauses:
    def test_a_cause_stays_after_its_remedy_with_its_strongest_sign(self, tell: Teller) -> None:
        diagnose(tell, finding("pipeline_paused", score=0.6))
        diagnose(tell, finding("pipeline_paused", score=0.9))
        tell.act(ActionPhase.APPLIED)
        diagnose(tell, finding("pipeline_paused", "refuted", -0.6), finding("surge", score=0.5))

        found = [(f.name, f.score) for f in view_of(tell).causes()]
        assert found == [("pipeline_paused", 0.9), ("surge", 0.5)]

    def test_a_fault_that_ended_by_itself_was_the_cause(self, tell: Teller) -> None:
        diagnose(tell, finding("store_down"))
        diagnose(tell, finding("store_down", "refuted", -0.6))

        assert [f.name for f in view_of(tell).causes()] == ["store_down"]
        assert [f.status for f in view_of(tell).findings()] == ["refuted"]

    def test_a_diagnosis_that_was_revised_is_none(self, tell: Teller) -> None:
        diagnose(tell, finding("metrics_blind"))
        diagnose(tell, finding("metrics_blind", "refuted", -0.6), finding("bad_prefix"))

        assert [f.name for f in view_of(tell).causes()] == ["bad_prefix"]


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("", None),
        ("01:healthy", "unknown"),
        ("01:healthy 03:healthy", "healthy"),
        ("02:healthy 03:healthy 01:incident", "incident"),
        ("02:healthy", "unknown"),
        ("02:healthy 03:healthy", "healthy"),
        ("05:healthy", "healthy"),
        ("02:unknown 05:healthy", "unknown"),
        ("02:healthy 03:healthy 05:incident", "incident"),
        ("02:unknown 03:incident", "incident"),
        ("02:incident 03:incident 02:healthy 03:healthy", "healthy"),
        ("06:incident", "incident"),
        ("06:incident 02:healthy 03:healthy", "healthy"),
        ("02:incident act", "incident"),
        ("02:incident act 02:healthy 03:healthy", "healthy"),
        ("act 06:fixed act", "unknown"),
        ("02:incident act 06:fixed", "fixed"),
        ("act 06:fixed 07:unknown 08:healthy", "fixed"),
        ("act 06:fixed_alert_decaying 02:healthy 03:healthy", "fixed"),
        ("act 06:fixed_alert_decaying 02:fixed_alert_decaying", "fixed_alert_decaying"),
        ("act 06:fixed_alert_decaying 02:not_fixed 03:not_fixed", "not_fixed"),
        ("act 06:not_fixed 02:healthy", "not_fixed"),
        ("act 06:mitigated 02:healthy 03:healthy", "mitigated"),
        ("act 06:mitigated 02:healthy 03:healthy 05:healthy", "healthy"),
        ("act 06:fixed 05:mitigated", "mitigated"),
        ("act 06:fixed 02:unknown", "unknown"),
        ("act 06:fixed 02:incident", "incident"),
        ("act 06:fixed 02:incident 06:not_fixed", "not_fixed"),
        ("02:incident closed:fixed", "fixed"),
        ("closed:fixed 02:incident", "incident"),
    ],
)
def test_the_verdict_is_what_the_newest_conclusions_say(
    tell: Teller, said: str, verdict: str | None
) -> None:
    for word in said.split():
        section, _, told = word.partition(":")
        if section == "act":
            tell.act(ActionPhase.APPLIED)
        elif section == "closed":
            tell.record("closed", {"verdict": told})
        else:
            tell.section = SECTIONS.get(section, f"{section}_other")
            tell.conclude(Verdict(told), "said")

    assert view_of(tell).verdict() == verdict


def test_what_waited_and_what_was_released_do_not_contradict_each_other(tell: Teller) -> None:
    assert view_of(tell).impact() == (None, None, 0, None, ())
    assert str(view_of(tell).impact()) == "not counted"
    tell.start("02_signals_detection", ticket_id="t-1")
    tell.read("2.3", "backlog", "breach", value=270, orders=130)
    for plan, moved in (("rel-1", 100), ("rel-1", 264), ("rel-2", 30)):  # rel-1 was resumed
        tell.act(ActionPhase.APPLIED, result={"plan": plan, "moved": moved})
    tell.read("2.3", "backlog", "ok", value=1, orders=0)
    tell.read("2.5", "ticket", "ok", ticket="t-2")
    impact = view_of(tell).impact()
    assert impact == (294, 1, 294, 130, ("t-1", "t-2"))
    released = "294 affected; 294 released by move"
    assert str(impact) == f"{released}; 1 waiting at the last look; 130 late orders; 2 tickets"


def test_what_was_taken_back_was_not_released(tell: Teller) -> None:
    tell.act(ActionPhase.APPLIED, result={"plan": "rel-1", "moved": 7})
    tell.act(ActionPhase.APPLIED, action="undo", result={"plan": "rel-1-undo", "moved": 7})
    assert view_of(tell).impact().released == 0


def test_who_had_something_done_is_told_once_each(tell: Teller) -> None:
    for operator in ("ana@box", "ana@box", "bo@box"):
        tell.act(ActionPhase.APPLIED, operator=operator)
    tell.act(ActionPhase.REFUSED, operator="cy@box")
    assert view_of(tell).log_entry(tell.clock.at)["by"] == ["ana@box", "bo@box"]


def test_where_to_go_next_follows_what_helps_while_that_is_of_now(tell: Teller) -> None:
    tell.conclude(Verdict.INCIDENT, "labels wait")
    now = view_of(tell).entries[-1].at
    assert view_of(tell).way_on(now) == (
        "05_root_cause",
        "Labels wait. Find out why. (as of 03:14:06 UTC)",
    )
    tell.section = SECTIONS["05"]
    named = (finding("pipeline_paused"),)
    tell.conclude(Verdict.INCIDENT, "why", findings=named, advice=("1. 6.1 release",))
    tell.section = SECTIONS["02"]
    tell.conclude(Verdict.INCIDENT, "labels wait")
    now = view_of(tell).entries[-1].at
    assert view_of(tell).way_on(now)[0] == "06_remediation"
    assert view_of(tell).way_on(now + timedelta(minutes=11))[0] == "02_signals_detection"


def test_what_was_said_ten_minutes_ago_says_nothing_of_now(tell: Teller) -> None:
    for section in ("02", "03"):
        tell.section = SECTIONS[section]
        tell.conclude(Verdict.HEALTHY, "said")
    at = view_of(tell).entries[-1].at
    assert view_of(tell).verdict(now=at + timedelta(minutes=9)) is Verdict.HEALTHY
    assert view_of(tell).verdict(now=at + timedelta(minutes=11)) is None
    tell.clock.at += timedelta(minutes=11)
    tell.section = SECTIONS["03"]
    tell.conclude(Verdict.HEALTHY, "said")
    assert view_of(tell).verdict() is Verdict.UNKNOWN


def test_what_section_6_saw_before_anything_was_changed_gets_old_too(tell: Teller) -> None:
    tell.section = SECTIONS["06"]
    tell.conclude(Verdict.INCIDENT, "nothing was changed")
    at = view_of(tell).entries[-1].at
    assert view_of(tell).verdict(now=at) is Verdict.INCIDENT
    assert view_of(tell).verdict(now=at + timedelta(hours=1)) is None


def test_an_alert_that_should_have_cleared_by_now_is_looked_at_again(tell: Teller) -> None:
    tell.act(ActionPhase.APPLIED)
    tell.section, at = SECTIONS["06"], tell.clock.at
    late = at + timedelta(minutes=2)
    clear = ClearTime(at, late, late, late, {})
    tell.conclude(Verdict.FIXED_ALERT_DECAYING, "said", clear=clear)
    assert view_of(tell).verdict(now=late) is Verdict.FIXED_ALERT_DECAYING
    assert view_of(tell).verdict(now=late + timedelta(seconds=1)) is Verdict.UNKNOWN
    for section in ("02", "03"):
        tell.section = SECTIONS[section]
        tell.conclude(Verdict.HEALTHY, "said")
    assert view_of(tell).verdict(now=late + timedelta(seconds=1)) is Verdict.FIXED


def test_a_run_may_ask_for_its_own_verdict(tell: Teller) -> None:
    tell.conclude(Verdict.INCIDENT, "labels wait")
    after = view_of(tell).last_seq
    assert view_of(tell).verdict(after=after) is None
    for section in ("02_signals_detection", "03_immediate_actions"):
        tell.section = section
        tell.conclude(Verdict.HEALTHY, "nothing waits")

    assert view_of(tell).verdict(after=after) is Verdict.HEALTHY


def test_plans_and_what_was_carried_out_are_told_by_phase(tell: Teller) -> None:
    for plan in ("rel-a", "rel-b", "rel-a"):
        tell.act(ActionPhase.PLANNED, result={"plan": plan})
    view = view_of(tell)
    assert view.last_applied_at is None
    assert list(view.list_plans()) == ["rel-a", "rel-b"]
    assert list(view.list_plans(after=1)) == ["rel-b", "rel-a"]
    tell.act(ActionPhase.APPLIED, result={"plan": "rel-b"})
    last = view_of(tell).last_applied
    assert last is not None
    assert (last.seq, last.result["plan"]) == (4, "rel-b")


@pytest.mark.parametrize("data", [{}, {"reading": 3}, {"reading": None}, {"reading": {"step": 1}}])
def test_an_entry_of_another_shape_is_counted(tell: Teller, data: dict[str, Any]) -> None:
    tell.record("reading", data)
    tell.read("2.1", "lag", "ok")

    assert (view_of(tell).unreadable, len(view_of(tell).readings)) == ([1], 1)


def test_recovery_counts_while_it_lasts(tmp_path: Path) -> None:
    tell = tell_incident(tmp_path)
    at = view_of(tell).recovered_at()
    assert at is not None
    tell.read("6.5", "recovery", "ok")
    assert view_of(tell).recovered_at() == at
    tell.read("6.5", "recovery", "breach")
    assert view_of(tell).recovered_at() is None


def test_a_plot_of_another_versions_part_spoils_no_reading(tell: Teller) -> None:
    tell.read("2.1", "lag", "ok", plot={"title": "lag", "part": "of another version"})
    assert not view_of(tell).unreadable
    assert view_of(tell).latest()["2.1"].plot is not None
