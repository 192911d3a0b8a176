"""The history of incidents and drills, read from their folders."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fulfillment.policy import POLICY
from runbook_lib.model import ActionPhase, Status, Verdict, format_time
from runbook_lib.record.history import (
    compute_trends,
    list_history,
)
from runbook_lib.record.incident import create_incident
from runbook_lib.redact import Redactor
from tests.support.incidents import START, Clock, Teller, make_incident, tell_incident


def tell_drill(home: Path, at: datetime, *, met: bool = True, detect_s: float = 9.5) -> str:
    """Tell a drill that ended; return its id."""
    tell = Teller(
        create_incident(
            home, redactor=Redactor(), environment="local",
            clock=lambda: at, exercise="surge",
        ),
        Clock(at),
    )  # fmt: skip
    phases = {"detect_s": detect_s, "notify_s": 12.5, "diagnose_s": 7.0}
    tell.incident.mark("drill_scored", is_good=met, phases=phases, objectives=[])
    tell.incident.close(Verdict.FIXED)
    return tell.incident.id


def test_a_drill_and_an_incident_are_told_with_their_times(tmp_path: Path) -> None:
    incident = tell_incident(tmp_path).incident.id
    drill = tell_drill(tmp_path, START + timedelta(hours=1))
    found = {row.incident: row for row in list_history(tmp_path, POLICY)}
    assert list(found) == [drill, incident]
    row = found[drill]
    assert (row.exercise, row.detect_s, row.notify_s, row.is_good) == ("surge", 9.5, 12.5, True)
    assert (row.verdict, row.is_open, row.diagnose_s, row.clear_s) == ("fixed", False, 7.0, None)
    row = found[incident]
    assert (row.exercise, row.cause_found, row.lost) == ("", "pipeline_paused", 0)
    assert row.is_open
    times = [row.detect_s, row.diagnose_s, row.remediate_s, row.clear_s]
    assert all(seconds and seconds > 0 for seconds in times)
    assert row.detect_s == pytest.approx(31 * 60, abs=30)


def test_lost_objects_are_counted_by_the_newest_proof_of_each_plan(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.act(ActionPhase.FAILED, result={"lost": 3})
    tell.act(ActionPhase.FAILED, result={"lost": 2})
    tell.act(ActionPhase.VERIFIED, result={"plan": "another", "lost": 0})
    assert [row.lost for row in list_history(tmp_path, POLICY)] == [2]


def test_what_changed_in_a_folder_is_read_again_and_what_is_gone_is_left_out(
    tmp_path: Path,
) -> None:
    tell = make_incident(tmp_path)
    assert [row.verdict for row in list_history(tmp_path, POLICY)] == [None]
    tell.read("2.1", "lag", Status.BREACH)
    tell.incident.close(Verdict.MITIGATED)
    assert [row.verdict for row in list_history(tmp_path, POLICY)] == ["mitigated"]
    tell.incident.journal.path.unlink()
    assert list_history(tmp_path, POLICY) == []


def test_a_run_that_found_nothing_is_left_out_and_a_damaged_folder_is_not(tmp_path: Path) -> None:
    make_incident(tmp_path).incident.close(Verdict.HEALTHY)
    broken = make_incident(tmp_path).incident
    broken.journal.path.write_text("{")
    assert [row.incident for row in list_history(tmp_path, POLICY)] == [broken.id]


def test_each_scenario_has_a_trend_of_its_own(tmp_path: Path) -> None:
    tell_drill(tmp_path, START)
    newest = START + timedelta(days=7)
    tell_drill(tmp_path, newest, met=False, detect_s=20.5)
    rows = list_history(tmp_path, POLICY)
    (trend,) = compute_trends(rows)
    assert trend == {
        "scenario": "surge",
        "runs": 2,
        "passed": 1,
        "good_at": format_time(START),
    }
