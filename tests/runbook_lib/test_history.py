"""The history of incidents and drills, read from their folders."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from fulfillment.policy import POLICY
from runbook_lib.model import ActionPhase, Verdict
from runbook_lib.record.history import (
    list_history,
)
from runbook_lib.record.incident import Incident, create_incident
from runbook_lib.redact import Redactor
from tests.support.incidents import START, Clock, Teller, make_incident


def tell_drill(home: Path, at: datetime) -> str:
    tell = Teller(
        create_incident(
            home, redactor=Redactor(), environment="local",
            clock=lambda: at, exercise="surge",
        ),
        Clock(at),
    )  # fmt: skip
    phases = {"detect_s": 9.5, "notify_s": 12.5, "diagnose_s": 7.0}
    tell.incident.mark("drill_scored", is_good=True, phases=phases, objectives=[])
    tell.incident.close(Verdict.FIXED)
    return tell.incident.id


def test_a_drill_and_an_incident_are_told_with_their_times(told: Incident) -> None:
    home = told.folder.parent
    drill = tell_drill(home, START + timedelta(hours=1))
    found = {row.incident: row for row in list_history(home, POLICY)}
    assert list(found) == [drill, told.id]
    row = found[drill]
    assert (row.exercise, row.detect_s, row.notify_s, row.is_good) == ("surge", 9.5, 12.5, True)
    assert (row.verdict, row.is_open, row.diagnose_s, row.clear_s) == ("fixed", False, 7.0, None)
    row = found[told.id]
    assert (row.exercise, row.cause_found, row.lost) == ("", "pipeline_paused", 0)
    assert not row.is_open
    # the story's clock moves only while something waits
    assert (row.detect_s, row.diagnose_s, row.remediate_s, row.clear_s) == (600, 0, 0, 101)


def test_lost_objects_are_counted_by_the_newest_proof_of_each_plan(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.act(ActionPhase.FAILED, result={"lost": 3})
    tell.act(ActionPhase.FAILED, result={"lost": 2})
    tell.act(ActionPhase.VERIFIED, result={"plan": "another", "lost": 0})
    assert [row.lost for row in list_history(tmp_path, POLICY)] == [2]
