"""The history of incidents and drills, read from their folders."""

from __future__ import annotations

from pathlib import Path

from fulfillment.policy import POLICY
from runbook_lib.model import ActionPhase
from runbook_lib.record.history import (
    list_history,
)
from tests.support.incidents import make_incident


def test_lost_objects_are_counted_by_the_newest_proof_of_each_plan(tmp_path: Path) -> None:
    tell = make_incident(tmp_path)
    tell.act(ActionPhase.FAILED, result={"lost": 3})
    tell.act(ActionPhase.FAILED, result={"lost": 2})
    tell.act(ActionPhase.VERIFIED, result={"plan": "another", "lost": 0})
    assert [row.lost for row in list_history(tmp_path, POLICY)] == [2]
